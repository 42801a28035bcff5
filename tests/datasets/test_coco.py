"""COCO 2017: folders and archives, grey and small pictures."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from mrbench_datasets.coco import CARD, CocoOptions
from mrbench_datasets.coco import download as downloading
from mrbench_datasets.coco.dataset import CocoDataset
from PIL import Image

from mrbench.data.images import read_image
from mrbench.data.items import list_items
from mrbench.data.records import BadSource, VolumeRef
from mrbench.errors import DataError, UserError
from mrbench.settings import PreparationSpec


def _save(path, shape, grey=False, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(noise[..., 0] if grey else noise).resize(shape[::-1]).save(path, quality=95)
    return path


@pytest.fixture
def tree(tmp_path):
    _save(tmp_path / "val2017" / "000000000139.jpg", (100, 160))
    _save(tmp_path / "val2017" / "000000000285.jpg", (120, 80), grey=True, seed=1)
    _save(tmp_path / "val2017" / "000000000632.jpg", (63, 200), seed=2)
    _save(tmp_path / "train2017" / "000000000009.jpg", (64, 64), seed=3)
    (tmp_path / "val2017" / "000000000724.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    (tmp_path / "val2017" / "notes.txt").write_text("not a picture")
    return tmp_path


@pytest.fixture
def packed(tree, tmp_path_factory):
    root = tmp_path_factory.mktemp("packed")
    with zipfile.ZipFile(root / "val2017.zip", "w") as archive:
        archive.mkdir("val2017")
        for file in sorted((tree / "val2017").iterdir()):
            archive.write(file, f"val2017/{file.name}")
    return root


def _open(root, **options):
    return CocoDataset(CocoOptions(path=str(root), **options))


def test_parts_small_and_damaged_pictures(tree):
    found = _open(tree).refs()
    good = {r.subject: r.split for r in found if isinstance(r, VolumeRef)}
    assert good == {"000000000009": "train", "000000000139": "val", "000000000285": "val"}
    bad = {r.subject: r.reason for r in found if isinstance(r, BadSource)}
    assert bad["000000000632"] == "its shorter side has 63 pixels, fewer than 64."
    assert "not a readable JPEG" in bad["000000000724"]
    assert [r.subject for r in _open(tree, part="train2017").refs()] == ["000000000009"]
    assert [r.subject for r in _open(tree, part="val2017", first=2).refs()] == ["000000000139", "000000000285"]
    assert [r.subject for r in _open(tree / "val2017", part="val2017", first=1).refs()] == ["000000000139"]


def test_centre_square_luminance(tree):
    dataset = _open(tree, side=0)
    refs = {r.subject: r for r in dataset.refs()}
    volume = dataset.read(refs["000000000139"])
    red, green, blue = read_image(refs["000000000139"].files[0])[:, :, 30:130]
    np.testing.assert_allclose(volume.array[0, 0], 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-3)
    grey = dataset.read(refs["000000000285"])
    np.testing.assert_array_equal(grey.array[0], read_image(refs["000000000285"].files[0])[:, 20:100])
    assert grey.mask is not None
    assert grey.mask.all()


def test_sixty_four_pixels_by_default(tree):
    dataset = _open(tree)
    for ref in dataset.refs():
        if isinstance(ref, VolumeRef):
            assert dataset.read(ref).array.shape == (1, 1, 64, 64)


def test_archives_give_the_same(tree, packed):
    one, other = _open(tree, part="val2017"), _open(packed)
    first, second = one.refs(), other.refs()
    assert [(type(r), r.subject) for r in first] == [(type(r), r.subject) for r in second]
    for a, b in zip(first, second, strict=True):
        if isinstance(a, VolumeRef) and isinstance(b, VolumeRef):
            np.testing.assert_array_equal(one.read(a).array, other.read(b).array)
            assert b.extra["member"] == f"val2017/{a.files[0].name}"


def test_items_of_an_archive(packed, tmp_path):
    items = list_items("coco", "1", _open(packed), PreparationSpec(), "val", cache_dir=tmp_path / "cache")
    assert [i.shape for i in items.items] == [(1, 64, 64)] * 2
    assert len({i.item_hash for i in items.items}) == 2  # one archive, two members
    assert len(items.skipped) == 2


def test_archives_that_are_not_whole(packed):
    archive = packed / "val2017.zip"
    data = archive.read_bytes()
    dataset = _open(packed)
    ref = next(r for r in dataset.refs() if isinstance(r, VolumeRef))
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="not a whole archive"):
        _open(packed).refs()
    with pytest.raises(DataError, match="cannot be read"):
        dataset.read(ref)
    damaged = bytearray(data)
    damaged[2000:2600] = bytes(600)  # inside the first member
    archive.write_bytes(bytes(damaged))
    with pytest.raises(DataError):
        dataset.read(ref)


def test_splitting_by_hash(tmp_path):
    for k in range(40):
        _save(tmp_path / "val2017" / f"{k:012d}.jpg", (64, 70), seed=k)
    splits = [r.split for r in _open(tmp_path, split="hash").refs()]
    assert splits.count("train") > 30
    assert {"train"} < set(splits)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="mrbench data get coco"):
        _open("").refs()
    with pytest.raises(UserError, match=r"train2017\.zip"):
        _open(tmp_path).refs()


def test_download(tmp_path, monkeypatch):
    calls = []

    def fake(url, target, *, sha256=None, md5=None, size=None, report=None):
        calls.append((url, target.name, md5))
        return target

    monkeypatch.setattr(downloading, "download", fake)
    assert CARD.download == f"{downloading.__name__}:fetch"
    assert downloading.fetch(tmp_path, "both", lambda done, total: None) == [tmp_path / "val2017.zip"]
    assert calls == [
        ("https://s3.amazonaws.com/images.cocodataset.org/zips/val2017.zip", "val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80")
    ]
    with pytest.raises(UserError, match="val2017, train2017"):
        downloading.fetch(tmp_path, "test2017", lambda done, total: None)
