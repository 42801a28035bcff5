"""Guards for damaged HDF5 files: what is checked before the library may act on it.

The library checks much of a file by itself, but trusts some of it, and then crashes, never ends, or asks for gigabytes.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrbench.data.sniffing import HDF5_SIGNATURE
from mrbench.errors import DataError

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]

FIX = "Fetch or write it again."
_SUPERBLOCKS = 1024  # bytes in which the superblock is looked for
_LARGEST_HEAP = 2**26
_LARGEST_CHUNK = 2**28  # bytes of one chunk, unpacked
_MOST_CHUNKS = 2**22
#: Filters by their registered numbers. Others need plug-in libraries, or trust parameters in the file that may be damaged.
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_SHUFFLE, _LZF = 2, 32000
_LEAST_PACKED = 5  # bytes of a packed chunk: a checksum of 4, and something it is of


class Watched(io.RawIOBase):
    """The bytes of an HDF5 file, for h5py; global heaps (where texts of any length lie) are checked on the way.

    The library walks through the objects of a global heap by their sizes and never ends on an object of size 0, a loop in C
    that nothing in Python can stop. A heap begins with ``GCOL``, so its read is recognised; its objects are walked through
    here first.
    """

    def __init__(self, path: Path, raw: io.FileIO) -> None:
        """Check the superblock's sizes of addresses and lengths (8 bytes, as everywhere): the heap's layout depends on them."""
        self._path, self._raw = path, raw
        start = raw.read(_SUPERBLOCKS)
        base = start.find(HDF5_SIGNATURE)
        sizes = start[base + 13 : base + 15] if start[base + 8] < 2 else start[base + 9 : base + 11]
        if base < 0 or sizes != b"\x08\x08":
            raise DataError(path, "its HDF5 superblock is damaged, or has addresses of unusual size.", FIX)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of files."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """As of files."""
        return self._raw.tell()

    def readinto(self, buffer: Any, /) -> int:
        """Fill the whole buffer (``DataError``: the file ends before, or a heap is broken)."""
        start = self._raw.tell()
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = self._raw.readinto(view[done:])
            if not count:
                raise DataError(self._path, "it is truncated or damaged: it points to a place after its end.", FIX)
            done += count
        if bytes(view[:4]) == b"GCOL":
            self._check_heap(start)
        return done

    def _check_heap(self, start: int) -> None:
        """Walk through a heap: 16 bytes of header, then objects of number (2 bytes), count (2), 4 unused, size (8), values."""
        self._raw.seek(start + 8)
        size = int.from_bytes(self._raw.read(8), "little")
        place, end = 16, min(size, _LARGEST_HEAP)
        while end - place >= 16:
            self._raw.seek(start + place)
            head = self._raw.read(16)
            length = int.from_bytes(head[8:], "little")
            step = length if head[:2] == b"\0\0" else 16 + -(-length // 8) * 8  # number 0: the free rest, header included
            if len(head) < 16 or step < 16 or place + step > size:
                raise DataError(self._path, "it is damaged: a heap of texts in it is broken.", FIX)
            place += step


def check_storage(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Check where and how the values of an array are stored.

    Raises
    ------
    DataError : they are in other files, outside the file or never written, would need plug-ins, or are packed in a way that
        cannot be right (a part of 0 bytes with a checksum crashes the library).
    """
    from h5py import h5d

    plist = dataset.id.get_create_plist()
    if dataset.is_virtual or plist.get_external_count():
        raise DataError(
            path, f"the values of {name} are in other files.", "Copy them into one file (for instance with h5repack)."
        )
    count = math.prod(int(n) for n in dataset.shape)
    size = path.stat().st_size
    layout = plist.get_layout()
    if layout == h5d.CONTIGUOUS and count:
        offset = dataset.id.get_offset()
        if offset is None:
            raise DataError(path, f"the values of {name} were never written.", FIX)
        if offset + count * dataset.id.get_type().get_size() > size:
            raise DataError(path, f"it is truncated or damaged: {name} ends after the file does.", FIX)
    elif layout == h5d.CHUNKED and count:
        _check_chunks(path, name, dataset, plist)


def _check_chunks(path: Path, name: str, dataset: h5py.Dataset, plist: Any) -> None:
    chunk = tuple(int(n) for n in dataset.chunks)
    width = int(dataset.id.get_type().get_size())
    length = math.prod(chunk) * width
    if not 0 < length <= _LARGEST_CHUNK:
        raise DataError(path, f"{name} is stored in chunks of {chunk} values.", "Store it in smaller ones (h5repack).")
    filters = plist.get_nfilters()
    for position in range(filters):
        number, _, parameters, label = plist.get_filter(position)
        if number not in _FILTERS:
            known = ", ".join(sorted(_FILTERS.values()))
            raise DataError(
                path, f"{name} is packed with the filter {label.decode('utf-8', 'replace') or number} ({number}).",
                f"Pack it anew with one of {known}.",
            )  # fmt: skip
        wrong = (number == _SHUFFLE and parameters[:1] != (width,)) or (
            number == _LZF and parameters[2:3] not in ((), (length,))
        )
        if wrong:
            raise DataError(path, f"it is damaged: the parameters {parameters} of {_FILTERS[number]} do not fit {name}.", FIX)
    declared = math.prod(-(-int(n) // c) for n, c in zip(dataset.shape, chunk, strict=True))
    if declared > _MOST_CHUNKS:
        raise DataError(path, f"{name} declares {declared} chunks.", FIX)
    written = dataset.id.get_num_chunks()
    if written < declared:
        raise DataError(path, f"{written} of the {declared} parts of {name} were written.", FIX)
    size, most, places = path.stat().st_size, 2 * length + 2**16, set()

    def look(part: Any) -> None:
        place = tuple(int(n) for n in part.chunk_offset)
        if all(n % c == 0 and n < side for n, c, side in zip(place, chunk, dataset.shape, strict=True)):
            places.add(place)
        short = part.size < (_LEAST_PACKED if filters else length)
        if short or part.size > most or part.byte_offset is None or part.byte_offset + part.size > size:
            raise DataError(path, f"it is damaged: a part of {name} has {part.size} bytes from {part.byte_offset} on.", FIX)

    dataset.id.chunk_iter(look)
    if len(places) < declared:
        raise DataError(path, f"it is damaged: some parts of {name} have no place in it, or the same.", FIX)


def refusal_in(error: BaseException | None) -> DataError | None:
    """The refusal by :class:`Watched` that h5py's error comes from, if any."""
    while error is not None:
        if isinstance(error, DataError):
            return error
        error = error.__cause__ or error.__context__
    return None
