"""What the header of a DICOM file says about each of its images. No pixels are read, and no name of a person.

Only the elements listed here leave the file; errors never quote a header's text.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrbench.data.checks import check_size
from mrbench.data.dicom_magic import is_dicom
from mrbench.data.sniffing import start_of
from mrbench.errors import DataError

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"
_IMAGE_GROUP = 0x0028
_MOST_FRAMES = 2**16
_LARGE = 2**16  # bytes
_LONGEST_NAME = 64  # characters of a long string (PS3.5, table 6.2-1)
_CODES = re.compile(r"[A-Z0-9_ ]{1,16}(\\[A-Z0-9_ ]{0,16})*")

# PS3.6, chapter 6: the elements that are read
_TAGS = {
    "ImageType": 0x00080008, "SOPInstanceUID": 0x00080018, "Modality": 0x00080060, "SeriesDescription": 0x0008103E, "PatientID": 0x00100020, "ScanningSequence": 0x00180020,
    "SliceThickness": 0x00180050,
    "RepetitionTime": 0x00180080, "EchoTime": 0x00180081, "MagneticFieldStrength": 0x00180087, "DiffusionBValue": 0x00189087,
    "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E, "SeriesNumber": 0x00200011,
    "ImagePositionPatient": 0x00200032, "ImageOrientationPatient": 0x00200037, "TemporalPositionIdentifier": 0x00200100,
    "SamplesPerPixel": 0x00280002, "PhotometricInterpretation": 0x00280004, "NumberOfFrames": 0x00280008, "Rows": 0x00280010,
    "Columns": 0x00280011, "PixelSpacing": 0x00280030, "BitsAllocated": 0x00280100, "BitsStored": 0x00280101,
    "PixelRepresentation": 0x00280103, "RescaleIntercept": 0x00281052, "RescaleSlope": 0x00281053,
    "EchoPlanarPulseSequence": 0x00189018, "FrameType": 0x00089007, "EffectiveEchoTime": 0x00189082, "StackID": 0x00209056, "TemporalPositionIndex": 0x00209128,
}  # fmt: skip
_SHARED, _PER_FRAME = 0x52009229, 0x52009230


@dataclass(frozen=True)
class SliceHeader:
    """One image (a file, or a frame of one) as its header describes it. What it does not say is ``None``, ``""`` or 0.

    file, frame, frames : where its pixels are; ``frames`` is the number of frames in the file.
    transfer_syntax : UID; for files without file meta information the one that their encoding amounts to.
    patient, study, series, image : PatientID as it is, and the UIDs of study, series and image.
    position, orientation : mm and direction cosines in the patient's LPS axes (PS3.3, C.7.6.2.1.1): the centre of the first
        pixel; the direction of a row, then that of a column.
    spacing : mm between rows and between columns. ``thickness``: mm, of the slice itself.
    sequence : what ScanningSequence says, e.g. ``SE``, ``EP``.
    echo_time, repetition_time : ms. ``field_strength``: tesla. ``b_value``: s/mm2.
    slope, intercept : value = slope * stored + intercept (``nan``: stated, and no number). ``inverted``: MONOCHROME1, low values are bright.
    stack : label of the stack in a multi-frame file. ``temporal``: of the time point.
    placed : False for frames of a file that has several and does not say where they lie (no functional groups).
    """

    file: Path
    frame: int = 0
    frames: int = 1
    transfer_syntax: str = ""
    modality: str = ""
    patient: str = ""
    study: str = ""
    series: str = ""
    image: str = ""
    number: int | None = None
    description: str = ""
    image_type: str = ""
    sequence: str = ""
    rows: int = 0
    columns: int = 0
    samples: int = 1
    photometric: str = ""
    bits: int = 0
    bits_stored: int = 0
    signed: bool = False
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    echo_time: float | None = None
    repetition_time: float | None = None
    field_strength: float | None = None
    b_value: float | None = None
    temporal: str = ""
    stack: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    placed: bool = True

    @property
    def inverted(self) -> bool:
        """Whether low values are shown bright."""
        return self.photometric == "MONOCHROME1"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings and log: they quote values of the header, and what matters becomes a ``DataError``."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class Bounded(io.BufferedReader):
    """A file whose damaged lengths allocate no memory: no read asks for more than there is."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes, as any file."""
        if size is not None and size > _LARGE:
            size = min(size, max(0, self._size - self.tell()))
        return super().read(size)


