"""Pictures of the static site: what is shown, of which items, how much, and for which data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from site_support import FOUR, SIZE, Made, data_of, make_task, pages_of

from mrbench.errors import UserError
from mrbench.report.pictures import grey
from mrbench.report.site.build import build_site
from mrbench.report.site.items import in_turn
from mrbench.report.site.options import SiteOptions, SiteReport
from mrbench.report.site.png import bar_png, grey_png, map_png, palette
from mrbench.store.images import read_images, read_truth, truth_file
from mrbench.store.runs import load_runs


def build(tmp_path: Path, **options: object) -> SiteReport:
    return build_site(load_runs([tmp_path / "runs"]), tmp_path / "site", SiteOptions(**options))  # type: ignore[arg-type]


def picture(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def words(made: SiteReport) -> str:
    return pages_of(made.out)["items.html"].text


# -- what the pictures show ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SiteReport:
    """Four methods, one with three draws."""
    root = tmp_path_factory.mktemp("pictures")
    make_task(root / "runs")
    return build(root)


def test_pictures_are_the_stored_images_in_256_steps(plain: SiteReport) -> None:
    document = data_of(plain.out / "items.html")
    runs = {r.label: r for r in load_runs([plain.out.parent / "runs"])}
    item = document["items"][1]
    facts = item["pictures"]
    assert tuple(facts["size"]) == SIZE
    folder = plain.out / facts["folder"]
    draws = {}
    for k, entry in enumerate(document["entries"]):
        run = runs[entry["name"]]
        row = run.rows[run.rows["item_id"] == item["id"]].iloc[0]
        draws[k] = read_images(run.folder, int(row["shard"]))[item["id"]]
        truth = read_truth(truth_file(run.folder, run.manifest.protocol.hash, row["item_hash"]))
    assert truth is not None
    hr, y, _ = truth
    assert (picture(folder / "hr.png") == np.rint(grey(hr) * 255)).all()
    assert (picture(folder / "lr.png") == np.rint(grey(y) * 255)).all()
    errors = np.concatenate(
        [np.abs(grey(d[0]) - grey(hr)).ravel() for k, d in draws.items() if not document["entries"][k]["control"]]
    )
    mean_error = np.abs(np.mean([grey(d) for d in draws[1]], 0) - grey(hr))
    top = np.percentile(np.concatenate([errors, mean_error.ravel()]), 99.9)
    assert facts["top"] == pytest.approx(top, rel=0.01)
    for k, d in draws.items():
        shown = picture(folder / f"{k}-image.png")
        assert shown.dtype == np.uint8
        assert (shown == np.rint(grey(d[0]) * 255)).all()
        error = picture(folder / f"{k}-error.png")  # indices into the colour scale
        expected = np.rint(np.clip(np.abs(grey(d[0]) - grey(hr)) / top, 0, 1) * 255)
        assert np.abs(error.astype(float) - expected).max() <= 1
    deviation = np.stack([grey(d) for d in draws[1]]).astype(np.float64).std(0, ddof=1)
    sd = picture(folder / "1-sd.png")
    assert sd.max() == 255
    assert np.abs(sd - np.rint(np.clip(deviation / facts["sd_top"], 0, 1) * 255)).max() <= 2
    assert np.abs(picture(folder / "1-mean.png") - np.mean([grey(d) for d in draws[1]], 0) * 255).max() <= 0.51


def test_maps_of_the_spread_exist_where_there_are_draws(plain: SiteReport) -> None:
    document = data_of(plain.out / "items.html")
    names = [e["name"] for e in document["entries"]]
    for item in document["items"]:
        layers = dict(zip(names, item["pictures"]["layers"], strict=True))
        assert layers["many_draws"] == ["image", "error", "mean", "mean_error", "sd"]
        assert layers["bicubic"] == layers["gt"] == ["image", "error"]
        listed = {f"{k}-{layer}.png" for k, of in enumerate(item["pictures"]["layers"]) for layer in of}
        assert {p.name for p in (plain.out / item["pictures"]["folder"]).iterdir()} == listed | {"hr.png", "lr.png"}
        left, top, width, height = item["pictures"]["window"]
        assert 0 <= left <= 1 - width + 1e-3
        assert 0 <= top <= 1 - height + 1e-3
    assert picture(plain.out / document["items"][0]["pictures"]["folder"] / f"{names.index('gt')}-error.png").max() == 0


def test_pictures_are_small_8_bit_files(plain: SiteReport) -> None:
    for path in plain.out.glob("images/**/*.png"):
        with Image.open(path) as image:
            assert image.mode in ("L", "P")
            assert not image.info


def test_colour_scales_run_from_dark_to_light() -> None:
    """Even lightness is what carries them for all eyes, and in print."""
    for scale in ("inferno", "viridis"):
        colours = np.frombuffer(palette(scale), dtype=np.uint8).reshape(256, 3).astype(float)  # type: ignore[arg-type]
        light = colours @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) > -0.8).all()
        assert light[-1] - light[0] > 150
        assert bar_png(scale) == map_png(np.arange(256.0)[None], 255, scale)  # type: ignore[arg-type]


def test_colour_and_complex_images_have_pictures(tmp_path: Path) -> None:
    colour = grey_png(np.random.default_rng(0).random((4, 5, 3)))
    (tmp_path / "c.png").write_bytes(colour)
    assert picture(tmp_path / "c.png").shape == (4, 5, 3)
    (tmp_path / "m.png").write_bytes(map_png(np.zeros((3, 3)), 0.0, "inferno"))
    assert picture(tmp_path / "m.png").max() == 0


# -- which items -----------------------------------------------------------------------------------------------------------
def test_worst_best_and_middle_take_turns() -> None:
    scores = np.array([5.0, 1, 9, 3, np.nan, 7, 2, 8, 4, 6])
    order = in_turn(scores)
    assert sorted(order) == list(range(10))
    assert [scores[i] for i in order[:3]] == [1, 9, 5]
    assert [scores[i] for i in order[3:5]] == [2, 8]
    assert order[-1] == 4
    for n in (0, 1, 2, 3, 100):
        assert sorted(in_turn(np.arange(float(n)))) == list(range(n))
    assert in_turn(np.full(3, np.nan)) == [0, 1, 2]


def test_the_budget_holds_and_is_used(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR[:3], subjects=8, slices=4, size=(128, 160))
    whole = build(tmp_path)
    assert whole.pictured == 32
    limit = 1_500_000
    assert whole.size > limit
    made = build(tmp_path, max_bytes=limit)
    total = sum(p.stat().st_size for p in made.out.rglob("*") if p.is_file())
    assert total <= limit
    assert total > 0.85 * limit
    assert 3 < made.pictured < 32
    assert (
        f"Pictures of {made.pictured} items of 32: the worst, the best and some between; the site has room for no more"
        in words(made)
    )
    items = data_of(made.out / "items.html")["items"]
    assert len(items) == 32
    runs = [r for r in load_runs([tmp_path / "runs"]) if not r.manifest.method.control]
    means = {i["id"]: np.mean([r.rows.set_index("item_id").loc[i["id"], "psnr"] for r in runs]) for i in items}
    ordered = sorted(means, key=lambda i: means[i])
    with_pictures = {i["id"] for i in items if i["pictures"]}
    assert {ordered[0], ordered[-1], ordered[16]} <= with_pictures


def test_a_site_that_is_too_large_without_pictures_is_refused(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", subjects=6)
    with pytest.raises(UserError, match="less than 1 MB"):
        build(tmp_path, max_bytes=1000)
    options = SiteOptions()
    object.__setattr__(options, "max_bytes", 100_000)  # smaller than any caller can ask for, to make the pages too large
    with pytest.raises(UserError, match=r"at most 0\.1 MB were allowed"):
        build_site(load_runs([tmp_path / "runs"]), tmp_path / "site", options)
    assert not (tmp_path / "site").exists()


def test_several_tasks_share_the_budget(tmp_path: Path) -> None:
    for dataset in ("a", "b"):
        make_task(tmp_path / "runs", FOUR[:2], dataset=dataset, subjects=6, slices=4, size=(160, 192))
    made = build(tmp_path, max_bytes=1_500_000)
    counts = [sum(bool(i["pictures"]) for i in data_of(made.out / f"items-{n}.html")["items"]) for n in (1, 2)]
    assert min(counts) > 1
    assert abs(counts[0] - counts[1]) <= 2


# -- what may be shown -----------------------------------------------------------------------------------------------------
def test_no_pictures_of_data_that_may_not_be_published(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", redistribution="none")
    made = build(tmp_path)
    assert made.pictured == 0
    assert not (made.out / "images").exists()
    assert {p.name for p in made.out.rglob("*.png")} == {"inferno.png", "viridis.png"}
    assert all(i["pictures"] is None for i in data_of(made.out / "items.html")["items"])
    assert "No pictures: the terms of toy do not allow them to be published (redistribution: none; a licence)" in words(made)
    assert data_of(made.out / "items.html")["items"][0]["values"][0][0] is not None  # numbers are


def test_words_that_are_not_known_count_as_none(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR[:2], redistribution="opened")
    assert build(tmp_path).pictured == 0


def test_figures_are_a_few_items(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR[:2], redistribution="figures", subjects=4, slices=4)
    made = build(tmp_path)
    assert made.pictured == 12
    assert "Figures only: toy allows figures, not copies of its images, so 12 items at most are shown" in words(made)


def test_pages_for_the_own_eyes_show_all_and_say_so_everywhere(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR[:2], redistribution="none")
    made = build(tmp_path, private=True)
    assert made.pictured == 4
    for tree in pages_of(made.out).values():
        assert "For your own use, not to be passed on: pictures of toy are for your own use" in tree.text
    assert "own use" not in words(build(tmp_path, private=True, pictures=False))
    make_task(tmp_path / "open", FOUR[:2])
    opened = build_site(load_runs([tmp_path / "open"]), tmp_path / "site2", SiteOptions(private=True))
    assert "own use" not in words(opened)


def test_pictures_may_be_left_out(tmp_path: Path) -> None:
    make_task(tmp_path / "runs")
    made = build(tmp_path, pictures=False)
    assert made.pictured == 0
    assert "No pictures: they were not asked for" in words(made)


def test_runs_without_stored_images_say_how_to_store_them(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", [Made("a", images=False), Made("b", images=False)])
    assert "--images all stores them" in words(build(tmp_path))


def test_one_run_without_stored_images_leaves_gaps(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", [Made("a"), Made("b", 1, images=False)])
    made = build(tmp_path)
    assert made.pictured == 4
    names = [e["name"] for e in data_of(made.out / "items.html")["entries"]]
    layers = data_of(made.out / "items.html")["items"][0]["pictures"]["layers"]
    assert dict(zip(names, layers, strict=True)) == {"a": ["image", "error"], "b": []}
