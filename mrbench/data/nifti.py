"""NIfTI-1, NIfTI-2 and Analyze 7.5 volumes through nibabel, with strict rules about orientation."""

from __future__ import annotations

import gzip
import io
import logging
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrbench.data.checks import check_size
from mrbench.data.records import Volume
from mrbench.data.sniffing import NIFTI_LIKE, NOT_TAKEN, Kind, sniff
from mrbench.errors import DataError, UserError

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by the code of the unit of length: unknown, metre, millimetre, micrometre
_AXES = {"R": (0, 1.0), "L": (0, -1.0), "A": (1, 1.0), "P": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0)}
_ORIENT = 252  # offset of Analyze's byte data_history.orient
#: Where the stored axes run to for each value of that byte: transverse, coronal, sagittal, each unflipped and flipped. 0 is
#: what programs write that know nothing of it, so it says nothing.
_ANALYZE_AXES = {1: "LSA", 2: "ASL", 3: "LPS", 4: "LIA", 5: "AIL"}
_SLACK = 2**20  # bytes of header extensions and padding that a file may hold beside its voxels
_LONGEST_HEADER = 540  # of NIfTI-2
_LARGEST_OFFSET = 2**30


def read_nifti(path: Path, volume_index: int | None = None, assume_axcodes: str | None = None) -> Volume:
    """Read a NIfTI or Analyze volume (``.nii``, ``.nii.gz``, or either file of a ``.hdr`` + ``.img`` pair).

    Values are float32 after the header's slope and intercept (slope 0 or not finite: none). The three axes stay as stored;
    the affine maps voxel indices to RAS millimetres: the sform if its code is > 0, else the qform if its code is > 0.
    Trailing axes of length 1 are dropped; complex files give two channels (real, imaginary). Lengths without a unit are
    taken as millimetres. Voxel sizes are the lengths of the affine's columns.

    Parameters
    ----------
    path : file.
    volume_index : which volume of a 4-D file, from 0.
    assume_axcodes : directions in which the stored axes run, e.g. ``"LAS"``; used only for NIfTI files whose header says
        nothing about orientation (both codes 0), and for all Analyze files, whose one byte about it (see
        :func:`stated_axcodes`) is used where nothing is assumed.

    Raises
    ------
    DataError : not such a file, truncated or damaged, no orientation, 4-D without ``volume_index``, RGB voxels.
    UserError : ``assume_axcodes`` is not made of one letter each of R/L, A/P and S/I.
    """
    path = Path(path)
    image = _open(path)
    values = _values(path, image, volume_index)
    affine, voxel = _geometry(path, image, assume_axcodes)
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, which check_volume refuses
        if np.iscomplexobj(values):
            array = np.stack([values.real, values.imag]).astype(np.float32, copy=False)
        else:
            array = values.astype(np.float32)[None]
    return Volume(array, voxel, affine)


def stated_axcodes(path: Path) -> str:
    """Where the stored axes run to by the header, e.g. ``"LAS"``, or the empty string where it does not say. No voxels are read.

    NIfTI: by the sform if its code is > 0, else the qform if its code is > 0 (oblique axes by the nearest direction). Analyze:
    by the byte ``orient`` (Mayo Clinic, Analyze 7.5 file format, ``data_history``), which nibabel does not look at: 1 coronal, 2
    sagittal, 4 and 5 these flipped, 3 transverse flipped; 0 (transverse unflipped) is also what most programs leave there, so
    it counts as not said.

    Parameters
    ----------
    path : the file, or either file of a pair.

    Raises
    ------
    DataError : not such a file, damaged, or half of the pair is missing.
    """
    from nibabel.orientations import aff2axcodes

    file = nifti_files(path)[0]
    kind = sniff(file)
    if kind not in NIFTI_LIKE:
        reason, fix = NOT_TAKEN.get(kind, (f"it is a {kind} file, not NIfTI.", ""))
        raise DataError(file, reason, fix)
    try:
        start = _unpack(file, _LONGEST_HEADER, to_the_end=False)
        if kind == "analyze":
            return _ANALYZE_AXES.get(start[_ORIENT], "") if len(start) > _ORIENT else ""
        header_class = _image_class(kind, start).header_class
        with _quiet():
            affine = _affine(header_class(start[: header_class.template_dtype.itemsize], check=True))
        codes: tuple[str | None, ...] = () if affine is None else aff2axcodes(affine)  # type: ignore[no-untyped-call]
        return "".join(code or "?" for code in codes)
    except Exception as error:  # nibabel and zlib raise many kinds of errors on damaged files
        raise _damaged(path, error) from error


