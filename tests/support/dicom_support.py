"""Small DICOM files in the true format, written with pydicom."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
STUDY, SERIES = "1.2.3.4", "1.2.3.4.5"

#: Rows run right to left, columns front to back tilted by 20 degrees, in LPS: an oblique axial plane.
OBLIQUE = (1.0, 0.0, 0.0, 0.0, float(np.cos(np.pi / 9)), float(-np.sin(np.pi / 9)))


def normal_of(orientation: tuple[float, ...] = OBLIQUE) -> NDArray[np.float64]:
    """Cross product of row and column direction."""
    return np.cross(orientation[:3], orientation[3:])


def phantom(slices: int = 12, rows: int = 20, columns: int = 24) -> NDArray[np.uint16]:
    """``[S, R, C]`` with a bright corner: no two voxels near each other are equal, so a flip or a swap shows."""
    values = np.arange(slices * rows * columns, dtype=np.uint16).reshape(slices, rows, columns) % 3000
    values[:, : rows // 4, : columns // 4] += 900
    return values


def image(pixels: NDArray[Any], **changes: Any) -> FileDataset:
    """One MR image; ``changes`` set (or, with ``None``, remove) elements."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MR
    meta.MediaStorageSOPInstanceUID = "1.2.3.9"
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    values: dict[str, Any] = {
        "SOPClassUID": MR, "SOPInstanceUID": "1.2.3.9", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "Modality": "MR",
        "SeriesDescription": "t2_tse_tra", "PatientName": "Doe^Secret", "PatientID": "P-1", "ScanningSequence": "SE",
        "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SeriesNumber": 4, "InstanceNumber": 1, "SliceThickness": 9.0,
        "RepetitionTime": 2200.0, "EchoTime": 203.0, "MagneticFieldStrength": 3.0, "ImagePositionPatient": [0.0, 0.0, 0.0],
        "ImageOrientationPatient": list(OBLIQUE), "PixelSpacing": [0.5, 0.75], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "Rows": pixels.shape[-2], "Columns": pixels.shape[-1],
        "BitsAllocated": pixels.dtype.itemsize * 8, "BitsStored": pixels.dtype.itemsize * 8,
        "HighBit": pixels.dtype.itemsize * 8 - 1, "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }  # fmt: skip
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if pixels.dtype.itemsize > 1 and "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def series(pixels: NDArray[Any], step: float = 3.0, seed: int = 0, **changes: Any) -> list[FileDataset]:
    """One image a slice of ``[S, R, C]``, along the normal, with shuffled instance numbers (and no order to rely on)."""
    orientation = tuple(changes.get("ImageOrientationPatient", OBLIQUE))
    numbers = np.random.default_rng(seed).permutation(len(pixels)) + 1
    result = []
    for k, plane in enumerate(pixels):
        position = np.array([-50.0, -40.0, -30.0]) + k * step * normal_of(orientation)
        own = {
            "ImagePositionPatient": [round(float(x), 8) for x in position],
            "InstanceNumber": int(numbers[k]),
            "SOPInstanceUID": f"1.2.3.9.{seed}.{k}",
        }
        result.append(image(plane, **(own | changes)))
    return result


def enhanced(pixels: NDArray[Any], step: float = 3.0, seed: int = 1, slopes: NDArray[Any] | None = None) -> FileDataset:
    """An enhanced multi-frame file of ``[S, R, C]`` whose frames are in random order; the order is by ``seed``."""
    order = np.random.default_rng(seed).permutation(len(pixels))
    absent = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime", "RepetitionTime")
    dataset = image(pixels[order], SOPClassUID=ENHANCED_MR, NumberOfFrames=len(pixels), **dict.fromkeys(absent))
    dataset.SharedFunctionalGroupsSequence = DicomSequence(
        [
            _item(
                PlaneOrientationSequence=_item(ImageOrientationPatient=list(OBLIQUE)),
                PixelMeasuresSequence=_item(PixelSpacing=[0.5, 0.75], SliceThickness=9.0),
                MREchoSequence=_item(EffectiveEchoTime=203.0),
                MRTimingAndRelatedParametersSequence=_item(RepetitionTime=2200.0),
            )
        ]
    )
    frames = []
    for k in order:
        position = np.array([-50.0, -40.0, -30.0]) + k * step * normal_of()
        frame = _item(PlanePositionSequence=_item(ImagePositionPatient=[round(float(x), 8) for x in position]))
        if slopes is not None:
            rescale = _item(RescaleSlope=float(slopes[k]), RescaleIntercept=1.0, RescaleType="US")
            frame.PixelValueTransformationSequence = DicomSequence([rescale])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    return dataset


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, DicomSequence([value]) if isinstance(value, Dataset) else value)
    return item


def save(dataset: FileDataset, path: Path, kind: str = "explicit") -> Path:
    """Write a file: ``explicit``, ``implicit``, ``big`` (endian), ``rle``, ``bare`` (no preamble, no file meta information) or
    ``bare_implicit``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "rle":
            dataset.compress(RLELossless)
            dataset.save_as(path, enforce_file_format=True)
        elif kind in ("bare", "bare_implicit"):
            bare = Dataset(dict(dataset.items()))
            bare.save_as(path, implicit_vr=kind == "bare_implicit", little_endian=True, enforce_file_format=False)
        elif kind == "explicit":
            dataset.save_as(path, enforce_file_format=True)
        elif kind == "implicit":
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dataset.save_as(path, enforce_file_format=True)
        else:
            dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
            if dataset.BitsAllocated == 16:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    return path


def save_all(
    datasets: list[FileDataset], folder: Path, kind: str = "explicit", seed: int = 0, suffix: str = ".dcm"
) -> list[Path]:
    """Write the images of a series under names in random order; the paths are in the order of ``datasets``."""
    names = np.random.default_rng(seed + 7).permutation(len(datasets))
    return [save(d, folder / f"im{name:03d}{suffix}", kind) for d, name in zip(datasets, names, strict=True)]