def read_headers(path: Path) -> tuple[SliceHeader, ...]:
    """The header of every image in a DICOM file: one, or one a frame of an enhanced multi-frame file, in stored order.

    Files without preamble or file meta information, of any byte order, with implicit or explicit value representations are
    read. Files are judged by their content: nothing that does not look like DICOM is parsed.

    Raises
    ------
    DataError : not DICOM, a DICOMDIR, deflated, or a header that is cut off or damaged.
    """
    path = Path(path)
    start = start_of(path, 1024)
    if not is_dicom(start):
        raise DataError(path, "it is not a DICOM file.", "Leave it out, or export it again.")
    if _DEFLATED in start:
        raise DataError(path, "it is a deflated DICOM file, which is not taken.", "Store it uncompressed.")
    try:
        with quiet():
            return _headers(path, forced=start[128:132] != b"DICM")
    except DataError:
        raise
    except Exception as error:  # pydicom raises many kinds of errors on damaged files; their texts may quote the header
        raise DataError(
            path, f"its DICOM header cannot be read ({type(error).__name__}): it is cut off or damaged.",
            "Fetch or export it again.",
        ) from None  # fmt: skip


def _headers(path: Path, forced: bool) -> tuple[SliceHeader, ...]:
    from pydicom.filereader import dcmread, read_partial

    tags: list[Any] = list(_TAGS.values())
    with Bounded(path) as file:
        dataset: Any = read_partial(file, stop_when=_past_image_group, force=forced, specific_tags=tags)
        values = _Values(dataset)
        frames = values.integer("NumberOfFrames")
        if frames is not None and frames > 1:
            file.seek(0)
            with_groups = [*tags, _SHARED, _PER_FRAME]
            dataset = dcmread(file, stop_before_pixels=True, force=forced, specific_tags=with_groups)
            values = _Values(dataset)
    if str(getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
        raise DataError(path, "it is a DICOMDIR, a list of other files.", "Leave it out.")
    shown = _shown(path, dataset, values)
    if not (shown["modality"] or shown["series"] or shown["rows"]):
        raise DataError(path, "it is a DICOM file without an image, or its header is damaged.", "Leave it out.")
    if frames is None or frames <= 1:
        return (SliceHeader(**shown, **_placement(values, values, values, values)),)
    check_size(path, frames * max(1, shown["rows"]) * max(1, shown["columns"]))
    per_frame = dataset.get(_PER_FRAME)
    if per_frame is None or frames > _MOST_FRAMES:
        return (SliceHeader(**shown, frames=frames, placed=False),)
    items, shared = per_frame.value, dataset.get(_SHARED)
    if len(items) != frames:
        raise DataError(
            path, f"it says that it has {frames} frames, but describes {len(items)} (functional groups).", "Export it again."
        )
    common = shared.value[0] if shared is not None and len(shared.value) else None
    return tuple(_frame(shown, values, item, common, index, frames) for index, item in enumerate(items))


def _past_image_group(tag: Any, value_representation: str | None, length: int) -> bool:
    return int(tag) >> 16 > _IMAGE_GROUP


def _shown(path: Path, dataset: Any, values: _Values) -> dict[str, Any]:
    """What all frames of a file have in common."""
    return {
        "file": path,
        "transfer_syntax": _transfer_syntax(dataset),
        "modality": values.code("Modality"),
        "patient": values.name("PatientID"),
        "study": values.text("StudyInstanceUID"),
        "series": values.text("SeriesInstanceUID"),
        "image": values.text("SOPInstanceUID"),
        "number": values.integer("SeriesNumber"),
        "description": values.text("SeriesDescription"),
        "rows": values.unsigned("Rows") or 0,
        "columns": values.unsigned("Columns") or 0,
        "samples": values.unsigned("SamplesPerPixel") or 1,
        "photometric": values.code("PhotometricInterpretation"),
        "bits": values.unsigned("BitsAllocated") or 0,
        "bits_stored": values.unsigned("BitsStored") or 0,
        "signed": values.unsigned("PixelRepresentation") == 1,
        "field_strength": values.number("MagneticFieldStrength"),
        "sequence": values.code("ScanningSequence") or ("EP" if values.code("EchoPlanarPulseSequence") == "YES" else ""),
    }


def _placement(position: _Values, plane: _Values, measures: _Values, rest: _Values) -> dict[str, Any]:
    return {
        "image_type": rest.text("ImageType"),
        "position": position.numbers("ImagePositionPatient", 3),
        "orientation": plane.numbers("ImageOrientationPatient", 6),
        "spacing": measures.numbers("PixelSpacing", 2),
        "thickness": measures.number("SliceThickness"),
        "echo_time": rest.number("EchoTime"),
        "repetition_time": rest.number("RepetitionTime"),
        "b_value": rest.double("DiffusionBValue"),
        "temporal": rest.text("TemporalPositionIdentifier"),
        "slope": rest.rescale("RescaleSlope", 1.0),
        "intercept": rest.rescale("RescaleIntercept", 0.0),
    }


def _frame(shown: dict[str, Any], top: _Values, item: Any, shared: Any, index: int, frames: int) -> SliceHeader:
    """One frame: its own functional group goes before the shared one (PS3.3, C.7.6.16)."""

    def group(keyword: str) -> _Values:
        for source in (item, shared):
            sequence = source.get(keyword) if source is not None else None
            if sequence:
                return _Values(sequence[0])
        return _Values(None)

    rescale, content = group("PixelValueTransformationSequence"), group("FrameContentSequence")
    timing = group("MRTimingAndRelatedParametersSequence")
    own = _placement(
        group("PlanePositionSequence"),
        group("PlaneOrientationSequence"),
        group("PixelMeasuresSequence"),
        rescale if rescale.any("RescaleSlope", "RescaleIntercept") else top,
    )
    own |= {
        "image_type": group("MRImageFrameTypeSequence").text("FrameType") or top.text("ImageType"),
        "echo_time": group("MREchoSequence").double("EffectiveEchoTime"),
        "repetition_time": timing.number("RepetitionTime"),
        "b_value": group("MRDiffusionSequence").double("DiffusionBValue"),
        "temporal": str(content.long("TemporalPositionIndex") or ""),
        "stack": content.text("StackID"),
    }
    return SliceHeader(**shown, **own, frame=index, frames=frames)


def _transfer_syntax(dataset: Any) -> str:
    stated = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or "")
    if stated:
        return stated
    implicit, little = dataset.original_encoding
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


