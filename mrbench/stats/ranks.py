"""Standing of methods among each other: average ranks, critical difference, wins, letters, stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrbench.stats.bootstrap import ClusterBootstrap
from mrbench.stats.table import DIGITS
from mrbench.stats.tests import rank_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Stability:
    """Places by mean over resampled subjects: ``first[m]`` the share in which a method is best (ties shared), ``low`` and
    ``high`` the 95 % interval of its place, ``tau`` the mean Kendall correlation with the observed order."""

    first: NDArray[np.float64]
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    tau: float


def average_ranks(values: NDArray[np.float64], higher_is_better: bool) -> NDArray[np.float64]:
    """Mean rank of each method over units, 1 = best."""
    return np.asarray(rank_rows(values, higher_is_better).mean(0))


def critical_difference(k: int, n: int, alpha: float) -> float:
    """Gap of average ranks from which Nemenyi's test finds a difference: q / sqrt(2) * sqrt(k (k + 1) / (6 n)) (Demsar 2006)."""
    from scipy.stats import studentized_range

    return float(studentized_range.isf(alpha, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n)))


def win_matrix(values: NDArray[np.float64], higher_is_better: bool) -> NDArray[np.float64]:
    """``[k, k]``: share of units on which the row's method beats the column's, ties by half; NaN on the diagonal."""
    x = np.round(values, DIGITS) * (1 if higher_is_better else -1)
    k = x.shape[1]
    wins = np.full((k, k), np.nan)
    for a in range(k):
        for b in range(a + 1, k):
            wins[a, b] = ((x[:, a] > x[:, b]).mean() + (x[:, a] == x[:, b]).mean() / 2).item()
            wins[b, a] = 1 - wins[a, b]
    return wins


def groups(different: NDArray[np.bool_], order: Sequence[int]) -> list[tuple[int, ...]]:
    """Maximal sets of methods of which no two differ, by insertion and absorption (Piepho 2004).

    ``different`` is symmetric ``[k, k]``; ``order`` lists methods from best to worst. Sets and their members are in that
    order; methods that differ from all others are a set of their own.
    """
    place = {m: i for i, m in enumerate(order)}
    columns: list[frozenset[int]] = [frozenset(order)]
    for i, a in enumerate(order):
        for b in order[i + 1 :]:
            if not different[a, b]:
                continue
            cut: list[frozenset[int]] = []
            for column in columns:
                cut += [column - {a}, column - {b}] if a in column and b in column else [column]
            unique = list(dict.fromkeys(cut))
            columns = [c for c in unique if c and not any(c < other for other in unique)]
    ordered = [tuple(sorted(c, key=place.__getitem__)) for c in columns]
    return sorted(ordered, key=lambda c: [place[m] for m in c])


def compact_letters(different: NDArray[np.bool_], order: Sequence[int]) -> list[str]:
    """Letters per method (by index): methods that share one were not shown to differ. The best has ``a``."""
    return letters_of(groups(different, order), len(order))


def letters_of(sets: Sequence[tuple[int, ...]], k: int) -> list[str]:
    """A letter per set, for each of its members."""
    letters = [""] * k
    for position, members in enumerate(sets):
        for m in members:
            letters[m] += _letter(position)
    return letters


def rank_stability(found: ClusterBootstrap, higher_is_better: bool) -> Stability:
    """How the order by mean holds when subjects are resampled."""
    from scipy.stats import rankdata

    sign = -1 if higher_is_better else 1
    places = rankdata(np.round(sign * found.replicates, DIGITS), axis=1)
    best = places == places.min(1, keepdims=True)
    low, high = np.quantile(places, [0.025, 0.975], axis=0, method="nearest")
    observed = rankdata(np.round(sign * found.estimate, DIGITS))
    return Stability((best / best.sum(1, keepdims=True)).mean(0), np.floor(low).astype(np.intp), np.ceil(high).astype(np.intp),
                     _mean_tau(places, observed))  # fmt: skip


def _mean_tau(places: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    k = observed.size
    if k < 2:
        return math.nan
    rows, columns = np.triu_indices(k, 1)
    agreement = np.sign(places[:, rows] - places[:, columns]) * np.sign(observed[rows] - observed[columns])
    return float(agreement.mean())


def _letter(position: int) -> str:
    """a ... z, then a1 ... z1, a2 ..."""
    return chr(ord("a") + position % 26) + (str(position // 26) if position >= 26 else "")
