"""A data set under test: opened anew where a check asks for it, and watched while it lists its volumes (no torch here)."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrbench.cards import DatasetCard, Options
from mrbench.data.places import open_dataset
from mrbench.data.records import BadSource, Dataset, Volume, VolumeRef
from mrbench.engine.conformance_base import Absent, text_of
from mrbench.errors import DataError

READ = 3  # volumes that are read: the first, one in the middle, the last

#: Functions that decode pixels, by module: the readers of mrbench, and what they and others are built on.
DECODERS = {
    "mrbench.data.arrays": {"read_array"},
    "mrbench.data.dicom": {"read_dicom", "read_stack_of"},
    "mrbench.data.fastmri": {"read_complex", "read_scan"},
    "mrbench.data.hdf5": {"read_hdf5"},
    "mrbench.data.images": {"decode_jpeg", "read_image", "read_pages"},
    "mrbench.data.nifti": {"read_nifti"},
    "mrbench.data.reading": {"read_stack", "read_volume"},
    "h5py._hl.dataset": {"Dataset.__getitem__", "Dataset.read_direct"},
    "nibabel.arrayproxy": {"ArrayProxy.__array__", "ArrayProxy.__getitem__", "ArrayProxy.get_unscaled"},
    "PIL.ImageFile": {"ImageFile.load"},
    "pydicom.dataset": {"Dataset.convert_pixel_data", "Dataset.pixel_array"},
    "pydicom.pixels.utils": {"iter_pixels", "pixel_array"},
    "SimpleITK.extra": {"ReadImage"},
    "SimpleITK.SimpleITK": {"ImageFileReader.Execute", "ImageSeriesReader.Execute"},
    "skimage.io._io": {"imread"},
    "tifffile.tifffile": {"TiffPage.asarray", "imread"},
}


@dataclass
class DatasetTrial:
    """One data set under test. ``name`` is what commands call it (``--set NAME.KEY=VALUE``)."""

    card: DatasetCard
    options: Options
    name: str
    _found: list[VolumeRef | BadSource] | None = None
    _dataset: Dataset | None = None
    digests: dict[int, str] = field(default_factory=dict)  # of volumes that were read, by place in ``refs``

    def opened(self, **changes: Any) -> Dataset:
        """The data set, made anew, with some options changed."""
        return open_dataset(self.card, self.options.model_copy(update=changes), self.name)

    @property
    def dataset(self) -> Dataset:
        """The data set, made once."""
        if self._dataset is None:
            self._dataset = self.opened()
        return self._dataset

    @property
    def place(self) -> str:
        """What the option says that names the files; empty: nothing, or there is no such option."""
        return str(getattr(self.options, self.card.path_options[0], "") or "") if self.card.path_options else ""

    def found(self) -> list[VolumeRef | BadSource]:
        """What the data set holds, listed once.

        Raises
        ------
        Absent : its files are not here.
        """
        if self._found is None:
            if self.card.path_options and not self.place:
                raise Absent(
                    f"the files are not here: mrbench data add {self.card.name} PATH, or --set {self.name}.{self.card.path_options[0]}=PATH"
                )
            self._found = self.dataset.refs()
        return self._found

    @property
    def refs(self) -> list[VolumeRef]:
        """The volumes among them."""
        return [r for r in self.found() if isinstance(r, VolumeRef)]

    def chosen(self) -> list[int]:
        """Places in ``refs`` of the volumes to read: first, middle and last."""
        count = len(self.refs)
        return sorted({round(i * (count - 1) / (READ - 1)) for i in range(READ)})

    def read(self, index: int, dataset: Dataset | None = None) -> Volume | DataError:
        """A volume, or why its file cannot be used."""
        try:
            return (dataset or self.dataset).read(self.refs[index])
        except DataError as error:
            return error


def digest(volume: Volume) -> str:
    """SHA-256 of all that a volume holds."""
    parts: list[NDArray[Any]] = [volume.array, np.asarray(volume.voxel, dtype=np.float64)]
    parts += [part for part in (volume.affine, volume.mask) if part is not None]
    sha = hashlib.sha256(repr((volume.units, *((p.shape, str(p.dtype)) for p in parts))).encode())
    for part in parts:
        sha.update(np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()


def described(error: BaseException) -> str:
    """The first line of an error."""
    return text_of(error).splitlines()[0]


# -- watching ------------------------------------------------------------------------------------------------------
@contextmanager
def pixels_watched() -> Iterator[set[str]]:
    """Functions of :data:`DECODERS` that are called meanwhile, on any thread that starts meanwhile, are noted in the set.

    Readers are told by name, through the interpreter's profiling hook: one that parses the bytes of files by itself is not seen.
    Single numbers and lists in HDF5 files are no pixels. Any profiler that is at work pauses.
    """
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        known = DECODERS.get(frame.f_globals.get("__name__", ""))
        if known is None or frame.f_code.co_qualname not in known:
            return
        owner = frame.f_locals.get("self")
        if frame.f_code.co_qualname.startswith("Dataset.") and getattr(owner, "ndim", 2) < 2:
            return
        seen.add(f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}")

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


class _Shuffled:
    """The entries of a folder, as :func:`os.scandir` gives them, in another order."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> _Shuffled:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> _Shuffled:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


@contextmanager
def listings_shuffled() -> Iterator[None]:
    """Folders list their entries in another order, as another file system might: what depends on that order changes."""
    scandir, listdir = os.scandir, os.listdir
    generator = random.Random(0)

    def order(entries: list[Any]) -> list[Any]:
        entries = sorted(entries, key=lambda e: getattr(e, "name", e), reverse=True)
        if len(entries) > 2:
            generator.shuffle(entries)
        return entries

    def other_scandir(*path: Any) -> _Shuffled:
        with scandir(*path) as entries:
            return _Shuffled(order(list(entries)))

    def other_listdir(*path: Any) -> list[Any]:
        return order(listdir(*path))

    os.scandir, os.listdir = other_scandir, other_listdir  # type: ignore[assignment]
    try:
        yield
    finally:
        os.scandir, os.listdir = scandir, listdir
