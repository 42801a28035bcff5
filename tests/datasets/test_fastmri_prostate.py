"""fastMRI prostate on tiny files in its true formats, in both layouts."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from fastmri_support import truncate, write_prostate, write_scan
from mrbench_datasets.fastmri import ProstateOptions
from mrbench_datasets.fastmri.prostate import ProstateDataset

from mrbench.data.fastmri import inspect_scan, read_complex
from mrbench.data.items import list_items
from mrbench.data.records import BadSource, VolumeRef
from mrbench.data.splits import hash_split
from mrbench.errors import DataError, UserError
from mrbench.settings import PreparationSpec

COLUMNS = "fastmri_pt_id,slice,PIRADS,fastmri_rawfile,data_split,folder\n"


def _open(path, **options):
    dataset = ProstateDataset(ProstateOptions(path=str(path), **options))
    return dataset, dataset.refs()


def _usable(refs):
    return [ref for ref in refs if isinstance(ref, VolumeRef)]


def _bad(refs):
    return {ref.file: ref.reason for ref in refs if isinstance(ref, BadSource)}


def _labels(path, splits, slices=4, kind="AXT2", first=1):
    rows = [
        f"{patient},{number},1,file_prostate_{kind}_{patient:03d}.h5,{split},fastmriIDS\n"
        for patient, split in splits.items()
        for number in range(first, first + slices)
    ]
    path.write_text(COLUMNS + "".join(rows))
    return path


@pytest.fixture
def downloaded(tmp_path):
    """The layout of the archives: folders by ids, the split in label tables, T2 and diffusion."""
    for patient in (1, 2, 21):
        t2 = "fastMRI_prostate_T2_IDS_001_020" if patient < 21 else "fastMRI_prostate_T2_IDS_021_040"
        write_prostate(tmp_path / t2 / f"file_prostate_AXT2_{patient:03d}.h5", f"hash{patient}", seed=patient)
        name = f"file_prostate_AXDIFF_{patient:03d}.h5"
        write_prostate(tmp_path / "fastMRI_prostate_DIFF_IDS_001_011" / name, f"other{patient}", dwi=True, seed=patient)
    _labels(tmp_path / "t2_slice_level_labels.csv", {1: "training", 2: "validation", 21: "test"})
    return tmp_path


def test_layout_of_the_archives(downloaded):
    dataset, refs = _open(downloaded)
    assert [(r.subject, r.volume, r.split) for r in refs] == [
        ("001", "file_prostate_AXT2_001", "train"),
        ("002", "file_prostate_AXT2_002", "val"),
        ("021", "file_prostate_AXT2_021", "test"),
    ]
    assert dataset.warnings == []
    volume = dataset.read(refs[2])
    assert volume.array.shape == (1, 4, 16, 16)  # four slices, not the three averages of the first axis of k-space
    assert volume.voxel == pytest.approx((5.0, 0.5, 0.5))
    with h5py.File(refs[2].files[0]) as file:
        assert file["kspace"].shape[0] == 3
        np.testing.assert_array_equal(volume.array[0], file["reconstruction_rss"][:])  # upright as stored


def test_older_layout(tmp_path):
    for folder, patient in (("training", 1), ("validation", 2), ("test", 3)):
        write_prostate(tmp_path / folder / "T2" / f"file_prostate_AXT2_{patient:03d}.h5")
        write_prostate(tmp_path / folder / "DIFFUSION" / f"file_prostate_AXDIFF_{patient:03d}.h5", dwi=True)
    for sequence in ("t2", "dwi"):
        dataset, refs = _open(tmp_path, sequence=sequence)
        assert [(r.subject, r.split) for r in refs] == [("003", "test"), ("001", "train"), ("002", "val")]
        assert dataset.warnings == []


def test_slices_are_labelled_from_one(downloaded, tmp_path_factory):
    dataset, refs = _open(downloaded)
    assert refs[0].slices == ("001", "002", "003", "004")
    spec = PreparationSpec(min_side=8)
    found = list_items("fastmri_prostate", "1", dataset, spec, cache_dir=tmp_path_factory.mktemp("c"))
    assert [item.slice for item in found.items] == ["001", "002", "003", "004"]


def test_diffusion_has_the_patients_of_t2(downloaded):
    _, t2 = _open(downloaded)
    dataset, dwi = _open(downloaded, sequence="dwi")
    assert [(r.subject, r.split) for r in dwi] == [(r.subject, r.split) for r in t2]  # though patient_id differs
    b1500 = dataset.read(dwi[0]).array
    other, refs = _open(downloaded, sequence="dwi", dwi_map="adc_map")
    np.testing.assert_allclose(other.read(refs[0]).array, b1500 * 6, rtol=1e-5)
    assert refs[0].extra != dwi[0].extra
    _, missing = _open(downloaded, sequence="dwi", dwi_map="trace")
    assert "no images 'trace' (it has: adc_map, b1500)" in next(iter(_bad(missing).values()))


def test_complex_images_are_refused_with_the_reason(downloaded):
    with pytest.raises(UserError, match=r"GRAPPA.*fastmri_knee or fastmri_brain"):
        ProstateDataset(ProstateOptions(path=str(downloaded), image="complex"))
    with pytest.raises(DataError, match="five axes"):
        read_complex(downloaded / "fastMRI_prostate_T2_IDS_001_020/file_prostate_AXT2_001.h5", False)
    info = inspect_scan(downloaded / "fastMRI_prostate_T2_IDS_001_020/file_prostate_AXT2_001.h5")
    assert (info.layout, info.slices, info.kspace) == ("prostate", 4, (3, 4, 2, 32, 23))


def test_label_tables(downloaded):
    (downloaded / "t2_slice_level_labels.csv").rename(downloaded.parent / "mine.csv")
    dataset, refs = _open(downloaded)
    assert {r.subject: r.split for r in refs} == {s: hash_split(s) for s in ("001", "002", "021")}
    assert any("in no label table" in text for text in dataset.warnings)
    _, refs = _open(downloaded, labels=str(downloaded.parent / "mine.csv"))
    assert [r.split for r in refs] == ["train", "val", "test"]
    _, refs = _open(downloaded, labels=str(downloaded.parent / "mine.csv"), split="hash", split_seed=3)
    assert {r.subject: r.split for r in refs} == {s: hash_split(s, 3) for s in ("001", "002", "021")}
    with pytest.raises(UserError, match="there is no such file"):
        _open(downloaded, labels="absent.csv")
    (downloaded / "volume_labels.csv").write_text("fastmri_pt_id,PIRADS\n1,2\n")  # another kind of table is not taken for one
    assert _open(downloaded)[0].warnings
    with pytest.raises(UserError, match="no slice-level label table"):
        _open(downloaded, labels=str(downloaded / "volume_labels.csv"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,0,1,file_prostate_AXT2_001.h5,training,f\n", "line 2: slice 0; slices are numbered from 1"),
        ("1,1,1,a.h5,training,f\n1,2,1,a.h5,test,f\n", "line 3: patient 1 is in two splits, train and test"),
        ("1,1,1,a.h5,training,f\n2,1,1,a.h5,training,f\n", "line 3: a.h5 belongs to two patients"),
        ("1,1,1,a.h5,somewhere,f\n", "line 2: 'somewhere'"),
        ("x,1,1,a.h5,test,f\n", "line 2: invalid literal"),
        ("1,1\n", "line 2: 'fastmri_rawfile' is missing"),
    ],
)
def test_mistakes_in_label_tables(downloaded, text, reason):
    (downloaded / "t2_slice_level_labels.csv").write_text(COLUMNS + text)
    with pytest.raises(UserError, match=reason):
        _open(downloaded)


def test_label_tables_against_files(downloaded):
    _labels(downloaded / "t2_slice_level_labels.csv", {1: "training", 2: "validation", 21: "test"}, slices=6)
    dataset, _ = _open(downloaded)
    assert any("3 file(s) have other numbers of slices" in text and "4, not 6" in text for text in dataset.warnings)


def test_folder_against_label_table(tmp_path):
    write_prostate(tmp_path / "training/T2/file_prostate_AXT2_001.h5")
    write_prostate(tmp_path / "training/T2/file_prostate_AXT2_002.h5")
    _labels(tmp_path / "labels.csv", {1: "test", 2: "training"})
    _, refs = _open(tmp_path)
    assert [(r.subject, r.split) for r in _usable(refs)] == [("002", "train")]
    assert "its folder says 'train', but the label table says 'test'" in _bad(refs)["training/T2/file_prostate_AXT2_001.h5"]


def test_a_patient_on_two_sides(tmp_path):
    write_prostate(tmp_path / "training/T2/file_prostate_AXT2_001.h5")
    write_prostate(tmp_path / "test/T2/again_prostate_AXT2_001.h5")
    dataset, refs = _open(tmp_path)
    assert [(r.volume, r.split) for r in _usable(refs)] == [("again_prostate_AXT2_001", "test")]
    assert "nobody is on two sides" in _bad(refs)["training/T2/file_prostate_AXT2_001.h5"]
    assert any("several splits" in text for text in dataset.warnings)


def test_files_of_other_sets_and_broken_ones(downloaded):
    write_scan(downloaded / "file_brain_AXT2_200_0000001.h5")
    truncate(write_prostate(downloaded / "fastMRI_prostate_T2_IDS_001_020/file_prostate_AXT2_003.h5"))
    (downloaded / ".file_prostate_AXT2_004.h5").write_bytes(b"x")
    _, refs = _open(downloaded)
    bad = _bad(refs)
    assert "4 axes, not five" in bad["file_brain_AXT2_200_0000001.h5"]
    assert "truncated" in bad["fastMRI_prostate_T2_IDS_001_020/file_prostate_AXT2_003.h5"]
    assert (len(_usable(refs)), len(bad)) == (3, 2)


def test_a_sequence_that_is_not_there(tmp_path):
    write_prostate(tmp_path / "file_prostate_AXT2_001.h5")
    with pytest.raises(UserError, match=r"none of the 1 scans is a dwi scan\. Use sequence=t2"):
        _open(tmp_path, sequence="dwi")
