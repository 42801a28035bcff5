"""DICOM series as volumes, through pydicom.

Headers first (:func:`find_series`, which reads no pixels), then one volume at a time (:func:`read_dicom`), slice by slice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mrbench.data.checks import check_size
from mrbench.data.dicom_header import Bounded, SliceHeader, quiet, read_headers
from mrbench.data.dicom_magic import is_dicom
from mrbench.data.dicom_series import Series, Stack, arrange, display_alone, group_series
from mrbench.data.records import Volume
from mrbench.errors import DataError

_ITEM, _DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_PIXEL_TAGS = {(0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010)}
_LEAST_RATIO_LIMIT = 2**24  # bytes that any compressed image may unpack to
_LARGEST_RATIO = 2000  # unpacked bytes a stored one; an empty 512 x 512 image in JPEG 2000 is near 1000


@dataclass(frozen=True)
class FoundSeries:
    """What the DICOM files among some files hold: their series, and the files whose header cannot be read."""

    series: list[Series]
    unreadable: list[DataError]


def find_series(files: Iterable[Path]) -> FoundSeries:
    """Read the headers of DICOM files and group their images into series. No pixels are read, nothing is remembered.

    The series come in the order of the files; so do the images in each of them. :func:`arrange` puts them in order.
    """
    headers: list[SliceHeader] = []
    unreadable: list[DataError] = []
    for file in files:
        try:
            headers += read_headers(file)
        except DataError as error:
            unreadable.append(error)
    return FoundSeries(group_series(headers), unreadable)


def frames_of(stack: Stack) -> tuple[tuple[Path, ...], list[list[int]]]:
    """The files of a stack, each once, in slice order; and for each slice (index of its file, frame).

    The second is empty where every file is one slice. Both are what :func:`read_dicom` takes.
    """
    files = tuple(dict.fromkeys(header.file for header in stack.slices))
    if all(header.frames == 1 for header in stack.slices):
        return files, []
    return files, [[files.index(header.file), header.frame] for header in stack.slices]


def read_dicom(files: Sequence[Path], frames: Sequence[Sequence[int]] = ()) -> Volume:
    """Read the images of one series as a volume.

    Values are float32 after each image's own slope and intercept (not the display window); MONOCHROME1 is inverted. The axes
    are (column, row, slice), with slices in the order of their positions along the images' normal; the affine maps indices to
    RAS millimetres, and the last voxel size is the distance between slice centres. A single image has neither a slice distance
    nor an affine: it is ``[1, 1, rows, columns]``, turned as :mod:`mrbench.data.orientation` shows its plane. One image is
    unpacked at a time.

    Parameters
    ----------
    files : in any order.
    frames : (index of the file, frame) of each image, for multi-frame files of which not all frames belong to the volume.

    Raises
    ------
    DataError : files that are not DICOM or damaged, no or several series, what :func:`arrange` refuses, truncated pixel data,
        a compression without decoder.
    """
    by_file = [read_headers(Path(file)) for file in files]
    headers = [header for file in by_file for header in file]
    if frames:
        try:
            headers = [by_file[file][frame] for file, frame in frames]
        except IndexError:
            raise DataError(files[0], "it holds fewer frames than before.", "The file has changed: start again.") from None
    series = group_series(headers)
    if len(series) != 1:
        raise DataError(
            files[0], f"it holds {len(series)} series or stacks of images, not one.",
            "The data set 'folder' makes each a volume: put it into a folder and name that.",
        )  # fmt: skip
    return read_stack_of(arrange(series[0]))


def read_stack_of(stack: Stack) -> Volume:
    """The pixels of an arranged series; see :func:`read_dicom`."""
    first = stack.slices[0]
    array = np.empty((len(stack.slices), first.rows, first.columns), dtype=np.float32)
    places: dict[Path, list[tuple[int, int]]] = {}
    for place, header in enumerate(stack.slices):
        places.setdefault(header.file, []).append((header.frame, place))
    with quiet():
        for file, wanted in places.items():
            wanted.sort()
            images = _images(stack.slices[wanted[0][1]], [frame for frame, _ in wanted])
            for (_, place), image in zip(wanted, images, strict=True):
                array[place] = _values(image, stack.slices[place], file)
    stored = array.transpose(2, 1, 0)[None]
    if stack.affine is not None:
        return Volume(stored, stack.voxel, stack.affine)
    display = display_alone(first)
    slices, rows, columns = (stack.voxel[axis] for axis in display.axes)
    return Volume(display.apply(stored), (slices, rows, columns))


def _values(image: NDArray[np.generic], header: SliceHeader, file: Path) -> NDArray[np.float32]:
    """Stored values to the modality's (PS3.3, C.11.1): slope * stored + intercept."""
    if image.shape != (header.rows, header.columns):
        raise DataError(
            file, f"its compressed image is {image.shape}, but its header says {header.rows} x {header.columns} pixels.",
            "Export it again.",
        )  # fmt: skip
    stored = image.astype(np.float64)
    if header.inverted:
        stored = (-1.0 if header.signed else 2.0 ** (header.bits_stored or header.bits) - 1.0) - stored
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, which check_volume refuses
        return (stored * header.slope + header.intercept).astype(np.float32)


