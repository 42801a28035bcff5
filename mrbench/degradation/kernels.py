"""One-dimensional kernels and the matrices made of them, in float64 from the equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrbench.degradation.grid import AxisGrid

Matrix = NDArray[np.float64]
Kernel = Callable[[Matrix], Matrix]
Border = Literal["renorm", "replicate", "mirror", "reflect"]

FWHM = 2 * np.sqrt(2 * np.log(2))  # FWHM of a Gaussian = 2.3548 sigma


def keys(a: float) -> Kernel:
    """Cubic convolution kernel of Keys (1981; there ``a = -1/2``), support ``|t| < 2``.

    ``k(t) = (a+2)|t|^3 - (a+3)|t|^2 + 1`` for ``|t| <= 1`` and ``a|t|^3 - 5a|t|^2 + 8a|t| - 4a`` for ``1 < |t| < 2``.
    """

    def kernel(t: Matrix) -> Matrix:
        t = np.abs(t)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = a * (((t - 5) * t + 8) * t - 4)
        value: Matrix = np.where(t <= 1, near, np.where(t < 2, far, 0.0))
        return value

    return kernel


def triangle(t: Matrix) -> Matrix:
    """Linear interpolation, support ``|t| < 1``."""
    t = np.abs(t)
    return np.where(t < 1, 1 - t, 0.0)


def lanczos3(t: Matrix) -> Matrix:
    """``sinc(t) sinc(t / 3)``, support ``|t| < 3`` (Duchon 1979). Its taps do not sum to one: normalise the rows."""
    product: Matrix = np.sinc(t) * np.sinc(t / 3)
    return np.where(np.abs(t) < 3, product, 0.0)


def cubic_bspline(t: Matrix) -> Matrix:
    """Centred cubic B-spline, support ``|t| < 2`` (Unser, Aldroubi, Eden 1993, part I)."""
    t = np.abs(t)
    near = 2 / 3 - t * t * (1 - t / 2)
    far = np.maximum(2 - t, 0) ** 3 / 6
    return np.where(t < 1, near, far)


def gauss(t: Matrix) -> Matrix:
    """``exp(-t^2 / 2)``, to be normalised by its users."""
    return np.exp(-t * t / 2)


def fold(taps: NDArray[np.int64], n: int, border: Border) -> NDArray[np.int64]:
    """Indices in ``[0, n)`` for taps anywhere: ``replicate`` aaa|abc|ccc, ``mirror`` cba|abc|cba, ``reflect`` cb|abc|ba."""
    if border == "mirror":
        taps = np.mod(taps, 2 * n)
        return np.minimum(taps, 2 * n - 1 - taps)
    if border == "reflect":
        period = max(2 * (n - 1), 1)
        taps = np.mod(taps, period)
        return np.minimum(taps, period - taps) if n > 1 else np.zeros_like(taps)
    return np.clip(taps, 0, n - 1)


def sampling_matrix(
    positions: Matrix, n: int, kernel: Kernel, radius: float, width: float = 1.0, border: Border = "renorm"
) -> Matrix:
    """``[len(positions), n]``: row ``i`` weighs sample ``j`` by ``kernel((j - positions[i]) / width)``, rows sum to 1.

    ``radius`` is the kernel's support in samples (``|j - position| <= radius``). Taps outside ``[0, n)`` are dropped
    (``renorm``) or folded back (:func:`fold`); every row is then divided by its sum.
    """
    first = np.ceil(positions - radius).astype(np.int64)
    taps = first[:, None] + np.arange(int(np.floor(2 * radius)) + 1)
    distance = taps - positions[:, None]
    weights = np.where(np.abs(distance) <= radius, kernel(distance / width), 0.0)
    if border == "renorm":
        weights = np.where((taps >= 0) & (taps < n), weights, 0.0)
    matrix = np.zeros((len(positions), n))
    np.add.at(matrix, (np.arange(len(positions))[:, None], fold(taps, n, border)), weights)
    return _normalised(matrix)


def nearest_matrix(positions: Matrix, n: int) -> Matrix:
    """``[len(positions), n]``: one at ``floor(position + 1/2)`` (halves go up), clamped to the axis."""
    index = np.clip(np.floor(positions + 0.5).astype(np.int64), 0, n - 1)
    return np.eye(n)[index]


def bspline_matrix(positions: Matrix, n: int) -> Matrix:
    """``[len(positions), n]``: interpolating cubic B-spline with whole-sample mirror borders (Unser et al. 1993).

    Coefficients ``c`` solve ``sum_k B(j - k) c_k = x_j``; the value at ``p`` is ``sum_k B(p - k) c_k``.
    """
    prefilter = sampling_matrix(np.arange(n, dtype=np.float64), n, cubic_bspline, 2, border="reflect")
    basis = sampling_matrix(positions, n, cubic_bspline, 2, border="reflect")
    return np.asarray(np.linalg.solve(prefilter.T, basis.T).T, dtype=np.float64)


def overlap_matrix(grid: AxisGrid, width: float) -> Matrix:
    """``[n_lr, n_hr]``: mean over the interval of ``width`` HR pixels around each LR position, by exact overlap.

    HR pixel ``j`` covers ``[j - 1/2, j + 1/2]``. What lies outside the image is dropped and the row renormalised.
    """
    centre = grid.positions()[:, None]
    pixel = np.arange(grid.n_hr, dtype=np.float64)
    overlap = np.minimum(centre + width / 2, pixel + 0.5) - np.maximum(centre - width / 2, pixel - 0.5)
    matrix = np.where(overlap > 1e-12, overlap, 0.0)
    return _normalised(matrix)


def gaussian_matrix(grid: AxisGrid, sigma: float, truncate: float) -> Matrix:
    """``[n_lr, n_hr]``: Gaussian of ``sigma`` HR pixels around each LR position, cut at ``truncate`` sigmas, renormalised."""
    radius = max(truncate * sigma, 1.0)  # at least the two neighbours, however narrow the Gaussian
    return sampling_matrix(grid.positions(), grid.n_hr, gauss, radius, sigma, "renorm")


def _normalised(matrix: Matrix) -> Matrix:
    result: Matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return result
