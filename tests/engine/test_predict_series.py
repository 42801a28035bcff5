"""`mrbench predict` on DICOM series and HDF5 files, and `mrbench score` on HDF5 files."""

from __future__ import annotations

import json

import dicom_support as dicom
import fastmri_support as fastmri
import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from tests_support import write_plugin

from mrbench.data.dicom import read_dicom

ROWS_FIRST = """
    import torch
    import mrbench

    def restore(measurement):
        image = mrbench.upsample(measurement, kernel="nearest")
        image[..., 0, :] = 1.0  # the top row, as displayed
        return image

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("topped", restore, "marks the top")]
"""


def corners(affine, shape):
    """World coordinates of the outer corners of a volume."""
    ends = [(-0.5, n - 0.5) for n in shape]
    points = np.array([(x, y, z) for x in ends[0] for y in ends[1] for z in ends[2]])
    return points @ affine[:3, :3].T + affine[:3, 3]


def series(folder, pixels=None, suffix=".dcm", **changes):
    return dicom.save_all(dicom.series(dicom.phantom() if pixels is None else pixels, **changes), folder, suffix=suffix)


def test_a_dicom_series_becomes_a_nifti_file_at_its_place(mrbench, tmp_path):
    files = series(tmp_path / "series")
    (tmp_path / "series" / "LICENSE").write_text("not an image")
    done = mrbench("predict", tmp_path / "series", tmp_path / "hr.nii.gz", "-m", "nearest", "-s", "2", "--range", "0,4000")
    assert done.code == 0, done.err
    found, source = nibabel.load(tmp_path / "hr.nii.gz"), read_dicom(files)
    assert found.get_data_dtype() == np.uint16
    assert found.shape == (48, 40, 12)
    for affine, code in (found.get_sform(coded=True), found.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(corners(affine, found.shape), corners(source.affine, source.array.shape[1:]), atol=2e-3)
    np.testing.assert_allclose(found.header.get_zooms(), (0.375, 0.25, 3.0), rtol=1e-5)
    expected = source.array[0].repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)


@pytest.mark.parametrize("name", ["hr.dcm", "HR.IMA"])
def test_dicom_is_never_written(mrbench, tmp_path, name):
    series(tmp_path / "series")
    done = mrbench("predict", tmp_path / "series", tmp_path / name, "-m", "nearest", "-s", "2")
    assert done.code == 2
    assert f"{name}: DICOM is never written. Name a folder" in done.err
    assert not (tmp_path / name).exists()


def test_it_is_the_same_as_by_way_of_a_nifti_file(mrbench, tmp_path):
    volume = read_dicom(series(tmp_path / "series"))
    image = nibabel.Nifti1Image(volume.array[0].astype(np.uint16), None)
    image.header.set_sform(volume.affine, 1)
    nibabel.save(image, tmp_path / "lr.nii")
    for source, out in (("series", "one.nii"), ("lr.nii", "other.nii")):
        assert mrbench("predict", tmp_path / source, tmp_path / out, "-m", "bicubic", "-s", "2", "--plane", "axial").code == 0
    one, other = (nibabel.load(tmp_path / n) for n in ("one.nii", "other.nii"))
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


def test_arrays_and_pictures_hold_the_slices_as_displayed(mrbench, tmp_path):
    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    pixels = dicom.phantom(4)
    series(tmp_path / "s", pixels, ImageOrientationPatient=list(axial))
    assert mrbench("predict", tmp_path / "s", tmp_path / "hr.npy", "-m", "nearest", "-s", "2").code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "hr.npy"), pixels.repeat(2, 1).repeat(2, 2))
    done = mrbench("predict", tmp_path / "s", tmp_path / "hr.png", "-m", "nearest", "-s", "2")
    assert done.code == 2
    assert "PNG holds one image, and the input has 4" in done.err


def test_a_single_image(mrbench, tmp_path):
    path = dicom.save(dicom.image(dicom.phantom(1)[0]), tmp_path / "one.dcm")
    assert mrbench("predict", path, tmp_path / "one.png", "-m", "nearest", "-s", "2").code == 0
    assert np.asarray(Image.open(tmp_path / "one.png")).shape == (40, 48)
    done = mrbench("predict", path, tmp_path / "one.nii.gz", "-m", "nearest", "-s", "2")
    assert done.code == 2
    assert "place in space is not known" in done.err
    done = mrbench("predict", path, tmp_path / "two.dcm", "-m", "nearest")
    assert done.code == 2
    assert ".dcm is not written here" in done.err
    assert "DICOM series: " in done.err
    assert not (tmp_path / "two.dcm").exists()
    assert mrbench("predict", path, f"{tmp_path / 'into'}/", "-m", "nearest", "-s", "2").code == 0
    assert np.load(tmp_path / "into" / "one.npy").shape == (40, 48)


def test_an_enhanced_multi_frame_file_with_slopes(mrbench, tmp_path):
    slopes = np.linspace(0.5, 2, 6)
    path = dicom.save(dicom.enhanced(dicom.phantom(6), slopes=slopes), tmp_path / "enhanced.dcm")
    assert mrbench("predict", path, f"{tmp_path / 'into'}/", "-m", "nearest", "-s", "2").code == 0
    found, source = nibabel.load(tmp_path / "into" / "enhanced.nii.gz"), read_dicom([path])
    assert found.get_data_dtype() == np.float32
    expected = source.array[0].repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(np.asarray(found.dataobj), expected, rtol=1e-5, atol=1e-2)


