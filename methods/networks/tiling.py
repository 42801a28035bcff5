"""Large images in overlapping tiles: cut, restore one by one, average."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """``0, stride, 2 stride, ...``; a tile that would reach beyond the end is moved back to it, and none comes twice.

    Raises
    ------
    ValueError : no stride, or one that would leave gaps between tiles.
    """
    if not 1 <= stride <= tile:
        raise ValueError(f"tiles of {tile} need a stride between 1 and {tile}, got {stride}")
    if length <= tile:
        return [0]
    return list(dict.fromkeys(min(start, length - tile) for start in range(0, length, stride)))


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows ``top:bottom`` and columns ``left:right``."""

    top: int
    bottom: int
    left: int
    right: int

    def scaled(self, numerator: int, denominator: int = 1) -> Tile:
        """The same place on a grid with ``numerator / denominator`` times as many pixels (which must divide the borders)."""
        borders = (self.top, self.bottom, self.left, self.right)
        if any(b * numerator % denominator for b in borders):
            raise ValueError(f"{self} has no whole pixels at {numerator}/{denominator} of the resolution")
        return Tile(*(b * numerator // denominator for b in borders))

    def of(self, image: Tensor) -> Tensor:
        """This part of ``[..., H, W]``."""
        return image[..., self.top : self.bottom, self.left : self.right]


def tiles(height: int, width: int, tile: int, stride: int) -> Iterator[Tile]:
    """All tiles of an image, row by row."""
    for top in tile_starts(height, tile, stride):
        for left in tile_starts(width, tile, stride):
            yield Tile(top, min(top + tile, height), left, min(left + tile, width))


class Average:
    """Collects tiles ``[..., h, w]`` on a canvas; overlaps are averaged with equal weights."""

    def __init__(self, height: int, width: int) -> None:
        """An empty canvas of this size."""
        self._size = (height, width)
        self._sum: Tensor | None = None
        self._count: Tensor | None = None

    def add(self, tile: Tile, image: Tensor) -> None:
        """Put ``image`` at ``tile``."""
        if self._sum is None or self._count is None:
            self._sum = torch.zeros(*image.shape[:-2], *self._size, dtype=image.dtype, device=image.device)
            self._count = torch.zeros(self._size, dtype=image.dtype, device=image.device)
        tile.of(self._sum).add_(image)
        tile.of(self._count).add_(1)

    def result(self) -> Tensor:
        """``[..., H, W]``.

        Raises
        ------
        ValueError : some pixels lie in no tile.
        """
        if self._sum is None or self._count is None or not bool((self._count > 0).all()):
            raise ValueError("the tiles do not cover the image")
        return self._sum / self._count
