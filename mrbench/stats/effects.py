"""Effect sizes. ``a`` and ``b`` are scores of two methods on the same units, differences are ``a - b``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mrbench.stats.results import Effects
from mrbench.stats.table import DIFFERENCE_DIGITS, DIGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXPLICIT = 256  # units up to which all Walsh averages are formed


def rank_biserial(differences: NDArray[np.float64]) -> float:
    """Matched-pairs rank-biserial correlation (W+ - W-) / (W+ + W-) (Kerby 2014), zeros dropped; 0 if all are zero."""
    from scipy.stats import rankdata

    d = np.round(differences, DIFFERENCE_DIGITS)
    d = d[d != 0]
    if not d.size:
        return 0.0
    ranks = rankdata(np.abs(d))
    return float(ranks @ np.sign(d) / ranks.sum())


def cliffs_delta(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """P(a > b) - P(a < b) over all pairs of units (Cliff 1993). Takes no account of the pairing."""
    x, y = np.round(a, DIGITS), np.sort(np.round(b, DIGITS))
    below = np.searchsorted(y, x, "left").sum(dtype=np.int64)
    above = x.size * y.size - np.searchsorted(y, x, "right").sum(dtype=np.int64)
    return float((below - above) / (x.size * y.size))


def vargha_delaney(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """A12 = P(a > b) + P(a = b) / 2 (Vargha and Delaney 2000) = (Cliff's delta + 1) / 2."""
    return (cliffs_delta(a, b) + 1) / 2


def cohens_dz(differences: NDArray[np.float64]) -> float:
    """Mean over sd (ddof = 1) of the differences; 0 if all are zero, NaN for another constant or a single value."""
    d = np.round(differences, DIFFERENCE_DIGITS)
    if not d.any():
        return 0.0
    if d.size < 2 or (d == d[0]).all():
        return float("nan")
    return float(d.mean() / d.std(ddof=1))


def hodges_lehmann(differences: NDArray[np.float64]) -> float:
    """Hodges-Lehmann estimate: median of the Walsh averages ``(d_i + d_j) / 2``, i <= j."""
    d = np.sort(np.asarray(differences, np.float64))
    n = d.size
    if n == 0:
        return float("nan")
    if n <= _EXPLICIT:
        rows, columns = np.triu_indices(n)
        return float(np.median((d[rows] + d[columns]) / 2))
    total = n * (n + 1) // 2
    lower = _walsh_order(d, (total + 1) // 2)
    return lower if total % 2 else (lower + _walsh_order(d, total // 2 + 1)) / 2


def _walsh_order(d: NDArray[np.float64], k: int) -> float:
    """The ``k``-th smallest Walsh average of sorted ``d``, to the last bits, by bisection on how many are at most x."""
    low, high = float(d[0]), float(d[-1])
    own = np.arange(d.size)
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return high
        reach = np.searchsorted(d, 2 * middle - d, "right")  # j with d_i + d_j <= 2 x
        if int(np.maximum(reach - own, 0).sum()) >= k:
            high = middle
        else:
            low = middle


def kendalls_w(chi2: float, n: int, k: int) -> float:
    """Kendall's coefficient of concordance from Friedman's chi2 (tie-corrected): chi2 / (n (k - 1))."""
    return chi2 / (n * (k - 1))


def effects_of(a: NDArray[np.float64], b: NDArray[np.float64]) -> Effects:
    """All effect sizes of ``a`` against ``b``, ``[n]`` each, unit by unit."""
    d = a - b
    delta = cliffs_delta(a, b)
    return Effects(rank_biserial(d), delta, (delta + 1) / 2, cohens_dz(d), hodges_lehmann(d))
