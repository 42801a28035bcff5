"""Reading DICOM series: order, geometry, values, and what is refused."""

from __future__ import annotations

import random
import tracemalloc

import dicom_support as dicom
import numpy as np
import pytest

from mrbench.data.dicom import arrange, find_series, frames_of, read_dicom, read_headers
from mrbench.data.preparation import prepare_volume
from mrbench.data.reading import read_volume
from mrbench.data.sniffing import sniff
from mrbench.errors import DataError
from mrbench.settings import CropSpec, ForegroundSpec, IntensitySpec, PreparationSpec

RAW = PreparationSpec(
    foreground=ForegroundSpec(method="whole"),
    intensity=IntensitySpec(kind="fixed", low=0, high=1, source="fixed", clip=False),
    crop=CropSpec(multiple=1),
)


def _shuffled(files):
    return random.Random(3).sample(files, len(files))


def _only(files):
    found = find_series(files)
    assert found.unreadable == []
    (series,) = found.series
    return series


def _refused(datasets, folder, match, kind="explicit"):
    files = dicom.save_all(datasets, folder, kind)
    with pytest.raises(DataError, match=match) as error:
        read_dicom(files)
    assert "Secret" not in str(error.value)
    return error.value


def test_an_oblique_series_with_shuffled_names_and_numbers(tmp_path):
    pixels = dicom.phantom()
    files = dicom.save_all(dicom.series(pixels), tmp_path)
    volume = read_dicom(_shuffled(files))
    np.testing.assert_array_equal(volume.array[0].transpose(2, 1, 0), pixels)
    assert volume.array.dtype == np.float32
    assert volume.voxel == pytest.approx((0.75, 0.5, 3.0))  # positions, not SliceThickness = 9
    index = np.array([5, 7, 2, 1])  # column, row, slice
    lps = np.array([-50.0, -40.0, -30.0]) + 5 * 0.75 * np.array(dicom.OBLIQUE[:3]) + 7 * 0.5 * np.array(dicom.OBLIQUE[3:])
    lps += 2 * 3.0 * dicom.normal_of()
    assert (volume.affine @ index)[:3] == pytest.approx(lps * [-1, -1, 1], abs=1e-6)
    shown = prepare_volume(volume, RAW)
    assert (shown.display.plane, shown.display.axcodes) == ("axial", "SPL")
    np.testing.assert_array_equal(shown.hr[:, 0], pixels)


def test_a_series_stored_from_the_top_down_is_shown_from_below(tmp_path):
    pixels = dicom.phantom(6)
    feet = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # rows run left to right, so the normal points down
    files = dicom.save_all(dicom.series(pixels, ImageOrientationPatient=list(feet)), tmp_path)
    shown = prepare_volume(read_dicom(files), RAW).hr[:, 0]
    np.testing.assert_array_equal(shown, pixels[::-1, :, ::-1])


@pytest.mark.parametrize("kind", ["explicit", "implicit", "big", "rle", "bare", "bare_implicit"])
def test_every_encoding_gives_the_same_values(tmp_path, kind):
    pixels = dicom.phantom(3)
    files = dicom.save_all(dicom.series(pixels), tmp_path, kind, suffix="")
    assert {sniff(file) for file in files} == {"dicom"}
    np.testing.assert_array_equal(read_dicom(files).array[0].transpose(2, 1, 0), pixels)
    header = read_headers(files[0])[0]
    assert (header.rows, header.columns, header.echo_time, header.patient) == (20, 24, 203.0, "P-1")


def test_what_is_dicom_is_told_by_content(tmp_path):
    file = dicom.save(dicom.image(dicom.phantom(1)[0]), tmp_path / "x.png")
    data = file.read_bytes()
    file.write_bytes(b"II*\x00" + data[4:])  # a TIFF's magic in the preamble, as dual-personality files have
    assert sniff(file) == "dicom"
    bare = dicom.save(dicom.image(dicom.phantom(1)[0]), tmp_path / "bare", "bare").read_bytes()
    for name, junk in {
        "text": b"\x08\x00 and then plain text that goes on for a while. 1.2.840.10008.1.2" * 9,
        "zeros": bytes(1000),
        "backwards": bare[40:80] + bare[:400],
        "no-uid": bare[:30] + bytes(500),
    }.items():
        (tmp_path / name).write_bytes(junk)
        assert sniff(tmp_path / name) != "dicom"
        with pytest.raises(DataError, match="not a DICOM file"):
            read_headers(tmp_path / name)


