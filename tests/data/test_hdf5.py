"""HDF5 files: plain volumes, and the many ways in which such a file can be unusable."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from mrbench.data.hdf5 import open_hdf5, read_hdf5
from mrbench.data.ismrmrd import BadHeader, parse_header
from mrbench.data.reading import read_volume
from mrbench.data.sniffing import sniff
from mrbench.errors import DataError, UserError


@pytest.fixture
def stack():
    return np.random.default_rng(0).integers(0, 3000, (4, 20, 18)).astype(np.int16)


def _write(path, arrays, attributes=None, **settings):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            made = file.create_dataset(name, data=values, **settings)
            made.attrs.update(attributes or {})
    return path


def test_stacks_and_images(tmp_path, stack):
    path = _write(tmp_path / "a.h5", {"volume": stack}, {"voxel_size_mm": [3.0, 0.5, 0.4]})
    volume = read_hdf5(path)
    np.testing.assert_array_equal(volume.array, stack[None].astype(np.float32))
    assert volume.array.dtype == np.float32
    assert volume.voxel == (3.0, 0.5, 0.4)
    assert volume.affine is None
    image = read_hdf5(_write(tmp_path / "b.h5", {"x": stack[0]}))
    np.testing.assert_array_equal(image.array, stack[None, :1].astype(np.float32))
    assert np.isnan(image.voxel).all()


def test_read_volume_knows_it_by_content(tmp_path, stack):
    path = _write(tmp_path / "a.img", {"deep/inside/volume": stack})
    assert sniff(path) == "hdf5"
    volume = read_volume(path, voxel=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(volume.array[0], stack)
    assert volume.voxel == (1.0, 2.0, 3.0)
    own = _write(tmp_path / "b.h5", {"volume": stack}, {"spacing": [5, 1, 1]})
    assert read_volume(own, voxel=(1.0, 2.0, 3.0)).voxel == (5.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"voxel_size_mm": [2.0, 1.0]}, (np.nan, 2.0, 1.0)),
        ({"voxel_size": 0.8}, (0.8, 0.8, 0.8)),
        ({"element_size_um": [3000, 500, 400]}, (3.0, 0.5, 0.4)),
        ({"spacing_mm": [0.0, 1.0, np.inf]}, (np.nan, 1.0, np.nan)),
        ({"voxel_size_mm": "large", "spacing": [1, 2, 3, 4]}, (np.nan,) * 3),
    ],
)
def test_voxel_sizes(tmp_path, stack, attributes, expected):
    path = _write(tmp_path / "a.h5", {"volume": stack}, attributes)
    np.testing.assert_allclose(read_hdf5(path).voxel, expected, equal_nan=True)


def test_voxel_size_of_the_file(tmp_path, stack):
    path = _write(tmp_path / "a.h5", {"volume": stack})
    with h5py.File(path, "a") as file:
        file.attrs["voxel_size_mm"] = [4.0, 1.0, 1.0]
    assert read_hdf5(path).voxel == (4.0, 1.0, 1.0)


def test_several_arrays_need_a_key(tmp_path, stack):
    path = _write(tmp_path / "a.h5", {"high_resolution": stack, "low_resolution": stack[:, ::2, ::2], "mask": stack > 9})
    with pytest.raises(DataError, match=r"3 arrays \(high_resolution, low_resolution, mask\).*key=NAME"):
        read_hdf5(path)
    assert read_hdf5(path, key="low_resolution").array.shape == (1, 4, 10, 9)
    assert set(np.unique(read_hdf5(path, key="mask").array)) == {0, 1}
    with pytest.raises(DataError, match=r"no array 'high'\. It holds: high_resolution"):
        read_hdf5(path, key="high")
    raw = _write(tmp_path / "b.h5", {"kspace": stack, "reconstruction_rss": stack, "ismrmrd_header": np.bytes_("<x/>")})
    with pytest.raises(DataError, match="fastmri_brain"):
        read_hdf5(raw)


def test_four_axes_and_complex_values(tmp_path, stack):
    four = np.stack([stack, stack + 1])
    path = _write(tmp_path / "a.h5", {"volumes": four})
    with pytest.raises(DataError, match=r"volume_index=0\.\.1"):
        read_hdf5(path)
    np.testing.assert_array_equal(read_hdf5(path, volume_index=1).array[0], stack + 1)
    with pytest.raises(DataError, match="2 entries along axis 0, not 3"):
        read_hdf5(path, volume_index=2)
    assert read_hdf5(_write(tmp_path / "b.h5", {"one": four[:1]})).array.shape == (1, 4, 20, 18)
    values = (stack + 1j * stack[::-1]).astype(np.complex64)
    pairs = np.empty(stack.shape, [("real", "f8"), ("imag", "f8")])
    pairs["real"], pairs["imag"] = values.real, values.imag
    for name, array in (("c.h5", values), ("d.h5", pairs)):
        read = read_hdf5(_write(tmp_path / name, {"x": array})).array
        np.testing.assert_array_equal(read, np.stack([stack, stack[::-1]]).astype(np.float32))


def test_matlab_files(tmp_path, stack):
    """A version 7.3 .mat file: 512 bytes of text before the HDF5 part, axes stored backwards."""
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        made = file.create_dataset("vol", data=stack.transpose(1, 2, 0).T)  # MATLAB: [rows, columns, slices]
        made.attrs["MATLAB_class"] = np.bytes_("int16")
        file.create_group("#refs#").create_dataset("a", data=stack)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))
    assert sniff(path) == "hdf5"
    np.testing.assert_array_equal(read_hdf5(path).array[0], stack)


@pytest.mark.parametrize("settings", [{"compression": "gzip", "shuffle": True}, {"compression": "lzf"}, {"fletcher32": True}])
def test_packed_chunks(tmp_path, stack, settings):
    path = _write(tmp_path / "a.h5", {"volume": stack}, chunks=(1, 8, 8), **settings)
    np.testing.assert_array_equal(read_hdf5(path).array[0], stack)


def test_what_is_refused(tmp_path, stack):
    cases = {
        "text": ({"name": np.bytes_("hello")}, "no array of numbers with 2 to 4 axes. It holds: name"),
        "vector": ({"x": stack[0, 0]}, "no array of numbers"),
        "empty": ({"x": np.empty((0, 20, 18))}, "has the shape"),
        "records": ({"x": np.zeros((4, 20, 18), [("a", "f4"), ("b", "f4")])}, "no array of numbers"),
    }
    for name, (arrays, reason) in cases.items():
        path = _write(tmp_path / f"{name}.h5", arrays)
        with pytest.raises(DataError, match=reason) as error:
            read_hdf5(path)
        assert str(path) in str(error.value)
    png = tmp_path / "x.h5"
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(600))
    with pytest.raises(DataError, match="it is a png file, not HDF5"):
        read_hdf5(png)


def test_truncated_files_say_so(tmp_path, stack):
    path = _write(tmp_path / "a.h5", {"volume": stack})
    data = path.read_bytes()
    for keep in (len(data) - 1, len(data) // 2, 600, 40):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"truncated|damaged") as error:
            read_hdf5(path)
        assert error.value.file == str(path)


def test_claims_are_checked_before_anything_is_read(tmp_path):
    """Files of a few kilobytes that declare terabytes, and parts that were never written (which HDF5 fills with zeros)."""
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("x", (2**20, 2**10, 2**10), "f4", chunks=(1, 64, 64))
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        file.create_dataset("x", (2**12, 2**12, 2**12), "f4", chunks=(2**5, 2**12, 2**11))
    with h5py.File(tmp_path / "never.h5", "w") as file:
        file.create_dataset("x", (4, 20, 18), "f4")
    with h5py.File(tmp_path / "partly.h5", "w") as file:
        file.create_dataset("x", (4, 20, 18), "f4", chunks=(1, 20, 18))[:3] = 1
    reasons = {
        "huge": "declares 268435456 chunks",
        "chunk": "in chunks of",
        "never": "never written",
        "partly": "3 of the 4 parts",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason):
            read_hdf5(tmp_path / f"{name}.h5")


def test_more_values_than_are_read_at_once(tmp_path, stack, monkeypatch):
    monkeypatch.setattr("mrbench.data.checks.MAX_VOXELS", stack.size - 1)
    with pytest.raises(DataError, match=f"declares {stack.size} values"):
        read_hdf5(_write(tmp_path / "a.h5", {"x": stack}))


def test_packed_parts_that_crash_the_library(tmp_path, stack):
    """A part of 0 bytes makes the check of its checksum run out of memory's bounds."""
    path = _write(tmp_path / "a.h5", {"x": stack}, chunks=(1, 20, 18), compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        size = file["x"].id.get_chunk_info(0).size
    data = bytearray(path.read_bytes())
    place = data.index(size.to_bytes(4, "little") + bytes(4) + bytes(32))  # the key of the first part in the index
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a part of x has 0 bytes"):
        read_hdf5(path)


def test_filters_that_are_not_taken(tmp_path, stack):
    path = _write(tmp_path / "a.h5", {"x": stack}, chunks=(1, 20, 18), scaleoffset=0)
    with pytest.raises(DataError, match=r"packed with the filter scaleoffset \(6\).*gzip, lzf, shuffle"):
        read_hdf5(path)


def test_nothing_outside_the_file_is_read(tmp_path, stack):
    secret = _write(tmp_path / "secret.h5", {"volume": stack})
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["outside"] = h5py.ExternalLink(str(secret), "volume")
        file["soft"] = h5py.SoftLink("/own")
        file["own"] = stack
    assert read_hdf5(tmp_path / "links.h5").array.shape == (1, 4, 20, 18)  # the only array of its own
    with pytest.raises(DataError, match=r"no array 'outside'. It holds: own"):
        read_hdf5(tmp_path / "links.h5", key="outside")
    layout = h5py.VirtualLayout((4, 20, 18), "i2")
    layout[:] = h5py.VirtualSource(str(secret), "volume", (4, 20, 18))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    (tmp_path / "raw.bin").write_bytes(stack.tobytes())
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("x", (4, 20, 18), "i2", external=[(str(tmp_path / "raw.bin"), 0, stack.nbytes)])
    for name in ("virtual.h5", "external.h5"):
        with pytest.raises(DataError, match="in other files"):
            read_hdf5(tmp_path / name)


def test_open_elsewhere(tmp_path, stack):
    """Another process, and this one, may hold the file open for writing; after reading nothing stays open here."""
    path = _write(tmp_path / "a.h5", {"volume": stack})
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        np.testing.assert_array_equal(read_hdf5(path).array[0], stack)
        other.communicate("")
    with h5py.File(path, "r+"):
        np.testing.assert_array_equal(read_hdf5(path).array[0], stack)
    with open_hdf5(path) as source:
        kept = source.array("volume")
    with pytest.raises(DataError, match="cannot be read"):
        kept.read(0)
    with h5py.File(path, "w"):  # would fail if a handle were open
        pass


def test_errors_of_the_caller_pass_through(tmp_path, stack):
    path = _write(tmp_path / "a.h5", {"volume": stack})
    with pytest.raises(UserError, match="mine"), open_hdf5(path):
        raise UserError("mine")


def test_a_heap_on_which_the_library_never_ends(tmp_path):
    """Texts of any length lie in heaps; an object of size 0 in one is an endless loop in the library."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["header"] = b"<x>" * 200
        file.attrs["patient_id"] = "somebody"
    with open_hdf5(path) as source:
        assert source.text("header") == "<x>" * 200
        assert source.attribute("patient_id") == "somebody"
        assert source.attribute("nothing") is None
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 4096] = bytes(4080)
    path.write_bytes(data)
    with open_hdf5(path) as source:
        with pytest.raises(DataError, match="heap of texts in it is broken"):
            source.text("header")
        with pytest.raises(DataError, match="heap of texts in it is broken"):
            source.attribute("patient_id")
        with pytest.raises(DataError, match="no text 'other'"):
            source.text("other")


def test_a_text_that_claims_gigabytes(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["header"] = b"<x>" * 200
        offset = file["header"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = (2**32 - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with open_hdf5(path) as source, pytest.raises(DataError, match="more than 4 MiB"):
        source.text("header")


def _header(inside="", size="<x>320</x><y>320</y><z>1</z>", fov="<x>220.0</x><y>220</y><z>7.5</z>"):
    space = f"<matrixSize>{size}</matrixSize><fieldOfView_mm>{fov}</fieldOfView_mm>"
    body = f"<encoding><encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace></encoding>"
    return f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">{inside}{body}</ismrmrdHeader>'


def test_headers():
    parsed = parse_header(_header("<encodingX/>"))
    assert parsed.recon.matrix == (320, 320, 1)
    assert parsed.recon.spacing == pytest.approx((0.6875, 0.6875, 7.5))
    twice = _header().replace("</ismrmrdHeader>", _header().partition(">")[2].replace("320", "64"))
    assert parse_header(twice).recon.matrix == (320, 320, 1)  # the first encoding counts
    prefixed = _header().replace("<", "<m:").replace("<m:/", "</m:").replace("xmlns=", "xmlns:m=")
    assert parse_header(prefixed) == parsed
    assert np.isnan(parse_header(_header(fov="<x>0</x><y>-1</y><z>inf</z>")).recon.spacing).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no well-formed XML"),
        ("<ismrmrdHeader>", "no well-formed XML"),
        ("<other/>", "no element ismrmrdHeader"),
        ("<ismrmrdHeader/>", "encodedSpace/matrixSize/x is None"),
        (_header(size="<x>a</x><y>1</y><z>1</z>"), "encodedSpace/matrixSize/x is 'a'"),
        (_header(size="<x>0</x><y>1</y><z>1</z>"), r"matrix size \(0, 1, 1\)"),
        ("<a>" * 100 + "</a>" * 100, "too deeply"),
        ("x" * 2**22 + "x", "4194305 characters"),
        ('<!DOCTYPE d [<!ENTITY a "b">]>' + _header("<n>&a;</n>"), "not expanded"),
        ('<!DOCTYPE d SYSTEM "file:///etc/passwd">' + _header(), "not expanded"),
    ],
)
def test_headers_that_are_refused(text, reason):
    with pytest.raises(BadHeader, match=reason):
        parse_header(text)
