"""Statistics in the words and numbers that the page prints, metric by metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrbench.report.site.charts import Chart, of_metric
from mrbench.report.stats_text import change_text, short_p
from mrbench.report.text import NOT_AVAILABLE, number

if TYPE_CHECKING:
    from mrbench.report.site.tasks import SiteTask
    from mrbench.stats.results import Interval, MetricResult, Pair, Standing


@dataclass(frozen=True)
class StandingLine:
    """One method: printed texts, and the numbers to sort by."""

    method: str
    mean: float
    mean_text: str
    rank: float
    letters: str
    first: str
    places: str


@dataclass(frozen=True)
class PairLine:
    """One comparison: printed texts, and the numbers to sort by."""

    a: str
    b: str
    difference: float
    difference_text: str
    change: str
    interval: str
    p: str
    corrected: float
    corrected_text: str
    verdict: str
    effect: str
    detectable: str
    equivalent: str
    sentence: str


@dataclass(frozen=True)
class Finding:
    """One metric. ``wins``: per method its name and the shares of units on which it beats each other one."""

    anchor: str
    title: str
    column: str
    arrow: str
    unit: str
    counted: str
    sentence: str
    tested: bool
    standings: tuple[StandingLine, ...]
    grouped: bool
    stable: bool
    level: str
    pairs: tuple[PairLine, ...]
    changes: bool
    equivalence: bool
    wins: tuple[tuple[str, tuple[str, ...]], ...]
    paragraph: str
    notes: tuple[str, ...]
    signature: str
    charts: tuple[Chart, ...]


def findings_of(task: SiteTask) -> list[Finding]:
    """All metrics of a task's statistics, with their figures; empty where there are no statistics."""
    if task.statistics is None:
        return []
    return [_finding(task, i, r) for i, r in enumerate(task.statistics.results, 1)]


def _finding(task: SiteTask, position: int, result: MetricResult) -> Finding:
    from mrbench.stats.sentences import methods_paragraph, omnibus_sentence

    m, w = result.measure, result.provenance
    return Finding(
        anchor=f"{task.anchor}-metric-{position}",
        title=m.title,
        column=m.name,
        arrow="↑" if m.higher_is_better else "↓",
        unit=m.unit,
        counted=w.unit,
        sentence=omnibus_sentence(result),
        tested=not result.reason,
        standings=tuple(_standing(result, s) for s in result.standings),
        grouped=any(s.letters for s in result.standings),
        stable=not math.isnan(result.tau),
        level=f"{100 * (1 - w.alpha):g} %",
        pairs=tuple(_pair(result, p) for p in result.pairs),
        changes=bool(w.control),
        equivalence=any(p.equivalence for p in result.pairs),
        wins=tuple((n, tuple(_share(x) for x in row)) for n, row in zip(result.methods, result.wins, strict=False)),
        paragraph="" if result.reason else methods_paragraph(result),
        notes=tuple(result.notes),
        signature=m.signature,
        charts=tuple(of_metric(task, position, result)),
    )


def _standing(result: MetricResult, s: Standing) -> StandingLine:
    digits = result.measure.digits
    low, high = s.places
    return StandingLine(
        method=s.method,
        mean=s.mean,
        mean_text=number(s.mean, digits) + ("" if math.isnan(s.sd) else f" ± {number(s.sd, digits)}"),
        rank=s.mean_rank,
        letters=s.letters,
        first=NOT_AVAILABLE if math.isnan(s.first) else f"{100 * s.first:.0f} %",
        places=f"{low}" if low == high else f"{low} to {high}",
    )


def _pair(result: MetricResult, p: Pair) -> PairLine:
    from mrbench.stats.sentences import amount, effect_text, pair_sentence

    m = result.measure
    e = p.equivalence
    return PairLine(
        a=p.a,
        b=p.b,
        difference=p.difference,
        difference_text=amount(m, p.difference, True),
        change=change_text(result, p) if result.provenance.control else "",
        interval=_interval(result, p.interval),
        p=short_p(p.outcome.p),
        corrected=p.p_adjusted,
        corrected_text=short_p(p.p_adjusted),
        verdict=p.better or "not shown",
        effect=effect_text(p),
        detectable=amount(m, p.detectable),
        equivalent="" if e is None else "yes" if e.equivalent else "not shown",
        sentence=pair_sentence(result, p),
    )


def _interval(result: MetricResult, interval: Interval | None) -> str:
    from mrbench.stats.sentences import amount

    if interval is None:
        return NOT_AVAILABLE
    low, high = (amount(result.measure, x, True).split()[0] for x in (interval.low, interval.high))
    return f"{low} to {high}"


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"
