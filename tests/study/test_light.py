"""Studies need no torch, and importing them is cheap."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

from study_support import read_by

import mrbench.study

MODULES = sorted(m.name for m in pkgutil.iter_modules(mrbench.study.__path__, "mrbench.study."))


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after ``code``."""
    listing = f"{code}\nimport sys\nprint(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_studies_loads_nothing_heavy() -> None:
    assert len(MODULES) > 10
    heavy = {"torch", "pandas", "scipy", "matplotlib", "pyarrow", "skimage", "rich"}
    assert loaded_by(f"import {', '.join(MODULES)}") & heavy == set()


def test_making_and_analysing_a_study_never_loads_torch(runs: Path, study: Path, tmp_path: Path) -> None:
    read_by(study, "Anna", lambda s, c: 1 + len(s.method) % 5)
    code = f"""
import contextlib
from pathlib import Path
from mrbench.cli.study import app
with contextlib.suppress(SystemExit):
    app(["create", {str(runs)!r}, "--out", {str(tmp_path / "new")!r}, "--images", "2"])
with contextlib.suppress(SystemExit):
    app(["analyse", {str(study)!r}, "--out", {str(tmp_path / "tables")!r}, "--resamples", "200"])
assert Path({str(tmp_path / "new")!r}, "study.json").is_file()
assert Path({str(tmp_path / "tables")!r}, "ratings.png").is_file()
"""
    assert "torch" not in loaded_by(code)
