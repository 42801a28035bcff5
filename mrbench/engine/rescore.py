"""Add or recompute metrics of stored runs from their restored images, with the same code path as the run itself.

A kill at any moment leaves a run that reads true: a column whose definition changes is taken out of the manifest before the
first part is rewritten, and every computed column enters the manifest after the last one.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from torch import Tensor

import mrbench
from mrbench.data.items import Progress
from mrbench.degradation.base import Degradation
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.measurement import Measurement
from mrbench.engine.environment import now
from mrbench.engine.imagefiles import few
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Task
from mrbench.engine.verify import reopen
from mrbench.errors import UserError
from mrbench.plugins import Registry
from mrbench.store.images import image_file, read_images, read_truth, truth_file, write_truth
from mrbench.store.manifest import Manifest
from mrbench.store.rows import metric_columns
from mrbench.store.runs import LOCKS, ROWS, SKIPPED, RunFolder, Shard

WAIT_SECONDS = 0.2
SIGNATURE = "mrbench.signature."
NOTE = "computed from stored images: "
AGAIN = "Run them again with `--images all`"


@dataclass
class StoredRun:
    """A run whose images are at hand: ``shards`` are those with ok rows, ``items`` their number."""

    folder: RunFolder
    manifest: Manifest
    shards: list[Shard]
    items: int
    task: Task | None = None  # opened only where ground truth is missing


@dataclass
class Rescored:
    """What became of one run."""

    folder: Path
    items: int
    columns: list[str]
    unavailable: dict[str, str] = field(default_factory=dict)  # asked for and not computed: metric or column -> reason


def open_stored(folders: Sequence[Path], registry: Registry, progress: Progress | None = None) -> list[StoredRun]:
    """Check runs before anything is changed: rows readable, images and ground truth at hand.

    Ground truth that was not kept is made again from the data set, if its files and the rules are still the same.

    Raises
    ------
    UserError : a run without images or with damaged rows, or ground truth that cannot be made again.
    """
    found: list[StoredRun] = []
    lacking: list[str] = []
    tasks: dict[str, Task] = {}
    for path in folders:
        run, without = _open(path)
        found.append(run)
        if without:
            lacking.append(f"{path} ({without} of {run.items} items)")
    if lacking:
        raise UserError(f"no restored images are stored in {few(lacking)}: metrics can be computed from images only. {AGAIN}.")
    for run in found:
        _find_truth(run, tasks, registry, progress)
    return found


def default_metrics(manifest: Manifest) -> list[str]:
    """The metrics of the run's protocol (of its columns, where the manifest does not hold the protocol's text)."""
    named = manifest.protocol.source.get("metrics") or [c.metric for c in manifest.columns.values()]
    return list(dict.fromkeys(named))


def rescore(run: StoredRun, scorer: Scorer, registry: Registry, progress: Callable[[int], None] | None = None) -> Rescored:
    """Compute all metrics of ``scorer`` for the ok rows of a run and store them; other columns stay as they are.

    Parameters
    ----------
    run : from :func:`open_stored`.
    scorer : loaded metrics; it is not changed.
    progress : called with the number of items of each finished shard.

    Raises
    ------
    UserError : damaged images or rows, or another process is scoring this run.
    """
    locks = run.folder.path / LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / "score.lock", timeout=0):
            return _rescore(run, scorer, registry, progress or (lambda done: None))
    except Timeout:
        raise UserError(f"{run.folder.path}: another `mrbench score` is working in it. Wait for it, then call again.") from None


def _rescore(run: StoredRun, scorer: Scorer, registry: Registry, progress: Callable[[int], None]) -> Rescored:
    folder = run.folder
    manifest = folder.manifest()
    rebuild = _Rebuild.of(manifest, registry) if _needs_measurement(scorer) else None
    own = _for_this_run(scorer, rebuild if isinstance(rebuild, str) else "")
    native = _Native.of(run, own, registry)
    columns = own.columns(manifest.draws, native.units)
    own.unavailable |= dict.fromkeys((m.card.name for m in own.loaded if m.native), native.reason) if native.reason else {}
    changed = [c for c, info in columns.items() if c in manifest.columns and manifest.columns[c].signature != info.signature]
    if changed and run.shards:
        for column in changed:
            del manifest.columns[column]
        folder.write_manifest(manifest)
    signatures = {c: info.signature for c, info in columns.items()}
    work = _Work(run, own, signatures, rebuild if isinstance(rebuild, _Rebuild) else None, native)
    if columns:
        work.do(progress)
    if run.shards and columns:
        manifest = folder.manifest()
        order = list(dict.fromkeys([*run.manifest.columns, *columns]))
        merged = {**manifest.columns, **columns}
        manifest.columns = {c: merged[c] for c in sorted(merged, key=lambda c: order.index(c) if c in order else len(order))}
        _rewrite_skipped(folder, manifest)
    computed = {info.metric for info in columns.values()} | set(columns)
    some = {column: f"for some items: {why}" for column, why in own.notes.items()}
    kept = {k: v for k, v in manifest.unavailable.items() if k not in computed}
    present = {info.metric for info in manifest.columns.values()}
    manifest.unavailable = {**kept, **{k: v for k, v in own.unavailable.items() if k not in present}, **some}
    if run.shards and columns:
        manifest.notes = _noted(manifest.notes, list(columns), own.device)
    manifest.updated = now()
    folder.write_manifest(manifest)
    return Rescored(folder.path, run.items, list(columns) if run.shards else [], {**own.unavailable, **some})


# -- before --------------------------------------------------------------------------------------------------------
def _open(path: Path) -> tuple[StoredRun, int]:
    """A run, and how many of its ok items have no image."""
    folder = RunFolder(path)
    manifest = folder.manifest()
    shards, items, without = [], 0, 0
    for shard in folder.plan()[1]:
        part = folder.read_part(shard.number)
        ok = set(_ok(part)) if part is not None else set()
        if ok:
            shards.append(shard)
            items += len(ok)
            without += len(ok - _stored_ids(path, shard.number))
    return StoredRun(folder, manifest, shards, items), without


def _ok(part: pa.Table) -> dict[str, str]:
    """Item id -> item hash of the ok rows of a part."""
    ids, hashes, status = (part.column(c).to_pylist() for c in ("item_id", "item_hash", "status"))
    return {i: h for i, h, s in zip(ids, hashes, status, strict=True) if s == "ok"}


def _all_ok(run: StoredRun) -> dict[str, str]:
    """Item id -> item hash of all ok rows of a run."""
    hashes: dict[str, str] = {}
    for shard in run.shards:
        part = run.folder.read_part(shard.number)
        hashes |= _ok(part) if part is not None else {}
    return hashes


def _stored_ids(run: Path, shard: int) -> set[str]:
    path = image_file(run, shard)
    if not path.is_file():
        return set()
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:  # reads one member: no pixels
            return set(json.loads(arrays["ids"].tobytes().decode()))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged images ({error}). Delete the file and its rows, and run again.") from None


def _find_truth(run: StoredRun, tasks: dict[str, Task], registry: Registry, progress: Progress | None) -> None:
    """Open the task of a run if ground truth of one of its items is missing, and check that it is the same task."""
    hashes = _all_ok(run)
    protocol = run.manifest.protocol.hash
    if all(truth_file(run.folder.path, protocol, h).is_file() for h in hashes.values()):
        return
    info = run.manifest.dataset
    key = json.dumps([info.alias, info.name, info.options, protocol], sort_keys=True)
    if key not in tasks:
        tasks[key] = reopen(run.manifest, registry, progress)
    run.task = tasks[key]
    now_there = {i.item_id: i.item_hash for i in run.task.items}
    changed = [i for i, h in hashes.items() if now_there.get(i) != h]
    if changed:
        raise UserError(
            f"{run.folder.path}: the ground truth is not stored, and data set {info.alias} does not give the same images any "
            f"more ({len(changed)} of {len(hashes)} items changed or are gone: {few(changed)}). Run the method again."
        )


# -- scoring -------------------------------------------------------------------------------------------------------
def _needs_measurement(scorer: Scorer) -> bool:
    return any(m.card.kind == "measurement" for m in scorer.loaded)


def _for_this_run(scorer: Scorer, no_measurement: str) -> Scorer:
    """The same metrics with notes of their own; those that need the measurement are left out if there is none."""
    loaded = [m for m in scorer.loaded if not (no_measurement and m.card.kind == "measurement")]
    left_out = {m.card.name: no_measurement for m in scorer.loaded if m not in loaded}
    return Scorer(scorer.device, loaded, {**scorer.unavailable, **left_out})


@dataclass(frozen=True)
class _Native:
    """What metrics in native units need and a run folder does not hold; it is asked of the data set again.

    units : of all items. scales : item hash -> native units per unit range. reason : why there are none, where some are needed.
    """

    units: str = ""
    scales: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of(cls, run: StoredRun, scorer: Scorer, registry: Registry) -> _Native:
        """Open the run's data set, if a metric of ``scorer`` is in native units."""
        if not any(m.native for m in scorer.loaded):
            return cls()
        try:
            task = run.task or reopen(run.manifest, registry)
        except UserError as error:
            return cls(reason=f"the units and scales of the images are not known: {error}")
        scales = {i.item_hash: i.intensity.scale for i in task.items}
        changed = [item for item, digest in _all_ok(run).items() if digest not in scales]
        if changed:
            return cls(reason=f"the data set does not give the same images any more ({few(changed)})")
        return cls(task.units, scales)


