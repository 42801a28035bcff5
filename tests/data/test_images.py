"""PNG, JPEG and TIFF: the stored values, or a clear refusal."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrbench.data import images
from mrbench.data.images import read_image, read_pages
from mrbench.errors import DataError


def _png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes) -> Path:
    """Write a PNG by hand, for layouts that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def test_16_bit_png_keeps_all_values(tmp_path, gradient16):
    path = tmp_path / "deep.png"
    Image.fromarray(gradient16).save(path)
    image = read_image(path)
    assert image.dtype == np.float32
    assert image.shape == (1, 24, 20)
    np.testing.assert_array_equal(image[0], gradient16.astype(np.float32))
    assert image.max() > 255


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2", "<f4", ">f4", "<i4", "<u4", "u1", "i1"])
def test_tiff_types_and_byte_orders(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    wanted = (np.arange(24 * 20).reshape(24, 20) * 7 - (0 if "u" in dtype else 200)).astype(dtype)
    if dtype == "<u4":
        wanted[0, 0] = 3_000_000_000
    path = tmp_path / "t.tif"
    tifffile.imwrite(path, wanted, byteorder=">" if dtype[0] == ">" else "<", photometric="minisblack")
    np.testing.assert_array_equal(read_image(path)[0], wanted.astype(np.float32))


def test_multi_page_tiff_is_a_volume(tmp_path, gradient16):
    path = tmp_path / "stack.tif"
    pages = [Image.fromarray(gradient16 + k) for k in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    stack = read_pages(path)
    assert stack.shape == (1, 3, 24, 20)
    for k in range(3):
        np.testing.assert_array_equal(stack[0, k], gradient16 + k)
    with pytest.raises(DataError, match="3 pages"):
        read_image(path)


def test_pages_of_different_size_are_refused(tmp_path):
    path = tmp_path / "stack.tif"
    Image.new("L", (20, 20)).save(path, save_all=True, append_images=[Image.new("L", (20, 24))])
    with pytest.raises(DataError, match="page 2"):
        read_pages(path)


def test_the_format_is_decided_by_content(tmp_path, gradient16):
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(gradient16).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path)[0], gradient16)


def test_palette_is_looked_up(tmp_path):
    grey = Image.new("P", (16, 16))
    grey.putpalette([v for k in range(256) for v in (255 - k,) * 3])
    grey.putdata(list(range(256)))
    grey.save(tmp_path / "grey.png")
    image = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(image, (255 - np.arange(256.0)).reshape(1, 16, 16))
    colour = Image.new("P", (16, 16))
    colour.putpalette([v for k in range(256) for v in (k, 0, 255 - k)])
    colour.putdata(list(range(256)))
    colour.save(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png").shape == (3, 16, 16)


def test_grey_stored_as_rgb_gives_one_channel(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), ramp[None])
    Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / "rgb.jpg", quality=90)
    assert read_image(tmp_path / "rgb.jpg").shape == (1, 16, 16)


def test_one_differing_pixel_makes_it_colour(tmp_path):
    rgb = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, -1)
    rgb[3, 4, 1] += 1
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    image = read_image(tmp_path / "rgb.png")
    np.testing.assert_array_equal(image, rgb.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path, mode):
    image = Image.new(mode, (16, 16), (7, 255) if mode == "LA" else (7, 8, 9, 255))
    image.save(tmp_path / "opaque.png")
    assert read_image(tmp_path / "opaque.png").shape == ((1, 16, 16) if mode == "LA" else (3, 16, 16))
    image.putpixel((3, 3), (7, 254) if mode == "LA" else (7, 8, 9, 254))
    image.save(tmp_path / "glass.png")
    with pytest.raises(DataError, match="transparent"):
        read_image(tmp_path / "glass.png")


