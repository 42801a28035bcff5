"""Carrying out the plan of a sweep: data sets opened, every combination checked, what exists looked up, the rest run."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from mrbench.data.items import Progress
from mrbench.engine.entries import Entry
from mrbench.engine.folders import Conditions, open_manifest, run_folder
from mrbench.engine.run import Executor, Runner, RunOptions, RunReport, ShardWork, refuse_unloadable
from mrbench.engine.scoring import Scorer
from mrbench.engine.sweep import Planned
from mrbench.engine.sweep_file import SweepFile
from mrbench.engine.task import open_task
from mrbench.errors import MrbenchError, UserError
from mrbench.hub import resolve as get_weights
from mrbench.metrics.uncertainty_cards import usual_metrics
from mrbench.plugins import Registry
from mrbench.protocol import Protocol
from mrbench.store.manifest import MANIFEST
from mrbench.store.remote import Mirror
from mrbench.store.runs import RunFolder

STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}  # of no use to go on


@dataclass
class Bench:
    """Tasks, metrics and conditions of a sweep on this machine, each made once.

    preparing : as in :func:`mrbench.engine.task.open_task`. mirror : of ``out``, where runs are stored in a remote place.
    executor : computes the runs elsewhere than in this process.
    """

    spec: SweepFile
    registry: Registry
    out: Path
    device: torch.device
    threads: int
    batch: int | None = None
    preparing: Progress | None = None
    mirror: Mirror | None = None
    executor: Executor | None = None
    scorers: dict[tuple[str, ...], Scorer] = field(default_factory=dict)
    _runners: dict[tuple[str, str], Runner | str] = field(default_factory=dict)

    def open(self, planned: Sequence[Planned]) -> None:
        """Open data sets, check combinations with them, and find out what is stored already; sets their states."""
        loadable: dict[tuple[str, str], str] = {}
        for one in planned:
            if one.state != "new" or one.entry is None:
                continue
            runner = self._runner(one)
            if isinstance(runner, str):
                one.refuse(runner)
                continue
            try:
                self._open(one, runner, one.entry, loadable)
            except UserError as error:
                one.refuse(f"{one.variant.place}: {error}")

    def _open(self, one: Planned, runner: Runner, entry: Entry, loadable: dict[tuple[str, str], str]) -> None:
        if entry.checkpoint is not None:
            get_weights(entry.checkpoint, entry.card.name)
        runner.check([entry])
        key = (entry.label, entry.checkpoint.sha256 if entry.checkpoint else "")
        if key not in loadable:
            loadable[key] = _loadable(entry, runner.conditions)
        if loadable[key]:
            raise UserError(loadable[key])
        folder = run_folder(self.out, entry, runner.task, runner.conditions)
        found = existing(folder)
        if found is not None and found.path != folder.path:  # the very run, under another label
            entry = replace(entry, label=found.manifest().method.label)
            one.reason = f"stored as {entry.label}"
            folder = run_folder(self.out, entry, runner.task, runner.conditions)
        one.entry, one.runner, one.folder, one.total = entry, runner, folder.path, len(runner.chosen)
        if found is None:
            return
        draws = runner.conditions.draws_of(entry)
        columns = runner.scorer.columns(draws, runner.task.units)
        open_manifest(folder, entry, runner.task, runner.conditions, columns, runner.registry)  # refuses other signatures
        one.done = stored_items(runner, entry, folder)
        one.state = "finished" if one.done == one.total else "started"

    def _runner(self, one: Planned) -> Runner | str:
        """The runner of a data set under a protocol, or why there is none."""
        key = (one.dataset.name, one.protocol.name)
        if key not in self._runners:
            self._runners[key] = self._make(one)
        return self._runners[key]

    def _make(self, one: Planned) -> Runner | str:
        choice, rules, spec = one.dataset.choice, one.protocol.rules, self.spec
        if choice is None or rules is None:
            raise ValueError(f"{one}: refused before")
        draws = spec.draws if spec.draws is not None else rules.draws
        scorer = self._scorer(rules, draws)
        try:
            task = open_task(choice, rules, self.registry, self.preparing)
            chosen = task.choose(spec.subset, spec.limit)
        except MrbenchError as error:
            return f"{one.dataset.place}: {error}"
        conditions = Conditions(self.device, spec.precision, self.threads, draws)
        how = RunOptions(self.out, self.batch, spec.images, spec.allow_leak, self.mirror)
        return Runner(task, chosen, scorer, conditions, how, self.registry)

    def _scorer(self, rules: Protocol, draws: int) -> Scorer:
        names = self.spec.metrics or usual_metrics(rules.metrics, draws)
        if names not in self.scorers:
            given = self.spec.metric_options
            self.scorers[names] = Scorer.load(self.registry, names, given, self.device)
        return self.scorers[names]

    def run(self, one: Planned) -> None:
        """Run one combination to its end and set its state; errors are recorded in it and do not stop the others.

        Raises
        ------
        OSError : the storage is full or forbids writing.
        """
        if one.runner is None or one.entry is None:
            raise ValueError(f"{one}: not open")
        one.runner.executor = self.executor
        try:
            (report,) = one.runner.run([one.entry])
        except OSError as error:
            if error.errno in STORAGE:
                raise
            one.state, one.reason = "failed", f"{type(error).__name__}: {error}"
        except MrbenchError as error:
            one.state, one.reason = "failed", str(error)
        except Exception as error:  # of a plugin, say
            one.state, one.reason = "failed", f"{type(error).__name__}: {error}"
        else:
            one.report, one.folder = report, report.folder
            one.done = len(report.requested) - len(report.failed)
            one.state = "failed" if report.failed else "done"
            one.notes += report.notes
            if report.failed:
                item, error_text = next(iter(report.failed.items()))
                one.reason = f"{len(report.failed)} of {len(report.requested)} items ({item}: {error_text})"


def _loadable(entry: Entry, conditions: Conditions) -> str:
    """Why a method refuses its options or weights; empty if it does not."""
    try:
        refuse_unloadable([entry], conditions)
    except UserError as error:
        return str(error)
    return ""


def existing(folder: RunFolder) -> RunFolder | None:
    """The run folder itself if it is there, else one beside it with the same key: the same run under another label."""
    if (folder.path / MANIFEST).is_file():
        return folder
    key = folder.path.name.rpartition("-")[2]
    beside = sorted(folder.path.parent.glob(f"*-{key}")) if folder.path.parent.is_dir() else []
    found = [RunFolder(p) for p in beside if (p / MANIFEST).is_file()]
    return next((f for f in found if f.manifest().key == key), None)


def stored_items(runner: Runner, entry: Entry, folder: RunFolder) -> int:
    """How many of the chosen items have a current ok row; nothing is changed."""
    work = ShardWork(runner, folder, folder.manifest(), entry, None, "", RunReport(folder.path, entry, [], 0))
    _, shards = folder.plan()
    planned = {i for s in shards for i in s.items} & set(work.items)
    return len(planned) - sum(len(work.todo(s)) for s in shards)
