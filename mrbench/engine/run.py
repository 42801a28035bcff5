"""Turns entries and a task into stored rows, shard by shard, resumable at any moment; in this process unless told otherwise."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from mrbench.data.items import ItemRef
from mrbench.engine.entries import Entry
from mrbench.engine.environment import device_name, now
from mrbench.engine.folders import Conditions, open_manifest, other_runs, refuse_unfit, run_facts, run_folder
from mrbench.engine.leaks import Seen, check_leaks, recipe_of, training_of
from mrbench.engine.loading import Loaded, load_method, parameters_of
from mrbench.engine.restorer import Restored, Restorer, Steps
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Batch, Task
from mrbench.engine.tuned import TunedHere, check_tuned
from mrbench.errors import UserError
from mrbench.hub import mismatches
from mrbench.hub.places import source_of
from mrbench.plugins import Registry
from mrbench.store.images import image_file, read_images, truth_file, write_images, write_truth
from mrbench.store.manifest import Manifest
from mrbench.store.remote import Mirror
from mrbench.store.rows import Status, metric_columns, signatures_of
from mrbench.store.runs import CorruptPart, RunFolder, Shard

IMAGES_AUTO_BYTES = 1 << 30  # `--images auto` stores restored images up to 1 GiB per run
WAIT_SECONDS = 0.2
CPU_BATCH, GPU_BATCH = 4, 16


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; nothing here moves a number beyond the stated tolerance."""

    out: Path
    batch: int | None = None
    images: str = "auto"  # auto | all | none
    allow_leak: bool = False  # run weights on subjects that they were trained on
    mirror: Mirror | None = None  # of ``out``, where runs are stored in a remote place


@dataclass
class RunReport:
    """What became of one entry in this call."""

    folder: Path
    entry: Entry
    requested: list[str]  # item ids
    done_before: int
    computed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # item id -> error of failed and out-of-memory items
    notes: list[str] = field(default_factory=list)


def refuse_unloadable(entries: Sequence[Entry], conditions: Conditions) -> None:
    """Load and drop the methods whose options or weights are not those that ship, so that a mistake comes before any work.

    Raises
    ------
    UserError : options that do not fit the weights, or weights that do not fit the method. Other errors are left to the run, which
        records them: a broken plugin must not stop the others.
    """
    for entry in entries:
        if entry.track == "default" and (entry.checkpoint is None or source_of(entry.checkpoint) == "shipped"):
            continue
        try:
            Restorer(entry.card, entry.options, conditions.device, conditions.precision, entry.checkpoint)
        except UserError as error:
            raise UserError(f"{entry.label}: {error}") from error
        except Exception:
            continue


class Executor(Protocol):
    """Computes shards elsewhere than in this process. Rows must be those of :meth:`ShardWork.do`."""

    def load(self, runner: Runner, entry: Entry) -> Loaded:
        """Load the method of an entry wherever it is to be computed."""

    def do(self, work: ShardWork, shards: Sequence[Shard]) -> None:
        """Compute and store shards, and call ``work.finished`` for each."""


