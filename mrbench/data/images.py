"""PNG, JPEG and TIFF images with the values that are stored in them.

Never ``Image.convert("L")``: on 16-bit images it saturates at 255. Pixels go from Pillow to float32 arrays directly.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, ImageSequence, TiffImagePlugin

from mrbench.data.checks import check_size
from mrbench.data.sniffing import IMAGES, NOT_TAKEN, Kind, sniff
from mrbench.errors import DataError

#: Largest picture in pixels (8192 x 8192); larger ones are taken for decompression bombs.
MAX_PIXELS = 2**26

_FORMATS: dict[Kind, str] = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF"}
_GREY = {"1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_SAVE_GREY = "Save it as a grey PNG or TIFF (8 or 16 bits), or as .npy."


def read_image(path: Path) -> NDArray[np.float32]:
    """Read one picture.

    Values are returned as stored (8 or 16 bits, 32-bit integers or floats of TIFF), never rescaled; 1-bit pictures as 0 and
    1, 2- and 4-bit PNG and TIFF on the 0..255 scale of their format. EXIF orientation is honoured, palettes are looked up,
    a fully opaque alpha channel is dropped. Colour pictures whose three channels are equal in *every* pixel are grey and
    give one channel (a grey JPEG stored as colour decodes to exactly equal channels, so there is no tolerance for it).

    Returns
    -------
    ``[C, H, W]``, C = 1 (grey) or 3 (red, green, blue).

    Raises
    ------
    DataError : not a PNG, JPEG or TIFF file, truncated or damaged, several pages, transparent pixels, CMYK and other colour
        spaces, 16-bit colour (Pillow would drop 8 of the bits), more than :data:`MAX_PIXELS` pixels.
    """
    pages = read_pages(path)
    if pages.shape[1] != 1:
        raise DataError(
            path, f"it holds {pages.shape[1]} pages, expected one picture.", "Use it as a volume, or keep one page."
        )
    return pages[:, 0]


def read_pages(path: Path) -> NDArray[np.float32]:
    """Read all pages of a multi-page TIFF (or the one picture of any other file): ``[C, pages, H, W]``.

    Raises
    ------
    DataError : as :func:`read_image`; pages of different size or channels; several pictures in a PNG or JPEG.
    """
    path = Path(path)
    kind = sniff(path)
    if kind not in IMAGES:
        reason, fix = NOT_TAKEN.get(kind, (f"it is a {kind} file, not a picture.", "Expected PNG, JPEG or TIFF."))
        raise DataError(path, reason, fix)
    return _decoded(path, kind, path.read_bytes())


def decode_jpeg(name: Path, data: bytes) -> NDArray[np.float32]:
    """One JPEG picture from its bytes (of an archive's member, for instance): ``[C, H, W]`` as :func:`read_image` gives it.

    Parameters
    ----------
    name : named in errors.

    Raises
    ------
    DataError : not a JPEG file, or as :func:`read_image`.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        raise DataError(name, "it is not a JPEG file.", "It is damaged: fetch it again.")
    return _decoded(name, "jpeg", data)[:, 0]


def _decoded(path: Path, kind: Kind, data: bytes) -> NDArray[np.float32]:
    try:
        if kind == "png":
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                image.verify()  # checksums of all chunks; loading alone does not look at those of the pixels
        with Image.open(io.BytesIO(data), formats=[_FORMATS[kind]]) as image:
            return _pages(path, kind, data, image)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise DataError(
            path,
            f"it cannot be decoded: {str(error).rstrip('.') or type(error).__name__}.",
            "It is damaged or truncated: fetch it again.",
        ) from error


def _too_large(path: Path) -> DataError:
    return DataError(path, f"it declares more than {MAX_PIXELS} pixels.", "If it is a real image, cut it into tiles.")


def _pages(path: Path, kind: Kind, data: bytes, image: Image.Image) -> NDArray[np.float32]:
    count = getattr(image, "n_frames", 1)
    if count > 1 and kind != "tiff":
        raise DataError(path, f"it holds {count} pictures in one {kind.upper()} file.", "Save the one that is meant.")
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path)
    check_size(path, count * image.width * image.height)
    if kind == "png":
        _check_png(path, data)
    pages: list[NDArray[np.float32]] = []
    for frame in ImageSequence.Iterator(image):
        where = f"page {len(pages) + 1}: " if count > 1 else ""
        page = _page(path, frame, where)
        if pages and page.shape != pages[0].shape:
            raise DataError(
                path, f"{where}channels, rows and columns {page.shape} differ from those of the first page {pages[0].shape}.",
                "Save pages of one size only.",
            )  # fmt: skip
        pages.append(page)
    return np.stack(pages, axis=1)