def is_pair_image(path: Path) -> bool:
    """Whether a file is the voxel half of a ``.hdr`` + ``.img`` pair: it has no magic bytes of its own, its header does."""
    path = Path(path)
    suffix = _pair_suffix(path)
    if not suffix.startswith(".img"):
        return False
    header = _half(path, suffix, ".hdr")
    return header is not None and sniff(header) in NIFTI_LIKE


def nifti_files(path: Path) -> tuple[Path, ...]:
    """The files that make up a volume: the file itself, or header and image of a pair (in this order).

    Raises
    ------
    DataError : one half of a pair is missing.
    """
    path = Path(path)
    suffix = _pair_suffix(path)
    if not suffix:
        if sniff(path) in ("nifti_pair", "analyze"):
            raise DataError(path, "it is the header of a .hdr + .img pair, under another name.", "Rename it to .hdr.")
        return (path,)
    header, pixels = (path if suffix.startswith(half) else _half(path, suffix, half) for half in (".hdr", ".img"))
    if header is None or pixels is None:
        missing = ".hdr" if header is None else ".img"
        raise DataError(path, f"its {missing} file is missing: header and image are a pair.", "Put both into one folder.")
    return header, pixels


def _pair_suffix(path: Path) -> str:
    return next((s for s in (".hdr", ".img", ".hdr.gz", ".img.gz") if path.name.lower().endswith(s)), "")


def _half(path: Path, suffix: str, wanted: str) -> Path | None:
    """The other file of a pair: same stem, in the same or the other case, plain or gzipped."""
    stem = path.name[: -len(suffix)]
    names = (stem + wanted, stem + wanted + ".gz", stem + wanted.upper(), stem + wanted.upper() + ".GZ")
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def check_axcodes(codes: str) -> str:
    """``codes`` in upper case.

    Raises
    ------
    UserError : it is not made of one letter each of R/L, A/P and S/I.
    """
    letters = codes.upper()
    if len(letters) != 3 or any(c not in _AXES for c in letters) or {_AXES[c][0] for c in letters} != {0, 1, 2}:
        raise UserError(
            f"assume_axcodes={codes!r}: expected three letters, one each of R/L, A/P and S/I, that say where the stored axes "
            "run to, for instance LAS."
        )
    return letters


def _open(path: Path) -> SpatialImage:
    from nibabel.fileholders import FileHolder

    files = nifti_files(path)
    kind = sniff(files[0])
    if kind not in NIFTI_LIKE:
        reason, fix = NOT_TAKEN.get(kind, (f"it is a {kind} file, not NIfTI.", ""))
        raise DataError(files[0], reason, fix)
    try:
        start = _unpack(files[0], _LONGEST_HEADER, to_the_end=False)
        image_class = _image_class(kind, start)
        with _quiet():
            header = image_class.header_class(start[: image_class.header_class.template_dtype.itemsize], check=True)
        count = int(np.prod([int(n) for n in header.get_data_shape()], dtype=object)) if header.get_data_shape() else 0
        if count <= 0:
            raise DataError(path, f"its header gives the shape {tuple(header.get_data_shape())}.", "The header is damaged.")
        check_size(path, count)
        offset = int(header.get_data_offset())
        if not 0 <= offset <= _LARGEST_OFFSET:
            raise DataError(path, f"its header says that the voxels start at byte {offset}.", "The header is damaged.")
        limit = offset + count * header.get_data_dtype().itemsize + _SLACK
        holders = [FileHolder(fileobj=io.BytesIO(_unpack(file, limit, to_the_end=True))) for file in files]
        no_matrix = FileHolder(fileobj=io.BytesIO(b""))  # SPM's .mat file beside an Analyze pair is not looked for
        with _quiet():
            image: SpatialImage = image_class.from_file_map({"header": holders[0], "image": holders[-1], "mat": no_matrix})
        return image
    except DataError:
        raise
    except Exception as error:  # nibabel and zlib raise many kinds of errors on damaged files
        raise _damaged(path, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what nibabel repairs in headers (negative voxel sizes of Analyze, for instance) out of this thread's log."""
    thread = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("nibabel.global")
    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)


