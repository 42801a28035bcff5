"""NumPy files: ``.npy`` and ``.npz``, never with pickled objects."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mrbench.data.checks import check_size
from mrbench.data.records import Volume
from mrbench.data.sniffing import ARRAYS, NOT_TAKEN, sniff
from mrbench.errors import DataError

_UNKNOWN = (float("nan"),) * 3


def read_array(path: Path, key: str | None = None) -> Volume:
    """Read a 2-D image ``[rows, columns]`` or a 3-D stack ``[slices, rows, columns]``.

    The axes are those of the display; there is no affine and no voxel size. Complex arrays give two channels (real, imaginary).

    Parameters
    ----------
    path : ``.npy`` or ``.npz`` file.
    key : name of the array in an ``.npz`` file; needed if it holds several. ``.npy`` files have no names: it is not used.

    Raises
    ------
    DataError : neither format, truncated or damaged, pickled objects, unknown or missing ``key``, wrong number of axes,
        values that are not numbers.
    """
    path = Path(path)
    kind = sniff(path)
    if kind not in ARRAYS:
        reason, fix = NOT_TAKEN.get(kind, (f"it is a {kind} file, not .npy or .npz.", ""))
        raise DataError(path, reason, fix)
    try:
        array = _npy(path) if kind == "npy" else _npz(path, key)
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds of errors on damaged files
        raise DataError(path, f"it cannot be read: {error}.", "It is damaged or truncated: save it again.") from error
    if array.ndim not in (2, 3):
        raise DataError(path, f"its shape is {array.shape}.", "Expected [rows, columns] or [slices, rows, columns].")
    stack = array[None] if array.ndim == 2 else array
    with np.errstate(over="ignore"):
        if np.iscomplexobj(stack):
            values = np.stack([stack.real, stack.imag]).astype(np.float32)
        else:
            values = stack.astype(np.float32)[None]
    return Volume(values, _UNKNOWN)


def _npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        _check_header(path, file)
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def _npz(path: Path, key: str | None) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        listing = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        if key is None and len(names) != 1:
            raise DataError(path, f"it holds {len(names)} arrays ({listing}).", "Choose one with the option key=NAME.")
        if key is not None and key not in names:
            raise DataError(path, f"it has no array {key!r}.", f"It holds: {listing}.")
        name = (key or names[0]) + ".npy"
        with archive.open(name) as file:
            _check_header(path, file)
        with archive.open(name) as file:
            array = npy_format.read_array(file, allow_pickle=False)
            file.read()  # to the end: the archive's checksum is verified there
            return array


def _check_header(path: Path, file: IO[bytes]) -> None:
    """Refuse by the declared shape and type, before anything is unpacked."""
    version = npy_format.read_magic(file)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise DataError(
            path, "it holds pickled Python objects, which are never opened (they can run code).", "Save plain numbers."
        )
    if dtype.kind not in "biufc":
        raise DataError(path, f"its values are of type {dtype}, not numbers.", "Save plain numbers.")
    count = 1
    for side in shape:
        count *= int(side)
    check_size(path, count)
