"""What every volume must fulfil before it is used, whatever it was read from."""

from __future__ import annotations

import math

import numpy as np

from mrbench.data.records import Volume
from mrbench.errors import DataError

#: Largest number of voxels times channels that a reader will unpack (4 GiB of float32): headers can lie.
MAX_VOXELS = 2**30


def check_size(file: object, count: int) -> None:
    """Refuse a declared number of values that no MRI volume has, before it is unpacked.

    Raises
    ------
    DataError : more than :data:`MAX_VOXELS`.
    """
    if count > MAX_VOXELS:
        raise DataError(
            file, f"it declares {count} values, more than the {MAX_VOXELS} that are read at once.", "Cut it into parts."
        )


def check_volume(volume: Volume, file: object, min_side: int = 16) -> None:
    """Check a volume's shape, values and geometry.

    Parameters
    ----------
    volume : as a reader returns it.
    file : named in the errors.
    min_side : shortest allowed image side, in pixels. With an affine, where the slice axis is not known yet, the two longest
        of the three axes count.

    Raises
    ------
    DataError : wrong number of axes or channels, too small, NaN or infinite values, one constant value, a mask or affine
        that does not fit.
    """
    array = volume.array
    if array.ndim != 4 or array.size == 0:
        raise DataError(file, f"expected an array [channels, D0, D1, D2] with values in it, got shape {array.shape}.")
    if array.dtype != np.float32:
        raise DataError(file, f"expected float32 values, got {array.dtype}.")
    if array.shape[0] not in (1, 2, 3):
        raise DataError(file, f"it has {array.shape[0]} channels; 1 (magnitude), 2 (complex) or 3 (colour) are possible.")
    sides = sorted(array.shape[1:])[1:] if volume.affine is not None else array.shape[2:]
    if min(sides) < min_side:
        raise DataError(
            file, f"its images are {sides[0]} x {sides[1]} pixels, smaller than {min_side} on a side.", "Leave it out."
        )
    low, high = float(array.min()), float(array.max())  # NaN and infinities show in the extremes
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int(array.size - np.isfinite(array).sum())
        raise DataError(
            file,
            f"{count} of its {array.size} values are NaN or infinite.",
            "Repair the file; what the missing values should be is not for a reader to guess.",
        )
    if low == high:
        raise DataError(file, f"all its values are {low:g}: there is no image in it.", "Leave it out.")
    if any(not math.isnan(side) and not (0 < side < math.inf) for side in volume.voxel):
        raise DataError(file, f"voxel sizes must be positive (or NaN where unknown), got {volume.voxel}.")
    if volume.mask is not None and (volume.mask.shape != array.shape[1:] or volume.mask.dtype != np.bool_):
        raise DataError(file, f"its mask is {volume.mask.dtype} {volume.mask.shape}, expected bool {array.shape[1:]}.")
    if volume.affine is not None and (volume.affine.shape != (4, 4) or not _usable(volume.affine)):
        raise DataError(file, "its affine is not an invertible 4 x 4 matrix.", "Repair the header.")


def _usable(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all() or not np.allclose(affine[3], (0, 0, 0, 1)):
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((lengths > 0).all()) and abs(float(np.linalg.det(affine[:3, :3] / lengths))) > 1e-3
