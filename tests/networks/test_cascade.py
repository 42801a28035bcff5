"""Level operators, bands and the cascade of chains, with priors that know the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from mrbench_methods.networks.band_prior import BandPrior
from mrbench_methods.networks.cascade import Cascade, Chain, check_prox, share_steps
from mrbench_methods.networks.cascade_cost import call_macs, cost
from mrbench_methods.networks.cascade_options import CascadeConfig
from mrbench_methods.networks.edm2_options import EDM2Config
from mrbench_methods.networks.level_operators import ComposedLevel, SeparableLevel, level_operator
from mrbench_methods.networks.pyramid import Pyramid, coarser
from mrbench_methods.networks.pyramid_options import PYRAMIDS, PyramidKind
from torch import Tensor

from mrbench.degradation.base import Degradation
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.degradation.operators import Operator
from mrbench.engine.probe import phantom
from mrbench.errors import UserError
from mrbench.plugins import Registry

TINY: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": (1, 1), "num_blocks": 1, "attn_resolutions": (),
    "middle_attention": False, "logvar_channels": 8,
}  # fmt: skip
FINER = {**TINY, "cond_channels": 1}
CHAIN = Chain(levels=3, steps=9, target="measurement", sigma_min=0.01, sigma_max=10.0, lam=1.0, zeta=0.25)


def degradation(registry: Registry, name: str, **options: Any) -> Degradation[Any]:
    card = registry.degradations.get(name)
    made: Degradation[Any] = card.load()(card.parse(options))
    return made


def bands(pyramid: PyramidKind = "pool", channels: int = 1, networks: Mapping[str, BandPrior] | None = None) -> Cascade:
    levels = {"level1": FINER, "level2": FINER, "level3": TINY}
    if channels == 2:
        levels = {k: {**v, "img_channels": 2, "cond_channels": 2 * v.get("cond_channels", 0)} for k, v in levels.items()}
    config = CascadeConfig(pyramid=pyramid, **{k: EDM2Config(**v) for k, v in levels.items()})
    if networks is None:
        torch.manual_seed(0)
        networks = {name: measured(BandPrior(level)) for name, level in config.networks.items()}
    return Cascade(config, networks)


def measured(network: BandPrior) -> BandPrior:
    network.unit.fill_(0.2)
    network.cond_unit.fill_(0.5)
    for name, parameter in network.named_parameters():
        if name.endswith("gain"):
            parameter.data.fill_(0.3)
    return network.eval().requires_grad_(False)


class Oracle(BandPrior):
    """A prior that knows the band of one image, whatever it is shown."""

    def __init__(self, config: EDM2Config, band: Tensor) -> None:
        super().__init__(config)
        self.band = band
        self.asked: list[float] = []
        measured(self)

    def denoise(self, x: Tensor, sigma: Tensor | float, condition: Tensor | None = None) -> Tensor:
        self.asked.append(float(sigma))
        assert x.shape[2:] == self.band.shape[2:]
        return self.band.expand_as(x)


def oracles(pyramid: PyramidKind, hr: Tensor) -> Cascade:
    made = bands(pyramid)
    found = Pyramid(pyramid).bands(hr, 3)
    networks = {name: Oracle(config, band) for (name, config), band in zip(made.config.networks.items(), found, strict=True)}
    return bands(pyramid, networks=networks)


def measure(
    registry: Registry, name: str, scale: int, size: tuple[int, int] = (48, 40), channels: int = 1, **more: Any
) -> tuple[Tensor, Measurement]:
    options = more.pop("options", {})
    hr = torch.stack([phantom(s, 0, size, channels) for s in "ab"])
    return hr, degrade(hr, ["a", "b"], degradation(registry, name, **options), (scale, scale), seed_key="k", **more)


def residual(m: Measurement, x: Tensor) -> float:
    assert m.operator is not None
    return float((m.operator.forward(x[:, 0]) - m.y).square().mean().sqrt())


# -- operators of levels -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", PYRAMIDS)
@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("bicubic_aa", {}, 1), ("bicubic_aa", {}, 2), ("area", {}, 1), ("gaussian", {}, 1), ("kspace_crop", {}, 1),
        ("kspace_crop", {"domain": "complex"}, 2), ("kspace_crop", {"window": "hann"}, 1), ("bicubic_pil8", {}, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(48, 40), (45, 37)])
def test_proximal_steps_of_coarse_levels_are_optimal(registry, rand, kind, name, options, channels, size) -> None:
    wide = degradation(registry, name, **options).bind(size, (4, 4)).padded(4)[0]
    pyramid = Pyramid(kind)
    transfers = [pyramid.transfer(coarser(wide.hr_size, i)) for i in range(2)]
    level = level_operator(wide, transfers, channels)
    x, y = rand(2, channels, *coarser(wide.hr_size, 2)), rand(2, channels, *wide.lr_size)
    assert torch.allclose(level.forward(x), wide.linear_part.forward(pyramid.up(x, wide.hr_size, 2)), atol=2e-6)
    assert float((level.forward(x) * y).sum()) == pytest.approx(float((x * level.adjoint(y)).sum()), abs=1e-4)
    for rho in (1e-3, torch.tensor([0.01, 1.0])):
        z = level.prox(x, y, rho)
        gradient = level.adjoint(level.forward(z) - y) + (torch.as_tensor(rho) * torch.ones(2))[:, None, None, None] * (z - x)
        assert float(gradient.abs().max()) < 3e-6 * float(level.adjoint(y).abs().max()) + 1e-6


def test_even_k_space_crops_are_no_product_of_matrices(registry) -> None:
    operator = degradation(registry, "kspace_crop").bind((48, 40), (4, 4))
    transfer = Pyramid("pool").transfer((48, 40))
    assert isinstance(level_operator(operator, [transfer], 1), ComposedLevel)
    assert isinstance(level_operator(degradation(registry, "area").bind((48, 40), (4, 4)), [transfer], 1), SeparableLevel)


@pytest.mark.parametrize(("kind", "name"), [("pool", "area")])
def test_composing_operators_leave_what_the_paper_writes(registry, rand, kind, name) -> None:
    """With D U = 1 and H = D^2: H U is D, and H U^2 the identity."""
    operator = degradation(registry, name).bind((48, 40), (4, 4))
    pyramid = Pyramid(kind)
    transfers = [pyramid.transfer((48, 40)), pyramid.transfer((24, 20))]
    x2, x3 = rand(1, 1, 24, 20), rand(1, 1, 12, 10)
    assert torch.allclose(level_operator(operator, transfers[:1], 1).forward(x2), pyramid.down(x2), atol=1e-6)
    assert torch.allclose(level_operator(operator, transfers, 1).forward(x3), x3, atol=1e-6)
    y, z, rho = rand(1, 1, 12, 10), rand(1, 1, 24, 20), 0.1
    closed = z + (y - pyramid.down(z)).repeat_interleave(2, 2).repeat_interleave(2, 3) / (1 + 4 * rho)
    assert torch.allclose(level_operator(operator, transfers[:1], 1).prox(z, y, rho), closed, atol=1e-6)


# -- bands -----------------------------------------------------------------------------------------------------------
def test_a_band_prior_measures_and_remembers(rand) -> None:
    network = BandPrior(EDM2Config(**FINER)).eval()
    assert not network.measured
    band, condition = 3 + 0.1 * rand(4, 1, 16, 16), 2 * rand(4, 1, 16, 16)
    network.measure([(band[:2], condition[:2]), (band[2:], condition[2:])])
    assert network.measured
    assert float(network.centre) == pytest.approx(float(band.mean()))
    assert float(network.unit) == pytest.approx(float((band - band.mean()).square().mean().sqrt()) / 0.5, rel=1e-5)
    assert {"centre", "unit", "cond_centre", "cond_unit"} <= set(network.state_dict())
    with torch.no_grad():
        told = (condition - network.cond_centre) / network.cond_unit
        inside = network((band - network.centre) / network.unit, torch.tensor(0.3), told)
        outside = network.denoise(band, 0.3 * float(network.unit), condition)
    assert torch.allclose(outside, inside * network.unit + network.centre, atol=1e-6)


def test_steps_are_shared_with_spare_ones_to_coarse_levels() -> None:
    assert share_steps(200, 3) == [66, 67, 67]
    assert share_steps(201, 3) == [67, 67, 67]
    assert share_steps(5, 3) == [1, 2, 2]
    with pytest.raises(UserError, match="every one of the 3 levels needs at least one step"):
        share_steps(2, 3)


# -- the cascade -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("scale", "asked"), [(2, [3, 0, 0]), (4, [3, 3, 0]), (8, [3, 3, 3])])
@pytest.mark.parametrize("target", ["measurement", "cascade"])
def test_priors_that_know_the_bands_give_the_image(registry, scale, asked, target) -> None:
    """With composing operators, every level's data agree with the truth: nothing moves it. Levels that y determines are not
    asked.
    """
    hr, m = measure(registry, "area", scale)
    model = oracles("pool", hr)
    chain = Chain(**{**vars(CHAIN), "target": target})
    out = model.restore(m, 1, chain, 0.0, 16)
    assert torch.allclose(out[:, 0], hr, atol=1e-5)
    assert [len(n.asked) for n in model.networks] == asked
    assert sum(asked) == model.calls(chain, m.scale, 0.0)
    levels = model.networks[0].asked
    assert levels[0] == pytest.approx(10.0 * 0.2)  # in the units of the images
    assert levels[-1] == pytest.approx(0.01 * 0.2)


def test_noisy_measurements_are_sampled_on_all_levels(registry) -> None:
    hr, m = measure(registry, "area", 4, noise_kind="gaussian", sigma=0.05)
    model = oracles("pool", hr)
    out = model.restore(m, 1, Chain(**{**vars(CHAIN), "lam": 1e4}), 0.05, 16)
    assert [len(n.asked) for n in model.networks] == [3, 3, 3]
    assert torch.allclose(out[:, 0], hr, atol=1e-3)  # much trust in priors that deserve it


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("kind", PYRAMIDS)
@pytest.mark.parametrize(
    ("name", "channels", "options"), [("bicubic_aa", 1, {}), ("kspace_crop", 2, {"domain": "complex"}), ("gaussian", 1, {})]
)
def test_noise_free_results_explain_the_measurement(registry, kind, name, channels, options, scale) -> None:
    _, m = measure(registry, name, scale, channels=channels, options=options)
    out = bands(kind, channels).restore(m, 1, CHAIN, 0.0, 16)
    assert out.shape == (2, 1, channels, 48, 40)
    assert residual(m, out) < 1e-4


def test_networks_of_one_channel_take_complex_images_part_by_part(registry) -> None:
    _, m = measure(registry, "kspace_crop", 4, channels=2, options={"domain": "complex"})
    out = bands("pool").restore(m, 1, CHAIN, 0.0, 16)
    assert out.shape == (2, 1, 2, 48, 40)
    assert residual(m, out) < 1e-4


def test_leaks_of_finer_bands_soften_coarse_data(registry) -> None:
    """A bicubic measurement is not a function of coarse images: without the leak, level 2 would have to explain all of y."""
    hr, m = measure(registry, "bicubic_aa", 4)
    model = bands("bicubic")
    assert m.operator is not None
    canvas = model._prepared(m.operator, 1)
    explained = m.operator.prox(m.operator.upsample(m.y), m.y, 1e-6)
    found = model._spread(explained, canvas, 2, 0.0, (48, 40))
    pyramid = Pyramid("bicubic")
    true = (m.y - m.operator.forward(pyramid.up(pyramid.down(hr), (48, 40)))).square().flatten(1).mean(1).sqrt()
    assert torch.allclose(found, true, rtol=0.35)
    assert model._spread(explained, canvas, 1, 0.0, (48, 40)) == 1e-3


def test_draws_batches_and_chunks_do_not_change_a_draw(registry) -> None:
    _, m = measure(registry, "bicubic_aa", 8, (45, 37))
    model = bands("bicubic")
    whole = model.restore(m, 3, CHAIN, 0.0, 16)
    assert whole.shape == (2, 3, 1, 45, 37)
    assert float((whole[:, 0] - whole[:, 1]).abs().max()) > 1e-3
    small = model.restore(m, 3, CHAIN, 0.0, 1)
    assert torch.allclose(small, whole, atol=1e-5)
    alone = model.restore(m.select([1]), 1, CHAIN, 0.0, 16)
    assert torch.allclose(alone[0, 0], whole[1, 0], atol=1e-5)


def test_fewer_levels_take_the_rest_from_the_measurement(registry) -> None:
    hr, m = measure(registry, "area", 8)
    model = oracles("pool", hr)
    chain = Chain(**{**vars(CHAIN), "levels": 1})
    model.restore(m, 1, chain, 0.0, 16)
    assert [len(n.asked) for n in model.networks] == [3, 0, 0]
    assert model.calls(chain, m.scale, 0.0) == 3


class NoProx(Operator):
    """An operator of somebody who has written forward alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2, ::2]

    def adjoint(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        raise NotImplementedError("to come")

    def pinv(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def padded(self, multiple: Any) -> Any:
        raise NotImplementedError


def test_mistakes_are_found_before_sampling(registry) -> None:
    hr, m = measure(registry, "area", 2)
    model = oracles("pool", hr)
    with pytest.raises(UserError, match="steps 2: every one of the 3 levels"):
        model.restore(m, 1, Chain(**{**vars(CHAIN), "steps": 2}), 0.0, 16)
    with pytest.raises(UserError, match=r"takes images of 1 channel\(s\), the measurement has 3"):
        model.restore(measure(registry, "area", 2, channels=3)[1], 1, CHAIN, 0.0, 16)
    volume = Measurement(m.y, m.size, m.scale, None, m.grid, 0.0, m.ids, "k")
    with pytest.raises(UserError, match="needs the degradation's 2-D operator"):
        model.restore(volume, 1, CHAIN, 0.0, 16)
    odd = NoProx("odd", m.grid)
    with pytest.raises(UserError, match="odd has none"):
        check_prox(odd, 1, "scale_cascaded")
    with pytest.raises(UserError, match="odd has none"):
        model.restore(Measurement(m.y, m.size, m.scale, odd, m.grid, 0.0, m.ids, "k"), 1, CHAIN, 0.0, 16)
    assert not any(n.asked for n in model.networks)
    fresh = {name: BandPrior(c) for name, c in model.config.networks.items()}
    with pytest.raises(UserError, match="level1 was never trained"):
        bands("pool", networks=fresh)


def test_configurations_that_make_no_cascade() -> None:
    with pytest.raises(ValueError, match="level3 without level2"):
        CascadeConfig(level1=EDM2Config(**FINER), level3=EDM2Config(**TINY))
    with pytest.raises(ValueError, match="the coarsest level has no condition"):
        CascadeConfig(level1=EDM2Config(**TINY), level2=EDM2Config(**TINY))
    assert CascadeConfig(level1=EDM2Config(**TINY)).multiple == 2
    assert bands().config.multiple == 8


def test_costs_are_counted_by_level(registry) -> None:
    model = bands()
    records = cost(model, (48, 40), CHAIN, (4.0, 4.0))
    assert [(r.level, r.size, r.calls) for r in records] == [(1, (48, 40), 3), (2, (24, 20), 3), (3, (12, 10), 0)]
    assert records[0].parameters == sum(p.numel() for p in model.networks[0].parameters())
    assert records[0].call_macs == pytest.approx(4 * records[1].call_macs, rel=0.01)
    assert records[0].macs == 3 * records[0].call_macs
    # conv of the first layer alone, by hand: 8 outputs, 3 inputs (image, condition, ones), 9 taps
    by_hand = math.prod((8, 3, 9, 48, 40))
    assert by_hand < call_macs(model.config.level1, (48, 40)) < 400 * by_hand
    assert cost(model, (45, 37), CHAIN, (4.0, 4.0))[0].size == (48, 40)
