"""From DICOM headers to volumes: which images belong together, in which order, and where they lie."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mrbench.data.checks import check_size
from mrbench.data.dicom_header import SliceHeader
from mrbench.data.orientation import Display, display_of
from mrbench.errors import DataError

_SAME_DIRECTION = 1e-3  # of direction cosines: 0.06 degrees; localisers and radial series differ by far more
_SAME_PLACE = 0.01  # mm: two slices nearer than that lie at the same place
_UNEVEN = 0.1  # steps between slices may differ from their median by that fraction
_MISSING = 1.5  # a step longer than that times the median: a slice is missing
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_FIX = "Leave the series out, or repair it."
_PICTURES = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class Series:
    """Images that may form one volume: one SeriesInstanceUID, and within it one size, direction, echo, time point, b-value,
    stack and image type. ``part`` of ``parts``: a series that mixes several of them gives several."""

    slices: tuple[SliceHeader, ...]
    part: int = 1
    parts: int = 1

    @property
    def first(self) -> SliceHeader:
        """One of its slices, to speak for what they have in common."""
        return self.slices[0]

    @property
    def name(self) -> str:
        """A name that is stable and says nothing about the person: series number and a hash of the SeriesInstanceUID."""
        number = "" if self.first.number is None else f"{self.first.number:03d}-"
        digest = hashlib.sha256((self.first.series or self.first.file.name).encode()).hexdigest()[:8]
        return f"series{number}{digest}" + (f"-{self.part}" if self.parts > 1 else "")

    @property
    def subject(self) -> str:
        """PatientID as it is; without one, a hash of the StudyInstanceUID; without either, the empty string."""
        if self.first.patient:
            return self.first.patient
        return "study-" + hashlib.sha256(self.first.study.encode()).hexdigest()[:12] if self.first.study else ""

    @property
    def plane(self) -> str:
        """``axial``, ``coronal`` or ``sagittal``, whichever is closest; empty if the header does not say."""
        return display_alone(self.first).plane


@dataclass(frozen=True)
class Stack:
    """A series in order.

    slices : from the first to the last along the normal of the images (the cross product of row and column direction).
    affine : (column, row, slice) index to RAS mm; ``None`` for a single image and for one without geometry.
    voxel : mm along columns, rows and slices: the distance between slice centres, not the slices' thickness (``nan``: unknown).
    """

    slices: tuple[SliceHeader, ...]
    affine: NDArray[np.float64] | None
    voxel: tuple[float, float, float]

    @cached_property
    def spacing(self) -> float:
        """mm between slice centres; ``nan`` for a single image."""
        return self.voxel[2]


def group_series(headers: Iterable[SliceHeader]) -> list[Series]:
    """Group images into series, in the order in which each series first occurs.

    Images without a SeriesInstanceUID belong together if they are in one folder.
    """
    series: dict[tuple[str, ...], dict[tuple[str, ...], list[list[SliceHeader]]]] = {}
    for header in headers:
        name = (header.series,) if header.series else ("", str(header.file.parent))
        directions = series.setdefault(name, {}).setdefault(_kind(header), [])
        for group in directions:
            if _same_direction(group[0].orientation, header.orientation):
                group.append(header)
                break
        else:
            directions.append([header])
    result = []
    for kinds in series.values():
        groups = [group for _, directions in sorted(kinds.items()) for group in sorted(directions, key=_direction_key)]
        result += [Series(tuple(group), part, len(groups)) for part, group in enumerate(groups, 1)]
    return result


def arrange(series: Series) -> Stack:
    """Put a series in order and check that it is a volume.

    Raises
    ------
    DataError : what is wrong, in words: no image, colour, several frames that do not say where they lie, a mosaic; unlike
        pixel spacings; two images at one place; a missing slice; uneven steps; slices that are shifted against each other.
    """
    for header in series.slices:
        _check_image(header)
    first = series.first
    check_size(first.file, len(series.slices) * first.rows * first.columns)
    if len(series.slices) == 1:
        between_rows, between_columns = first.spacing or (math.nan, math.nan)
        return Stack(series.slices, None, (between_columns, between_rows, math.nan))
    spacing = _spacing(series.slices)
    for header in series.slices:
        if header.position is None or header.orientation is None:
            absent = "ImagePositionPatient" if header.position is None else "ImageOrientationPatient"
            raise DataError(header.file, f"it does not say where it lies ({absent} is missing or unreadable).", _FIX)
    assert first.orientation is not None
    if not _perpendicular(first.orientation):
        raise DataError(first.file, "its ImageOrientationPatient is not two perpendicular directions of length 1.", _FIX)
    row, column, normal = _directions(first.orientation)
    positions = np.array([header.position for header in series.slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, places = tuple(series.slices[k] for k in order), positions[order]
    _check_steps(slices, places @ normal)
    step = (places[-1] - places[0]) / (len(slices) - 1)
    _check_line(slices, places, step, normal, max(spacing))
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ np.stack([row * spacing[1], column * spacing[0], step], axis=1)
    affine[:3, 3] = _LPS_TO_RAS @ places[0]
    return Stack(slices, affine, (spacing[1], spacing[0], float(np.linalg.norm(step))))


def display_alone(header: SliceHeader) -> Display:
    """How a single image, as an array (column, row, slice), is shown: in its own plane. As stored if it says no directions."""
    if header.orientation is None or not _perpendicular(header.orientation):
        return Display(axes=(2, 1, 0))
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ np.stack(_directions(header.orientation), axis=1)
    return display_of(affine, (1.0, 1.0, 2.0), "native")


def _kind(header: SliceHeader) -> tuple[str, ...]:
    """Everything but the direction that one volume has in common, as text that sorts."""
    numbers = (header.rows, header.columns, header.echo_time or 0.0, header.b_value or 0.0)
    return (*(f"{number:012.2f}" for number in numbers), header.temporal.zfill(6), header.stack, header.image_type)


def _same_direction(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    if one is None or other is None:
        return one is other
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < _SAME_DIRECTION


def _direction_key(group: Sequence[SliceHeader]) -> tuple[float, ...]:
    """Orders the directions of a series in a way that does not depend on the order of the files."""
    directions = [header.orientation or () for header in group]
    return tuple(round(number, 2) for number in min(directions))


def _directions(orientation: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    return row, column, normal / np.linalg.norm(normal)


def _perpendicular(orientation: tuple[float, ...]) -> bool:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    return bool(abs(row @ column) < 0.01 and max(abs(length - 1) for length in lengths) < 0.01)


def _check_image(header: SliceHeader) -> None:
    problem = ""
    if not header.placed:
        problem = (
            f"it holds {header.frames} frames and no functional groups that say where each of them lies (enhanced multi-frame "
            "DICOM needs them)."
        )
    elif not (header.rows and header.columns and header.bits):
        problem = f"it is a DICOM file without an image{f' (modality {header.modality})' if header.modality else ''}."
    elif header.samples != 1 or header.photometric not in _PICTURES:
        problem = f"its image is {header.photometric or 'of an unknown kind'} with {header.samples} sample(s), not grey values."
    elif header.bits not in (8, 16, 32):
        problem = f"its values have {header.bits} bits; 8, 16 or 32 are possible."
    elif "MOSAIC" in header.image_type.upper().split("\\"):
        problem = "it is a mosaic: all slices tiled into one picture. Convert it (for instance with dcm2niix)."
    elif not (math.isfinite(header.slope) and math.isfinite(header.intercept)) or header.slope == 0:
        problem = "its RescaleSlope or RescaleIntercept is not a usable number."
    if problem:
        raise DataError(header.file, problem, "Leave it out.")


def _spacing(slices: Sequence[SliceHeader]) -> tuple[float, float]:
    first = slices[0]
    for header in slices:
        if header.spacing is None or min(header.spacing) <= 0:
            raise DataError(header.file, "it does not say how large its pixels are (PixelSpacing).", _FIX)
        assert first.spacing is not None
        if not np.allclose(header.spacing, first.spacing, rtol=1e-3, atol=0):
            raise DataError(
                header.file, f"its pixels are {_mm(header.spacing)} mm, those of {first.file.name} of the same series "
                f"{_mm(first.spacing)} mm (PixelSpacing).", _FIX,
            )  # fmt: skip
    assert first.spacing is not None
    return first.spacing[0], first.spacing[1]


def _check_steps(slices: Sequence[SliceHeader], heights: NDArray[np.float64]) -> None:
    """Heights along the normal, sorted: none twice, none missing, even steps."""
    steps = np.diff(heights)
    twice = np.flatnonzero(steps < _SAME_PLACE)
    if len(twice):
        one, other = slices[twice[0]], slices[twice[0] + 1]
        why = "they are copies of one image" if one.image and one.image == other.image else (
            "the series may mix several echoes, time points or repeats"
        )  # fmt: skip
        raise DataError(
            other.file, f"{len(twice)} of its {len(slices)} slices lie where another one lies, the first at "
            f"{heights[twice[0]]:.1f} mm along the normal ({_name(one)} and {_name(other)}): {why}.",
            "Keep one image for each place.",
        )  # fmt: skip
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > _MISSING * usual)
    if len(gaps):
        missing = sum(max(1, round(float(steps[k]) / usual) - 1) for k in gaps)
        before, after = slices[gaps[0]], slices[gaps[0] + 1]
        raise DataError(
            before.file, f"{missing} slice(s) are missing: after {_name(before)} the next one, {_name(after)}, comes "
            f"{steps[gaps[0]]:.2f} mm further, where {usual:.2f} mm is usual.", "Fetch the whole series, or leave it out.",
        )  # fmt: skip
    if max(abs(steps - usual)) > _UNEVEN * usual:
        raise DataError(slices[0].file, f"its slices are unevenly spaced: {steps.min():.2f} to {steps.max():.2f} mm.", _FIX)


def _check_line(
    slices: Sequence[SliceHeader],
    places: NDArray[np.float64],
    step: NDArray[np.float64],
    normal: NDArray[np.float64],
    pixel: float,
) -> None:
    """First pixels must lie on one straight line: to within a pixel across it, and half a step along the normal."""
    off = places - (places[0] + np.arange(len(slices))[:, None] * step)
    along = off @ normal
    across = np.linalg.norm(off - along[:, None] * normal, axis=1)
    worst = int(np.argmax(across))
    if across[worst] > pixel:
        raise DataError(
            slices[worst].file, f"it is shifted by {across[worst]:.1f} mm against the other slices of its series.", _FIX
        )
    if np.abs(along).max() > 0.5 * np.linalg.norm(step):
        raise DataError(slices[0].file, f"its slices are unevenly spaced: {np.abs(along).max():.2f} mm off an even grid.", _FIX)


def _name(header: SliceHeader) -> str:
    return f"frame {header.frame + 1}" if header.frames > 1 else header.file.name


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in spacing)
