"""Forward operators bound to an image size, built from one matrix per axis.

``H = A_1 x A_2 [x A_3]`` (Kronecker product). With ``A_d = U_d S_d V_d^H`` everything that a method needs has a closed form:
``H^H``, the pseudo-inverse, and ``prox(z, y, rho) = argmin_x |Hx - y|^2 + rho |x - z|^2 = z + H^H (H H^H + rho)^-1 (y - H z)``,
a form that stays accurate for ``rho -> 0``.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.degradation.apply import TensorCache, apply_axes, outer, working
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.interpolate import KernelName, interpolate
from mrbench.degradation.padding import Crop, pad_grids, pad_matrix
from mrbench.degradation.solve import conjugate_gradients

RANK_TOLERANCE = 1e-6  # singular values of an axis below this fraction of its largest count as zero
REAL_TOLERANCE = 1e-12


class Operator(ABC):
    """A forward operator ``H`` on images ``[B, C, *hr_size]``, float32 or float64, on any device.

    Half-precision input is computed and returned in float32. All methods are differentiable and treat each image on its own.
    """

    linear: bool = True

    def __init__(self, name: str, grid: Sequence[AxisGrid]) -> None:
        """Remember what every operator declares: its name and one grid per axis."""
        self.name = name
        self.grid: tuple[AxisGrid, ...] = tuple(grid)

    @property
    def hr_size(self) -> tuple[int, ...]:
        """Size of the images that ``forward`` takes."""
        return tuple(g.n_hr for g in self.grid)

    @property
    def lr_size(self) -> tuple[int, ...]:
        """Size of the images that ``forward`` returns."""
        return tuple(g.n_lr for g in self.grid)

    @property
    def steps(self) -> tuple[float, ...]:
        """Effective scale per axis: HR samples between neighbouring LR samples."""
        return tuple(g.step for g in self.grid)

    @property
    def linear_part(self) -> Operator:
        """The linear operator whose adjoint, pseudo-inverse and proximal solve these are (itself, if linear)."""
        return self

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``y = H x``: ``[B, C, *hr_size] -> [B, C, *lr_size]``, noise-free."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """``H^H y`` of the linear part: ``<H x, y> = <x, H^H y>`` (channels of complex images are real and imaginary part)."""

    @abstractmethod
    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """``argmin_x |H x - y|^2 + rho |x - z|^2``; ``rho >= 0`` is a number or one per image (``[B]``).

        ``rho = 0`` projects ``z`` onto the solutions of ``H x = y``.
        """

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """The least-norm least-squares solution of ``H x = y``."""

    @abstractmethod
    def padded(self, multiple: int | Sequence[int]) -> tuple[Operator, Crop]:
        """The operator on the canvas extended at its end to the next multiples, and the crop that undoes it.

        ``crop.lr(padded.forward(x)) == forward(crop(x))`` and ``crop(padded.pinv(y)) == pinv(crop.lr(y))``; so for ``prox``.
        """

    def upsample(self, y: Tensor, kernel: KernelName = "bicubic") -> Tensor:
        """Grid-aware interpolation, ``[B, C, *lr_size] -> [B, C, *hr_size]`` (:mod:`mrbench.degradation.interpolate`)."""
        self._check(y, self.lr_size, "y")
        return interpolate(working(y), self.grid, kernel)

    def _check(self, x: Tensor, size: tuple[int, ...], name: str) -> None:
        if x.ndim != 2 + len(size) or tuple(x.shape[2:]) != size:
            raise ValueError(f"{self.name}: expected {name} of shape [B, C, {', '.join(map(str, size))}], got {list(x.shape)}")

    def __repr__(self) -> str:
        """Name and sizes."""
        return f"<{self.name} {'x'.join(map(str, self.hr_size))} -> {'x'.join(map(str, self.lr_size))}>"


class AxisFactors:
    """The matrices of a Kronecker product, their singular value decompositions, and all of it as tensors."""

    def __init__(self, matrices: Sequence[NDArray[Any]], grid: Sequence[AxisGrid]) -> None:
        """``matrices[d]`` is ``[n_lr, n_hr]`` of axis ``d``, real or complex."""
        for matrix, g in zip(matrices, grid, strict=True):
            if matrix.shape != (g.n_lr, g.n_hr):
                raise ValueError(f"matrix of shape {matrix.shape} for an axis of {g.n_hr} -> {g.n_lr} samples")
        self.matrices = [_drop_imaginary(m) for m in matrices]
        self._grid = tuple(grid)
        self._cache = TensorCache()

    @cached_property
    def _svd(self) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Per axis ``U^H``, eigenvalues of ``A A^H`` (infinite where they count as zero), and ``G = A^H U = V S``."""
        parts = []
        for matrix in self.matrices:
            u, s, vh = np.linalg.svd(matrix, full_matrices=False)
            kept = s > RANK_TOLERANCE * s[0]
            parts.append((u.conj().T, np.where(kept, s * s, np.inf), vh.conj().T * np.where(kept, s, 0.0)))
        return parts

    def forward(self, x: Tensor) -> Tensor:
        """``H x``."""
        return self._apply("A", x, lambda: self.matrices)

    def adjoint(self, y: Tensor) -> Tensor:
        """``H^H y``."""
        return self._apply("A^H", y, lambda: [m.conj().T for m in self.matrices])

    def to_modes(self, y: Tensor) -> Tensor:
        """``U^H y``."""
        return self._apply("U^H", y, lambda: [uh for uh, _, _ in self._svd])

    def from_modes(self, modes: Tensor) -> Tensor:
        """``U`` applied to modes."""
        return self._apply("U", modes, lambda: [uh.conj().T for uh, _, _ in self._svd])

    def adjoint_of_modes(self, modes: Tensor) -> Tensor:
        """``H^H U`` applied to modes."""
        return self._apply("G", modes, lambda: [g for _, _, g in self._svd])

    def _apply(self, key: str, x: Tensor, build: Callable[[], Sequence[NDArray[Any]]]) -> Tensor:
        return apply_axes(x, self._cache.get(key, lambda: [None if _is_identity(m) else m for m in build()], x))

    def weights(self, like: Tensor, rho: float | Tensor) -> Tensor:
        """``1 / (eigenvalue of H H^H + rho)`` per mode, 0 where the eigenvalue counts as zero."""
        values = self._cache.get("lambda", lambda: [v for _, v, _ in self._svd], like.real)
        return 1 / (outer([v for v in values if v is not None]) + rho)

    def padded(self, grid: Sequence[AxisGrid]) -> AxisFactors:
        """The factors on the extended grids (:func:`mrbench.degradation.padding.pad_matrix`)."""
        return AxisFactors([pad_matrix(m, a, b) for m, a, b in zip(self.matrices, self._grid, grid, strict=True)], grid)


