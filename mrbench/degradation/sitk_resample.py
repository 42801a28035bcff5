"""SimpleITK's Resample as a matrix."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mrbench.degradation.base import Degradation
from mrbench.degradation.cards import SitkResampleOptions
from mrbench.degradation.grid import AxisGrid, lr_size
from mrbench.degradation.kernels import bspline_matrix, nearest_matrix, sampling_matrix, triangle
from mrbench.degradation.operators import LinearOperator


class SitkResample(Degradation[SitkResampleOptions]):
    """Resampling to ``spacing * scale`` without low-pass filter.

    The step is the exact scale, the size ``round(N / scale)`` with halves to even (Python's ``round``), and the offset 0
    (``origin: keep``) or ``(scale - 1) / 2`` (``origin: centre``). Up to half a voxel beyond the last centre SimpleITK extends:
    linear by the edge value, B-spline by mirroring, nearest by rounding halves up. A last sample exactly half a voxel
    beyond (``origin: centre``, ``N / scale`` rounded up from .5) counts as outside and is 0, so constants are not kept there.
    """

    name: ClassVar[str] = "sitk_resample"

    def _bind(self, size: tuple[int, ...], scale: tuple[float, ...]) -> LinearOperator:
        grids = [self._grid(n, s) for n, s in zip(size, scale, strict=True)]
        return LinearOperator(self.name, grids, [self._matrix(g) for g in grids])

    def _grid(self, n: int, scale: float) -> AxisGrid:
        lr_size(n, scale)  # refuses scales below 1 and axes that would vanish
        return AxisGrid(n, max(round(n / scale), 1), scale, 0.0 if self.options.origin == "keep" else (scale - 1) / 2)

    def _matrix(self, grid: AxisGrid) -> NDArray[np.float64]:
        positions = grid.positions()
        inside = positions < grid.n_hr - 0.5 - 1e-9
        return np.where(inside[:, None], self._interpolation(positions, grid.n_hr), 0.0)

    def _interpolation(self, positions: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        if self.options.interpolator == "linear":
            return sampling_matrix(positions, n, triangle, 1, border="replicate")
        if self.options.interpolator == "nearest":
            return nearest_matrix(positions, n)
        return bspline_matrix(positions, n)
