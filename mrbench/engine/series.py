"""Images outside any data set that are no picture, array or NIfTI file: DICOM series, and HDF5 files such as fastMRI's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrbench.data.dicom import Stack, arrange, find_series, frames_of
from mrbench.data.fastmri import inspect_scan, read_scan
from mrbench.data.hdf5 import only_array, open_hdf5, read_hdf5
from mrbench.data.orientation import Display
from mrbench.data.records import Volume
from mrbench.errors import DataError

_TURNED = Display(flips=(False, True, False))


@dataclass(frozen=True)
class SeriesFiles:
    """One DICOM series in slice order.

    name : of the series. files, frames : as :func:`mrbench.data.dicom.read_dicom` takes them. placed : whether its place in
    space is known (a single image's is not).
    """

    name: str
    files: tuple[Path, ...]
    frames: tuple[tuple[int, int], ...]
    placed: bool


def dicom_series(files: Sequence[Path]) -> tuple[list[SeriesFiles], list[DataError]]:
    """The series among DICOM files, and why others cannot be used. Headers only."""
    found = find_series(files)
    series, errors = [], list(found.unreadable)
    for one in found.series:
        try:
            stack: Stack = arrange(one)
        except DataError as error:
            errors.append(error)
            continue
        ordered, frames = frames_of(stack)
        places = tuple((file, frame) for file, frame in frames)
        series.append(SeriesFiles(one.name, ordered, places, stack.affine is not None))
    return series, errors


def read_h5(path: Path, key: str | None, volume_index: int | None) -> tuple[Volume, Display]:
    """An HDF5 file as a volume, as stored, and how it is shown.

    Of fastMRI files the stored magnitude images are read; those of the brain and knee sets are shown with rows reversed, see
    :mod:`mrbench.data.fastmri`. With ``key``, and for all other files: :func:`mrbench.data.hdf5.read_hdf5`.

    Raises
    ------
    DataError : see there.
    """
    image = "" if key is not None else fastmri_image(path)
    if not image:
        return read_hdf5(path, key, volume_index), Display()
    info = inspect_scan(path)
    return read_scan(path, image, flip_rows=False), Display() if info.layout == "prostate" else _TURNED


def fastmri_image(path: Path) -> str:
    """Name of the magnitude images of a fastMRI file, empty for other HDF5 files.

    Raises
    ------
    DataError : a fastMRI file without images (the masked test files): there is nothing to restore.
    """
    with open_hdf5(path) as source:
        names = source.names()
    image = next((n for n in ("reconstruction_rss", "reconstruction_esc") if n in names), "")
    if not image and "kspace" in names:
        raise DataError(
            path, "it holds k-space and no images (such as the masked test files of fastMRI).",
            "Reconstruct images, and save them as .npy or NIfTI.",
        )  # fmt: skip
    return image


def h5_type(path: Path, key: str | None = None) -> np.dtype[np.generic]:
    """Type of the stored values that :func:`read_h5` reads: complex64 for complex numbers, however they are stored."""
    name = key or fastmri_image(path)
    with open_hdf5(path) as source:
        array = source.array(name or only_array(source))
        return np.dtype("complex64") if array.is_complex else array.dtype.newbyteorder("=")


__all__ = ["SeriesFiles", "dicom_series", "fastmri_image", "h5_type", "read_h5"]
