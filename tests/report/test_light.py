"""Reports work without torch, and importing them is cheap."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import mrbench.report

MODULES = sorted(m.name for m in pkgutil.iter_modules(mrbench.report.__path__, "mrbench.report."))


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after ``code``."""
    listing = f"{code}\nimport sys\nprint(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_reports_loads_nothing_heavy() -> None:
    assert len(MODULES) > 10
    heavy = {"torch", "pandas", "scipy", "matplotlib", "pyarrow", "skimage", "rich"}
    assert loaded_by(f"import {', '.join(MODULES)}") & heavy == set()


def test_making_every_report_never_loads_torch(make_run, tmp_path) -> None:
    import numpy as np

    image = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    truth = (image, image[:, ::2, ::2], np.ones((32, 32), dtype=bool))
    make_run("a", {"psnr": [30.0, 31.0]}, subjects={"s1": 2}, images=[image[None]] * 2, truth=[truth] * 2)
    code = f"""
from pathlib import Path
from mrbench.store.runs import load_runs
from mrbench.report import boxplot, details, leaderboard, panel, pareto, render, summary, view, wide
out = Path({str(tmp_path / "out")!r})
runs = load_runs([Path({str(tmp_path / "runs")!r})])
boards = leaderboard.build_boards(runs)
for form in render.FORMATS:
    assert render.render(boards, form)
assert render.render([wide.build_wide(wide.tasks_of(runs), view.View())], "latex")
pareto.pareto_figure(boards[0])
summary.summary_document(runs[0])
details.details(runs[0]).document()
panel.comparison_panel(runs, panel.pick_items(runs, 1)[0], out / "panel")
boxplot.metric_boxplots(runs, out / "box")
"""
    loaded = loaded_by(code)
    assert "torch" not in loaded
    assert "scipy" not in loaded
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"panel.png", "panel.pdf", "box.png", "box.pdf"}
