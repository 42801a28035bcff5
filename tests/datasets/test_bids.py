"""BIDS trees: names, units, masks, valid ranges."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from mrbench_datasets.bids import BidsOptions
from mrbench_datasets.bids.dataset import BidsDataset

from mrbench.data.items import list_items
from mrbench.data.records import BadSource, VolumeRef
from mrbench.errors import DataError, UserError
from mrbench.settings import PreparationSpec

AFFINE = np.diag([0.7, 0.7, 3.0, 1.0])


def _map(seed=0, unit=1.0):
    """A T1 map in seconds times ``unit``: tissue in the middle, noise around it."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 5, (32, 32, 6))
    values[8:24, 8:24] = rng.uniform(1.0, 2.0, (16, 16, 6))
    return (values * unit).astype(np.float32)


def _brain():
    inside = np.zeros((32, 32, 6), np.uint8)
    inside[8:24, 8:24] = 1
    return inside


def _save(root, name, values, affine=AFFINE, folder="anat"):
    parts = name.split("_")
    where = root / parts[0] / (parts[1] if parts[1].startswith("ses-") else "") / folder
    where.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    nib.save(image, where / name)
    return where / name


@pytest.fixture
def tree(tmp_path):
    for k, ses in enumerate(("ses-1", "ses-2")):
        _save(tmp_path, f"sub-01_{ses}_T1map.nii.gz", _map(k))
        _save(tmp_path, f"sub-01_{ses}_inv-1_part-mag_MP2RAGE.nii.gz", _map(k) * 100)
        _save(tmp_path, f"sub-01_{ses}_inv-1_part-phase_MP2RAGE.nii.gz", _map(k))
        _save(tmp_path, f"sub-01_{ses}_inv-2_part-mag_MP2RAGE.nii.gz", _map(k) * 50)
        _save(tmp_path / "derivatives" / "seg", f"sub-01_{ses}_desc-brain_mask.nii.gz", _brain())
    _save(tmp_path, "sub-02_T1map.nii.gz", _map(5))
    _save(tmp_path, "sub-02_T1w.nii", _map(6))
    _save(tmp_path / "derivatives" / "seg", "sub-02_desc-ventricle_mask.nii.gz", _brain())
    (tmp_path / "T1map.json").write_text(json.dumps({"Units": "s"}))
    (tmp_path / "dataset_description.json").write_text("{}")
    return tmp_path


def _open(root, **options):
    return BidsDataset(BidsOptions(path=str(root), **options))


def _refs(dataset):
    return {r.volume: r for r in dataset.refs()}


def test_sessions_are_one_subject(tree):
    refs = _refs(_open(tree, suffix="T1map"))
    assert list(refs) == ["sub-01_ses-1_T1map", "sub-01_ses-2_T1map", "sub-02_T1map"]
    assert [r.subject for r in refs.values()] == ["sub-01", "sub-01", "sub-02"]
    assert refs["sub-01_ses-1_T1map"].split == refs["sub-01_ses-2_T1map"].split
    assert {r.split for r in _open(tree, suffix="T1map", split="all_test").refs()} == {"test"}


def test_entities_and_parts(tree):
    assert list(_refs(_open(tree, suffix="MP2RAGE", entities="inv-1_ses-2"))) == ["sub-01_ses-2_inv-1_part-mag_MP2RAGE"]
    assert len(_refs(_open(tree, suffix="MP2RAGE"))) == 4  # no phase
    assert len(_refs(_open(tree, suffix="MP2RAGE", entities="part-phase"))) == 2
    with pytest.raises(UserError, match="Suffixes there: MP2RAGE, T1map, T1w"):
        _open(tree, suffix="T2w").refs()
    with pytest.raises(UserError, match="key-value"):
        _open(tree, entities="inv=1")


def test_seconds_become_milliseconds(tree):
    dataset = _open(tree, suffix="T1map")
    ref = _refs(dataset)["sub-01_ses-1_T1map"]
    volume = dataset.read(ref)
    assert volume.units == "ms"
    np.testing.assert_allclose(volume.array[0], _map(0) * 1000, rtol=1e-6)
    np.testing.assert_array_equal(volume.mask, _brain() > 0)
    assert volume.voxel == pytest.approx((0.7, 0.7, 3.0))


