"""What a study shows, and that nothing in it names a method to readers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from study_support import SIDE, make_study, truth_image, write_runs

from mrbench.errors import UserError
from mrbench.store.runs import load_runs
from mrbench.study.create import TRUTH, Request, create_study
from mrbench.study.order import GAP, reading_order
from mrbench.study.plan import Candidate, lay_out, parse_anchors, parse_criteria, parse_scale
from mrbench.study.records import KEY, STUDY, WHITE, read_key, read_study
from mrbench.study.store import reader_key

LABELS = ("zebranet", "quokka_sr", "wombat_up")


def both(folder: Path):
    study = read_study(folder)
    return study, read_key(folder / KEY, study)


def image_of(folder: Path, code: str) -> np.ndarray:
    study = read_study(folder)
    info = study.images[code]
    shape = (info.height, info.width) if info.channels == 1 else (info.height, info.width, 3)
    return np.frombuffer((folder / "images" / f"{code}.u16").read_bytes(), "<u2").reshape(shape)


def test_every_method_shows_the_same_images_spread_over_subjects(study: Path) -> None:
    _, key = both(study)
    first = [s for s in key.images.values() if not s.repeat_of]
    per_method = {m: {s.item for s in first if s.method == m} for m in LABELS}
    assert len(first) == 18
    assert all(items == per_method["zebranet"] for items in per_method.values())
    people = Counter(i.split("/")[1] for i in per_method["zebranet"])
    assert sorted(people.values()) == [1, 1, 2, 2]


def test_the_choice_follows_the_seed_and_the_codes_do_not(runs: Path, tmp_path: Path) -> None:
    chosen, codes = [], []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        _, key = both(make_study(runs, tmp_path / name, images=5, seed=seed))
        chosen.append({s.item for s in key.images.values()})
        codes.append(set(key.images))
    assert chosen[0] == chosen[1] != chosen[2]
    assert not codes[0] & codes[1]


def test_pixels_are_those_of_the_runs(runs: Path, tmp_path: Path) -> None:
    folder = make_study(runs, tmp_path / "x", images=10, truth=True, reference=True)
    study, key = both(folder)
    offsets = {"zebranet": 0.0, "quokka_sr": -0.05, "wombat_up": -0.1, TRUTH: 0.0}
    everything = sorted({s.item for s in key.images.values()})
    for code, shown in key.images.items():
        expected = np.clip(truth_image(everything.index(shown.item))[0] + np.float32(offsets[shown.method]), 0, 1)
        assert np.abs(image_of(folder, code) / WHITE - expected).max() < 1e-5
    for code, item in key.references.items():
        assert np.abs(image_of(folder, code) / WHITE - truth_image(everything.index(item))[0]).max() < 1e-5
    assert {t.reference for t in study.trials} == set(key.references)
    assert {(i.low, i.high) for i in study.images.values()} == {(0.0, 0.9)}  # of the truth, for every method


def test_colour_and_complex_images(tmp_path: Path) -> None:
    colour = make_study(write_runs(tmp_path / "r3", {"a": 0.0}, {"s": 1}, channels=3), tmp_path / "x3", images=1)
    study, _ = both(colour)
    assert image_of(colour, next(iter(study.images))).shape == (SIDE, SIDE, 3)
    magnitude = make_study(write_runs(tmp_path / "r2", {"a": 0.0}, {"s": 1}, channels=2), tmp_path / "x2", images=1)
    study, _ = both(magnitude)
    found = image_of(magnitude, next(iter(study.images)))
    assert found.max() == WHITE  # sqrt(2) * 0.9 is white
    assert abs(found.min() / WHITE - 0.1 * 2**0.5) < 1e-4


def test_nothing_but_the_key_names_a_method(runs: Path, tmp_path: Path) -> None:
    folder = make_study(runs, tmp_path / "x", images=6, truth=True, repeats=3, mode="pair", reference=True)
    for path in folder.rglob("*"):
        assert not any(label in str(path.relative_to(folder)) for label in LABELS)
        if path.is_file() and path.name != KEY:
            assert not any(label.encode() in path.read_bytes() for label in (*LABELS, "toy/s"))
    assert all(label in (folder / KEY).read_text() for label in LABELS)
    assert (folder / KEY).stat().st_mode & 0o077 == 0
    files = sorted((folder / "images").iterdir())
    assert {f.stat().st_size for f in files} == {2 * SIDE * SIDE}
    assert len({f.stat().st_mtime for f in files}) == 1
    document = json.loads((folder / STUDY).read_text())
    assert list(document["images"]) == sorted(document["images"])
    assert [t["id"] for t in document["trials"]] == sorted(t["id"] for t in document["trials"])


def test_orders_tell_nothing_about_methods(runs: Path, tmp_path: Path) -> None:
    """Over many readers every method comes first about as often."""
    folder = make_study(runs, tmp_path / "x", images=6)
    study, key = both(folder)
    first: Counter[str] = Counter()
    for i in range(300):
        first[key.images[reading_order(study, reader_key(f"reader {i}"))[0].images[0]].method] += 1
    assert all(70 < first[m] < 130 for m in LABELS)  # 100 +- 3.7 sd


def test_an_order_is_the_readers_own_and_stays(study: Path) -> None:
    record = read_study(study)
    anna, ben = (reading_order(record, reader_key(n)) for n in ("Anna", "Ben"))
    assert anna == reading_order(record, reader_key("  anna "))
    assert [t.id for t in anna] != [t.id for t in ben]
    assert sorted(t.id for t in anna) == sorted(t.id for t in record.trials)


def test_pairs_show_all_methods_of_one_item_once(runs: Path, tmp_path: Path) -> None:
    study, key = both(make_study(runs, tmp_path / "x", images=10, truth=True, mode="pair"))
    assert {len(t.images) for t in study.trials} == {2}
    partners: Counter[frozenset[str]] = Counter()
    for trial in study.trials:
        shown = [key.images[c] for c in trial.images]
        assert len({s.item for s in shown}) == 1
        partners[frozenset(s.method for s in shown)] += 1
    assert all(len(p) == 2 for p in partners)
    assert len(partners) > 2  # who stands beside whom changes from item to item
    sides = Counter(key.images[t.images[0]].method for i in range(40) for t in reading_order(study, reader_key(f"r{i}")))
    assert all(160 < n < 240 for n in sides.values())  # left as often as right


def test_the_odd_method_of_pairs_stands_alone(runs: Path, tmp_path: Path) -> None:
    study, key = both(make_study(runs, tmp_path / "x", images=4, mode="pair"))
    assert Counter(len(t.images) for t in study.trials) == {2: 4, 1: 4}
    assert len({key.images[t.images[0]].method for t in study.trials if len(t.images) == 1}) > 1


def test_repeats_are_spread_and_stand_apart() -> None:
    items = [Candidate(f"d/s{i}/v/0", f"s{i}") for i in range(20)]
    layout = lay_out(items, LABELS, "single", reference=False, repeats=12, seed=0)
    again = {c: s for c, s in layout.images.items() if s.repeat_of}
    assert Counter(s.method for s in again.values()) == dict.fromkeys(LABELS, 4)
    assert len({s.item for s in again.values()}) == 12
    for code, shown in again.items():
        first = layout.images[shown.repeat_of]
        assert (first.method, first.item, first.repeat_of) == (shown.method, shown.item, "")
        assert code != shown.repeat_of
    from mrbench.study.records import Study, StudyImage

    study = Study(
        id="x", title="t", created="", mrbench="", mode="single", criteria=("a",), scale=(1, 5), anchors=("p", "e"),
        images={c: StudyImage(height=1, width=1) for c in layout.images}, trials=tuple(layout.trials),
    )  # fmt: skip
    for i in range(20):
        at = {t.id: n for n, t in enumerate(reading_order(study, f"reader {i}"))}
        assert len(at) == 72
        assert all(abs(at[t.id] - at[t.repeat_of]) >= GAP for t in study.trials if t.repeat_of)


def test_controls_and_the_ground_truth(runs: Path, tmp_path: Path) -> None:
    made = create_study(load_runs([runs]), Request(images=4), tmp_path / "a")
    assert [m.label for m in made.key.methods] == list(sorted(LABELS))
    assert any("controls take no part: gt" in n for n in made.notes)
    made = create_study(load_runs([runs]), Request(images=4, methods=("gt", "zebranet"), truth=True), tmp_path / "b")
    assert [(m.label, m.control) for m in made.key.methods] == [("gt", True), ("zebranet", False), (TRUTH, True)]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"images": 11}, "share 10 restored items"),
        ({"images": 2, "repeats": 7}, "there are 6 trials to repeat"),
        ({"images": 2, "methods": ("zebronet",)}, "Did you mean 'zebranet'"),
        ({"images": 2, "methods": ("zebranet",), "mode": "pair"}, "two methods side by side, and there is one"),
    ],
)
def test_what_cannot_be_made_says_why(runs: Path, tmp_path: Path, request_: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_study(runs, tmp_path / "x", **request_)
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_runs_with_unequal_items_are_refused(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", {"a": 0.0}, {"s1": 3})
    write_runs(tmp_path / "runs", {"b": 0.0}, {"s1": 2})
    with pytest.raises(UserError, match="b: lacks 1 of 3 items"):
        make_study(tmp_path / "runs", tmp_path / "x", images=2)
    made = create_study(load_runs([tmp_path / "runs"]), Request(images=2, intersect=True), tmp_path / "x")
    assert "intersection: 2 of 3 items, those that every method restored" in made.notes


def test_failed_items_are_not_chosen_and_said(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", {"a": 0.0, "b": 0.0}, {"s1": 5}, failed={"b": 2})
    made = create_study(load_runs([tmp_path / "runs"]), Request(images=3), tmp_path / "x")
    assert "items that a method did not restore cannot be chosen: b (2)" in made.notes
    with pytest.raises(UserError, match=r"share 3 restored items \(items that a method did not restore"):
        make_study(tmp_path / "runs", tmp_path / "y", images=4)


def test_without_stored_images_it_says_how_to_store_them(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", {"a": 0.0}, {"s1": 2}, images=False)
    with pytest.raises(UserError, match="--images all"):
        make_study(tmp_path / "runs", tmp_path / "x", images=2)


def test_demonstration_weights_stay_apart_and_are_named(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", {"a": 0.0, "b": 0.0}, {"s1": 2}, tiers={"a": "demo", "b": "official"})
    with pytest.raises(UserError, match="demonstration weights do not stand beside other weights"):
        make_study(tmp_path / "runs", tmp_path / "x", images=2)
    made = create_study(load_runs([tmp_path / "runs"]), Request(images=2, methods=("a",)), tmp_path / "x")
    assert any(n.startswith("demonstration weights") for n in made.notes)


def test_a_study_is_never_overwritten(study: Path, runs: Path) -> None:
    with pytest.raises(UserError, match="is already there"):
        make_study(runs, study, images=2)


def test_data_that_may_not_be_passed_on_says_so_in_the_folder(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", {"a": 0.0}, {"s1": 2}, redistribution="none")
    folder = make_study(tmp_path / "runs", tmp_path / "x", images=2)
    assert "must not be packed, sent or published" in (folder / "README.txt").read_text()
    assert folder.stat().st_mode & 0o077 == 0


def test_keys_and_studies_must_fit(study: Path, runs: Path, tmp_path: Path) -> None:
    other = make_study(runs, tmp_path / "other", images=2)
    with pytest.raises(UserError, match="this is the key of study"):
        read_key(other / KEY, read_study(study))
    with pytest.raises(UserError, match="--key FILE"):
        read_key(study / "nothing.json", read_study(study))
    document = json.loads((study / STUDY).read_text())
    (study / STUDY).write_text(json.dumps({**document, "format": 2}))
    with pytest.raises(UserError, match="newer than this mrbench reads"):
        read_study(study)
    (study / STUDY).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_study(study)
    with pytest.raises(UserError, match="is no reader study"):
        read_study(tmp_path)


def test_options_are_read_strictly() -> None:
    assert parse_scale("1..5") == (1, 5)
    assert parse_scale(" 0 .. 9") == (0, 9)
    assert parse_criteria("contrast,  image  sharpness ,contrast") == ("contrast", "image sharpness")
    assert parse_anchors("poor, very good") == ("poor", "very good")
    for bad in ("5..1", "1..10", "1", "a..b", "3..3"):
        with pytest.raises(UserError, match=r"LOWEST\.\.HIGHEST"):
            parse_scale(bad)
    for bad in (" , ", ",".join("abcdefghi"), "x" * 61, "a\x07b"):
        with pytest.raises(UserError, match="--criteria"):
            parse_criteria(bad)
    for bad in ("poor", "a,b,c", "a,"):
        with pytest.raises(UserError, match="--anchors"):
            parse_anchors(bad)
