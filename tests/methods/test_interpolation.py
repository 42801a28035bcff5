from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mrbench_methods.interpolation import mrbench_methods
from torch import Tensor

from mrbench.degradation.cards import mrbench_degradations
from mrbench.degradation.measurement import Measurement, degrade, upsample
from mrbench.plugins import discover

CARDS = {card.name: card for card in mrbench_methods()}
DEGRADATIONS: list[tuple[str, dict[str, Any], int]] = [
    ("bicubic_aa", {}, 1),
    ("bicubic_aa", {}, 3),
    ("bicubic_pil8", {}, 1),
    ("bicubic_noaa", {}, 1),
    ("area", {}, 2),
    ("gaussian", {}, 1),
    ("kspace_crop", {}, 1),
    ("kspace_crop", {"align": "corner", "domain": "magnitude"}, 1),
    ("kspace_crop", {"domain": "complex", "window": "fermi"}, 2),
    ("slab", {"axes": "all", "gap": 0.2}, 1),
    ("sitk_resample", {}, 1),
    ("sitk_resample", {"interpolator": "bspline", "origin": "centre"}, 1),
]


def smooth(channels: int, height: int, width: int) -> Tensor:
    """A smooth periodic image in [0.2, 0.8], the same in every batch, for every degradation."""
    v, u = np.mgrid[:height, :width]
    waves = [0.5 + 0.3 * np.cos(2 * np.pi * v / height + c) * np.cos(2 * np.pi * u / width - c) for c in range(channels)]
    return torch.from_numpy(np.stack(waves)).float()[None]


def measure(degradation: tuple[str, dict[str, Any], int], size: tuple[int, int], scale: float) -> tuple[Tensor, Measurement]:
    name, options, channels = degradation
    card = next(c for c in mrbench_degradations() if c.name == name)
    hr = smooth(channels, *size).repeat(2, 1, 1, 1)
    return hr, degrade(hr, ["a", "b"], card.load()(card.parse(options)), (scale, scale), seed_key="p")


def inner_error(x: Tensor, hr: Tensor, scale: int) -> float:
    margin = 2 * scale
    return float((x - hr)[..., margin:-margin, margin:-margin].abs().max())


# Largest error of a smooth image away from borders. A half-cell shift, (s - 1) / 2 pixels at a slope of 0.03 per pixel and
# axis, would cost at least 0.015, 0.045 and 0.1.
LIMITS = {2: 0.008, 4: 0.025, 8: 0.06}


@pytest.mark.parametrize("size", [(64, 96), (61, 97)], ids=["even", "odd"])
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda d: "-".join([d[0], *map(str, d[1].values()), str(d[2])]))
def test_every_method_restores_every_degradation(
    degradation: tuple[str, dict[str, Any], int], scale: int, size: tuple[int, int]
) -> None:
    """Right shape, finite, and not shifted."""
    hr, m = measure(degradation, size, scale)
    for name, card in CARDS.items():
        x = card.load()(m)
        assert x.shape == hr.shape
        assert x.dtype == torch.float32
        assert torch.isfinite(x).all()
        assert torch.equal(x[0], x[1])
        limit = LIMITS[scale]
        if name == "nearest":
            limit = 0.02 * scale  # half a sample off
        if name == "zero_filled" and degradation[0] == "sitk_resample":
            limit = 0.1  # the LR image is not exactly one period: it rings
        assert inner_error(x, hr, scale) < limit, (name, inner_error(x, hr, scale))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_limits_would_catch_a_shift(scale: int) -> None:
    hr, m = measure(("kspace_crop", {"align": "corner"}, 1), (64, 96), scale)
    for kernel in ("bilinear", "bicubic", "lanczos", "bspline", "zero_filled"):
        assert inner_error(upsample(m, kernel), hr, scale) < LIMITS[scale] < inner_error(upsample(m, kernel, True), hr, scale)


@pytest.mark.parametrize("name", list(CARDS))
def test_results_do_not_depend_on_the_batch(name: str) -> None:
    _, m = measure(("kspace_crop", {}, 1), (63, 40), 4)
    restore = CARDS[name].load()
    assert torch.allclose(restore(m)[1:], restore(m.select([1])), atol=1e-6)


def test_cards_are_complete_and_light() -> None:
    assert list(CARDS) == ["nearest", "bilinear", "bicubic", "lanczos", "bspline", "zero_filled"]
    for card in CARDS.values():
        assert card.deterministic
        assert card.channels == (1, 2, 3)
        assert card.scales is None
        assert not card.needs_operator
        assert card.nfe is None
        assert card.summary
        assert card.licence == "Apache-2.0"
        assert card.load().__doc__
    assert set(CARDS) <= set(discover(environ={"MRBENCH_PLUGINS": ""}).methods.names())
    code = "import sys, mrbench_methods.interpolation; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_they_work_without_an_operator() -> None:
    _, m = measure(("bicubic_aa", {}, 1), (64, 64), 4)
    for name, card in CARDS.items():
        restore = card.load()
        assert torch.equal(restore(replace(m, operator=None)), restore(m)), name