def test_masks_are_those_of_person_session_and_description(tree):
    dataset = _open(tree, suffix="T1map")
    refs = _refs(dataset)
    assert [f.name for f in refs["sub-01_ses-2_T1map"].files] == [
        "sub-01_ses-2_T1map.nii.gz", "sub-01_ses-2_desc-brain_mask.nii.gz",
    ]  # fmt: skip
    assert len(refs["sub-02_T1map"].files) == 1
    assert "1 of 3 volumes have no brain mask" in dataset.warnings[0]
    assert dataset.read(refs["sub-02_T1map"]).mask is None
    required = _refs(_open(tree, suffix="T1map", mask="require"))["sub-02_T1map"]
    assert isinstance(required, BadSource)
    other = _refs(_open(tree, suffix="T1map", mask_entities="desc-ventricle"))
    assert len(other["sub-02_T1map"].files) == 2
    assert all(len(r.files) == 1 for r in _open(tree, suffix="T1map", mask="none").refs())


def test_the_mask_of_the_nearest_name_is_taken_and_doubt_is_told(tree):
    _save(tree, "sub-01_ses-1_acq-x_T1map.nii.gz", _map(9))
    _save(tree / "derivatives" / "seg", "sub-01_ses-1_acq-x_desc-brain_mask.nii.gz", _brain())
    refs = _refs(_open(tree, suffix="T1map"))
    assert refs["sub-01_ses-1_acq-x_T1map"].files[1].name == "sub-01_ses-1_acq-x_desc-brain_mask.nii.gz"
    assert refs["sub-01_ses-1_T1map"].files[1].name == "sub-01_ses-1_desc-brain_mask.nii.gz"
    _save(tree / "derivatives" / "other", "sub-01_ses-1_desc-brain_mask.nii.gz", _brain())
    doubt = _refs(_open(tree, suffix="T1map"))["sub-01_ses-1_T1map"]
    assert isinstance(doubt, BadSource)
    assert "2 masks fit it" in doubt.reason
    told = _refs(_open(tree, suffix="T1map", mask_path="derivatives/seg"))["sub-01_ses-1_T1map"]
    assert isinstance(told, VolumeRef)


def test_masks_on_another_grid_are_refused(tree):
    shifted = AFFINE.copy()
    shifted[0, 3] = 1
    dataset = _open(tree, suffix="T1map")
    for values, affine, message in (
        (_brain()[:-1], AFFINE, "not on the grid"),
        (_brain(), shifted, "not on the grid"),
        (_brain() * 0, AFFINE, "empty"),
    ):
        _save(tree / "derivatives" / "seg", "sub-01_ses-1_desc-brain_mask.nii.gz", values, affine)
        with pytest.raises(DataError, match=message):
            dataset.read(_refs(dataset)["sub-01_ses-1_T1map"])


def test_maps_that_do_not_say_their_units_are_refused(tree):
    (tree / "T1map.json").unlink()
    found = _open(tree, suffix="T1map").refs()
    assert all(isinstance(r, BadSource) and "bids.units=" in r.reason for r in found)
    assert all(isinstance(r, VolumeRef) for r in _open(tree, suffix="T1map", units="s").refs())
    (tree / "T1map.json").write_text(json.dumps({"Units": "furlong"}))
    assert all("'furlong'" in r.reason for r in _open(tree, suffix="T1map").refs())


def test_wrong_units_are_noticed(tree):
    _save(tree, "sub-03_T1map.nii.gz", _map(1, 1000.0))
    dataset = _open(tree, suffix="T1map")
    with pytest.raises(DataError, match="these are milliseconds"):
        dataset.read(_refs(dataset)["sub-03_T1map"])
    told = _open(tree, suffix="T1map", units="ms")
    np.testing.assert_allclose(told.read(_refs(told)["sub-03_T1map"]).array[0], _map(1, 1000.0))
    with pytest.raises(DataError, match="these are seconds"):
        told.read(_refs(told)["sub-02_T1map"])


