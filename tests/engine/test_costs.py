"""Costs of methods: networks found and counted, one by one; times of slices alone and in batches; ``mrbench costs``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import mrbench_methods.dps
import mrbench_methods.i2sb
import mrbench_methods.scale_cascaded
import pytest
import torch
import torch.nn.functional as F
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.band_prior import BandPrior
from mrbench_methods.networks.cascade_options import CascadeConfig
from safetensors.torch import save_file
from tests_support import write_plugin
from torch import nn

from mrbench.cards import MethodCard
from mrbench.degradation.measurement import Measurement, degrade, upsample
from mrbench.engine.costs import Costs, Counter, find_networks, measure_costs
from mrbench.engine.probe import phantom
from mrbench.engine.restorer import Restorer
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ADM: dict[str, Any] = {
    "in_channels": 1, "out_channels": 1, "model_channels": 8, "channel_mult": [1, 2], "num_res_blocks": 1, "groups": 4, "num_heads": 1,
}  # fmt: skip
PRIOR = {"family": "adm", "network": ADM, "diffusion": {"steps": 1000, "prediction": "v"}}
COARSE: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [8], "channels_per_head": 8,
    "middle_attention": False, "logvar_channels": 8,
}  # fmt: skip
BAND = {**COARSE, "cond_channels": 1}
CASCADE = {"pyramid": "bicubic", "level1": {**BAND, "unshuffle": 2}, "level2": BAND, "level3": COARSE}


def saved(folder: Path, method: str, tensors: dict[str, torch.Tensor], architecture: dict[str, Any]) -> LocalCheckpoint:
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    document = {
        "format": 1, "method": method, "name": folder.name, "tier": "demo", "kind": "prior" if "family" in architecture else "network",
        "scale": 4, "degradation": "bicubic_aa", "channels": 1, "architecture": architecture, "method_options": {},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def adm(root: Path) -> LocalCheckpoint:
    torch.manual_seed(0)
    return saved(root / "adm", "i2sb", ADMUNet(ADMConfig(**ADM)).state_dict(), {"unet": ADM})


@pytest.fixture(scope="module")
def prior(root: Path) -> LocalCheckpoint:
    torch.manual_seed(0)
    return saved(root / "prior", "dps", ADMUNet(ADMConfig(**ADM)).state_dict(), PRIOR)


@pytest.fixture(scope="module")
def cascade(root: Path) -> LocalCheckpoint:
    torch.manual_seed(0)
    tensors = {}
    for level, config in CascadeConfig(**CASCADE).networks.items():
        network = BandPrior(config)
        network.unit.fill_(0.1 if config.cond_channels else 0.5)
        network.cond_unit.fill_(0.5)
        tensors |= {f"{level}.{key}": value for key, value in network.state_dict().items()}
    return saved(root / "cascade", "scale_cascaded", tensors, CASCADE)


def measured(registry: Registry, items: int = 2, scale: int = 4, sigma: float = 0.0) -> Measurement:
    card = registry.degradations.get("bicubic_aa")
    hr = torch.stack([phantom("ab"[i % 2], i // 2, (48, 40), 1) for i in range(items)])
    degradation, kind = card.load()(card.parse({})), "gaussian" if sigma else "none"
    return degrade(
        hr, [f"d/{i}/v/0" for i in range(items)], degradation, (scale, scale), noise_kind=kind, sigma=sigma, seed_key="test"
    )


def costs_of(
    module: Any, checkpoint: LocalCheckpoint, m: Measurement, repeats: int = 1, **options: Any
) -> tuple[Restorer, Costs]:
    (card,) = module.mrbench_methods()
    restorer = Restorer(card, card.parse(options), CPU, checkpoint=checkpoint)
    return restorer, measure_costs(restorer, m, repeats=repeats)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# -- methods -------------------------------------------------------------------------------------------------------
def test_one_network(adm: LocalCheckpoint, registry: Registry) -> None:
    restorer, found = costs_of(mrbench_methods.i2sb, adm, measured(registry, 3), repeats=2, nfe=3)
    network = ADMUNet(ADMConfig(**ADM))
    (only,) = found.networks
    assert (only.name, only.calls) == ("unet", 3)
    assert only.parameters == found.parameters == parameters(network)
    assert found.nfe == found.calls == found.steps == 3
    assert found.size == (48, 40)
    assert only.macs > 0
    assert (found.single.batch, found.batched.batch) == (1, 3)
    assert (found.single.repeats, found.batched.repeats) == (2, 2)
    assert found.step_seconds == found.single.seconds / 3 > 0
    assert (restorer.warm_up, restorer.on_step) == (True, None)
    _, twice = costs_of(mrbench_methods.i2sb, adm, measured(registry, 1), nfe=6)
    assert twice.networks[0].macs == 2 * only.macs
    assert twice.single is twice.batched


def test_multiply_adds_do_not_depend_on_the_batch_and_add_up_over_tiles(adm: LocalCheckpoint, registry: Registry) -> None:
    whole = costs_of(mrbench_methods.i2sb, adm, measured(registry, 1), nfe=2)[1]
    several = costs_of(mrbench_methods.i2sb, adm, measured(registry, 2), nfe=2)[1]
    assert whole.networks == several.networks
    tiled = costs_of(mrbench_methods.i2sb, adm, measured(registry, 1), nfe=2, tile=32, overlap=8)[1]
    assert tiled.nfe == 2  # as rows say
    assert tiled.calls == tiled.steps == 8
    assert tiled.macs is not None
    assert whole.macs is not None
    assert tiled.macs > 1.2 * whole.macs


def test_gradients_are_counted_outside_of_the_network(prior: LocalCheckpoint, registry: Registry) -> None:
    m = measured(registry, 1)
    (network,) = costs_of(mrbench_methods.dps, prior, m, steps=3)[1].networks
    found = costs_of(mrbench_methods.dps, prior, m, steps=6)[1]
    assert (network.name, network.calls, found.nfe) == ("network", 3, 6)
    assert found.networks[0].macs == 2 * network.macs
    assert 0.9 * found.networks[0].macs < found.other_macs < 1.5 * found.networks[0].macs  # gradients of images, not of weights


def test_levels_of_a_cascade_have_their_own_multiply_adds(cascade: LocalCheckpoint, registry: Registry) -> None:
    """As its own estimate says; a coarse network's call counts as one, and costs a fraction."""
    for sigma, calls in ((0.0, [2, 2, 0]), (0.05, [2, 2, 2])):
        restorer, found = costs_of(mrbench_methods.scale_cascaded, cascade, measured(registry, 1, sigma=sigma), steps=6)
        estimated = restorer.implementation.cost((48, 40), 4, sigma)
        assert [n.name for n in found.networks] == ["level1", "level2", "level3"]
        assert [n.calls for n in found.networks] == [c.calls for c in estimated] == calls
        assert [n.parameters for n in found.networks] == [c.parameters for c in estimated]
        for n, c in zip(found.networks, estimated, strict=True):
            assert n.macs == c.macs
        assert found.nfe == found.calls == sum(calls)
        assert found.parameters == sum(n.parameters for n in found.networks)
        assert found.macs == sum(n.macs for n in found.networks) + found.other_macs
        if sigma:
            assert found.networks[2].macs < 0.5 * found.networks[1].macs