class _Values:
    """Elements of a data set, decoded here from their stored bytes; what is missing or malformed is ``None`` or empty."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def text(self, keyword: str) -> str:
        value, _ = self._stored(keyword)
        try:
            decoded = value.decode("utf-8")
        except UnicodeDecodeError:
            decoded = value.decode("latin-1")
        return decoded.strip(" \0\r\n\t")

    def name(self, keyword: str) -> str:
        """A long string (LO). One that is too long or not plain text is damaged, and might hold what stands beside it."""
        text = self.text(keyword)
        return text if len(text) <= _LONGEST_NAME and text.isprintable() else ""

    def code(self, keyword: str) -> str:
        """Code strings (CS)."""
        text = self.text(keyword)
        return text if _CODES.fullmatch(text) else ""

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Decimal strings (DS), finite."""
        value, _ = self._stored(keyword)
        try:
            numbers = tuple(float(part.strip(b" \0")) for part in value.split(b"\\"))
        except ValueError:
            return None
        return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None

    def number(self, keyword: str) -> float | None:
        numbers = self.numbers(keyword, 1)
        return None if numbers is None else numbers[0]

    def integer(self, keyword: str) -> int | None:
        value, _ = self._stored(keyword)
        try:
            return int(value.strip(b" \0"))
        except ValueError:
            return None

    def unsigned(self, keyword: str) -> int | None:
        number: int | None = self._binary(keyword, "H")
        return number

    def long(self, keyword: str) -> int | None:
        number: int | None = self._binary(keyword, "I")
        return number

    def double(self, keyword: str) -> float | None:
        number: float | None = self._binary(keyword, "d")
        return number if number is not None and math.isfinite(number) else None

    def any(self, *keywords: str) -> bool:
        return any(self._stored(keyword)[0] for keyword in keywords)

    def rescale(self, keyword: str, missing: float) -> float:
        """A factor of the pixel values: ``nan`` where it is there and is no number."""
        number = self.number(keyword)
        return number if number is not None else math.nan if self.any(keyword) else missing

    def _binary(self, keyword: str, code: str) -> Any:
        value, order = self._stored(keyword)
        return struct.unpack(order + code, value)[0] if len(value) == struct.calcsize(order + code) else None

    def _stored(self, keyword: str) -> tuple[bytes, str]:
        """The bytes of an element, and their order."""
        if self._dataset is None or _TAGS[keyword] not in self._dataset:
            return b"", "<"
        element = self._dataset.get_item(_TAGS[keyword])
        value = getattr(element, "value", None)
        return (value if isinstance(value, bytes) else b""), "<" if getattr(element, "is_little_endian", True) else ">"