def _images(header: SliceHeader, frames: list[int]) -> Iterator[NDArray[np.generic]]:
    """The stored values of some frames of a file, ``[rows, columns]`` each, in the given order."""
    from pydicom.pixels.utils import iter_pixels

    path = header.file
    compressed = _check_decoder(header)
    try:
        with Bounded(path) as file:
            _check_length(header, file, compressed)
            for image in iter_pixels(file, indices=frames, raw=True, transfer_syntax_uid=header.transfer_syntax):
                if not isinstance(image, np.ndarray):
                    raise DataError(path, "its pixel data is not an image.", "Leave it out.")
                yield image
    except DataError:
        raise
    except Exception as error:  # pydicom and the decoders raise many kinds of errors on damaged files
        raise DataError(
            path,
            f"its pixel data cannot be read ({type(error).__name__}): it is truncated or damaged.",
            "Fetch or export it again.",
        ) from None


def _check_decoder(header: SliceHeader) -> bool:
    """Whether the pixels are compressed; refuse if nothing can unpack them."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID, AllTransferSyntaxes

    syntax = UID(header.transfer_syntax)
    name = syntax.name if syntax in AllTransferSyntaxes else "an unknown one"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DataError(
            header.file, f"its transfer syntax ({name}) is not taken.", "Store it uncompressed, or as JPEG 2000 or RLE."
        ) from None
    if not decoder.is_available:
        raise DataError(
            header.file, f"its pixels are compressed ({name}), and no decoder for that is installed.",
            "Install the extra: pip install 'mrbench[dicom]'.",
        )  # fmt: skip
    return bool(syntax.is_encapsulated)


def _check_length(header: SliceHeader, file: BinaryIO, compressed: bool) -> None:
    """Refuse pixel data that is shorter than the header says, before anything is unpacked."""
    from pydicom.filereader import read_partial

    def at_pixels(tag: int, value_representation: str | None, length: int) -> bool:
        return (tag >> 16, tag & 0xFFFF) in _PIXEL_TAGS

    forced = not file.read(132).endswith(b"DICM")
    file.seek(0)
    read_partial(file, stop_when=at_pixels, force=forced, specific_tags=[0x00280010])
    order = ">" if header.transfer_syntax == "1.2.840.10008.1.2.2" else "<"
    start = file.tell()
    element = file.read(12)
    if len(element) < 8 or struct.unpack(order + "HH", element[:4]) not in _PIXEL_TAGS:
        raise DataError(header.file, "it has no pixel data.", "It is truncated, or no image: leave it out.")
    explicit = element[4:6].isalpha() and header.transfer_syntax != "1.2.840.10008.1.2"
    length = struct.unpack(order + "I", element[8:12] if explicit else element[4:8])[0]
    begin = start + (12 if explicit else 8)
    size = file.seek(0, 2)
    image = header.rows * header.columns * header.bits // 8
    if compressed:
        check_size(header.file, header.rows * header.columns)
        file.seek(begin)
        stored = _encapsulated(header.file, file, size)
        if image * header.frames > max(_LEAST_RATIO_LIMIT, _LARGEST_RATIO * stored):
            raise DataError(
                header.file, f"its header declares {image * header.frames} bytes of pixels, out of {stored} compressed ones.",
                "The header is damaged: export it again.",
            )  # fmt: skip
    else:
        there = min(length, size - begin)
        if length == _UNDEFINED or there < image * header.frames:
            raise DataError(
                header.file, f"its pixel data is truncated: {there} bytes, where {image * header.frames} are expected "
                f"({header.frames} x {header.rows} x {header.columns} of {header.bits} bits).", "Fetch or export it again.",
            )  # fmt: skip
    file.seek(0)


def _encapsulated(path: Path, file: BinaryIO, size: int) -> int:
    """Walk over the fragments (PS3.5, A.4) from the first one on, to the delimiter at the end; the bytes that they hold."""
    stored = 0
    while True:
        item = file.read(8)
        tag = struct.unpack("<HH", item[:4]) if len(item) == 8 else None
        if tag == _DELIMITER:
            return stored
        length = struct.unpack("<I", item[4:])[0] if len(item) == 8 else 0
        if tag != _ITEM or file.tell() + length > size:
            raise DataError(path, "its compressed pixel data is truncated or damaged.", "Fetch or export it again.")
        stored += length
        file.seek(length, 1)


__all__ = [
    "FoundSeries", "Series", "SliceHeader", "Stack", "arrange", "find_series", "frames_of", "group_series", "is_dicom",
    "read_dicom", "read_headers", "read_stack_of",
]  # fmt: skip
