"""Plug-and-play restoration with corrections from coarser grids (Laurent, Tachella, Riccietti, Pustelnik 2025).

On level j (0 is the finest) the objective is ``F_j(x) = 1/2 |A_j x - y|^2 + prior``, whose prior has the gradient ``x - D(x)``
of a
denoiser D. For super-resolution ``A_j = H P ... P`` with y unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.degradation.operators import Operator

from .pyramid import Matrix, Transfer

TAPS = 11
POWER_ITERATIONS = 40

Denoiser = Callable[[Tensor], Tensor]


def windowed_sinc(taps: int = TAPS) -> NDArray[np.float64]:
    """Low-pass filter of half the bandwidth: ``sinc(k / 2)`` under a Kaiser window, summing to one.

    The window follows Kaiser's design rule (1974) for a transition of half the band:
    ``A = 2.285 (taps - 1) pi / 2 + 7.95`` dB, ``beta = 0.5842 (A - 21)^0.4 + 0.07886 (A - 21)`` for A between 21 and 50.
    """
    attenuation = 2.285 * (taps - 1) * math.pi / 2 + 7.95
    beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    k = np.arange(taps) - (taps - 1) / 2
    weights = np.sinc(k / 2) * np.kaiser(taps, beta)
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def sinc_transfer(size: tuple[int, int]) -> Transfer:
    """Restriction ``R`` (filter, periodic, every other sample from the first) and prolongation ``P = 4 R^T`` between levels.

    Raises
    ------
    ValueError : an odd side.
    """
    if any(n % 2 for n in size):
        raise ValueError(f"images of {size[0]}x{size[1]} cannot be halved")
    return Transfer(size, [_sinc_pair(n) for n in size])


def _sinc_pair(n: int) -> tuple[Matrix, Matrix]:
    down = np.zeros((n // 2, n))
    rows = np.arange(n // 2)
    for offset, weight in zip(np.arange(TAPS) - TAPS // 2, windowed_sinc(), strict=True):
        np.add.at(down, (rows, (2 * rows + offset) % n), weight)
    return down, 2 * down.T


@dataclass(frozen=True)
class Grid:
    """One level: its operator, gradient step, and the way to the next coarser level (``None`` on the coarsest).

    above : transfers from the finest level down to this one.
    """

    operator: Operator
    above: tuple[Transfer, ...]
    below: Transfer | None
    step: float

    def forward(self, x: Tensor) -> Tensor:
        """``A x = H P ... P x``."""
        return forward(self.operator, self.above, x)

    def data_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """``A^T (A x - y)``."""
        return adjoint(self.operator, self.above, self.forward(x) - y)


def forward(operator: Operator, transfers: Sequence[Transfer], x: Tensor) -> Tensor:
    """``H P ... P x``; ``transfers``: from the finest level down."""
    for transfer in reversed(transfers):
        x = transfer.up(x)
    return operator.linear_part.forward(x)


def adjoint(operator: Operator, transfers: Sequence[Transfer], y: Tensor) -> Tensor:
    """The adjoint of :func:`forward`."""
    x = operator.linear_part.adjoint(y)
    for transfer in transfers:
        x = transfer.up_adjoint(x)
    return x


def squared_norm(operator: Operator, transfers: Sequence[Transfer], channels: int) -> float:
    """``|A|^2`` of :func:`forward`: the largest eigenvalue of ``A^T A``, by power iteration from fixed numbers."""
    size = transfers[-1].coarse if transfers else operator.hr_size
    x = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = 0.0
    for _ in range(POWER_ITERATIONS):
        x = x / x.norm()
        image = adjoint(operator, transfers, forward(operator, transfers, x))
        value = float(image.norm())
        x = image
    return value


def grids(operator: Operator, levels: int, step: float, channels: int) -> list[Grid]:
    """All levels, the finest first; gradient steps are ``step / |A_j|^2``."""
    size = (operator.hr_size[0], operator.hr_size[1])
    transfers: list[Transfer] = []
    for _ in range(levels - 1):
        transfers.append(sinc_transfer(size))
        size = transfers[-1].coarse
    return [
        Grid(
            operator,
            tuple(transfers[:j]),
            transfers[j] if j < levels - 1 else None,
            step / squared_norm(operator, transfers[:j], channels),
        )
        for j in range(levels)
    ]


@dataclass(frozen=True)
class MultiGridSettings:
    """iterations : on the finest level. cycles : of them that begin with corrections from coarser levels. coarse_steps : of a
    correction, on each level. start_steps : on each coarse level, before the first iteration.
    """

    levels: int
    iterations: int
    cycles: int
    coarse_steps: int
    start_steps: int

    @property
    def calls(self) -> int:
        """Calls of the denoiser, on images of all sizes."""
        below = self.levels - 1
        return self.iterations + below * (self.start_steps + min(self.cycles, self.iterations) * (2 + self.coarse_steps))


class MultiGrid:
    """Proximal gradient steps on the finest level, with coarse corrections in the first ones. Nothing is random."""

    def __init__(self, levels: Sequence[Grid], denoise: Denoiser, settings: MultiGridSettings) -> None:
        """``levels``: the finest first. ``denoise``: D, in the units of the images; the same on every level."""
        self._levels, self._denoise, self._settings = levels, denoise, settings

    def solve(self, start: Tensor, y: Tensor) -> Tensor:
        """From an image ``[B, C, H, W]`` of the finest level to the restored one."""
        s = self._settings
        x = self._coarse_start(start, y)
        for iteration in range(s.iterations):
            if iteration < s.cycles and len(self._levels) > 1:
                x = x + self._correction(0, x, y, 0.0)
            x = self._descend(0, x, y, 0.0)
        return x

    def _coarse_start(self, start: Tensor, y: Tensor) -> Tensor:
        """Some steps on every coarse level, the coarsest first."""
        if not self._settings.start_steps:
            return start
        images = [start]
        for grid in self._levels[:-1]:
            assert grid.below is not None
            images.append(grid.below.down(images[-1]))
        x = images[-1]
        for j in range(len(self._levels) - 1, 0, -1):
            for _ in range(self._settings.start_steps):
                x = self._descend(j, x, y, 0.0)
            above = self._levels[j - 1].below
            assert above is not None
            x = above.up(x)
        return x

    def _descend(self, j: int, x: Tensor, y: Tensor, shift: Tensor | float) -> Tensor:
        """``D(x - tau (A^T (A x - y) + v))``."""
        grid = self._levels[j]
        return self._denoise(x - grid.step * (grid.data_gradient(x, y) + shift))

    def _gradient(self, j: int, x: Tensor, y: Tensor) -> Tensor:
        return self._levels[j].data_gradient(x, y) + x - self._denoise(x)

    def _correction(self, j: int, x: Tensor, y: Tensor, shift: Tensor | float) -> Tensor:
        """What level j + 1 would change, brought to level j.

        The coarse objective is tilted by ``v = R grad F_j(x) - grad F_(j+1)(R x)``, so that both levels agree to first order.
        """
        below = self._levels[j].below
        assert below is not None
        coarse = below.down(x)
        tilt = below.down(self._gradient(j, x, y) + shift) - self._gradient(j + 1, coarse, y)
        if j + 2 < len(self._levels):
            coarse = coarse + self._levels[j + 1].step * self._correction(j + 1, coarse, y, tilt)
        changed = coarse
        for _ in range(self._settings.coarse_steps):
            changed = self._descend(j + 1, changed, y, tilt)
        return below.up(changed - coarse)
