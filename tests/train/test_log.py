"""The CSV log, and who else is told about a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mrbench import hookspecs
from mrbench.errors import UserError
from mrbench.plugins import discover
from mrbench.train.log import CsvLog, TrackerObserver, tell
from mrbench.train.session import HookObserver


def test_a_resumed_log_goes_on_where_the_state_was(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.begin(0)
    for step in (10, 20, 30):
        log.write(step, "main", step, {"loss": 1 / step, "lr/a": 0.1})
    with log.path.open("a") as file:
        file.write("40,main,40,lo")  # the process was killed here
    log.begin(20)
    assert [(r["number"], r["quantity"]) for r in log.rows()] == [(n, q) for n in ("10", "20") for q in ("loss", "lr/a")]
    log.write(30, "main", 30, {"loss": 0.5})
    assert log.path.read_text().splitlines()[-1] == "30,main,30,loss,0.5"
    log.begin(0)
    assert log.rows() == []


def test_the_curve_is_short_whatever_the_length(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.begin(0)
    for step in range(1, 1001):
        log.write(step, "one" if step <= 500 else "two", step, {"loss": float(step), "loss/mse": 0.0})
    curve = log.curve()
    assert len(curve) <= 40
    assert curve[0] == {"stage": "one", "step": 25, "loss": 13.0}
    assert curve[-1]["step"] == 1000


def test_life_cycle_hooks_are_called(train, toy: Path, tmp_path: Path) -> None:
    if not hasattr(hookspecs, "mrbench_train_started"):
        pytest.skip("the hooks of trainings are not specified in this version")
    toy.write_text(
        toy.read_text()
        + f"""
def note(text):
    with open({str(tmp_path / "notes")!r}, "a") as file:
        file.write(text + "\\n")

@mrbench.hookimpl
def mrbench_train_started(training):
    note(f"started {{training['method']}} {{training['steps']}} {{training['done']}}")

@mrbench.hookimpl
def mrbench_train_step(step):
    note(f"step {{step['number']}} {{step['stage']}} {{sorted(step['losses'])}}")

@mrbench.hookimpl
def mrbench_train_finished(training):
    note(f"finished {{training['status']}} {{training['selection']['metric']}}")
"""
    )
    assert train("--out", tmp_path / "out", "--steps", 2).code == 0
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes == ["started toy 2 0", "step 1 main ['mse']", "step 2 main ['mse']", "finished done psnr"]


def test_hooks_that_are_not_specified_are_not_called() -> None:
    observer = HookObserver(discover())
    observer.train_started({})
    assert not discover().warnings


class FakeTracker:
    """What accelerate's trackers look like."""

    def __init__(self, run: str, folder: str) -> None:
        self.calls: list[Any] = [("open", run, folder)]
        FakeTracker.last = self

    def start(self) -> None:
        self.calls.append("start")

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


def test_trackers_get_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking, utils

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", FakeTracker)
    monkeypatch.setattr(utils, "is_tensorboard_available", lambda: True)
    tracker = TrackerObserver("tensorboard")
    tracker.train_started({"method": "toy", "name": "demo-x2", "out": str(tmp_path)})
    tracker.train_step({"number": 1, "values": None})
    tracker.train_step({"number": 2, "values": {"loss": 0.5}})
    tracker.train_finished({})
    assert FakeTracker.last.calls == [("open", "toy-demo-x2", str(tmp_path)), "start", (2, {"loss": 0.5}), "finish"]


def test_a_logger_that_fails_stops_nothing() -> None:
    class Failing(FakeTracker):
        def __init__(self) -> None:
            pass

        def train_step(self, step: Any) -> None:
            raise OSError("the disk is full")

    assert tell([Failing()], "train_step", {}) == ["Failing.train_step raised OSError: the disk is full"]


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import utils

    monkeypatch.setattr(utils, "is_wandb_available", lambda: False)
    with pytest.raises(UserError, match="pip install wandb"):
        TrackerObserver("wandb")
    assert "wandb" not in sys.modules
