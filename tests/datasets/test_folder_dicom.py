"""DICOM files in the data set ``folder``: one volume a series."""

from __future__ import annotations

import dicom_support as dicom
import numpy as np
from mrbench_datasets.folder import FolderOptions
from mrbench_datasets.folder.dataset import FolderDataset
from PIL import Image

from mrbench.data.items import list_items, load_slice
from mrbench.data.records import BadSource, VolumeRef
from mrbench.settings import CropSpec, ForegroundSpec, IntensitySpec, PreparationSpec

SPEC = PreparationSpec(
    foreground=ForegroundSpec(method="whole"), intensity=IntensitySpec(percentile=100), crop=CropSpec(multiple=1)
)


def _dataset(path, **options):
    return FolderDataset(FolderOptions(path=str(path), **options))


def test_series_beside_other_files(tmp_path):
    pixels = dicom.phantom(5)
    dicom.save_all(dicom.series(pixels), tmp_path / "a", suffix="")
    dicom.save_all(dicom.series(pixels, seed=1, SeriesInstanceUID="1.2.3.7", PatientID=None), tmp_path / "a", seed=5)
    (tmp_path / "a" / "LICENSE").write_text("CC BY")
    (tmp_path / "a" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    Image.fromarray(pixels[0]).save(tmp_path / "b.png")
    dataset = _dataset(tmp_path)
    refs = dataset.refs()
    assert all(isinstance(ref, VolumeRef) for ref in refs)
    assert [len(ref.files) for ref in refs] == [5, 5, 1]
    assert {ref.subject for ref in refs[:2]} == {"P-1", next(r.subject for r in refs if r.subject.startswith("study-"))}
    assert refs[2].subject == "root"
    for ref in refs[:2]:
        np.testing.assert_array_equal(dataset.read(ref).array[0].transpose(2, 1, 0), pixels)
    items = list_items("folder", "1", dataset, SPEC).items
    assert [item.slice for item in items[:5]] == ["000", "001", "002", "003", "004"]
    np.testing.assert_allclose(load_slice(items[3]).image[0], pixels[3] / pixels.max(), atol=1e-6)


def test_the_options_subject_file_and_expression(tmp_path):
    for name in ("p1", "p2"):
        dicom.save_all(dicom.series(dicom.phantom(3), SeriesInstanceUID=f"1.2.{name[1]}"), tmp_path / name)
    assert {ref.subject for ref in _dataset(tmp_path).refs()} == {"P-1"}
    assert _dataset(tmp_path).warnings == []
    assert len({ref.subject for ref in _dataset(tmp_path, subject="file").refs()}) == 2
    assert [ref.subject for ref in _dataset(tmp_path, subject=r"(p\d)/").refs()] == ["p1", "p2"]
    (bad, good) = _dataset(tmp_path, subject=r"(p2)/").refs()
    assert isinstance(bad, BadSource)
    assert isinstance(good, VolumeRef)


def test_what_cannot_be_a_volume_is_reported(tmp_path):
    files = dicom.save_all(dicom.series(dicom.phantom(6)), tmp_path / "gap")
    files[2].unlink()
    (tmp_path / "junk.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(200)))
    bad = {ref.volume: ref for ref in _dataset(tmp_path).refs()}
    assert all(isinstance(ref, BadSource) for ref in bad.values())
    assert len(bad) == 2
    (gap,) = (ref for name, ref in bad.items() if name.startswith("series004-"))
    assert "1 slice(s) are missing" in gap.reason
    assert gap.file.startswith("gap/im")


def test_multi_frame_files_with_two_stacks(tmp_path):
    pixels = dicom.phantom(6)
    dataset = dicom.enhanced(pixels)
    for k, frame in zip(np.random.default_rng(1).permutation(6), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        frame.FrameContentSequence = [dicom.Dataset()]
        frame.FrameContentSequence[0].StackID = str(k // 3)
    dicom.save(dataset, tmp_path / "two.dcm")
    folder = _dataset(tmp_path)
    found = sorted(folder.refs(), key=lambda ref: ref.volume)
    assert [ref.volume[-2:] for ref in found] == ["-1", "-2"]
    for ref, expected in zip(found, (pixels[:3], pixels[3:]), strict=True):
        np.testing.assert_array_equal(folder.read(ref).array[0].transpose(2, 1, 0), expected)
    assert len(list_items("folder", "1", folder, SPEC).items) == 6


def test_a_manifest_names_the_series_and_the_header_orders_it(tmp_path):
    pixels = dicom.phantom(4)
    files = dicom.save_all(dicom.series(pixels), tmp_path)
    rows = "".join(f"{file.name},anna,t2,{k}\n" for k, file in enumerate(reversed(files)))
    (tmp_path / "manifest.csv").write_text("file,subject,volume,slice_index\n" + rows)
    dataset = _dataset(tmp_path)
    (ref,) = dataset.refs()
    assert (ref.subject, ref.volume, ref.files) == ("anna", "t2", tuple(files))
    np.testing.assert_array_equal(dataset.read(ref).array[0].transpose(2, 1, 0), pixels)
    other = dicom.save_all(dicom.series(pixels, seed=3, SeriesInstanceUID="1.2.3.7"), tmp_path / "b")
    more = "".join(f"b/{file.name},anna,t2,{k + 10}\n" for k, file in enumerate(other))
    (tmp_path / "manifest.csv").write_text("file,subject,volume,slice_index\n" + rows + more)
    (bad,) = _dataset(tmp_path).refs()
    assert isinstance(bad, BadSource)
    assert "one volume, but they are 2 series" in bad.reason
