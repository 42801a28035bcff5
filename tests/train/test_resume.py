"""Killed trainings, in processes of their own: the weights are those of an uninterrupted one, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

STEPS = 150
LONG = ("--steps", STEPS, "--save-steps", 4)


def files_of(folder: Path) -> dict[str, bytes]:
    """Weights and log of a training, by relative path."""
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.suffix in (".safetensors", ".csv") and f.parent.name != "resume"
    }


def wait_for_rows(process, log: Path, rows: int) -> None:
    """Until the log has so many rows (or the process has ended)."""
    while process.poll() is None and (not log.is_file() or log.read_text().count("\n") < rows):
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_by_a_signal(train, spawn_train, tmp_path: Path, number: signal.Signals, code: int) -> None:
    out = tmp_path / "cut"
    process = spawn_train("--out", out, *LONG)
    wait_for_rows(process, out / "log.csv", random.Random(number).randrange(10, 40))
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    assert not (out / "model.safetensors").exists()
    assert (out / "resume" / "state.pt").exists()
    if number == signal.SIGINT:
        assert f"of {STEPS}; the state is stored in {out}. Go on with the same command and --resume" in " ".join(err.split())
    done = train("--out", out, *LONG, "--resume")
    assert done.code == 0, done.err
    assert train("--out", tmp_path / "whole", *LONG).code == 0
    assert files_of(out) == files_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_again_and_again_at_random_moments(train, spawn_train, tmp_path: Path) -> None:
    """Kills while starting, stepping, validating and writing, each a random number of steps after the last, then once near the end."""
    assert train("--out", tmp_path / "whole", *LONG).code == 0
    total = (tmp_path / "whole" / "log.csv").read_text().count("\n")
    rng = random.Random(11)
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    kills = 0
    for turn in range(2):
        out = tmp_path / f"cut{turn}"
        reached = 0
        goals = [0, *sorted(rng.randrange(1, total) for _ in range(4)), total - 1]
        for goal in goals:
            process = spawn_train("--out", out, *LONG, "--resume")
            if goal == 0:
                time.sleep(rng.uniform(0.1, 0.5))  # while modules are imported
            else:
                wait_for_rows(process, out / "log.csv", max(goal, reached + 1))
                time.sleep(rng.uniform(0.0, 0.02))
            if process.poll() is None:
                process.send_signal(rng.choice(signals))
                kills += 1
            process.communicate()
            log = out / "log.csv"
            reached = log.read_text().count("\n") if log.is_file() else 0
        done = train("--out", out, *LONG, "--resume")
        assert done.code == 0, done.err
        assert files_of(out) == files_of(tmp_path / "whole")
    assert kills >= 6  # the others came when the training was already done
