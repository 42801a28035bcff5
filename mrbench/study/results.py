"""What an analysis of a study returns: frozen records that every format prints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mrbench.stats.agreement_intervals import Agreed
from mrbench.stats.results import Interval, MetricResult
from mrbench.study.readings import Reader

Unit = Literal["subjects", "images"]
Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Score:
    """A method under one criterion.

    ``mean`` and ``sd`` (ddof = 1) over ``n`` ratings: those of the readers who rated all methods of an image, so that every
    method has the same. ``counts``: how often each rating was given, from the lowest. ``by_reader``: means (NaN without ratings).
    ``letters``: methods that share one were not shown to differ (empty where nothing was tested).
    """

    method: str
    control: bool
    mean: float
    sd: float
    n: int
    counts: tuple[int, ...]
    by_reader: tuple[float, ...]
    percentile: Interval | None
    bca: Interval | None
    letters: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class PairAgreement:
    """Two readers on the images that both rated: shares of equal ratings and of those at most one step apart, kappas."""

    first: str
    second: str
    n: int
    exact: float
    within_one: float
    linear: Agreed
    quadratic: Agreed


@dataclass(frozen=True)
class Agreement:
    """Between readers, on restored images (an image of every method is one each). ``pairs`` is empty for one reader, and all numbers are then NaN.

    ``icc_single`` and ``icc_mean``: ICC(2,1) and ICC(2,k), on images that all readers rated. ``alpha``: Krippendorff's, ordinal,
    on images that two or more rated.
    """

    pairs: tuple[PairAgreement, ...]
    icc_single: Agreed
    icc_mean: Agreed
    alpha: Agreed

    @property
    def mean_quadratic(self) -> float:
        """Mean of the pairs' quadratic kappas (NaN where one is not defined)."""
        return sum(p.quadratic.value for p in self.pairs) / len(self.pairs) if self.pairs else math.nan


@dataclass(frozen=True)
class SelfAgreement:
    """One reader on the images that came twice. ``difference``: mean absolute difference of the two ratings."""

    reader: str
    n: int
    exact: float
    within_one: float
    difference: float
    quadratic: Agreed


@dataclass(frozen=True)
class CriterionResult:
    """All that was found for one criterion.

    ``blocks``: pairs of a reader and an image of which the reader rated all methods; ``incomplete``: those of which
    only some methods were rated, which do not count. ``images``: images with a complete block, ``of`` how many.
    """

    criterion: str
    scores: tuple[Score, ...]
    blocks: int
    incomplete: int
    images: int
    of: int
    test: MetricResult
    agreement: Agreement
    within: tuple[SelfAgreement, ...]


@dataclass(frozen=True)
class StudyResult:
    """The analysis of a study. ``missing``: readers who have not finished, in words."""

    title: str
    study: str
    dataset: str
    dataset_version: str
    protocol: str
    protocol_hash: str
    mode: str
    scale: tuple[int, int]
    anchors: tuple[str, str]
    readers: tuple[Reader, ...]
    missing: tuple[str, ...]
    subjects: int
    images: int
    repeats: int
    unit: Unit
    clusters: int
    level: float
    resamples: int
    seed: int
    criteria: tuple[CriterionResult, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    banner: str

    @property
    def size_text(self) -> str:
        """What there is: ``2 readers, 25 images of 25 subjects, 3 methods``."""
        methods = len(self.criteria[0].scores)
        parts = [_count(len(self.readers), "reader"), f"{_count(self.images, 'image')} of {_count(self.subjects, 'subject')}"]
        return ", ".join([*parts, _count(methods, "method"), f"ratings {self.scale_text}"])

    @property
    def scale_text(self) -> str:
        """``1 (poor) to 5 (excellent)``."""
        return f"{self.scale[0]} ({self.anchors[0]}) to {self.scale[1]} ({self.anchors[1]})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
