"""What a file is, from its first bytes. File names are never trusted."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Literal

from mrbench.data.dicom_magic import is_dicom
from mrbench.errors import DataError

Kind = Literal[
    "png", "jpeg", "tiff", "nifti", "nifti_pair", "analyze", "npy", "npz",
    "dicom", "hdf5", "nrrd", "metaimage", "minc", "parrec", "gif", "bmp", "webp", "zip", "gzip", "bzip2", "pickle",
    "empty", "unknown",
]  # fmt: skip

IMAGES: frozenset[Kind] = frozenset({"png", "jpeg", "tiff"})
NIFTI_LIKE: frozenset[Kind] = frozenset({"nifti", "nifti_pair", "analyze"})
ARRAYS: frozenset[Kind] = frozenset({"npy", "npz"})
HDF5: frozenset[Kind] = frozenset({"hdf5"})  # taken where whole volumes are: see mrbench.data.reading
DICOM: frozenset[Kind] = frozenset({"dicom"})  # the same; the images of one series are one volume: see mrbench.data.dicom

#: What to say about files that are recognised and not taken: (reason, fix).
NOT_TAKEN: dict[Kind, tuple[str, str]] = {
    "dicom": ("DICOM files are not taken here.", "Convert the series to NIfTI (for instance with dcm2niix)."),
    "hdf5": ("HDF5 files are not taken here.", "Save the array as .npy or .npz, or convert it to NIfTI."),
    "nrrd": ("NRRD files are not taken by this reader yet.", "Convert the file to NIfTI."),
    "metaimage": ("MetaImage files are not taken by this reader yet.", "Convert the file to NIfTI."),
    "minc": ("MINC files are not taken by this reader yet.", "Convert the file to NIfTI."),
    "parrec": ("PAR/REC files are not taken by this reader yet.", "Convert the file to NIfTI."),
    "gif": ("GIF files are not taken (8-bit palette only).", "Save the image as PNG or TIFF."),
    "bmp": ("BMP files are not taken.", "Save the image as PNG or TIFF."),
    "webp": ("WebP files are not taken.", "Save the image as PNG or TIFF."),
    "zip": ("it is a ZIP archive, not an .npz file.", "Unpack it."),
    "gzip": ("it is gzip-compressed, and what is inside is truncated or not NIfTI.", "Unpack it, or fetch the file again."),
    "bzip2": ("bzip2-compressed files are not taken.", "Unpack it."),
    "pickle": ("it is a Python pickle, which is never opened (it can run code).", "Save the array with numpy.save."),
    "empty": ("the file is empty (0 bytes).", "Fetch the file again."),
    "unknown": (
        "the format is not recognised.",
        "Known formats: PNG, JPEG, TIFF, NIfTI (.nii, .nii.gz, .hdr + .img), Analyze, DICOM, HDF5, .npy and .npz.",
    ),
}

_START = 540  # the NIfTI-2 header's length; enough for every other magic
#: First bytes of an HDF5 file, or of what follows its user block.
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PREFIXES: tuple[tuple[bytes, Kind], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x93NUMPY", "npy"),
    (HDF5_SIGNATURE, "hdf5"),
    (b"NRRD", "nrrd"),
    (b"ObjectType", "metaimage"),
    (b"CDF", "minc"),
    (b"# === DATA DESCRIPTION FILE", "parrec"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"BZh", "bzip2"),
    (b"\x80\x04", "pickle"),
    (b"\x80\x05", "pickle"),
)


def start_of(path: Path, length: int = _START) -> bytes:
    """The first bytes of a file as stored.

    Raises
    ------
    DataError : the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError as error:
        raise DataError(
            path, f"it cannot be read: {error.strerror or error}.", "Check the path and its permissions."
        ) from error


def sniff(path: Path) -> Kind:
    """The format of a file by its magic bytes, looking through gzip.

    Raises
    ------
    DataError : the file cannot be opened.
    """
    start = start_of(path)
    if not start:
        return "empty"
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                inside = file.read(_START)
        except (OSError, EOFError, zlib.error):
            return "gzip"
        kind = _header_kind(inside)
        return kind if kind in NIFTI_LIKE else "gzip"
    if is_dicom(start):  # before the others: a DICOM file may begin like a TIFF
        return "dicom"
    for prefix, kind in _PREFIXES:
        if start.startswith(prefix):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[:4] == b"PK\x05\x06":
        return "zip"
    if start[:4] == b"PK\x03\x04":
        return "npz" if _holds_npy(start) else "zip"
    if start[:10] == b"MATLAB 7.3" and start[512:520] == HDF5_SIGNATURE:  # HDF5 behind 512 bytes of text
        return "hdf5"
    return _header_kind(start)


def _header_kind(start: bytes) -> Kind:
    """NIfTI-1, NIfTI-2 or Analyze 7.5 by header size (either byte order) and magic string."""
    if len(start) < 348:
        return "unknown"
    size = {struct.unpack(order + "i", start[:4])[0] for order in "<>"}
    if 348 in size:
        magic = start[344:348]
        return "nifti" if magic == b"n+1\x00" else "nifti_pair" if magic == b"ni1\x00" else "analyze"
    if 540 in size:
        magic = start[4:8]
        return "nifti" if magic == b"n+2\x00" else "nifti_pair" if magic == b"ni2\x00" else "unknown"
    return "unknown"


def _holds_npy(start: bytes) -> bool:
    name_length = struct.unpack("<H", start[26:28])[0] if len(start) >= 30 else 0
    return start[30 : 30 + name_length].endswith(b".npy")