@dataclass
class Runner:
    """One call of ``mrbench run``: a task, its chosen items, the metrics, and where things go."""

    task: Task
    chosen: Sequence[ItemRef]
    scorer: Scorer
    conditions: Conditions
    options: RunOptions
    registry: Registry
    executor: Executor | None = field(default=None, kw_only=True)
    seen: dict[str, Seen] = field(init=False, default_factory=dict)  # label -> what its weights were trained on
    stored_notes: list[str] = field(init=False, default_factory=list)  # on what is damaged in the remote place
    tuned: dict[str, TunedHere] = field(init=False, default_factory=dict)  # label -> what its options were tuned on

    def check(self, entries: Sequence[Entry]) -> None:
        """Refuse what must not be run (``UserError``): entries that do not fit, weights trained on the chosen items."""
        refuse_unfit(entries, self.task.protocol.protocol)
        self.seen = check_leaks(entries, self.chosen, self.options.allow_leak)
        rules = self.task.protocol
        self.tuned = check_tuned(entries, self.chosen, rules.name, rules.hash, self.options.allow_leak)

    def run(self, entries: Sequence[Entry]) -> list[RunReport]:
        """Run the entries one after another; a failing one never stops the others.

        Raises
        ------
        UserError : an entry that does not fit the protocol, weights that were trained on the chosen items, or a run folder with
            other signatures (before any work).
        """
        self.check(entries)
        folders = [self._folder(e) for e in entries]
        for folder, entry in zip(folders, entries, strict=True):
            self._manifest(folder, entry)
        return [self._entry(folder, entry) for folder, entry in zip(folders, entries, strict=True)]

    # -- one entry ---------------------------------------------------------------------------------------------
    def _folder(self, entry: Entry) -> RunFolder:
        """The entry's run folder, up to date with the remote place, if there is one."""
        folder, mirror = run_folder(self.options.out, entry, self.task, self.conditions), self.options.mirror
        if mirror is not None:
            self.stored_notes += mirror.pull(folder.path)
            self.stored_notes += mirror.pull(truth_file(folder.path, self.task.protocol.hash, "").parent)
            mirror.push_below(folder.path)
        folder.mirror = mirror
        return folder

    def _manifest(self, folder: RunFolder, entry: Entry, nfe: int | None = None) -> Manifest:
        columns = self.scorer.columns(self.conditions.draws_of(entry), self.task.units)
        manifest = open_manifest(folder, entry, self.task, self.conditions, columns, self.registry, nfe)
        seen = self.seen[entry.label]
        if manifest.method.training != "overlap":  # of an earlier call on other items of this run
            manifest.method.training = seen.training
        manifest.notes = list(dict.fromkeys([*manifest.notes, *seen.notes, *self.tuned[entry.label].notes]))
        return manifest

    def _entry(self, folder: RunFolder, entry: Entry) -> RunReport:
        self.scorer.notes.clear()
        others = other_runs(folder, entry.label)
        restorer, broken, loaded = None, "", None
        if self.executor is None:
            restorer, broken = self._load(entry)
        else:
            loaded = self.executor.load(self, entry)
        if restorer is not None:
            restorer.on_step = partial(self.step, entry)
        manifest = self._manifest(folder, entry, restorer.nfe if restorer else loaded.nfe if loaded else entry.card.nfe)
        manifest.method.parameters = loaded.parameters if loaded else parameters_of(restorer)
        if loaded is not None:
            manifest.device, manifest.environment = loaded.device, loaded.environment
        manifest.method.recipe = recipe_of(training_of(entry)) if entry.checkpoint is not None else None
        manifest.images = manifest.images or self.keeps_images(entry)
        folder.write_manifest(manifest)
        folder.clean()
        kind = loaded.kind if loaded else self.conditions.device.type
        batch = self.options.batch or (GPU_BATCH if kind == "cuda" else CPU_BATCH)
        size = folder.plan_items(batch, lambda: group_by_size(self.chosen))
        report = RunReport(folder.path, entry, [i.item_id for i in self.chosen], 0)
        report.notes += [*self.seen[entry.label].notes, *self.tuned[entry.label].notes, *self.stored_notes]
        if others:
            report.notes.append(
                f"a new run folder is begun for {entry.label}: {', '.join(others)} had other options, weights, draws, data or plugin code"
            )
        if self.options.batch and size != self.options.batch:
            report.notes.append(
                f"the stored batch plan of {size} is kept (asked for {self.options.batch}), so that rows stay the same"
            )
        work = ShardWork(self, folder, manifest, entry, restorer, broken, report)
        todo = [s for s in folder.shards() if work.todo(s, repair=True)]
        report.done_before = len(self.chosen) - sum(len(work.todo(s)) for s in todo)
        self.registry.notify(
            "mrbench_run_started",
            run={**run_facts(manifest), "requested": len(self.chosen), "todo": len(self.chosen) - report.done_before},
        )
        self._write_skipped(folder, entry, manifest)
        try:
            if self.executor is None:
                work.do(todo)
            else:
                self.executor.do(work, todo)
        finally:
            self._finish(folder, manifest, report)
        return report

    def _load(self, entry: Entry) -> tuple[Restorer | None, str]:
        return load_method(entry, self.conditions)

    def step(self, entry: Entry, steps: Steps) -> None:
        """Tell the life-cycle hooks how far a method is within the items at hand."""
        step = {
            "label": entry.label,
            "items": steps.items,
            "done": steps.done,
            "total": steps.total,
            "seconds": steps.seconds,
            "warm_up": steps.warm_up,
        }
        self.registry.notify("mrbench_step_done", step=step)

    def keeps_images(self, entry: Entry) -> bool:
        """Whether restored images are stored."""
        if self.options.images != "auto":
            return self.options.images == "all"
        pixels = sum(int(np.prod(i.shape)) for i in self.chosen)
        return 4 * pixels * self.conditions.draws_of(entry) <= IMAGES_AUTO_BYTES

    def _write_skipped(self, folder: RunFolder, entry: Entry, manifest: Manifest) -> None:
        rows = [
            {
                **self.row_base(folder, entry),
                "subject": s.subject,
                "volume": s.volume,
                "item_id": s.item_id,
                "status": "skipped",
                "error": f"{s.file}: {s.reason}",
            }
            for s in self.task.listing.skipped
        ]
        folder.write_skipped(rows, list(manifest.columns), {k: c.signature for k, c in manifest.columns.items()})

    def _finish(self, folder: RunFolder, manifest: Manifest, report: RunReport) -> None:
        requested, missing = set(report.requested), {i.item_id for i in self.task.items}
        counts: Counter[str] = Counter()
        for item, status, error in folder.statuses():
            missing.discard(item)
            if item in requested:
                counts[status] += 1
                if status in ("failed", "oom"):
                    report.failed[item] = error
        manifest.partial = bool(missing)
        stored = folder.manifest()  # columns and notes that `mrbench score` added meanwhile stay
        manifest.columns = {**stored.columns, **manifest.columns}
        manifest.notes = stored.notes
        reasons = {**stored.unavailable, **self.scorer.unavailable}
        reasons |= {k: f"for some items: {v}" for k, v in self.scorer.notes.items()}
        have = {c.metric for c in manifest.columns.values()}
        manifest.unavailable = {k: v for k, v in reasons.items() if k in self.scorer.notes or k not in have}
        manifest.updated = now()
        folder.write_manifest(manifest)
        self.registry.notify("mrbench_run_finished", run={**run_facts(manifest), "counts": dict(counts)})

    def row_base(self, folder: RunFolder, entry: Entry) -> dict[str, Any]:
        """The columns that all rows of an entry share."""
        return {
            "run": folder.path.name,
            "method": entry.card.name,
            "label": entry.label,
            "tier": entry.tier,
            "checkpoint": entry.checkpoint.name if entry.checkpoint else "",
            "dataset": self.task.choice.alias,
            "protocol": self.task.protocol.name,
            "protocol_hash": self.task.protocol.hash,
            "error": "",
            "warning": "",
            "item_hash": "",
            "draws": self.conditions.draws_of(entry),
            "device": device_name(self.conditions.device),
            "precision": self.conditions.precision,
            "threads": self.conditions.threads,
        }


