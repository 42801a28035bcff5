"""``manifest.csv``: which files of a folder make up which volume of which subject."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mrbench.data.splits import SPLITS, Split
from mrbench.errors import UserError

NAME = "manifest.csv"
REQUIRED = ("file", "subject", "volume")
OPTIONAL = ("slice_index", "split", "spacing_mm", "voxel_row_mm", "voxel_col_mm")
#: Subject of all rows that name none: nothing can be said about who is who among them.
UNKNOWN_SUBJECT = "unknown"

_SHOWN = 10
_VOXEL = ("spacing_mm", "voxel_row_mm", "voxel_col_mm")


@dataclass(frozen=True)
class ManifestVolume:
    """One volume: its files in slice order.

    labels : slice numbers with at least three digits; empty if the manifest has none. ``split``: empty if it says nothing.
    voxel : mm between slices, rows and columns; ``None`` where unknown (so that it can be written as JSON).
    """

    subject: str
    volume: str
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    split: Split | None
    voxel: tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Manifest:
    """The volumes in the order of their first rows, and what a user should know about them."""

    volumes: list[ManifestVolume]
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Row:
    line: int
    file: str
    subject: str
    volume: str
    index: int | None
    split: Split | None
    voxel: tuple[float | None, float | None, float | None]


def read_manifest(path: Path, shared_subjects: bool = False) -> Manifest:
    """Read and check a manifest. ``shared_subjects``: a subject may be in several splits (a volume is in one, always).

    A CSV file (UTF-8, comma) with the columns ``file`` (path relative to the manifest's folder), ``subject`` and ``volume``,
    one row a file. Rows of one subject and volume are the slices of one volume. Optional columns: ``slice_index`` (integer;
    gives order and labels), ``split`` (train, val or test), ``spacing_mm``, ``voxel_row_mm``, ``voxel_col_mm`` (between slice
    centres, rows, columns). Other columns are ignored. An empty ``subject`` counts as one unknown subject, an empty ``volume``
    as a volume of its own named after the file.

    Raises
    ------
    UserError : names line and column of what is wrong: absent columns, a file that does not exist or lies outside the
        folder, duplicate rows or slice numbers, bad numbers, a subject in two splits.
    """
    problems: list[str] = []
    rows = _read_rows(path, problems)
    _check_files(path.parent, rows, problems)
    volumes = _group(path.parent, rows, problems, shared_subjects)
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(f"{path} has {len(problems)} mistake(s):\n  " + "\n  ".join(problems[:_SHOWN]) + more)
    if not volumes:
        raise UserError(f"{path} has no rows. Expected one row for each file, with the columns {', '.join(REQUIRED)}.")
    unknown = sum(row.subject == UNKNOWN_SUBJECT for row in rows)
    warnings = [
        f"{NAME}: {unknown} of {len(rows)} rows name no subject; they count as one subject named {UNKNOWN_SUBJECT!r}, and "
        "nothing can be said about separate subjects"
    ]
    return Manifest(volumes, warnings if unknown else [])


def voxel_from_json(sizes: Sequence[Any]) -> tuple[float, float, float]:
    """Three sizes in mm with ``None`` for unknown ones, as floats with ``nan``."""
    slices, rows, columns = (math.nan if size is None else float(size) for size in sizes)
    return slices, rows, columns


def _read_rows(path: Path, problems: list[str]) -> list[_Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            absent = [name for name in REQUIRED if name not in columns]
            if absent:
                raise UserError(
                    f"{path}, line 1: the column(s) {', '.join(absent)} are absent. Found: {', '.join(columns) or 'none'}. "
                    f"Needed: {', '.join(REQUIRED)}; known besides: {', '.join(OPTIONAL)}. Columns are separated by commas."
                )
            twice = sorted({name for name in columns if columns.count(name) > 1})
            if twice:
                raise UserError(f"{path}, line 1: the column(s) {', '.join(twice)} appear twice. Keep one of each.")
            return [_row(reader.line_num, cells, problems) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}. Expected a CSV file in UTF-8.") from error


def _row(line: int, cells: dict[Any, Any], problems: list[str]) -> _Row:
    if None in cells:
        problems.append(f"line {line}: it has more cells than there are columns (quote texts that hold commas)")
        cells = {name: cell for name, cell in cells.items() if name is not None}
    texts = {name: str(cell).strip() for name, cell in cells.items()}
    index: int | None = None
    if texts.get("slice_index"):
        if texts["slice_index"].isascii() and texts["slice_index"].isdigit():
            index = int(texts["slice_index"])
        else:
            problems.append(f"line {line}, column slice_index: {texts['slice_index']!r} is not an integer >= 0")
    split: Split | None = next((known for known in SPLITS if known == texts.get("split")), None)
    if texts.get("split") and split is None:
        problems.append(f"line {line}, column split: {texts['split']!r} is not one of {', '.join(SPLITS)}")
    spacing, row, column = (_size(line, name, texts.get(name, ""), problems) for name in _VOXEL)
    if not texts["file"]:
        problems.append(f"line {line}, column file: it is empty")
    subject = texts["subject"] or UNKNOWN_SUBJECT
    return _Row(line, texts["file"], subject, texts["volume"] or stem_of(texts["file"]), index, split, (spacing, row, column))


def stem_of(file: str) -> str:
    """A file's name without its extension (``.nii.gz`` and the like count as one)."""
    name = PurePosixPath(file).name
    name = name[:-3] if name.lower().endswith((".nii.gz", ".hdr.gz", ".img.gz")) else name
    return PurePosixPath(name).stem if name else ""


def _size(line: int, column: str, text: str, problems: list[str]) -> float | None:
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        problems.append(f"line {line}, column {column}: {text!r} is not a positive number of millimetres")
        return None
    return size


def _check_files(folder: Path, rows: list[_Row], problems: list[str]) -> None:
    seen: dict[PurePosixPath, int] = {}
    for row in rows:
        if not row.file:
            continue
        relative = PurePosixPath(row.file)
        if relative.is_absolute() or Path(row.file).is_absolute() or ".." in relative.parts:
            problems.append(
                f"line {row.line}, column file: {row.file!r} leads out of the folder; paths are relative to {folder}"
            )
        elif relative in seen:
            problems.append(f"line {row.line}, column file: {row.file!r} is in line {seen[relative]} already")
        elif not (folder / relative).is_file():
            problems.append(f"line {row.line}, column file: {row.file!r} does not exist in {folder}")
        seen.setdefault(relative, row.line)


def _group(folder: Path, rows: list[_Row], problems: list[str], shared_subjects: bool) -> list[ManifestVolume]:
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row.subject, row.volume), []).append(row)
    for members in groups.values() if shared_subjects else [rows]:
        _check_splits(members, problems)
    volumes = []
    for (subject, volume), members in groups.items():
        first = members[0]
        numbered = [row for row in members if row.index is not None]
        if len(numbered) not in (0, len(members)):
            bare = next(row for row in members if row.index is None)
            problems.append(
                f"line {bare.line}, column slice_index: it is empty, but other rows of the volume {volume!r} have one"
            )
        elif numbered:
            members = sorted(members, key=lambda row: row.index or 0)
            problems.extend(
                f"line {later.line}, column slice_index: {later.index} is in line {earlier.line} already (volume {volume!r})"
                for earlier, later in itertools.pairwise(members)
                if earlier.index == later.index
            )
        for row in members:
            if row.voxel != first.voxel:
                problems.append(
                    f"line {row.line}, columns {', '.join(_VOXEL)}: they differ from line {first.line} of the volume {volume!r}"
                )
        labels = tuple(f"{row.index:03d}" for row in members if row.index is not None)
        files = tuple(folder / PurePosixPath(row.file) for row in members)
        volumes.append(ManifestVolume(subject, volume, files, labels, first.split, first.voxel))
    return volumes


def _check_splits(rows: list[_Row], problems: list[str]) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(row.subject, row)
        if row.split != other.split:
            here, there = row.split or "empty", other.split or "empty"
            problems.append(
                f"line {row.line}, column split: subject {row.subject!r} is {here} here and {there} in line {other.line}; "
                "a subject is on one side only"
            )
