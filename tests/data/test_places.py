"""Remembered places: stored safely, found again, and never louder than the command line."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mrbench.cards import DatasetCard, Options
from mrbench.data.places import Place, Places, fetch, find_dataset, moved, open_dataset, options_of, protocol_filters
from mrbench.engine.entries import parse_dataset, parse_settings
from mrbench.errors import PluginError, UserError
from mrbench.hub.registered import data_folder
from mrbench.plugins import discover

REGISTRY = discover()
FOLDER = REGISTRY.datasets.get("folder")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("MRBENCH_DATA", str(tmp_path / "own"))
    return Places.from_environment()


def test_places_are_kept_with_the_other_things_that_a_user_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Places.from_environment({"MRBENCH_DATA": "/somewhere"}).file == Path("/somewhere/places.json")
    assert Places.from_environment({}).file == data_folder({}) / "places.json"


def test_added_listed_replaced_and_forgotten(places: Places) -> None:
    assert places.all() == {}
    places.add(Place("study1", "folder", {"path": "/a", "split": "hash"}))
    places.add(Place("b", "folder", {"path": "/b"}))
    assert list(places.all()) == ["b", "study1"]
    stored = places.all()["study1"]
    assert (stored.dataset, dict(stored.options)) == ("folder", {"path": "/a", "split": "hash"})
    assert stored.added.endswith("+00:00")
    places.add(Place("study1", "folder", {"path": "/a"}))  # the same folder: its options change
    assert dict(places.all()["study1"].options) == {"path": "/a"}
    with pytest.raises(UserError, match=r"'study1' is taken: it stands for folder in /a.*--as NAME, or say --replace"):
        places.add(Place("study1", "folder", {"path": "/c"}))
    places.add(Place("study1", "folder", {"path": "/c"}), replace=True)
    assert places.remove("study1").options["path"] == "/c"
    with pytest.raises(UserError, match=r"no place named 'studi1'\. Known: b"):
        places.remove("studi1")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', '{"places": {}}', '{"format": 1, "places": []}', '{"format": 1, "places": {"a": {}}}',
     '{"format": 1, "places": {"a": {"dataset": 3, "options": {}}}}', '{"format": 1, "places": {"a": {"dataset": "x", "options": [1]}}}'],
)  # fmt: skip
def test_a_damaged_list_is_told_and_kept(places: Places, text: str) -> None:
    places.file.parent.mkdir()
    places.file.write_text(text)
    for act in (places.all, lambda: places.add(Place("a", "folder", {"path": "/a"})), lambda: places.remove("a")):
        with pytest.raises(
            UserError, match=r"places\.json: the list of data sets' places cannot be read .*Mend it, or delete it"
        ):
            act()
    assert places.file.read_text() == text
    assert parse_dataset("sample", parse_settings([]), REGISTRY).card.name == "sample"  # needs no place
    with pytest.raises(UserError, match="cannot be read"):
        parse_dataset("folder", parse_settings([]), REGISTRY)


def test_a_list_of_a_newer_version(places: Places) -> None:
    places.file.parent.mkdir()
    places.file.write_text(json.dumps({"format": 2, "places": {}}))
    with pytest.raises(UserError, match=r"has the format 2, this mrbench reads 1\. Update mrbench"):
        places.all()


def test_many_writers_lose_nothing(places: Places) -> None:
    threads = [threading.Thread(target=places.add, args=(Place(f"p{i}", "folder", {"path": f"/{i}"}),)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places.all()) == 16
    assert sorted(p.name for p in places.file.parent.iterdir()) == [".places.json.lock", "places.json"]


def test_names_of_places_are_data_sets(places: Places) -> None:
    places.add(Place("study1", "folder", {"path": "/a", "split": "hash"}))
    choice = parse_dataset("study1", parse_settings([]), REGISTRY)
    assert (choice.alias, choice.card.name, choice.options.path, choice.options.split) == ("study1", "folder", "/a", "hash")
    other = parse_dataset("x=study1", parse_settings(["x.split=all_train"]), REGISTRY)
    assert (other.alias, other.options.path, other.options.split) == ("x", "/a", "all_train")
    typed = parse_dataset("study1=folder", parse_settings(["study1.path=/a", "study1.split=hash"]), REGISTRY)
    assert typed == choice
    assert parse_dataset("folder", parse_settings([]), REGISTRY).options.path == ""  # no place of that name
    with pytest.raises(UserError, match=r"no data set named 'studi1'\. Did you mean 'study1'.*Known: .*sample.* Added: study1"):
        parse_dataset("studi1", parse_settings([]), REGISTRY)
    with pytest.raises(UserError, match="study1 has no option 'nonsense'"):
        parse_dataset("study1", parse_settings(["study1.nonsense=1"]), REGISTRY)


def test_a_folder_on_the_command_line_is_another_place(places: Places) -> None:
    places.add(Place("folder", "folder", {"path": "/a", "split": "hash", "subject": "file"}))
    kept = parse_dataset("folder", parse_settings(["folder.split_seed=3"]), REGISTRY).options
    assert (kept.path, kept.split, kept.split_seed) == ("/a", "hash", 3)
    typed = parse_dataset("folder", parse_settings(["folder.path=/b"]), REGISTRY).options
    assert (typed.path, typed.split, typed.subject) == ("/b", "all_test", "parent")
    assert options_of(FOLDER, None, {"path": "/b"}) == {"path": "/b"}


def test_what_does_not_fit_any_more_is_told(places: Places) -> None:
    places.add(Place("study1", "folder", {"path": "/a", "old": 1}))
    places.add(Place("gone", "no_such_set", {"path": "/a"}))
    places.add(Place("sample", "folder", {"path": "/a"}))
    places.add(Place("photographs", "folder", {"path": "/a"}))
    with pytest.raises(
        UserError, match=r"what is remembered of study1 does not fit any more: .*'old'.*data add folder PATH --as study1"
    ):
        find_dataset("study1", REGISTRY, places)
    with pytest.raises(UserError, match="'gone' was added as the data set 'no_such_set', which is not installed here"):
        find_dataset("gone", REGISTRY, places)
    assert find_dataset("sample", REGISTRY, places)[1] is None  # needs no files: its own name wins


def test_a_place_under_the_name_of_another_data_set(places: Places) -> None:
    registry = discover()
    registry.datasets.add(replace(FOLDER, name="study1"), registry.plugins[0])
    places.add(Place("study1", "folder", {"path": "/a"}))
    with pytest.raises(UserError, match=r"'study1' is the name of a data set and of a place of 'folder'.*data remove study1"):
        find_dataset("study1", registry, places)


def test_recorded_folders_that_moved_are_found_again(places: Places, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    recorded = {"path": str(tmp_path / "gone"), "split": "hash"}
    assert moved(FOLDER, recorded, "study1", places) == recorded
    places.add(Place("study1", "folder", {"path": str(here), "split": "all_test"}))
    assert moved(FOLDER, recorded, "study1", places) == {"path": str(here), "split": "hash"}
    assert moved(FOLDER, recorded, "else", places) == recorded
    there = {"path": str(tmp_path), "split": "hash"}
    assert moved(FOLDER, there, "study1", places) == there  # it is still there


def test_home_folders_and_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = open_dataset(FOLDER, FOLDER.parse({"path": "data"}), "x")
    assert made.options.path == str(tmp_path / "data")  # type: ignore[attr-defined]
    assert protocol_filters(made, []) == []


class GetOptions(Options):
    path: str = ""
    part: str = "both"


def get_part(target: Path, part: str, report) -> None:  # type: ignore[no-untyped-def]
    if part == "both":
        raise UserError("there is no part 'both'.")
    (target / f"{part}.txt").write_text(part)
    report(1, 1)


def get_nonsense(target: Path, colour: str, report) -> None:  # type: ignore[no-untyped-def]
    raise AssertionError


def test_downloads_get_the_options_that_they_ask_for(tmp_path: Path) -> None:
    card = DatasetCard("toy", "x:Y", options=GetOptions, path_options=("path",), download=get_part)  # type: ignore[arg-type]
    seen: list[tuple[int, int | None]] = []
    fetch(card, tmp_path / "new", card.parse({"part": "val"}), lambda *a: seen.append(a))
    assert (tmp_path / "new" / "val.txt").read_text() == "val"
    assert seen == [(1, 1)]
    with pytest.raises(UserError, match=r"there is no part 'both'\. The download takes --set part=VALUE\."):
        fetch(card, tmp_path, card.parse({}), lambda *a: None)
    with pytest.raises(PluginError, match="asks for colour, which is no option"):
        fetch(replace(card, download=get_nonsense), tmp_path, card.parse({}), lambda *a: None)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"cannot load 'no\.such:thing'"):
        fetch(replace(card, download="no.such:thing"), tmp_path, card.parse({}), lambda *a: None)
