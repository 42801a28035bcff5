"""A degradation as seen from a coarser level of a pyramid: ``A = H U^k``, with an exact proximal step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.degradation.apply import working
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.operators import AxisFactors, LinearOperator, Operator, regular
from mrbench.degradation.solve import conjugate_gradients

from .pyramid import Transfer

SEPARABLE = 1e-6  # relative error up to which an operator counts as a product of one matrix per axis
NEAR = 0.5  # relative error up to which such a product is used to precondition
CHUNK = 64  # probing images at once

Matrices = tuple[NDArray[Any], NDArray[Any]]


class LevelOperator(ABC):
    """``A`` on images ``[B, C, h, w]`` of a level."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A x``."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``."""

    @abstractmethod
    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """``argmin_x |A x - y|^2 + rho |x - z|^2``; ``rho >= 0``, a number or ``[B]``."""


class FinestLevel(LevelOperator):
    """The degradation itself (its linear part)."""

    def __init__(self, operator: Operator) -> None:
        """``A = H``."""
        self._operator = operator.linear_part

    def forward(self, x: Tensor) -> Tensor:
        """``H x``."""
        return self._operator.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``H^T y``."""
        return self._operator.adjoint(y)

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """The operator's own."""
        return self._operator.prox(z, y, rho)


class SeparableLevel(LevelOperator):
    """``A = A_1 x A_2``, in closed form."""

    def __init__(self, matrices: Matrices) -> None:
        """``matrices``: ``[rows of y, rows of x]`` and the same of columns."""
        grid = [_sizes(m) for m in matrices]
        self._linear = LinearOperator("level", grid, matrices, complex_images=any(np.iscomplexobj(m) for m in matrices))

    def forward(self, x: Tensor) -> Tensor:
        """``A x``."""
        return self._linear.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``."""
        return self._linear.adjoint(y)

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Closed form."""
        return self._linear.prox(z, y, rho)


class ComposedLevel(LevelOperator):
    """``A = H U ... U`` for any linear H; its proximal step is solved by conjugate gradients in the space of y.

    ``A A^T + rho`` is preconditioned with the exact inverse of a product of one matrix per axis that is near ``A``, if there
    is one.
    """

    def __init__(self, operator: Operator, transfers: Sequence[Transfer], near: Matrices | None) -> None:
        """``transfers``: from the finest level down. ``near``: matrices of the whole, for the preconditioner."""
        self._operator = operator.linear_part
        self._transfers = tuple(transfers)
        self._near = None if near is None else AxisFactors(near, [_sizes(m) for m in near])

    def forward(self, x: Tensor) -> Tensor:
        """``A x``."""
        for transfer in reversed(self._transfers):
            x = transfer.up(x)
        return self._operator.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``."""
        x = self._operator.adjoint(y)
        for transfer in self._transfers:
            x = transfer.up_adjoint(x)
        return x

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Conjugate gradients (``MrbenchError`` if they do not converge)."""
        z, y = working(z), working(y)
        level = regular(rho, y)

        def system(q: Tensor) -> Tensor:
            return self.forward(self.adjoint(q)) + level * q

        def precondition(r: Tensor) -> Tensor:
            if self._near is None:
                return r
            return self._near.from_modes(self._near.to_modes(r) * self._near.weights(r, level))

        q = conjugate_gradients(system, y - self.forward(z), precondition, 3, "the proximal step of a coarse level")
        return z + self.adjoint(q)


def level_operator(operator: Operator, transfers: Sequence[Transfer], channels: int) -> LevelOperator:
    """``H U ... U`` of the level below ``transfers`` (from the finest down), for images of ``channels`` channels."""
    if not transfers:
        return FinestLevel(operator)
    matrices, error = axis_matrices(operator, channels)
    composed = None
    if error < NEAR:
        rows, columns = matrices
        for transfer in transfers:
            rows, columns = rows @ transfer.up_matrices[0], columns @ transfer.up_matrices[1]
        composed = (rows, columns)
        if error < SEPARABLE:
            return SeparableLevel(composed)
    usable = composed is not None and not any(np.iscomplexobj(m) for m in composed)
    return ComposedLevel(operator, transfers, composed if usable else None)


def axis_matrices(operator: Operator, channels: int) -> tuple[Matrices, float]:
    """The matrices per axis of a degradation that is such a product, and the relative error of the product otherwise.

    With ``H = A x B``, ``A`` is what H makes of images with one bright row, summed over the columns, and ``B`` of those with
    one
    bright column, up to the sum of what it makes of a constant image. Complex images (2 channels): the matrices may be complex.
    """
    h = operator.linear_part
    height, width = h.hr_size

    def measured(images: Tensor) -> Tensor:
        if channels == 2:
            y = h.forward(torch.cat([images, torch.zeros_like(images)], dim=1))
            return torch.complex(y[:, 0], y[:, 1])
        return h.forward(images.expand(-1, channels, -1, -1))[:, 0]

    def columns_of(count: int, axis: int) -> NDArray[Any]:
        parts = []
        for first in range(0, count, CHUNK):
            here = torch.arange(first, min(first + CHUNK, count))
            images = torch.zeros(len(here), 1, height, width, dtype=torch.float64)
            lines = images if axis == 0 else images.transpose(2, 3)
            lines[torch.arange(len(here)), :, here] = 1
            parts.append(measured(images).sum(2 - axis))
        return _real(torch.cat(parts).mT.numpy())

    total = complex(measured(torch.ones(1, 1, height, width, dtype=torch.float64)).sum())
    if abs(total) < 1e-9:
        empty = np.zeros((h.lr_size[0], height)), np.zeros((h.lr_size[1], width))
        return empty, 1.0
    rows = columns_of(height, 0)
    columns = columns_of(width, 1) / (total if abs(total.imag) > 1e-12 * abs(total) else total.real)
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(1, channels, height, width, dtype=torch.float64, generator=generator)
    expected = h.forward(probe)
    sample = probe.numpy()
    if channels == 2:
        sample = sample[:, :1] + 1j * sample[:, 1:]
    found = rows @ sample @ columns.T
    if channels == 2:
        found = np.concatenate([found.real, found.imag], axis=1)
    if np.iscomplexobj(found):
        return (rows, columns), 1.0
    error = float(np.linalg.norm(found - expected.numpy()) / np.linalg.norm(expected.numpy()))
    return (rows, columns), error


def _real(matrix: NDArray[Any]) -> NDArray[Any]:
    scale = np.abs(matrix).max()
    small = np.iscomplexobj(matrix) and np.abs(matrix.imag).max() <= 1e-12 * scale
    return np.ascontiguousarray(matrix.real if small else matrix)


def _sizes(matrix: NDArray[Any]) -> AxisGrid:
    """Sizes only: where the samples sit is in the matrix."""
    rows, columns = matrix.shape
    return AxisGrid(columns, rows, columns / rows, 0.0)
