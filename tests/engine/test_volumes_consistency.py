"""Inter-slice consistency: known values of simple volumes."""

from __future__ import annotations

import math

import pytest
import torch

from mrbench.metrics.cards import SsimOptions
from mrbench.metrics.interslice import consistency, cut_ssim, gradient_energy, gradient_ratio
from mrbench.metrics.ssim import Ssim


def ramp(slices: int = 16, side: int = 20) -> torch.Tensor:
    """Rises by 1/40 from slice to slice, with structure in-plane."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side + 4), indexing="ij")
    return torch.arange(slices).view(-1, 1, 1) / 40 + 0.3 * torch.sin(9 * x * y)[None].abs()


def test_gradient_ratio_of_scaled_steps() -> None:
    truth = ramp()
    assert gradient_energy(truth) == pytest.approx(15 * 20 * 24 / 1600, rel=1e-4)
    assert gradient_ratio(0.5 * truth, truth) == pytest.approx(0.25, rel=1e-4)
    flicker = truth + 0.1 * torch.tensor([1.0, -1.0]).repeat(8).view(-1, 1, 1)
    expected = (0.025**2 * 15 + 0.2**2 * 15 + 2 * 0.025 * 0.2 * (7 - 8)) / (0.025**2 * 15)
    assert gradient_ratio(flicker, truth) == pytest.approx(expected, rel=1e-3)
    assert math.isnan(gradient_ratio(truth, torch.ones_like(truth)))
    assert math.isnan(gradient_ratio(truth[:1], truth[:1]))


def test_gradient_inside_a_mask_counts_pixels_of_both_slices() -> None:
    truth, estimate = ramp(3), ramp(3)
    estimate[:, 10:] *= 3
    mask = torch.zeros(3, 20, 24, dtype=torch.bool)
    mask[:, :10] = True
    mask[2, :5] = False
    assert gradient_ratio(estimate, truth, mask) == pytest.approx(1)
    assert gradient_energy(truth, mask) == pytest.approx((10 + 5) * 24 / 1600, rel=1e-4)


def test_missing_slices_are_left_out_on_both_sides() -> None:
    truth = ramp()
    estimate = truth.clone()
    estimate[5] = torch.nan
    assert gradient_ratio(estimate, truth) == pytest.approx(1)
    found = consistency(estimate, truth, torch.ones_like(truth, dtype=torch.bool))
    assert found.gradient_ratio == pytest.approx(1)
    assert math.isnan(found.ssim_rows)
    assert found.psnr == math.inf


def test_cuts_are_the_images_across_the_slices() -> None:
    truth = ramp()
    estimate = (truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    mask = torch.zeros_like(truth, dtype=torch.bool)
    mask[:, 4:9, 2:] = True
    ssim = Ssim(SsimOptions())
    values, inside = [], []
    for row in range(4, 9):
        one = ssim(estimate[None, None, :, row], ssim.reference(truth[None, None, :, row], mask[None, :, row]))
        values.append(float(one[""]))
        inside.append(float(one["_fg"]))
    found, found_inside = cut_ssim(estimate, truth, mask)
    assert found == pytest.approx(sum(values) / 5, abs=1e-6)
    assert found_inside == pytest.approx(sum(inside) / 5, abs=1e-6)
    whole = consistency(estimate, truth, mask)
    assert whole.ssim_rows == pytest.approx(found, abs=1e-6)
    columns = cut_ssim(estimate.mT, truth.mT, mask.mT)[0]
    assert whole.ssim_columns == pytest.approx(columns, abs=1e-6)
    assert abs(columns - found) > 1e-3
    assert math.isnan(cut_ssim(estimate[:10], truth[:10], mask[:10])[0])


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="three volumes"):
        consistency(ramp(), ramp()[1:], torch.ones(16, 20, 24, dtype=torch.bool))
