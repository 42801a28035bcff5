"""Files of the fastMRI sets (one ``.h5`` a scan): what one holds, and its images, read slice by slice.

Stored images and k-space of the brain and knee sets show rows upside down: reversed (``flip_rows``), the front of the head and
the upper end of the leg are at the top. The prostate set's images were turned when they were made. There is no affine; which
side is the patient's left is not said by the files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrbench.data.hdf5 import H5Array, H5Source, open_hdf5
from mrbench.data.ismrmrd import BadHeader, Header, parse_header
from mrbench.data.kspace import combine_coils, crop_centre, to_image
from mrbench.data.records import Volume
from mrbench.errors import DataError

Layout = Literal["multicoil", "singlecoil", "prostate", "images"]

_LAYOUTS: dict[int, Layout] = {3: "singlecoil", 4: "multicoil", 5: "prostate"}
_FIX = "Fetch the file again."
_KSPACE, _HEADER, _MASK = "kspace", "ismrmrd_header", "mask"
_NOT_IMAGES = {_KSPACE, _MASK, "calibration_data", "coil_sens_maps", "phase_correction"}


@dataclass(frozen=True)
class ScanInfo:
    """What a file says about itself, without its pixels.

    layout : by the axes of its k-space: ``singlecoil`` (slices, rows, columns), ``multicoil`` (slices, coils, rows, columns),
        ``prostate`` (averages, slices, coils, readout, phase); ``images``: it has none.
    images : names and shapes (slices, rows, columns) of its images.
    kspace : shape of k-space, empty if none.
    patient, acquisition : attributes, empty if absent.
    undersampled : it has a sampling mask with gaps, so nothing fully sampled can be made of its k-space.
    voxel : mm between slices, rows and columns, ``nan`` where unknown. ``header_error``: why its header could not be used.
    recon : rows and columns of the image that the header announces.
    """

    layout: Layout
    images: dict[str, tuple[int, int, int]]
    kspace: tuple[int, ...] = ()
    patient: str = ""
    acquisition: str = ""
    undersampled: bool = False
    voxel: tuple[float, float, float] = (math.nan,) * 3
    recon: tuple[int, int] | None = None
    header_error: str = ""
    dwi: bool = False  # holds coil sensitivity maps, as the prostate set's diffusion files do

    @property
    def slices(self) -> int:
        """Number of slices, by the images, else by k-space (whose second axis counts them in the prostate set)."""
        if self.images:
            return next(iter(self.images.values()))[0]
        return self.kspace[1 if self.layout == "prostate" else 0] if self.kspace else 0


def inspect_scan(path: Path) -> ScanInfo:
    """Open a file and take down what it holds.

    Raises
    ------
    DataError : not HDF5, truncated or damaged, neither images nor k-space, or images and k-space of different numbers of slices.
    """
    with open_hdf5(path) as source:
        return _inspect(source)


def read_scan(path: Path, image: str, flip_rows: bool) -> Volume:
    """Read stored images.

    Parameters
    ----------
    path : file.
    image : name of the array, e.g. ``reconstruction_rss``.
    flip_rows : reverse the rows (see the module).

    Returns
    -------
    ``[1, slices, rows, columns]`` with voxel sizes and without an affine.

    Raises
    ------
    DataError : as :func:`inspect_scan`; no such images; damaged pixels.
    """
    with open_hdf5(path) as source:
        info = _inspect(source)
        if image not in info.images:
            raise DataError(path, f"it has no images {image!r}.", f"It has: {', '.join(info.images) or 'none'}.")
        array = source.array(image)
        if array.is_complex:
            raise DataError(path, f"its {image} is complex.", "Stored images of fastMRI are magnitudes.")
        array.read(array.shape[0] - 1)  # of a damaged file the end is missing: fail before the work is done
        out = np.empty((1, *info.images[image]), dtype=np.float32)
        for position in range(len(out[0])):
            out[0, position] = array.read(position)
    return Volume(out[:, :, ::-1] if flip_rows else out, info.voxel)


def read_complex(path: Path, flip_rows: bool) -> Volume:
    """Complex images from fully sampled k-space, cropped as the stored images are.

    One coil: the centred orthonormal inverse Fourier transform. Several: :func:`mrbench.data.kspace.combine_coils`.

    Parameters
    ----------
    path : file.
    flip_rows : reverse the rows (see the module).

    Returns
    -------
    ``[2, slices, rows, columns]`` (real, imaginary) with voxel sizes and without an affine.

    Raises
    ------
    DataError : as :func:`inspect_scan`; undersampled or five-axis k-space (:func:`why_not_complex`); damaged values.
    """
    with open_hdf5(path) as source:
        info = _inspect(source)
        reason = why_not_complex(info)
        if reason:
            raise DataError(path, reason)
        array = source.array(_KSPACE)
        size = image_size(info)
        array.read(array.shape[0] - 1)
        out = np.empty((2, array.shape[0], *size), dtype=np.float32)
        for position in range(array.shape[0]):
            kspace = np.asarray(array.read(position), dtype=np.complex64)
            if not np.isfinite(kspace).all():
                raise DataError(path, f"its k-space has values that are not finite in slice {position}.", _FIX)
            image = combine_coils(kspace, size) if kspace.ndim == 3 else crop_centre(to_image(kspace), size)
            out[0, position], out[1, position] = image.real, image.imag
    return Volume(out[:, :, ::-1] if flip_rows else out, info.voxel)


def why_not_complex(info: ScanInfo) -> str:
    """Why no complex images can be made of a file, empty if they can."""
    if info.layout == "images":
        return "it has no k-space, so no complex images can be made of it."
    if info.layout == "prostate":
        return (
            "its k-space has five axes (fastMRI prostate): lines are missing in each average and are to be filled by GRAPPA, "
            "and the stored images are means of magnitudes over the averages, so there is no complex image that belongs to them."
        )
    if info.undersampled:
        return "its k-space is undersampled (it has a mask with gaps), so it holds no ground truth."
    return ""


def image_size(info: ScanInfo) -> tuple[int, int]:
    """Rows and columns that images are cropped to: as stored, else as the header says.

    k-space narrower than the header's image (some FLAIR volumes) is cropped to a square of its columns; without a header all
    is kept.
    """
    rows, columns = info.kspace[-2:]
    if info.images:
        stored = next(iter(info.images.values()))[1:]
        return min(stored[0], rows), min(stored[1], columns)
    if info.recon is None:
        return rows, columns
    wanted = info.recon if info.recon[1] <= columns else (columns, columns)
    return min(wanted[0], rows), min(wanted[1], columns)


def _inspect(source: H5Source) -> ScanInfo:
    path, names = source.path, source.names()
    images: dict[str, tuple[int, int, int]] = {}
    for name in source.numeric():
        if "/" not in name and name not in _NOT_IMAGES:
            array = source.array(name)
            if len(array.shape) == 3:
                images[name] = _sides(array)
    kspace = source.array(_KSPACE) if _KSPACE in names else None
    if kspace is None and not images:
        raise DataError(path, f"it holds neither images nor k-space (it holds: {', '.join(names) or 'nothing'}).", _FIX)
    layout: Layout = "images"
    if kspace is not None:
        if len(kspace.shape) not in _LAYOUTS or not kspace.is_complex or not all(kspace.shape):
            raise DataError(path, f"its k-space has the shape {kspace.shape} and type {kspace.dtype}.", _FIX)
        layout = _LAYOUTS[len(kspace.shape)]
    header, error = _header(source, names)
    info = ScanInfo(
        layout=layout,
        images=_ordered(images),
        kspace=kspace.shape if kspace is not None else (),
        patient=_text(source, "patient_id"),
        acquisition=_text(source, "acquisition"),
        undersampled=_undersampled(source, names),
        voxel=(header.recon.spacing[2], header.recon.spacing[0], header.recon.spacing[1]) if header else (math.nan,) * 3,
        recon=header.recon.matrix[:2] if header else None,
        header_error=error,
        dwi="coil_sens_maps" in names,
    )
    _check_slices(path, info)
    return info


def _check_slices(path: Path, info: ScanInfo) -> None:
    counts = {name: shape[0] for name, shape in info.images.items()}
    if info.kspace:
        counts[_KSPACE] = info.kspace[1 if info.layout == "prostate" else 0]
    if len(set(counts.values())) > 1:
        listing = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise DataError(path, f"its parts differ in the number of slices ({listing}).", _FIX)


def _sides(array: H5Array) -> tuple[int, int, int]:
    slices, rows, columns = array.shape
    if not slices * rows * columns:
        raise DataError(array.path, f"its {array.name} has the shape {array.shape}.", _FIX)
    array.check()
    return slices, rows, columns


def _ordered(images: dict[str, tuple[int, int, int]]) -> dict[str, tuple[int, int, int]]:
    """The images of the releases first: their size is that of the image."""
    first: Sequence[str] = ("reconstruction_rss", "reconstruction_esc")
    return {name: images[name] for name in (*first, *images) if name in images}


def _header(source: H5Source, names: list[str]) -> tuple[Header | None, str]:
    if _HEADER not in names:
        return None, "it has no ismrmrd_header"
    try:
        return parse_header(source.text(_HEADER)), ""
    except BadHeader as error:
        return None, f"its ismrmrd_header cannot be used: {error}"


def _text(source: H5Source, name: str) -> str:
    value = source.attribute(name)
    return "" if value is None else str(value).strip()


def _undersampled(source: H5Source, names: list[str]) -> bool:
    if _MASK not in names:
        return False
    mask: NDArray[np.generic] = source.array(_MASK).read()
    return not bool(np.all(mask != 0))