def test_transparent_colour_key_is_refused_only_where_it_occurs(tmp_path, gradient16):
    Image.fromarray(gradient16).save(tmp_path / "unused.png", transparency=3)
    assert read_image(tmp_path / "unused.png").max() == gradient16.max()
    Image.fromarray(gradient16).save(tmp_path / "used.png", transparency=int(gradient16[2, 2]))
    with pytest.raises(DataError, match="transparent"):
        read_image(tmp_path / "used.png")


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (16, 16))
    image.putpalette([v for k in range(256) for v in (k,) * 3])
    image.putdata(list(range(256)))
    image.save(tmp_path / "p.png", transparency=5)
    with pytest.raises(DataError, match="transparent"):
        read_image(tmp_path / "p.png")


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (16, 16), (1, 2, 3, 4)).save(tmp_path / "c.jpg")
    with pytest.raises(DataError, match="CMYK"):
        read_image(tmp_path / "c.jpg")


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_png_is_refused_because_bits_would_be_lost(tmp_path, colour, channels):
    row = b"\x00" + struct.pack(f">{16 * channels}H", *([300] * 16 * channels))
    path = _png(tmp_path / "deep.png", 16, 16, 16, colour, row * 16)
    with pytest.raises(DataError, match="16-bit PNG"):
        read_image(path)


def test_16_bit_colour_tiff_and_inverted_tiff_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "rgb.tif", np.full((16, 16, 3), 300, np.uint16), photometric="rgb")
    with pytest.raises(DataError, match="3 channels of 16 bits"):
        read_image(tmp_path / "rgb.tif")
    tifffile.imwrite(tmp_path / "inv.tif", np.arange(256, dtype=np.uint16).reshape(16, 16), photometric="miniswhite")
    with pytest.raises(DataError, match="white is stored as zero"):
        read_image(tmp_path / "inv.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
    stored = np.full((24, 32), 20, np.uint8)
    stored[:8, :8] = 240  # a bright corner where the file's first row and column meet
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"e.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    image = read_image(path)[0]
    assert image.shape == ((24, 32) if orientation <= 4 else (32, 24))
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[orientation]
    corners = {(r, c): image[r, c] for r in (0, -1) for c in (0, -1)}
    assert max(corners, key=lambda key: corners[key]) == (row, column)


def test_exif_orientation_of_16_bit(tmp_path, gradient16):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient16).save(tmp_path / "e.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "e.png")[0], np.rot90(gradient16, -1))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_truncated_files_are_refused(tmp_path, suffix, keep):
    path = tmp_path / f"t.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_one_flipped_bit_in_png_pixels_is_noticed(tmp_path):
    path = tmp_path / "t.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)


def test_empty_missing_and_foreign_files(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("not an image at all, but long enough to look at")
    with pytest.raises(DataError, match="not recognised"):
        read_image(tmp_path / "text.png")
    Image.new("L", (16, 16)).save(tmp_path / "b.png", format="BMP")
    with pytest.raises(DataError, match="BMP"):
        read_image(tmp_path / "b.png")


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    bomb = _png(tmp_path / "bomb.png", 60_000, 60_000, 8, 0, b"\x00" * 1000)
    with pytest.raises(DataError, match="pixels"):
        read_image(bomb)
    large = _png(tmp_path / "large.png", 10_000, 10_000, 8, 0, b"\x00" * 1000)  # Pillow only warns about this one
    with pytest.raises(DataError, match="pixels"):
        read_image(large)
    Image.new("L", (64, 64)).save(tmp_path / "ok.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="1000 pixels"):
        read_image(tmp_path / "ok.png")


def test_several_pictures_in_one_png_are_refused(tmp_path):
    Image.new("L", (16, 16), 1).save(tmp_path / "a.png", save_all=True, append_images=[Image.new("L", (16, 16), 2)])
    with pytest.raises(DataError, match="2 pictures"):
        read_image(tmp_path / "a.png")


def test_one_bit_png(tmp_path):
    Image.fromarray(np.eye(16, dtype=bool)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[0], np.eye(16))
