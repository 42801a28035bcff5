"""3-D degradations as published for Res-SRDiff: down by point decimation, back by B-splines, scaled by own extremes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrbench.degradation.cards import mrbench_degradations
from mrbench.degradation.volume import degrade_volume, own_min_max
from mrbench.errors import UserError

GOLDEN = Path(os.environ.get("MRBENCH_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))
FILE = GOLDEN / "resshift" / "ressrdiff_degradation.safetensors"


def sitk() -> Any:
    card = next(c for c in mrbench_degradations() if c.name == "sitk_resample")
    return card.load()(card.parse({}))


@pytest.mark.skipif(not FILE.is_file(), reason=f"recorded tensors of the published code are not at {FILE}")
@pytest.mark.parametrize("factor", [2, 4])
def test_down_and_back_equal_the_published_code(factor: int) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(FILE)
    volume = torch.from_numpy(tensors["volume"])[None]
    found = degrade_volume(volume, "v", sitk(), (factor,) * 3, seed_key="k", pre_upsample="sitk_bspline")
    expected = tensors[f"up{factor}"]
    np.testing.assert_allclose(found.y[0].numpy(), expected, atol=1e-2)  # values up to 700
    slices = found.measurement([6], ["v/006"])
    assert slices.size == tuple(expected.shape[1:])
    assert slices.scale == (1, 1)
    assert slices.operator is None
    if factor == 4:
        lr, _ = own_min_max(slices.y)
        np.testing.assert_allclose(2 * lr[0, 0].numpy() - 1, tensors["slice_minmax_lr"], atol=1e-4)
        hr, _ = own_min_max(volume[None, :, 6])
        np.testing.assert_allclose(2 * hr[0, 0].numpy() - 1, tensors["slice_minmax_hr"], atol=1e-5)


@pytest.mark.parametrize(("scale", "dark"), [((4, 4, 4), (2, 2, 2)), ((2, 3, 3), (1, 2, 2))])
def test_the_last_planes_are_outside(scale: tuple[int, ...], dark: tuple[int, ...]) -> None:
    """The known fault of the published preparation, for 256 x 256 x 60 as for this: 255 = 3 x 85."""
    found = degrade_volume(torch.ones(1, 12, 256, 64), "v", sitk(), scale, seed_key="k", pre_upsample="sitk_bspline").y[0]
    zero = [int((found.movedim(axis, 0).flatten(1).abs().sum(1) == 0).sum()) for axis in range(2)]
    assert zero == list(dark[:2])
    inside = found[: 12 - dark[0], : 256 - dark[1], :60]
    assert torch.allclose(inside, torch.ones_like(inside), atol=1e-5)


def test_own_extremes_and_their_undoing() -> None:
    images = torch.tensor([[[[2.0, 4.0], [6.0, 10.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])
    scaled, extremes = own_min_max(images)
    assert scaled[0].flatten().tolist() == [0, 0.25, 0.5, 1]
    assert scaled[1].abs().max() == 0
    low, span = extremes[:, 0].view(2, 1, 1, 1), extremes[:, 1].view(2, 1, 1, 1)
    assert torch.equal(scaled * span + low, images)
    with pytest.raises(UserError, match="magnitude images"):
        own_min_max(torch.zeros(1, 2, 4, 4))


def test_unknown_pre_upsampling_is_refused() -> None:
    with pytest.raises(UserError, match="Known: none, sitk_bspline"):
        degrade_volume(torch.ones(1, 8, 8, 8), "v", sitk(), (2, 2, 2), seed_key="k", pre_upsample="cubic")  # type: ignore[arg-type]
