"""Items: ids, hashes, and what becomes of everything that is not an item."""

from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrbench.data.arrays import read_array
from mrbench.data.items import SliceReader, item_id, list_items, load_slice
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.errors import DataError, PluginError, UserError
from mrbench.settings import ForegroundSpec, PreparationSpec

SPEC = PreparationSpec()


class ArraySet:
    """A data set of .npy stacks for the tests."""

    def __init__(self, refs: list[VolumeRef | BadSource]) -> None:
        self._refs = refs
        self.warnings: list[str] = []

    def refs(self) -> list[VolumeRef | BadSource]:
        return self._refs

    def read(self, ref: VolumeRef) -> Volume:
        return read_array(ref.files[0])


@pytest.fixture
def volumes(tmp_path, head):
    """Two people, three slices each; the second one's last slice is empty."""
    refs = []
    for k, subject in enumerate(("anna", "bert")):
        stack = head(seed=k)
        if k:
            stack[2] = 0
        path = tmp_path / f"{subject}.npy"
        np.save(path, stack)
        refs.append(VolumeRef(subject, "t1", (path,)))
    return refs


def test_ids_hashes_and_pixels(tmp_path, volumes):
    found = list_items("mine", "1", ArraySet(volumes), SPEC, cache_dir=tmp_path / "c")
    assert [i.item_id for i in found.items] == [
        "mine/anna/t1/000", "mine/anna/t1/001", "mine/anna/t1/002", "mine/bert/t1/000", "mine/bert/t1/001",
    ]  # fmt: skip
    assert found.n_subjects == 2
    assert len({i.item_hash for i in found.items}) == 5
    assert all(len(i.item_hash) == 16 for i in found.items)
    (left,) = found.dropped
    assert (left.item_id, left.fraction) == ("mine/bert/t1/002", 0.0)
    item = found.items[1]
    record = load_slice(item)
    assert record.image.shape == item.shape == (1, 64, 64)
    assert record.image.dtype == np.float32
    assert not isinstance(record.image, np.memmap)
    assert record.mask.dtype == np.bool_
    assert record.mask.mean() == pytest.approx(item.fraction)
    native = item.intensity.to_native(record.image[0])
    stored = np.load(volumes[0].files[0])[1]
    np.testing.assert_allclose(native, np.minimum(stored, item.intensity.scale), rtol=1e-5)


def test_whole_volumes_hold_the_slices_that_were_left_out(tmp_path, volumes):
    last = list_items("mine", "1", ArraySet(volumes), SPEC, cache_dir=tmp_path / "c").items[-1]
    reader = SliceReader()
    volume = reader.volume(last)
    assert volume.shape == (1, 3, 64, 64)
    assert volume[:, 2].max() == 0
    np.testing.assert_array_equal(volume[:, last.index], reader.load(last).image)


def _hashes(tmp_path: Path, refs, spec=SPEC, name="mine") -> list[str]:
    return [i.item_hash for i in list_items(name, "1", ArraySet(refs), spec, cache_dir=tmp_path / "c").items]


def test_hashes_do_not_depend_on_names_places_or_other_volumes(tmp_path, volumes):
    before = _hashes(tmp_path, volumes)
    assert _hashes(tmp_path, volumes[1:]) == before[3:]
    assert _hashes(tmp_path, volumes, name="alias") == before
    moved = volumes[0].files[0].rename(tmp_path / "moved.npy")
    assert _hashes(tmp_path, [replace(volumes[0], files=(moved,))]) == before[:3]


def test_every_hash_of_a_volume_changes_with_one_of_its_bytes(tmp_path, volumes):
    before = _hashes(tmp_path, volumes)
    data = bytearray(volumes[0].files[0].read_bytes())
    data[-1] ^= 1
    volumes[0].files[0].write_bytes(bytes(data))
    after = _hashes(tmp_path, volumes)
    assert not set(before[:3]) & set(after[:3])
    assert before[3:] == after[3:]


def test_hashes_change_with_settings_and_extra(tmp_path, volumes):
    before = set(_hashes(tmp_path, volumes))
    assert not before & set(_hashes(tmp_path, volumes, PreparationSpec(min_slices=2)))
    assert not before & set(_hashes(tmp_path, [replace(v, extra={"volume_index": 1}) for v in volumes]))
    assert not before & set(_hashes(tmp_path, [replace(v, slices=("a", "b", "c")) for v in volumes]))


def test_unusable_volumes_become_skipped_sources(tmp_path, volumes):
    broken = tmp_path / "broken.npy"
    broken.write_bytes(volumes[0].files[0].read_bytes()[:500])
    refs = [
        VolumeRef("carl", "t1", (broken,)),
        VolumeRef("dora", "t1", (tmp_path / "absent.npy",)),
        BadSource("emil", "x", "x.dcm", "DICOM is not taken"),
        BadSource("emil", "x", "y.dcm", "DICOM is not taken"),
        *volumes,
    ]
    found = list_items("mine", "1", ArraySet(refs), SPEC, cache_dir=tmp_path / "c")
    assert len(found.items) == 5
    ids = [s.item_id for s in found.skipped]
    assert ids == ["mine/emil/x", "mine/emil/x/y.dcm", "mine/carl/t1", "mine/dora/t1"]
    assert "cannot be read" in found.skipped[2].reason
    assert found.skipped[2].file == str(broken)


