"""Images in a folder of their own, outside any data set: which files they are, their stored type, and their slices."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mrbench.data.orientation import Display, display_of
from mrbench.data.reading import read_volume
from mrbench.data.records import Volume
from mrbench.data.sniffing import ARRAYS, HDF5, IMAGES, NIFTI_LIKE, NOT_TAKEN, Kind, sniff, start_of
from mrbench.engine.series import h5_type, read_h5
from mrbench.errors import DataError, UserError

READABLE = IMAGES | ARRAYS | NIFTI_LIKE | HDF5
SILENT = {"unknown", "empty"}  # text files and the like are no images that someone forgot to convert


@dataclass(frozen=True)
class ImageFile:
    """One readable file. ``name``: its path below the folder, with ``/``. ``stem``: the same without its endings."""

    path: Path
    name: str
    stem: str


@dataclass(frozen=True)
class Folder:
    """The images of a folder, by name, and files of formats that are not read (name: why)."""

    path: Path
    files: tuple[ImageFile, ...]
    refused: dict[str, str]


def stem_of(name: str) -> str:
    """A relative path without its ending (``.nii.gz`` and the like count as one)."""
    head, slash, last = name.rpartition("/")
    base = last[: -len(".gz")] if last.lower().endswith(".gz") else last
    stem, dot, _ = base.rpartition(".")
    return head + slash + (stem if dot and stem else base)


def list_folder(folder: Path, kinds: frozenset[Kind] = READABLE) -> Folder:
    """The images in ``folder`` and below (hidden ones left out), told by their content, in the order of their names.

    ``kinds``: what counts as an image.

    Raises
    ------
    UserError : no such folder, or no image in it that can be read.
    """
    if not folder.exists():
        raise UserError(f"{folder}: no such folder. Give a folder of images (PNG, TIFF, JPEG, .npy, .npz, NIfTI or HDF5).")
    if folder.is_file():
        return Folder(folder, (ImageFile(folder, folder.name, stem_of(folder.name)),), {})
    files: list[ImageFile] = []
    refused: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in name.split("/")):
            continue
        if path.name.lower().endswith((".img", ".img.gz")):  # read with its header
            continue
        kind = sniff(path)
        if kind in kinds:
            files.append(ImageFile(path, name, stem_of(name)))
        elif kind not in SILENT:
            refused[name] = " ".join(NOT_TAKEN[kind])
    if not files:
        why = f" {next(iter(refused))}: {next(iter(refused.values()))}" if refused else ""
        raise UserError(f"{folder}: holds no image that can be read (PNG, TIFF, JPEG, .npy, .npz, NIfTI or HDF5).{why}")
    return Folder(folder, tuple(files), refused)


def stored_type(path: Path) -> np.dtype[np.generic]:
    """The type of the stored values, e.g. ``uint8``: what integers are divided by depends on it.

    Pictures with 1 bit count as ``bool`` (values 0 and 1). NIfTI integers with a slope or intercept are ``float64``.

    Raises
    ------
    DataError : an unreadable file.
    """
    kind = sniff(path)
    try:
        if kind == "png":
            depth = start_of(path)[24]
            palette = start_of(path)[25] == 3
            return np.dtype("uint8" if palette or 1 < depth <= 8 else "bool" if depth == 1 else "uint16")
        if kind == "jpeg":
            return np.dtype("uint8")
        if kind == "tiff":
            return _tiff_type(path)
        if kind == "npy":
            with path.open("rb") as stream:
                return _npy_type(stream)
        if kind == "npz":
            with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
                return _npy_type(member)
        if kind in NIFTI_LIKE or path.name.lower().endswith((".img", ".img.gz")):
            return _nifti_type(path)
        if kind in HDF5:
            return h5_type(path)
    except DataError:
        raise
    except Exception as error:  # parsers raise many kinds of errors on damaged files
        raise DataError(path, f"it cannot be read: {error}.", "It is damaged or truncated: save it again.") from error
    reason, fix = NOT_TAKEN.get(kind, (f"it is a {kind} file.", ""))
    raise DataError(path, reason, fix)


def full_range(dtype: np.dtype[np.generic]) -> float | None:
    """The largest value of an integer type (1 for ``bool``), ``None`` for floats and complex numbers."""
    if dtype.kind == "b":
        return 1.0
    return float(np.iinfo(dtype.name).max) if dtype.kind in "iu" else None


def _npy_type(stream: IO[bytes]) -> np.dtype[np.generic]:
    version = npy_format.read_magic(stream)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    dtype: np.dtype[np.generic] = read_header(stream)[2]
    return dtype.newbyteorder("=")


def _tiff_type(path: Path) -> np.dtype[np.generic]:
    from PIL import Image, TiffImagePlugin

    with Image.open(path, formats=["TIFF"]) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        bits = int(next(iter(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))))
        sample_format = int(next(iter(image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))))
    if bits == 1:
        return np.dtype("bool")
    return np.dtype({2: "int", 3: "float"}.get(sample_format, "uint") + str(max(bits, 8)))


def _nifti_type(path: Path) -> np.dtype[np.generic]:
    import nibabel

    from mrbench.data.nifti import nifti_files

    image: Any = nibabel.load(nifti_files(path)[0])
    plain = (image.dataobj.slope, image.dataobj.inter) == (1, 0)  # the header's own are moved there on loading
    dtype: np.dtype[np.generic] = np.dtype(image.get_data_dtype())
    return dtype.newbyteorder("=") if plain else np.dtype("float64")


@dataclass(frozen=True)
class Slices:
    """The slices of one file: ``images [n, C, H, W]`` float32 as stored; ``axcodes``: where stored axes run to, if known."""

    images: NDArray[np.float32]
    display: Display
    axcodes: str


def read_slices(path: Path, display: Display | None = None) -> Slices:
    """Read a file as slices.

    NIfTI volumes are cut across their thickest axis, in radiological convention; with ``display`` (that of another volume)
    the stored axes are taken just like there, whatever this file's header says about directions. HDF5: see
    :func:`mrbench.engine.series.read_h5`; the rows stay as stored.

    Raises
    ------
    DataError : an unreadable file.
    """
    volume = read_h5(path, None, None)[0] if sniff(path) in HDF5 else read_volume(path, assume_axcodes="RAS")
    shown = display or display_of(volume.affine, volume.voxel, "native")
    return Slices(np.ascontiguousarray(np.moveaxis(shown.apply(volume.array), 1, 0)), shown, _axcodes(volume))


def _axcodes(volume: Volume) -> str:
    if volume.affine is None:
        return ""
    from nibabel import orientations

    named: Any = orientations.aff2axcodes
    return "".join(str(c) for c in named(volume.affine))


def few(names: Sequence[str], limit: int = 3) -> str:
    """``a, b, c and 7 more``."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


__all__ = ["Folder", "ImageFile", "Slices", "few", "full_range", "list_folder", "read_slices", "stem_of", "stored_type"]