@dataclass
class ShardWork:
    """Computes and stores the shards of one entry."""

    runner: Runner
    folder: RunFolder
    manifest: Manifest
    entry: Entry
    restorer: Restorer | None
    broken: str  # why the method could not be loaded
    report: RunReport

    def __post_init__(self) -> None:
        self.items: Mapping[str, ItemRef] = {i.item_id: i for i in self.runner.chosen}
        columns = self.runner.scorer.columns(self.runner.conditions.draws_of(self.entry), self.runner.task.units)
        self.columns = {name: column.signature for name, column in columns.items()}
        self.stores_images = self.manifest.images and self.runner.keeps_images(self.entry)

    def todo(self, shard: Shard, repair: bool = False) -> list[ItemRef]:
        """Chosen items of the shard without a current ok row. A damaged part is set aside if ``repair``."""
        wanted = [self.items[i] for i in shard.items if i in self.items]
        if not wanted:
            return []
        try:
            stored = self.folder.read_part(shard.number)
        except CorruptPart as error:
            if repair:
                aside = self.folder.set_aside(error.path)
                self.report.notes.append(f"damaged rows set aside as {aside.name}; their shard is computed again")
            return wanted
        if stored is None:
            return wanted
        done = dict(zip(*(stored.column(c).to_pylist() for c in ("item_id", "item_hash")), strict=True))
        ok = {i for i, s in zip(*(stored.column(c).to_pylist() for c in ("item_id", "status")), strict=True) if s == "ok"}
        signed = signatures_of(stored)
        complete = all(signed.get(name) == signature for name, signature in self.columns.items())
        pictured = self._pictured(shard) if self.runner.options.images == "all" else ok
        return [i for i in wanted if not (complete and i.item_id in ok & pictured and done[i.item_id] == i.item_hash)]

    def _pictured(self, shard: Shard) -> set[str]:
        """Items of the shard whose restored images are stored."""
        return set(read_images(self.folder.path, shard.number))

    def do(self, shards: Sequence[Shard]) -> None:
        """Compute shards in order; those that another process holds are looked at again at the end."""
        waiting = list(shards)
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
            while waiting:
                held = []
                ahead: Future[None] | None = None
                for position, shard in enumerate(waiting):
                    with self.folder.claim(shard.number) as mine:
                        if not mine:
                            held.append(shard)
                            continue
                        if ahead is not None:
                            ahead.result()
                        following = waiting[position + 1 : position + 2]
                        ahead = pool.submit(self._touch, following[0]) if following else None
                        todo = self.todo(shard)
                        if todo:
                            self.finished(self.compute(shard, todo))
                waiting = held
                if waiting:
                    time.sleep(WAIT_SECONDS)

    def _touch(self, shard: Shard) -> None:
        """Read the next shard's pages ahead of time. Loading errors surface when the shard itself is loaded."""
        items = [self.items[i] for i in shard.items if i in self.items]
        try:
            self.runner.task.read_ahead(items)
        except Exception:
            return

    def finished(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count the rows of a shard that was stored, and tell the life-cycle hooks."""
        self.report.computed += len(rows)
        for row in rows:
            self.runner.registry.notify("mrbench_item_done", row=row)

    def compute(self, shard: Shard, todo: list[ItemRef]) -> list[dict[str, Any]]:
        """Restore some items of a shard and store their rows beside those that it has; returns the new ones."""
        stored = self.folder.read_part(shard.number)
        kept: list[dict[str, Any]] = [] if stored is None else stored.to_pylist()
        batch = self.runner.task.load(todo)
        old = self._stored_estimates(shard, todo, kept)
        if old is not None:
            rows = self._rescore(batch, old, {r["item_id"]: r for r in kept})
        else:
            rows = self._restore(shard, batch)
        self.store(shard, rows, stored)
        return rows

    def store(self, shard: Shard, rows: Sequence[dict[str, Any]], stored: pa.Table | None) -> None:
        """Write the part of a shard: ``rows`` in the place of those that are ``stored`` for the same items."""
        kept = [] if stored is None else stored.to_pylist()
        signed = signatures_of(stored) if stored is not None else {}
        changed = [name for name, signature in self.columns.items() if signed.get(name, signature) != signature]
        merged = {r["item_id"]: {**r, **dict.fromkeys(changed)} for r in kept} | {r["item_id"]: r for r in rows}
        ordered = [merged[i] for i in shard.items if i in merged]
        names = list(dict.fromkeys([*metric_columns(stored.column_names if stored is not None else []), *self.columns]))
        self.folder.write_part(shard.number, ordered, names, {**signed, **self.columns})

    def _stored_estimates(self, shard: Shard, todo: list[ItemRef], kept: list[dict[str, Any]]) -> torch.Tensor | None:
        """Stored images of ``todo`` if all of them are done and only lack metric columns."""
        rows = {r["item_id"]: r for r in kept}
        current = all(
            i.item_id in rows and rows[i.item_id]["status"] == "ok" and rows[i.item_id]["item_hash"] == i.item_hash
            for i in todo
        )
        if not current or not image_file(self.folder.path, shard.number).is_file():
            return None
        images = read_images(self.folder.path, shard.number, {i.item_id for i in todo})
        if len(images) != len(todo):
            return None
        return torch.from_numpy(np.stack([images[i.item_id] for i in todo]))

    def _rescore(self, batch: Batch, estimates: torch.Tensor, rows: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        scores = self.runner.scorer.score(estimates, batch.hr, batch.mask, batch.measurement, batch.scales)
        return [
            {**rows[item.item_id], **{name: values[i] for name, values in scores.items()}} for i, item in enumerate(batch.items)
        ]

    def _restore(self, shard: Shard, batch: Batch) -> list[dict[str, Any]]:
        outcomes = self._outcomes(batch)
        good = [i for i, o in enumerate(outcomes) if o.status == "ok"]
        scores: dict[str, list[float]] = {}
        if good:
            estimates = torch.stack([o.estimate for i in good if (o := outcomes[i]).estimate is not None])
            scores = self.runner.scorer.score(
                estimates, batch.hr[good], batch.mask[good], batch.measurement.select(good), [batch.scales[i] for i in good]
            )
        if self.stores_images:
            self._store_images(shard, batch, outcomes)
        rows = []
        for i, (item, outcome) in enumerate(zip(batch.items, outcomes, strict=True)):
            row = {
                **self.row(shard, item, outcome.status, outcome.error),
                "warning": self._warning(item, batch.hr.shape[1]),
                "seconds": outcome.seconds,
                "peak_memory": outcome.peak_memory,
                "nfe": self.restorer.nfe if self.restorer else None,
                "batch": outcome.batch,
            }
            if i in good:
                row |= {name: values[good.index(i)] for name, values in scores.items()}
            rows.append(row)
        return rows

    def row(self, shard: Shard, item: ItemRef, status: Status, error: str) -> dict[str, Any]:
        """What every row of an item says, whatever became of it."""
        return {
            **self.runner.row_base(self.folder, self.entry),
            "subject": item.subject,
            "volume": item.volume,
            "item_id": item.item_id,
            "item_hash": item.item_hash,
            "status": status,
            "error": error,
            "shard": shard.number,
        }

    def _warning(self, item: ItemRef, channels: int) -> str:
        """How the training of the weights or the tuning of the options differs from this task, or shares this item with it."""
        record, rules = self.entry.checkpoint, self.runner.task.protocol
        tuned = self.runner.tuned[self.entry.label].warnings(item)
        if record is None:
            return "; ".join(tuned)
        leaked = self.runner.seen[self.entry.label].warning(item)
        differing = mismatches(record, scale=rules.protocol.in_plane, degradation=rules.degradation.name, channels=channels)
        return "; ".join([*filter(None, [leaked]), *differing, *tuned])

    def _outcomes(self, batch: Batch) -> list[Restored]:
        card = self.entry.card
        if self.restorer is None:
            return [Restored("failed", error=self.broken) for _ in batch.items]
        channels = batch.hr.shape[1]
        if channels not in card.channels:
            takes = " or ".join(map(str, card.channels))
            return [
                Restored("skipped", error=f"method {card.name} takes {takes} channels, the image has {channels}")
                for _ in batch.items
            ]
        measurement = batch.measurement.to(self.runner.conditions.device)
        truth = self.runner.task.ground_truth(batch).to(measurement.y.device) if card.control else None
        draws = self.runner.conditions.draws_of(self.entry)
        return self.restorer.restore(measurement, draws, truth)

    def _store_images(self, shard: Shard, batch: Batch, outcomes: Sequence[Restored]) -> None:
        """Images first, rows second: a row that says ok has its images."""
        images = read_images(self.folder.path, shard.number)
        for i, (item, outcome) in enumerate(zip(batch.items, outcomes, strict=True)):
            if outcome.estimate is None:
                images.pop(item.item_id, None)
                continue
            images[item.item_id] = outcome.estimate.float().cpu().numpy()
            path = truth_file(self.folder.path, self.runner.task.protocol.hash, item.item_hash)
            write_truth(path, batch.hr[i].numpy(), batch.measurement.y[i].cpu().numpy(), batch.mask[i].numpy())
        write_images(self.folder.path, shard.number, images)


def group_by_size(items: Sequence[ItemRef]) -> list[list[str]]:
    """Item ids grouped by image shape (a batch holds one shape), groups and items in their order."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for item in items:
        groups.setdefault(tuple(item.shape), []).append(item.item_id)
    return list(groups.values())
