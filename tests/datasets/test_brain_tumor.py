"""The Brain Tumor MRI Dataset: pictures without people."""

from __future__ import annotations

import numpy as np
import pytest
from mrbench_datasets.brain_tumor import CARD, BrainTumorOptions
from mrbench_datasets.brain_tumor.dataset import BrainTumorDataset
from PIL import Image

from mrbench.data.images import read_image
from mrbench.data.records import BadSource, VolumeRef
from mrbench.errors import UserError


def _picture(seed, shape=(180, 150)):
    """Smooth random shapes on black."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    waves = sum(
        rng.normal() * np.cos(2 * np.pi * (rng.uniform(0, 4) * rows + rng.uniform(0, 4) * columns) + rng.uniform(0, 6))
        for _ in range(10)
    )
    disc = (rows - 0.5) ** 2 + (columns - 0.4) ** 2 < 0.16
    return (disc * (waves - waves.min()) / np.ptp(waves) * 255).astype(np.uint8)


def _save(path, picture, colour=False, quality=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    (image.convert("RGB") if colour else image).save(path, quality=quality)
    return path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    for k in range(12):
        kind = ("notumor", "glioma")[k % 2]
        _save(root / "Training" / kind / f"Tr-{kind[:2]}_{k:04d}.jpg", _picture(k, (180 + k, 150)), colour=k % 3 == 0)
    for k in range(4):
        _save(root / "Testing" / "notumor" / f"Te-no_{k:04d}.jpg", _picture(100 + k))
    twin = np.asarray(Image.fromarray(_picture(0, (180, 150))).resize((230, 276)))
    _save(root / "Testing" / "notumor" / "Te-no_0099.jpg", twin, quality=60)  # Training/notumor/Tr-no_0000.jpg again
    _save(root / "Testing" / "pituitary" / "Te-pi_0001.jpg", _picture(200, (90, 300)))
    (root / "Testing" / "notumor" / "Te-no_0500.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    return root


def _open(root, **options):
    return BrainTumorDataset(BrainTumorOptions(path=str(root), **options))


def test_near_copies_are_one_group_in_one_split(tree):
    dataset = _open(tree)
    found = dataset.refs()
    refs = {r.volume: r for r in found if isinstance(r, VolumeRef)}
    assert len(refs) == 18
    twin, original = refs["Testing-notumor-Te-no_0099_jpg"], refs["Training-notumor-Tr-no_0000_jpg"]
    assert twin.subject == original.subject
    assert twin.split == original.split
    assert twin.split in ("train", "val")
    assert len({r.subject for r in refs.values()}) == 17
    assert {r.split for v, r in refs.items() if v.startswith("Testing") and r is not twin} == {"test"}
    assert {r.split for v, r in refs.items() if v.startswith("Training")} <= {"train", "val"}
    by_subject = {}
    for ref in refs.values():
        by_subject.setdefault(ref.subject, set()).add(ref.split)
    assert all(len(splits) == 1 for splits in by_subject.values())


def test_it_says_that_people_are_not_told_apart(tree):
    assert CARD.subjects is False
    dataset = _open(tree)
    dataset.refs()
    (warning,) = dataset.warnings
    assert "slices of one person are likely on both sides" in warning
    assert "1 groups have pictures in Training and Testing" in warning
    exact = _open(tree, distance=0)
    exact.refs()
    assert len(exact.warnings) == 1


def test_damaged_pictures_are_reported(tree):
    (bad,) = [r for r in _open(tree).refs() if isinstance(r, BadSource)]
    assert bad.file == "Testing/notumor/Te-no_0500.jpg"
    assert "decoded" in bad.reason


def test_classes_do_not_change_groups(tree):
    everything = {r.volume: (r.subject, r.split) for r in _open(tree).refs() if isinstance(r, VolumeRef)}
    for name in ("notumor", "glioma", "pituitary"):
        some = [r for r in _open(tree, classes=name).refs() if isinstance(r, VolumeRef)]
        assert some
        assert all(f"-{name}-" in r.volume and everything[r.volume] == (r.subject, r.split) for r in some)
    with pytest.raises(UserError, match="meningioma"):
        _open(tree, classes="meningioma").refs()


def test_pictures_are_padded_resized_and_grey(tree):
    dataset = _open(tree)
    for ref in dataset.refs():
        if isinstance(ref, VolumeRef):
            volume = dataset.read(ref)
            assert volume.array.shape == (1, 1, 256, 256)
            assert 0 <= volume.array.min() < volume.array.max() <= 255
    wide = next(r for r in dataset.refs() if "Te-pi_0001" in r.volume)
    picture = dataset.read(wide).array[0, 0]
    assert not picture[:80].any()  # 90 x 300: bands of zeros above and below
    assert not picture[-80:].any()
    stored = _open(tree, side=0)
    ref = next(r for r in stored.refs() if "Te-pi_0001" in r.volume)
    np.testing.assert_array_equal(stored.read(ref).array[0], read_image(ref.files[0]))


def test_sizes_change_the_cache_key(tree):
    sides = [next(r for r in _open(tree, side=s).refs() if isinstance(r, VolumeRef)).extra for s in (0, 256)]
    assert sides[0] != sides[1]


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="Log in"):
        _open("").refs()
    with pytest.raises(UserError, match="Training/notumor"):
        _open(tmp_path).refs()


@pytest.mark.shared
def test_real_slices_do_not_melt_into_one_group(shared, tmp_path, monkeypatch):
    """409 real slices: mixed up as one class, nearly all are groups of their own."""
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "Training" / "meningioma"
    folder.mkdir(parents=True)
    for file in sorted((shared / "brain_t1ce_tumor").glob("*.jpg"))[::4]:
        (folder / file.name).symlink_to(file)
    refs = _open(tmp_path / "data").refs()
    assert len(refs) == 103
    assert len({r.subject for r in refs}) > 95
