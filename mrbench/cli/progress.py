"""The progress bar: a plugin like any other, driven by the life-cycle hooks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from mrbench.hookspecs import hookimpl

LIVE = ("psnr", "ssim")


class ProgressPlugin:
    """One bar per entry, with ETA and the running means of a few metrics."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[means]}", markup=False),
            console=console,
        )
        self._task: TaskID | None = None
        self._sums: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> ProgressPlugin:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def preparing(self, done: int, total: int, name: str) -> None:
        """Volumes prepared so far, and the one at hand."""
        if done == 0:
            self._task = self._bar.add_task("preparing volumes", total=total, means="")
        if self._task is not None:
            self._bar.update(self._task, completed=done, means=name)

    @hookimpl
    def mrbench_run_started(self, run: Mapping[str, Any]) -> None:
        """Open the bar of an entry at what was stored before."""
        done = run["requested"] - run["todo"]
        self._sums = {}
        self._task = self._bar.add_task(
            run["method"]["label"], total=run["requested"], completed=done, means="stored" if done else ""
        )

    @hookimpl
    def mrbench_item_done(self, row: Mapping[str, Any]) -> None:
        """Advance by one item."""
        if self._task is None:
            return
        for name in LIVE:
            value = row.get(name)
            if row["status"] == "ok" and value is not None and math.isfinite(value):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)
        means = "  ".join(f"{name} {total / count:.4g}" for name, (total, count) in self._sums.items())
        self._bar.update(self._task, advance=1, means=means)

    @hookimpl
    def mrbench_run_finished(self, run: Mapping[str, Any]) -> None:
        """Say how many items are not ok."""
        counts = run["counts"]
        bad = sum(v for k, v in counts.items() if k != "ok")
        if bad:
            self._bar.console.print(Text(f"{run['method']['label']}: {bad} items are not ok", style="yellow"))