def test_a_method_without_networks(registry: Registry) -> None:
    card = registry.methods.get("bicubic")
    found = measure_costs(Restorer(card, card.parse({}), CPU), measured(registry), repeats=1)
    assert found.networks == ()
    assert [found.parameters, found.nfe, found.calls, found.macs, found.steps, found.step_seconds] == [None] * 6
    assert found.single.seconds > 0


def test_a_network_that_nobody_holds_is_counted_all_the_same(registry: Registry) -> None:
    network = nn.Conv2d(1, 4, 3, padding=1)
    holder = [network]  # closures are looked through, module-level names are not

    def known(m: Measurement) -> torch.Tensor:
        return upsample(m) + 0 * holder[0](upsample(m)).mean(1, keepdim=True)

    def hidden(m: Measurement) -> torch.Tensor:
        return upsample(m) + 0 * HIDDEN(upsample(m)).mean(1, keepdim=True)

    for restore, name in ((known, "network"), (hidden, "Conv2d")):
        card = MethodCard(name, restore)
        found = measure_costs(Restorer(card, card.parse({}), CPU), measured(registry), repeats=1)
        (only,) = found.networks
        assert (only.parameters, only.calls, only.macs) == (40, 1, 4 * 9 * 48 * 40)
        assert (only.name == "Conv2d") == (name == "Conv2d")


