"""Agreement of raters with bootstrap intervals: whole clusters of units (images, subjects) are resampled.

Kappa, the two-way intraclass correlations and Krippendorff's alpha depend on the ratings through sums over units alone. So each
is computed here from such sums, per cluster, and a resample is a weighted sum over clusters. On all units they equal the
functions of ``mrbench.stats.agreement``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mrbench.stats.agreement import Weights
from mrbench.stats.bootstrap import RESAMPLES, interval_of, resample
from mrbench.stats.results import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_CLUSTERS = 3
DIGITS = 12
LEAST_DEFINED = 0.95  # share of resamples in which the statistic must be defined for there to be an interval

_Statistic = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]


@dataclass(frozen=True)
class Agreed:
    """A measure of agreement on ``n`` units; NaN where it is not defined, no interval where there can be none."""

    value: float
    interval: Interval | None
    n: int


@dataclass(frozen=True)
class Clusters:
    """How units are resampled. ``codes``: per unit its cluster, 0 to ``count`` - 1; ``unit``: what a cluster is called."""

    codes: NDArray[np.intp]
    count: int
    unit: str = "subjects"
    level: float = 0.95
    resamples: int = RESAMPLES
    seed: int = 0


def kappa_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], clusters: Clusters, weights: Weights = "none"
) -> Agreed:
    """Cohen's kappa of two raters ``[n]``, NaN for missing ratings; units that one of them did not rate do not count.

    On fewer than two units it is not defined.
    """
    kept = ~(np.isnan(first) | np.isnan(second))
    values, codes = np.unique(np.concatenate([first[kept], second[kept]]), return_inverse=True)
    k, n = values.size, int(kept.sum())
    if n < 2:
        return Agreed(math.nan, None, n)
    cells = np.zeros((first.size, k * k))
    cells[np.flatnonzero(kept), codes[:n] * k + codes[n:]] = 1.0
    gap = np.abs(np.subtract.outer(values, values))
    cost = {"none": (gap > 0).astype(float), "linear": gap, "quadratic": gap**2}[weights].ravel()

    def kappa(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        table = sums.reshape(-1, k, k)
        total = table.sum((1, 2))
        chance = np.einsum("ri,rj->rij", table.sum(2), table.sum(1)).reshape(-1, k * k) @ cost / total
        return _ratio_from_one(sums @ cost, chance)

    return _agreed(cells, kept, clusters, kappa)


def icc_interval(ratings: NDArray[np.float64], clusters: Clusters, form: Literal["ICC(2,1)", "ICC(2,k)"]) -> Agreed:
    """Intraclass correlation of absolute agreement (Shrout and Fleiss 1979), two-way random, of one rater or of the mean of all.

    ``ratings`` ``[raters, units]``, NaN for missing ones; units that some rater did not rate do not count.
    """
    x = np.asarray(ratings, float).T
    k = x.shape[1]
    kept = ~np.isnan(x).any(1)
    if k < 2 or not kept.any():
        return Agreed(math.nan, None, int(kept.sum()))
    x = np.where(kept[:, None], x - x[kept].mean(), 0.0)  # the same about any origin; this one keeps digits
    terms = np.column_stack([kept.astype(float), x, x.mean(1) ** 2, (x**2).sum(1)])

    def icc(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        n, columns, means2, squares = sums[:, 0], sums[:, 1 : k + 1], sums[:, k + 1], sums[:, k + 2]
        grand = columns.sum(1) / (n * k)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = k * (means2 - n * grand**2)
            among = n * ((columns / n[:, None] - grand[:, None]) ** 2).sum(1)
            error = (squares - n * k * grand**2 - between - among) / ((n - 1) * (k - 1))
            units, raters = between / (n - 1), among / (k - 1)
            single = form == "ICC(2,1)"
            bottom = units + (k - 1) * error * single + (k if single else 1) * (raters - error) / n
            return np.where(bottom > 1e-12, (units - error) / bottom, np.nan)

    return _agreed(terms, kept, clusters, icc)


def alpha_interval(ratings: NDArray[np.float64], clusters: Clusters) -> Agreed:
    """Krippendorff's ordinal alpha of ``[raters, units]``, NaN for missing ratings; units with one rating do not count."""
    x = np.asarray(ratings, float)
    values = np.unique(x[~np.isnan(x)])
    k = values.size
    counts = (x[:, :, None] == values).sum(0).astype(float)  # [units, values]
    rated = counts.sum(1)
    kept = rated > 1
    if not kept.any():
        return Agreed(math.nan, None, 0)
    share = np.where(kept, 1 / np.maximum(rated - 1, 1), 0.0)
    together = np.einsum("ui,uj,u->uij", counts, counts, share)
    together[:, np.arange(k), np.arange(k)] -= counts * share[:, None]

    def alpha(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        pairs = sums.reshape(-1, k, k)
        totals = pairs.sum(2)
        middle = np.cumsum(totals, 1) - totals / 2  # place of each value among all ratings in order
        distance = (middle[:, :, None] - middle[:, None, :]) ** 2
        expected = (distance * totals[:, :, None] * totals[:, None, :]).sum((1, 2)) / (totals.sum(1) - 1)
        return _ratio_from_one((distance * pairs).sum((1, 2)), expected)

    return _agreed(together.reshape(len(counts), k * k), kept, clusters, alpha)


def _ratio_from_one(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - observed / expected; NaN where nothing is expected."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def _agreed(terms: NDArray[np.float64], kept: NDArray[np.bool_], clusters: Clusters, statistic: _Statistic) -> Agreed:
    """The statistic of all units' terms ``[units, d]``, with its BCa interval over the clusters that hold kept units."""
    present, codes = np.unique(clusters.codes[kept], return_inverse=True)
    sums = np.zeros((present.size, terms.shape[1]))
    np.add.at(sums, codes, terms[kept])
    value = float(statistic(sums.sum(0, keepdims=True))[0])
    n = int(kept.sum())
    if present.size < LEAST_CLUSTERS or math.isnan(value):
        return Agreed(value, None, n)
    resamples = (statistic(w @ sums) for w in resample(present.size, clusters.resamples, clusters.seed))
    drawn = np.round(np.concatenate(list(resamples)), DIGITS)  # so that equal ones are equal
    left = np.round(statistic(sums.sum(0) - sums), DIGITS)
    defined, left = drawn[~np.isnan(drawn)], left[~np.isnan(left)]
    if defined.size < LEAST_DEFINED * drawn.size or not left.size:
        return Agreed(value, None, n)
    found = interval_of(defined, float(np.round(value, DIGITS)), left, clusters.level, "bca")
    return Agreed(value, replace(found, unit=clusters.unit), n)
