"""Bootstrap intervals. Whole subjects are resampled, with all their slices: slices of one subject are no fresh evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mrbench.errors import UserError
from mrbench.stats.results import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

IntervalMethod = Literal["percentile", "basic", "bca"]
RESAMPLES = 10_000
_CELLS = 2_000_000  # numbers in memory at once while resampling


@dataclass(frozen=True)
class Bca:
    """A BCa interval with what corrected it: bias ``z0``, ``acceleration``, and the ``levels`` that its ends stand at."""

    interval: Interval
    z0: float
    acceleration: float
    levels: tuple[float, float]


@dataclass(frozen=True)
class ClusterBootstrap:
    """Means over resampled subjects.

    ``estimate`` ``[k]``; ``replicates`` ``[R, k]``; ``jackknife`` ``[n, k]``, the estimate without one subject each.
    """

    estimate: NDArray[np.float64]
    replicates: NDArray[np.float64]
    jackknife: NDArray[np.float64]

    def difference(self, a: int, b: int, level: float, method: IntervalMethod, digits: int = 12) -> Interval:
        """Interval of the difference of columns ``a - b``."""
        replicates = np.round(self.replicates[:, a] - self.replicates[:, b], digits)
        estimate = float(np.round(self.estimate[a] - self.estimate[b], digits))
        return interval_of(replicates, estimate, np.round(self.jackknife[:, a] - self.jackknife[:, b], digits), level, method)


def percentile(replicates: NDArray[np.float64], level: float) -> Interval:
    """The central ``level`` of the replicates (quantiles by linear interpolation)."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "percentile bootstrap")


def basic(replicates: NDArray[np.float64], estimate: float, level: float) -> Interval:
    """The percentile interval reflected at the estimate."""
    found = percentile(replicates, level)
    return Interval(2 * estimate - found.high, 2 * estimate - found.low, level, "basic bootstrap")


def bca(replicates: NDArray[np.float64], estimate: float, jackknife: NDArray[np.float64], level: float) -> Bca:
    """Bias-corrected and accelerated interval (Efron 1987).

    z0 = Phi^-1(share of replicates below the estimate, ties by half); a = sum(u^3) / (6 sum(u^2)^1.5) with u = mean of the
    jackknife values minus each; the ends stand at Phi(z0 + (z0 + z) / (1 - a (z0 + z))). Where every replicate is the same
    number, the interval is that number.
    """
    from scipy.special import ndtr, ndtri

    share = float((replicates < estimate).mean() + (replicates == estimate).mean() / 2)
    if np.ptp(replicates) == 0:
        c = float(replicates[0])
        return Bca(Interval(c, c, level, "BCa bootstrap"), 0.0, 0.0, ((1 - level) / 2, (1 + level) / 2))
    share = min(max(share, 0.5 / replicates.size), 1 - 0.5 / replicates.size)
    z0 = float(ndtri(share))
    u = jackknife.mean() - jackknife
    scale = float((u**2).sum())
    a = float((u**3).sum()) / (6 * scale**1.5) if scale > 0 else 0.0
    z = ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    levels = ndtr(z0 + (z0 + z) / (1 - a * (z0 + z)))
    low, high = np.quantile(replicates, levels)
    ends = (float(levels[0]), float(levels[1]))
    return Bca(Interval(float(low), float(high), level, "BCa bootstrap"), z0, a, ends)


def interval_of(
    replicates: NDArray[np.float64], estimate: float, jackknife: NDArray[np.float64], level: float, method: IntervalMethod
) -> Interval:
    """One of the three intervals (``UserError`` for another name)."""
    if method == "percentile":
        return percentile(replicates, level)
    if method == "basic":
        return basic(replicates, estimate, level)
    if method == "bca":
        return bca(replicates, estimate, jackknife, level).interval
    raise UserError(f"no bootstrap interval {method!r}. Known: percentile, basic, bca.")


def resample(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each of ``n`` subjects is drawn, ``[r, n]`` at a time: rows sum to n. The same for the same seed."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // max(n, 1))
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(0, n, (rows, n), dtype=np.int32)
        drawn += (np.arange(rows, dtype=np.int32) * n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def cluster_bootstrap(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0
) -> ClusterBootstrap:
    """Bootstrap of the ratios ``sum over subjects of sums / sum over subjects of sizes``.

    Parameters
    ----------
    sums : ``[n subjects, k]``. Subject means for the mean of subject means, sums over slices for the mean of slices.
    sizes : ``[n subjects]``: ones, or slices per subject.
    """
    centre = sums.sum(0) / sizes.sum()
    apart = sums - sizes[:, None] * centre  # keeps digits where scores are large beside their differences
    parts = [(w @ apart) / (w @ sizes)[:, None] for w in resample(len(sums), resamples, seed)]
    left = (apart.sum(0) - apart) / np.where(len(sums) > 1, sizes.sum() - sizes, 1.0)[:, None]
    return ClusterBootstrap(centre, centre + np.concatenate(parts), centre + left)


def bootstrap(
    values: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    level: float = 0.95,
    method: IntervalMethod = "bca",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of any statistic of units ``[n, ...]``, whole units resampled.

    ``statistic`` maps ``[r, n, ...]`` to ``[r]``. Raises ``UserError`` for fewer than two units.
    """
    n = len(values)
    if n < 2:
        raise UserError("a bootstrap needs at least two units to resample.")
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // values.size)
    parts = []
    for start in range(0, resamples, at_once):
        parts.append(statistic(values[rng.integers(0, n, (min(at_once, resamples - start), n))]))
    estimate = float(statistic(values[None])[0])
    others = np.array([np.delete(np.arange(n), i) for i in range(n)])
    return interval_of(np.concatenate(parts), estimate, statistic(values[others]), level, method)


def standard_error(replicates: NDArray[np.float64]) -> float:
    """Standard deviation of the replicates (ddof = 1)."""
    return float(replicates.std(ddof=1)) if replicates.size > 1 else math.nan
