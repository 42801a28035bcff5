"""Slices within subjects: random-intercept model of differences, intraclass correlation, design effect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrbench.stats.results import Interval, MixedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HIGHEST = 1e6  # ratio of the variances between and within subjects beyond which nothing changes


@dataclass(frozen=True)
class _Groups:
    n: NDArray[np.float64]  # slices per subject
    means: NDArray[np.float64]
    within: float  # sum of squares about the subjects' means

    @property
    def total(self) -> float:
        return float(self.n.sum())


def difference_model(differences: NDArray[np.float64], subject: NDArray[np.intp], level: float = 0.95) -> MixedModel | None:
    """REML fit of ``d_ij = mu + u_i + e_ij`` (``MixedModel``); ``None`` with fewer than two subjects.

    For one pair of methods it is the model ``score ~ method + (method | subject) + (1 | slice)``: subject and slice effects
    that both methods share drop out of the difference. The likelihood is maximised over the one ratio that is left. With one
    slice per subject the two variances cannot be told apart, and all of it counts as between subjects. Tests use t with
    ``subjects - 1`` degrees of freedom.
    """
    g = _groups(differences, subject)
    k = g.n.size
    if k < 2:
        return None
    if g.total <= k or g.within <= 1e-20 * float(((differences - differences.mean()) ** 2).sum()):
        return _of_means(g, level)
    ratio = _best_ratio(g)
    weights = g.n / (1 + ratio * g.n)
    mean = float(weights @ g.means / weights.sum())
    var_within = (g.within + float(weights @ (g.means - mean) ** 2)) / (g.total - 1)
    return _model(g, mean, var_within / float(weights.sum()), ratio * var_within, var_within, level)


def _of_means(g: _Groups, level: float) -> MixedModel:
    """Nothing varies within subjects, or nobody can tell: every subject counts once."""
    between = float(g.means.var(ddof=1))
    return _model(g, float(g.means.mean()), between / g.n.size, between, 0.0, level)


def _model(g: _Groups, mean: float, variance: float, between: float, within: float, level: float) -> MixedModel:
    from scipy import stats

    df, se = g.n.size - 1, math.sqrt(variance)
    half = float(stats.t.isf((1 - level) / 2, df)) * se
    if se > 1e-12 * abs(mean):
        t = mean / se
        p = float(2 * stats.t.sf(abs(t), df))
    else:
        t, p = (math.copysign(math.inf, mean), 0.0) if mean else (0.0, 1.0)
    interval = Interval(mean - half, mean + half, level, f"mixed model, t({df})")
    return MixedModel(mean, se, t, p, df, interval, between, within, g.n.size, int(g.total))


def icc_anova(values: NDArray[np.float64], subject: NDArray[np.intp]) -> float:
    """ICC(1) from the one-way analysis of variance, subjects of unequal size; NaN without repeated slices or variation."""
    g = _groups(values, subject)
    k, total = g.n.size, g.total
    if k < 2 or total <= k:
        return math.nan
    grand = float(g.n @ g.means / total)
    between = float(g.n @ (g.means - grand) ** 2) / (k - 1)
    within = g.within / (total - k)
    size = (total - float((g.n**2).sum()) / total) / (k - 1)
    scale = between + (size - 1) * within
    return (between - within) / scale if scale > 0 else math.nan


def design_effect(icc: float, n_slices: int, n_subjects: int) -> float:
    """1 + (mean slices per subject - 1) ICC (Kish): n_slices over it is the effective number of independent slices."""
    return 1 + (n_slices / n_subjects - 1) * icc


def cluster_robust_se(values: NDArray[np.float64], subject: NDArray[np.intp]) -> float:
    """Standard error of the mean over slices that allows for any dependence within subjects: sandwich with k / (k - 1)."""
    apart = values - values.mean()
    sums = np.bincount(subject, apart)
    k = int((np.bincount(subject) > 0).sum())
    return math.sqrt(k / (k - 1) * float((sums**2).sum())) / values.size if k > 1 else math.nan


def _groups(values: NDArray[np.float64], subject: NDArray[np.intp]) -> _Groups:
    n = np.bincount(subject).astype(float)
    means = np.bincount(subject, values) / np.maximum(n, 1)
    return _Groups(n[n > 0], means[n > 0], float(((values - means[subject]) ** 2).sum()))


def _best_ratio(g: _Groups) -> float:
    """The ratio of variances between / within that maximises the restricted likelihood, 0 included."""
    from scipy.optimize import minimize_scalar

    def loss(ratio: float) -> float:
        scale = 1 + ratio * g.n
        weights = g.n / scale
        mean = weights @ g.means / weights.sum()
        rest = g.within + float(weights @ (g.means - mean) ** 2)
        return float((g.total - 1) * math.log(rest) + np.log(scale).sum() + math.log(weights.sum()))

    found = minimize_scalar(lambda x: loss(math.exp(x)), bounds=(-20.0, math.log(_HIGHEST)), method="bounded",
                            options={"xatol": 1e-8})  # fmt: skip
    ratio = math.exp(float(found.x))
    return ratio if loss(ratio) < loss(0.0) else 0.0
