"""Items: the slices of a data set under one preparation, each with a stable id and a content hash."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mrbench.data.cache import DatasetIdentity, PreparedVolume, extra_json, prepare_cached
from mrbench.data.preparation import IntensityMap
from mrbench.data.records import BadSource, Dataset, VolumeRef
from mrbench.data.splits import SPLITS
from mrbench.data.survey import check_splits
from mrbench.errors import DataError, PluginError, UserError
from mrbench.settings import PREPARATION_VERSION, PreparationSpec, canonical_json

#: Called as ``progress(done, total, name)`` before each volume and once at the end.
Progress = Callable[[int, int, str], None]

_LONGEST = 100  # characters of one part of an id: ids become file names


@dataclass(frozen=True)
class ItemRef:
    """One slice: ids and where its pixels are. Cheap to copy and to pickle; it holds no pixels.

    item_id : ``data set/subject/volume/slice``, each part percent-encoded.
    item_hash : 16 hex digits over the bytes of the volume's source files (its intensity map needs all of them), what the data
        set adds, the slice label, the preparation settings and version. Not over pixels.
    dataset, subject, volume, slice : as the data set names them.
    shape : ``(C, H, W)``. ``voxel``: mm between slices, rows and columns (``nan``: unknown).
    intensity : native -> unit range of the volume. ``units``: of the native values.
    fraction : of the slice that is foreground.
    folder, index : the cache entry and the slice's place in its arrays.
    """

    item_id: str
    item_hash: str
    dataset: str
    subject: str
    volume: str
    slice: str
    shape: tuple[int, int, int]
    voxel: tuple[float, float, float]
    intensity: IntensityMap
    units: str
    fraction: float
    folder: Path
    index: int


@dataclass(frozen=True)
class SkippedSource:
    """A volume or file that cannot be used; it becomes a row with status ``skipped``.

    ``item_id`` has no slice part; it ends in the file where subject and volume alone would not be unique.
    """

    item_id: str
    subject: str
    volume: str
    file: str
    reason: str


@dataclass(frozen=True)
class DroppedSlice:
    """A readable slice that the preparation left out, with its foreground fraction and the reason."""

    item_id: str
    subject: str
    volume: str
    slice: str
    fraction: float
    reason: str


@dataclass(frozen=True)
class ItemList:
    """The items of a data set, and everything that did not become one."""

    items: list[ItemRef]
    skipped: list[SkippedSource] = field(default_factory=list)
    dropped: list[DroppedSlice] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def n_subjects(self) -> int:
        """Number of different subjects among the items."""
        return len({item.subject for item in self.items})


@dataclass(frozen=True)
class SliceRecord:
    """The pixels of an item: ``image`` float32 ``[C, H, W]`` (unit range), ``mask`` bool ``[H, W]``; both are copies."""

    item: ItemRef
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]


def item_id(*parts: str) -> str:
    """Join id parts with ``/``.

    Each part is percent-encoded (ASCII letters, digits and ``_.-~`` stay), so different parts never give one id and ids can
    serve as relative file paths; ``.`` and ``..`` are encoded too. Parts longer than 100 characters end in a hash instead.

    Raises
    ------
    PluginError : an empty part.
    """
    return "/".join(map(_part, parts))


def _part(text: str) -> str:
    if not text:
        raise PluginError("subject, volume and slice names may not be empty")
    encoded = quote(text, safe="")
    if set(encoded) == {"."}:
        encoded = encoded.replace(".", "%2E")
    if len(encoded) > _LONGEST:
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        encoded = f"{encoded[: _LONGEST - 17]}~{digest}"
    return encoded


def list_items(
    dataset_name: str,
    dataset_version: str,
    dataset: Dataset,
    spec: PreparationSpec,
    split: Literal["train", "val", "test", "all"] = "test",
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> ItemList:
    """Prepare all volumes of a split (through the cache) and list their slices in the data set's order.

    One volume is in memory at a time. Volumes that cannot be used become ``skipped``, slices that the preparation leaves out
    become ``dropped``. If the data set has an attribute ``warnings`` (a list of texts), they are passed on.

    Parameters
    ----------
    dataset_name : first part of the ids (the name or alias used in the run).
    dataset_version : the card's version; enters the cache key.
    dataset : the implementation.
    spec : the preparation.
    split : which volumes; files that could not be told to a split are reported with every one.
    progress : see :data:`Progress`.
    cache_dir : see :func:`mrbench.data.cache.cache_root`.

    Raises
    ------
    UserError : unknown split, a split without volumes, splits that share subjects (see :func:`mrbench.data.survey.check_splits`),
        nothing usable left (with the first reasons), cache not writable.
    PluginError : the data set gives one name to two volumes.
    """
    if split not in (*SPLITS, "all"):
        raise UserError(f"unknown split {split!r}. Splits: {', '.join(SPLITS)}, all.")
    found = dataset.refs()
    refs = [ref for ref in found if isinstance(ref, VolumeRef) and split in ("all", ref.split)]
    bad = [source for source in found if isinstance(source, BadSource)]
    _check_unique(dataset_name, [ref for ref in found if isinstance(ref, VolumeRef)])
    shared = check_splits(dataset_name, dataset, [ref for ref in found if isinstance(ref, VolumeRef)])
    if not refs and not bad:
        raise UserError(_empty_split(dataset_name, split, found))
    result = ItemList(items=[], warnings=[*getattr(dataset, "warnings", ()), *filter(None, [shared])])
    taken = {item_id(dataset_name, ref.subject, ref.volume) for ref in found if isinstance(ref, VolumeRef)}
    for source in bad:
        name = item_id(dataset_name, source.subject or "unknown", source.volume or "unknown")
        if name in taken:  # several unusable files of one name, or one beside a usable one
            name = f"{name}/{_part(source.file or 'unknown')}"
        taken.add(name)
        result.skipped.append(SkippedSource(name, source.subject, source.volume, source.file, source.reason))
    identity = DatasetIdentity(f"{type(dataset).__module__}:{type(dataset).__qualname__}", dataset_version)
    for done, ref in enumerate(refs):
        if progress is not None:
            progress(done, len(refs), f"{ref.subject}/{ref.volume}")
        _add_volume(result, dataset_name, identity, dataset, ref, spec, cache_dir)
    if progress is not None:
        progress(len(refs), len(refs), "")
    if not result.items:
        raise UserError(_nothing_left(dataset_name, split, result))
    return result


def _add_volume(
    result: ItemList, dataset_name: str, identity: DatasetIdentity, dataset: Dataset, ref: VolumeRef, spec: PreparationSpec,
    cache_dir: Path | None,
) -> None:  # fmt: skip
    name = item_id(dataset_name, ref.subject, ref.volume)
    try:
        prepared = prepare_cached(identity, ref, lambda: dataset.read(ref), spec, cache_dir)
    except DataError as error:
        reason = f"{error.reason} {error.fix}".strip()
        result.skipped.append(SkippedSource(name, ref.subject, ref.volume, error.file, reason))
        return
    except (UserError, PluginError):
        raise
    except Exception as error:  # a data set's reader may raise anything; one volume must not stop the others
        reason = f"the data set's reader raised {type(error).__name__}: {error}"
        result.skipped.append(SkippedSource(name, ref.subject, ref.volume, str(ref.files[0]) if ref.files else "", reason))
        return
    for text in (*prepared.notes, prepared.reason):
        if text:
            result.warnings.append(f"{ref.subject}/{ref.volume}: {text}")
    extra, settings = extra_json(ref), canonical_json(spec)
    for left in prepared.left_out:
        result.dropped.append(
            DroppedSlice(f"{name}/{_part(left.label)}", ref.subject, ref.volume, left.label, left.fraction, left.reason)
        )
    for kept in prepared.slices:
        result.items.append(
            ItemRef(
                item_id=f"{name}/{_part(kept.label)}",
                item_hash=_item_hash(prepared, extra, kept.label, settings),
                dataset=dataset_name,
                subject=ref.subject,
                volume=ref.volume,
                slice=kept.label,
                shape=prepared.shape[1:],
                voxel=prepared.voxel,
                intensity=prepared.intensity,
                units=prepared.units,
                fraction=kept.fraction,
                folder=prepared.folder,
                index=kept.position,
            )
        )


def _item_hash(prepared: PreparedVolume, extra: str, label: str, settings: str) -> str:
    parts = [list(prepared.source_hashes), extra, label, settings, PREPARATION_VERSION]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _check_unique(dataset_name: str, refs: Sequence[VolumeRef]) -> None:
    seen: dict[str, VolumeRef] = {}
    for ref in refs:
        name = item_id(dataset_name, ref.subject, ref.volume)
        if name in seen:
            first, second = (str(r.files[0]) if r.files else "no file" for r in (seen[name], ref))
            raise PluginError(f"the data set {dataset_name!r} gives the name {name} to two volumes: {first} and {second}")
        seen[name] = ref


def _empty_split(dataset_name: str, split: str, found: Sequence[VolumeRef | BadSource]) -> str:
    counts = {s: sum(isinstance(ref, VolumeRef) and ref.split == s for ref in found) for s in SPLITS}
    listing = ", ".join(f"{s}: {n}" for s, n in counts.items())
    return f"data set {dataset_name!r} has no volumes in the split {split!r} (volumes: {listing}). Choose another split."


def _nothing_left(dataset_name: str, split: str, result: ItemList) -> str:
    reasons = [f"{s.file or s.item_id}: {s.reason}" for s in result.skipped] + [
        f"{d.item_id}: {d.reason}" for d in result.dropped
    ]
    more = f"\n  ... and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return (
        f"data set {dataset_name!r}, split {split!r}: no usable slice ({len(result.skipped)} sources skipped, "
        f"{len(result.dropped)} slices dropped). First reasons:\n  " + "\n  ".join(reasons[:3]) + more
    )


class SliceReader:
    """Reads items from their memory maps; holds the maps of the last few volumes open (thread-safe)."""

    def __init__(self, max_open: int = 8) -> None:
        """``max_open``: number of volumes whose maps stay open."""
        self._max_open = max(1, max_open)
        self._open: OrderedDict[Path, tuple[NDArray[np.float32], NDArray[np.bool_]]] = OrderedDict()
        self._lock = Lock()

    def load(self, item: ItemRef) -> SliceRecord:
        """Copy one slice and its mask out of the cache.

        Raises
        ------
        DataError : the cache entry has gone or is damaged: list the items again.
        """
        images, masks = self._maps(item)
        return SliceRecord(item, np.array(images[item.index], dtype=np.float32), np.array(masks[item.index], dtype=np.bool_))

    def volume(self, item: ItemRef) -> NDArray[np.float32]:
        """Copy the whole volume of an item, ``[C, S, H, W]``, with the slices that were left out.

        Raises
        ------
        DataError : the cache entry has gone or is damaged: list the items again.
        """
        return np.array(np.moveaxis(self._maps(item)[0], 1, 0), dtype=np.float32, order="C")

    def _maps(self, item: ItemRef) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        with self._lock:
            maps = self._open.pop(item.folder, None) or _open_maps(item)
            self._open[item.folder] = maps
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)
        return maps


def load_slice(item: ItemRef) -> SliceRecord:
    """Read one item; see :meth:`SliceReader.load`, which is faster for many."""
    return SliceReader(max_open=1).load(item)


def _open_maps(item: ItemRef) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    try:
        return np.load(item.folder / "hr.npy", mmap_mode="r"), np.load(item.folder / "mask.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(
            item.folder,
            f"the prepared images of {item.item_id} are gone or damaged: {error}.",
            "Start again: they are built anew.",
        ) from error
