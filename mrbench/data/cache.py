"""Prepared volumes on disk, memory-mapped, keyed by content.

An entry is a folder with ``hr.npy`` (float32 ``[S, C, H, W]``), ``mask.npy`` (bool ``[S, H, W]``) and ``meta.json``. Its key is
the SHA-256 of everything that determines its pixels: the source files' bytes, what the data set adds, the settings, and the
preparation version. Entries are written beside their place and renamed into it, so a reader sees a whole entry or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mrbench.data.hashing import content_hashes
from mrbench.data.preparation import PREPARATION_VERSION, IntensityMap, PreparedArrays, prepare_volume
from mrbench.data.records import Volume, VolumeRef
from mrbench.errors import DataError, PluginError, UserError
from mrbench.settings import PreparationSpec, canonical_json

#: Environment variable that names the cache folder.
CACHE_VARIABLE = "MRBENCH_CACHE"

_FORMAT = 1  # of an entry's files; another number is another key
_STALE_S = 24 * 3600  # temporary folders older than this were left by a killed process


@dataclass(frozen=True)
class DatasetIdentity:
    """Which code reads a volume: the data set's implementation (not the alias it runs under) and its card's version.

    Options that change pixels belong into ``VolumeRef.extra``.
    """

    name: str
    version: str


@dataclass(frozen=True)
class CachedSlice:
    """One slice of a volume: display position from 0, label, foreground fraction; ``reason`` if it was left out."""

    position: int
    label: str
    fraction: float
    reason: str = ""


@dataclass(frozen=True)
class PreparedVolume:
    """A cache entry.

    folder : where ``hr.npy``, ``mask.npy`` and ``meta.json`` are.
    shape : of ``hr.npy``, ``(S, C, H, W)``; S may be 0.
    slices : the kept slices; their positions index the arrays, which hold every slice. ``left_out``: the others.
    intensity : native -> unit range. ``units``: of the native values.
    voxel : mm between slices, rows and columns (``nan``: unknown).
    plane, axcodes : the display, empty if unknown. ``window``: ``(top, left)`` of the prepared pixels in the ``shown`` size.
    source_hashes : SHA-256 of the source files, in order.
    notes : from the preparation. ``state``: ``hit``, ``built``, or ``rebuilt`` (the entry was damaged: see ``reason``).
    """

    folder: Path
    shape: tuple[int, int, int, int]
    slices: tuple[CachedSlice, ...]
    left_out: tuple[CachedSlice, ...]
    intensity: IntensityMap
    units: str
    voxel: tuple[float, float, float]
    plane: str
    axcodes: str
    window: tuple[int, int]
    shown: tuple[int, int]
    source_hashes: tuple[str, ...]
    notes: tuple[str, ...]
    state: Literal["hit", "built", "rebuilt"] = "hit"
    reason: str = ""

    def open(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Memory maps of the slices and masks (not for an entry without slices)."""
        return np.load(self.folder / "hr.npy", mmap_mode="r"), np.load(self.folder / "mask.npy", mmap_mode="r")


class _Damaged(Exception):
    """A cache entry that cannot be used."""


