"""A folder of files as a data set."""

from __future__ import annotations

import numpy as np
import pytest
from mrbench_datasets.folder import FolderOptions
from mrbench_datasets.folder.dataset import FolderDataset
from PIL import Image

from mrbench.data.items import list_items, load_slice
from mrbench.data.records import BadSource, VolumeRef
from mrbench.data.splits import hash_split
from mrbench.errors import UserError
from mrbench.plugins import discover
from mrbench.settings import ForegroundSpec, IntensitySpec, PreparationSpec

SPEC = PreparationSpec(foreground=ForegroundSpec(method="whole"), intensity=IntensitySpec(percentile=100))


def _picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (np.arange(32 * 32).reshape(32, 32) + value).astype(np.uint16)
    Image.fromarray(array).save(path, format="PNG")
    return array


def _refs(path, **options):
    return FolderDataset(FolderOptions(path=str(path), **options)).refs()


def _names(refs):
    return [(ref.subject, ref.volume) for ref in refs]


def test_the_card():
    card = discover().datasets.get("folder")
    assert card.path_options == ("path",)
    with pytest.raises(UserError, match=r"--set folder\.path=DIR"):
        card.load()(card.parse({})).refs()
    with pytest.raises(UserError, match="no option 'pth'"):
        card.parse({"pth": "x"})


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        _refs(tmp_path / "absent")
    (tmp_path / "file.png").write_bytes(b"x")
    with pytest.raises(UserError, match="is a file"):
        _refs(tmp_path / "file.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file in it"):
        _refs(tmp_path / "empty")
    with pytest.raises(UserError, match="no file in it"):
        _refs(tmp_path, pattern="*.nii")


def test_subject_from_the_parent_folder(tmp_path):
    for name in ("anna/1.png", "anna/2.png", "bert/x/1.png", "top.png"):
        _picture(tmp_path / name)
    assert _names(_refs(tmp_path)) == [("anna", "1"), ("anna", "2"), ("bert/x", "1"), ("root", "top")]
    assert _names(_refs(tmp_path, recursive=False)) == [("root", "top")]
    assert _names(_refs(tmp_path, pattern="anna/*")) == [("anna", "1"), ("anna", "2")]
    assert _names(_refs(tmp_path, pattern="1.*")) == [("anna", "1"), ("bert/x", "1")]


def test_bids_sessions_of_one_person_stay_together(tmp_path):
    for session in ("1", "2"):
        _picture(tmp_path / f"sub-07/ses-{session}/anat/sub-07_ses-{session}_T1w.png")
    assert {ref.subject for ref in _refs(tmp_path)} == {"sub-07"}


def test_subject_from_file_or_expression(tmp_path):
    for name in ("p01_a.png", "p01_b.png", "p02_a.png", "other.png"):
        _picture(tmp_path / name)
    assert {ref.subject for ref in _refs(tmp_path, subject="file")} == {"p01_a", "p01_b", "p02_a", "other"}
    by_group = _refs(tmp_path, subject=r"(p\d+)_")
    assert _names(by_group) == [("", "other"), ("p01", "p01_a"), ("p01", "p01_b"), ("p02", "p02_a")]
    assert isinstance(by_group[0], BadSource)
    assert "finds nothing" in by_group[0].reason
    named = _refs(tmp_path, subject=r"^(.)(?P<subject>\d+)_", pattern="p*")
    assert {ref.subject for ref in named} == {"01", "02"}
    for bad in (r"(p\d+", r"p\d+", r"(p)(\d+)"):
        with pytest.raises(UserError, match=r"folder\.subject"):
            _refs(tmp_path, subject=bad)


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("a/1.png", "b/1.png"):
        _picture(tmp_path / name)
    with pytest.raises(UserError, match=r"a/1\.png and b/1\.png"):
        _refs(tmp_path, subject="(1)")


