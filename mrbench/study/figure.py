"""The ratings of a study as a picture: how often each was given, and means with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mrbench.report.figures import literal, new_figure
from mrbench.report.text import clean, count, shorten
from mrbench.study.results import CriterionResult, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = 24
_INK, _SOFT, _BLUE, _WARM = "#222222", "#777777", "#1f5fa8", "#c05a00"
_LOW, _HIGH = (0.84, 0.42, 0.10), (0.12, 0.37, 0.66)  # colours of the scale's ends; grey in the middle
_ROW = 0.3  # inches per method
_MARKS = "osD^vPX*"  # of readers


def ratings_figure(result: StudyResult) -> Figure:
    """A row per criterion: to the left the share of every rating, to the right means with their BCa intervals.

    Small open marks are the means of single readers. Methods are in the order of the study, controls below a line.
    """
    order = [i for i, s in enumerate(result.criteria[0].scores) if not s.control]
    order += [i for i, s in enumerate(result.criteria[0].scores) if s.control]
    names = [shorten(clean(s.method), _NAME) for s in result.criteria[0].scores]
    margin = 0.35 + 0.075 * max(len(n) for n in names)
    left, right, gap, beside = 3.1, 2.7, 0.3, 0.62
    block, head, foot = _ROW * len(order) + 0.42, 0.55, 0.75  # inches: a criterion with its name, title, axis and legend
    wide, high = margin + left + gap + right + beside, head + block * len(result.criteria) + foot
    figure = new_figure(wide, high)
    for row, found in enumerate(result.criteria):
        bottom = (foot + block * (len(result.criteria) - 1 - row)) / high
        size = (_ROW * len(order)) / high
        bars = figure.add_axes((margin / wide, bottom, left / wide, size))
        means = figure.add_axes(((margin + left + gap) / wide, bottom, right / wide, size))
        last = row == len(result.criteria) - 1
        _shares(bars, result, found, order, [names[i] for i in order], last)
        _means(means, result, found, order, last)
        figure.text(0.1 / wide, bottom + size + 0.07 / high, fontsize=9, weight="bold", color=_INK, va="bottom",
                    **literal(shorten(clean(found.criterion), 60)))  # fmt: skip
    demo = "; demonstration weights" if result.banner else ""
    title = f"Reader study, {clean(result.title)}{demo}"
    figure.text(0.1 / wide, 1 - 0.1 / high, fontsize=10, weight="bold", va="top", **literal(shorten(title, int(13 * wide))))
    words = [count(len(result.readers), "reader"), f"{count(result.images, 'image')} of {count(result.subjects, 'subject')}"]
    if result.missing:
        words.append(f"{count(len(result.missing), 'reader')} not finished")
    figure.text(0.1 / wide, 1 - 0.33 / high, fontsize=7.5, va="top", color=_SOFT, **literal(", ".join(words)))
    _legend(figure, result, wide, high)
    return figure


def _shares(axes: Axes, result: StudyResult, found: CriterionResult, order: list[int], names: list[str], last: bool) -> None:
    steps = result.scale[1] - result.scale[0] + 1
    for y, i in enumerate(order):
        s = found.scores[i]
        start = 0.0
        for step, n in enumerate(s.counts):
            share = n / s.n if s.n else 0.0
            colour, dark = _colour(step, steps)
            axes.barh(y, share, left=start, height=0.72, color=colour, linewidth=0)
            if share >= 0.08:
                axes.text(start + share / 2, y, str(result.scale[0] + step), fontsize=7, ha="center", va="center",
                          color="white" if dark else _INK)  # fmt: skip
            start += share
    _frame(axes, order, found)
    axes.set_yticks(range(len(order)), names, fontsize=8, parse_math=False)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"] if last else ["", "", ""], fontsize=7)
    if last:
        axes.set_xlabel("share of ratings", fontsize=8)


def _means(axes: Axes, result: StudyResult, found: CriterionResult, order: list[int], last: bool) -> None:
    low, high = result.scale
    for value in range(low, high + 1):
        axes.axvline(value, color="#e6e6e6", linewidth=0.7, zorder=0)
    for y, i in enumerate(order):
        s = found.scores[i]
        if not s.n:
            continue
        colour = _SOFT if s.control else _BLUE
        if s.bca is not None:
            axes.plot([s.bca.low, s.bca.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
        axes.plot([s.mean], [y], marker="s", markersize=5, color=colour, linestyle="", zorder=3)
        if len(result.readers) > 1:
            for r, mean in enumerate(s.by_reader):
                if not math.isnan(mean):
                    axes.plot([mean], [y + 0.26], marker=_MARKS[r % len(_MARKS)], markersize=3.2, color=_WARM,
                              markerfacecolor="white", markeredgewidth=0.8, linestyle="", zorder=4, clip_on=False)  # fmt: skip
        text = f"{s.mean:.2f}" + (f"  {s.letters}" if s.letters else "")
        axes.text(1.02, y, text, fontsize=7, va="center", color=_INK, transform=axes.get_yaxis_transform())
    _frame(axes, order, found)
    axes.set_yticks([])
    axes.set_xlim(low - 0.15, high + 0.15)
    ticks = list(range(low, high + 1))
    axes.set_xticks(ticks, [str(t) for t in ticks] if last else [""] * len(ticks), fontsize=7)
    if last:
        axes.set_xlabel(f"mean rating, from {result.scale_text}", fontsize=8, parse_math=False)


def _frame(axes: Axes, order: list[int], found: CriterionResult) -> None:
    axes.set_ylim(len(order) - 0.45, -0.55)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    entries = sum(not found.scores[i].control for i in order)
    if 0 < entries < len(order):
        axes.axhline(entries - 0.5, color="#bbbbbb", linewidth=0.7)


def _legend(figure: Figure, result: StudyResult, wide: float, high: float) -> None:
    level = f"{100 * result.level:g} %"
    some = any(s.bca for c in result.criteria for s in c.scores)
    words = (
        f"square: mean, line: {level} BCa interval over {result.unit}" if some else "square: mean (too few units for intervals)"
    )
    if len(result.readers) > 1:
        marks = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle", "v": "turned triangle", "P": "plus", "X": "cross",
                 "*": "star"}  # fmt: skip
        shown = [f"{marks[_MARKS[i]]} {shorten(clean(r.name), 16)}" for i, r in enumerate(result.readers[: len(_MARKS)])]
        figure.text(0.1 / wide, 0.21 / high, fontsize=6.5, va="bottom", color=_SOFT,
                    **literal(shorten("open marks, means of readers: " + ", ".join(shown), int(26 * wide))))  # fmt: skip
    if any(s.letters for c in result.criteria for s in c.scores):
        words += "; a shared letter: not shown to differ"
    figure.text(0.1 / wide, 0.08 / high, fontsize=6.5, va="bottom", color=_SOFT, **literal(words))


def _colour(step: int, steps: int) -> tuple[tuple[float, float, float], bool]:
    """From warm over light grey to blue, and whether it is dark."""
    place = step / max(steps - 1, 1) * 2 - 1
    end = _LOW if place < 0 else _HIGH
    weight = abs(place)
    mixed = tuple(0.88 * (1 - weight) + e * weight for e in end)
    return (mixed[0], mixed[1], mixed[2]), weight > 0.7