def test_each_image_has_its_own_slope(tmp_path):
    pixels = dicom.phantom(4)
    images = dicom.series(pixels)
    for k, dataset in enumerate(images):
        dataset.RescaleSlope, dataset.RescaleIntercept = k + 0.5, -10.0 * k
    volume = read_dicom(_shuffled(dicom.save_all(images, tmp_path)))
    expected = pixels * (np.arange(4) + 0.5)[:, None, None] - 10.0 * np.arange(4)[:, None, None]
    np.testing.assert_array_equal(volume.array[0].transpose(2, 1, 0), expected.astype(np.float32))


def test_signed_inverted_and_partly_used_bits(tmp_path):
    signed = dicom.phantom(2).astype(np.int16) - 2000
    files = dicom.save_all(dicom.series(signed), tmp_path / "signed")
    np.testing.assert_array_equal(read_dicom(files).array[0].transpose(2, 1, 0), signed)
    pixels = dicom.phantom(2)
    twelve = {"BitsStored": 12, "HighBit": 11}
    files = dicom.save_all(dicom.series(pixels, PhotometricInterpretation="MONOCHROME1", **twelve), tmp_path / "inverted")
    np.testing.assert_array_equal(read_dicom(files).array[0].transpose(2, 1, 0), 4095.0 - pixels)
    overlay = pixels | 0xF000  # an overlay plane in the unused bits
    files = dicom.save_all(dicom.series(overlay, **twelve), tmp_path / "overlay")
    np.testing.assert_array_equal(read_dicom(files).array[0].transpose(2, 1, 0), pixels)


def test_two_slices_at_one_place(tmp_path):
    images = dicom.series(dicom.phantom(6))
    images[4].ImagePositionPatient = images[2].ImagePositionPatient
    error = _refused(images, tmp_path / "a", r"1 of its 6 slices lie where another one lies.*several echoes")
    assert error.fix == "Keep one image for each place."
    images = dicom.series(dicom.phantom(6))
    images[4] = images[2]
    _refused(images, tmp_path / "b", "copies of one image")


def test_missing_slices_are_counted_and_named(tmp_path):
    images = dicom.series(dicom.phantom(9))
    files = dicom.save_all(images, tmp_path)
    with pytest.raises(
        DataError, match=rf"2 slice\(s\) are missing: after {files[3].name}.*{files[6].name}.*9\.00 mm"
    ) as error:
        read_dicom(_shuffled(files[:4] + files[6:]))
    assert error.value.file == str(files[3])


def test_uneven_and_shifted_slices(tmp_path):
    images = dicom.series(dicom.phantom(6))
    images[3].ImagePositionPatient = list(np.array(images[3].ImagePositionPatient) + 0.6 * dicom.normal_of())
    _refused(images, tmp_path / "uneven", r"unevenly spaced: 2\.40 to 3\.60 mm")
    images = dicom.series(dicom.phantom(6))
    images[3].ImagePositionPatient = list(np.array(images[3].ImagePositionPatient) + 5 * np.array(dicom.OBLIQUE[:3]))
    _refused(images, tmp_path / "shifted", r"shifted by 5\.0 mm against the other slices")


