"""DICOM files of a folder as volumes: one a series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mrbench.data.dicom import Series, arrange, find_series, frames_of
from mrbench.data.records import BadSource, VolumeRef
from mrbench.data.splits import Split
from mrbench.errors import DataError

#: Subject of a series, from itself and the relative path of its first file; ``None``: the rule finds nothing.
SubjectRule = Callable[[Series, str], str | None]


def series_refs(
    root: Path, files: Sequence[Path], subject_of: SubjectRule, split_of: Callable[[str], Split]
) -> list[tuple[str, VolumeRef | BadSource]]:
    """All series among ``files``, each with the relative path of its first file. Headers are read, no pixels."""
    found = find_series(files)
    refs: list[tuple[str, VolumeRef | BadSource]] = []
    for error in found.unreadable:
        relative = Path(error.file).relative_to(root).as_posix()
        refs.append((relative, BadSource("", Path(relative).name, relative, _text(error))))
    for series in found.series:
        relative = series.first.file.relative_to(root).as_posix()
        subject = subject_of(series, relative)
        if subject is None:
            reason = "the regular expression of the option subject finds nothing in its path"
            refs.append((relative, BadSource("", series.name, relative, reason)))
        else:
            refs.append((relative, _ref(root, series, subject, series.name, split_of(subject))))
    return refs


def listed_series(root: Path, files: Sequence[Path], subject: str, volume: str, split: Split) -> VolumeRef | BadSource:
    """The files that a manifest makes one volume; their headers, not their order in it, say how they lie.

    Raises
    ------
    DataError : a header that cannot be read, or several series.
    """
    found = find_series(files)
    if found.unreadable:
        raise found.unreadable[0]
    if len(found.series) != 1:
        raise DataError(
            files[0], f"the manifest makes {len(files)} DICOM file(s) one volume, but they are {len(found.series)} series or "
            "stacks of images.", "Give each of them a volume name of its own.",
        )  # fmt: skip
    return _ref(root, found.series[0], subject, volume, split)


def _ref(root: Path, series: Series, subject: str, volume: str, split: Split) -> VolumeRef | BadSource:
    try:
        files, frames = frames_of(arrange(series))
    except DataError as error:
        return BadSource(subject, volume, Path(error.file).relative_to(root).as_posix(), _text(error))
    extra: dict[str, Any] = {"reader": "dicom"} | ({"frames": frames} if frames else {})
    return VolumeRef(subject, volume, files, split=split, extra=extra)


def _text(error: DataError) -> str:
    return f"{error.reason} {error.fix}".strip()
