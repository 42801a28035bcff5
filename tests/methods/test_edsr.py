"""EDSR: the network, the grids that it works on, the method, and its recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrbench_methods.edsr
import pytest
import torch
from mrbench_methods.edsr.recipe import EDSRRecipe
from mrbench_methods.networks.edsr import EDSR
from mrbench_methods.networks.edsr_options import EDSRConfig
from mrbench_methods.networks.enlarge import onto_hr_grid
from mrbench_methods.networks.self_ensemble import self_ensemble
from mrbench_methods.networks.sub_pixel import factors
from network_support import conformance, loaded, measured, restored, train_tiny, write_checkpoint, write_images
from tests_support import Done

from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry
from mrbench.train.presets import read_options

(CARD,) = mrbench_methods.edsr.mrbench_methods()
TINY: dict[str, Any] = {"width": 8, "blocks": 2, "upsampler": "direct", "channels": 1}


def network(scale: int, **changes: Any) -> EDSR:
    """Random weights, also in the last layer."""
    torch.manual_seed(0)
    made = EDSR(EDSRConfig(**{**TINY, **changes, "scale": scale}))
    for parameter in made.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.02)
    return made.eval()


def checkpoint(folder: Path, scale: int, **changes: Any) -> LocalCheckpoint:
    made = network(scale, **changes)
    return write_checkpoint(folder, "edsr", made.state_dict(), {"network": made.config.model_dump()}, {}, scale=scale)


# -- the network ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("scale", "upsampler"), [(2, "staged"), (3, "staged"), (4, "staged"), (6, "staged"), (5, "direct")])
def test_the_network_enlarges(scale: int, upsampler: str) -> None:
    assert network(scale, upsampler=upsampler, channels=3)(torch.rand(2, 3, 7, 9)).shape == (2, 3, 7 * scale, 9 * scale)


def test_it_begins_at_zero_and_has_the_published_size() -> None:
    made = EDSR(EDSRConfig(channels=3, scale=4))
    assert not bool(made(torch.rand(1, 3, 6, 6)).any())
    # 16 blocks of 64 channels at 4x, the published baseline
    assert sum(p.numel() for p in made.parameters()) == 1_517_571
    assert factors(12) == [2, 2, 3]
    for scale in (5, 7):
        with pytest.raises(UserError, match="upsampler: direct"):
            factors(scale)


def test_a_block_is_its_equation() -> None:
    made = network(2, residual_scale=0.1)
    x = torch.rand(1, 8, 5, 5)
    block: Any = made.body[0]
    inner = block.conv2(block.conv1(x).clamp(min=0))
    torch.testing.assert_close(block(x), x + 0.1 * inner)


# -- grids ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(48, 40), (45, 37)])
@pytest.mark.parametrize("degradation", ["bicubic_aa", "sitk_resample"])
def test_enlarged_images_come_to_lie_where_they_were_seen(degradation: str, size: tuple[int, int], registry: Registry) -> None:
    """A linear ramp over HR coordinates, sampled around every LR sample, is the ramp again."""
    m = measured(registry, size, 4, items=1, degradation=degradation)
    axes = []
    for grid in m.grid:
        fine = torch.arange(4 * grid.n_lr).double()
        axes.append(grid.offset + grid.step * ((fine + 0.5) / 4 - 0.5))
    ramp = axes[0][:, None] + 3 * axes[1][None, :]
    found = onto_hr_grid(ramp[None, None], m, 4)[0, 0]
    rows, columns = torch.arange(size[0]).double(), torch.arange(size[1]).double()
    inner = (slice(4, -6), slice(4, -6))
    torch.testing.assert_close(found[inner], (rows[:, None] + 3 * columns[None, :])[inner], atol=1e-8, rtol=0)


def test_exact_grids_are_not_interpolated(registry: Registry) -> None:
    x = torch.rand(1, 1, 48, 40)
    m = measured(registry, (48, 40), items=1)
    assert torch.equal(onto_hr_grid(x, m, 4), x)


# -- the method ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{}, {"channels": 3, "upsampler": "staged"}])
def test_conformance(changes: dict[str, Any], tmp_path: Path) -> None:
    assert not conformance(CARD, checkpoint(tmp_path / "c", 4, **changes), (4,))


def test_the_method_is_its_equation(tmp_path: Path, registry: Registry) -> None:
    method = loaded(CARD, checkpoint(tmp_path / "c", 4))
    m = measured(registry, (48, 64))
    with torch.no_grad():
        expected = upsample(m) + network(4)(m.y)
    images = restored(method, m, 3)
    torch.testing.assert_close(images[:, 0], expected)
    assert torch.equal(images[:, 0], images[:, 2])
    assert float((images[:, 0] - upsample(m)).abs().max()) > 1e-3


def test_self_ensemble(tmp_path: Path, registry: Registry) -> None:
    """The mean over 8 turned images; a network that does not care how an image lies is not changed."""
    y = torch.rand(2, 1, 5, 7)
    double = torch.nn.Upsample(scale_factor=2)
    torch.testing.assert_close(self_ensemble(double, y), double(y))
    made = network(4)
    with torch.no_grad():
        whole = self_ensemble(made, y)
        assert float((whole - made(y)).abs().max()) > 1e-4
        for turn in range(4):  # whatever way the image is turned first, the mean turns with it
            torch.testing.assert_close(self_ensemble(made, y.rot90(turn, (-2, -1))), whole.rot90(turn, (-2, -1)))
        torch.testing.assert_close(self_ensemble(made, y.flip(-2)), whole.flip(-2))
    plain, eight = (loaded(CARD, checkpoint(tmp_path / n, 4), **o) for n, o in (("a", {}), ("b", {"self_ensemble": True})))
    assert (plain.nfe, eight.nfe) == (1, 8)
    m = measured(registry, (48, 64))
    with torch.no_grad():
        expected = upsample(m) + self_ensemble(made, m.y)
    torch.testing.assert_close(restored(eight, m)[:, 0], expected)


def test_any_size_degradation_and_colour(tmp_path: Path, registry: Registry) -> None:
    for scale in (2, 3, 8):
        method = loaded(CARD, checkpoint(tmp_path / f"x{scale}", scale))
        for degradation in ("bicubic_aa", "kspace_crop"):
            restored(method, measured(registry, (61, 83), scale, items=1, degradation=degradation))
    method = loaded(CARD, checkpoint(tmp_path / "grey", 4))
    colour = measured(registry, (32, 48), channels=3)
    assert torch.equal(restored(method, colour)[:, 0, :1], method.restore(measured_plane(colour), 1)[:, 0])
    restored(loaded(CARD, checkpoint(tmp_path / "rgb", 4, channels=3)), measured(registry, (32, 48)))


def measured_plane(m: Any) -> Any:
    from dataclasses import replace

    return replace(m, y=m.y[:, :1].contiguous())


def test_what_does_not_fit(tmp_path: Path, registry: Registry) -> None:
    method = loaded(CARD, checkpoint(tmp_path / "c", 4))
    with pytest.raises(UserError, match=r"enlarges images 4 times, these need 2 x 2.*--scale 4"):
        method.restore(measured(registry, (32, 32), 2), 1)
    with pytest.raises(UserError, match=r"take images of 1 channel\(s\), the measurement has 2"):
        method.restore(measured(registry, (32, 32), 4, channels=2), 1)
    with pytest.raises(UserError, match="edsr needs weights"):
        loaded(CARD, None)
    made = network(4)
    bare = write_checkpoint(tmp_path / "bare", "edsr", made.state_dict(), {}, {})
    with pytest.raises(UserError, match=r"without a config.json"):
        loaded(CARD, bare)
    other = {"network": {**made.config.model_dump(), "width": 16}}
    wrong = write_checkpoint(tmp_path / "wrong", "edsr", made.state_dict(), other, {})
    with pytest.raises(UserError, match="of another shape"):
        loaded(CARD, wrong)
    alien = write_checkpoint(tmp_path / "alien", "sinsr", made.state_dict(), other, {})
    with pytest.raises(UserError, match="weights of sinsr, not of edsr"):
        loaded(CARD, alien)


# -- the recipe ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_the_recipe_makes_weights_that_the_method_takes(loss: str, mrbench: Callable[..., Done], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    changes = {"network.width": 8, "network.blocks": 1, "loss": loss, "stages.main.optimisers.main.schedule.warmup": 0}
    done = train_tiny(mrbench, "edsr", images, tmp_path / "out", changes, steps=12)
    assert done.code == 0, done.err
    found = read_folder(tmp_path / "out", "edsr")
    assert found.config["architecture"]["network"] == {
        "width": 8, "blocks": 1, "residual_scale": 1.0, "upsampler": "direct", "channels": 1, "scale": 2,
    }  # fmt: skip
    said = json.loads((tmp_path / "out" / "training.json").read_text())
    assert said["optimised_for"] == (["psnr"] if loss == "mse" else [])
    assert said["selection"]["scores"]["psnr"] > 0
    assert bool(found.tensors()["tail.0.weight"].any())  # it moved


def test_presets() -> None:
    for preset in ("demo", "small", "matched"):
        read_options(EDSRRecipe, "edsr", preset, {})
    with torch.device("meta"):
        demo = EDSR(EDSRConfig(**read_options(EDSRRecipe, "edsr", "demo", {}).network.model_dump(), scale=4))
    assert sum(p.numel() for p in demo.parameters()) == 933_072


def test_scales_that_are_no_whole_numbers() -> None:
    context: Any = type("C", (), {"channels": 1, "scale": 2.5, "card": CARD})()
    with pytest.raises(UserError, match=r"whole numbers, not 2.5 times"):
        EDSRRecipe(read_options(EDSRRecipe, "edsr", "demo", {}), context)
