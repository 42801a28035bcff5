"""Pictures of statistics: critical-difference diagram, forest plot of intervals."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from mrbench.report.figures import literal, new_figure
from mrbench.report.statistics import Statistics
from mrbench.report.stats_text import short_p, told_pairs
from mrbench.report.text import clean, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrbench.stats.results import MetricResult, Pair

_NAME = 30
_LINE = 0.24  # inches between labels
_BAR = 0.13  # inches between bars
_FOOT_LINE, _FOOT_LETTER = 0.13, 0.052  # inches: lines and letters of small print
_INK, _SOFT, _BLUE = "#222222", "#888888", "#1f5fa8"


def critical_difference_figure(statistics: Statistics, result: MetricResult) -> Figure | None:
    """Average ranks on a line (Demsar 2006), the best to the left; bars join methods that were not shown to differ.

    ``None`` where there is nothing to draw: fewer than three methods, no test, or comparisons with a control only. The length of the
    critical difference is drawn where the test is Nemenyi's; with others the bars come from their corrected p values.
    """
    if result.reason or len(result.standings) < 3 or result.provenance.control:
        return None
    k = len(result.standings)
    left = math.ceil(k / 2)
    bars = [g for g in result.groups if len(g) > 1]
    rank_of = {s.method: s.mean_rank for s in result.standings}
    levels = _levels([(rank_of[g[0]], rank_of[g[-1]]) for g in bars])
    cd = result.critical_difference
    margin, middle = 0.35 + 0.075 * max(len(shorten(s.method, _NAME)) for s in result.standings) + 0.45, 4.2
    above = 0.8 + (0.35 if cd is not None else 0.0)
    depth = 0.14 + _BAR * (max(levels, default=-1) + 1) + 0.1  # of the bars below the line
    wide = 2 * margin + middle
    foot = _wrapped(_tests_in_words(result), wide)
    high = above + depth + _LINE * left + 0.3 + _FOOT_LINE * len(foot)
    figure = new_figure(wide, high)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, wide)
    axes.set_ylim(high, 0)
    axes.axis("off")

    def x(rank: float) -> float:
        return margin + (rank - 1) / (k - 1) * middle

    axes.plot([x(1), x(k)], [above, above], color=_INK, linewidth=1.2)
    for rank in range(1, k + 1):
        axes.plot([x(rank)] * 2, [above - 0.07, above], color=_INK, linewidth=1.0)
        axes.text(x(rank), above - 0.1, str(rank), fontsize=8, ha="center", va="bottom")
    for position, s in enumerate(result.standings):
        on_left = position < left
        row = position if on_left else k - 1 - position
        y = above + depth + _LINE * row
        end = margin - 0.12 if on_left else wide - margin + 0.12
        axes.plot([x(s.mean_rank), x(s.mean_rank), end], [above, y, y], color=_INK, linewidth=0.8)
        text = (
            f"{shorten(clean(s.method), _NAME)}  {s.mean_rank:.2f}"
            if on_left
            else f"{s.mean_rank:.2f}  {shorten(clean(s.method), _NAME)}"
        )
        axes.text(
            end - 0.06 if on_left else end + 0.06,
            y,
            fontsize=8,
            va="center",
            ha="right" if on_left else "left",
            **literal(text),
        )
    for members, level in zip(bars, levels, strict=True):
        y = above + 0.14 + _BAR * level
        ends = [x(rank_of[members[0]]) - 0.05, x(rank_of[members[-1]]) + 0.05]
        axes.plot(ends, [y, y], color=_BLUE, linewidth=2.6, solid_capstyle="butt")
        places = [x(rank_of[m]) for m in members]  # a bar may pass over a method that is not in its set
        axes.plot(places, [y] * len(members), color=_BLUE, marker="o", markersize=4.5, linestyle="")
    if cd is not None:
        length = min(cd, k - 1.0)
        y = above - 0.42
        axes.plot([x(1), x(1 + length)], [y, y], color=_INK, linewidth=1.0, marker="|", markersize=6)
        axes.text((x(1) + x(1 + length)) / 2, y - 0.04, f"critical difference {cd:.2f}", fontsize=7, ha="center", va="bottom")
    w = result.provenance
    title = f"{result.measure.title}: {statistics.title}, average rank over {w.n} {w.unit} (1 is best){_demo(statistics)}"
    axes.text(0.12, 0.1, fontsize=9, va="top", weight="bold", **literal(shorten(title, int(15 * wide))))
    for i, line in enumerate(foot):
        axes.text(0.12, high - 0.1 - _FOOT_LINE * (len(foot) - 1 - i), fontsize=6.5, va="bottom", color=_SOFT, **literal(line))
    return figure


def _tests_in_words(result: MetricResult) -> str:
    w = result.provenance
    rejects = result.omnibus is not None and result.omnibus.p <= w.alpha
    omnibus = f"{result.omnibus.test} {result.omnibus.p_text}; " if result.omnibus is not None else ""
    if not rejects:
        words = "no difference among the methods was shown"
    elif any(len(g) > 1 for g in result.groups):
        words = "bars join methods (dots) that were not shown to differ"
    else:
        words = "all pairs differ, so that no bar joins any"
    return f"{omnibus}{w.posthoc}, correction: {w.correction}, alpha {w.alpha:g}; {words}"


def _wrapped(text: str, wide: float) -> list[str]:
    """Lines of small print that fit into ``wide`` inches."""
    return textwrap.wrap(text, int((wide - 0.24) / _FOOT_LETTER))


def forest_figure(statistics: Statistics, result: MetricResult) -> Figure | None:
    """Mean differences with their intervals, one line per comparison; ``None`` where there is no interval.

    Many comparisons are cut down to those of the method with the best average rank. Filled marks: shown to differ. A band marks the
    margin of equivalence where one was stated.
    """
    pairs = [p for p in told_pairs(result) if p.interval is not None]
    if not pairs:
        return None
    m, control = result.measure, result.provenance.control
    names = [_pair_name(p, control) for p in pairs]
    margin = 0.3 + 0.066 * max(len(n) for n in names)
    beside = 1.5
    w, wide = result.provenance, margin + 3.9 + beside
    test = f"{w.posthoc} on {w.n} {w.unit}, correction: {w.correction}"
    foot = _wrapped(f"filled: shown to differ, hollow: not shown to differ ({test})", wide)
    below = 0.55 + _FOOT_LINE * len(foot)
    high = 0.52 + below + 0.26 * len(pairs) + 0.35
    figure = new_figure(wide, high)
    axes = figure.add_axes((margin / wide, below / high, 3.9 / wide, (high - 0.52 - below) / high))
    axes.axvline(0, color=_SOFT, linewidth=0.8, zorder=1)
    stated = next((p.equivalence.margin for p in pairs if p.equivalence is not None), None)
    if stated is not None:
        axes.axvspan(-stated, stated, color=_BLUE, alpha=0.1, linewidth=0, zorder=0)
    for y, p in enumerate(pairs):
        assert p.interval is not None
        colour = _BLUE if p.different else _SOFT
        axes.plot(
            [p.interval.low, p.interval.high],
            [y, y],
            color=colour,
            linewidth=1.3,
            marker="|",
            markersize=7,
            zorder=2,
            solid_capstyle="butt",
        )
        face = colour if p.different else "white"
        axes.plot([p.difference], [y], marker="s", markersize=3.4, color=colour, markerfacecolor=face, zorder=3, linestyle="")
        axes.text(
            1.02, y, fontsize=7, va="center", color=_INK, transform=axes.get_yaxis_transform(),
            **literal(f"{_corrected(p)} {_amount(p.difference, m.digits + 1)}"),
        )  # fmt: skip
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_yticks(range(len(pairs)), names, fontsize=8, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    unit = f" [{m.unit}]" if m.unit else ""
    arrow = "higher is better" if m.higher_is_better else "lower is better"
    axes.set_xlabel(f"difference in {m.title}{unit} ({arrow})", fontsize=8, parse_math=False)
    title = f"{m.title}: {statistics.title}" + (f", against {control}" if control else "") + _demo(statistics)
    figure.text(0.1 / wide, 1 - 0.08 / high, fontsize=9, va="top", weight="bold", **literal(shorten(title, int(13 * wide))))
    first = pairs[0].interval
    assert first is not None
    corrected = "p" if pairs[0].correction == "none" else "p corrected"
    words = f"{100 * first.level:g} % {first.method} intervals over {result.provenance.n_subjects} subjects; right: {corrected}, difference"
    if stated is not None:
        words += f"; band: margin ±{stated:g}"
    figure.text(0.1 / wide, 1 - 0.3 / high, fontsize=6.5, va="top", color=_SOFT, **literal(words))
    for i, line in enumerate(reversed(foot)):
        figure.text(0.1 / wide, (0.08 + _FOOT_LINE * i) / high, fontsize=6.5, va="bottom", color=_SOFT, **literal(line))
    return figure


def _demo(statistics: Statistics) -> str:
    return "; demonstration weights" if statistics.banner else ""


def _levels(spans: list[tuple[float, float]]) -> list[int]:
    """A level per bar, so that bars on one level stay apart."""
    ends: list[float] = []
    found = []
    for low, high in spans:
        level = next((i for i, end in enumerate(ends) if low > end + 0.12), len(ends))
        ends[level:] = [high, *ends[level + 1 :]]
        found.append(level)
    return found


def _pair_name(pair: Pair, control: str) -> str:
    a, b = shorten(clean(pair.a), _NAME), shorten(clean(pair.b), _NAME)
    return a if control else f"{a} - {b}"


def _corrected(pair: Pair) -> str:
    text = short_p(pair.p_adjusted)
    return f"p < {text[1:]};" if text.startswith("<") else f"p = {text};"


def _amount(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}"
