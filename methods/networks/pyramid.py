"""Laplacian pyramids of images of any size: bands that add up to the image, level by level.

With ``D`` = down (by 2), ``U`` = up and ``X_1 = x``, ``X_(i+1) = D X_i`` (of ``ceil(n / 2)`` samples), the bands are
``x_i = X_i - U X_(i+1)`` and ``x_L = X_L``. So ``x = x_1 + U (x_2 + U (x_3 + ...))`` whatever D and U
are (Burt and Adelson 1983).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mrbench.degradation.apply import TensorCache, apply_axes, working
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.interpolate import interpolation_matrix
from mrbench.degradation.kernels import keys, overlap_matrix, sampling_matrix

from .pyramid_options import PYRAMIDS, PyramidKind

Matrix = NDArray[np.float64]
Size = tuple[int, int]
KEPT_TRANSFERS = 32


def coarser(size: Sequence[int], levels: int = 1) -> Size:
    """The size ``levels`` levels further down: halves, rounded up."""
    height, width = (-(-n // 2**levels) for n in size)
    return height, width


def crop_pair(n: int) -> tuple[Matrix, Matrix]:
    """``D [ceil(n/2), n]`` and ``U`` of the k-space pyramid along one axis: ``D U = 1``, means are kept.

    D keeps the ``m = ceil(n / 2)`` central frequencies and the first sample's place; U fills zeros. Where m is even, the two
    frequencies +-m/2 of the fine image are one of the coarse image: both weigh ``1 / sqrt(2)`` there and back, so that D of a
    real image is real and ``U = (n / m) D^T``.
    """
    m = -(-n // 2)
    k = np.arange(-(m // 2), m // 2 + 1)
    weight = np.where((2 * np.abs(k) == m) & (m < n), 1 / np.sqrt(2), 1.0)
    angle = 2 * np.pi * (np.arange(m)[:, None, None] / m - np.arange(n)[:, None] / n) * k
    down: Matrix = (np.cos(angle) * weight).sum(-1) / n
    return down, n / m * down.T


def transfer_pair(kind: PyramidKind, n: int) -> tuple[Matrix, Matrix]:
    """``D [ceil(n/2), n]`` and ``U [n, ceil(n/2)]`` along one axis.

    ``pool``: means of pairs, and every sample doubled; an odd last sample stands alone. ``kspace``: :func:`crop_pair`.
    ``bicubic``: antialiased Keys bicubic (a = -1/2) and Keys interpolation, borders renormalised and repeated; here ``D U`` is
    not
    the identity.
    """
    if kind == "kspace":
        return crop_pair(n)
    grid = AxisGrid(n, -(-n // 2), 2.0, 0.5)
    if kind == "pool":
        return overlap_matrix(grid, 2.0), interpolation_matrix(grid, "nearest")
    return sampling_matrix(grid.positions(), n, keys(-0.5), 4.0, 2.0), interpolation_matrix(grid, "bicubic")


class Transfer:
    """Down and up between two levels, on images ``[B, C, *size]`` and ``[B, C, *coarse]``, float32 or float64, any device."""

    def __init__(self, size: Size, pairs: Sequence[tuple[Matrix, Matrix]]) -> None:
        """``pairs``: ``D [m, n]`` and ``U [n, m]`` of both axes."""
        (rows_down, rows_up), (columns_down, columns_up) = pairs
        self.size = size
        self.coarse: Size = (len(rows_down), len(columns_down))
        self.down_matrices: tuple[Matrix, Matrix] = (rows_down, columns_down)
        self.up_matrices: tuple[Matrix, Matrix] = (rows_up, columns_up)
        self._cache = TensorCache()

    def down(self, x: Tensor) -> Tensor:
        """``D x``."""
        return self._apply("down", x, self.size, self.down_matrices)

    def up(self, x: Tensor) -> Tensor:
        """``U x``."""
        return self._apply("up", x, self.coarse, self.up_matrices)

    def up_adjoint(self, x: Tensor) -> Tensor:
        """``U^T x``."""
        return self._apply("up^T", x, self.size, [m.T for m in self.up_matrices])

    def _apply(self, key: str, x: Tensor, size: Size, matrices: Sequence[Matrix]) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[2:]) != size:
            raise ValueError(f"expected an image [B, C, {size[0]}, {size[1]}], got {list(x.shape)}")
        x = working(x)
        return apply_axes(x, self._cache.get(key, lambda: matrices, x))


class Pyramid:
    """Transfers of one kind for images of all sizes; recent ones are kept."""

    def __init__(self, kind: PyramidKind) -> None:
        """``kind`` as in :func:`transfer_pair`.

        Raises
        ------
        ValueError : an unknown kind.
        """
        if kind not in PYRAMIDS:
            raise ValueError(f"no pyramid named {kind!r}. Known: {', '.join(PYRAMIDS)}")
        self.kind: PyramidKind = kind
        self._transfers: OrderedDict[Size, Transfer] = OrderedDict()

    def transfer(self, size: Sequence[int]) -> Transfer:
        """Between images of ``size`` and the next coarser ones."""
        height, width = size
        key = (int(height), int(width))
        if key not in self._transfers:
            self._transfers[key] = Transfer(key, [transfer_pair(self.kind, n) for n in key])
            if len(self._transfers) > KEPT_TRANSFERS:
                self._transfers.popitem(last=False)
        self._transfers.move_to_end(key)
        return self._transfers[key]

    def down(self, x: Tensor, levels: int = 1) -> Tensor:
        """``D^levels x``."""
        for _ in range(levels):
            x = self.transfer(x.shape[2:]).down(x)
        return x

    def up(self, x: Tensor, size: Sequence[int], levels: int = 1) -> Tensor:
        """``U^levels x``, an image of ``size``."""
        for level in reversed(range(levels)):
            x = self.transfer(coarser(size, level)).up(x)
        return x

    def images(self, x: Tensor, levels: int) -> list[Tensor]:
        """``[X_1, ..., X_L]``, the finest first."""
        found = [working(x)]
        for _ in range(levels - 1):
            found.append(self.down(found[-1]))
        return found

    def bands(self, x: Tensor, levels: int) -> list[Tensor]:
        """``[x_1, ..., x_L]``, the finest first."""
        images = self.images(x, levels)
        return [fine - self.transfer(fine.shape[2:]).up(coarse) for fine, coarse in itertools.pairwise(images)] + images[-1:]

    def reconstruct(self, bands: Sequence[Tensor]) -> Tensor:
        """The image that the bands ``[x_1, ..., x_L]`` add up to."""
        image = bands[-1]
        for band in reversed(bands[:-1]):
            image = band + self.transfer(band.shape[2:]).up(image)
        return image