def test_a_reader_that_raises_anything_stops_only_its_volume(tmp_path, volumes):
    class Buggy(ArraySet):
        def read(self, ref: VolumeRef) -> Volume:
            if ref.subject == "anna":
                raise IndexError("list index out of range")
            return super().read(ref)

    found = list_items("mine", "1", Buggy(volumes), SPEC, cache_dir=tmp_path / "c")
    assert {i.subject for i in found.items} == {"bert"}
    assert "IndexError: list index out of range" in found.skipped[0].reason


def test_nothing_usable_is_the_users_business(tmp_path, volumes):
    with pytest.raises(UserError, match="no usable slice") as caught:
        list_items("mine", "1", ArraySet([BadSource("a", "b", "b.dcm", "why not")]), SPEC, cache_dir=tmp_path / "c")
    assert "b.dcm: why not" in str(caught.value)
    everything_out = PreparationSpec(foreground=ForegroundSpec(min_fraction=0.99))
    with pytest.raises(UserError, match="foreground") as caught:
        list_items("mine", "1", ArraySet(volumes), everything_out, cache_dir=tmp_path / "c")
    assert "and 3 more" in str(caught.value)


def test_splits(tmp_path, volumes):
    refs = [replace(volumes[0], split="train"), volumes[1]]
    assert {i.subject for i in list_items("m", "1", ArraySet(refs), SPEC, "train", cache_dir=tmp_path / "c").items} == {"anna"}
    assert list_items("m", "1", ArraySet(refs), SPEC, "all", cache_dir=tmp_path / "c").n_subjects == 2
    with pytest.raises(UserError, match="train: 1, val: 0, test: 1"):
        list_items("m", "1", ArraySet(refs), SPEC, "val", cache_dir=tmp_path / "c")
    with pytest.raises(UserError, match="unknown split"):
        list_items("m", "1", ArraySet(refs), SPEC, "dev", cache_dir=tmp_path / "c")  # type: ignore[arg-type]


def test_two_volumes_of_one_name_are_the_plugins_fault(tmp_path, volumes):
    twin = replace(volumes[1], subject="anna")
    with pytest.raises(PluginError, match=r"mine/anna/t1.*anna\.npy and .*bert\.npy"):
        list_items("mine", "1", ArraySet([volumes[0], twin]), SPEC, cache_dir=tmp_path / "c")


def test_warnings_and_progress(tmp_path, volumes):
    dataset = ArraySet(volumes)
    dataset.warnings.append("beware")
    calls: list[tuple[int, int, str]] = []
    found = list_items("m", "1", dataset, SPEC, progress=lambda *a: calls.append(a), cache_dir=tmp_path / "c")
    assert found.warnings == ["beware"]
    assert calls == [(0, 2, "anna/t1"), (1, 2, "bert/t1"), (2, 2, "")]
    (found.items[0].folder / "meta.json").write_text("{")
    again = list_items("m", "1", dataset, SPEC, cache_dir=tmp_path / "c")
    assert any("damaged" in text for text in again.warnings)


def test_ids_survive_any_name():
    assert item_id("d", "a/b", "c d", "ü") == "d/a%2Fb/c%20d/%C3%BC"
    assert item_id("d", "..", ".", "%") == "d/%2E%2E/%2E/%25"
    assert item_id("d", "a b") != item_id("d", "a%20b")
    long = item_id("d", "x" * 300)
    assert len(long) <= 102
    assert long != item_id("d", "x" * 301)
    with pytest.raises(PluginError, match="empty"):
        item_id("d", "")


def test_items_can_be_sent_to_other_processes(tmp_path, volumes):
    item = list_items("mine", "1", ArraySet(volumes), SPEC, cache_dir=tmp_path / "c").items[0]
    again = pickle.loads(pickle.dumps(item))
    assert repr(again) == repr(item)  # nan voxel sizes are not equal to themselves
    np.testing.assert_array_equal(load_slice(again).image, load_slice(item).image)


def test_the_reader_holds_few_maps_and_little_memory(tmp_path):
    refs = []
    rng = np.random.default_rng(0)
    for k in range(12):
        path = tmp_path / f"{k}.npy"
        np.save(path, rng.random((8, 128, 128)).astype(np.float32))
        refs.append(VolumeRef(f"s{k}", "v", (path,)))
    items = list_items(
        "m", "1", ArraySet(refs), PreparationSpec(foreground=ForegroundSpec(method="whole")), cache_dir=tmp_path / "c"
    ).items
    reader = SliceReader(max_open=3)
    reader.load(items[0])
    tracemalloc.start()
    for item in items * 3:
        reader.load(item)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(items) == 96
    assert peak < 12 * 128 * 128 * 4  # a few slices, whereas all of them are 96
    assert len(reader._open) == 3


def test_a_vanished_cache_entry_is_explained(tmp_path, volumes):
    item = list_items("mine", "1", ArraySet(volumes), SPEC, cache_dir=tmp_path / "c").items[0]
    (item.folder / "hr.npy").unlink()
    with pytest.raises(DataError, match="gone or damaged"):
        load_slice(item)
