"""Comparison panels: which item, which window, one scale, readable refusals."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrbench.errors import UserError
from mrbench.report.panel import comparison_panel, error_scale, panel_figure, pick_items
from mrbench.report.pictures import error_map, grey
from mrbench.report.zoom import densest_window

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "datasets" / "sample" / "data"
SUBJECTS = {"s1": 2, "s2": 1}
PSNR = [30.0, 31.0, 32.0]


def block(image, n):
    """Mean over n x n blocks, repeated back to size."""
    h, w = image.shape
    return np.kron(image.reshape(h // n, n, w // n, n).mean((1, 3)), np.ones((n, n))).astype(np.float32)


@pytest.fixture(scope="module")
def slices():
    """Three real slices in [0, 1] with a foreground mask, cut to multiples of 8."""
    with (SAMPLE / "manifest.csv").open(encoding="utf-8") as stream:
        names = [line["file"] for line in csv.DictReader(stream)]
    found = []
    for name in (names[2], names[3], names[-1]):
        pixels = np.asarray(Image.open(SAMPLE / name)).astype(np.float32)
        pixels = pixels[: pixels.shape[0] // 8 * 8, : pixels.shape[1] // 8 * 8]
        found.append(np.clip(pixels / np.percentile(pixels, 99.9), 0, 1).astype(np.float32))
    return found


@pytest.fixture
def make_pictured(make_run, slices):
    """A factory of runs with stored images: the truth blurred by blocks of ``n`` pixels."""
    truth = [(s[None], block(s, 4)[None, ::4, ::4], s > 0.05) for s in slices]

    def make(label, n, **more):
        scores = more.pop("scores", {"psnr": PSNR, "ssim": [0.9, 0.8, 0.7]})
        images = [block(s, n)[None, None] for s in slices]
        return make_run(label, scores, subjects=SUBJECTS, images=images, truth=truth, **more)

    return make


# -- window -----------------------------------------------------------------------------------------------------


def test_the_window_lies_on_the_detail_inside_the_foreground() -> None:
    image = np.zeros((64, 48))
    image[40:50, 10:18] = np.indices((10, 8)).sum(0) % 2  # detail
    image[2:10, 36:46] = 5 * (np.indices((8, 10)).sum(0) % 2)  # stronger, outside the foreground
    mask = np.zeros((64, 48), dtype=bool)
    mask[20:, :30] = True
    window = densest_window(image, mask)
    assert (window.height, window.width) == (16, 12)
    assert window.top <= 40
    assert window.top + 16 >= 50
    assert window.left <= 10
    assert window.left + 12 >= 18
    assert mask[window.top : window.top + 16, window.left : window.left + 12].all()
    assert window == densest_window(image, mask)


def test_the_window_exists_for_flat_tiny_and_unmasked_images() -> None:
    flat = densest_window(np.zeros((16, 16)), np.ones((16, 16), dtype=bool))
    assert (flat.top, flat.left, flat.height, flat.width) == (0, 0, 4, 4)
    assert densest_window(np.ones((1, 3)), np.zeros((1, 3), dtype=bool)).cut(np.ones((1, 3))).shape == (1, 1)
    speck = np.zeros((32, 32), dtype=bool)
    speck[20, 20] = True
    window = densest_window(np.random.default_rng(0).random((32, 32)), speck)
    assert speck[window.top : window.top + 8, window.left : window.left + 8].any()


# -- pictures ---------------------------------------------------------------------------------------------------


def test_complex_images_are_shown_as_magnitude_and_colour_as_colour() -> None:
    complex_image = np.stack([np.full((4, 4), 0.3), np.full((4, 4), -0.4)]).astype(np.float32)
    assert grey(complex_image) == pytest.approx(0.5)
    assert grey(np.full((1, 4, 4), 1.7, np.float32)) == pytest.approx(1.0)
    assert grey(np.zeros((3, 4, 5), np.float32)).shape == (4, 5, 3)
    assert error_map(-complex_image, complex_image) == pytest.approx(0)
    assert error_map(np.full((1, 2, 2), -1, np.float32), np.full((1, 2, 2), 0.25, np.float32)) == pytest.approx(0.25)
    assert error_map(np.zeros((3, 4, 5), np.float32), np.full((3, 4, 5), 0.5, np.float32)) == pytest.approx(0.5)


def test_the_error_scale_is_robust_and_never_zero() -> None:
    assert error_scale([]) == 0.01
    assert error_scale([np.zeros((8, 8), np.float32)]) == 0.01
    error = np.zeros(10_000, np.float32)
    error[:20] = 0.123
    error[0] = 1.0
    assert error_scale([error]) == pytest.approx(0.13)


# -- panel ------------------------------------------------------------------------------------------------------


def test_the_panel_shares_one_grey_scale_and_one_error_scale(make_pictured) -> None:
    runs = [make_pictured("fine", 2), make_pictured("coarse", 8), make_pictured("gt", 1, control=True)]
    figure = panel_figure(runs, "toy/s1/vol/001")
    shown = [a for a in figure.axes if a.images]
    assert len(shown) == 5 + 5 + 3  # truth, measurement and three methods; enlarged; three error maps
    greys = [a.images[0] for a in shown if a.images[0].get_cmap().name == "gray"]
    errors = [a.images[0] for a in shown if a.images[0].get_cmap().name == "inferno"]
    assert (len(greys), len(errors)) == (10, 3)
    assert {g.get_clim() for g in greys} == {(0, 1)}
    assert len({id(e.norm) for e in errors}) == 1
    assert len(figure.axes) == len(shown) + 1  # the colour bar
    assert figure.axes[-1].get_xlabel() == "|estimate - ground truth|"
    texts = [t.get_text() for a in figure.axes for t in a.texts]
    assert texts[:4] == ["ground truth", "216 x 176", "measurement", "54 x 44"]
    assert texts[4:6] == ["fine", "31.00 dB / 0.8000"]


def test_the_enlarged_windows_are_the_marked_one(make_pictured) -> None:
    figure = panel_figure([make_pictured("fine", 2), make_pictured("coarse", 8)], "toy/s1/vol/000")
    marked = next(p for a in figure.axes for p in a.patches)
    x, y = marked.get_xy()
    corners = (x, x + marked.get_width(), y + marked.get_height(), y)
    views = [(*a.get_xlim(), *a.get_ylim()) for a in figure.axes if a.images]
    assert views.count(pytest.approx(corners)) == 4
    assert marked.get_width() == pytest.approx(176 / 4)


def test_the_panel_is_written_as_png_and_pdf(make_pictured, tmp_path) -> None:
    runs = [make_pictured("fine", 2)]
    png, pdf = comparison_panel(runs, "toy/s2/vol/000", tmp_path / "out" / "p.v1")
    assert (png.name, pdf.name) == ("p.v1.png", "p.v1.pdf")
    with Image.open(png) as image:
        assert image.size[0] > 1000
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert np.asarray(image.convert("L")).std() > 20
    assert pdf.read_bytes().startswith(b"%PDF")
    first = png.read_bytes(), pdf.read_bytes()
    comparison_panel(runs, "toy/s2/vol/000", tmp_path / "out" / "p.v1")
    assert (png.read_bytes(), pdf.read_bytes()) == first
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["p.v1.pdf", "p.v1.png"]


def test_many_methods_wrap_and_are_limited(make_pictured) -> None:
    runs = [make_pictured(f"m{i}", 2) for i in range(9)]
    figure = panel_figure(runs, "toy/s1/vol/000")
    lefts = sorted({round(a.get_position().x0, 3) for a in figure.axes[:-1]})
    assert len(lefts) == 6
    boxes = [a.get_position() for a in figure.axes[:-1]]
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert not (
                one.x0 < other.x1 - 1e-6 and other.x0 < one.x1 - 1e-6 and one.y0 < other.y1 - 1e-6 and other.y0 < one.y1 - 1e-6
            )
    assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes)
    few = panel_figure(runs, "toy/s1/vol/000", max_methods=3)
    assert len([a for a in few.axes if a.images]) == 5 + 5 + 3
    assert "first 3 of 9 methods" in few.texts[0].get_text()


def test_no_text_leaves_the_picture_or_meets_another(make_pictured) -> None:
    runs = [make_pictured("x" * 80, 2), make_pictured("$a_b$ [red] <i>", 4), make_pictured("c", 8), make_pictured("d", 2)]
    figure = panel_figure(runs, "toy/s1/vol/000")
    renderer = figure.canvas.get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    heads = [t.get_window_extent(renderer) for a in figure.axes for t in a.texts] + [
        t.get_window_extent(renderer) for t in figure.texts
    ]
    for i, box in enumerate(heads):
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
        assert not any(box.overlaps(other) for other in heads[i + 1 :])


def test_strange_names_do_not_break_the_panel(make_pictured, tmp_path) -> None:
    runs = [make_pictured(name, 2, folder=f"r{i}") for i, name in enumerate(["$x^$", "名前", "a\nb", "\\frac{", "y" * 300])]
    png, _ = comparison_panel(runs, "toy/s1/vol/000", tmp_path / "p")
    assert png.is_file()


def test_a_failed_item_is_told_in_its_place(make_pictured) -> None:
    runs = [make_pictured("fine", 2), make_pictured("bad", 2, status={0: ("failed", "RuntimeError: out of range")})]
    figure = panel_figure(runs, "toy/s1/vol/000")
    texts = " ".join(t.get_text().replace("\n", " ") for a in figure.axes for t in a.texts)
    assert "failed: RuntimeError: out of range" in texts
    assert len([a for a in figure.axes if a.images]) == 3 + 3 + 1


def test_infinite_and_missing_scores_are_printed(make_pictured) -> None:
    run = make_pictured("gt", 1, scores={"psnr": [float("inf"), 1, 1], "ssim": [None, 1, 1]})
    texts = [t.get_text() for a in panel_figure([run], "toy/s1/vol/000").axes for t in a.texts]
    assert "inf dB / n/a" in texts


def test_images_that_were_not_stored_are_refused_with_the_way_to_store_them(make_run, make_pictured) -> None:
    bare = make_run("bare", {"psnr": PSNR}, subjects=SUBJECTS)
    with pytest.raises(UserError, match=r"ground truth was not stored.*--images all"):
        panel_figure([bare], "toy/s1/vol/000")
    with pytest.raises(UserError, match=r"bare .*restored image of toy/s1/vol/000 was not stored.*--images all"):
        panel_figure([make_pictured("fine", 2), bare], "toy/s1/vol/000")


def test_unknown_items_other_content_and_mixtures_are_refused(make_pictured) -> None:
    run = make_pictured("fine", 2)
    with pytest.raises(UserError, match="none of the runs has an item 'toy/nobody'"):
        panel_figure([run], "toy/nobody")
    with pytest.raises(UserError, match="different content"):
        panel_figure([run, make_pictured("b", 2, rows={0: {"item_hash": "other"}})], "toy/s1/vol/000")
    with pytest.raises(UserError, match="2 protocols"):
        panel_figure([run, make_pictured("c", 2, protocol_hash="ffff")], "toy/s1/vol/000")


# -- items ------------------------------------------------------------------------------------------------------


def test_the_median_item_of_each_subject_is_picked(make_run) -> None:
    scores = {"psnr": [30.0, 34.0, 31.0, 33.0, 32.0, 20.0, 22.0, 21.0]}
    runs = [
        make_run("gt", {"psnr": [1.0] * 8}, control=True, subjects={"s2": 5, "s1": 3}),
        make_run("a", scores, subjects={"s2": 5, "s1": 3}),
    ]
    assert pick_items(runs, 2) == ["toy/s1/vol/002", "toy/s2/vol/004"]
    assert pick_items(runs, 1) == ["toy/s1/vol/002"]
    assert pick_items(runs, 4) == ["toy/s1/vol/002", "toy/s2/vol/004", "toy/s1/vol/000", "toy/s2/vol/002"]
    assert len(pick_items(runs, 100)) == 8
    reversed_rows = make_run("b", scores, subjects={"s2": 5, "s1": 3}, reverse=True)
    assert pick_items([reversed_rows], 8) == pick_items(runs[1:], 8)


def test_items_that_a_method_failed_on_are_not_picked(make_run) -> None:
    runs = [
        make_run("a", {"psnr": PSNR}, subjects={"s1": 3}),
        make_run("b", {"psnr": PSNR}, subjects={"s1": 3}, status={1: ("failed", "x")}),
    ]
    assert pick_items(runs, 3) == ["toy/s1/vol/000", "toy/s1/vol/002"]


def test_items_without_psnr_go_by_the_next_metric_and_nan_comes_last(make_run) -> None:
    run = make_run("a", {"ssim": [None, 0.3, 0.2, 0.1]}, subjects={"s1": 4})
    assert pick_items([run], 4) == ["toy/s1/vol/002", "toy/s1/vol/003", "toy/s1/vol/001", "toy/s1/vol/000"]


def test_picking_from_nothing_is_refused(make_run) -> None:
    with pytest.raises(UserError, match="no restored item"):
        pick_items([make_run("a", {"psnr": PSNR}, subjects={"s1": 3}, status={i: ("failed", "x") for i in range(3)})], 1)
