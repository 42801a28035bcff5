"""Quality against time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrbench.errors import UserError
from mrbench.report.leaderboard import build_board
from mrbench.report.pareto import pareto_figure, pareto_points
from mrbench.report.view import View

A = np.array([30.0, 31, 32, 33, 34, 35])


@pytest.fixture
def timed(make_run):
    """Five methods: fast and bad, middle, slow and good, and two that others beat."""

    def make(**more):
        plan = [("fast", 0, 0.01), ("middle", 2, 0.1), ("slow", 3, 10.0), ("beaten", 1, 0.5), ("equal", 2, 0.2)]
        return [
            make_run(
                n, {"psnr": A + g, "gmsd": 1 / (A + g)}, row={"seconds": s}, subjects={f"s{i}": 1 for i in range(6)}, **more
            )
            for n, g, s in plan
        ]

    return make


@pytest.mark.parametrize("metric", ["psnr", "gmsd"])
def test_the_frontier(timed, metric) -> None:
    points = pareto_points(build_board(timed()), metric)
    assert [p.name for p in points] == ["fast", "middle", "equal", "beaten", "slow"]
    assert [p.name for p in points if p.frontier] == ["fast", "middle", "slow"]


def test_demonstration_weights_have_no_frontier(timed) -> None:
    board = build_board(timed(tier="demo"))
    assert not any(p.frontier for p in pareto_points(board, "psnr"))
    texts = [t.get_text() for t in pareto_figure(board).findobj(lambda a: hasattr(a, "get_text"))]
    assert "demonstration weights: nothing is ranked" in texts
    assert not any("blue" in t for t in texts)


def test_labels_cover_no_mark_and_no_other_label(make_run) -> None:
    rng = np.random.default_rng(3)
    runs = [
        make_run(f"method_with_a_name_{i:02d}", {"psnr": A + rng.normal(0, 0.4)}, row={"seconds": 10 ** rng.normal(0, 0.3)})
        for i in range(14)
    ]
    figure = pareto_figure(build_board(runs))
    axes = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in axes.texts]
    assert len(boxes) == 14
    frame = axes.get_window_extent(renderer).padded(1)
    for i, box in enumerate(boxes):
        assert frame.contains(box.x0, box.y0)
        assert frame.contains(box.x1, box.y1)
        for other in boxes[i + 1 :]:
            wide, high = min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0)
            assert wide <= 1 or high <= 1
    assert axes.get_xscale() == "log"


def test_names_are_literal_and_quality_points_up(make_run) -> None:
    runs = [
        make_run(n, {"gmsd": [0.1 + 0.1 * i] * 6}, row={"seconds": 1.0 + i})
        for i, n in enumerate(("$x_1$ \\frac", "very long " * 20))
    ]
    figure = pareto_figure(build_board(runs), "gmsd")
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    assert low > high  # lower is better: the axis is turned round
    assert "$x_1$ \\frac" in {t.get_text() for t in figure.axes[0].texts}


def test_intervals_are_drawn(timed) -> None:
    points = pareto_points(build_board(timed(), view=View(level=0.95)), "psnr")
    assert all(p.low <= p.quality <= p.high for p in points)


def test_what_cannot_be_plotted_is_refused(make_run, timed) -> None:
    runs = [make_run("a", {"psnr": A}), make_run("b", {"psnr": A}, row={"device": "cuda:0 (card)"})]
    with pytest.raises(UserError, match="times cannot be compared: seconds per slice are left out, as they were not measured"):
        pareto_points(build_board(runs), "psnr")
    with pytest.raises(UserError, match=r"no such column\. Did you mean 'psnr'"):
        pareto_points(build_board(timed()), "pnsr")


def test_the_command_writes_a_picture(timed, mrbench, tmp_path: Path) -> None:
    timed()
    for ending in ("png", "pdf", "svg"):
        done = mrbench("leaderboard", tmp_path / "runs", "--pareto", tmp_path / f"p.{ending}", "--ci")
        assert done.code == 0, done.err
        assert (tmp_path / f"p.{ending}").stat().st_size > 5000
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (1280, 880)
    first = (tmp_path / "p.png").read_bytes()
    mrbench("leaderboard", tmp_path / "runs", "--pareto", tmp_path / "p.png", "--ci")
    assert (tmp_path / "p.png").read_bytes() == first
    done = mrbench("leaderboard", tmp_path / "runs", "--pareto", tmp_path / "p.jpeg")
    assert done.code == 2
    assert "ends in .png, .pdf or .svg" in " ".join(done.err.split())
