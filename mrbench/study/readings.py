"""All ratings of a study as arrays, with the key: from here on methods have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.study.records import KEY, RATINGS, Key, Study, read_key, read_study
from mrbench.study.store import RatingFile, rating_path, read_ratings

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Reader:
    """One reader: ratings that count of those expected, how many were changed, when the first and the last was given."""

    name: str
    rated: int
    expected: int
    changed: int
    first: str
    last: str

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.rated == self.expected


@dataclass(frozen=True)
class Readings:
    """Ratings as numbers, NaN where there is none.

    ``values`` ``[readers, items, methods, criteria]``, without repeats; ``repeats`` ``[readers, images, 2, criteria]``: the
    repeated images, each as it was rated in the trial that is repeated and in its repeat. ``subject``: per item the index of its
    own in ``subjects``. ``left_out``: readers with ratings who were not asked for.
    """

    study: Study
    key: Key
    readers: tuple[Reader, ...]
    methods: tuple[str, ...]
    items: tuple[str, ...]
    subjects: tuple[str, ...]
    subject: NDArray[np.intp]
    values: NDArray[np.float64]
    repeats: NDArray[np.float64]
    repeated: tuple[tuple[str, str], ...]  # (item, method)
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def collect(folder: Path, key_file: Path | None = None, readers: Sequence[str] | None = None) -> Readings:
    """Read a study and the ratings of its readers (``readers``: only these, by name), in the order of their first rating.

    Raises
    ------
    UserError : no study, no key, no ratings, a damaged file, an unknown reader.
    """
    study = read_study(folder)
    key = read_key(key_file or folder / KEY, study)
    found = [read_ratings(path, study) for path in sorted((folder / RATINGS).glob("*.jsonl"))]
    for file in found:
        if file.path != rating_path(folder, file.reader):
            raise UserError(f"{file.path}: this name is not that of its reader, {file.reader}. Is it a copy? Move it away.")
    found.sort(key=lambda f: (not f.first, f.first, f.reader))
    chosen, left_out = _chosen(found, readers)
    begun = [f for f in chosen if f.latest]
    if not begun:
        raise UserError(f"{folder}: nobody has rated anything yet. `mrbench study serve {folder}` opens the study for readers.")
    items = tuple(sorted({s.item for s in key.images.values()}))
    subject_of = {s.item: s.subject for s in key.images.values()}
    subjects = tuple(sorted(set(subject_of.values())))
    methods = tuple(m.label for m in key.methods)
    first = {code: s for code, s in key.images.items() if not s.repeat_of}
    again = {code: s for code, s in sorted(key.images.items(), key=lambda p: (p[1].item, p[1].method)) if s.repeat_of}
    codes = np.full((len(items), len(methods)), "", dtype=object)
    for code, shown in first.items():
        codes[items.index(shown.item), methods.index(shown.method)] = code
    values = np.stack([_numbers(f, codes, study.criteria) for f in begun])
    pairs = np.array([[s.repeat_of, code] for code, s in again.items()], dtype=object).reshape(-1, 2)
    repeats = np.stack([_numbers(f, pairs, study.criteria) for f in begun])
    return Readings(
        study=study,
        key=key,
        readers=tuple(Reader(f.reader, len(f.latest), study.expected, f.changed, f.first, f.last) for f in begun),
        methods=methods,
        items=items,
        subjects=subjects,
        subject=np.array([subjects.index(subject_of[i]) for i in items], np.intp),
        values=values,
        repeats=repeats,
        repeated=tuple((s.item, s.method) for s in again.values()),
        warnings=tuple(w for f in chosen for w in f.warnings),
        left_out=left_out + tuple(f"{f.reader} (began, and rated nothing)" for f in chosen if not f.latest),
    )


def _chosen(found: list[RatingFile], readers: Sequence[str] | None) -> tuple[list[RatingFile], tuple[str, ...]]:
    if readers is None:
        return found, ()
    names = {f.reader.casefold(): f for f in found}
    known = [f.reader for f in found]
    for wanted in readers:
        if wanted.casefold() not in names:
            raise UserError(
                f"--readers {wanted}: no ratings of that name.{did_you_mean(wanted, known)} Readers: {', '.join(known) or 'none'}."
            )
    chosen = [f for f in found if f.reader.casefold() in {w.casefold() for w in readers}]
    return chosen, tuple(f"{f.reader} (not asked for)" for f in found if f not in chosen)


def _numbers(file: RatingFile, codes: NDArray[np.object_], criteria: Sequence[str]) -> NDArray[np.float64]:
    """``[*codes.shape, criteria]``."""
    result = np.full((*codes.shape, len(criteria)), np.nan)
    for place in np.ndindex(codes.shape):
        for c, criterion in enumerate(criteria):
            rating = file.latest.get((str(codes[place]), criterion))
            if rating is not None:
                result[(*place, c)] = rating.value
    return result
