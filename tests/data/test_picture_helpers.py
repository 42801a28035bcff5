"""Grey, squares, walking, symmetry, BIDS names: the small pieces of the data sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mrbench.data.bids_names import parse_entities, parse_name, sidecar
from mrbench.data.grey import luminance
from mrbench.data.squares import resized, square_crop, square_pad
from mrbench.data.symmetry import mirror_correlations
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError


def test_luminance():
    colour = np.array([[[255.0]], [[0.0]], [[0.0]]], np.float32)
    assert luminance(colour) == pytest.approx(0.299 * 255)
    assert luminance(colour).shape == (1, 1, 1)
    equal = np.full((3, 4, 5), 17.0, np.float32)
    np.testing.assert_allclose(luminance(equal), 17.0, rtol=1e-6)
    grey = np.ones((1, 4, 5), np.float32)
    assert luminance(grey) is grey
    with pytest.raises(ValueError, match="channels"):
        luminance(np.zeros((2, 4, 4), np.float32))


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (7, 8)])
def test_squares(shape):
    picture = np.arange(1, shape[0] * shape[1] + 1, dtype=np.float32).reshape(1, *shape)
    cropped, padded = square_crop(picture), square_pad(picture)
    assert cropped.shape == (1, min(shape), min(shape))
    assert padded.shape == (1, max(shape), max(shape))
    np.testing.assert_array_equal(padded[padded > 0], picture.reshape(-1))
    assert set(cropped.reshape(-1)) <= set(picture.reshape(-1))


def test_centre_of_an_odd_surplus():
    row = np.arange(7, dtype=np.float32).reshape(1, 1, 7).repeat(4, axis=1)
    np.testing.assert_array_equal(square_crop(row)[0, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(square_pad(row)[0, :, 0] != 1, np.ones(7, bool))
    np.testing.assert_array_equal(square_pad(row)[0, :, 6], [0, 6, 6, 6, 6, 0, 0])


def test_resizing_is_antialiased_and_keeps_the_range():
    checkers = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)[None] * 200
    np.testing.assert_allclose(resized(checkers, 16)[0, 3:-3, 3:-3], 100, atol=1)
    edge = np.zeros((1, 64, 64), np.float32)
    edge[:, :, 32:] = 1
    small = resized(edge, 48)
    assert (small.min(), small.max()) == (0, 1)
    assert small.dtype == np.float32
    assert resized(edge, 64) is edge


def test_walking(tmp_path):
    for name in ("b/2.txt", "a/1.txt", ".hidden/x.txt", "a/.dot", "0.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = [f.relative_to(tmp_path).as_posix() for f in files_below(tmp_path)]
    assert found == ["0.txt", "a/1.txt", "b/2.txt"]
    assert [f.name for f in files_below(tmp_path, lambda name: name != "a")] == ["0.txt", "2.txt"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_symmetry_of_a_shifted_head(axis):
    a, b, c = np.mgrid[:50, :60, :70].astype(np.float32)
    head = (((a - 28) / 14) ** 2 + ((b - 30) / 20) ** 2 + ((c - 33) / 24) ** 2 < 1).astype(np.float32)
    head += 2 * (((a - 28) / 4) ** 2 + ((b - 18) / 5) ** 2 + ((c - 22) / 6) ** 2 < 1)  # off centre along the last two
    values = np.moveaxis(head, 0, axis)
    correlations = mirror_correlations(values)
    assert int(np.argmax(correlations)) == axis
    assert correlations[axis] > 0.95
    assert sorted(correlations)[1] < correlations[axis] - 0.05


def test_symmetry_of_nothing():
    assert all(np.isnan(mirror_correlations(np.zeros((20, 20, 20), np.float32))))
    assert len(mirror_correlations(np.random.default_rng(0).random((1, 5, 40), dtype=np.float32))) == 3


def test_bids_names():
    name = parse_name("sub-01_ses-pre_acq-mp2rage_inv-1_MP2RAGE.nii.gz")
    assert name is not None
    assert dict(name.entities) == {"sub": "01", "ses": "pre", "acq": "mp2rage", "inv": "1"}
    assert (name.suffix, name.extension) == ("MP2RAGE", ".nii.gz")
    assert name.stem == "sub-01_ses-pre_acq-mp2rage_inv-1_MP2RAGE"
    for bad in ("README", "sub-01_T1w", "sub-01_sub-02_T1w.nii", "sub-_T1w.nii", "sub-01_a-b-c_T1w.nii", "sub-01_.nii"):
        assert parse_name(bad) is None
    assert parse_entities("") == {}
    assert parse_entities("acq-a_inv-2") == {"acq": "a", "inv": "2"}
    with pytest.raises(UserError, match="key-value"):
        parse_entities("inv=1")


def test_sidecars_inherit(tmp_path):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    file = anat / "sub-01_acq-x_T1map.nii.gz"
    (tmp_path / "T1map.json").write_text(json.dumps({"Units": "s", "A": 1}))
    (tmp_path / "acq-y_T1map.json").write_text(json.dumps({"A": 5}))
    (tmp_path / "T2map.json").write_text(json.dumps({"A": 6}))
    assert sidecar(file, tmp_path) == {"Units": "s", "A": 1}
    (anat / "sub-01_T1map.json").write_text(json.dumps({"Units": "ms"}))
    assert sidecar(file, tmp_path) == {"Units": "ms", "A": 1}
    (anat / "sub-01_acq-x_T1map.json").write_text(json.dumps({"A": 2}))
    assert sidecar(file, tmp_path) == {"Units": "ms", "A": 2}
    (anat / "sub-01_T1map.json").write_text("[1]")
    with pytest.raises(DataError, match="not a JSON object"):
        sidecar(file, tmp_path)
    (anat / "sub-01_T1map.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        sidecar(file, tmp_path)
