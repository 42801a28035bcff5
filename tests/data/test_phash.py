"""Perceptual hashes and the search for near-copies."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from mrbench.data.phash import near_groups, near_pairs, phash
from mrbench.data.picture_hashes import picture_hashes
from mrbench.errors import DataError


def _picture(seed: int = 0, shape: tuple[int, int] = (120, 90)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    image = sum(
        rng.normal() * np.cos(2 * np.pi * (rng.uniform(0, 4) * rows + rng.uniform(0, 4) * columns) + rng.uniform(0, 6))
        for _ in range(12)
    )
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def _bits(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_brightness_and_contrast_do_not_matter():
    image = _picture().astype(np.float64)
    assert phash(image) == phash(image * 3 + 100) == phash(image.astype(np.float32) / 255)
    assert 0 < phash(image) < 2**64


@pytest.mark.parametrize("seed", range(5))
def test_compression_and_size_change_few_bits(seed):
    picture = Image.fromarray(_picture(seed))
    stream = io.BytesIO()
    picture.resize((61, 83), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=50)
    assert _bits(phash(np.asarray(picture)), phash(np.asarray(Image.open(stream)))) <= 6


def test_other_pictures_are_far():
    hashes = [phash(_picture(seed)) for seed in range(12)]
    assert min(_bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 10
    image = _picture()
    assert _bits(phash(image), phash(image[:, ::-1])) > 10  # a mirrored picture is another one


def test_flat_pictures():
    assert phash(np.zeros((40, 40))) == phash(np.full((8, 300), 7.0)) == phash(np.full((50, 50), 1e9)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 5), (33, 32), (500, 31)])
def test_any_size(shape):
    assert 0 <= phash(np.random.default_rng(0).random(shape)) < 2**64


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((0, 4)), np.zeros((2, 3, 4)), np.full((4, 4), np.nan)])
def test_what_is_no_picture(bad):
    with pytest.raises(ValueError, match="expected"):
        phash(bad)


@pytest.mark.parametrize("distance", [0, 1, 6, 13])
def test_no_pair_is_missed(distance):
    rng = np.random.default_rng(distance)
    hashes = [int.from_bytes(rng.bytes(8), "big") for _ in range(60)]
    for position in range(40):
        flipped = hashes[position]
        for bit in rng.choice(64, size=int(rng.integers(0, 16)), replace=False):
            flipped ^= 1 << int(bit)
        hashes.append(flipped)
    expected = [
        (i, j, _bits(hashes[i], hashes[j]))
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if _bits(hashes[i], hashes[j]) <= distance
    ]
    assert near_pairs(hashes, distance) == expected
    assert expected


def test_chains_are_one_group():
    base = 0xFFFF0000FFFF0000
    chain = [base, base ^ 0b111, base ^ 0b111111]
    assert near_pairs(chain, 3) == [(0, 1, 3), (1, 2, 3)]
    assert near_groups([0, *chain, 2**64 - 1], 3) == [0, 1, 1, 1, 4]
    assert near_groups([], 6) == []


def test_distance_is_checked():
    with pytest.raises(ValueError, match="0 to 63"):
        near_pairs([1, 2], 64)


def test_hashes_of_files_are_remembered(tmp_path, monkeypatch):
    root, store = tmp_path / "pictures", tmp_path / "store"
    root.mkdir()
    for seed in range(3):
        Image.fromarray(_picture(seed)).save(root / f"{seed}.png")
    (root / "broken.png").write_bytes((root / "0.png").read_bytes()[:200])
    files = sorted(root.iterdir())
    first = picture_hashes(files, root, store)
    assert first[:3] == [phash(_picture(seed)) for seed in range(3)]
    assert isinstance(first[3], DataError)
    monkeypatch.setattr("mrbench.data.picture_hashes.phash", lambda image: pytest.fail("decoded again"))
    assert picture_hashes(files[:3], root, store) == first[:3]
    monkeypatch.undo()
    Image.fromarray(_picture(7)).save(root / "1.png")
    os.utime(root / "1.png", ns=(1, 1))
    assert picture_hashes(files[:3], root, store) == [first[0], phash(_picture(7)), first[2]]


@pytest.mark.parametrize("text", ["", "[]", '{"0.png": 3}', json.dumps({"0.png": [1, 2, "zz"]}), "{"])
def test_a_damaged_record_only_costs_time(tmp_path, text):
    Image.fromarray(_picture()).save(tmp_path / "0.png")
    picture_hashes([tmp_path / "0.png"], tmp_path, tmp_path / "store")
    record = next((tmp_path / "store").iterdir())
    record.write_text(text)
    assert picture_hashes([tmp_path / "0.png"], tmp_path, tmp_path / "store") == [phash(_picture())]
