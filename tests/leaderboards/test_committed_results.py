"""The committed results: rows as they were packed, tables that follow from them, nothing that may not be published."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import Done

from mrbench.data.hashing import file_sha256
from mrbench.engine.stripping import Stripper
from mrbench.engine.submission import SUBMISSION, Submission
from mrbench.store.manifest import MANIFEST
from mrbench.store.runs import find_runs, load_run
from mrbench.store.verifications import standing_of

FOLDER = Path(__file__).resolve().parents[2] / "leaderboards"
TABLES = FOLDER / "tables.txt"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
TEXTS = (".md", ".csv", ".txt", ".json", ".tex")


def commands() -> list[list[str]]:
    lines = [line for line in TABLES.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [shlex.split(line) for line in lines]


def runs() -> list[Path]:
    return find_runs([FOLDER])


def same(found: str, committed: str) -> str:
    """Where two texts differ by more than the last digits of their numbers; empty if nowhere."""
    if NUMBER.sub("#", found) != NUMBER.sub("#", committed):
        pairs = zip(found.splitlines(), committed.splitlines(), strict=False)
        return next((f"{a!r} != {b!r}" for a, b in pairs if NUMBER.sub("#", a) != NUMBER.sub("#", b)), "another length")
    for a, b in zip(NUMBER.findall(found), NUMBER.findall(committed), strict=True):
        digits = len(b.partition("e")[0].partition(".")[2])
        if float(a) != pytest.approx(float(b), rel=1e-3, abs=1.5 * 10.0**-digits if "e" not in b else 1e-12):
            return f"{a} != {b}"
    return ""


def test_the_comparison_can_fail() -> None:
    assert not same("PSNR 20.41, p = 6.6e-07", "PSNR 20.40, p = 6.6e-07")
    assert same("PSNR 20.5", "PSNR 20.2") == "20.5 != 20.2"
    assert "bilinear" in same("a\nbilinear 1", "a\nbicubic 1")


def test_tables_follow_from_the_rows(tmp_path: Path, mrbench: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    again = tmp_path / "again"
    for run in runs():
        shutil.copytree(run, again / run.relative_to(FOLDER))
    monkeypatch.chdir(again)
    for words in commands():
        done = mrbench(*words)
        assert done.code == 0, f"{words}: {done.err}"
    made = {p.relative_to(again) for p in again.rglob("*") if p.is_file() and not any(run_of(p, again))}
    assert made, "no table is made"
    for name in sorted(made):
        assert (FOLDER / name).is_file(), f"{name} is not committed: sh leaderboards/tables.sh leaderboards"
        if name.suffix in TEXTS:
            difference = same((again / name).read_text(), (FOLDER / name).read_text())
            assert not difference, f"{name}: {difference}. Make the tables again: sh leaderboards/tables.sh leaderboards"


def run_of(path: Path, root: Path) -> list[Path]:
    """The run folder that a file is part of, if any."""
    return [p for p in path.parents if root in p.parents and (p / MANIFEST).is_file()]


@pytest.mark.parametrize("run", runs(), ids=lambda r: f"{r.parts[-4]}-{r.name}")
def test_runs_are_as_they_were_packed_and_verified(run: Path) -> None:
    record = Submission.model_validate(json.loads((run / SUBMISSION).read_text()))
    assert record.intact()
    for name, sha256 in record.files.items():
        assert file_sha256(run / name) == sha256, name
    inside = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    others = inside - set(record.files) - {SUBMISSION}
    assert others
    assert all(name.startswith("verifications/") for name in others), others
    data = load_run(run)
    assert standing_of(run, data.manifest).valid is not None
    assert (data.rows["status"] == "ok").all()
    assert not data.rows["warning"].str.contains("trained on").any()


def test_nothing_names_a_place_on_a_disk() -> None:
    stripper = Stripper()
    for path in FOLDER.rglob("*.json"):
        text = path.read_text()
        assert stripper.value(json.loads(text)) == json.loads(text), path
        assert "/work" not in text, path


def test_no_images_but_figures() -> None:
    """Of all data but ``sample``, numbers only."""
    assert not [p for p in FOLDER.rglob("*") if p.suffix in (".npz", ".npy", ".nii", ".gz", ".dcm")]
