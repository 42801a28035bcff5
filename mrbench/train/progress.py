"""The progress bar of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from mrbench.bars import progress_bar

SHOWN = 4  # losses beside the bar


class TrainingBar:
    """One bar for each training, over all its stages, with ETA, the latest losses and validation scores.

    ``quiet``: show nothing (one of several processes).
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._bar = progress_bar(console, disable=quiet)
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingBar:
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

    def train_started(self, training: Mapping[str, Any]) -> None:
        """Open a bar at what was done before."""
        if self._task is not None:
            self._bar.update(self._task, visible=False)
        name = f"{training['method']} {training['name']} (seed {training['seed']})"
        self._task = self._bar.add_task(name, total=training["steps"], completed=training["done"], note="")

    def train_step(self, step: Mapping[str, Any]) -> None:
        """Advance, and show the losses; validation scores stay above the bar."""
        if self._task is None:
            return
        losses = "  ".join(f"{k} {v:.4g}" for k, v in list(step["losses"].items())[:SHOWN])
        self._bar.update(self._task, completed=step["number"], note=f"{step['stage']}: {losses}")
        if self._bar.disable:
            return
        scores = {k.removeprefix("val/"): v for k, v in (step["values"] or {}).items() if k.startswith("val/")}
        if scores:
            shown = "  ".join(f"{k} {v:.4g}" for k, v in scores.items() if not k.endswith("_fg"))
            self._bar.console.print(Text(f"step {step['number']} ({step['stage']}): validation {shown}"), soft_wrap=True)

    def train_finished(self, training: Mapping[str, Any]) -> None:
        """Nothing more to show."""
        self._task = None
