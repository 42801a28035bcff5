"""Which DICOM series are axial T2-weighted volumes, and in words why others are not."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mrbench.data.dicom import Series, Stack

from . import ProstateOptions


@dataclass(frozen=True)
class NotTaken:
    """A readable series that is not part of the data set, and why. ``file`` is one of its files."""

    subject: str
    series: str
    file: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A series that counts, in order."""

    series: Series
    stack: Stack


def why_not(series: Series, options: ProstateOptions) -> str:
    """Why a series is not one of the data set, by its headers; empty if it is."""
    first, count = series.first, len(series.slices)
    if first.modality != "MR":
        return f"modality {first.modality or 'unknown'}, not MR"
    if options.description and not re.search(options.description, first.description, re.IGNORECASE):
        return f"its SeriesDescription does not contain {options.description!r}"
    if "EP" in first.sequence.split("\\"):
        return "echo-planar (diffusion and the like), not T2-weighted"
    if first.echo_time is None:
        return "it has no EchoTime"
    if first.echo_time <= options.echo_ms_above:
        return f"EchoTime {first.echo_time:g} ms, not above {options.echo_ms_above:g} ms"
    if series.plane != "axial":
        return f"{series.plane or 'of unknown direction'}, not axial"
    if count < options.min_slices:
        return f"{count} slice(s), fewer than min_slices={options.min_slices}"
    for name, value in (
        ("repetition_ms", first.repetition_time), ("tesla", first.field_strength), ("rows", first.rows), ("columns", first.columns),
    ):  # fmt: skip
        reason = _outside(name, value, getattr(options, name))
        if reason:
            return reason
    for value in first.spacing or (None,):
        reason = _outside("pixel_mm", value, options.pixel_mm)
        if reason:
            return reason
    return ""


def why_not_arranged(stack: Stack, options: ProstateOptions) -> str:
    """Why an ordered series is not one of the data set: the rules that need positions; empty if it is."""
    return _outside("slice_mm", round(stack.spacing, 3), options.slice_mm)


def chosen(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[tuple[Candidate, Candidate]]]:
    """One series a study: the longest; of equal ones the lowest series number; of those the first by name.

    Returns
    -------
    The chosen ones, in their order; and each one left, with the one that goes before it.
    """
    studies: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        first = candidate.series.first
        studies[candidate.series.subject, first.study].append(candidate)
    best: dict[int, Candidate] = {}
    for group in studies.values():
        winner = min(group, key=_rank)
        best |= {id(candidate): winner for candidate in group}
    kept = [candidate for candidate in candidates if best[id(candidate)] is candidate]
    return kept, [(candidate, best[id(candidate)]) for candidate in candidates if best[id(candidate)] is not candidate]


def summary(not_taken: Iterable[NotTaken]) -> list[str]:
    """One sentence a reason, with how many series and one of them as an example, most frequent first."""
    reasons = Counter[str]()
    example: dict[str, NotTaken] = {}
    for series in not_taken:
        reasons[series.reason] += 1
        example.setdefault(series.reason, series)
    return [f"{count} series not taken: {reason} (such as {example[reason].file})" for reason, count in reasons.most_common()]


def _rank(candidate: Candidate) -> tuple[int, int, str]:
    number = candidate.series.first.number
    return -len(candidate.stack.slices), number if number is not None else 2**31, candidate.series.name


def _outside(name: str, value: float | None, limits: tuple[float, float] | None) -> str:
    if limits is None:
        return ""
    if value is None:
        return f"it does not say its {name}, which the options limit"
    return "" if limits[0] <= value <= limits[1] else f"{name} {value:g} is outside {limits[0]:g} to {limits[1]:g}"
