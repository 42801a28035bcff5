"""The progress bar of ``mrbench tune``: one bar over the items of all trials, with ETA and the best score so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import TaskID

from mrbench.bars import progress_bar
from mrbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from mrbench.engine.tune import Objective
    from mrbench.store.tuned import TrialRecord


class TuneBar:
    """Counts items; those that were stored before leave the total, so that they do not spoil the ETA."""

    def __init__(self, console: Console, trials: int, objective: Objective) -> None:
        self._bar = progress_bar(console)
        self._trials = trials
        self._objective = objective
        self._preparing: TaskID | None = None
        self._task: TaskID | None = None
        self._per_trial = 0
        self._left = 0  # items of the trial at hand that have not been counted
        self._total = 0
        self._best: TrialRecord | None = None

    def __enter__(self) -> TuneBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def preparing(self, done: int, total: int, name: str) -> None:
        """Volumes prepared so far, and the one at hand."""
        if done == 0:
            self._preparing = self._bar.add_task("preparing volumes", total=total, note="")
        if self._preparing is not None:
            self._bar.update(self._preparing, completed=done, note=name)

    def begin(self, items: int) -> None:
        """Open the bar over ``trials * items``."""
        self._per_trial, self._total = items, items * self._trials
        self._task = self._bar.add_task("trials", total=self._total, note="")

    def started(self, number: int) -> None:
        """A trial begins."""
        self._left = self._per_trial
        if self._task is not None:
            self._bar.update(self._task, description=f"trial {number + 1}/{self._trials}")

    @hookimpl
    def mrbench_run_started(self, run: Mapping[str, Any]) -> None:
        """Items that were stored before are no work."""
        self._drop(run["requested"] - run["todo"])

    @hookimpl
    def mrbench_item_done(self, row: Mapping[str, Any]) -> None:
        """Advance by one item."""
        self._left -= 1
        if self._task is not None:
            self._bar.update(self._task, advance=1)

    def done(self, record: TrialRecord) -> None:
        """A trial has ended; what it left undone (a failed one) is no work any more."""
        self._drop(self._left)
        if record.score is not None and self._objective.better(record.score, self._best.score if self._best else None):
            self._best = record
        if self._task is not None and self._best is not None:
            note = f"best {self._objective.column} {self._best.score:.4g} (trial {self._best.trial})"
            self._bar.update(self._task, note=note)

    def _drop(self, items: int) -> None:
        self._left -= items
        self._total -= items
        if self._task is not None:
            self._bar.update(self._task, total=self._total)
