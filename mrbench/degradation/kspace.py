"""Truncation of k-space: fewer frequencies, as a scanner with a smaller matrix measures them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mrbench.degradation.apply import working
from mrbench.degradation.base import Degradation
from mrbench.degradation.cards import KspaceCropOptions
from mrbench.degradation.fourier import Window, crop_matrix, fermi, hamming, hann, no_window, tukey
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.interpolate import KernelName
from mrbench.degradation.operators import AxisFactors, LinearOperator, Operator, real_part
from mrbench.degradation.padding import Crop, pad_grids
from mrbench.errors import UserError

Domain = Literal["real", "magnitude", "complex"]


class KspaceOperator(Operator):
    """k-space crop of complex images (2 channels), or the real part or magnitude of that of real images.

    ``upsample(y, "zero_filled")`` puts the measured frequencies back where they came from: the pseudo-inverse of the crop
    *without* window, so ``H(zero_filled(y)) == y`` if there is no window (a window is not undone). In the real domain the
    unpaired Nyquist frequency of even LR sizes is given its other half, which plain zero-filling would lose.
    """

    def __init__(
        self,
        grid: Sequence[AxisGrid],
        windowed: Sequence[NDArray[Any]],
        bare: Sequence[NDArray[Any]],
        domain: Domain,
        name: str = "kspace_crop",
    ) -> None:
        """``windowed`` and ``bare`` are the complex matrices per axis, with and without window."""
        super().__init__(name, grid)
        self._domain: Domain = domain
        self._windowed, self._bare = AxisFactors(windowed, grid), AxisFactors(bare, grid)
        self._linear = self._build(self._windowed)
        self._filling = self._build(self._bare)
        self.linear = domain != "magnitude"

    def _build(self, factors: AxisFactors) -> Operator:
        if self._domain == "complex":
            return LinearOperator(self.name, self.grid, factors.matrices, complex_images=True)
        return real_part(self.name, self.grid, factors.matrices)

    @property
    def linear_part(self) -> Operator:
        """The operator whose adjoint and proximal solve these are."""
        return self._linear

    def forward(self, x: Tensor) -> Tensor:
        """``H x``: complex, real part, or magnitude, by domain."""
        self._accept(x, self.hr_size, "x")
        if self._domain != "magnitude":
            return self._linear.forward(x)
        return self._windowed.forward(working(x) + 0j).abs()

    def adjoint(self, y: Tensor) -> Tensor:
        """``H^H y`` of the linear part."""
        self._accept(y, self.lr_size, "y")
        return self._linear.adjoint(y)

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Proximal solve of the linear part."""
        self._accept(z, self.hr_size, "z")
        return self._linear.prox(z, y, rho)

    def pinv(self, y: Tensor) -> Tensor:
        """Least-norm least-squares solution of the linear part."""
        self._accept(y, self.lr_size, "y")
        return self._linear.pinv(y)

    def upsample(self, y: Tensor, kernel: KernelName = "bicubic") -> Tensor:
        """Grid-aware interpolation; ``zero_filled`` is the crop's own (see the class)."""
        if kernel != "zero_filled":
            return super().upsample(y, kernel)
        self._accept(y, self.lr_size, "y")
        return self._filling.pinv(y)

    def padded(self, multiple: int | Sequence[int]) -> tuple[Operator, Crop]:
        """On a larger canvas (see :class:`Operator`)."""
        grid = pad_grids(self.grid, multiple)
        crop = Crop(self.hr_size, self.lr_size)
        if grid == self.grid:
            return self, crop
        windowed, bare = self._windowed.padded(grid).matrices, self._bare.padded(grid).matrices
        return KspaceOperator(grid, windowed, bare, self._domain, self.name), crop

    def _accept(self, x: Tensor, size: tuple[int, ...], name: str) -> None:
        self._check(x, size, name)
        channels = x.shape[1]
        if self._domain == "complex" and channels != 2:
            raise UserError(
                f"kspace_crop with domain 'complex' takes complex images (2 channels: real, imaginary), got {channels} "
                "channel(s). Set domain to 'real' or 'magnitude' for magnitude images."
            )
        if self._domain != "complex" and channels == 2:
            raise UserError(
                f"kspace_crop with domain '{self._domain}' takes real images, got 2 channels (real, imaginary). "
                "Set domain to 'complex'."
            )


class KspaceCrop(Degradation[KspaceCropOptions]):
    """``y = F_n^-1 { W crop_n( F_N x ) } n/N`` per axis, on the corner- or centre-aligned grid."""

    name: ClassVar[str] = "kspace_crop"

    def _bind(self, size: tuple[int, ...], scale: tuple[float, ...]) -> KspaceOperator:
        align = AxisGrid.corner if self.options.align == "corner" else AxisGrid.centre
        grids = [align(n, s) for n, s in zip(size, scale, strict=True)]
        bare = [_axis_matrix(g, no_window) for g in grids]
        windowed = [_axis_matrix(g, self._window()) for g in grids]
        return KspaceOperator(grids, windowed, bare, self.options.domain, self.name)

    def _window(self) -> Window:
        o = self.options
        return {
            "none": no_window,
            "hann": hann,
            "hamming": hamming,
            "fermi": fermi(o.fermi_r0, o.fermi_w),
            "tukey": tukey(o.tukey_alpha),
        }[o.window]


def _axis_matrix(grid: AxisGrid, window: Window) -> NDArray[Any]:
    return np.eye(grid.n_hr) if grid.is_identity else crop_matrix(grid, window)