def cache_root(cache_dir: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The cache folder: ``cache_dir``, else ``$MRBENCH_CACHE``, else the user's cache folder of the system."""
    environ = os.environ if environ is None else environ
    if cache_dir is not None:
        return Path(cache_dir)
    if environ.get(CACHE_VARIABLE):
        return Path(environ[CACHE_VARIABLE]).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("mrbench", appauthor=False)


def prepare_cached(
    identity: DatasetIdentity,
    ref: VolumeRef,
    read: Callable[[], Volume],
    spec: PreparationSpec,
    cache_dir: Path | None = None,
) -> PreparedVolume:
    """The prepared volume of ``ref``, from the cache if the sources and settings are unchanged.

    Parameters
    ----------
    identity : implementation and version of the data set.
    ref : the volume; its files' bytes, labels and ``extra`` enter the key.
    read : reads the volume; called only if the entry has to be built.
    spec : the preparation.
    cache_dir : see :func:`cache_root`.

    Raises
    ------
    DataError : a source file is unusable (nothing is cached then).
    UserError : the cache folder cannot be written.
    """
    root = cache_root(cache_dir)
    hashes = content_hashes(ref.files, root / "hashes")
    key = _key(identity, ref, spec, hashes)
    folder = root / "prepared" / key[:2] / key
    damage = ""
    try:
        return _load(folder)
    except FileNotFoundError:
        pass
    except _Damaged as error:
        damage = str(error)
    prepared = prepare_volume(read(), spec, _name(ref))
    meta = _meta(prepared, _labels(ref, prepared), hashes)
    try:
        if damage:
            _move_aside(root, folder)
        _store(root, folder, prepared, meta)
    except OSError as error:
        raise UserError(
            f"cannot write the cache folder {root}: {error.strerror or error}. Set the environment variable {CACHE_VARIABLE} "
            "to a folder that can be written and has room for the prepared images."
        ) from error
    try:
        volume = _load(folder)
    except (FileNotFoundError, _Damaged) as error:
        raise UserError(f"the cache folder {root} does not keep what is written to it: {error}.") from error
    if damage:
        return replace(volume, state="rebuilt", reason=f"the cache entry was damaged ({damage}) and has been built again")
    return replace(volume, state="built")


def extra_json(ref: VolumeRef) -> str:
    """``ref.extra`` as canonical JSON.

    Raises
    ------
    PluginError : the data set put something there that JSON does not hold.
    """
    try:
        return json.dumps(ref.extra, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(f"the data set's VolumeRef.extra of {ref.subject}/{ref.volume} is not JSON: {error}") from error


def _key(identity: DatasetIdentity, ref: VolumeRef, spec: PreparationSpec, hashes: tuple[str, ...]) -> str:
    parts = [
        _FORMAT, identity.name, identity.version, list(hashes), list(ref.slices), extra_json(ref), canonical_json(spec),
        PREPARATION_VERSION,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _name(ref: VolumeRef) -> object:
    return ref.files[0] if len(ref.files) == 1 else f"{ref.subject}/{ref.volume}"


def _labels(ref: VolumeRef, prepared: PreparedArrays) -> list[str]:
    """A label for every slice, in display order."""
    count = len(prepared.fractions)
    if not ref.slices:
        return [f"{position:03d}" for position in range(count)]
    if len(ref.slices) != count or len(set(ref.slices)) != count:
        raise DataError(
            _name(ref), f"its data set names {len(ref.slices)} slices ({len(set(ref.slices))} different) but it has {count}.",
            "Give each slice one label of its own.",
        )  # fmt: skip
    return list(reversed(ref.slices)) if prepared.display.flips[0] else list(ref.slices)


def _meta(prepared: PreparedArrays, labels: list[str], hashes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "preparation_version": PREPARATION_VERSION,
        "shape": list(prepared.hr.shape),
        "slices": [[p, labels[p], prepared.fractions[p]] for p in prepared.positions],
        "left_out": [[s.position, labels[s.position], s.fraction, s.reason] for s in prepared.left_out],
        "intensity": {"scale": prepared.intensity.scale, "offset": prepared.intensity.offset},
        "units": prepared.units,
        "voxel_mm": [None if math.isnan(size) else size for size in prepared.voxel],
        "plane": prepared.display.plane,
        "axcodes": prepared.display.axcodes,
        "window": [prepared.window.top, prepared.window.left],
        "shown": list(prepared.window.shown),
        "source_sha256": list(hashes),
        "notes": list(prepared.notes),
    }


def _load(folder: Path) -> PreparedVolume:
    """Open an entry. ``FileNotFoundError``: there is none; ``_Damaged``: it is not what was written."""
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        shape = tuple(int(n) for n in meta["shape"])
        if len(shape) != 4 or len(meta["slices"]) + len(meta["left_out"]) != shape[0] or meta["format"] != _FORMAT:
            raise _Damaged("meta.json does not fit")
        _check_array(folder / "hr.npy", shape, np.dtype("<f4"))
        _check_array(folder / "mask.npy", (shape[0], shape[2], shape[3]), np.dtype(np.bool_))
        row, column = meta["shown"]
        top, left = meta["window"]
        voxel = [math.nan if size is None else float(size) for size in meta["voxel_mm"]]
        return PreparedVolume(
            folder=folder,
            shape=(shape[0], shape[1], shape[2], shape[3]),
            slices=tuple(CachedSlice(int(p), str(label), float(f)) for p, label, f in meta["slices"]),
            left_out=tuple(CachedSlice(int(p), str(label), float(f), str(why)) for p, label, f, why in meta["left_out"]),
            intensity=IntensityMap(float(meta["intensity"]["scale"]), float(meta["intensity"]["offset"])),
            units=str(meta["units"]),
            voxel=(voxel[0], voxel[1], voxel[2]),
            plane=str(meta["plane"]),
            axcodes=str(meta["axcodes"]),
            window=(int(top), int(left)),
            shown=(int(row), int(column)),
            source_hashes=tuple(map(str, meta["source_sha256"])),
            notes=tuple(map(str, meta["notes"])),
        )
    except _Damaged:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from error


def _check_array(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Header and length of an ``.npy`` file, without reading its data."""
    with file.open("rb") as stream:
        npy_format.read_magic(stream)
        found, fortran, stored = npy_format.read_array_header_1_0(stream)
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if found != shape or fortran or stored != dtype:
        raise _Damaged(f"{file.name} holds {stored} {found}, expected {dtype} {shape}")
    if file.stat().st_size != expected:
        raise _Damaged(f"{file.name} has {file.stat().st_size} bytes, expected {expected}")


def _move_aside(root: Path, folder: Path) -> None:
    """Take a damaged entry away. The lock keeps two processes from taking away what the other one has just repaired."""
    temporary = _temporary(root)
    with FileLock(temporary / f"{folder.name}.lock"):
        try:
            _load(folder)
        except FileNotFoundError:
            return
        except _Damaged:
            trash = temporary / uuid.uuid4().hex
            os.replace(folder, trash)
            shutil.rmtree(trash, ignore_errors=True)


def _store(root: Path, folder: Path, prepared: PreparedArrays, meta: dict[str, Any]) -> None:
    """Write an entry and rename it into place; if another process was faster, theirs stays."""
    temporary = _temporary(root) / uuid.uuid4().hex
    temporary.mkdir()
    try:
        _write_array(temporary / "hr.npy", prepared.hr.astype("<f4", copy=False))
        _write_array(temporary / "mask.npy", prepared.mask)
        with (temporary / "meta.json").open("w", encoding="utf-8") as file:
            json.dump(meta, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(temporary, folder)
        except OSError as error:
            if not folder.is_dir() or error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_array(file: Path, array: NDArray[Any]) -> None:
    with file.open("wb") as stream:
        npy_format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())


def _temporary(root: Path) -> Path:
    folder = root / "prepared" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        try:
            if left.is_dir() and time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # another process was faster
    return folder