HIDDEN = nn.Conv2d(1, 4, 3, padding=1)


def test_what_fails_says_why(registry: Registry) -> None:
    def broken(m: Measurement) -> torch.Tensor:
        raise ValueError("no such thing")

    card = MethodCard("broken", broken)
    restorer = Restorer(card, card.parse({}), CPU)
    with pytest.raises(UserError, match="d/0/v/0: ValueError: no such thing"):
        measure_costs(restorer, measured(registry))
    assert restorer.warm_up


# -- finding -------------------------------------------------------------------------------------------------------
class _Slotted:
    __slots__ = ("_deep", "unset")

    def __init__(self, network: nn.Module) -> None:
        self._deep = {"here": (network,)}


class _Holder:
    def __init__(self) -> None:
        self._first = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.again = self._first
        self.inner = self._first[0]  # a part of a network is no network of its own
        self.second = _Slotted(nn.Linear(3, 3))
        linear = nn.Linear(4, 4)
        self.third = partial(F.mse_loss, target=lambda: linear)
        self.bound = nn.Linear(5, 5).forward
        self.myself = self


def test_networks_are_found_wherever_they_are_held() -> None:
    found = find_networks(_Holder())
    assert {name: parameters(n) for name, n in found.items()} == {
        "first": 6,
        "bound": 30,
        "second.deep.here.0": 12,
        "third.target.linear": 20,
    }
    assert find_networks(object()) == {}
    assert list(find_networks(_Slotted(nn.Linear(1, 1)))) == ["0"]


# -- counting ------------------------------------------------------------------------------------------------------
class _Parts(nn.Module):
    """Never called as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 5), nn.Linear(5, 3)


@pytest.mark.parametrize("inference", [True, False])
def test_operations_are_counted_where_they_are_done(inference: bool) -> None:
    linear, parts = nn.Linear(3, 5), _Parts()
    counter = Counter({"linear": linear, "parts": parts})
    x = torch.randn(7, 3)
    with torch.inference_mode(inference), counter.counting():
        linear(x)
        parts.decoder(parts.encoder(x))
        x @ x.T
    linear(x)  # not any more
    first, second = counter.costs()
    assert (first.calls, first.macs) == (1, 7 * 3 * 5)
    assert (second.calls, second.macs, second.parameters) == (None, 2 * 7 * 3 * 5, 38)
    assert counter.other == 2 * 7 * 3 * 7


def test_attention_is_counted_forward_and_backward() -> None:
    """Two products of N M d each, and five of them in the backward pass, whichever kernel computes them."""
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (16, 12, 12))
    counter = Counter({})
    with counter.counting():
        out = F.scaled_dot_product_attention(q, k, v)
    product = 2 * 3 * 16 * 12 * 8
    assert counter.other == 2 * 2 * product
    with counter.counting():
        torch.autograd.grad(out.sum(), (q, k, v))
    assert counter.other in (2 * (2 + 5) * product, 2 * (2 + 4) * product)  # kernels that keep the weights compute them once


def test_a_gradient_with_respect_to_the_input_of_a_network() -> None:
    network = nn.Conv2d(1, 2, 3, padding=1).requires_grad_(False)
    counter = Counter({"network": network})
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    with counter.counting():
        (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert gradient.shape == x.shape
    assert counter.costs()[0].macs == counter.other // 2 == 2 * 9 * 64


def test_a_network_that_raises_leaves_nothing_behind() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(4, 4))
    counter = Counter({"network": network})
    with counter.counting():
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            network(torch.zeros(2, 3))
        torch.zeros(2, 3) @ torch.zeros(3, 4)
    assert counter.other == 2 * 2 * 3 * 4


# -- the command ---------------------------------------------------------------------------------------------------
PLUGIN = """
    import mrbench, torch
    from torch import nn
    class Levels:
        nfe = 3
        def __init__(self, options):
            self.networks = {"fine": nn.Conv2d(1, 2, 3, padding=1), "coarse": nn.Conv2d(1, 2, 3, padding=1)}
        def restore(self, m, draws):
            x = mrbench.upsample(m)
            fine = self.networks["fine"](x)
            for _ in range(2):
                self.networks["coarse"](m.y)
            return (x + 0 * fine[:, :1])[:, None].repeat(1, draws, 1, 1, 1)
    def restore(m):
        raise RuntimeError("not today")
    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("levels", Levels), mrbench.MethodCard("failing", restore)]
