"""Restored images with any number of draws, from the files that any framework writes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from mrbench.data.sniffing import ARRAYS, IMAGES, NIFTI_LIKE, NOT_TAKEN, sniff
from mrbench.engine.external import WIDEST
from mrbench.engine.imagefiles import ImageFile, full_range, read_slices, stored_type
from mrbench.errors import DataError

Shape = tuple[int, ...]


def draws_in(files: Sequence[ImageFile], image: tuple[int, int, int]) -> int:
    """How many draws of an image ``(C, H, W)`` the files of one item hold.

    Raises
    ------
    DataError : they do not hold such images.
    """
    return len(files) if len(files) > 1 else _counted(files[0].path, stored_shape(files[0].path), image)


def read_draws(
    files: Sequence[ImageFile], shape: tuple[int, int, int, int], declared: tuple[float, float] | None = None
) -> Tensor:
    """The estimate ``[K, C, H, W]`` of one item, float32 on the unit range of the ground truth, unclipped.

    One file a draw, or one file with the draws as first axis (in NIfTI as last). Floats are taken as they are, integers divided by
    the largest value of their type; with ``declared`` = (low, high) both are mapped so that ``low`` becomes 0 and ``high`` 1.

    Raises
    ------
    DataError : unreadable, images of another size, another number of draws, or integers of more than 16 bits without ``declared``.
    """
    draws, image = shape[0], (shape[1], shape[2], shape[3])
    found = draws_in(files, image)
    if found != draws:
        raise DataError(files[0].path, f"the item has {_count(found)}, expected {draws}.", "Give as many draws for every item.")
    each = 1 if len(files) > 1 else draws
    return torch.from_numpy(np.concatenate([_read(f.path, each, image, declared) for f in files]))


def stored_shape(path: Path) -> Shape:
    """The shape of what is stored, before anything large is read.

    Arrays: their own; complex ones count as two channels before rows and columns. NIfTI: ``(draws, rows, columns)`` or
    ``(rows, columns)``. Pictures: ``(pages, channels, rows, columns)``.

    Raises
    ------
    DataError : an unreadable file, or a format that is not taken.
    """
    kind = sniff(path)
    try:
        if kind in ARRAYS:
            shape, dtype = _header(path)
            return (*shape[:-2], 2, *shape[-2:]) if dtype.kind == "c" else shape
        if kind in NIFTI_LIKE:
            return _nifti_shape(path)
        if kind in IMAGES:
            return read_slices(path).images.shape
    except DataError:
        raise
    except Exception as error:  # parsers raise many kinds of errors on damaged files
        raise DataError(path, f"it cannot be read: {error}.", "It is damaged or truncated: save it again.") from error
    reason, fix = NOT_TAKEN.get(kind, (f"it is a {kind} file.", ""))
    raise DataError(path, reason, fix)


def _counted(path: Path, shape: Shape, image: tuple[int, int, int]) -> int:
    """Draws in an array of a shape; ``(K, C, H, W)``, ``(C, H, W)``, and without the channel axis where there is one channel."""
    channels, *size = image
    if shape[-2:] == tuple(size):
        before = shape[:-2]
        if before == () and channels == 1:
            return 1
        if len(before) == 1:
            if channels == 1:
                return before[0] or _refuse(path, shape, image)
            if before == (channels,):
                return 1
        if len(before) == 2 and before[1] == channels and before[0]:
            return before[0]
    return _refuse(path, shape, image)


def _refuse(path: Path, shape: Shape, image: tuple[int, int, int]) -> int:
    have, want = "x".join(map(str, shape)), "x".join(map(str, image))
    turned = " Rows and columns look exchanged." if shape[-2:] == (image[2], image[1]) and image[1] != image[2] else ""
    raise DataError(
        path, f"its shape is {have or 'that of a single number'}, expected channels, rows and columns {want}.{turned}"
    )


def _read(path: Path, draws: int, image: tuple[int, int, int], declared: tuple[float, float] | None) -> NDArray[np.float32]:
    """``[draws, C, H, W]`` of one file."""
    found = _counted(path, stored_shape(path), image)
    if found != draws:
        raise DataError(path, f"it holds {_count(found)}, expected {draws}.")
    kind, dtype = sniff(path), stored_type(path)
    try:
        raw = _array(path) if kind in ARRAYS else _nifti(path) if kind in NIFTI_LIKE else read_slices(path).images
    except DataError:
        raise
    except Exception as error:
        raise DataError(path, f"it cannot be read: {error}.", "It is damaged or truncated: save it again.") from error
    values = raw.reshape(draws, *image).astype(np.float64)
    full = full_range(dtype)
    if declared is not None:
        values = (values - declared[0]) / (declared[1] - declared[0])
    elif full is not None:
        if full > WIDEST:
            raise DataError(path, f"its values are {dtype.name}, whose full range says nothing.", "Declare it: --range LO,HI.")
        values = values / full
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _count(draws: int) -> str:
    return "1 draw" if draws == 1 else f"{draws} draws"


# -- arrays --------------------------------------------------------------------------------------------------------
def _header(path: Path) -> tuple[Shape, np.dtype[Any]]:
    """Shape and type of the one array in an ``.npy`` or ``.npz`` file."""
    if sniff(path) == "npy":
        with path.open("rb") as stream:
            return _checked(path, stream)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise DataError(path, f"it holds {len(names)} arrays.", "Save one array a file.")
        with archive.open(names[0]) as member:
            return _checked(path, member)


def _checked(path: Path, stream: IO[bytes]) -> tuple[Shape, np.dtype[Any]]:
    version = npy_format.read_magic(stream)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise DataError(path, "it holds pickled Python objects, which are never opened (they can run code).", "Save numbers.")
    if dtype.kind not in "biufc":
        raise DataError(path, f"its values are of type {dtype}, not numbers.", "Save plain numbers.")
    return tuple(int(n) for n in shape), dtype


def _array(path: Path) -> NDArray[Any]:
    """The array, complex numbers as two channels. Its header was checked against the expected shape before."""
    if sniff(path) == "npy":
        values = np.load(path, allow_pickle=False)
    else:
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
            values = npy_format.read_array(member, allow_pickle=False)
            member.read()  # to the end: the archive's checksum is verified there
    return np.stack([values.real, values.imag], axis=-3) if np.iscomplexobj(values) else values


# -- NIfTI ---------------------------------------------------------------------------------------------------------
def _nifti_shape(path: Path) -> Shape:
    """``(rows, columns)`` or ``(draws, rows, columns)``: data are ``[rows, columns(, 1)(, draws)]``, just as stored."""
    import nibabel

    loaded: Any = nibabel.load(path)
    shape = tuple(int(n) for n in loaded.shape)
    more = [n for n in shape[2:] if n != 1]
    if len(shape) < 2 or len(more) > 1 or math.prod(shape) == 0:
        raise DataError(
            path, f"its shape is {'x'.join(map(str, shape))}.", "Expected [rows, columns] or [rows, columns, draws]."
        )
    return (*more, *shape[:2])


def _nifti(path: Path) -> NDArray[Any]:
    import nibabel

    loaded: Any = nibabel.load(path)
    values = np.asanyarray(loaded.dataobj)
    values = values.reshape(*values.shape[:2], -1)
    return np.moveaxis(values, -1, 0)


__all__ = ["draws_in", "read_draws", "stored_shape"]