def _check_png(path: Path, data: bytes) -> None:
    depth, colour = data[24], data[25]  # of the IHDR chunk, always the first
    if depth == 16 and colour != 0:
        raise DataError(path, "it is a 16-bit PNG with colour or alpha, of which only 8 bits could be read.", _SAVE_GREY)


def _page(path: Path, frame: Image.Image, where: str) -> NDArray[np.float32]:
    fix_dtype = _tiff_dtype(path, frame, where) if isinstance(frame, TiffImagePlugin.TiffImageFile) else None
    frame.load()
    picture = ImageOps.exif_transpose(frame) if frame.getexif().get(ExifTags.Base.Orientation, 1) != 1 else frame
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if picture.mode == "PA" or "transparency" in picture.info else "RGB")
    array = np.asarray(picture)
    if picture.mode in ("LA", "RGBA", "La", "RGBa"):
        if array[..., -1].min() != 255:
            raise DataError(path, f"{where}it has transparent pixels.", "Save it without an alpha channel.")
        array = array[..., 0] if picture.mode in ("LA", "La") else array[..., :3]
    elif picture.mode in _GREY or picture.mode == "RGB":
        _check_key_colour(path, picture, array, where)
    else:
        raise DataError(path, f"{where}its colour space {picture.mode} is not taken.", _SAVE_GREY)
    if fix_dtype is not None:
        array = array.view(fix_dtype)
    if array.ndim == 3:
        if np.array_equal(array[..., 0], array[..., 1]) and np.array_equal(array[..., 0], array[..., 2]):
            array = array[..., 0]
        else:
            return np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32)
    return np.ascontiguousarray(array[None], dtype=np.float32)


def _check_key_colour(path: Path, picture: Image.Image, array: NDArray[np.generic], where: str) -> None:
    """A PNG may call one grey value or colour transparent (chunk tRNS)."""
    key = picture.info.get("transparency")
    if key is None or isinstance(key, bytes):
        return
    equal = array == np.asarray(key)
    if (equal.all(axis=-1) if array.ndim == 3 else equal).any():
        raise DataError(path, f"{where}it has transparent pixels (those of value {key}).", "Save it without transparency.")


def _tiff_dtype(path: Path, frame: TiffImagePlugin.TiffImageFile, where: str) -> type[np.generic] | None:
    """Refuse TIFF layouts that Pillow changes silently; name the type of those that it reads under another one."""
    tags = frame.tag_v2
    bits = tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    sample_formats = tuple(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))
    if len(bits) > 1 and max(bits) > 8:
        raise DataError(
            path, f"{where}it has {len(bits)} channels of {max(bits)} bits, of which only 8 could be read.", _SAVE_GREY
        )
    if 0 in tuple(tags.get(TiffImagePlugin.EXTRASAMPLES, ())):
        raise DataError(path, f"{where}it has channels without a meaning (extra samples).", _SAVE_GREY)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 and bits[0] > 8:
        raise DataError(
            path, f"{where}white is stored as zero with {bits[0]} bits, which is not taken.", "Save it with black as zero."
        )
    if bits == (8,) and sample_formats == (2,):
        return np.int8
    if bits == (32,) and sample_formats == (1,):
        return np.uint32
    return None