"""


def test_the_command(mrbench, adm: LocalCheckpoint, tmp_path: Path) -> None:
    call = (
        "costs", "-m", "bicubic", "-m", "two=levels", "-m", "sr3", "-m", "failing", "-m", "gt",
        "--scale", 4, "--batch", 2, "--repeats", 1, "--threads", 1, "--plugin", write_plugin(tmp_path, "levels", PLUGIN),
    )  # fmt: skip
    done = mrbench(*call, "-m", f"i2sb@{adm.file.parent}", "--set", "i2sb.nfe=1")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].split() == ["method", "parameters", "NFE", "calls", "GMAC", "alone", "in", "2", "per", "step"]
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert cells["sr3"] == cells["failing"] == ["-"] * 7
    assert cells["bicubic"][:4] == cells["gt"][:4] == ["-"] * 4
    assert cells["bicubic"][-1] == "-"
    assert cells["two"][2:4] == ["3", "3"]  # parameters, M, NFE, calls
    assert (cells["fine"][2], cells["coarse"][2]) == ("1", "2")
    assert cells["i2sb"][2:4] == ["1", "1"]
    assert "sample, uniform-x4" in done.out
    assert "warning: sr3: method sr3: no weights ship with it for 4x" in done.err
    assert "RuntimeError: not today" in done.err

    document = mrbench(*call, "--json").json
    rows = {m["label"]: m for m in document["methods"]}
    assert list(rows) == ["bicubic", "two", "sr3", "failing", "gt"]
    assert rows["sr3"]["error"].startswith("method sr3: no weights ship")
    assert rows["bicubic"]["networks"] == []
    assert rows["two"]["checkpoint"] == ""
    fine, coarse = rows["two"]["networks"]
    pixels = document["size"][0] * document["size"][1]
    assert (fine["macs"], coarse["macs"]) == (18 * pixels, 2 * 18 * pixels // 16)  # a coarse call counts as one, and costs less
    assert rows["two"]["macs"] == fine["macs"] + coarse["macs"] + rows["two"]["other_macs"]
    assert (rows["two"]["nfe"], rows["two"]["calls"], rows["two"]["parameters"]) == (3, 3, 40)
    assert [t["batch"] for t in rows["two"]["timings"]] == [1, 2]
    assert len(document["items"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no method given"),
        (("-m", "bicubic", "-m", "bicubic"), "label 'bicubic' is used twice"),
        (("-m", "bicubi"), "no method named 'bicubi'"),
        (("-m", "bicubic", "--set", "other.steps=3"), "there is no 'other' here"),
        (("-m", "i2sb@nowhere"), "no checkpoint 'nowhere'"),
        (("-m", "bicubic", "--precision", "fp8"), "--precision fp8: unknown"),
        (("-m", "bicubic", "--scale", 4, "--protocol", "uniform-x4"), "exclude each other"),
    ],
)
def test_mistakes_end_with_code_2(mrbench, arguments: tuple[object, ...], message: str) -> None:
    done = mrbench("costs", *arguments)
    assert done.code == 2
    assert message in done.err