@dataclass(frozen=True)
class _Rebuild:
    """The measurement of a stored run, from its rules and the stored ``y``."""

    degradation: Degradation[Any]
    scales: tuple[float, ...]
    sigma: float
    hash: str

    @classmethod
    def of(cls, manifest: Manifest, registry: Registry) -> _Rebuild | str:
        """... or why there is none."""
        rules = manifest.protocol.rules
        try:
            named = rules["degradation"]
            card = registry.degradations.get(named["name"])
            if card.version != named["version"]:
                return f"degradation {card.name} is of version {card.version} here, of version {named['version']} in the run"
            degradation = card.load()(card.parse(named["options"]))
            return cls(degradation, tuple(rules["scale"]), rules["noise"]["sigma"], manifest.protocol.hash)
        except (UserError, KeyError) as error:
            return f"the degradation cannot be rebuilt: {error}"

    def measurement(self, y: Tensor, size: tuple[int, int], ids: Sequence[str]) -> Measurement:
        """The batch as the method got it; for 3-D protocols without an operator."""
        if len(self.scales) == 3 and tuple(y.shape[2:]) == size:  # brought back to the HR grid before
            return Measurement(y, size, (1.0, 1.0), None, _same(size), self.sigma, tuple(ids), self.hash)
        if len(self.scales) == 3:
            depth = int(np.ceil(8 * self.scales[0]))  # the in-plane grids do not depend on it
            gy, gx = self.degradation.bind((depth, *size), self.scales).grid[1:]
            return Measurement(y, size, (gy.step, gx.step), None, (gy, gx), self.sigma, tuple(ids), self.hash)
        operator = self.degradation.bind(size, self.scales)
        gy, gx = operator.grid
        return Measurement(y, size, (gy.step, gx.step), operator, (gy, gx), self.sigma, tuple(ids), self.hash)


