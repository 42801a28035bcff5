"""The same measurement on a larger canvas, without touching what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.kernels import overlap_matrix


@dataclass(frozen=True, slots=True)
class Crop:
    """Undoes a padding: ``crop(x)`` cuts HR tensors ``[..., :H, :W]``, ``crop.lr(y)`` cuts LR tensors ``[..., :h, :w]``."""

    size: tuple[int, ...]
    lr_size: tuple[int, ...]

    def __call__(self, tensor: Tensor) -> Tensor:
        """Cut the trailing axes of an HR tensor back to the original size."""
        return _cut(tensor, self.size)

    def lr(self, tensor: Tensor) -> Tensor:
        """Cut the trailing axes of an LR tensor back to the original size."""
        return _cut(tensor, self.lr_size)


def pad_grids(grids: Sequence[AxisGrid], multiple: int | Sequence[int]) -> tuple[AxisGrid, ...]:
    """Every axis extended at its end to the next multiple, with the same step and offset.

    Raises
    ------
    ValueError : a multiple below 1, or not one per axis.
    """
    multiples = (multiple,) * len(grids) if isinstance(multiple, int) else tuple(multiple)
    if len(multiples) != len(grids) or min(multiples) < 1:
        raise ValueError(f"padded() takes one positive multiple or one per axis ({len(grids)}), got {multiple}")
    return tuple(g.extended(-(-g.n_hr // m) * m) for g, m in zip(grids, multiples, strict=True))


def pad_matrix(matrix: NDArray[Any], grid: AxisGrid, padded: AxisGrid) -> NDArray[Any]:
    """The matrix of one axis on the padded canvas: ``[[A, 0], [0, E]]``.

    The rows of measured samples are the original ones, zero-extended. The added rows ``E`` are means over the cells of the
    extended grid (``step`` HR pixels around each new position), restricted to the added pixels and renormalised; a cell without
    added pixels reads the first of them. So nothing that was measured depends on the padding, and pseudo-inverse and proximal
    solve on the canvas, cropped, are those of the original image.
    """
    if padded == grid:
        return matrix
    rows, columns = padded.n_lr - grid.n_lr, padded.n_hr - grid.n_hr
    result = np.zeros((padded.n_lr, padded.n_hr), dtype=matrix.dtype)
    result[: grid.n_lr, : grid.n_hr] = matrix
    if rows:
        first = np.maximum(padded.offset + padded.step * grid.n_lr - grid.n_hr, 0.0)  # position in the strip of added pixels
        strip = AxisGrid(columns, rows, padded.step, float(np.minimum(first, columns - 1)))
        result[grid.n_lr :, grid.n_hr :] = overlap_matrix(strip, padded.step)
    return result


def pad_measured(y: Tensor, grids: Sequence[AxisGrid], padded: Sequence[AxisGrid]) -> Tensor:
    """LR images extended at the end of both axes by repeating the last row and column. ``y`` is ``[B, C, h, w]``."""
    (gy, gx), (py, px) = grids, padded
    return pad(y, (0, px.n_lr - gx.n_lr, 0, py.n_lr - gy.n_lr), mode="replicate")


def _cut(tensor: Tensor, size: Sequence[int]) -> Tensor:
    for axis, n in enumerate(size, start=-len(size)):
        tensor = tensor.narrow(axis, 0, n)
    return tensor