@pytest.mark.parametrize(
    ("keyword", "value", "match"),
    [
        ("PixelSpacing", [0.5, 0.8], r"0\.5 x 0\.[78]\S* mm, those of .* 0\.5 x 0\.[78]\S* mm"),
        ("PixelSpacing", None, "how large its pixels are"),
        ("ImagePositionPatient", None, "ImagePositionPatient is missing"),
        ("RescaleSlope", 0.0, "RescaleSlope or RescaleIntercept is not a usable number"),
        ("SamplesPerPixel", 3, r"with 3 sample\(s\), not grey"),
        ("PhotometricInterpretation", "PALETTE COLOR", "PALETTE COLOR"),
        ("BitsAllocated", 12, "12 bits"),
        ("PixelData", None, "no pixel data"),
        ("Rows", 21, r"truncated: 960 bytes, where 1008 are expected \(1 x 21 x 24 of 16 bits\)"),
    ],
)
def test_one_image_unlike_the_others(tmp_path, keyword, value, match):
    images = dicom.series(dicom.phantom(4))
    if value is None:
        delattr(images[2], keyword)
    else:
        setattr(images[2], keyword, value)
    if keyword == "Rows":  # another size is another volume
        assert [len(series.slices) for series in find_series(dicom.save_all(images, tmp_path)).series] == [3, 1]
        images = images[2:3]
    _refused(images, tmp_path, match)


def test_a_slope_that_is_no_number_is_not_taken_for_one(tmp_path):
    file = dicom.save(dicom.image(dicom.phantom(1)[0], RescaleSlope=7.25, RescaleIntercept=0.0), tmp_path / "a.dcm")
    file.write_bytes(file.read_bytes().replace(b"7.25", b"x.yz"))
    with pytest.raises(DataError, match="RescaleSlope or RescaleIntercept"):
        read_dicom([file])


def test_directions_must_be_perpendicular(tmp_path):
    images = dicom.series(dicom.phantom(3))
    for dataset in images:
        dataset.ImageOrientationPatient = [1, 0, 0, 0.7, 0.7, 0]
    _refused(images, tmp_path, "not two perpendicular directions")


def test_a_series_that_mixes_echoes_and_directions_gives_several_volumes(tmp_path):
    short, long = (dicom.series(dicom.phantom(4) + k, EchoTime=te) for k, te in enumerate((20.0, 100.0)))
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    other = dicom.series(dicom.phantom(4) + 2, ImageOrientationPatient=list(coronal))
    files = dicom.save_all([*short, *long, *other], tmp_path)
    for order in (files, _shuffled(files)):
        found = sorted(find_series(order).series, key=lambda series: series.name)
        assert [(s.part, s.parts, s.first.echo_time, s.plane) for s in found] == [
            (1, 3, 20.0, "axial"), (2, 3, 100.0, "axial"), (3, 3, 203.0, "coronal"),
        ]  # fmt: skip
        assert [read_dicom([h.file for h in s.slices]).array[0, 0, 0, 0] for s in found] == [900.0, 901.0, 902.0]
    with pytest.raises(DataError, match="3 series or stacks"):
        read_dicom(files)


def test_noise_in_direction_cosines_does_not_split_a_series(tmp_path):
    images = dicom.series(dicom.phantom(8))
    rng = np.random.default_rng(0)
    for dataset in images:
        dataset.ImageOrientationPatient = [
            round(x + float(e), 9) for x, e in zip(dicom.OBLIQUE, rng.normal(0, 1e-5, 6), strict=True)
        ]
    assert len(arrange(_only(dicom.save_all(images, tmp_path))).slices) == 8


def test_images_without_series_uid_belong_together_by_folder(tmp_path):
    for name in "ab":
        dicom.save_all(dicom.series(dicom.phantom(3), SeriesInstanceUID=None), tmp_path / name)
    assert [len(s.slices) for s in find_series(sorted(tmp_path.rglob("*.dcm"))).series] == [3, 3]


def test_enhanced_frames_in_random_order(tmp_path):
    pixels, slopes = dicom.phantom(10), np.linspace(0.5, 5, 10)
    file = dicom.save(dicom.enhanced(pixels, slopes=slopes), tmp_path / "enhanced")
    volume = read_volume(file)
    expected = (pixels * slopes[:, None, None] + 1).astype(np.float32)
    np.testing.assert_array_equal(volume.array[0].transpose(2, 1, 0), expected)
    assert volume.voxel == pytest.approx((0.75, 0.5, 3.0))
    header = read_headers(file)[3]
    assert (header.frame, header.frames, header.echo_time, header.repetition_time) == (3, 10, 203.0, 2200.0)
    classic = read_dicom(dicom.save_all(dicom.series(pixels), tmp_path / "classic"))
    np.testing.assert_allclose(volume.affine, classic.affine, atol=1e-9)


