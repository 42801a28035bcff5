"""Confidence intervals of the means on a board, by resampling whole subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrbench.report.columns import Column
from mrbench.report.comparable import Comparison
from mrbench.report.summary import Over

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.stats.results import Interval

LEAST = 3  # subjects: with fewer there is nothing to resample
FEW = 10  # below it these intervals are known to be too short
LEVEL = 0.95


@dataclass(frozen=True)
class _Sample:
    """Subject sums of one column of one run: the mean is ``sums.sum() / sizes.sum()``."""

    key: tuple[int, str]
    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]


def mean_intervals(
    comparison: Comparison, columns: Sequence[Column], over: Over, level: float = LEVEL, resamples: int = 10_000, seed: int = 0
) -> dict[tuple[int, str], Interval]:
    """BCa intervals of the means that a board prints, by ``(index of the run, column)``.

    Subjects are resampled with all their slices; the mean is that over slices or over subjects' means, as ``over`` says. Columns
    without a finite mean, or with values of fewer than three subjects, have none. Columns whose values come from the same subjects and
    numbers of slices share their resamples.
    """
    from mrbench.stats.bootstrap import cluster_bootstrap, interval_of

    groups: dict[bytes, list[_Sample]] = {}
    for index in range(len(comparison.runs)):
        for column in columns:
            sample = _sample(comparison, index, column, over)
            if sample is not None:
                groups.setdefault(sample.sizes.tobytes(), []).append(sample)
    found: dict[tuple[int, str], Interval] = {}
    for members in groups.values():
        sizes = members[0].sizes
        present = sizes > 0
        boot = cluster_bootstrap(np.stack([s.sums[present] for s in members], 1), sizes[present], resamples, seed)
        for j, s in enumerate(members):
            found[s.key] = interval_of(boot.replicates[:, j], float(boot.estimate[j]), boot.jackknife[:, j], level, "bca")
    return found


def _sample(comparison: Comparison, index: int, column: Column, over: Over) -> _Sample | None:
    run = comparison.runs[index]
    values = run.values(column.name)
    known = ~np.isnan(values)
    kept = values[known] if column.cap is None else np.minimum(values[known], column.cap)
    if not kept.size or not np.isfinite(kept).all():
        return None
    n = len(comparison.subjects)
    sizes: NDArray[np.float64] = np.bincount(comparison.codes[known], minlength=n).astype(np.float64)
    if np.count_nonzero(sizes) < LEAST:
        return None
    sums: NDArray[np.float64] = np.asarray(np.bincount(comparison.codes[known], kept, n), np.float64)
    if over == "subjects":
        sums = np.divide(sums, sizes, out=np.zeros(n), where=sizes > 0)
        sizes = np.where(sizes > 0, 1.0, 0.0)
    return _Sample((index, column.name), sums, sizes)


def interval_notes(n_subjects: int) -> list[str]:
    """What so few subjects mean for intervals."""
    if n_subjects < LEAST:
        return [f"no intervals: {n_subjects} subject{'s' * (n_subjects != 1)} (at least {LEAST} are needed)."]
    if n_subjects < FEW:
        return [f"intervals over {n_subjects} subjects tend to be too short."]
    return []
