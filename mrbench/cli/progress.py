"""The progress bar: a plugin like any other, driven by the life-cycle hooks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from mrbench.bars import progress_bar
from mrbench.hookspecs import hookimpl
from mrbench.report.text import shorten

LIVE = ("psnr", "ssim")
PATIENCE = 3.0  # seconds; items that take longer show the steps within
ITEM_WIDTH = 32
NARROW = 120  # columns; below, steps take the room of the means


class ProgressPlugin:
    """One bar per entry, with ETA and the running means of a few metrics; long items show their steps."""

    def __init__(self, console: Console) -> None:
        self._bar = progress_bar(console)
        self._task: TaskID | None = None
        self._label = self._note = ""
        self._sums: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> ProgressPlugin:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def preparing(self, done: int, total: int, name: str) -> None:
        """Volumes prepared so far, and the one at hand."""
        if done == 0:
            self._task = self._bar.add_task("preparing volumes", total=total, note="")
        if self._task is not None:
            self._bar.update(self._task, completed=done, note=name)

    @hookimpl
    def mrbench_run_started(self, run: Mapping[str, Any]) -> None:
        """Open the bar of an entry at what was stored before."""
        done = run["requested"] - run["todo"]
        self._sums = {}
        self._label = run["method"]["label"]
        self._note = "stored" if done else ""
        self._task = self._bar.add_task(self._label, total=run["requested"], completed=done, note=self._note)

    @hookimpl
    def mrbench_step_done(self, step: Mapping[str, Any]) -> None:
        """Show how far the items at hand are, once they have taken a while."""
        if self._task is None:
            return
        if step["seconds"] > PATIENCE and step["done"] < step["total"]:
            note = "" if self._bar.console.width < NARROW else self._note
            self._bar.update(self._task, description=f"{self._label}: {_within(step)}", note=note)
        else:
            self._bar.update(self._task, description=self._label, note=self._note)

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
        self._note = "  ".join(f"{name} {total / count:.4g}" for name, (total, count) in self._sums.items())
        self._bar.update(self._task, advance=1, note=self._note, description=self._label)

    @hookimpl
    def mrbench_run_finished(self, run: Mapping[str, Any]) -> None:
        """Say how many items are not ok."""
        counts = run["counts"]
        bad = sum(v for k, v in counts.items() if k != "ok")
        if bad:
            self._bar.console.print(Text(f"{run['method']['label']}: {bad} items are not ok", style="yellow"))


def _within(step: Mapping[str, Any]) -> str:
    """``step 12/40 of item VOLUME/SLICE``, ``... and 3 more``, or the same while warming up."""
    first, *others = step["items"]
    more = f" and {len(others)} more" if others else ""
    head = "warming up, " if step["warm_up"] else ""
    item = shorten("/".join(first.split("/")[-2:]), ITEM_WIDTH)  # volume and slice
    return f"{head}step {step['done']}/{step['total']} of item {item}{more}"
