"""Tests on blocks ``[n units, k methods]``: statistics that scipy leaves undefined have their conventions here.

Ties are ranked by means of ranks after rounding to nine decimals. Columns that are equal throughout give p = 1. Every
two-sided p comes with its logarithm, which stays finite where p underflows.
"""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from mrbench.errors import UserError
from mrbench.stats.effects import kendalls_w
from mrbench.stats.results import Outcome
from mrbench.stats.table import DIFFERENCE_DIGITS, DIGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT_UP_TO = 50  # non-zero differences
EXACT_UNITS = {2: 30, 3: 30, 4: 15, 5: 7}  # methods -> units up to which all permutations of ranks are counted
SHAPIRO_UP_TO = 5000  # beyond it the p value of Shapiro and Wilk is an extrapolation
_LOG10 = math.log(10)

Correction = Literal["none", "holm", "bonferroni", "fdr_bh", "fdr_by"]
NAMES = {
    "none": "no correction", "holm": "Holm", "bonferroni": "Bonferroni", "fdr_bh": "Benjamini-Hochberg",
    "fdr_by": "Benjamini-Yekutieli",
}  # fmt: skip


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test in all its forms. ``exact`` is conditional on ties; ``None`` above 50 differences.

    Zero differences are dropped. ``z`` uses the variance corrected for ties; ``p_continuity`` moves it by half a step.
    """

    n: int
    n_nonzero: int
    w_plus: float
    w_minus: float
    tied: bool
    z: float
    p_normal: float
    p_continuity: float
    p_exact: float | None
    log10_p_normal: float

    @property
    def outcome(self) -> Outcome:
        """The test to report: exact where it can be, else the normal approximation without continuity correction."""
        zeros = self.n - self.n_nonzero
        words = [f"{zeros} zero difference{'' if zeros == 1 else 's'} dropped"] if zeros else []
        words += ["ties by mean ranks"] if self.tied else []
        if self.p_exact is None:
            p, log10_p, how = self.p_normal, self.log10_p_normal, "normal approximation"
        else:
            p, log10_p, how = self.p_exact, math.log10(self.p_exact), "exact"
        note = ", ".join(words) if self.n_nonzero else "the two are equal on every unit"
        return Outcome("Wilcoxon signed-rank", "W+", self.w_plus, p, self.n, log10_p, how=how, note=note,
                       direction=self.w_plus - self.w_minus)  # fmt: skip


@dataclass(frozen=True)
class Friedman:
    """Friedman's test (1937) with ties corrected, and its F form (Iman and Davenport 1980). Ranks: 1 is best.

    ``exact``: over all permutations of ranks within units, given their ties; ``None`` where these are too many, which is where F
    holds its level. (For three methods on three units F would reject in 19 % of trials at 5 %.)
    """

    chi2: Outcome
    f: Outcome
    w: float
    mean_ranks: NDArray[np.float64]
    exact: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        """The test to report: exact where it can be, else F."""
        return self.f if self.exact is None else self.exact


# -- ranks -------------------------------------------------------------------------------------------------------------
def rank_rows(values: NDArray[np.float64], higher_is_better: bool) -> NDArray[np.float64]:
    """Ranks within each row, 1 = best, ties share their mean rank."""
    from scipy.stats import rankdata

    rounded = np.round(values, DIGITS)
    ranks: NDArray[np.float64] = rankdata(-rounded if higher_is_better else rounded, axis=1)
    return ranks


# -- several methods ---------------------------------------------------------------------------------------------------
def friedman(values: NDArray[np.float64], higher_is_better: bool) -> Friedman:
    """Friedman's test over ``[n, k]``, k >= 2, n >= 2.

    No p falls below 1 / (k!)^(n - 1), the least that a permutation of untied ranks can give: the F form would be 0 where all
    units agree.
    """
    from scipy import stats

    n, k = values.shape
    ranks = rank_rows(values, higher_is_better)
    sums = ranks.sum(0)
    centre = n * k * (k + 1) ** 2 / 4  # C
    squares = float((ranks**2).sum())  # A
    if squares - centre < 1e-9:
        same = Outcome("Friedman", "chi2", 0.0, 1.0, n, 0.0, (k - 1,), note="all methods are equal on every unit")
        f = Outcome("Friedman (Iman-Davenport)", "F", 0.0, 1.0, n, 0.0, (k - 1.0, (k - 1.0) * (n - 1)), note=same.note)
        return Friedman(same, f, 0.0, ranks.mean(0))
    chi2 = float((k - 1) * ((sums**2).sum() - n * centre) / (squares - centre))
    floor = -(n - 1) * math.lgamma(k + 1)
    plain = _outcome("Friedman", "chi2", chi2, float(stats.chi2.logsf(chi2, k - 1)), n, (k - 1,), "chi2 approximation")
    df = (float(k - 1), float((k - 1) * (n - 1)))
    rest = n * (k - 1) - chi2
    value = (n - 1) * chi2 / rest if rest > 1e-9 * n * (k - 1) else math.inf
    log_p = max(_log_sf_f(value, df), floor)
    how = f"F({df[0]:g}, {df[1]:g})"
    f = _outcome("Friedman (Iman-Davenport)", "F", float(value), log_p, n, df, how)
    exact = None
    if n <= EXACT_UNITS.get(k, 0):
        values_, shares = friedman_null(ranks)
        p = min(1.0, float(shares[values_ >= (sums**2).sum() - 1e-6].sum()))
        exact = Outcome("Friedman", "chi2", chi2, p, n, math.log10(p), (float(k - 1),), "exact")
    return Friedman(plain, f, kendalls_w(chi2, n, k), ranks.mean(0), exact)


def friedman_null(ranks: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of the sum of squared rank sums, and their shares, over all permutations of each row of ``ranks``."""
    rows = np.rint(2 * ranks).astype(np.int64)
    k = rows.shape[1]
    base = int(rows.sum()) + 1
    places = base ** np.arange(k, dtype=np.int64)
    states = np.sort(rows[:1], axis=1)  # sorted sums: the statistic does not ask whose they are
    shares: NDArray[np.float64] = np.ones(1)
    for row in rows[1:]:
        orders = np.array(list(itertools.permutations(row.tolist())))
        reached = np.sort((states[:, None] + orders).reshape(-1, k), axis=1)
        codes, first, inverse = np.unique(reached @ places, return_index=True, return_inverse=True)
        shares = np.asarray(np.bincount(inverse, np.repeat(shares / len(orders), len(orders)), codes.size), np.float64)
        states = reached[first]
    return (states / 2.0) ** 2 @ np.ones(k), shares