def _same(size: tuple[int, int]) -> tuple[AxisGrid, AxisGrid]:
    return AxisGrid.identity(size[0]), AxisGrid.identity(size[1])


@dataclass
class _Work:
    """Scores and rewrites the shards of one run."""

    run: StoredRun
    scorer: Scorer
    signatures: Mapping[str, str]
    rebuild: _Rebuild | None
    native: _Native

    def do(self, progress: Callable[[int], None]) -> None:
        """All shards in order; those that another process holds are waited for."""
        waiting = list(self.run.shards)
        while waiting:
            held = []
            for shard in waiting:
                with self.run.folder.claim(shard.number) as mine:
                    if mine:
                        progress(self._shard(shard))
                    else:
                        held.append(shard)
            waiting = held
            if waiting:
                time.sleep(WAIT_SECONDS)

    def _shard(self, shard: Shard) -> int:
        part = self.run.folder.read_part(shard.number)
        if part is None:
            return 0
        rows = part.to_pylist()
        ok = _ok(part)
        ids = [i for i in shard.items if i in ok]
        values = self._values(shard, ids, ok)
        for row in rows:
            for column in self.signatures:
                row[column] = values[row["item_id"]].get(column) if row["item_id"] in values else None
        names = list(dict.fromkeys([*metric_columns(part.column_names), *self.signatures]))
        self.run.folder.write_part(shard.number, rows, names, {**_signatures(part), **self.signatures})
        return len(ids)

    def _values(self, shard: Shard, ids: Sequence[str], hashes: Mapping[str, str]) -> dict[str, dict[str, float]]:
        images = read_images(self.run.folder.path, shard.number, set(ids))
        missing = [i for i in ids if i not in images]
        if missing:
            raise UserError(f"{self.run.folder.path}: the images of {few(missing)} are gone. {AGAIN}.")
        values: dict[str, dict[str, float]] = {i: {} for i in ids}
        groups: dict[tuple[int, ...], list[str]] = {}
        for item_id in ids:
            groups.setdefault(images[item_id].shape, []).append(item_id)
        for group in groups.values():
            truths = [self._truth(i, hashes[i]) for i in group]
            hr, y, mask = (torch.from_numpy(np.stack([t[k] for t in truths])) for k in range(3))
            estimates = torch.from_numpy(np.stack([images[i] for i in group]))
            measurement = self.rebuild.measurement(y, (hr.shape[2], hr.shape[3]), group) if self.rebuild else None
            scales = [self.native.scales[hashes[i]] for i in group] if self.native.scales else None
            for column, found in self.scorer.score(estimates, hr, mask, measurement, scales).items():
                for item_id, value in zip(group, found, strict=True):
                    values[item_id][column] = value
        return values

    def _truth(self, item_id: str, item_hash: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = truth_file(self.run.folder.path, self.run.manifest.protocol.hash, item_hash)
        stored = read_truth(path)
        if stored is not None:
            return stored
        if self.run.task is None:
            raise UserError(f"{path}: this ground truth is gone. Call the same command again: it makes it from the data set.")
        batch = self.run.task.load([i for i in self.run.task.items if i.item_id == item_id])
        made = batch.hr[0].numpy(), batch.measurement.y[0].cpu().numpy(), batch.mask[0].numpy()
        write_truth(path, *made)
        return made


# -- after ---------------------------------------------------------------------------------------------------------
def _signatures(part: pa.Table) -> dict[str, str]:
    """Column -> signature, as the part's own metadata say."""
    metadata = part.schema.metadata or {}
    return {k.decode().removeprefix(SIGNATURE): v.decode() for k, v in metadata.items() if k.decode().startswith(SIGNATURE)}


def _rewrite_skipped(folder: RunFolder, manifest: Manifest) -> None:
    """Rows of unusable sources have no values, but their part names columns and signatures like the others."""
    path = folder.path / ROWS / SKIPPED
    if path.is_file():
        rows = pq.read_table(path).to_pylist()
        folder.write_skipped(rows, list(manifest.columns), {c: info.signature for c, info in manifest.columns.items()})


def _noted(notes: Sequence[str], columns: Sequence[str], device: torch.device) -> list[str]:
    named = f"{NOTE}{', '.join(columns)} ("
    kept = [n for n in notes if not n.startswith(named)]
    return [*kept, f"{named}{now()}, mrbench {mrbench.__version__}, torch {version('torch')}, {device})"]


__all__ = ["Rescored", "StoredRun", "default_metrics", "open_stored", "rescore"]
