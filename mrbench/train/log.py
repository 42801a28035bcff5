"""The training log: one CSV file in long form, and loggers of other makers."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mrbench.errors import UserError
from mrbench.store.files import write_text

LOG = "log.csv"
COLUMNS = ("number", "stage", "step", "quantity", "value")
CURVE_POINTS = 40
TRACKERS = ("tensorboard", "wandb")


class CsvLog:
    """``log.csv``: a row for each logged quantity. ``number`` counts steps over all stages, ``step`` within the stage.

    Quantities: ``loss`` and ``loss/NAME`` (means since the row before), ``lr/OPTIMISER``, ``gradient/OPTIMISER`` (norm before
    clipping), ``val/COLUMN``. Steps are counted from 1: the row of step n is written when n steps are done.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def begin(self, number: int) -> None:
        """Keep the rows up to ``number`` steps (0: none), so that a resumed training writes the rest again."""
        kept = [r for r in self.rows() if int(r["number"]) <= number] if number else []
        lines = [",".join(COLUMNS), *(",".join(r[c] for c in COLUMNS) for r in kept)]
        write_text(self.path, "\n".join(lines) + "\n")

    def write(self, number: int, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Append the quantities of one step."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([number, stage, step, k, f"{v:.9g}"] for k, v in values.items())

    def rows(self) -> list[dict[str, str]]:
        """All complete rows (a killed process may leave half a row at the end)."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return [r for r in csv.DictReader(file) if all(r.get(c) for c in COLUMNS) and r["number"].isdigit()]

    def curve(self) -> list[dict[str, Any]]:
        """The total loss over the training, at most 40 points: means over equal windows of each stage."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.rows():
            if row["quantity"] == "loss":
                found.setdefault(row["stage"], []).append((int(row["step"]), float(row["value"])))
        points: list[dict[str, Any]] = []
        share = max(1, CURVE_POINTS // max(1, len(found)))
        for stage, losses in found.items():
            size = math.ceil(len(losses) / share)
            for start in range(0, len(losses), size):
                window = losses[start : start + size]
                mean = sum(v for _, v in window) / len(window)
                points.append({"stage": stage, "step": window[-1][0], "loss": float(f"{mean:.6g}")})
        return points


class Observer(Protocol):
    """Who is told about a training: what the life-cycle hooks get."""

    def train_started(self, training: Mapping[str, Any]) -> None:
        """A training begins or resumes: method, preset, seed, ``steps`` in all, ``done`` so far, and its stages."""

    def train_step(self, step: Mapping[str, Any]) -> None:
        """Steps are done: ``number`` of ``steps`` over all stages, ``stage``, ``step``, ``values`` (``None`` if not logged now)."""

    def train_finished(self, training: Mapping[str, Any]) -> None:
        """It has ended: ``status`` is done, stopped or failed; with ``done`` steps, and ``selection`` if it is done."""


class TrackerObserver:
    """Sends the logs of trainings to TensorBoard (files beside each checkpoint) or Weights & Biases, by accelerate's trackers.

    Raises
    ------
    UserError : an unknown tracker, or its package is not installed.
    """

    def __init__(self, name: str) -> None:
        from accelerate import utils

        if name not in TRACKERS:
            raise UserError(f"--log {name}: unknown. Known: {', '.join(TRACKERS)} (a CSV file is always written).")
        available = {"tensorboard": utils.is_tensorboard_available, "wandb": utils.is_wandb_available}[name]
        if not available():
            raise UserError(f"--log {name}: the package {name} is not installed: pip install {name}.")
        self._name = name
        self._tracker: Any = None

    def train_started(self, training: Mapping[str, Any]) -> None:
        """Open the log of one training."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        make, run = LOGGER_TYPE_TO_CLASS[self._name], f"{training['method']}-{training['name']}"
        folder = training["out"]
        self._tracker = make(run, folder) if self._name == "tensorboard" else make(training["method"], name=run, dir=folder)
        self._tracker.start()

    def train_step(self, step: Mapping[str, Any]) -> None:
        """Log the values of a step that has any."""
        if step["values"] and self._tracker is not None:
            self._tracker.log(dict(step["values"]), step=step["number"])

    def train_finished(self, training: Mapping[str, Any]) -> None:
        """Close the log."""
        if self._tracker is not None:
            self._tracker.finish()
            self._tracker = None


def tell(observers: Sequence[Observer], event: str, facts: Mapping[str, Any]) -> list[str]:
    """Call one event of all observers. What one of them raises stops nothing; it is returned in words."""
    problems = []
    for observer in observers:
        try:
            getattr(observer, event)(facts)
        except Exception as error:  # a logger may fail in any way
            problems.append(f"{type(observer).__name__}.{event} raised {type(error).__name__}: {error}")
    return problems
