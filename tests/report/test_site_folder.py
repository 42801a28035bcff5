"""The folder of a site: whole or not at all, and never in place of somebody's files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from site_support import FOUR, make_task

from mrbench.errors import UserError
from mrbench.report.site import build as building
from mrbench.report.site.build import build_site
from mrbench.report.site.folder import MARKER, check_place, replacing
from mrbench.store.runs import find_runs, load_runs


def fill(place: Path, **files: str) -> None:
    with replacing(check_place(place), "0") as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_former_site_is_replaced_as_a_whole(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "site"
    fill(place, old="1", both="1")
    fill(place, both="2", new="2")
    assert names(place) == {"both", "new", MARKER}
    assert (place / "both").read_text() == "2"
    assert names(place.parent) == {"site"}
    assert json.loads((place / MARKER).read_text())["files"] == ["both", "new"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    fill(tmp_path / "site", a="1")
    assert names(tmp_path / "site") == {"a", MARKER}


def test_other_folders_are_refused_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "site"
    place.mkdir()
    (place / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and no former site"):
        check_place(place)
    (place / "thesis.tex").unlink()
    fill(place, a="1")
    (place / "CNAME").write_text("mine")
    with pytest.raises(UserError, match=r"files that would be lost \(CNAME\)"):
        check_place(place)
    (place / "CNAME").unlink()
    assert check_place(place) == place.resolve()
    (place / MARKER).write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        check_place(place)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        check_place(tmp_path / "file")
    with pytest.raises(UserError, match="mount point"):
        check_place(Path("/"))


def test_a_folder_of_empty_folders_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "site" / "sub").mkdir(parents=True)
    with pytest.raises(UserError, match="is not empty"):
        check_place(tmp_path / "site")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_former_site(tmp_path: Path, error: type[BaseException]) -> None:
    place = tmp_path / "site"
    fill(place, a="1")

    def broken() -> None:
        with replacing(check_place(place), "0") as folder:
            (folder / "b").write_text("half")
            raise error

    with pytest.raises(error):
        broken()
    assert names(place) == {"a", MARKER}
    assert names(tmp_path) == {"site"}


def test_a_failing_rename_brings_the_former_site_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site"
    fill(place, a="1")
    rename = os.rename
    calls = []

    def second_fails(a: Path, b: Path) -> None:
        calls.append(b)
        if len(calls) == 2:
            raise OSError("no room")
        rename(a, b)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="no room"):
        fill(place, b="2")
    assert names(place) == {"a", MARKER}
    assert names(tmp_path) == {"site"}


def test_a_site_has_the_usual_permissions(tmp_path: Path) -> None:
    fill(tmp_path / "site", a="1")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "site").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failing_build_leaves_the_former_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_task(tmp_path / "runs", FOUR[:2])
    made = build_site(load_runs([tmp_path / "runs"]), tmp_path / "site")
    before = {p: p.read_bytes() for p in made.out.rglob("*") if p.is_file()}

    def broken(*_: object) -> bytes:
        raise RuntimeError("in the last page")

    monkeypatch.setattr(building, "_items_page", broken)
    with pytest.raises(RuntimeError, match="in the last page"):
        build_site(load_runs([tmp_path / "runs"]), tmp_path / "site")
    assert {p: p.read_bytes() for p in made.out.rglob("*") if p.is_file()} == before
    assert names(tmp_path) == {"runs", "site"}


def test_a_site_beside_runs_is_no_run(tmp_path: Path) -> None:
    make_task(tmp_path / "runs", FOUR[:2])
    build_site(load_runs([tmp_path / "runs"]), tmp_path / "runs" / "site")
    assert len(find_runs([tmp_path / "runs"])) == 2
    build_site(load_runs([tmp_path / "runs"]), tmp_path / "runs" / "site")
