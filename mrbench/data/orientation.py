"""How a stored volume is shown: one fixed convention for every plane, derived from the affine.

Radiological convention, as on a reading screen:

========  ==================  =====================================  ============================
plane     slices run          rows run (top to bottom)               columns run (left to right)
========  ==================  =====================================  ============================
axial     inferior->superior  anterior->posterior (front at the top)  right->left (patient left on image right)
coronal   posterior->anterior superior->inferior                     right->left (patient left on image right)
sagittal  left->right         superior->inferior                     anterior->posterior (front on image left)
========  ==================  =====================================  ============================

Oblique volumes are not resampled: each stored axis counts as the anatomical axis that it is closest to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mrbench.settings import Plane

# world axis (0: right, 1: anterior, 2: superior) and direction of display axes (slice, row, column)
_CONVENTION: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "axial": ((2, +1), (1, -1), (0, -1)),
    "coronal": ((1, +1), (2, -1), (0, -1)),
    "sagittal": ((0, +1), (2, -1), (1, -1)),
}
_PLANE_ACROSS: dict[int, Literal["sagittal", "coronal", "axial"]] = {0: "sagittal", 1: "coronal", 2: "axial"}
_LETTERS = {(0, 1): "R", (0, -1): "L", (1, 1): "A", (1, -1): "P", (2, 1): "S", (2, -1): "I"}
_TIE = 1e-3  # voxel sizes that differ by less than this fraction are equal (headers hold float32)


@dataclass(frozen=True)
class Display:
    """The way from stored axes to (slice, row, column).

    axes : stored axis of each display axis.
    flips : whether it runs backwards.
    plane : the plane shown, or the empty string if unknown (no affine).
    axcodes : where slices, rows and columns run to, e.g. ``"SPL"``; empty if unknown.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    plane: str = ""
    axcodes: str = ""

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reorder the last three axes of ``array`` (a view, no copy)."""
        lead = array.ndim - 3
        view = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        slices, rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return view[..., slices, rows, columns]

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring the last three axes of ``array``, (slice, row, column), back to the stored order (a view, no copy)."""
        slices, rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        lead = array.ndim - 3
        back = sorted(range(3), key=lambda axis: self.axes[axis])
        return array[..., slices, rows, columns].transpose(*range(lead), *(lead + axis for axis in back))


def display_of(affine: NDArray[np.float64] | None, voxel: tuple[float, float, float], plane: Plane) -> Display:
    """Find the display of a volume.

    Parameters
    ----------
    affine : voxel index -> RAS mm, invertible; ``None``: the array is (slice, row, column) as displayed already.
    voxel : mm along the stored axes.
    plane : ``native`` slices across the thickest stored axis (equal or unknown sizes: the last one).
    """
    if affine is None:
        return Display()
    from nibabel.orientations import io_orientation

    orientation: NDArray[np.float64] = io_orientation(affine)  # type: ignore[no-untyped-call]  # per stored axis: world axis, direction
    world = [int(axis) for axis in orientation[:, 0]]
    direction = [int(sign) for sign in orientation[:, 1]]
    shown = _PLANE_ACROSS[world[_thickest(voxel)]] if plane == "native" else plane
    axes, flips = [], []
    for axis, sign in _CONVENTION[shown]:
        stored = world.index(axis)
        axes.append(stored)
        flips.append(direction[stored] != sign)
    codes = "".join(_LETTERS[target] for target in _CONVENTION[shown])
    return Display((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]), shown, codes)


def _thickest(voxel: tuple[float, float, float]) -> int:
    sizes = np.nan_to_num(np.asarray(voxel, dtype=np.float64), nan=0.0)
    return max(axis for axis in range(3) if sizes[axis] >= sizes.max() * (1 - _TIE))
