"""Counts, checks of splits, and reading everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrbench.data.items import list_items
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.survey import check_splits, read_all, read_one, shared_subjects, survey
from mrbench.errors import DataError, UserError
from mrbench.plugins import discover
from mrbench.settings import PreparationSpec

FOLDER = discover().datasets.get("folder")


class Toy:
    """Volumes of 3 slices by (subject, volume, split); names that begin with 'bad' cannot be read."""

    def __init__(self, *entries: tuple[str, str, str], shared: bool = False) -> None:
        self.entries, self.warnings, self.shared_subjects = entries, ["a warning"], shared

    def refs(self) -> list[VolumeRef | BadSource]:
        refs: list[VolumeRef | BadSource] = [
            VolumeRef(s, v, (Path(f"{v}.x"),) if v.startswith("b") else (), split=k) for s, v, k in self.entries
        ]
        return [*refs, BadSource("", "", "odd.txt", "is no image")]

    def read(self, ref: VolumeRef) -> Volume:
        if ref.volume.startswith("bad"):
            raise DataError(ref.files[0], "it is damaged.", "Get it again.")
        if ref.volume.startswith("bug"):
            raise KeyError("oops")
        rng = np.random.default_rng(len(ref.subject))
        return Volume(rng.random((1, 3, 40, 32), dtype=np.float32), (float("nan"), 1.0, 1.0))


def test_counts_by_split() -> None:
    found = survey(Toy(("a", "1", "train"), ("a", "2", "train"), ("b", "3", "test")))
    counts = found.counts()
    assert {s: (c.subjects, c.volumes, c.slices) for s, c in counts.items()} == {
        "train": (1, 2, None), "test": (1, 1, None), "all": (2, 3, None),
    }  # fmt: skip
    assert found.warnings == ("a warning",)
    assert read_all(Toy(), found).counts()["all"].slices == 9


def test_reading_everything_names_what_cannot_be_used() -> None:
    data = Toy(("a", "1", "train"), ("b", "bad", "test"), ("c", "bug", "test"))
    seen: list[tuple[int, int, str]] = []
    found = read_all(data, survey(data), lambda *a: seen.append(a))
    assert [(b.file, b.reason) for b in found.bad] == [
        ("odd.txt", "is no image"),
        ("bad.x", "it is damaged. Get it again."),
        ("bug.x", "the data set's reader raised KeyError: 'oops'"),
    ]
    assert [r.volume for r in found.refs] == ["1"]
    assert seen == [(0, 3, "a/1"), (1, 3, "b/bad"), (2, 3, "c/bug"), (3, 3, "")]
    assert read_one(data, survey(data).refs[::-1]).volume == "1"
    with pytest.raises(DataError, match="it is damaged"):
        read_one(data, [r for r in survey(data).refs if r.volume != "1"])


def test_a_subject_in_two_splits_is_refused_by_every_way_in(tmp_path: Path) -> None:
    data = Toy(("ann", "1", "train"), ("ann", "2", "test"), ("bob", "3", "test"))
    assert shared_subjects(r for r in data.refs() if isinstance(r, VolumeRef)) == {"ann": ("train", "test")}
    message = r"data set 'toy': 1 subject\(s\) are in several splits: ann \(train and test\)\. Splits are by person"
    with pytest.raises(UserError, match=message):
        list_items("toy", "1", data, PreparationSpec(), "test", cache_dir=tmp_path)
    told = Toy(*data.entries, shared=True)
    items = list_items("toy", "1", told, PreparationSpec(), "test", cache_dir=tmp_path)
    assert {i.subject for i in items.items} == {"ann", "bob"}
    assert any("1 subject(s) are in several splits, as was asked for: ann (train and test)" in w for w in items.warnings)
    assert check_splits("toy", Toy(("a", "1", "train"), ("b", "1", "test")), []) == ""


def manifest(folder: Path, rows: str, **options: Any) -> Any:
    rng = np.random.default_rng(0)
    for name in "abcd":
        np.save(folder / f"{name}.npy", rng.random((40, 32), dtype=np.float32))
    (folder / "manifest.csv").write_text("file,subject,volume,slice_index,split\n" + rows)
    return FOLDER.load()(FOLDER.parse({"path": str(folder), **options}))


def test_a_slice_level_split_of_a_manifest_is_refused_unless_told(tmp_path: Path) -> None:
    rows = "a.npy,ann,1,0,train\nb.npy,ann,2,0,test\nc.npy,bob,3,0,test\n"
    with pytest.raises(
        UserError, match=r"column split: subject 'ann' is test here and train in line 2; a subject is on one side only"
    ):
        manifest(tmp_path, rows).refs()
    told = manifest(tmp_path, rows, shared_subjects=True)
    assert [(r.subject, r.split) for r in told.refs()] == [("ann", "train"), ("ann", "test"), ("bob", "test")]
    items = list_items("f", "1", told, PreparationSpec(), "test", cache_dir=tmp_path / "cache")
    assert any("as was asked for: ann (train and test)" in w for w in items.warnings)
    one_volume = "a.npy,ann,1,0,train\nb.npy,ann,1,1,test\n"  # slices of one volume are never parted
    with pytest.raises(UserError, match="subject 'ann' is test here and train in line 2"):
        manifest(tmp_path, one_volume, shared_subjects=True).refs()
