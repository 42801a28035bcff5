"""What headers say about orientation, and the double ending of NIfTI pairs."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from mrbench.data.nifti import is_pair_image, nifti_files, read_nifti, stated_axcodes
from mrbench.errors import DataError

SHAPE = (20, 18, 16)


def _analyze(path, orient, endianness="<"):
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    header = nib.AnalyzeHeader(endianness=endianness)
    header.set_data_dtype(np.dtype("int16").newbyteorder(endianness))
    header.set_data_shape(SHAPE)
    header.set_zooms((1.0, 2.0, 3.0))
    nib.save(nib.AnalyzeImage(values, None, header), path)
    raw = bytearray(path.with_suffix(".hdr").read_bytes())
    raw[252] = orient
    path.with_suffix(".hdr").write_bytes(bytes(raw))
    return values


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize(("orient", "codes"), [(1, "LSA"), (2, "ASL"), (3, "LPS"), (4, "LIA"), (5, "AIL")])
def test_the_orient_byte_of_analyze(tmp_path, orient, codes, endianness):
    values = _analyze(tmp_path / "a.img", orient, endianness)
    for name in ("a.img", "a.hdr"):
        assert stated_axcodes(tmp_path / name) == codes
        volume = read_nifti(tmp_path / name)
        assert "".join(nib.aff2axcodes(volume.affine)) == codes
        assert volume.voxel == (1.0, 2.0, 3.0)
        np.testing.assert_array_equal(volume.array[0], values)
    told = read_nifti(tmp_path / "a.img", assume_axcodes="RAS")  # one byte gives way to what is said
    assert "".join(nib.aff2axcodes(told.affine)) == "RAS"


@pytest.mark.parametrize("orient", [0, 6, 255])
def test_a_byte_that_says_nothing(tmp_path, orient):
    _analyze(tmp_path / "a.img", orient)
    assert stated_axcodes(tmp_path / "a.img") == ""
    with pytest.raises(DataError, match="orientation"):
        read_nifti(tmp_path / "a.img")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_codes_of_nifti(tmp_path, kind):
    affine = np.array([[0, 0, 2.0, 0], [-1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])
    for sform, qform, expected in ((1, 0, "PSR"), (0, 1, "PSR"), (0, 0, "")):
        image = kind(np.zeros(SHAPE, np.int16), affine)
        image.set_sform(affine, sform)
        image.set_qform(affine, qform)
        nib.save(image, tmp_path / "v.nii.gz")
        assert stated_axcodes(tmp_path / "v.nii.gz") == expected


def test_files_that_are_no_nifti(tmp_path):
    (tmp_path / "v.nii").write_bytes(b"hello" * 200)
    with pytest.raises(DataError, match="not recognised"):
        stated_axcodes(tmp_path / "v.nii")


def test_pairs_with_a_double_ending(tmp_path):
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(*SHAPE, 1)
    image = nib.Nifti1Pair(values, np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "mpr-1.nifti.img")
    half, other = tmp_path / "mpr-1.nifti.hdr", tmp_path / "mpr-1.nifti.img"
    assert nifti_files(other) == nifti_files(half) == (half, other)
    assert is_pair_image(other)
    assert stated_axcodes(other) == ""
    volume = read_nifti(other, assume_axcodes="ASL")
    assert volume.array.shape == (1, *SHAPE)
    np.testing.assert_array_equal(volume.array[0], values[..., 0])


def test_units_of_length_that_do_not_exist(tmp_path):
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4))
    image.set_sform(np.eye(4), 1)
    nib.save(image, tmp_path / "v.nii")
    raw = bytearray((tmp_path / "v.nii").read_bytes())
    raw[123] = 0b11100010  # millimetres, and a unit of time that does not exist: of no matter
    (tmp_path / "v.nii").write_bytes(bytes(raw))
    assert read_nifti(tmp_path / "v.nii").voxel == (1.0, 1.0, 1.0)
    raw[123] = 6
    (tmp_path / "v.nii").write_bytes(bytes(raw))
    with pytest.raises(DataError, match="unit of length 6"):
        read_nifti(tmp_path / "v.nii")


def test_repairs_of_headers_are_not_printed(tmp_path, caplog):
    _analyze(tmp_path / "a.img", 2)
    raw = bytearray((tmp_path / "a.hdr").read_bytes())
    raw[83] |= 0x80  # a negative voxel size, as SPM writes it
    (tmp_path / "a.hdr").write_bytes(bytes(raw))
    assert read_nifti(tmp_path / "a.img").voxel == (1.0, 2.0, 3.0)
    assert not caplog.records
    nib.load(tmp_path / "a.img")
    assert caplog.records  # nibabel itself still says it
