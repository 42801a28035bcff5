"""Grid-aware interpolation from LR to HR: HR sample ``j`` reads the LR image at ``(j - offset) / step``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.degradation.apply import apply_axes
from mrbench.degradation.fourier import trigonometric_matrix
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.kernels import bspline_matrix, keys, lanczos3, nearest_matrix, sampling_matrix, triangle
from mrbench.errors import UserError

KernelName = Literal["nearest", "bilinear", "bicubic", "lanczos", "bspline", "zero_filled"]
KERNELS: tuple[str, ...] = get_args(KernelName)


def interpolation_matrix(grid: AxisGrid, kernel: KernelName) -> NDArray[np.float64]:
    """``[n_hr, n_lr]``: interpolation along one axis; every row sums to 1.

    ``nearest``: halves go up. ``bilinear``, ``bicubic`` (Keys, a = -1/2), ``lanczos`` (a = 3): the border samples are
    repeated outwards, Lanczos rows are normalised. ``bspline``: interpolating cubic B-spline, coefficients with
    whole-sample mirror borders; positions outside the samples take the value of the last one. ``zero_filled``: trigonometric,
    periodic with the LR image, Nyquist frequency shared evenly.

    Raises
    ------
    UserError : an unknown kernel.
    """
    t, n = grid.coordinates(), grid.n_lr
    if kernel == "nearest":
        return nearest_matrix(t, n)
    if kernel == "bilinear":
        return sampling_matrix(t, n, triangle, 1, border="replicate")
    if kernel == "bicubic":
        return sampling_matrix(t, n, keys(-0.5), 2, border="replicate")
    if kernel == "lanczos":
        return sampling_matrix(t, n, lanczos3, 3, border="replicate")
    if kernel == "bspline":
        return bspline_matrix(np.clip(t, 0, n - 1), n)
    if kernel == "zero_filled":
        return trigonometric_matrix(t, n)
    raise UserError(f"no interpolation kernel named {kernel!r}. Known: {', '.join(KERNELS)}.")


def interpolate(y: Tensor, grid: Sequence[AxisGrid], kernel: KernelName) -> Tensor:
    """``[B, C, *lr] -> [B, C, *hr]`` with one grid per axis, in ``y``'s dtype and on its device."""
    expected = tuple(g.n_lr for g in grid)
    if y.ndim != 2 + len(expected) or tuple(y.shape[2:]) != expected:
        raise ValueError(f"expected an LR image of shape [B, C, {', '.join(map(str, expected))}], got {list(y.shape)}")
    matrices: list[Tensor | None] = [None if g.is_identity else _like(interpolation_matrix(g, kernel), y) for g in grid]
    return apply_axes(y, matrices)


def _like(matrix: NDArray[Any], y: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(device=y.device, dtype=y.dtype)