def test_people_who_store_differently_become_alike(tree):
    """One site in seconds, one in milliseconds, each with a sidecar that says so."""
    _save(tree, "sub-03_T1map.nii.gz", _map(1, 1000.0))
    (tree / "sub-03" / "anat" / "sub-03_T1map.json").write_text(json.dumps({"Units": "ms"}))
    dataset = _open(tree, suffix="T1map")
    refs = _refs(dataset)
    volumes = [dataset.read(refs[name]) for name in ("sub-02_T1map", "sub-03_T1map")]
    assert {v.units for v in volumes} == {"ms"}
    assert all(1000 < np.median(v.array) < 3000 for v in volumes)


def test_valid_range(tree):
    values = _map(3)
    values[0, 0, 0], values[0, 0, 1], values[0, 0, 2] = np.nan, 100.0, -3.0
    _save(tree, "sub-04_T1map.nii.gz", values)
    dataset = _open(tree, suffix="T1map", valid_low=0, valid_high=4000)
    array = dataset.read(_refs(dataset)["sub-04_T1map"]).array[0]
    assert (array[0, 0, :3] == [0, 4000, 0]).all()
    assert (array.min(), array.max()) == (0, 4000)
    plain = _open(tree, suffix="T1map")
    assert np.isnan(plain.read(_refs(plain)["sub-04_T1map"]).array[0, 0, 0, 0])  # refused by the preparation
    with pytest.raises(UserError, match="valid_low"):
        _open(tree, valid_low=3, valid_high=3)


def test_maps_of_other_units(tree):
    for person, units in (("sub-05", "1/s"), ("sub-06", "1/ms")):
        _save(tree, f"{person}_R1map.nii.gz", _map(4))
        (tree / person / "anat" / f"{person}_R1map.json").write_text(json.dumps({"Units": units}))
    with pytest.raises(UserError, match=r"different units \(1/ms, 1/s\)"):
        _open(tree, suffix="R1map").refs()
    (tree / "sub-06" / "anat" / "sub-06_R1map.json").write_text(json.dumps({"Units": "1/s"}))
    assert {r.extra["units"] for r in _open(tree, suffix="R1map").refs()} == {"1/s"}


def test_weighted_images_are_arbitrary(tree):
    dataset = _open(tree)
    (ref,) = dataset.refs()
    assert dataset.read(ref).units == "arbitrary"
    assert dataset.warnings == []  # no mask, but none is usual


def test_layout_of_res_srdiff(tmp_path):
    for person in ("p1", "p2"):
        (tmp_path / person).mkdir()
        for name, values in (("t1map_brain", _map(1, 1000.0)), ("inv2_brain_mask", _brain())):
            image = nib.Nifti1Image(values, AFFINE)
            image.set_sform(AFFINE, 1)
            nib.save(image, tmp_path / person / f"{name}.nii.gz")
    dataset = _open(tmp_path, layout="res_srdiff", units="ms")
    refs = dataset.refs()
    assert [(r.subject, r.volume, len(r.files)) for r in refs] == [("p1", "p1_t1map", 2), ("p2", "p2_t1map", 2)]
    volume = dataset.read(refs[0])
    assert volume.units == "ms"
    np.testing.assert_array_equal(volume.mask, _brain() > 0)
    assert all(isinstance(r, BadSource) for r in _open(tmp_path, layout="res_srdiff").refs())


def test_units_and_masks_reach_the_items(tree, tmp_path):
    items = list_items(
        "bids", "1", _open(tree, suffix="T1map", mask="require"), PreparationSpec(), "all", cache_dir=tmp_path / "cache"
    )
    assert {i.units for i in items.items} == {"ms"}
    assert all(i.fraction == pytest.approx(0.25) for i in items.items)
    assert all(4000 < i.intensity.scale < 5100 for i in items.items)
    assert len(items.skipped) == 1


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="mrbench data add bids"):
        _open("").refs()
    with pytest.raises(UserError, match="no folder sub-"):
        _open(tmp_path).refs()
    with pytest.raises(UserError, match="t1map_brain"):
        _open(tmp_path, layout="res_srdiff").refs()