def test_a_folder_of_several_series_and_others(mrbench, tmp_path):
    lab = tmp_path / "lab"
    series(lab / "a", SeriesInstanceUID="1.2.3.1", SeriesNumber=2)
    series(lab / "a", SeriesInstanceUID="1.2.3.2", SeriesNumber=3, suffix="")
    gaps = dicom.series(dicom.phantom(8), SeriesInstanceUID="1.2.3.3", SeriesNumber=9)
    dicom.save_all(gaps[:3] + gaps[4:], lab / "gap")
    np.save(lab / "array.npy", np.random.default_rng(0).random((2, 16, 16), np.float32))
    done = mrbench("predict", lab, tmp_path / "out", "-m", "nearest", "-s", "2")
    assert done.code == 0, done.err
    names = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert len(names) == 3
    assert names[0].startswith("a/series002-")
    assert names[1].startswith("a/series003-")
    assert names[2] == "array.npy"
    assert "slice(s) are missing" in done.err
    again = mrbench("predict", lab, tmp_path / "out", "-m", "nearest", "-s", "2", "--skip-existing")
    assert again.code == 0
    assert "3 of 3 were there before" in again.out
    done = mrbench("predict", lab, tmp_path / "out.nii", "-m", "nearest")
    assert done.code == 2
    assert "2 DICOM series that can be used and 1 other image(s)" in done.err
    done = mrbench("predict", lab / "gap", tmp_path / "gap.nii", "-m", "nearest")
    assert done.code == 2
    assert "slice(s) are missing" in done.err


def test_series_listed_in_a_manifest(mrbench, tmp_path):
    files = series(tmp_path / "lab" / "s")
    rows = [f"s/{f.name},anna,t2" for f in files]
    (tmp_path / "lab" / "manifest.csv").write_text("\n".join(["file,subject,volume", *rows]) + "\n")
    done = mrbench("predict", tmp_path / "lab", tmp_path / "out", "-m", "nearest", "-s", "2")
    assert done.code == 0, done.err
    assert nibabel.load(tmp_path / "out" / "s" / "t2.nii.gz").shape == (48, 40, 12)


@pytest.mark.parametrize("kind", ["brain", "prostate"])
def test_a_fastmri_file_is_restored_upright_and_stored_as_it_was(mrbench, tmp_path, kind):
    plugin = write_plugin(tmp_path, "topped", ROWS_FIRST)
    path = tmp_path / "file.h5"
    fastmri.write_scan(path) if kind == "brain" else fastmri.write_prostate(path)
    with h5py.File(path) as file:
        stored = file["reconstruction_rss"][()]
    options = ("-m", "topped", "-s", "2", "--plugin", plugin, "--range", "0,1")
    done = mrbench("predict", path, tmp_path / "hr.npy", *options)
    assert done.code == 0, done.err
    found = np.load(tmp_path / "hr.npy")
    assert found.dtype == np.float32
    expected = stored.repeat(2, 1).repeat(2, 2)
    expected[:, -1 if kind == "brain" else 0] = 1.0  # brain files hold the front of the head in the last rows
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    done = mrbench("predict", path, tmp_path / "hr.nii.gz", *options)
    assert done.code == 2
    assert "nothing is known of the position in space" in done.err


def test_other_hdf5_files(mrbench, tmp_path):
    values = np.random.default_rng(0).integers(0, 3000, (3, 24, 20)).astype(np.int16)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["scan/image"] = values
        file["scan/mask"] = np.ones((3, 24, 20), np.uint8)
    done = mrbench("predict", tmp_path / "v.h5", tmp_path / "hr.npy", "-m", "nearest", "-s", "2")
    assert done.code == 2
    assert "2 arrays" in done.err
    options = ("-m", "nearest", "-s", "2", "--key", "scan/image")
    assert mrbench("predict", tmp_path / "v.h5", tmp_path / "hr.npy", *options).code == 0
    found = np.load(tmp_path / "hr.npy")
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, values.repeat(2, 1).repeat(2, 2))
    fastmri.write_scan(tmp_path / "test.h5", target=False)
    done = mrbench("predict", tmp_path / "test.h5", tmp_path / "no.npy", "-m", "nearest")
    assert done.code == 2
    assert "k-space and no images" in done.err


def test_a_folder_of_fastmri_files(mrbench, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        fastmri.write_scan(tmp_path / "in" / f"file{number}.h5", seed=number)
    done = mrbench("predict", tmp_path / "in", tmp_path / "out", "-m", "nearest", "-s", "2")
    assert done.code == 0, done.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["file0.npy", "file1.npy"]


def test_scores_of_arrays_against_fastmri_files(mrbench, tmp_path):
    for folder in ("pred", "truth"):
        (tmp_path / folder).mkdir()
    fastmri.write_scan(tmp_path / "truth" / "file.h5")
    with h5py.File(tmp_path / "truth" / "file.h5") as file:
        stored = file["reconstruction_rss"][()]
    np.save(tmp_path / "pred" / "file.npy", stored + np.float32(0.01))
    done = mrbench(
        "score", "--pred", tmp_path / "pred", "--target", tmp_path / "truth", "--range", "0,1", "--metrics", "psnr", "--json"
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)["metrics"]["psnr"]
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(40, abs=1e-3)