@pytest.mark.parametrize("kind", ["implicit", "big", "rle"])
def test_enhanced_files_of_other_encodings(tmp_path, kind):
    pixels = dicom.phantom(5)
    volume = read_volume(dicom.save(dicom.enhanced(pixels), tmp_path / "enhanced", kind))
    np.testing.assert_array_equal(volume.array[0].transpose(2, 1, 0), pixels)


def test_two_stacks_in_one_enhanced_file(tmp_path):
    pixels = dicom.phantom(8)
    dataset = dicom.enhanced(pixels)
    order = np.random.default_rng(1).permutation(8)
    for k, frame in zip(order, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        frame.FrameContentSequence = [dicom.Dataset()]
        frame.FrameContentSequence[0].StackID = str(k // 4)
    file = dicom.save(dataset, tmp_path / "two")
    first, second = (arrange(series) for series in find_series([file]).series)
    files, frames = frames_of(second)
    assert files == (file,)
    np.testing.assert_array_equal(read_dicom(files, frames).array[0].transpose(2, 1, 0), pixels[4:])
    np.testing.assert_array_equal(read_dicom(*frames_of(first)).array[0].transpose(2, 1, 0), pixels[:4])
    with pytest.raises(DataError, match="2 series or stacks"):
        read_volume(file)
    with pytest.raises(DataError, match="fewer frames than before"):
        read_dicom(files, [[0, 8]])


def test_enhanced_files_that_do_not_say_where_frames_lie(tmp_path):
    dataset = dicom.enhanced(dicom.phantom(5))
    del dataset.PerFrameFunctionalGroupsSequence
    with pytest.raises(DataError, match="5 frames and no functional groups"):
        read_volume(dicom.save(dataset, tmp_path / "none"))
    dataset = dicom.enhanced(dicom.phantom(5))
    del dataset.PerFrameFunctionalGroupsSequence[2]
    with pytest.raises(DataError, match="has 5 frames, but describes 4"):
        read_volume(dicom.save(dataset, tmp_path / "fewer"))
    dataset = dicom.enhanced(dicom.phantom(5))
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    with pytest.raises(DataError, match="ImagePositionPatient is missing"):
        read_volume(dicom.save(dataset, tmp_path / "no-position"))


def test_a_compression_without_decoder_names_the_extra(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import RLELosslessDecoder

    files = dicom.save_all(dicom.series(dicom.phantom(3)), tmp_path, "rle")
    monkeypatch.setattr(RLELosslessDecoder, "_available", {})
    with pytest.raises(DataError, match=r"compressed \(RLE Lossless\).*pip install 'mrbench\[dicom\]'"):
        read_dicom(files)


def test_transfer_syntaxes_that_are_not_taken(tmp_path):
    file = dicom.save(dicom.image(dicom.phantom(1)[0]), tmp_path / "a")
    data = file.read_bytes()
    stated = b"1.2.840.10008.1.2.1\x00"
    assert data.count(stated) == 1
    file.write_bytes(data.replace(stated, b"1.2.840.10008.1.2.1.99"[:20]))
    with pytest.raises(DataError, match=r"transfer syntax \(an unknown one\)"):
        read_dicom([file])
    length = data.index(b"UI\x14\x00" + stated)
    file.write_bytes(data[:length] + b"UI\x16\x001.2.840.10008.1.2.1.99" + data[length + 4 + len(stated) :])
    with pytest.raises(DataError, match="deflated"):
        read_dicom([file])


@pytest.mark.parametrize("kind", ["explicit", "big", "implicit", "rle"])
def test_pixel_data_that_is_cut_off(tmp_path, kind):
    file = dicom.save(dicom.image(dicom.phantom(1)[0]), tmp_path / "a", kind)
    data = file.read_bytes()
    for kept in (len(data) - 1, len(data) - 9, len(data) - 500):
        file.write_bytes(data[:kept])
        with pytest.raises(DataError, match="truncated"):
            read_dicom([file])


def test_a_header_that_declares_more_than_there_can_be(tmp_path):
    file = dicom.save(dicom.image(dicom.phantom(1)[0], Rows=65535, Columns=65535), tmp_path / "a")
    with pytest.raises(DataError, match="more than the"):
        read_dicom([file])
    compressed = dicom.image(dicom.phantom(1)[0])
    dicom.save(compressed, tmp_path / "b", "rle")
    compressed.Rows, compressed.Columns = 20000, 20000
    dicom.save_all([compressed], tmp_path / "c")
    with pytest.raises(DataError, match=r"declares 800000000 bytes of pixels, out of \d+ compressed"):
        read_dicom([tmp_path / "c" / "im000.dcm"])


def test_dicom_files_that_hold_no_image(tmp_path):
    report = dicom.image(dicom.phantom(1)[0], Modality="SR", Rows=None, Columns=None, PixelData=None)
    with pytest.raises(DataError, match=r"without an image \(modality SR\)"):
        read_volume(dicom.save(report, tmp_path / "report.dcm"))
    mosaic = dicom.image(dicom.phantom(1)[0], ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    with pytest.raises(DataError, match="mosaic"):
        read_volume(dicom.save(mosaic, tmp_path / "mosaic.dcm"))
    listing = dicom.image(dicom.phantom(1)[0], SOPClassUID="1.2.840.10008.1.3.10")
    with pytest.raises(DataError, match="DICOMDIR"):
        read_volume(dicom.save(listing, tmp_path / "DICOMDIR"))


def test_one_image_alone_is_shown_in_its_own_plane(tmp_path):
    pixels = dicom.phantom(1)[0]
    for name, orientation, expected in (
        ("axial", (1, 0, 0, 0, 1, 0), pixels),
        ("from behind", (-1, 0, 0, 0, 1, 0), pixels[:, ::-1]),
        ("turned", (0, 1, 0, 1, 0, 0), pixels.T),
        ("sagittal", (0, 1, 0, 0, 0, -1), pixels),
        ("nowhere", None, pixels),
    ):
        file = dicom.save(dicom.image(pixels, ImageOrientationPatient=orientation and list(orientation)), tmp_path / name)
        volume = read_volume(file)
        np.testing.assert_array_equal(volume.array[0, 0], expected)
        assert volume.affine is None
        assert volume.voxel[1:] == ((0.75, 0.5) if name == "turned" else (0.5, 0.75))
        assert np.isnan(volume.voxel[0])


def test_whose_it_is_and_what_it_is_called(tmp_path):
    series = _only(dicom.save_all(dicom.series(dicom.phantom(3)), tmp_path / "a"))
    assert (series.subject, series.name[:10]) == ("P-1", "series004-")
    other = _only(dicom.save_all(dicom.series(dicom.phantom(3), PatientID=None), tmp_path / "b"))
    assert other.subject.startswith("study-")
    assert dicom.STUDY not in other.subject
    assert other.name == series.name
    assert (
        _only(dicom.save_all(dicom.series(dicom.phantom(3), PatientID=None, StudyInstanceUID=None), tmp_path / "c")).subject
        == ""
    )
    assert "Secret" not in repr(series)


def test_no_more_memory_than_the_volume_and_a_few_slices(tmp_path):
    pixels = dicom.phantom(40, 128, 128)
    files = dicom.save_all(dicom.series(pixels), tmp_path)
    one = dicom.save(dicom.enhanced(pixels), tmp_path / "enhanced")
    read_dicom(files[:2])  # imports
    for wanted in (files, [one]):
        tracemalloc.start()
        read_dicom(wanted)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < pixels.size * 4 + 1.2e6  # the float32 volume, headers, and a few slices of 128 KiB in float64
