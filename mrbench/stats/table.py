"""Scores as complete blocks: every method on the same slices of the same subjects, with everything left out named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from mrbench.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Unit = Literal["subjects", "slices"]

DIGITS = 9  # decimals that scores keep before ranking: rounding noise must neither make nor break ties
DIFFERENCE_DIGITS = DIGITS - 1  # of differences of rounded scores: 4.333333333 - 3.666666667 must tie with 1.666666667 - 1
_NAMED = 5  # left-out slices and subjects that notes list by name


@dataclass(frozen=True)
class Measure:
    """A metric as the statistics need it. ``cap``: values above it (``inf`` included) enter as it, as on the boards."""

    name: str
    title: str
    higher_is_better: bool
    unit: str = ""
    digits: int = 4
    cap: float | None = None
    signature: str = ""

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: ``sign * score`` is better where it is larger."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class LeftOut:
    """Something that takes no part in the tests, and why. ``what``: ``method``, ``slice`` or ``subject``."""

    what: Literal["method", "slice", "subject"]
    name: str
    reason: str


@dataclass(frozen=True)
class Block:
    """Scores of one metric, complete: ``scores[i, m]`` is the score of method ``m`` on slice ``i``, always finite.

    ``subject[i]`` is the index of the slice's subject in ``subjects``. ``capped``: method -> slices that entered as the cap.
    """

    measure: Measure
    methods: tuple[str, ...]
    subjects: tuple[str, ...]
    scores: NDArray[np.float64]
    subject: NDArray[np.intp]
    left_out: tuple[LeftOut, ...] = ()
    capped: tuple[tuple[str, int], ...] = ()

    @property
    def n_subjects(self) -> int:
        """Subjects with at least one complete slice."""
        return len(self.subjects)

    @property
    def n_slices(self) -> int:
        """Complete slices."""
        return len(self.scores)

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """Slices per subject."""
        return np.bincount(self.subject, minlength=self.n_subjects)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """Subject means ``[n_subjects, k]``: every subject counts once, however many slices it has."""
        sums = [np.bincount(self.subject, column, self.n_subjects) for column in self.scores.T]
        return np.asarray(np.round(np.stack(sums, 1) / self.sizes[:, None], DIGITS))

    def values(self, unit: Unit) -> NDArray[np.float64]:
        """The matrix ``[n, k]`` that tests over ``unit`` see, rounded to 9 decimals."""
        return self.means if unit == "subjects" else np.asarray(np.round(self.scores, DIGITS))

    def restricted(self, methods: Sequence[str]) -> Block:
        """The block of some of its methods, in that order."""
        columns = [self.methods.index(m) for m in methods]
        capped = tuple((m, n) for m, n in self.capped if m in methods)
        return replace(self, methods=tuple(methods), scores=self.scores[:, columns], capped=capped)

    def notes(self) -> list[str]:
        """What was left out, capped or is lopsided, in words."""
        notes = [f"{x.name} takes no part: {x.reason}" for x in self.left_out if x.what == "method"]
        for what in ("slice", "subject"):
            gone = [x for x in self.left_out if x.what == what]
            if gone:
                shown = "; ".join(f"{x.name}: {x.reason}" for x in gone[:_NAMED])
                more = f"; and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
                notes.append(
                    f"{_count(len(gone), what)} left out for all methods, as the tests compare complete sets ({shown}{more})"
                )
        if self.capped:
            cap = f"{self.measure.cap:g} {self.measure.unit}".strip()
            notes.append(f"values above {cap} entered as {cap}: {', '.join(f'{n} of {m}' for m, n in self.capped)}")
        return notes


def make_block(
    measure: Measure,
    scores: Mapping[str, NDArray[np.float64]],
    subjects: Sequence[str],
    subject: NDArray[np.intp],
    items: Sequence[str] | None = None,
) -> Block:
    """The complete block of one metric.

    Parameters
    ----------
    scores : method -> ``[n]`` scores of the same slices, NaN where there is none.
    subjects, subject : names of the subjects, and per slice the index of its own.
    items : names of the slices, for what is left out (default: their numbers).

    A method without any score, or with an infinite one beyond the cap, takes no part. A slice that some remaining method
    lacks is left out for all of them, and so is a subject without a complete slice. All of it is listed in ``left_out``.

    Raises
    ------
    UserError : scores and slices that do not fit together.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    left_out: list[LeftOut] = []
    capped: list[tuple[str, int]] = []
    for name, given in scores.items():
        values = np.asarray(given, np.float64)
        if values.shape != (len(subject),):
            raise UserError(f"{measure.name} of {name}: {values.size} scores for {len(subject)} slices.")
        known = ~np.isnan(values)
        if not known.any():
            left_out.append(LeftOut("method", name, "it has no value"))
            continue
        if measure.cap is not None and (above := int((values > measure.cap).sum())):
            capped.append((name, above))
            values = np.minimum(values, measure.cap)
        if np.isinf(values).any():
            count = int(np.isinf(values).sum())
            left_out.append(LeftOut("method", name, f"{_count(count, 'infinite value')}, so that it has no finite mean"))
            continue
        columns[name] = values
    if not columns:
        empty = np.empty((0, 0))
        return Block(measure, (), (), empty, np.empty(0, np.intp), tuple(left_out), tuple(capped))
    table = np.stack(list(columns.values()), 1)
    missing = np.isnan(table)
    kept = ~missing.any(1)
    for i in np.flatnonzero(~kept).tolist():
        lacking = [m for m, gone in zip(columns, missing[i], strict=True) if gone]
        left_out.append(LeftOut("slice", items[i] if items is not None else f"slice {i}", f"no value of {', '.join(lacking)}"))
    present, codes = np.unique(subject[kept], return_inverse=True)
    for s in sorted(set(subject.tolist()) - set(present.tolist())):
        left_out.append(LeftOut("subject", subjects[s], "no slice on which every method has a value"))
    names = tuple(str(subjects[s]) for s in present.tolist())
    return Block(measure, tuple(columns), names, table[kept], codes.astype(np.intp), tuple(left_out), tuple(capped))


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
