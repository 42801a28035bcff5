"""Results in words. Each sentence names test, unit, n, correction, effect and interval, and claims no more than they show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mrbench.stats.results import Interval, MetricResult, Pair, p_text
from mrbench.stats.table import Measure

_EFFECTS = {"paired t": "dz", "Dunn": "cliffs_delta", "Tukey HSD": "cliffs_delta"}  # default: rank_biserial
_EFFECT_NAMES = {"dz": "Cohen's dz", "cliffs_delta": "Cliff's delta", "rank_biserial": "matched rank-biserial r"}


def amount(measure: Measure, value: float, sign: bool = False, digits: int | None = None) -> str:
    """A score or difference with its unit, to one digit more than boards print: ``+0.123 dB``."""
    decimals = measure.digits + 1 if digits is None else digits
    if math.isnan(value):
        return "n/a"
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if value != 0 and abs(value) < 0.5 * 10.0**-decimals:
        text = f"{value:+.1e}" if sign else f"{value:.1e}"
    return f"{text} {measure.unit}".rstrip()


def interval_text(measure: Measure, interval: Interval | None, sign: int = 1) -> str:
    """``95 % BCa bootstrap interval over subjects +0.01 to +0.20 dB``; ``sign`` -1: of the opposite difference."""
    if interval is None:
        return "no interval"
    low, high = (interval.low, interval.high) if sign > 0 else (-interval.high, -interval.low)
    ends = f"{amount(measure, low, True).removesuffix(measure.unit).rstrip()} to {amount(measure, high, True)}"
    over = f" over {interval.unit}" if "bootstrap" in interval.method else ""
    return f"{100 * interval.level:g} % {interval.method} interval{over} {ends}"


def test_text(pair: Pair, unit: str) -> str:
    """``Wilcoxon signed-rank test (exact) on 21 subjects, p = 0.002, p = 0.012 after Holm over 6 pairs``."""
    o = pair.outcome
    how = f" ({o.how})" if o.how else ""
    means = " means" if unit == "subjects" else ""
    what = f"{o.test} test{how} on {o.n} {unit[:-1] + means if means else unit}"
    if pair.normality is not None and not math.isnan(pair.normality.p):
        verdict = "does not reject" if o.test == "paired t" else "rejects"
        what += f" (Shapiro-Wilk {verdict} normal differences, {pair.normality.p_text})"
    if pair.correction == "none":
        return f"{what}, {o.p_text}, uncorrected"
    if o.test in ("Nemenyi", "Tukey HSD"):
        return f"{what}, {p_text(pair.p_adjusted)} ({pair.correction})"
    return f"{what}, {o.p_text}, after {pair.correction} {p_text(pair.p_adjusted)}"


def pair_sentence(result: MetricResult, pair: Pair) -> str:
    """One comparison as one sentence (a second one on equivalence, where it was tested)."""
    m = result.measure
    unit = result.provenance.unit
    flip = pair.better == pair.b or (not pair.better and m.sign * pair.difference < 0)
    first, second = (pair.b, pair.a) if flip and not result.provenance.control else (pair.a, pair.b)
    sign = -1 if first == pair.b else 1
    size = f"mean difference {first} - {second} {amount(m, sign * pair.difference, True)}"
    inside = f"{size}, {interval_text(m, pair.interval, sign)}; {test_text(pair, unit)}; {effect_text(pair, sign)}"
    if pair.different:
        word = "better" if pair.better == first else "worse"
        text = f"{m.title}: {first} is {word} than {second} ({inside})."
    else:
        text = f"{m.title}: no difference between {first} and {second} was shown ({inside}), which is no evidence of equality"
        if not math.isnan(pair.detectable) and pair.detectable > 0:
            text += (
                f": a paired t test on {_subjects(result)} detects {amount(m, pair.detectable)} or more with "
                f"{100 * pair.power:.0f} % power at this correction"
            )
        text += "."
    extra = equivalence_sentence(result, pair)
    return f"{text} {extra}" if extra else text


def effect_text(pair: Pair, sign: int = 1) -> str:
    """The effect size that goes with the test."""
    name = _EFFECTS.get(pair.outcome.test, "rank_biserial")
    value = getattr(pair.effects, name)
    unpaired = ", which ignores the pairing" if name == "cliffs_delta" else ""
    return f"{_EFFECT_NAMES[name]} {'n/a' if math.isnan(value) else format(sign * value + 0.0, '+.2f')}{unpaired}"


def equivalence_sentence(result: MetricResult, pair: Pair) -> str:
    """Whether the two are equivalent within the stated margin; empty where that was not tested."""
    e = pair.equivalence
    if e is None:
        return ""
    shown = "are equivalent" if e.equivalent else "were not shown to be equivalent"
    corrected = f", after {e.correction} {p_text(e.p_adjusted)}" if e.correction != "none" else ""
    margin = amount(result.measure, e.margin, digits=_decimals(e.margin))
    return (
        f"{pair.a} and {pair.b} {shown} within ±{margin} (two one-sided paired t tests on {e.n} subject means, "
        f"{p_text(e.p)}{corrected}; {interval_text(result.measure, e.interval)})."
    )


def omnibus_sentence(result: MetricResult) -> str:
    """The test of all methods together, or why there was none."""
    m, where = result.measure, result.provenance
    if result.reason:
        return f"{m.title}: {result.reason}."
    o = result.omnibus
    if o is None:
        kind = f"{len(result.pairs)} planned comparison{'' if len(result.pairs) == 1 else 's'}, no omnibus test"
        return f"{m.title}: {kind}, {where.n} {where.unit}."
    size = f", {result.effect[0]} = {result.effect[1]:.2f}" if result.effect else ""
    verdict = "the methods differ" if o.p <= where.alpha else "no difference among the methods was shown"
    value = f"{o.value:.2f}" if math.isfinite(o.value) else "infinite"
    degrees = f"({', '.join(f'{d:g}' for d in o.df)})" if o.df else ""
    statistic = f"{o.statistic}{degrees} = {value}"
    exact = " (exact)" if o.how == "exact" else ""
    return f"{m.title}: {verdict} ({o.test} test{exact} of {len(result.methods)} methods on {where.n} {where.unit}, {statistic}, {o.p_text}{size})."


def sentences(result: MetricResult, pairs: Sequence[Pair] | None = None) -> list[str]:
    """The omnibus sentence, then one per comparison."""
    return [omnibus_sentence(result), *(pair_sentence(result, p) for p in (result.pairs if pairs is None else pairs))]


def methods_paragraph(result: MetricResult) -> str:
    """What was done, as the methods section of a paper says it."""
    w = result.provenance
    unit = "Scores were averaged per subject." if w.unit == "subjects" else "Slices were taken as they are."
    tests = f"{w.omnibus} test, then {w.posthoc}" if w.omnibus else w.posthoc
    corrected = "no correction" if w.correction == "none" else f"correction: {w.correction}"
    return (
        f"{unit} {tests or 'No test'} ({corrected}; family: {w.family}; alpha {w.alpha:g}, two-sided). Intervals: bootstrap over "
        f"subjects, {w.resamples} resamples, seed {w.seed}, not adjusted for several pairs. Assumption: {w.assumption}."
    )


def _subjects(result: MetricResult) -> str:
    n = result.provenance.n_subjects
    return f"{n} subject{'' if n == 1 else 's'}"


def _decimals(value: float) -> int:
    """As many as the number needs, 6 at most."""
    text = f"{value:.6f}".rstrip("0")
    return len(text.partition(".")[2])
