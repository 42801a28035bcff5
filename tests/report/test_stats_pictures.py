"""Pictures and terminal tables of statistics: nothing is cut off, whatever the methods are called."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mrbench.report.statistics import Statistics, build_statistics
from mrbench.report.stats_figures import critical_difference_figure, forest_figure
from mrbench.report.stats_text import StatisticsView
from mrbench.stats.presets import Plan

NAMES = {"short": ["a", "b", "c", "d", "e"], "long": [f"a_method_with_quite_a_long_name_{i}" for i in range(5)]}


def statistics_of(make_run: Any, names: list[str], gap: float, **plan: Any) -> Statistics:
    rng = np.random.default_rng(0)
    level = rng.normal(30, 2, 12)
    runs = [
        make_run(n, {"psnr": (level + gap * i + rng.normal(0, 0.1, 12)).tolist()}, subjects={f"s{k}": 1 for k in range(12)})
        for i, n in enumerate(names)
    ]
    return build_statistics(runs, Plan(resamples=200, **plan))


def texts_outside(figure: Any) -> list[str]:
    """Texts of a figure that go over its edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # labels of axes have no place before
    renderer = canvas.get_renderer()
    whole = figure.bbox.padded(1)
    found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip("\u2212.0123456789")]  # not of ticks
    assert found
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in found]
    return [w for w, b in boxes if b.x0 < whole.x0 or b.x1 > whole.x1 or b.y0 < whole.y0 or b.y1 > whole.y1]


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("plan", [{}, {"posthoc": "nemenyi"}, {"margin": 0.1}], ids=["wilcoxon", "nemenyi", "margin"])
@pytest.mark.parametrize("gap", [0.0, 2.0], ids=["alike", "apart"])
def test_no_word_of_a_picture_is_cut_off(make_run: Any, names: list[str], plan: dict[str, Any], gap: float) -> None:
    statistics = statistics_of(make_run, names, gap, **plan)
    for draw in (critical_difference_figure, forest_figure):
        figure = draw(statistics, statistics.results[0])
        assert figure is not None
        assert texts_outside(figure) == []


def test_a_diagram_without_bars_says_so(make_run: Any) -> None:
    statistics = statistics_of(make_run, NAMES["short"], 2.0)
    figure = critical_difference_figure(statistics, statistics.results[0])
    assert figure is not None
    words = " ".join(t.get_text() for t in figure.axes[0].texts)
    assert "no bar joins any" in words
    assert "bars join" not in words


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_number_of_a_table_is_cut_off(make_run: Any, width: int) -> None:
    statistics = statistics_of(make_run, ["bicubic", "lanczos", "bspline"], 0.5, control="bicubic", margin=0.1)
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(StatisticsView(statistics))
    text = stream.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    heads = ("difference", "change", "95 % interval", "corrected", "better", "effect", "detectable", "equivalent")
    assert all(head in text for head in heads)
    for p in statistics.results[0].pairs:
        assert p.interval is not None
        assert f"{p.interval.low:+.3f} to {p.interval.high:+.3f}" in text