def nemenyi(mean_ranks: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """p of all pairs ``[k, k]`` after Friedman: P(range of k normals > sqrt(2) |dR| / sqrt(k (k + 1) / (6 n)))."""
    from scipy.stats import studentized_range

    k = mean_ranks.size
    gaps = np.abs(mean_ranks[:, None] - mean_ranks) / math.sqrt(k * (k + 1) / (6 * n))
    p = np.ones((k, k))
    upper = np.triu_indices(k, 1)
    p[upper] = np.clip(studentized_range.sf(math.sqrt(2) * gaps[upper], k, np.inf), 0, 1)
    return np.minimum(p, p.T)


def kruskal(values: NDArray[np.float64]) -> Outcome:
    """Kruskal-Wallis H over columns as independent groups, ties corrected."""
    from scipy import stats

    n, k = values.shape
    ranks, spread = _pooled_ranks(values)
    if spread <= 0:
        return Outcome("Kruskal-Wallis", "H", 0.0, 1.0, n, 0.0, (k - 1,), note="all values are equal")
    total = n * k
    h = float(n * ((ranks.mean(0) - (total + 1) / 2) ** 2).sum() / spread)
    return _outcome("Kruskal-Wallis", "H", h, float(stats.chi2.logsf(h, k - 1)), n, (k - 1,), "chi2 approximation")


def epsilon_squared(h: float, total: int) -> float:
    """Effect size of Kruskal-Wallis over ``total`` values: H / (N - 1)."""
    return h / (total - 1)


def dunn(values: NDArray[np.float64], a: int, b: int) -> Outcome:
    """Dunn's z (1964) of columns ``a`` and ``b`` among all groups: ties corrected, two-sided."""
    return dunn_all(values)[a][b]


def dunn_all(values: NDArray[np.float64]) -> list[list[Outcome]]:
    """Dunn's z of all pairs of columns; larger values rank higher."""
    n, k = values.shape
    ranks, spread = _pooled_ranks(values)
    means = ranks.mean(0)
    se = math.sqrt(spread * 2 / n)
    return [[_normal("Dunn", (means[a] - means[b]) / se if se > 0 else 0.0, n) for b in range(k)] for a in range(k)]


def anova_one_way(values: NDArray[np.float64]) -> tuple[Outcome, float]:
    """One-way analysis of variance over columns as independent groups, and eta squared."""
    n, k = values.shape
    means = values.mean(0)
    between = n * ((means - means.mean()) ** 2).sum()
    within = ((values - means) ** 2).sum()
    df = (float(k - 1), float(k * (n - 1)))
    eta2 = float(between / (between + within)) if between + within > 0 else 0.0
    return _f_test("one-way ANOVA", float(between), float(within), df, n), eta2


def anova_repeated(values: NDArray[np.float64]) -> Outcome:
    """Repeated-measures analysis of variance: methods within blocks, no correction for sphericity."""
    n, k = values.shape
    means = values.mean(0)
    residual = values - means - values.mean(1, keepdims=True) + values.mean()
    between = n * ((means - means.mean()) ** 2).sum()
    return _f_test("repeated-measures ANOVA", float(between), float((residual**2).sum()), (k - 1.0, (k - 1.0) * (n - 1)), n)


def levene(values: NDArray[np.float64]) -> Outcome:
    """Levene's test of equal variances with medians (Brown and Forsythe)."""
    n, k = values.shape
    spread = np.abs(values - np.median(values, axis=0))
    found, _ = anova_one_way(spread)
    return Outcome("Levene (median)", "W", found.value, found.p, n, found.log10_p, (k - 1, k * (n - 1)), found.how, found.note)


def tukey(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tukey's honest significant differences: p of all pairs of columns ``[k, k]``."""
    from scipy.stats import studentized_range

    n, k = values.shape
    means = values.mean(0)
    error = ((values - means) ** 2).sum() / (k * (n - 1))
    gaps = np.abs(means[:, None] - means)
    p = np.ones((k, k))
    upper = np.triu_indices(k, 1)
    if error > 0:
        p[upper] = np.clip(studentized_range.sf(gaps[upper] / math.sqrt(error / n), k, k * (n - 1)), 0, 1)
    else:
        p[upper] = np.where(gaps[upper] > 0, 0.0, 1.0)
    return np.minimum(p, p.T)


# -- two methods -------------------------------------------------------------------------------------------------------
def signed_rank(differences: NDArray[np.float64], digits: int | None = DIFFERENCE_DIGITS) -> SignedRank:
    """Wilcoxon's signed-rank test of paired differences ``[n]``, rounded to ``digits`` decimals (see ``SignedRank``)."""
    from scipy import stats

    d = differences if digits is None else np.round(differences, digits)
    kept = d[d != 0]
    m = kept.size
    if not m:
        return SignedRank(d.size, 0, 0.0, 0.0, False, 0.0, 1.0, 1.0, 1.0, 0.0)
    ranks = stats.rankdata(np.abs(kept))
    plus = float(ranks[kept > 0].sum())
    total = m * (m + 1) / 2
    sd = math.sqrt(float((ranks**2).sum()) / 4)  # = n (n + 1) (2 n + 1) / 24 - sum(t^3 - t) / 48
    gap = plus - total / 2
    z = gap / sd
    log_p = min(math.log(2) + float(stats.norm.logsf(abs(z))), 0.0)
    p_continuity = min(1.0, 2 * float(stats.norm.sf(max(abs(gap) - 0.5, 0.0) / sd)))
    tied = np.unique(ranks).size < m
    exact = _exact_signed_rank(ranks, plus) if m <= EXACT_UP_TO else None
    return SignedRank(d.size, m, plus, total - plus, tied, z, math.exp(log_p), p_continuity, exact, log_p / _LOG10)


def least_exact_p(n: int) -> float:
    """The smallest two-sided p of the exact signed-rank test on ``n`` units: 2^(1 - n)."""
    return min(1.0, 2.0 ** (1 - n))


def paired_t(differences: NDArray[np.float64]) -> Outcome:
    """Paired t test of differences ``[n]``. All zero: p = 1; another constant: t infinite, p = 0."""
    from scipy import stats

    d = np.round(differences, DIFFERENCE_DIGITS)
    n = d.size
    if not d.any():
        return Outcome("paired t", "t", 0.0, 1.0, n, 0.0, (n - 1,), note="the two are equal on every unit")
    if n < 2:
        return Outcome("paired t", "t", math.nan, math.nan, n, None, (n - 1,), note="one unit: no test")
    if (d == d[0]).all():
        note = "all differences are equal: t is not defined"
        return Outcome(
            "paired t", "t", math.copysign(math.inf, d[0]), 0.0, n, -math.inf, (n - 1,), note=note, direction=float(d[0])
        )
    t = float(d.mean() / (d.std(ddof=1) / math.sqrt(n)))
    log_p = min(math.log(2) + _log_sf_t(abs(t), n - 1), 0.0)
    found = float(2 * stats.t.sf(abs(t), n - 1))
    return Outcome("paired t", "t", t, found, n, log_p / _LOG10, (n - 1,), f"t({n - 1})", direction=t)


def t_interval(differences: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Confidence interval of the mean difference by Student's t."""
    from scipy import stats

    n = differences.size
    if n < 2:
        return math.nan, math.nan
    mean, half = float(differences.mean()), float(stats.t.isf((1 - level) / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    return mean - half, mean + half


def shapiro(sample: NDArray[np.float64]) -> Outcome:
    """Shapiro and Wilk's test of normality. Fewer than three values, or equal ones: W = 1, p NaN, and a note."""
    from scipy import stats

    x = np.asarray(sample, np.float64).ravel()
    if x.size < 3 or np.ptp(np.round(x, DIGITS)) == 0:
        note = "fewer than three values" if x.size < 3 else "all values are equal"
        return Outcome("Shapiro-Wilk", "W", 1.0, math.nan, x.size, note=note)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its words are the note
        w, p = stats.shapiro(x)
    note = f"p is not accurate for n > {SHAPIRO_UP_TO}" if x.size > SHAPIRO_UP_TO else ""
    return Outcome("Shapiro-Wilk", "W", float(w), float(p), x.size, _log10(float(p)), note=note)


def one_way_residuals(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values minus the mean of their method, pooled method by method."""
    return np.asarray((values - values.mean(0)).T.ravel())


# -- several tests -----------------------------------------------------------------------------------------------------
def adjust(p: NDArray[np.float64], correction: Correction) -> NDArray[np.float64]:
    """Adjusted p values of a family: Holm 1979, Bonferroni, Benjamini and Hochberg 1995, Benjamini and Yekutieli 2001."""
    return np.exp(np.minimum(adjust_log(np.log(np.maximum(p, 5e-324)), correction), 0.0)) * (p > 0)


def adjust_log(log_p: NDArray[np.float64], correction: Correction) -> NDArray[np.float64]:
    """The same on natural logarithms, so that corrected values do not underflow either."""
    if correction not in get_args(Correction):
        raise UserError(f"no correction {correction!r}. Known: {', '.join(get_args(Correction))}.")
    m = log_p.size
    if correction == "none" or m == 0:
        return np.array(log_p, np.float64)
    if correction == "bonferroni":
        return np.minimum(log_p + math.log(m), 0.0)
    order = np.argsort(log_p, kind="stable")
    place = np.arange(1, m + 1)
    if correction == "holm":
        found = np.maximum.accumulate(log_p[order] + np.log(m + 1 - place))
    else:
        factor = m * (1 / place).sum() if correction == "fdr_by" else m
        found = np.minimum.accumulate((log_p[order] + np.log(factor / place))[::-1])[::-1]
    result = np.empty(m)
    result[order] = np.minimum(found, 0.0)
    return result


# -- tails -------------------------------------------------------------------------------------------------------------
def _exact_signed_rank(ranks: NDArray[np.float64], plus: float) -> float:
    """Two-sided p over all 2^n signs of these ranks. Doubled, mean ranks are whole numbers."""
    steps = np.rint(2 * ranks).astype(np.intp)
    total = int(steps.sum())
    ways = np.zeros(total + 1)
    ways[0] = 1.0
    for step in steps:  # probability of every value of 2 W+
        ways[step:] += ways[: total + 1 - step].copy()
        ways /= 2
    low = min(round(2 * plus), total - round(2 * plus))
    return min(1.0, 2 * float(ways[: low + 1].sum()))


def _pooled_ranks(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Ranks of all values together, and N (N + 1) / 12 - sum(t^3 - t) / (12 (N - 1)), the variance that ties leave."""
    from scipy.stats import rankdata

    rounded = np.round(values, DIGITS)
    total = rounded.size
    _, ties = np.unique(rounded, return_counts=True)
    lost = float((ties.astype(float) ** 3 - ties).sum()) / (12 * (total - 1)) if total > 1 else 0.0
    ranks: NDArray[np.float64] = rankdata(rounded).reshape(rounded.shape)
    spread = total * (total + 1) / 12 - lost
    return ranks, spread if spread > 1e-9 * total else 0.0


def _normal(test: str, z: float, n: int) -> Outcome:
    from scipy.stats import norm

    log_p = min(math.log(2) + float(norm.logsf(abs(z))), 0.0)
    return replace(_outcome(test, "z", float(z), log_p, n, (), "normal approximation"), direction=float(z))


def _f_test(test: str, between: float, within: float, df: tuple[float, float], n: int) -> Outcome:
    scale = between + within
    if scale <= 0 or between <= 1e-24 * scale:
        return Outcome(test, "F", 0.0, 1.0, n, 0.0, df, note="the means are equal")
    f = (between / df[0]) / (within / df[1]) if within > 1e-24 * scale else math.inf
    return _outcome(test, "F", f, _log_sf_f(f, df), n, df, f"F({df[0]:g}, {df[1]:g})")


def _outcome(test: str, statistic: str, value: float, log_p: float, n: int, df: tuple[float, ...], how: str) -> Outcome:
    return Outcome(test, statistic, value, math.exp(log_p), n, log_p / _LOG10, df, how)


def _log_sf_f(f: float, df: tuple[float, float]) -> float:
    """log P(F > f). Where the tail underflows, its leading term: F's survival is an incomplete beta function near 0."""
    from scipy import special, stats

    if math.isinf(f):
        return -math.inf
    p = float(stats.f.sf(f, *df))
    if p > 1e-290:
        return math.log(p)
    a, b = df[1] / 2, df[0] / 2
    x = df[1] / (df[1] + df[0] * f)  # I_x(a, b) ~ x^a (1 - x)^b / (a B(a, b)) * (1 + x (a + b) / (a + 1) + ...)
    more = math.log1p(x * (a + b) / (a + 1) * (1 + x * (a + b + 1) / (a + 2)))
    return float(a * math.log(x) + b * math.log1p(-x) - math.log(a) - special.betaln(a, b) + more)


def _log_sf_t(t: float, df: float) -> float:
    """log P(T > t) for t > 0: half of the F tail of t squared."""
    return _log_sf_f(t * t, (1.0, df)) - math.log(2)


def _log10(p: float) -> float | None:
    return math.log10(p) if p > 0 else None
