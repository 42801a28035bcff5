"""Averages of weights, against the formulas and published numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file
from torch import nn

from mrbench.errors import UserError
from mrbench.train.ema import Ema, ema_rate, power_exponent
from mrbench.train.settings import EmaSpec

GOLDEN = Path(os.environ.get("MRBENCH_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))


def golden(name: str) -> dict[str, np.ndarray]:
    file = GOLDEN / name
    if not file.is_file():
        pytest.skip(f"no golden file {file} (set MRBENCH_GOLDEN)")
    return load_file(file)


def follow(spec: EmaSpec, weights: list[np.ndarray]) -> list[np.ndarray]:
    """The averages after each of the updates, beginning from the first of the weights."""
    layer = nn.Linear(weights[0].size, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights[0])[None])
        ema = Ema(spec, {"net": layer})
        averages = []
        for new in weights[1:]:
            layer.weight.copy_(torch.from_numpy(new)[None])
            ema.update()
            averages.append(ema.state_dict()["average"]["net.weight"][0].numpy().copy())
    return averages


def test_constant_rate_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=4).astype(np.float32) for _ in range(6)]
    expected, mine = weights[0].astype(np.float64), follow(EmaSpec(rate=0.9), weights)
    for new, average in zip(weights[1:], mine, strict=True):
        expected = 0.9 * expected + 0.1 * new
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def test_warm_up_is_that_of_torch_ema() -> None:
    values = golden("adm/torch_ema_rule.safetensors")
    mine = follow(EmaSpec(kind="warmup", rate=0.99), list(values["params"]))
    np.testing.assert_allclose(np.stack(mine), values["shadow"][1:], rtol=1e-5, atol=1e-6)


def test_power_function_is_that_of_edm2() -> None:
    values = golden("adm/edm2_blocks.safetensors")
    np.testing.assert_allclose([power_exponent(s) for s in values["std"]], values["exp"], rtol=1e-9)
    name = "beta_std0.05_0.10_batch64_at_nimg_64_128_192_6400_1e6"
    for row, std in zip(values[name], (0.05, 0.10), strict=True):
        mine = [ema_rate(EmaSpec(kind="power", std=std), n // 64) for n in (64, 128, 192, 6400, 1000000)]
        np.testing.assert_allclose(mine, row, rtol=1e-6, atol=1e-15)


def test_the_first_power_update_takes_the_weights_as_they_are() -> None:
    weights = [np.ones(3, np.float32), np.full(3, 5, np.float32)]
    np.testing.assert_array_equal(follow(EmaSpec(kind="power", std=0.1), weights)[0], weights[1])


def test_swapping_gives_the_averages_and_then_the_own_weights_back() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    ema = Ema(EmaSpec(rate=0.5), {"net": net})
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    ema.update()
    own = {k: v.clone() for k, v in net.state_dict().items()}
    with ema.swapped():
        assert torch.equal(net[0].weight, own["0.weight"] - 0.5)
        assert torch.equal(net[1].running_mean, own["1.running_mean"])
    assert all(torch.equal(v, own[k]) for k, v in net.state_dict().items())


def test_state_goes_on_exactly_and_only_into_the_same_networks() -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 3)
    first = Ema(EmaSpec(kind="warmup", rate=0.9), {"net": net})
    with torch.no_grad():
        net.weight.mul_(2)
    first.update()
    second = Ema(EmaSpec(kind="warmup", rate=0.9), {"net": net})
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        net.weight.mul_(2)
    first.update()
    second.update()
    for key, value in first.state_dict()["average"].items():
        assert torch.equal(value, second.state_dict()["average"][key])
    with pytest.raises(UserError, match="other networks"):
        Ema(EmaSpec(), {"other": net}).load_state_dict(first.state_dict())


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValidationError, match="has no rate"):
        EmaSpec(kind="power", rate=0.9)
    with pytest.raises(ValidationError, match="has no std"):
        EmaSpec(std=0.1)
