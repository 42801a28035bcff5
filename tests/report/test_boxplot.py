"""Box plots: axes, boxes, points and what is said of values that cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mrbench.errors import UserError
from mrbench.report.boxplot import MOST_POINTS, boxplot_figure, metric_boxplots

INF = float("inf")
A = [30.0, 31, 32, 33, 34, 35]
B = [29.0, 30, 31, 32, 33, 34]


def points_of(axes):
    """One array ``[n, 2]`` per scatter of an axes."""
    return [np.asarray(c.get_offsets()) for c in axes.collections]


def words_of(axes) -> str:
    return " ".join(t.get_text() for t in axes.texts)


def test_one_axes_per_column_one_box_per_method_one_point_per_slice(make_run) -> None:
    runs = [
        make_run("a", {"psnr": A, "gmsd": B}),
        make_run("gt", {"psnr": B, "gmsd": A}, control=True),
        make_run("b", {"psnr": B, "gmsd": A}),
    ]
    figure = boxplot_figure(runs)
    assert [a.get_title() for a in figure.axes] == ["PSNR ↑ [dB], n = 6", "GMSD ↓, n = 6"]
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_yticklabels()] == ["a", "b", "gt"]
    clouds = points_of(first)
    assert [sorted(c[:, 0]) for c in clouds] == [A, B, B]
    for place, cloud in enumerate(clouds, 1):
        assert (np.abs(cloud[:, 1] - place) < 0.3).all()
        assert len(set(cloud[:, 1])) == 6
    colours = first.collections[0].get_facecolors()
    assert len({tuple(c) for c in colours}) == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["s1", "s2"]
    assert "6 slices of 2 subjects" in figure.texts[0].get_text()


def test_the_jitter_is_the_same_each_time(make_run, tmp_path) -> None:
    runs = [make_run("a", {"psnr": A}), make_run("b", {"psnr": B})]
    png, pdf = metric_boxplots(runs, tmp_path / "box")
    first = png.read_bytes(), pdf.read_bytes()
    metric_boxplots(runs, tmp_path / "box")
    assert (png.read_bytes(), pdf.read_bytes()) == first
    with Image.open(png) as image:
        assert image.size[0] >= 1000
    assert pdf.read_bytes().startswith(b"%PDF")


def test_values_that_cannot_be_drawn_are_told(make_run) -> None:
    runs = [
        make_run("a", {"psnr": [INF, None, *A[2:]]}),
        make_run("gt", {"psnr": [INF] * 6}, control=True),
        make_run("b", {"psnr": B}),
    ]
    axes = boxplot_figure(runs).axes[0]
    assert axes.get_title() == "PSNR ↑ [dB], n = 6"
    assert "n = 5, 1 infinite, 1 without value not drawn" in words_of(axes)
    assert "6 infinite not drawn" in words_of(axes)
    assert [len(c) for c in points_of(axes)] == [4, 6]
    assert axes.get_xlim()[1] < 50


def test_failed_items_reduce_n(make_run) -> None:
    axes = boxplot_figure([make_run("a", {"psnr": A}), make_run("b", {"psnr": B}, status={0: ("failed", "x")})]).axes[0]
    assert "n = 5" in words_of(axes)


def test_many_points_are_thinned_and_it_is_said(make_run) -> None:
    n = MOST_POINTS + 200
    values = np.random.default_rng(1).normal(30, 2, n)
    figure = boxplot_figure([make_run("a", {"psnr": values.tolist()}, subjects={f"s{i}": n // 20 for i in range(20)}, batch=n)])
    cloud = points_of(figure.axes[0])[0]
    assert len(cloud) == MOST_POINTS
    assert set(cloud[:, 0]) <= set(values)
    assert f"at most {MOST_POINTS} points" in figure.texts[0].get_text()
    assert not figure.legends
    assert any("20 subjects" in t.get_text() for t in figure.texts)


def test_columns_can_be_chosen_and_default_to_draw_one(make_run) -> None:
    run = make_run("a", {"psnr": A, "psnr@mean": A, "ssim": A, "nmse": [None] * 6}, draws=4)
    assert len(boxplot_figure([run]).axes) == 2
    assert boxplot_figure([run], ["psnr@mean"]).axes[0].get_title().startswith("PSNR@mean")
    with pytest.raises(UserError, match="no metric column with a finite value"):
        boxplot_figure([run], ["nmse"])
    with pytest.raises(UserError, match="no run has a metric column 'x'"):
        boxplot_figure([run], ["x"])


def test_runs_that_cannot_be_compared_are_refused(make_run) -> None:
    run = make_run("a", {"psnr": A})
    with pytest.raises(UserError, match="2 protocols"):
        boxplot_figure([run, make_run("b", {"psnr": B}, protocol_hash="ffff")])
    short = make_run("c", {"psnr": B}, drop=[0])
    with pytest.raises(UserError, match="c: lacks 1 of 6"):
        boxplot_figure([run, short])
    assert [len(c) for c in points_of(boxplot_figure([run, short], intersect=True).axes[0])] == [5, 5]
    with pytest.raises(UserError, match="demonstration weights"):
        boxplot_figure([make_run("d", {"psnr": A}, tier="demo"), make_run("e", {"psnr": B}, tier="official")])


@pytest.mark.filterwarnings("ignore:Glyph")  # drawn here directly; saving ignores it
def test_strange_names_stay_inside_the_picture(make_run, tmp_path) -> None:
    names = ["$x^$", "名前", "a\nb", "\\frac{", "y" * 300]
    runs = [make_run(n, {"psnr": A, "ssim": B}, folder=f"r{i}", subjects={"$s_1^": 3, "名": 3}) for i, n in enumerate(names)]
    assert metric_boxplots(runs, tmp_path / "b")[0].is_file()
    figure = boxplot_figure([runs[0], runs[3], runs[4]])
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    for label in figure.axes[0].get_yticklabels():
        assert label.get_window_extent(renderer).x0 >= 0