def test_what_is_ignored_and_what_is_reported(tmp_path):
    _picture(tmp_path / "a.png")
    for name in ("LICENSE", "README.md", ".hidden.png", "notes.txt", "side.json", ".git/x.png", "Thumbs.db", "LICENSE.CC-BY"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    (tmp_path / "scan.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    (tmp_path / "movie.avi").write_bytes(b"RIFF....AVI ")
    (tmp_path / "empty.png").write_bytes(b"")
    refs = _refs(tmp_path)
    bad = {ref.file: ref.reason for ref in refs if isinstance(ref, BadSource)}
    assert set(bad) == {"scan.dcm", "movie.avi", "empty.png"}  # scan.h5 is found out when it is read
    assert "DICOM file without an image" in bad["scan.dcm"]
    assert "not recognised" in bad["movie.avi"]
    assert "empty" in bad["empty.png"]
    assert len(refs) == 5


def test_pairs_are_one_volume_and_halves_are_reported(tmp_path):
    import nibabel as nib

    values = np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)
    for name in ("whole", "half", "other"):
        image = nib.Nifti1Pair(values, np.eye(4))
        image.set_sform(np.eye(4), 1)
        nib.save(image, tmp_path / f"{name}.hdr")
    (tmp_path / "half.img").unlink()
    (tmp_path / "other.hdr").unlink()
    refs = {ref.volume: ref for ref in _refs(tmp_path)}
    assert len(refs) == 3
    assert [file.name for file in refs["whole"].files] == ["whole.hdr", "whole.img"]
    assert ".img file is missing" in refs["half"].reason
    assert ".hdr file is missing" in refs["other"].reason


def test_links_to_folders_are_followed_once(tmp_path):
    _picture(tmp_path / "data/a/1.png")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    _picture(tmp_path / "elsewhere/2.png")
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    assert _names(_refs(tmp_path / "data")) == [("a", "1"), ("link", "2")]


def test_warnings_about_subjects_and_scaling(tmp_path):
    for name in ("1.png", "2.png"):
        _picture(tmp_path / name)
    dataset = FolderDataset(FolderOptions(path=str(tmp_path)))
    dataset.refs()
    assert len(dataset.warnings) == 2
    assert "one subject" in dataset.warnings[0]
    assert "scaled by its own values" in dataset.warnings[1]
    found = list_items("folder", "1", dataset, SPEC, cache_dir=tmp_path / "c")
    assert found.warnings == dataset.warnings


def test_a_manifest_makes_volumes_of_slices(tmp_path):
    data = tmp_path / "data"
    low, high = _picture(data / "x/low.png", 0), _picture(data / "x/high.png", 3000)
    _picture(data / "unlisted.png")
    (data / "manifest.csv").write_text(
        "file,subject,volume,slice_index,voxel_row_mm,voxel_col_mm,spacing_mm\n"
        "x/high.png,p1,v,20,0.5,0.6,3\nx/low.png,p1,v,7,0.5,0.6,3\n"
    )
    dataset = FolderDataset(FolderOptions(path=str(data), pattern="*.nii"))
    found = list_items("folder", "1", dataset, SPEC, cache_dir=tmp_path / "c")
    assert [item.item_id for item in found.items] == ["folder/p1/v/007", "folder/p1/v/020"]
    assert found.items[0].voxel == (3.0, 0.5, 0.6)
    assert found.items[0].intensity.scale == high.max()  # one scale for both slices
    native = [item.intensity.to_native(load_slice(item).image[0]) for item in found.items]
    np.testing.assert_allclose(native, [low, high], atol=1e-2)
    assert "the option pattern is not used" in found.warnings[0]
    assert "1 file(s) not listed in manifest.csv are not used: unlisted.png" in found.warnings[1]


def test_a_broken_slice_skips_its_volume_only(tmp_path):
    data = tmp_path / "data"
    for k in range(4):
        _picture(data / f"{k}.png")
    (data / "1.png").write_bytes((data / "1.png").read_bytes()[:100])
    (data / "manifest.csv").write_text("file,subject,volume\n0.png,p,v\n1.png,p,v\n2.png,q,w\n3.png,q,w\n")
    found = list_items("folder", "1", FolderDataset(FolderOptions(path=str(data))), SPEC, cache_dir=tmp_path / "c")
    assert [item.item_id for item in found.items] == ["folder/q/w/000", "folder/q/w/001"]
    assert found.skipped[0].item_id == "folder/p/v"
    assert found.skipped[0].file.endswith("1.png")


def test_manifest_rows_that_are_no_slices(tmp_path):
    data = tmp_path / "data"
    _picture(data / "a.png")
    np.save(data / "b.npy", np.arange(3 * 400.0).reshape(3, 20, 20))
    (data / "c.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    (data / "manifest.csv").write_text("file,subject,volume,spacing_mm\na.png,p,mixed,2\nb.npy,p,alone,4\nc.dcm,p,dicom,\n")
    refs = {ref.volume: ref for ref in _refs(data)}
    assert isinstance(refs["dicom"], BadSource)
    assert refs["dicom"].file == "c.dcm"
    assert FolderDataset(FolderOptions(path=str(data))).read(refs["alone"]).voxel[0] == 4.0
    (data / "manifest.csv").write_text("file,subject,volume\na.png,p,mixed\nb.npy,p,mixed\n")
    (bad,) = _refs(data)
    assert isinstance(bad, BadSource)
    assert "one slice of 2, but it is a npy file" in bad.reason


def test_splits(tmp_path):
    for k in range(30):
        _picture(tmp_path / f"p{k:02d}.png")
    assert {ref.split for ref in _refs(tmp_path, subject="file")} == {"test"}
    assert {ref.split for ref in _refs(tmp_path, subject="file", split="all_train")} == {"train"}
    hashed = _refs(tmp_path, subject="file", split="hash", split_seed=4)
    assert [ref.split for ref in hashed] == [hash_split(ref.subject, 4) for ref in hashed]
    assert {ref.split for ref in hashed} == {"train", "val", "test"}
    rows = "".join(f"p{k:02d}.png,p{k:02d},v,{'val' if k % 2 else 'train'}\n" for k in range(30))
    (tmp_path / "manifest.csv").write_text("file,subject,volume,split\n" + rows)
    stated = _refs(tmp_path, split="hash")
    assert [ref.split for ref in stated] == ["train", "val"] * 15


def test_only_options_that_matter_enter_the_key(tmp_path):
    _picture(tmp_path / "a.png")
    np.savez(tmp_path / "b.npz", x=np.eye(20), y=np.eye(20) * 2)
    plain = {ref.volume: ref for ref in _refs(tmp_path)}
    chosen = {ref.volume: ref for ref in _refs(tmp_path, key="y", volume_index=3, assume_axcodes="las")}
    assert plain["a"].extra == chosen["a"].extra
    assert plain["b"].extra != chosen["b"].extra
    dataset = FolderDataset(FolderOptions(path=str(tmp_path), key="y"))
    assert dataset.read(chosen["b"]).array.max() == 2.0
    with pytest.raises(UserError, match="assume_axcodes"):
        _refs(tmp_path, assume_axcodes="LAX")


def test_a_home_folder_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _picture(tmp_path / "scans/a.png")
    (ref,) = _refs("~/scans")
    assert isinstance(ref, VolumeRef)
    assert ref.files[0] == tmp_path / "scans/a.png"
