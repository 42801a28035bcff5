"""How restored slices fit together: volumes of single-channel images, slice by slice restored, looked at across the slices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrbench.metrics.cards import SsimOptions
from mrbench.metrics.ssim import Ssim

VERSION = 1
SSIM_SIDE = 11  # slices that a window needs


@dataclass(frozen=True)
class Consistency:
    """Inter-slice consistency of one restored volume; values are ``nan`` where they are not defined (:func:`consistency`).

    gradient_ratio : energy of differences between neighbouring slices over that of the ground truth: 1 is right, less means that
    slices were made alike, more that they flicker. ssim_rows, ssim_columns : SSIM of the volume cut across its slices, along its
    rows and along its columns. ``_fg``: inside the foreground. psnr : of the whole volume, range 1.
    """

    gradient_ratio: float
    gradient_ratio_fg: float
    ssim_rows: float
    ssim_columns: float
    ssim_rows_fg: float
    ssim_columns_fg: float
    psnr: float


def signature() -> str:
    """What the numbers of :class:`Consistency` mean, in one line."""
    return f"interslice|clip:0-1|gradient:neighbours|cuts:with-foreground|pixels:as-sampled|SSIM:gauss11,sigma1.5,L1|mrbench:{VERSION}"


def gradient_energy(volume: Tensor, inside: Tensor | None = None) -> float:
    """``sum (x[s+1] - x[s])^2`` over neighbouring slices of ``[S, H, W]``, of pixels that both slices have ``inside``.

    Pairs with a slice of NaN (one that was not restored) are left out.
    """
    energy = 0.0
    for s in range(len(volume) - 1):
        step = (volume[s + 1] - volume[s]).double()
        if inside is not None:
            step = step[inside[s + 1] & inside[s]]
        value = float(step.square().sum())
        energy += 0.0 if value != value else value
    return energy


def gradient_ratio(estimate: Tensor, truth: Tensor, inside: Tensor | None = None) -> float:
    """Through-plane gradient energy of ``estimate [S, H, W]`` over that of ``truth``, on the slice pairs that both have.

    ``nan`` where the truth does not change from slice to slice (or there are no two neighbouring slices).
    """
    missing = torch.isnan(estimate).flatten(1).any(1)
    known = torch.where(missing[:, None, None], torch.full_like(truth, torch.nan), truth)
    reference = gradient_energy(known, inside)
    return gradient_energy(estimate, inside) / reference if reference > 0 else float("nan")


def cut_ssim(estimate: Tensor, truth: Tensor, mask: Tensor) -> tuple[float, float]:
    """Mean SSIM (Wang 2004, range 1) of the images ``[S, W]`` of every row, over the frame and inside the foreground.

    All arguments are ``[S, H, W]``. Rows without foreground are left out; pixels count as square whatever the distance between
    slices (nothing is resampled). ``nan`` for fewer than 11 slices or columns, missing slices, or no foreground.
    """
    rows = mask.any(2).any(0)
    if min(truth.shape[0], truth.shape[2]) < SSIM_SIDE or not rows.any() or bool(torch.isnan(estimate).any()):
        return float("nan"), float("nan")
    a, b, inside = (x[:, rows].movedim(1, 0) for x in (estimate, truth, mask))
    ssim = Ssim(SsimOptions())
    found = ssim(a[:, None].contiguous(), ssim.reference(b[:, None].contiguous(), inside.contiguous()))
    within = found["_fg"]
    return float(found[""].mean()), float(within[~torch.isnan(within)].mean())


def consistency(estimate: Tensor, truth: Tensor, mask: Tensor) -> Consistency:
    """Inter-slice consistency of a restored volume.

    Parameters
    ----------
    estimate, truth : ``[S, H, W]`` float, slices in order, range [0, 1] (clipped here); NaN slices of ``estimate`` are missing.
    mask : ``[S, H, W]`` bool, the foreground.
    """
    if not estimate.shape == truth.shape == mask.shape or estimate.ndim != 3:
        raise ValueError(
            f"expected three volumes [S, H, W], got {list(estimate.shape)}, {list(truth.shape)}, {list(mask.shape)}"
        )
    estimate, truth = estimate.clamp(0, 1), truth.clamp(0, 1)  # keeps NaN
    rows, rows_fg = cut_ssim(estimate, truth, mask)
    columns, columns_fg = cut_ssim(*(x.mT for x in (estimate, truth, mask)))
    there = ~torch.isnan(estimate).flatten(1).any(1)
    error = (estimate[there] - truth[there]).double().square().mean()
    return Consistency(
        gradient_ratio=gradient_ratio(estimate, truth),
        gradient_ratio_fg=gradient_ratio(estimate, truth, mask),
        ssim_rows=rows,
        ssim_columns=columns,
        ssim_rows_fg=rows_fg,
        ssim_columns_fg=columns_fg,
        psnr=float(-10 * torch.log10(error)),
    )
