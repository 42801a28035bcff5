"""HDF5 files: guarded opening, arrays read piece by piece, and plain ``.h5`` volumes.

A damaged HDF5 file can claim any shape, point outside itself, or to other files. So nothing is read before its declared shape,
type, layout and place in the file have been checked (:class:`H5Array`), and links out of the file are not followed. The library
reads through :class:`mrbench.data.hdf5_guards.Watched`, which refuses structures on which it would never end; no lock is
taken, so that the file may be open elsewhere, and it is closed when the ``with`` block of :func:`open_hdf5` ends.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrbench.data.checks import check_size
from mrbench.data.hdf5_guards import FIX, Watched, check_storage, refusal_in
from mrbench.data.records import Volume
from mrbench.data.sniffing import NOT_TAKEN, sniff
from mrbench.errors import DataError, MrbenchError

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]

_UNKNOWN = (float("nan"),) * 3
_MOST_NAMES = 1000  # arrays that are listed
_DEEPEST = 8  # groups within groups that are looked into
_LARGEST_TEXT = 2**22  # bytes
_COMPLEX_NAMES = ({"r", "i"}, {"real", "imag"})
_VOXEL_NAMES = (
    ("voxel_size_mm", 1.0), ("spacing_mm", 1.0), ("voxel_size", 1.0), ("spacing", 1.0), ("element_size_um", 1e-3),
)  # fmt: skip


class H5Array:
    """An array in an open file: shape and type are checked, values are read by :meth:`read`.

    ``shape``: as stored. ``dtype``: real or complex numbers. ``matlab``: written by MATLAB, so its axes run backwards.
    """

    def __init__(self, path: Path, name: str, dataset: h5py.Dataset) -> None:
        """Check everything that can be checked without reading values.

        Raises
        ------
        DataError : no numbers, an unknown filter, values in other files, never written, or outside the file.
        """
        self.path, self.name = path, name
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(int(n) for n in dataset.shape) if dataset.shape is not None else ()
        if dataset.shape is None:
            raise DataError(path, f"{name} is empty.", FIX)
        self._parts = _complex_parts(dataset.dtype)
        if not self._parts and (dataset.dtype.kind not in "biufc" or dataset.dtype.itemsize > 32):
            raise DataError(path, f"{name} holds values of type {dataset.dtype}, not numbers.", "Name another array.")
        self.dtype = np.dtype(np.complex128 if self._parts else dataset.dtype)
        self.matlab = "MATLAB_class" in dataset.attrs
        check_storage(path, name, dataset)

    @property
    def is_complex(self) -> bool:
        """Whether the values have a real and an imaginary part."""
        return self.dtype.kind == "c"

    def read(self, *index: int | slice) -> NDArray[Any]:
        """The values at ``index`` (leading axes; integers drop theirs), in the stored type.

        Raises
        ------
        DataError : out of range, more values than are read at once, or damaged.
        """
        self.check(*index)
        with _guarded(self.path, f"{self.name} cannot be read"):
            values = np.asarray(self._dataset[index])
        if self._parts:
            values = values[self._parts[0]] + 1j * values[self._parts[1]]
        return values

    def check(self, *index: int | slice) -> None:
        """Refuse an index out of range, and more values than are read at once (``DataError``)."""
        count = 1
        for axis, side in enumerate(self.shape):
            part = index[axis] if axis < len(index) else slice(None)
            if isinstance(part, slice):
                count *= len(range(*part.indices(side)))
            elif not 0 <= part < side:
                raise DataError(self.path, f"{self.name} has {side} entries along axis {axis}, not {part + 1}.", FIX)
        if len(index) > len(self.shape):
            raise DataError(self.path, f"{self.name} has {len(self.shape)} axes, not {len(index)}.", FIX)
        check_size(self.path, count)

    def attribute(self, name: str) -> Any:
        """An attribute of the array, ``None`` if it has none of that name (``DataError``: it is damaged)."""
        return _attribute(self.path, self._dataset, name)


class H5Source:
    """An open HDF5 file. Only what lies in the file itself is seen: links to other files are not followed."""

    def __init__(self, path: Path, file: h5py.File, raw: io.FileIO) -> None:
        """Wrap an open file; see :func:`open_hdf5`. ``raw``: its bytes."""
        self.path = path
        self._file, self._raw = file, raw

    def __contains__(self, name: str) -> bool:
        return self._object(name) is not None

    def names(self) -> list[str]:
        """Paths of all arrays in the file in stored order, texts and empty ones too (at most 1000)."""
        import h5py

        found: list[str] = []

        def look(group: Any, prefix: str, depth: int) -> None:
            for key in group:
                if len(found) >= _MOST_NAMES:
                    return
                if key.startswith("#") or not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    continue  # '#refs#' and the like are MATLAB's own
                item = group.get(key)
                if isinstance(item, h5py.Group) and depth < _DEEPEST:
                    look(item, f"{prefix}{key}/", depth + 1)
                elif isinstance(item, h5py.Dataset):
                    found.append(f"{prefix}{key}")

        with _guarded(self.path, "its table of contents cannot be read"):
            look(self._file, "", 0)
        return found

    def array(self, name: str) -> H5Array:
        """An array by its path.

        Raises
        ------
        DataError : there is none of that name (naming those that are), or it cannot be used (see :class:`H5Array`).
        """
        import h5py

        found = self._object(name)
        if not isinstance(found, h5py.Dataset):
            raise DataError(self.path, f"it has no array {name!r}.", f"It holds: {_listed(self.names())}.")
        with _guarded(self.path, f"{name} cannot be read"):
            return H5Array(self.path, name, found)

    def numeric(self) -> list[str]:
        """Names of the arrays of 2 to 4 axes that hold numbers."""
        import h5py

        with _guarded(self.path, "its table of contents cannot be read"):
            return [n for n in self.names() if isinstance(d := self._object(n), h5py.Dataset) and _is_image(d)]

    def text(self, name: str) -> str:
        """A text that is stored as an array of one entry.

        Raises
        ------
        DataError : there is none, it is no text, or longer than 4 MiB.
        """
        import h5py

        found = self._object(name)
        if not isinstance(found, h5py.Dataset):
            raise DataError(self.path, f"it has no text {name!r}.", f"It holds: {_listed(self.names())}.")
        with _guarded(self.path, f"{name} cannot be read"):
            info = h5py.check_string_dtype(found.dtype)
            if info is None or found.size != 1:
                raise DataError(self.path, f"{name} is not a text.", FIX)
            length = found.dtype.itemsize if info.length is not None else self._length(found)
            if not 0 <= length <= _LARGEST_TEXT:
                raise DataError(self.path, f"{name} is damaged, or has more than 4 MiB.", FIX)
            value = found[()] if found.shape == () else found[(0,) * found.ndim]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def _length(self, dataset: h5py.Dataset) -> int:
        """Bytes of a text in the heap as its reference says (the library would make room for as many), -1 if there is none."""
        offset = dataset.id.get_offset()
        if offset is None or dataset.id.get_storage_size() != 16:
            return -1
        self._raw.seek(offset)
        return int.from_bytes(self._raw.read(4), "little")

    def attribute(self, name: str) -> Any:
        """An attribute of the file, ``None`` if it has none of that name; texts as ``str`` (``DataError``: damaged)."""
        return _attribute(self.path, self._file, name)

    def _object(self, name: str) -> Any:
        """A group or array behind hard links alone, ``None`` if there is none."""
        import h5py

        with _guarded(self.path, f"{name} cannot be found"):
            place: Any = self._file
            for part in name.strip("/").split("/"):
                if not isinstance(place, h5py.Group) or not part or part == ".":
                    return None
                if not isinstance(place.get(part, getlink=True), h5py.HardLink):
                    return None
                place = place.get(part)
            return place


@contextmanager
def open_hdf5(path: Path) -> Iterator[H5Source]:
    """Open an HDF5 file for reading, whoever else has it open, and close it at the end of the ``with`` block.

    Raises
    ------
    DataError : not such a file, truncated or damaged. Whatever the block raises, apart from errors of mrbench, becomes one, too.
    """
    path = Path(path)
    kind = sniff(path)
    if kind != "hdf5":
        reason, fix = NOT_TAKEN.get(kind, (f"it is a {kind} file, not HDF5.", FIX))
        raise DataError(path, reason, fix)
    import h5py

    with _guarded(path, "it cannot be opened"), path.open("rb", buffering=0) as raw:
        file = h5py.File(Watched(path, raw), "r")
        try:
            yield H5Source(path, file, raw)
        finally:
            file.close()


def read_hdf5(path: Path, key: str | None = None, volume_index: int | None = None) -> Volume:
    """Read a volume from a plain HDF5 file.

    The array is ``[rows, columns]``, ``[slices, rows, columns]`` or, with ``volume_index``, ``[volumes, slices, rows,
    columns]``; the axes are those of the display and there is no affine. Arrays that MATLAB wrote (version 7.3 ``.mat`` files) are
    ``[rows, columns, slices, volumes]`` there and are turned round. Complex values (also pairs ``r, i`` or ``real, imag``) give
    two channels. Voxel sizes (mm along slices, rows, columns) come from the attribute ``voxel_size_mm``, ``spacing_mm``,
    ``voxel_size``, ``spacing`` or ``element_size_um`` of the array or the file.

    Parameters
    ----------
    path : file.
    key : path of the array in the file; needed if it holds several with 2 to 4 axes.
    volume_index : which volume of an array with four axes, from 0.

    Raises
    ------
    DataError : not HDF5, truncated or damaged, unknown or missing ``key``, wrong number of axes, values that are not numbers,
        parts that were never written.
    """
    path = Path(path)
    with open_hdf5(path) as source:
        array = source.array(key) if key is not None else source.array(only_array(source))
        shape = array.shape[::-1] if array.matlab else array.shape
        if not 2 <= len(shape) <= 4 or not all(shape):
            raise DataError(
                path, f"{array.name} has the shape {array.shape}.",
                "Expected [rows, columns], [slices, rows, columns] or [volumes, slices, rows, columns].",
            )  # fmt: skip
        return Volume(_values(array, volume_index), _voxel(source, array))


def _values(array: H5Array, volume_index: int | None) -> NDArray[np.float32]:
    """``[C, slices, rows, columns]``, filled slice by slice."""
    lead: tuple[int, ...] = ()
    if len(array.shape) == 4:
        volumes = array.shape[0]
        if volume_index is None and volumes > 1:
            raise DataError(
                array.path, f"{array.name} has four axes {array.shape}: {volumes} volumes.",
                f"Choose one with the option volume_index=0..{volumes - 1}.",
            )  # fmt: skip
        lead = (volume_index or 0,)
    sides = array.shape[-3:] if len(array.shape) > 2 else (1, *array.shape)
    array.check(*lead)
    shown = (sides[0], sides[2], sides[1]) if array.matlab else sides
    out = np.empty((2 if array.is_complex else 1, *shown), dtype=np.float32)
    for position in range(sides[0]):
        image = array.read(*lead, position) if len(array.shape) > 2 else array.read()
        image = image.T if array.matlab else image
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite, which check_volume refuses
            out[0, position] = image.real
            if array.is_complex:
                out[1, position] = image.imag
    return out


def only_array(source: H5Source) -> str:
    """The name of the one array of a file that may be an image (``DataError`` if there is none, or several)."""
    names = source.numeric()
    if len(names) == 1:
        return names[0]
    if not names:
        listing = _listed(source.names()) or "nothing"
        raise DataError(source.path, "it holds no array of numbers with 2 to 4 axes.", f"It holds: {listing}.")
    hint = " fastMRI files have data sets of their own: fastmri_brain, fastmri_knee, fastmri_prostate."
    raise DataError(
        source.path,
        f"it holds {len(names)} arrays ({_listed(names)}).",
        "Choose one with the option key=NAME." + (hint if "ismrmrd_header" in source else ""),
    )


def _voxel(source: H5Source, array: H5Array) -> tuple[float, float, float]:
    for name, unit in _VOXEL_NAMES:
        for value in (array.attribute(name), source.attribute(name)):
            sizes = _sizes(value, unit)
            if sizes is not None:
                return sizes
    return _UNKNOWN


def _sizes(value: Any, unit: float) -> tuple[float, float, float] | None:
    """One, two (rows, columns) or three (slices, rows, columns) lengths in mm; what is not positive is unknown."""
    try:
        numbers = [float(n) * unit for n in np.asarray(value, dtype=np.float64).reshape(-1)[:4]]
    except (TypeError, ValueError):
        return None
    numbers = [n if math.isfinite(n) and n > 0 else math.nan for n in numbers]
    if len(numbers) == 1:
        numbers = numbers * 3
    if len(numbers) == 2:
        numbers = [math.nan, *numbers]
    if len(numbers) != 3 or all(map(math.isnan, numbers)):
        return None
    return numbers[0], numbers[1], numbers[2]


def _is_image(dataset: h5py.Dataset) -> bool:
    number = dataset.dtype.kind in "biufc" or bool(_complex_parts(dataset.dtype))
    return number and dataset.shape is not None and 2 <= len(dataset.shape) <= 4


def _complex_parts(dtype: np.dtype[Any]) -> tuple[str, str] | None:
    """Names of real and imaginary part of a pair of floats that is not numpy's complex type."""
    names = dtype.names
    if names is None or set(names) not in _COMPLEX_NAMES or any(dtype[name].kind not in "iuf" for name in names):
        return None
    return ("r", "i") if "r" in names else ("real", "imag")


def _attribute(path: Path, owner: Any, name: str) -> Any:
    with _guarded(path, f"its attribute {name} cannot be read"):
        if name not in owner.attrs:
            return None
        kind = owner.attrs.get_id(name)
        if math.prod(kind.shape or ()) * kind.dtype.itemsize > _LARGEST_TEXT:
            raise DataError(path, f"its attribute {name} is larger than 4 MiB.", FIX)
        value = owner.attrs[name]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


@contextmanager
def _guarded(path: Path, what: str) -> Iterator[None]:
    """Whatever h5py raises on a damaged file, as a ``DataError``."""
    try:
        yield
    except MrbenchError:
        raise
    except Exception as error:
        refusal = refusal_in(error)
        if refusal is not None:
            raise refusal from error
        text = " ".join(str(error).split()).rstrip(".")
        if "truncated file" in text:
            raise DataError(path, f"it is truncated ({text[text.index('truncated file') :].rstrip(')')}).", FIX) from error
        raise DataError(
            path, f"{what}: {text or type(error).__name__}.", f"It is damaged: {FIX[0].lower()}{FIX[1:]}"
        ) from error
