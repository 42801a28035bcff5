"""NumPy files, and the dispatch over all formats."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from mrbench.data import checks
from mrbench.data.arrays import read_array
from mrbench.data.checks import check_volume
from mrbench.data.reading import read_stack, read_volume
from mrbench.data.records import Volume
from mrbench.data.sniffing import sniff
from mrbench.errors import DataError


def test_2d_and_3d_arrays(tmp_path):
    stack = np.arange(3 * 20 * 18, dtype=">i4").reshape(3, 20, 18)
    np.save(tmp_path / "s.npy", stack)
    volume = read_array(tmp_path / "s.npy")
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, stack[None])
    assert volume.affine is None
    assert np.isnan(volume.voxel).all()
    np.save(tmp_path / "i.npy", stack[0])
    assert read_array(tmp_path / "i.npy").array.shape == (1, 1, 20, 18)


def test_complex_arrays_give_two_channels(tmp_path):
    values = (np.arange(400) + 2j * np.arange(400)).reshape(20, 20)
    np.save(tmp_path / "c.npy", values)
    volume = read_array(tmp_path / "c.npy")
    assert volume.array.shape == (2, 1, 20, 20)
    np.testing.assert_array_equal(volume.array[1, 0], values.imag)


@pytest.mark.parametrize("shape", [(20,), (2, 3, 20, 20), ()])
def test_wrong_number_of_axes(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape))
    with pytest.raises(DataError, match="shape"):
        read_array(tmp_path / "x.npy")


def test_npz_keys(tmp_path):
    a, b = np.eye(20), np.ones((20, 20))
    np.savez_compressed(tmp_path / "two.npz", a=a, b=b)
    with pytest.raises(DataError, match=r"2 arrays \(a, b\).*key=NAME"):
        read_array(tmp_path / "two.npz")
    np.testing.assert_array_equal(read_array(tmp_path / "two.npz", key="a").array[0, 0], a)
    with pytest.raises(DataError, match="no array 'c'"):
        read_array(tmp_path / "two.npz", key="c")
    np.savez(tmp_path / "one.npz", only=a)
    np.testing.assert_array_equal(read_array(tmp_path / "one.npz").array[0, 0], a)


def test_pickles_are_never_opened(tmp_path):
    np.save(tmp_path / "o.npy", np.array([[{}, 1], [2, 3]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled"):
        read_array(tmp_path / "o.npy")
    np.savez(tmp_path / "o.npz", x=np.array([[None]], dtype=object))
    with pytest.raises(DataError, match="pickled"):
        read_array(tmp_path / "o.npz")
    (tmp_path / "p.npy").write_bytes(pickle.dumps(np.eye(20)))
    with pytest.raises(DataError, match="pickle"):
        read_array(tmp_path / "p.npy")


def test_texts_and_records_are_refused(tmp_path):
    np.save(tmp_path / "t.npy", np.array([["a", "b"]]))
    with pytest.raises(DataError, match="not numbers"):
        read_array(tmp_path / "t.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("keep", [0.05, 0.9])
def test_truncated_files(tmp_path, name, keep):
    values = np.random.default_rng(0).normal(size=(64, 64))
    (np.save if name.endswith("npy") else np.savez)(tmp_path / name, values)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DataError) as caught:
        read_array(tmp_path / name)
    assert name in str(caught.value)


def test_a_declared_size_is_checked_before_reading(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "big.npz", np.zeros((200, 200)))
    monkeypatch.setattr(checks, "MAX_VOXELS", 30_000)
    with pytest.raises(DataError, match="declares 40000"):
        read_array(tmp_path / "big.npz")


def test_read_volume_goes_by_content(tmp_path):
    values = np.arange(400, dtype=np.uint16).reshape(20, 20)
    Image.fromarray(values).save(tmp_path / "png.nii", format="PNG")
    with (tmp_path / "npy.png").open("wb") as file:
        np.save(file, values)
    for name in ("png.nii", "npy.png"):
        volume = read_volume(tmp_path / name, voxel=(5.0, 1.0, 1.5))
        np.testing.assert_array_equal(volume.array[0, 0], values)
        assert volume.voxel == (5.0, 1.0, 1.5)


def test_known_formats_that_are_not_taken(tmp_path):
    for name, start, word in [
        ("d", bytes(128) + b"DICM" + bytes(100), "DICOM"),
        ("h", b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        ("n", b"NRRD0004\n", "NRRD"),
        ("m", b"ObjectType = Image\n", "MetaImage"),
        ("z", b"PK\x03\x04" + bytes(30), "ZIP"),
    ]:
        (tmp_path / name).write_bytes(start)
        with pytest.raises(DataError, match=word):
            read_volume(tmp_path / name)
    assert sniff(tmp_path / "d") == "dicom"


def test_stack_of_unlike_pictures(tmp_path):
    Image.new("L", (20, 20), 3).save(tmp_path / "a.png")
    Image.new("RGB", (20, 20), (1, 2, 3)).save(tmp_path / "b.png")
    assert read_stack([tmp_path / "a.png", tmp_path / "a.png"]).array.shape == (1, 2, 20, 20)
    with pytest.raises(DataError, match=r"b\.png.*differ"):
        read_stack([tmp_path / "a.png", tmp_path / "b.png"])


def _volume(array: np.ndarray, **more) -> Volume:
    return Volume(array.astype(np.float32), (1.0, 1.0, 1.0), **more)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad):
    array = np.random.default_rng(0).random((1, 2, 20, 20))
    array[0, 1, 3, 4] = bad
    with pytest.raises(DataError, match="1 of its 800 values are NaN or infinite"):
        check_volume(_volume(array), "f.npy")


def test_float64_beyond_float32_is_refused_not_clipped(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1e300] * 20] * 20) * np.arange(20))
    with pytest.raises(DataError, match="infinite"):
        check_volume(read_array(tmp_path / "x.npy"), tmp_path / "x.npy")


def test_constant_volumes_but_not_constant_slices():
    with pytest.raises(DataError, match="all its values are 7"):
        check_volume(_volume(np.full((1, 2, 20, 20), 7.0)), "f")
    array = np.zeros((1, 2, 20, 20))
    array[0, 1, 3, 4] = 1
    check_volume(_volume(array), "f")


def test_shapes_masks_and_affines():
    good = np.random.default_rng(0).random((1, 2, 20, 20))
    for array in (good[0], good[:, :, :15], np.concatenate([good] * 4)):
        with pytest.raises(DataError):
            check_volume(_volume(array), "f")
    with pytest.raises(DataError, match="mask"):
        check_volume(_volume(good, mask=np.ones((2, 20, 19), dtype=bool)), "f")
    with pytest.raises(DataError, match="affine"):
        check_volume(_volume(good, affine=np.diag([1.0, 0.0, 1.0, 1.0])), "f")
    parallel = np.eye(4)
    parallel[:3, 1] = parallel[:3, 0]
    with pytest.raises(DataError, match="affine"):
        check_volume(_volume(good, affine=parallel), "f")
    with pytest.raises(DataError, match="voxel"):
        check_volume(Volume(good.astype(np.float32), (0.0, 1.0, 1.0)), "f")
    check_volume(_volume(good, affine=np.eye(4)), "f")