def _image_class(kind: Kind, start: bytes) -> Any:
    """nibabel's class for the format that ``start``, the first bytes, belong to."""
    from nibabel.nifti1 import Nifti1Image, Nifti1Pair
    from nibabel.nifti2 import Nifti2Image, Nifti2Pair
    from nibabel.spm2analyze import Spm2AnalyzeImage

    if kind == "analyze":
        return Spm2AnalyzeImage
    second = start[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # 540
    if kind == "nifti":
        return Nifti2Image if second else Nifti1Image
    return Nifti2Pair if second else Nifti1Pair


def _unpack(file: Path, limit: int, to_the_end: bool) -> bytes:
    """At most ``limit`` bytes of a file, through gzip. Reading to the end also verifies gzip's checksum."""
    with file.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(file) if packed else file.open("rb") as stream:
        data = stream.read(limit)
        if to_the_end and stream.read(1):
            raise DataError(file, f"it holds more than the {limit} bytes that its header declares.", "The header is damaged.")
    return data


def _damaged(path: Path, error: Exception) -> DataError:
    truncated = isinstance(error, EOFError | zlib.error) or "Expected" in str(error)
    what = "it is truncated or damaged" if truncated else "it cannot be read"
    return DataError(path, f"{what}: {str(error).rstrip('.') or type(error).__name__}.", "Fetch or export it again.")


def _values(path: Path, image: SpatialImage, volume_index: int | None) -> NDArray[Any]:
    dtype = image.get_data_dtype()
    if dtype.fields is not None:
        raise DataError(path, f"its voxels are colours ({', '.join(dtype.names or ())}).", "Convert it to scalar values.")
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4:
        raise DataError(path, f"it has {len(shape)} dimensions {shape}.", "Extract the 3-D volume that is meant.")
    if len(shape) == 4 and volume_index is None:
        raise DataError(
            path, f"it is 4-D {shape}: {shape[3]} volumes.", f"Choose one with the option volume_index=0..{shape[3] - 1}."
        )
    volumes = shape[3] if len(shape) == 4 else 1
    index = volume_index or 0
    if not 0 <= index < volumes:
        raise DataError(path, f"volume_index={index}, but it holds {volumes} volume(s).", f"Use 0..{volumes - 1}.")
    try:
        data = image.dataobj
        values = np.asanyarray(data[..., index] if len(shape) == 4 and len(image.shape) == 4 else data)
    except Exception as error:
        raise _damaged(path, error) from error
    if values.ndim != 3:
        values = values.reshape(shape)[..., index] if len(shape) == 4 else values.reshape(shape + (1,) * (3 - len(shape)))
    return values


def _geometry(path: Path, image: SpatialImage, assumed: str | None) -> tuple[NDArray[np.float64], tuple[float, float, float]]:
    header: Any = image.header
    try:
        affine = _affine(header)
    except Exception as error:
        raise DataError(path, f"its orientation cannot be read: {error}.", "Repair the header.") from error
    if affine is None:
        assumed = assumed or ("" if "sform_code" in header else stated_axcodes(path))
        if not assumed:
            raise DataError(
                path, "its header says nothing about orientation"
                f"{' (sform and qform codes are 0)' if 'sform_code' in header else ' (Analyze)'}.",
                "If you know it, say where the stored axes run to with the option assume_axcodes, e.g. assume_axcodes=LAS.",
            )  # fmt: skip
        return _assumed(path, image, check_axcodes(assumed))
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= _millimetres(path, header)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return affine, (float(lengths[0]), float(lengths[1]), float(lengths[2]))


def _affine(header: Any) -> NDArray[np.float64] | None:
    """The sform if its code is > 0, else the qform if its code is > 0."""
    codes = [int(header[name]) if name in header else 0 for name in ("sform_code", "qform_code")]
    return header.get_sform() if codes[0] > 0 else header.get_qform() if codes[1] > 0 else None


def _millimetres(path: Path, header: Any) -> float:
    """Length of the header's unit: the lower three bits of ``xyzt_units``. Those of time do not matter here."""
    code = int(header["xyzt_units"]) & 7 if "xyzt_units" in header else 0
    if code not in _MM:
        raise DataError(path, f"its header has the unit of length {code}, which does not exist.", "The header is damaged.")
    return _MM[code]


def _assumed(path: Path, image: SpatialImage, codes: str) -> tuple[NDArray[np.float64], tuple[float, float, float]]:
    header: Any = image.header
    unit = _millimetres(path, header)
    zooms = [abs(float(z)) * unit for z in header.get_zooms()[:3]]
    zooms += [0.0] * (3 - len(zooms))
    voxel = [z if np.isfinite(z) and z > 0 else float("nan") for z in zooms]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (code, size) in enumerate(zip(codes, voxel, strict=True)):
        row, sign = _AXES[code]
        affine[row, axis] = sign * (1.0 if np.isnan(size) else size)
    return affine, (voxel[0], voxel[1], voxel[2])
