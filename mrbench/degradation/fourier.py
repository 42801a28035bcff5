"""k-space along one axis: truncation, windows, and trigonometric interpolation, as matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mrbench.degradation.grid import AxisGrid

Window = Callable[[NDArray[np.float64]], NDArray[np.float64]]

NOT_MEASURED = 1e-4  # window values below this count as zero: such frequencies cannot be recovered


def frequencies(n: int) -> NDArray[np.int64]:
    """Integer frequencies of a centred spectrum of ``n`` samples: ``-floor(n/2) ... ceil(n/2) - 1``."""
    return np.arange(n) - n // 2


def no_window(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """All ones."""
    return np.ones_like(r)


def hann(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """``0.5 + 0.5 cos(pi r)``."""
    return 0.5 + 0.5 * np.cos(np.pi * r)


def hamming(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """``0.54 + 0.46 cos(pi r)``."""
    return 0.54 + 0.46 * np.cos(np.pi * r)


def fermi(r0: float, w: float) -> Window:
    """``1 / (1 + exp((r - r0) / w))``."""

    def window(r: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.5 * (1 - np.tanh((r - r0) / (2 * w)))

    return window


def tukey(alpha: float) -> Window:
    """One up to ``r = 1 - alpha``, then ``0.5 + 0.5 cos(pi (r - 1 + alpha) / alpha)`` down to zero at ``r = 1``."""

    def window(r: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.5 + 0.5 * np.cos(np.pi * np.clip((r - 1 + alpha) / alpha, 0, 1))

    return window


def crop_matrix(grid: AxisGrid, window: Window) -> NDArray[np.complex128]:
    """``[n, N]``: ``y = F_n^-1 { W . shift . crop_n( F_N x ) } * n / N`` along one axis.

    ``A[i, j] = 1/N sum_k W(|k| / (n/2)) exp(2 pi i k (p_i - j) / N)`` with ``p_i = offset + i N/n`` and ``k`` over
    :func:`frequencies` of ``n``: the ``n`` central samples of the centred spectrum (``N/2 - n/2 ... N/2 + n/2 - 1`` for even
    sizes). The gain ``n/N`` keeps the mean; ``W`` is divided by ``W(0)``.
    """
    n, big = grid.n_lr, grid.n_hr
    k = frequencies(n)
    weight = window(np.abs(k) / (n / 2)) / window(np.zeros(1))
    weight = np.where(weight < NOT_MEASURED, 0.0, weight)
    turns = np.outer(np.arange(n), k) % n / n + grid.offset * k / big  # exact integer reduction, then the grid's shift
    inverse = np.exp(2j * np.pi * turns) * weight
    forward = np.exp(-2j * np.pi * (np.outer(k, np.arange(big)) % big / big))
    matrix: NDArray[np.complex128] = inverse @ forward / big
    return matrix


def trigonometric_matrix(positions: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """``[len(positions), n]``: trigonometric interpolation of ``n`` periodic samples (zero-filled spectrum).

    Dirichlet kernel ``sin(pi u) / (n sin(pi u / n))`` for odd ``n``, ``sin(pi u) / (n tan(pi u / n))`` for even ``n`` (the
    Nyquist frequency is shared evenly by both signs, so real samples stay real).
    """
    u = positions[:, None] - np.arange(n)
    u = u - n * np.round(u / n)
    angle = np.pi * u / n
    zero = np.abs(angle) < 1e-12
    below = np.sin(np.where(zero, 1.0, angle)) if n % 2 else np.tan(np.where(zero, 1.0, angle))
    return np.where(zero, 1.0, np.sin(np.pi * u) / (n * below))