class LinearOperator(Operator):
    """``H = A_1 x A_2 [x A_3]``, closed form throughout.

    Real matrices act on every channel alone. Complex matrices take complex images, 2 channels (real, imaginary).
    """

    def __init__(
        self, name: str, grid: Sequence[AxisGrid], matrices: Sequence[NDArray[Any]], complex_images: bool = False
    ) -> None:
        """``matrices[d]`` is ``[n_lr, n_hr]`` of axis ``d``; complex ones need ``complex_images``."""
        super().__init__(name, grid)
        self._factors = AxisFactors(matrices, grid)
        self._complex = complex_images
        if not complex_images and any(np.iscomplexobj(m) for m in self._factors.matrices):
            raise ValueError(f"{name}: complex matrices need complex images")

    def forward(self, x: Tensor) -> Tensor:
        """``H x`` (see :class:`Operator`)."""
        self._check(x, self.hr_size, "x")
        return self._leave(self._factors.forward(self._enter(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        """``H^H y`` (see :class:`Operator`)."""
        self._check(y, self.lr_size, "y")
        return self._leave(self._factors.adjoint(self._enter(y)))

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Proximal solve (see :class:`Operator`)."""
        self._check(z, self.hr_size, "z")
        self._check(y, self.lr_size, "y")
        z, y = self._enter(z), self._enter(y)
        return self._leave(z + self._least_change(y - self._factors.forward(z), rho))

    def pinv(self, y: Tensor) -> Tensor:
        """Least-norm least-squares solution (see :class:`Operator`)."""
        self._check(y, self.lr_size, "y")
        return self._leave(self._least_change(self._enter(y), 0.0))

    def _least_change(self, residual: Tensor, rho: float | Tensor) -> Tensor:
        """``H^H (H H^H + rho)^-1 residual``."""
        modes = self._factors.to_modes(residual)
        return self._factors.adjoint_of_modes(modes * self._factors.weights(modes, regular(rho, modes)))

    def padded(self, multiple: int | Sequence[int]) -> tuple[Operator, Crop]:
        """On a larger canvas (see :class:`Operator`)."""
        grid = pad_grids(self.grid, multiple)
        crop = Crop(self.hr_size, self.lr_size)
        if grid == self.grid:
            return self, crop
        return LinearOperator(self.name, grid, self._factors.padded(grid).matrices, self._complex), crop

    def _enter(self, x: Tensor) -> Tensor:
        x = working(x)
        if not self._complex:
            return x
        if x.shape[1] != 2:
            raise ValueError(f"{self.name}: complex images have 2 channels (real, imaginary), got {x.shape[1]}")
        return torch.complex(x[:, 0:1], x[:, 1:2])

    def _leave(self, x: Tensor) -> Tensor:
        return torch.cat([x.real, x.imag], dim=1) if self._complex and x.is_complex() else x


class RealPartOperator(Operator):
    """``H x = Re((A_1 x A_2 [x A_3]) x)`` on real images: a sum of Kronecker products of real matrices.

    The signed terms take the imaginary part of an even number of axes. ``prox`` and ``pinv`` use conjugate gradients on
    ``H H^T + rho``, preconditioned with the complex Kronecker product's exact inverse (a few iterations, relative residual
    1e-6 in float32 and 1e-12 in float64; ``MrbenchError`` if not reached).
    """

    def __init__(self, name: str, grid: Sequence[AxisGrid], matrices: Sequence[NDArray[Any]]) -> None:
        """``matrices[d]`` is the complex ``[n_lr, n_hr]`` of axis ``d``."""
        super().__init__(name, grid)
        self._complex = AxisFactors(matrices, grid)
        self._terms: list[tuple[float, AxisFactors]] = []
        for choice in itertools.product((0, 1), repeat=len(matrices)):
            if sum(choice) % 2 == 0:
                parts = [m.imag if pick else m.real for m, pick in zip(self._complex.matrices, choice, strict=True)]
                if all(p.any() for p in parts):
                    self._terms.append(((-1.0) ** (sum(choice) // 2), AxisFactors(parts, grid)))

    def forward(self, x: Tensor) -> Tensor:
        """``H x`` (see :class:`Operator`)."""
        self._check(x, self.hr_size, "x")
        x = working(x)
        return _total([sign * term.forward(x) for sign, term in self._terms])

    def adjoint(self, y: Tensor) -> Tensor:
        """``H^H y`` (see :class:`Operator`)."""
        self._check(y, self.lr_size, "y")
        y = working(y)
        return _total([sign * term.adjoint(y) for sign, term in self._terms])

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Proximal solve (see :class:`Operator`)."""
        self._check(z, self.hr_size, "z")
        z, y = working(z), working(y)
        return z + self._least_change(y - self.forward(z), rho)

    def pinv(self, y: Tensor) -> Tensor:
        """Least-norm least-squares solution (see :class:`Operator`)."""
        return self._least_change(working(y), 0.0)

    def _least_change(self, residual: Tensor, rho: float | Tensor) -> Tensor:
        self._check(residual, self.lr_size, "y")
        rho = regular(rho, residual)
        weights = self._complex.weights(residual, rho)

        def precondition(r: Tensor) -> Tensor:
            return self._complex.from_modes(self._complex.to_modes(_to_complex(r)) * weights).real

        def system(q: Tensor) -> Tensor:
            return self.forward(self.adjoint(q)) + rho * q

        return self.adjoint(conjugate_gradients(system, residual, precondition, len(self.grid), self.name))

    def padded(self, multiple: int | Sequence[int]) -> tuple[Operator, Crop]:
        """On a larger canvas (see :class:`Operator`)."""
        grid = pad_grids(self.grid, multiple)
        crop = Crop(self.hr_size, self.lr_size)
        return (self if grid == self.grid else RealPartOperator(self.name, grid, self._complex.padded(grid).matrices)), crop


def real_part(name: str, grid: Sequence[AxisGrid], matrices: Sequence[NDArray[Any]]) -> LinearOperator | RealPartOperator:
    """``Re(A_1 x A_2 ...)`` on real images; a single Kronecker product if at most one matrix is truly complex."""
    cleaned = [_drop_imaginary(m) for m in matrices]
    if sum(np.iscomplexobj(m) for m in cleaned) <= 1:
        return LinearOperator(name, grid, [np.ascontiguousarray(m.real) for m in cleaned])
    return RealPartOperator(name, grid, cleaned)


def regular(rho: float | Tensor, like: Tensor) -> float | Tensor:
    """``rho`` checked (``>= 0``) and, if it is one number per image (``[B]``), shaped to broadcast over images.

    Raises
    ------
    ValueError : negative or of another shape.
    """
    if not isinstance(rho, Tensor):
        if not rho >= 0:
            raise ValueError(f"rho must be 0 or more, got {rho}")
        return float(rho)
    if rho.numel() == 1:
        return rho.reshape(()).to(like.real)
    if rho.numel() != like.shape[0]:
        raise ValueError(f"rho has {rho.numel()} values for a batch of {like.shape[0]} images")
    return rho.to(like.real).reshape(-1, *(1,) * (like.ndim - 1))


def _is_identity(matrix: NDArray[Any]) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


def _drop_imaginary(matrix: NDArray[Any]) -> NDArray[Any]:
    if np.iscomplexobj(matrix) and np.abs(matrix.imag).max() < REAL_TOLERANCE:
        return np.ascontiguousarray(matrix.real)
    return matrix


def _to_complex(x: Tensor) -> Tensor:
    return torch.complex(x, torch.zeros_like(x))


def _total(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
