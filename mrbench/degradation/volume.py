"""Volumes degraded in 3-D and handed to 2-D methods slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mrbench.degradation.apply import apply_axes, working
from mrbench.degradation.base import Degradation
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.interpolate import KernelName, interpolate
from mrbench.degradation.kernels import bspline_matrix
from mrbench.degradation.measurement import Measurement, measure
from mrbench.degradation.noise import NoiseKind
from mrbench.errors import UserError

ThroughPlane = Literal["linear", "nearest"]
PreUpsample = Literal["none", "sitk_bspline"]
_KERNELS: dict[str, KernelName] = {"linear": "bilinear", "nearest": "nearest"}


def to_slice_positions(y: Tensor, slices: AxisGrid, through_plane: ThroughPlane = "linear") -> Tensor:
    """``[B, C, d, h, w] -> [B, C, D, h, w]``: LR slices interpolated to the positions of the HR slices, grid-aware.

    Beyond the first and last LR slice their values are repeated.

    Raises
    ------
    UserError : an unknown interpolation.
    """
    if through_plane not in _KERNELS:
        raise UserError(f"no through-plane interpolation named {through_plane!r}. Known: {', '.join(_KERNELS)}.")
    in_plane = [AxisGrid.identity(n) for n in y.shape[3:]]
    return interpolate(y, [slices, *in_plane], _KERNELS[through_plane])


def sitk_bspline_back(y: Tensor, grid: Sequence[AxisGrid]) -> Tensor:
    """``[B, C, *lr] -> [B, C, *hr]``: SimpleITK's Resample with ``sitkBSpline`` onto the HR grid, default pixel value 0.

    Half a voxel or more beyond the last LR centre counts as outside and is 0: for a scale of 4 with the origin kept, the last two
    rows, columns and slices (that is what the published preparation of Res-SRDiff does).
    """
    matrices: list[Tensor | None] = []
    for g in grid:
        t = g.coordinates()
        inside = (t > -0.5 - 1e-9) & (t < g.n_lr - 0.5 - 1e-9)
        matrix = np.where(inside[:, None], bspline_matrix(t, g.n_lr), 0.0)
        matrices.append(None if g.is_identity else torch.from_numpy(matrix).to(device=y.device, dtype=working(y).dtype))
    return apply_axes(working(y), matrices)


def own_min_max(images: Tensor) -> tuple[Tensor, Tensor]:
    """Every image ``[C, H, W]`` of a batch mapped to [0, 1] by its own extremes: ``(images - low) / span``, and ``[B, 2]`` low, span.

    It throws absolute intensities away, and no protocol of this project's own does it. Constant images become 0 (span 1).

    Raises
    ------
    UserError : complex images, which have no smallest value.
    """
    if images.shape[1] == 2:
        raise UserError(
            "scaling every slice by its own extremes is of magnitude images; these are complex. Choose another protocol."
        )
    low, high = images.flatten(1).amin(1), images.flatten(1).amax(1)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    shape = (-1, *(1,) * (images.ndim - 1))
    return (images - low.view(shape)) / span.view(shape), torch.stack([low, span], dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class DegradedVolume:
    """A volume degraded in 3-D, on the HR slice positions through-plane and LR in-plane (HR in-plane if it was pre-upsampled).

    ``y``: ``[C, D, h, w]``. ``grid``: in-plane axes. ``slices``: the through-plane axis as it was measured.
    ``sigma``: noise level of the measurement, before it was interpolated.
    """

    y: Tensor
    grid: tuple[AxisGrid, AxisGrid]
    slices: AxisGrid
    sigma: float
    seed_key: str

    def measurement(self, positions: Sequence[int], ids: Sequence[str]) -> Measurement:
        """The slices at HR ``positions`` as a batch; no 2-D operator made them, so ``operator`` is ``None``."""
        y = self.y[:, list(positions)].movedim(1, 0).contiguous()
        gy, gx = self.grid
        return Measurement(y, (gy.n_hr, gx.n_hr), (gy.step, gx.step), None, (gy, gx), self.sigma, tuple(ids), self.seed_key)


def degrade_volume(
    hr: Tensor,
    volume_id: str,
    degradation: Degradation[Any],
    scale: Sequence[float],
    *,
    noise_kind: NoiseKind = "none",
    sigma: float = 0.0,
    clip: bool = False,
    seed_key: str,
    through_plane: ThroughPlane = "linear",
    pre_upsample: PreUpsample = "none",
) -> DegradedVolume:
    """Measure one volume ``[C, D, H, W]`` (range [0, 1], slices first) in 3-D, noise seeded by its id.

    Parameters
    ----------
    through_plane : how LR slices are brought to the positions of the HR slices; in-plane, ``y`` stays LR.
    pre_upsample : ``sitk_bspline`` brings ``y`` back to the HR grid along all axes instead (:func:`sitk_bspline_back`); methods then
        get images of the HR size, on a grid of step 1.

    Raises
    ------
    UserError : the degradation, noise or clip does not fit, or an unknown interpolation.
    """
    if hr.ndim != 4:
        raise ValueError(f"expected a volume of shape [C, D, H, W], got {list(hr.shape)}")
    operator = degradation.bind(tuple(hr.shape[1:]), tuple(scale))
    y = measure(hr[None], operator, [volume_id], noise_kind, sigma, clip, seed_key)
    slices, gy, gx = operator.grid
    if pre_upsample == "sitk_bspline":
        wide = (AxisGrid.identity(gy.n_hr), AxisGrid.identity(gx.n_hr))
        return DegradedVolume(sitk_bspline_back(y, operator.grid)[0], wide, slices, sigma, seed_key)
    if pre_upsample != "none":
        raise UserError(f"no pre-upsampling named {pre_upsample!r}. Known: none, sitk_bspline.")
    return DegradedVolume(to_slice_positions(y, slices, through_plane)[0], (gy, gx), slices, sigma, seed_key)
