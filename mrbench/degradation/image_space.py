"""Degradations defined on pixels, on the centre-aligned grid with the effective step ``N / round(N / s)``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mrbench.cards import Options
from mrbench.degradation.base import AxisDegradation, AxisPart
from mrbench.degradation.cards import BicubicAAOptions, BicubicNoAAOptions, GaussianOptions, SlabOptions
from mrbench.degradation.grid import AxisGrid, lr_size
from mrbench.degradation.kernels import FWHM, Border, gaussian_matrix, keys, overlap_matrix, sampling_matrix
from mrbench.errors import UserError

SLAB_TRUNCATE = 4.0  # a Gaussian slice profile is cut at this many sigmas


def bicubic_aa_matrix(grid: AxisGrid, a: float = -0.5, border: Border = "renorm") -> NDArray[np.float64]:
    """``A[i, j]`` proportional to ``keys_a((j - p_i) / step)``, rows sum to 1: the antialiased bicubic."""
    return sampling_matrix(grid.positions(), grid.n_hr, keys(a), 2 * grid.step, grid.step, border)


class BicubicAA(AxisDegradation[BicubicAAOptions]):
    """Antialiased Keys bicubic: the kernel is stretched by the effective step (4 steps wide)."""

    name: ClassVar[str] = "bicubic_aa"

    def _matrix(self, grid: AxisGrid, axis: int) -> NDArray[np.float64]:
        return bicubic_aa_matrix(grid, self.options.a, self.options.border)


class BicubicNoAA(AxisDegradation[BicubicNoAAOptions]):
    """Keys bicubic with four taps and repeated edges: aliases for every scale above 1."""

    name: ClassVar[str] = "bicubic_noaa"

    def _matrix(self, grid: AxisGrid, axis: int) -> NDArray[np.float64]:
        return sampling_matrix(grid.positions(), grid.n_hr, keys(self.options.a), 2, border="replicate")


class Area(AxisDegradation[Options]):
    """Mean over each LR cell of ``step`` HR pixels, partial pixels by overlap; integer steps: average pooling."""

    name: ClassVar[str] = "area"

    def _matrix(self, grid: AxisGrid, axis: int) -> NDArray[np.float64]:
        return overlap_matrix(grid, grid.step)


class Gaussian(AxisDegradation[GaussianOptions]):
    """Sampled Gaussian, ``sigma^2 = (step^2 - 1) / 12`` unless told otherwise."""

    name: ClassVar[str] = "gaussian"

    def _matrix(self, grid: AxisGrid, axis: int) -> NDArray[np.float64]:
        sigma = self.options.sigma
        if sigma is None:
            sigma = self.options.fwhm / FWHM if self.options.fwhm is not None else np.sqrt((grid.step**2 - 1) / 12)
        return gaussian_matrix(grid, float(sigma), self.options.truncate)


class Slab(AxisDegradation[SlabOptions]):
    """Slice profile of ``thickness`` LR spacings along the slice axis (axis 0), or along every axis.

    The other axes are left alone (``in_plane: none``; they must have scale 1) or reduced in the plane.
    """

    name: ClassVar[str] = "slab"

    def _axis(self, n: int, scale: float, axis: int) -> AxisPart:
        if self.options.in_plane == "none" and not self._profiled(axis) and lr_size(n, scale) != n:
            raise UserError(
                f"slab: axis {axis} has scale {scale:g}, but only axis 0 is degraded. Set in_plane to 'area' or 'bicubic_aa', "
                "axes to 'all', or the scale of that axis to 1."
            )
        return super()._axis(n, scale, axis)

    def _profiled(self, axis: int) -> bool:
        return axis == 0 or self.options.axes == "all"

    def _matrix(self, grid: AxisGrid, axis: int) -> NDArray[np.float64]:
        if not self._profiled(axis):
            return bicubic_aa_matrix(grid) if self.options.in_plane == "bicubic_aa" else overlap_matrix(grid, grid.step)
        width = self.options.width * grid.step
        if self.options.profile == "box":
            return overlap_matrix(grid, width)
        return gaussian_matrix(grid, width / FWHM, SLAB_TRUNCATE)
