"""NIfTI and Analyze: geometry, scaling, and everything that must be refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from mrbench.data.nifti import nifti_files, read_nifti
from mrbench.data.reading import read_volume, source_files
from mrbench.errors import DataError, UserError

SHAPE = (20, 18, 16)


def _save(
    path: Path, array: np.ndarray, affine: np.ndarray | None = None, sform: int = 1, qform: int = 1, **fields: Any
) -> Path:
    affine = np.diag([2.0, 2.5, 3.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def _values(dtype: str = "int16") -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def _patch(path: Path, offset: int, data: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_values_and_voxels(tmp_path, suffix, dtype):
    values = (_values() % 200).astype(dtype)
    volume = read_nifti(_save(tmp_path / f"v{suffix}", values))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], values.astype(np.float32))
    assert volume.voxel == pytest.approx((2.0, 2.5, 3.0))
    np.testing.assert_allclose(volume.affine, np.diag([2.0, 2.5, 3.0, 1.0]))


def test_slope_and_intercept(tmp_path):
    path = _save(tmp_path / "v.nii", _values())
    _patch(path, 112, struct.pack("<ff", 0.5, -3.0))
    np.testing.assert_allclose(read_nifti(path).array[0], _values() * 0.5 - 3.0)


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_slope_zero_or_not_finite_means_none(tmp_path, slope):
    path = _save(tmp_path / "v.nii", _values())
    _patch(path, 112, struct.pack("<ff", slope, 5.0))
    np.testing.assert_array_equal(read_nifti(path).array[0], _values())


def test_sform_wins_over_qform(tmp_path):
    image = nib.Nifti1Image(_values(), None)
    image.set_sform(np.diag([-2.0, 2.0, 2.0, 1.0]), 2)
    image.set_qform(np.diag([3.0, 3.0, 3.0, 1.0]), 1)
    nib.save(image, tmp_path / "v.nii")
    volume = read_nifti(tmp_path / "v.nii")
    np.testing.assert_allclose(volume.affine, np.diag([-2.0, 2.0, 2.0, 1.0]))
    assert volume.voxel == pytest.approx((2.0, 2.0, 2.0))


def test_qform_is_used_where_the_sform_code_is_zero(tmp_path):
    image = nib.Nifti1Image(_values(), None)
    image.set_sform(np.diag([-9.0, 9.0, 9.0, 1.0]), 0)
    image.set_qform(np.diag([3.0, 3.0, 4.0, 1.0]), 1)
    nib.save(image, tmp_path / "v.nii")
    assert read_nifti(tmp_path / "v.nii").voxel == pytest.approx((3.0, 3.0, 4.0))


def test_without_any_orientation_it_is_refused_unless_assumed(tmp_path):
    path = _save(tmp_path / "v.nii", _values(), sform=0, qform=0)
    with pytest.raises(DataError, match="assume_axcodes"):
        read_nifti(path)
    volume = read_nifti(path, assume_axcodes="lps")
    assert "".join(nib.aff2axcodes(volume.affine)) == "LPS"
    assert volume.voxel == pytest.approx((2.0, 2.5, 3.0))


def test_assumed_axcodes_never_override_what_a_file_says(tmp_path):
    path = _save(tmp_path / "v.nii", _values())
    np.testing.assert_allclose(read_nifti(path, assume_axcodes="LPS").affine, np.diag([2.0, 2.5, 3.0, 1.0]))


@pytest.mark.parametrize("codes", ["LP", "LLS", "XYZ", "LRS"])
def test_bad_axcodes(tmp_path, codes):
    path = _save(tmp_path / "v.nii", _values(), sform=0, qform=0)
    with pytest.raises(UserError, match="assume_axcodes"):
        read_nifti(path, assume_axcodes=codes)


def test_trailing_singletons_are_squeezed(tmp_path):
    path = _save(tmp_path / "v.nii", _values()[..., None, None])
    np.testing.assert_array_equal(read_nifti(path).array[0], _values())


def test_two_dimensional_file(tmp_path):
    path = _save(tmp_path / "v.nii", _values()[:, :, 0])
    assert read_nifti(path).array.shape == (1, 20, 18, 1)


def test_4d_needs_a_volume_index(tmp_path):
    stack = np.stack([_values(), _values() + 1], axis=-1)
    path = _save(tmp_path / "v.nii.gz", stack)
    with pytest.raises(DataError, match=r"volume_index=0\.\.1"):
        read_nifti(path)
    np.testing.assert_array_equal(read_nifti(path, volume_index=1).array[0], _values() + 1)
    with pytest.raises(DataError, match="holds 2"):
        read_nifti(path, volume_index=2)
    five = _save(tmp_path / "five.nii", stack[..., None])
    np.testing.assert_array_equal(read_nifti(five, volume_index=0).array[0], _values())
    vectors = _save(tmp_path / "vec.nii", np.stack([_values()] * 3, -1)[:, :, :, None, :])
    with pytest.raises(DataError, match="5 dimensions"):
        read_nifti(vectors, volume_index=0)


def test_volume_index_of_a_3d_file(tmp_path):
    path = _save(tmp_path / "v.nii", _values())
    assert read_nifti(path, volume_index=0).array.shape == (1, *SHAPE)
    with pytest.raises(DataError, match="volume_index=1"):
        read_nifti(path, volume_index=1)


def test_rgb_is_refused_and_complex_gives_two_channels(tmp_path):
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(DataError, match="colours"):
        read_nifti(_save(tmp_path / "rgb.nii", rgb))
    values = (_values("float32") + 1j * _values("float32")[::-1]).astype(np.complex64)
    volume = read_nifti(_save(tmp_path / "c.nii", values))
    assert volume.array.shape == (2, *SHAPE)
    np.testing.assert_array_equal(volume.array[0], values.real)
    np.testing.assert_array_equal(volume.array[1], values.imag)


def test_big_endian_and_nifti2(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(_values(">i2"), np.eye(4), header)
    image.set_sform(np.eye(4), 1)
    nib.save(image, tmp_path / "big.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "big.nii").array[0], _values())
    two = nib.Nifti2Image(_values(), np.eye(4))
    two.set_sform(np.eye(4), 1)
    nib.save(two, tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "two.nii.gz").array[0], _values())


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_units_of_length(tmp_path, unit, factor):
    image = nib.Nifti1Image(_values(), np.diag([2.0, 2.0, 3.0, 1.0]))
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "v.nii")
    assert read_nifti(tmp_path / "v.nii").voxel == pytest.approx((2 * factor, 2 * factor, 3 * factor))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, suffix, keep):
    values = np.random.default_rng(0).integers(0, 2000, SHAPE).astype(np.int16)
    path = _save(tmp_path / f"v{suffix}", values)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DataError) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)


def test_gzip_checksum_is_verified(tmp_path):
    path = _save(tmp_path / "v.nii.gz", _values())
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the checksum
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="CRC"):
        read_nifti(path)


def test_headers_that_lie_about_the_size(tmp_path):
    path = _save(tmp_path / "v.nii", _values())
    _patch(path, 40, struct.pack("<8h", 3, 32000, 32000, 32000, 1, 1, 1, 1))
    with pytest.raises(DataError, match="declares"):
        read_nifti(path)
    bomb = tmp_path / "bomb.nii.gz"
    small = _save(tmp_path / "s.nii", _values()).read_bytes()
    bomb.write_bytes(gzip.compress(small + bytes(8 * 2**20)))
    with pytest.raises(DataError, match="more than"):
        read_nifti(bomb)


def test_empty_and_foreign_files(tmp_path):
    (tmp_path / "e.nii").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_nifti(tmp_path / "e.nii")
    (tmp_path / "t.nii.gz").write_bytes(gzip.compress(b"hello" * 500))
    with pytest.raises(DataError, match="gzip"):
        read_nifti(tmp_path / "t.nii.gz")


def test_pairs_are_read_from_either_file(tmp_path):
    image = nib.Nifti1Pair(_values(), np.eye(4))
    image.set_sform(np.eye(4), 1)
    nib.save(image, tmp_path / "p.hdr")
    for name in ("p.hdr", "p.img"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array[0], _values())
        assert source_files(tmp_path / name) == (tmp_path / "p.hdr", tmp_path / "p.img")
    (tmp_path / "p.img").unlink()
    with pytest.raises(DataError, match=r"\.img file is missing"):
        nifti_files(tmp_path / "p.hdr")


def test_analyze_has_no_orientation(tmp_path):
    nib.save(nib.Spm2AnalyzeImage(_values(), np.diag([-2.0, 2.0, 2.0, 1.0])), tmp_path / "a.img")
    with pytest.raises(DataError, match="assume_axcodes"):
        read_nifti(tmp_path / "a.hdr")
    volume = read_nifti(tmp_path / "a.hdr", assume_axcodes="LAS")
    np.testing.assert_array_equal(volume.array[0], _values())
    assert volume.voxel == pytest.approx((2.0, 2.0, 2.0))
