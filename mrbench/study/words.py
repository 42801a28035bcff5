"""The results of a study in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mrbench.report.text import count, number
from mrbench.stats.agreement_intervals import Agreed
from mrbench.stats.results import Interval, MetricResult, Pair
from mrbench.stats.sentences import (
    amount,
    effect_text,
    equivalence_sentence,
    interval_text,
    omnibus_sentence,
    test_text,
)
from mrbench.study.results import Agreement, CriterionResult, StudyResult


def ends(interval: Interval | None, digits: int = 2) -> str:
    """``3.93 to 4.35``; ``n/a`` without an interval."""
    return "n/a" if interval is None else f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def agreed_text(found: Agreed, digits: int = 2) -> str:
    """``0.71 (0.52 to 0.84)``."""
    if math.isnan(found.value):
        return "not defined" if found.n else "n/a"
    inside = f" ({ends(found.interval, digits)})" if found.interval is not None else ""
    return f"{number(found.value, digits)}{inside}"


def share_text(value: float) -> str:
    """``87 %``."""
    return "n/a" if math.isnan(value) else f"{100 * value:.0f} %"


def sentences(result: StudyResult, found: CriterionResult) -> list[str]:
    """The omnibus sentence of a criterion, one per comparison, and one about the agreement."""
    told = [omnibus_sentence(found.test), *(pair_sentence(found.test, p) for p in found.test.pairs)]
    return told + ([agreement_sentence(found.criterion, found.agreement)] if found.agreement.pairs else [])


def pair_sentence(test: MetricResult, pair: Pair) -> str:
    """One comparison, with the higher mean first unless there is a control."""
    unit, control = test.provenance.unit, test.provenance.control
    swap = not control and (pair.better == pair.b or (not pair.better and pair.difference < 0))
    first, second, sign = (pair.b, pair.a, -1) if swap else (pair.a, pair.b, 1)
    m = test.measure
    inside = (
        f"mean difference {amount(m, sign * pair.difference, True)}, {interval_text(m, pair.interval, sign)}; "
        f"{test_text(pair, unit)}; {effect_text(pair, sign)}"
    )
    if pair.different:
        text = f"{m.title}: {first} is rated {'higher' if pair.better == first else 'lower'} than {second} ({inside})."
    else:
        text = f"{m.title}: no difference between {first} and {second} was shown ({inside}), which is no evidence of equality"
        if not math.isnan(pair.detectable) and pair.detectable > 0:
            text += (
                f": a paired t test on {count(pair.outcome.n, unit[:-1])} detects {amount(m, pair.detectable)} or more with "
                f"{100 * pair.power:.0f} % power at this correction"
            )
        text += "."
    extra = equivalence_sentence(test, pair)
    return f"{text} {extra}" if extra else text


def agreement_sentence(criterion: str, found: Agreement) -> str:
    """How far readers agree under one criterion."""
    kappas = [f"{p.first} and {p.second} {agreed_text(p.quadratic)}" for p in found.pairs]
    exact = [p.exact for p in found.pairs if not math.isnan(p.exact)]
    near = [p.within_one for p in found.pairs if not math.isnan(p.within_one)]
    raw = f"equal ratings {share_text(_mean(exact))}, at most one apart {share_text(_mean(near))}"
    return (
        f"{criterion}: agreement between readers: ICC(2,1) {agreed_text(found.icc_single)}, ICC(2,k) {agreed_text(found.icc_mean)} "
        f"on {count(found.icc_single.n, 'restored image')} that all readers rated; Krippendorff's ordinal alpha {agreed_text(found.alpha)} "
        f"on {found.alpha.n}; quadratic kappa {'; '.join(kappas)}; {raw}."
    )


def methods_paragraph(result: StudyResult) -> str:
    """What was done, as the methods section of a paper says it."""
    tests = [c.test.provenance for c in result.criteria if not c.test.reason]
    how = "One image at a time" if result.mode == "single" else "Two methods of one image side by side, each rated"
    text = (
        f"{count(len(result.readers), 'reader')} rated blinded images on a scale from {result.scale_text}, in an order of "
        f"their own. {how}. Means ± sd are over the ratings of readers who rated all methods of an image. Intervals: "
        f"{100 * result.level:g} %, bootstrap over {result.unit} with all their ratings (readers together), {result.resamples} "
        f"resamples, seed {result.seed}; those of differences and agreement are BCa."
    )
    if not tests:
        return f"{text} Nothing was tested."
    w = tests[0]
    names = f"{w.omnibus} test, then {w.posthoc}" if w.omnibus else w.posthoc
    unit = "per image" if result.unit == "images" else "per image and then per subject"
    corrected = "no correction" if w.correction == "none" else f"correction: {w.correction}"
    return (
        f"{text} Tests: on ratings averaged over readers {unit}; {names} ({corrected}; family: "
        f"{'all methods against ' + w.control if w.control else 'all pairs of methods'}, of one criterion; alpha {w.alpha:g}, "
        f"two-sided). Assumption: {w.assumption}."
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
