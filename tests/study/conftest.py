"""Runs of three methods on four subjects, and a study of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from study_support import make_study, write_runs

METHODS = {"zebranet": 0.0, "quokka_sr": -0.05, "wombat_up": -0.1}
PEOPLE = {"s1": 3, "s2": 3, "s3": 2, "s4": 2}


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated readers write thousands of lines: no need to wait for the disk each time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture(scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and a study that are made once, and copied for each test."""
    place = tmp_path_factory.mktemp("templates")
    write_runs(place / "runs", {**METHODS, "gt": 0.0}, PEOPLE, controls=("gt",))
    make_study(place / "runs", place / "study", images=6, criteria=("contrast", "sharpness"), repeats=2)
    return place


@pytest.fixture
def runs(_templates: Path, tmp_path: Path) -> Path:
    """Three methods, and the ground truth as a control."""
    return shutil.copytree(_templates / "runs", tmp_path / "runs")


@pytest.fixture
def study(_templates: Path, tmp_path: Path) -> Path:
    """Six images, two repeats."""
    return shutil.copytree(_templates / "study", tmp_path / "study")
