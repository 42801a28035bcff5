"""The cache: hits, misses, damage, several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mrbench.data import hashing
from mrbench.data.arrays import read_array
from mrbench.data.cache import DatasetIdentity, cache_root, prepare_cached
from mrbench.data.records import Volume, VolumeRef
from mrbench.errors import DataError, PluginError, UserError
from mrbench.settings import IntensitySpec, PreparationSpec

IDENTITY = DatasetIdentity("tests:Set", "1")
SPEC = PreparationSpec()


@pytest.fixture
def source(tmp_path, head) -> Path:
    path = tmp_path / "source.npy"
    np.save(path, head())
    _age(path)
    return path


def _age(path: Path, seconds: int = 60) -> None:
    """Make a file old enough for its hash to be remembered."""
    then = time.time_ns() - seconds * 10**9
    os.utime(path, ns=(then, then))


class Counter:
    def __init__(self, path: Path) -> None:
        self.path, self.reads = path, 0

    def __call__(self) -> Volume:
        self.reads += 1
        return read_array(self.path)


def _ref(path: Path, **more) -> VolumeRef:
    return VolumeRef("s1", "v1", (path,), **more)


def test_second_call_is_a_hit_with_equal_content(tmp_path, source):
    read = Counter(source)
    first = prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    second = prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    assert (first.state, second.state, read.reads) == ("built", "hit", 1)
    assert first.folder == second.folder
    hr, mask = second.open()
    assert isinstance(hr, np.memmap)
    assert (hr.dtype, hr.shape, mask.dtype, mask.shape) == (np.float32, (3, 1, 64, 64), np.bool_, (3, 64, 64))
    assert [s.label for s in second.slices] == ["000", "001", "002"]
    assert second.slices[1].fraction == pytest.approx(mask[1].mean())
    assert np.isnan(second.voxel).all()
    assert second.intensity == first.intensity


def test_meta_is_plain_json(tmp_path, source):
    folder = prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, tmp_path / "c").folder
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["voxel_mm"] == [None, None, None]
    assert meta["preparation_version"] == 1
    assert len(meta["source_sha256"][0]) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"spec": PreparationSpec(intensity=IntensitySpec(percentile=99.5))},
        {"identity": DatasetIdentity("tests:Set", "2")},
        {"identity": DatasetIdentity("tests:Other", "1")},
        {"ref": {"extra": {"volume_index": 1}}},
        {"ref": {"slices": ("a", "b", "c")}},
    ],
)
def test_what_changes_pixels_or_labels_changes_the_entry(tmp_path, source, change):
    read = Counter(source)
    first = prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    other = prepare_cached(
        change.get("identity", IDENTITY), _ref(source, **change.get("ref", {})), read, change.get("spec", SPEC), tmp_path / "c"
    )
    assert read.reads == 2
    assert first.folder != other.folder


def test_names_do_not_enter_the_key(tmp_path, source):
    read = Counter(source)
    prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    prepare_cached(IDENTITY, VolumeRef("other", "name", (source,)), read, SPEC, tmp_path / "c")
    assert read.reads == 1


def test_a_changed_byte_is_a_miss_even_with_equal_size(tmp_path, source):
    read = Counter(source)
    first = prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    source.write_bytes(bytes(data))
    second = prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    assert read.reads == 2
    assert first.source_hashes != second.source_hashes


def test_moving_or_touching_a_file_is_a_hit(tmp_path, source):
    read = Counter(source)
    prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    moved = source.rename(tmp_path / "moved.npy")
    _age(moved, 3600)
    assert prepare_cached(IDENTITY, _ref(moved), read, SPEC, tmp_path / "c").state == "hit"


def _cut(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _cut(folder / "hr.npy", 1000),
        lambda folder: _cut(folder / "hr.npy", 5),
        lambda folder: _cut(folder / "mask.npy", 0),
        lambda folder: (folder / "mask.npy").unlink(),
        lambda folder: _cut(folder / "meta.json", 50),
        lambda folder: (folder / "meta.json").write_text("[]"),
        lambda folder: (folder / "meta.json").unlink(),
        lambda folder: np.save(folder / "hr.npy", np.zeros((3, 1, 64, 64))),
    ],
)
def test_damaged_entries_are_rebuilt_with_a_note(tmp_path, source, damage):
    read = Counter(source)
    good = prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    pixels = np.array(good.open()[0])
    damage(good.folder)
    again = prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c")
    assert again.state == "rebuilt"
    assert "damaged" in again.reason
    np.testing.assert_array_equal(again.open()[0], pixels)
    assert prepare_cached(IDENTITY, _ref(source), read, SPEC, tmp_path / "c").state == "hit"
    assert read.reads == 2


def test_volumes_without_kept_slices_are_cached_too(tmp_path, source):
    read = Counter(source)
    for _ in range(2):
        entry = prepare_cached(IDENTITY, _ref(source), read, PreparationSpec(trim_first=9), tmp_path / "c")
        assert entry.shape == (3, 1, 64, 64)
        assert entry.slices == ()
        assert len(entry.left_out) == 3
    assert read.reads == 1


def test_bad_volumes_are_not_cached(tmp_path, source):
    np.save(source, np.full((2, 32, 32), 3.0))
    for _ in range(2):
        with pytest.raises(DataError, match="all its values"):
            prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, tmp_path / "c")
    assert not list((tmp_path / "c").rglob("hr.npy"))


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "a", "b")])
def test_labels_must_fit(tmp_path, source, labels):
    with pytest.raises(DataError, match="names"):
        prepare_cached(IDENTITY, _ref(source, slices=labels), Counter(source), SPEC, tmp_path / "c")


def test_labels_follow_a_flipped_slice_axis(tmp_path, head):
    path = tmp_path / "x.npy"
    np.save(path, head(slices=3, side=32))
    stack = np.load(path)
    volume = Volume(stack.transpose(2, 1, 0)[None], (1.0, 1.0, 5.0), np.diag([-1.0, -1.0, -5.0, 1.0]))
    ref = _ref(path, slices=("top", "mid", "low"))  # stored from superior to inferior
    entry = prepare_cached(IDENTITY, ref, lambda: volume, SPEC, tmp_path / "c")
    assert [s.label for s in entry.slices] == ["low", "mid", "top"]
    native = entry.intensity.to_native(np.array(entry.open()[0]))
    wanted = np.minimum(stack[2], np.float32(entry.intensity.scale))
    np.testing.assert_allclose(native[0, 0], wanted, rtol=1e-5)


def test_extra_must_be_json(tmp_path, source):
    with pytest.raises(PluginError, match="not JSON"):
        prepare_cached(IDENTITY, _ref(source, extra={"x": object()}), Counter(source), SPEC, tmp_path / "c")


def test_a_cache_that_cannot_be_written(tmp_path, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MRBENCH_CACHE"):
        prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, tmp_path / "file" / "c")


def test_where_the_cache_is(tmp_path):
    assert cache_root(tmp_path, {"MRBENCH_CACHE": "/elsewhere"}) == tmp_path
    assert cache_root(None, {"MRBENCH_CACHE": str(tmp_path)}) == tmp_path
    assert cache_root(None, {}).name == "mrbench"


def test_no_temporary_folders_stay_behind(tmp_path, source):
    prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, tmp_path / "c")
    assert not list((tmp_path / "c" / "prepared" / "tmp").iterdir())
    stale = tmp_path / "c" / "prepared" / "tmp" / "left-by-a-killed-process"
    stale.mkdir()
    os.utime(stale, (0, 0))
    prepare_cached(IDENTITY, _ref(source), Counter(source), PreparationSpec(min_slices=2), tmp_path / "c")
    assert not stale.exists()


_BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from mrbench.data.arrays import read_array
from mrbench.data.cache import DatasetIdentity, prepare_cached
from mrbench.data.records import VolumeRef
from mrbench.settings import PreparationSpec
source, cache, gate, mine = map(Path, sys.argv[1:])
def read():
    mine.touch()
    while not gate.exists():
        time.sleep(0.005)
    return read_array(source)
entry = prepare_cached(DatasetIdentity("tests:Set", "1"), VolumeRef("s1", "v1", (source,)), read, PreparationSpec(), cache)
print(entry.state, entry.folder, float(np.asarray(entry.open()[0], dtype=np.float64).sum()))
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_building_one_entry(tmp_path, source, damaged):
    """Both have missed before either has written: one entry results, and both see it whole."""
    cache, gate = tmp_path / "c", tmp_path / "gate"
    if damaged:
        _cut(prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, cache).folder / "hr.npy", 100)
    marks = [tmp_path / "one", tmp_path / "two"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _BUILD, str(source), str(cache), str(gate), str(mark)], stdout=subprocess.PIPE, text=True
        )
        for mark in marks
    ]
    deadline = time.monotonic() + 60
    while not all(mark.exists() for mark in marks) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(mark.exists() for mark in marks)
    gate.touch()
    lines = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert lines[0] == lines[1]
    assert len(list(cache.rglob("hr.npy"))) == 1
    assert prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, cache).state == "hit"


def test_many_threads_on_one_damaged_entry(tmp_path, source):
    cache = tmp_path / "c"
    good = prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, cache)
    wanted = float(np.sum(good.open()[0]))
    for _ in range(5):
        _cut(good.folder / "hr.npy", 100)
        with ThreadPoolExecutor(8) as pool:
            entries = list(pool.map(lambda _: prepare_cached(IDENTITY, _ref(source), Counter(source), SPEC, cache), range(8)))
        assert {float(np.sum(entry.open()[0])) for entry in entries} == {wanted}


def test_hashes_are_remembered_by_size_and_time(tmp_path, source, monkeypatch):
    store = tmp_path / "hashes"
    first = hashing.content_hashes([source], store)
    looked: list[Path] = []
    original = hashing.file_sha256
    monkeypatch.setattr(hashing, "file_sha256", lambda path: looked.append(path) or original(path))
    assert hashing.content_hashes([source], store) == first
    assert looked == []
    _age(source, 120)
    assert hashing.content_hashes([source], store) == first
    assert looked == [source]


def test_hashes_of_fresh_files_are_not_remembered(tmp_path, source, monkeypatch):
    source.touch()
    hashing.content_hashes([source], tmp_path / "hashes")
    assert not list((tmp_path / "hashes").rglob("*.json"))


@pytest.mark.parametrize("text", ["", "{", "[[1, 2]]", '[[1, 2, "short"]]', "[]", "null"])
def test_a_damaged_hash_record_only_costs_time(tmp_path, source, text):
    first = hashing.content_hashes([source], tmp_path / "hashes")
    (record,) = (tmp_path / "hashes").rglob("*.json")
    record.write_text(text)
    assert hashing.content_hashes([source], tmp_path / "hashes") == first
    assert json.loads(record.read_text())[0][2] == first[0]


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.npy.*cannot be read"):
        hashing.content_hashes([tmp_path / "gone.npy"], tmp_path / "hashes")
