"""Which tests answer which question: the default, the field's own, and ablations.

``default``   subject means: Friedman (exact, or in its F form), then exact signed-rank tests with Holm's correction, or Nemenyi's;
              two methods: a paired t test, or the signed-rank test where Shapiro and Wilk reject normal differences.
``ablation``  subject means: for every pair the paired t test or, by the same rule, the signed-rank test, with Holm's
              correction and no omnibus test.
``res_srdiff``  as printed in "MRI super-resolution reconstruction using efficient diffusion probabilistic model with
              residual shifting" (2025): slices; Shapiro and Wilk on residuals, then one-way ANOVA and Tukey, or
              Kruskal-Wallis and Dunn-Bonferroni. It takes slices and methods as independent, which they are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from mrbench.errors import UserError
from mrbench.stats import ranks, tests
from mrbench.stats.bootstrap import RESAMPLES, ClusterBootstrap, IntervalMethod, cluster_bootstrap
from mrbench.stats.effects import effects_of
from mrbench.stats.equivalence import detectable_difference, equivalence_tests
from mrbench.stats.mixed import difference_model
from mrbench.stats.results import Equivalence, MetricResult, MixedModel, Outcome, Pair, Preset, Provenance, Standing
from mrbench.stats.table import DIFFERENCE_DIGITS, Block, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 3  # units below which nothing is tested
FEW = 10  # subjects below which bootstrap intervals are known to be too short
Posthoc = Literal["wilcoxon", "nemenyi"]

_ASSUMES = {
    "default": "subjects are independent; slices of a subject may depend on each other in any way",
    "ablation": "subjects are independent; slices of a subject may depend on each other in any way; the test of a pair was "
    "chosen by a test of normality",
    "res_srdiff": "takes slices as independent of each other and methods as independent groups. Here slices are nested in "
    "subjects and all methods restored the same slices, so that neither its error rate nor its power is what it claims",
}


@dataclass(frozen=True)
class Plan:
    """How one metric is analysed.

    ``control``: test every other method against this one alone. ``margin``: in the metric's unit, below which a difference
    does not matter; it adds tests of equivalence. ``power``: of the smallest detectable difference.
    """

    preset: Preset = "default"
    posthoc: Posthoc = "wilcoxon"
    correction: tests.Correction = "holm"
    control: str = ""
    alpha: float = 0.05
    margin: float | None = None
    interval: IntervalMethod = "bca"
    resamples: int = RESAMPLES
    seed: int = 0
    power: float = 0.8

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        for name, value, known in (
            ("preset", self.preset, get_args(Preset)),
            ("post-hoc test", self.posthoc, get_args(Posthoc)),
            ("correction", self.correction, get_args(tests.Correction)),
        ):
            if value not in known:
                raise UserError(f"no {name} {value!r}. Known: {', '.join(known)}.")
        if not 0 < self.alpha < 0.5:
            raise UserError(f"alpha {self.alpha}: give a level between 0 and 0.5, for example 0.05.")
        if self.margin is not None and not (math.isfinite(self.margin) and self.margin > 0):
            raise UserError(f"margin {self.margin}: give a positive number in the metric's unit.")
        if self.resamples < 100:
            raise UserError(f"{self.resamples} bootstrap resamples are too few. Give at least 100; 10000 is usual.")
        if self.posthoc == "nemenyi" and (self.control or self.preset != "default"):
            raise UserError(
                "Nemenyi's test compares all pairs after Friedman's: it goes with the default preset and no control."
            )

    @property
    def unit(self) -> Unit:
        """What the tests count."""
        return "slices" if self.preset == "res_srdiff" else "subjects"


@dataclass(frozen=True)
class _Found:
    """The tests of a preset: outcome and corrected log p per pair."""

    outcomes: list[Outcome]
    log_p: NDArray[np.float64]
    correction: str
    posthoc: str
    omnibus: Outcome | None = None
    effect: tuple[str, float] | None = None
    normality: Outcome | None = None
    pair_normality: list[Outcome] | None = None
    critical_difference: float | None = None
    notes: tuple[str, ...] = ()


def analyse(block: Block, plan: Plan) -> MetricResult:
    """Everything about one metric. What was not tested says why in ``reason``.

    Raises
    ------
    UserError : the control is no method of the block, or an impossible plan.
    """
    gone = {x.name: x.reason for x in block.left_out if x.what == "method"}
    if plan.control and plan.control not in block.methods:
        if plan.control not in gone:
            raise UserError(f"no method {plan.control!r} to compare with. Methods: {', '.join(block.methods)}.")
        return _untested(block, plan, f"the control {plan.control} takes no part: {gone[plan.control]}")
    if not block.methods:
        return _untested(block, plan, "no method has a value")
    values = block.values(plan.unit)
    n, k = values.shape
    if k < 2:
        return _untested(block, plan, "one method: nothing to compare")
    if n < LEAST:
        what = plan.unit[:-1] if n == 1 else plan.unit
        return _untested(block, plan, f"{n} {what}: no test (at least {LEAST} are needed)")
    pairs = _pairs(block, plan)
    found = {"default": _default, "ablation": _ablation, "res_srdiff": _slices}[plan.preset](values, block, pairs, plan)
    boot = _bootstrap(block, plan)
    return _assemble(block, plan, values, pairs, found, boot)


# -- presets -----------------------------------------------------------------------------------------------------------
def _default(values: NDArray[np.float64], block: Block, pairs: Sequence[tuple[int, int]], plan: Plan) -> _Found:
    n, k = values.shape
    if k == 2:
        return _by_normality(values, pairs, plan)
    overall = tests.friedman(values, block.measure.higher_is_better)
    effect = ("Kendall's W", overall.w)
    if plan.posthoc == "nemenyi":
        p = tests.nemenyi(overall.mean_ranks, n)
        gaps = [float(overall.mean_ranks[b] - overall.mean_ranks[a]) * block.measure.sign for a, b in pairs]
        outcomes = [
            Outcome("Nemenyi", "rank gap", abs(g), float(p[a, b]), n, how=f"range of {k} normals", direction=g)
            for g, (a, b) in zip(gaps, pairs, strict=True)
        ]
        logs = np.array([_log(o) for o in outcomes])
        cd = ranks.critical_difference(k, n, plan.alpha)
        words = f"Nemenyi's, over {len(pairs)} pairs"
        return _Found(outcomes, logs, words, "Nemenyi", overall.outcome, effect, critical_difference=cd)
    outcomes = [tests.signed_rank(_differences(values, a, b)).outcome for a, b in pairs]
    logs, words = _corrected(outcomes, plan.correction)
    return _Found(outcomes, logs, words, "Wilcoxon signed-rank", overall.outcome, effect, notes=_reach(n, len(pairs), plan))


def _ablation(values: NDArray[np.float64], block: Block, pairs: Sequence[tuple[int, int]], plan: Plan) -> _Found:
    return _by_normality(values, pairs, plan)


def _by_normality(values: NDArray[np.float64], pairs: Sequence[tuple[int, int]], plan: Plan) -> _Found:
    """Per pair: paired t where Shapiro and Wilk do not reject normal differences, else signed-rank."""
    outcomes, normality = [], []
    for a, b in pairs:
        d = _differences(values, a, b)
        shape = tests.shapiro(d)
        normality.append(shape)
        outcomes.append(tests.paired_t(d) if shape.p > plan.alpha else tests.signed_rank(d).outcome)
    logs, words = _corrected(outcomes, plan.correction)
    ranked = any(o.statistic != "t" for o in outcomes)
    notes = _reach(len(values), len(pairs), plan) if ranked else ()
    return _Found(outcomes, logs, words, "paired t or Wilcoxon signed-rank, by Shapiro-Wilk", pair_normality=normality,
                  notes=notes)  # fmt: skip


def _slices(values: NDArray[np.float64], block: Block, pairs: Sequence[tuple[int, int]], plan: Plan) -> _Found:
    n, k = values.shape
    shape = tests.shapiro(tests.one_way_residuals(values))
    if shape.p > plan.alpha:
        omnibus, eta2 = tests.anova_one_way(values)
        p = tests.tukey(values)
        gaps = [float(values[:, a].mean() - values[:, b].mean()) for a, b in pairs]
        outcomes = [
            Outcome("Tukey HSD", "mean difference", g, float(p[a, b]), n, how=f"range of {k} means", direction=g)
            for g, (a, b) in zip(gaps, pairs, strict=True)
        ]
        logs = np.array([_log(o) for o in outcomes])
        return _Found(outcomes, logs, f"Tukey's, over {k * (k - 1) // 2} pairs", "Tukey HSD", omnibus,
                      ("eta squared", eta2), shape)  # fmt: skip
    omnibus = tests.kruskal(values)
    table = tests.dunn_all(values)
    outcomes = [table[a][b] for a, b in pairs]
    logs, words = _corrected(outcomes, "bonferroni")
    effect = ("epsilon squared", tests.epsilon_squared(omnibus.value, values.size))
    return _Found(outcomes, logs, words, "Dunn", omnibus, effect, shape)


# -- parts -------------------------------------------------------------------------------------------------------------
def _pairs(block: Block, plan: Plan) -> list[tuple[int, int]]:
    """All pairs, or every other method against the control (which is then ``b``)."""
    k = len(block.methods)
    if plan.control:
        c = block.methods.index(plan.control)
        return [(m, c) for m in range(k) if m != c]
    return [(a, b) for a in range(k) for b in range(a + 1, k)]


def _differences(values: NDArray[np.float64], a: int, b: int) -> NDArray[np.float64]:
    return np.round(values[:, a] - values[:, b], DIFFERENCE_DIGITS)


def _log(outcome: Outcome) -> float:
    if outcome.log10_p is not None:
        return outcome.log10_p * math.log(10)
    return math.log(outcome.p) if outcome.p > 0 else -math.inf


def _corrected(outcomes: Sequence[Outcome], correction: tests.Correction) -> tuple[NDArray[np.float64], str]:
    logs = tests.adjust_log(np.array([_log(o) for o in outcomes]), correction)
    words = f"{tests.NAMES[correction]} over {len(outcomes)} pairs" if correction != "none" and len(outcomes) > 1 else "none"
    return logs, words


def _reach(n: int, m: int, plan: Plan) -> tuple[str, ...]:
    """What so few subjects can show at all."""
    least = tests.least_exact_p(n)
    family = 1 if plan.correction == "none" else m
    if least * family <= plan.alpha:
        return ()
    corrected = f", {min(1.0, least * family):.3g} after correction over {m} pairs" if family > 1 else ""
    return (f"with {n} subjects the exact signed-rank test cannot give p below {least:.3g}{corrected}: "
            f"no pair can be significant at {plan.alpha:g}, whatever the scores",)  # fmt: skip


def _bootstrap(block: Block, plan: Plan) -> ClusterBootstrap | None:
    """Of the means that the unit asks for, always with whole subjects resampled; ``None`` with fewer than three."""
    if block.n_subjects < LEAST:
        return None
    if plan.unit == "subjects":
        return cluster_bootstrap(block.means, np.ones(block.n_subjects), plan.resamples, plan.seed)
    sizes = block.sizes.astype(float)
    return cluster_bootstrap(block.means * sizes[:, None], sizes, plan.resamples, plan.seed)


def _mixed(block: Block, pairs: Sequence[tuple[int, int]], level: float) -> list[MixedModel | None]:
    """Only where subjects have several slices: else it says what the t test says."""
    if block.n_slices == block.n_subjects or block.n_subjects < LEAST:
        return [None] * len(pairs)
    scores = block.scores
    return [difference_model(np.round(scores[:, a] - scores[:, b], DIFFERENCE_DIGITS), block.subject, level) for a, b in pairs]


def _equivalence(block: Block, pairs: Sequence[tuple[int, int]], plan: Plan) -> list[Equivalence | None]:
    if plan.margin is None or block.n_subjects < LEAST:
        return [None] * len(pairs)
    means = block.means
    return list(equivalence_tests([_differences(means, a, b) for a, b in pairs], plan.margin, plan.alpha))


def _assemble(
    block: Block,
    plan: Plan,
    values: NDArray[np.float64],
    pairs: Sequence[tuple[int, int]],
    found: _Found,
    boot: ClusterBootstrap | None,
) -> MetricResult:
    names, sign = block.methods, block.measure.sign
    level = 1 - plan.alpha
    open_gate = bool(plan.control) or found.omnibus is None or found.omnibus.p <= plan.alpha
    mixed = _mixed(block, pairs, level)
    equal = _equivalence(block, pairs, plan)
    means = block.means
    made: list[Pair] = []
    for i, (a, b) in enumerate(pairs):
        p = math.exp(found.log_p[i])
        different = open_gate and p <= plan.alpha
        d = _differences(means, a, b)
        sd = float(d.std(ddof=1)) if d.size >= LEAST else math.nan
        made.append(
            Pair(
                a=names[a],
                b=names[b],
                outcome=found.outcomes[i],
                p_adjusted=p,
                log10_p_adjusted=float(found.log_p[i]) / math.log(10),
                correction=found.correction,
                alpha=plan.alpha,
                different=different,
                better=(names[a] if sign * found.outcomes[i].direction > 0 else names[b]) if different else "",
                difference=float(values[:, a].mean() - values[:, b].mean()),
                interval=boot.difference(a, b, level, plan.interval) if boot is not None else None,
                effects=effects_of(values[:, a], values[:, b]),
                detectable=detectable_difference(
                    sd, d.size, plan.alpha / (1 if plan.correction == "none" else len(pairs)), plan.power
                ),
                power=plan.power,
                normality=found.pair_normality[i] if found.pair_normality is not None else None,
                equivalence=equal[i],
                mixed=mixed[i],
            )
        )
    different_matrix = _matrix(made, names)
    mean_ranks = ranks.average_ranks(values, block.measure.higher_is_better)
    order = sorted(range(len(names)), key=lambda m: (mean_ranks[m], -sign * float(means[:, m].mean())))
    sets = [] if plan.control else ranks.groups(different_matrix, order)
    stable = ranks.rank_stability(boot, block.measure.higher_is_better) if boot is not None else None
    wins = ranks.win_matrix(values, block.measure.higher_is_better)
    return MetricResult(
        measure=block.measure,
        provenance=_provenance(block, plan, found),
        methods=names,
        standings=tuple(_standings(block, values, mean_ranks, order, sets, stable)),
        pairs=tuple(made),
        normality=found.normality,
        omnibus=found.omnibus,
        effect=found.effect,
        groups=tuple(tuple(names[m] for m in members) for members in sets),
        wins=tuple(tuple(float(x) for x in row) for row in wins),
        critical_difference=found.critical_difference,
        tau=stable.tau if stable is not None else math.nan,
        notes=tuple(_notes(block, plan, found, made, open_gate)),
    )


def _matrix(pairs: Sequence[Pair], names: Sequence[str]) -> NDArray[np.bool_]:
    different = np.zeros((len(names), len(names)), dtype=bool)
    for p in pairs:
        a, b = names.index(p.a), names.index(p.b)
        different[a, b] = different[b, a] = p.different
    return different


def _standings(
    block: Block,
    values: NDArray[np.float64],
    mean_ranks: NDArray[np.float64],
    order: Sequence[int],
    sets: Sequence[tuple[int, ...]],
    stable: ranks.Stability | None,
) -> list[Standing]:
    letters = ranks.letters_of(sets, len(order))
    found = []
    for m in order:
        sd = float(values[:, m].std(ddof=1)) if len(values) > 1 else math.nan
        first = float(stable.first[m]) if stable is not None else math.nan
        places = (int(stable.low[m]), int(stable.high[m])) if stable is not None else (1, len(order))
        found.append(
            Standing(block.methods[m], float(values[:, m].mean()), sd, float(mean_ranks[m]), letters[m], first, places)
        )
    return found


def _provenance(block: Block, plan: Plan, found: _Found | None) -> Provenance:
    whom = f"all methods against {plan.control}" if plan.control else "all pairs of methods"
    return Provenance(
        preset=plan.preset,
        unit=plan.unit,
        n=block.n_subjects if plan.unit == "subjects" else block.n_slices,
        n_subjects=block.n_subjects,
        n_slices=block.n_slices,
        omnibus=found.omnibus.test if found is not None and found.omnibus is not None else "",
        posthoc=found.posthoc if found is not None else "",
        correction=found.correction if found is not None else "",
        family=f"{whom}, of this metric on this data set",
        assumption=_ASSUMES[plan.preset],
        alpha=plan.alpha,
        control=plan.control,
        seed=plan.seed,
        resamples=plan.resamples,
        signature=block.measure.signature,
    )


def _notes(block: Block, plan: Plan, found: _Found, pairs: Sequence[Pair], open_gate: bool) -> list[str]:
    notes = block.notes()
    if plan.preset == "res_srdiff":
        notes.append(f"preset res_srdiff {_ASSUMES['res_srdiff']}")
        iccs = [p.mixed for p in pairs if p.mixed is not None and not math.isnan(p.mixed.icc)]
        if iccs:
            worst = max(iccs, key=lambda m: m.design_effect)
            notes.append(
                f"differences between methods have an intraclass correlation within subjects of up to {worst.icc:.2f}: "
                f"{block.n_slices} slices then count as {block.n_slices / worst.design_effect:.0f} independent ones"
            )
    notes += found.notes
    notes += [f"{found.normality.test}: {found.normality.note}"] if found.normality is not None and found.normality.note else []
    if not open_gate and any(p.p_adjusted <= plan.alpha for p in pairs):
        notes.append("the omnibus test does not reject, so no pair counts as different, whatever its own p")
    if block.n_subjects < LEAST:
        notes.append(f"{block.n_subjects} subject{'s' * (block.n_subjects != 1)}: no intervals (at least {LEAST} are needed)")
    elif block.n_subjects < FEW:
        notes.append(f"bootstrap intervals over {block.n_subjects} subjects tend to be too short")
    if plan.preset != "res_srdiff":
        notes += _sensitivity(pairs, plan)
    return notes


def _sensitivity(pairs: Sequence[Pair], plan: Plan) -> list[str]:
    """Where the mixed model of the slices decides otherwise."""
    fitted = [(p, p.mixed) for p in pairs if p.mixed is not None]
    if not fitted:
        return []
    corrected = tests.adjust(np.array([m.p for _, m in fitted]), plan.correction)
    other = [p for (p, _), q in zip(fitted, corrected, strict=True) if (q <= plan.alpha) != p.different]
    if not other:
        return [
            f"sensitivity: a mixed model of the slices (subject as random effect) decides alike for all {len(fitted)} pairs"
        ]
    named = ", ".join(f"{p.a} - {p.b}" for p in other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
    return [f"sensitivity: a mixed model of the slices (subject as random effect) decides otherwise for {named}"]


def _untested(block: Block, plan: Plan, reason: str) -> MetricResult:
    standings: tuple[Standing, ...] = ()
    if block.scores.size:
        values = block.values(plan.unit)
        mean_ranks = ranks.average_ranks(values, block.measure.higher_is_better)
        order = sorted(range(values.shape[1]), key=lambda m: mean_ranks[m])
        standings = tuple(_standings(block, values, mean_ranks, order, [], None))
    notes = tuple(block.notes())
    return MetricResult(block.measure, _provenance(block, plan, None), block.methods, standings, notes=notes, reason=reason)
