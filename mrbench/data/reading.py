"""One file, or a stack of pictures, to a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrbench.data.arrays import read_array
from mrbench.data.dicom import read_dicom
from mrbench.data.hdf5 import read_hdf5
from mrbench.data.images import read_image, read_pages
from mrbench.data.nifti import is_pair_image, nifti_files, read_nifti
from mrbench.data.records import Volume
from mrbench.data.sniffing import ARRAYS, DICOM, HDF5, IMAGES, NIFTI_LIKE, NOT_TAKEN, sniff
from mrbench.errors import DataError

NO_VOXEL = (float("nan"),) * 3


def read_volume(
    path: Path,
    volume_index: int | None = None,
    assume_axcodes: str | None = None,
    key: str | None = None,
    voxel: tuple[float, float, float] = NO_VOXEL,
) -> Volume:
    """Read any supported file as a volume; the format is decided by its content, not by its name.

    A picture becomes a volume of one slice, a multi-page TIFF one slice a page. A DICOM file is read alone, without the others
    of its series: see :func:`mrbench.data.dicom.read_dicom`.

    Parameters
    ----------
    path : file.
    volume_index, assume_axcodes : for NIfTI, see :func:`mrbench.data.nifti.read_nifti`; ``volume_index`` for HDF5, too.
    key : for ``.npz`` and HDF5, see :func:`mrbench.data.arrays.read_array` and :func:`mrbench.data.hdf5.read_hdf5`.
    voxel : mm between slices, rows and columns, for files that do not say (pictures, arrays, HDF5 without such attributes);
        NIfTI keeps its own.

    Raises
    ------
    DataError : unsupported or damaged file.
    """
    path = Path(path)
    kind = sniff(path)
    if kind in NIFTI_LIKE or is_pair_image(path):
        return read_nifti(path, volume_index, assume_axcodes)
    if kind in IMAGES:
        return Volume(read_pages(path), voxel)
    if kind in ARRAYS:
        volume = read_array(path, key)
        volume.voxel = voxel
        return volume
    if kind in HDF5:
        volume = read_hdf5(path, key, volume_index)
        if all(map(math.isnan, volume.voxel)):
            volume.voxel = voxel
        return volume
    if kind in DICOM:
        return read_dicom([path])
    reason, fix = NOT_TAKEN[kind]
    raise DataError(path, reason, fix)


def read_stack(files: Sequence[Path], voxel: tuple[float, float, float] = NO_VOXEL) -> Volume:
    """Read pictures of one size, one slice each, as a volume ``[C, slices, H, W]`` in the given order.

    If some are colour and others grey, it is an error: the pictures are not of one kind.

    Raises
    ------
    DataError : a file that :func:`mrbench.data.images.read_image` refuses, or of another size or kind than the first;
        it names that file.
    """
    slices: list[NDArray[np.float32]] = []
    for file in files:
        image = read_image(file)
        if slices and image.shape != slices[0].shape:
            raise DataError(
                file, f"channels, rows and columns {image.shape} differ from {slices[0].shape} of {Path(files[0]).name}.",
                "Slices of one volume must be alike: name another volume for it.",
            )  # fmt: skip
        slices.append(image)
    return Volume(np.stack(slices, axis=1), voxel)


def source_files(path: Path) -> tuple[Path, ...]:
    """All files whose bytes determine the volume in ``path`` (two for a ``.hdr`` + ``.img`` pair).

    Raises
    ------
    DataError : half of a pair is missing.
    """
    path = Path(path)
    return nifti_files(path) if is_pair_image(path) or sniff(path) in ("nifti_pair", "analyze") else (path,)


__all__ = [
    "NO_VOXEL", "is_pair_image", "read_array", "read_dicom", "read_hdf5", "read_image", "read_nifti", "read_pages", "read_stack", "read_volume",
    "source_files",
]  # fmt: skip
