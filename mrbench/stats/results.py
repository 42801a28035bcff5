"""What the statistics return: frozen records, each of which says how it came about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mrbench.stats.table import Measure

P_FLOOR = 1e-10  # below it tails of the studentised range are rounding noise, and digits say nothing
Preset = Literal["default", "res_srdiff", "ablation"]


@dataclass(frozen=True)
class Outcome:
    """One test.

    ``statistic`` names ``value`` (``W+``, ``t``, ``chi2``, ``F``, ``H``, ``z``, ``q``). ``log10_p`` stays finite where ``p``
    underflows (``None`` where no accurate tail is known). ``n``: units tested. ``how``: exact, or by which approximation.
    ``direction``: of two methods, positive where the first has the larger scores by what the test looks at.
    """

    test: str
    statistic: str
    value: float
    p: float
    n: int
    log10_p: float | None = None
    df: tuple[float, ...] = ()
    how: str = ""
    note: str = ""
    direction: float = 0.0

    @property
    def p_text(self) -> str:
        """``p = 0.012``, ``p < 1e-10``."""
        return p_text(self.p)


@dataclass(frozen=True)
class Interval:
    """A confidence interval. ``method``: how it was made; ``unit``: what was resampled or averaged over."""

    low: float
    high: float
    level: float
    method: str
    unit: str = "subjects"


@dataclass(frozen=True)
class Effects:
    """Effect sizes of ``a`` against ``b``, of the scores as they are (not turned round where lower is better).

    ``rank_biserial``: matched pairs, (W+ - W-) / (W+ + W-). ``cliffs_delta`` and ``a12`` ignore the pairing.
    ``dz``: mean over sd of the differences (NaN for a constant shift). ``hodges_lehmann``: median of the Walsh averages.
    """

    rank_biserial: float
    cliffs_delta: float
    a12: float
    dz: float
    hodges_lehmann: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests against a stated margin (Schuirmann 1987), on paired differences."""

    margin: float
    p: float
    p_adjusted: float
    interval: Interval  # of level 1 - 2 alpha: inside the margin exactly where the unadjusted test rejects
    equivalent: bool
    n: int
    correction: str


@dataclass(frozen=True)
class MixedModel:
    """Random-intercept model of the slices' differences, ``d_ij = mu + u_i + e_ij``, fitted by REML.

    ``u_i`` is what a subject adds to the difference of the two methods. ``p`` and ``interval`` use t with ``df`` degrees.
    """

    mean: float
    se: float
    t: float
    p: float
    df: float
    interval: Interval
    var_between: float
    var_within: float
    n_subjects: int
    n_slices: int

    @property
    def icc(self) -> float:
        """Share of the variance that lies between subjects; NaN where nothing varies."""
        total = self.var_between + self.var_within
        return self.var_between / total if total > 0 else math.nan

    @property
    def design_effect(self) -> float:
        """1 + (mean slices per subject - 1) * ICC: by which factor slices count less than independent ones."""
        return 1.0 if math.isnan(self.icc) else 1 + (self.n_slices / self.n_subjects - 1) * self.icc


@dataclass(frozen=True)
class Pair:
    """Method ``a`` against method ``b``: test, correction, difference ``a - b`` with its interval, effects, decision.

    ``different``: the decision at ``alpha``, after correction (and, without a control, only where the omnibus test rejects).
    ``better``: the name of the better one where they differ, else empty. ``detectable``: the smallest true difference that a
    paired t test finds with probability ``power`` at the corrected level, given the observed sd; NaN where unknown.
    """

    a: str
    b: str
    outcome: Outcome
    p_adjusted: float
    log10_p_adjusted: float | None
    correction: str
    alpha: float
    different: bool
    better: str
    difference: float
    interval: Interval | None
    effects: Effects
    detectable: float
    power: float
    normality: Outcome | None = None
    equivalence: Equivalence | None = None
    mixed: MixedModel | None = None


@dataclass(frozen=True)
class Standing:
    """One method among the others: mean and sd over units, average rank (1 is best), letters, stability of its place.

    Methods that share a letter were not shown to differ. ``first``: share of resampled subject sets in which its mean is the
    best. ``places``: 95 % interval of its place by mean over these.
    """

    method: str
    mean: float
    sd: float
    mean_rank: float
    letters: str
    first: float
    places: tuple[int, int]


@dataclass(frozen=True)
class Provenance:
    """How a result was computed: enough to do it again, and what it takes for granted."""

    preset: Preset
    unit: str
    n: int
    n_subjects: int
    n_slices: int
    omnibus: str
    posthoc: str
    correction: str
    family: str
    assumption: str
    alpha: float
    control: str
    seed: int
    resamples: int
    signature: str


@dataclass(frozen=True)
class MetricResult:
    """All that was found for one metric.

    ``standings`` are best first by average rank. ``effect`` names the omnibus test's effect size and gives it. ``wins[i][j]``:
    share of units on which ``methods[i]`` beats ``methods[j]``, ties by half (NaN on the diagonal). ``critical_difference``:
    of average ranks, with Nemenyi only. ``tau``: mean Kendall correlation of the order by mean under resampling with the
    observed one. ``reason``: why nothing was tested, empty where something was.
    """

    measure: Measure
    provenance: Provenance
    methods: tuple[str, ...]
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...] = ()
    normality: Outcome | None = None
    omnibus: Outcome | None = None
    effect: tuple[str, float] | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    wins: tuple[tuple[float, ...], ...] = ()
    critical_difference: float | None = None
    tau: float = math.nan
    notes: tuple[str, ...] = ()
    reason: str = ""

    def pair(self, first: str, second: str) -> Pair | None:
        """The comparison of two methods, whichever of them is ``a``."""
        return next((p for p in self.pairs if {p.a, p.b} == {first, second}), None)

    def change(self, pair: Pair) -> float:
        """The difference of a comparison in per cent of the mean of its ``b``; NaN where that is 0."""
        level = next(s.mean for s in self.standings if s.method == pair.b)
        return 100 * pair.difference / abs(level) if level else math.nan

    def not_shown_to_differ_from(self, method: str) -> tuple[str, ...]:
        """The methods that were tested against ``method`` and not shown to differ from it."""
        found = (p for p in self.pairs if method in (p.a, p.b) and not p.different)
        return tuple(p.b if p.a == method else p.a for p in found)


def p_text(p: float) -> str:
    """A p value in words: three decimals, scientific below 0.001, ``< 1e-10`` where digits mean nothing."""
    if math.isnan(p):
        return "p not defined"
    if p < P_FLOOR:
        return "p < 1e-10"
    if p < 0.001:
        return f"p = {p:.1e}"
    return f"p = {p:.3f}" if p < 0.9995 else "p = 1"
