"""Box plots of metric columns: a box per method, a point per slice, coloured by subject."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.columns import Column, choose_columns
from mrbench.report.comparable import Comparison, compare, names_of, refuse_tiers
from mrbench.report.figures import literal, new_figure, save
from mrbench.report.text import count, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData

MOST_POINTS = 300  # per box; more are thinned out
_NAMED_SUBJECTS = 10  # up to here the legend names them
_ACROSS = 3
_PANEL = 2.7  # inches, width of one axes
_SEED = 20260


@dataclass(frozen=True)
class _Box:
    """The finite values of one method in one column, with what cannot be drawn."""

    values: NDArray[np.float64]
    subjects: NDArray[np.intp]
    n: int
    infinite: int
    missing: int

    @property
    def remark(self) -> str:
        """What is not drawn."""
        parts = [f"{self.infinite} infinite"] if self.infinite else []
        parts += [f"{self.missing} without value"] if self.missing else []
        return ", ".join(parts) + " not drawn" if parts else ""


def metric_boxplots(
    runs: Sequence[RunData], out_stem: Path, metrics: Sequence[str] | None = None, *, intersect: bool = False
) -> tuple[Path, Path]:
    """Write the plots as ``<out_stem>.png`` and ``<out_stem>.pdf``; returns both paths.

    Parameters
    ----------
    metrics : columns to show; default: all of draw 1, in the leaderboard's order.
    intersect : see ``build_board``.

    Raises
    ------
    UserError : runs that cannot be compared, or no column with a value.
    """
    return save(boxplot_figure(runs, metrics, intersect=intersect), out_stem)


def boxplot_figure(runs: Sequence[RunData], metrics: Sequence[str] | None = None, *, intersect: bool = False) -> Figure:
    """The plots as a figure: one axes per column, methods from top to bottom in the given order, controls last.

    Boxes span the quartiles of the finite values with the median inside, whiskers reach the farthest value within 1.5
    interquartile ranges. Infinite values and NaN are not drawn, and counted beside the box, as is n where it differs from
    the title's. Raises as ``metric_boxplots`` does.
    """
    comparison = compare(runs, intersect)
    refuse_tiers(runs)
    columns = [c for c in choose_columns(runs, metrics) if metrics is not None or "@" not in c.name]
    columns = [c for c in columns if any(np.isfinite(a.values(c.name)).any() for a in comparison.runs)]
    if not columns:
        raise UserError("there is no metric column with a finite value to plot. `mrbench show RUN` says why.")
    names = names_of(runs)
    order = sorted(range(len(runs)), key=lambda i: runs[i].manifest.method.control)
    across = min(_ACROSS, len(columns))
    down = math.ceil(len(columns) / across)
    labels = [shorten(names[i], 28) for i in order]
    margin = 0.25 + 0.068 * max(len(label) for label in labels)
    subjects = comparison.subjects
    legend_rows = math.ceil(len(subjects) / 4) if len(subjects) <= _NAMED_SUBJECTS else 1
    foot, head, tall = 0.35 + 0.2 * legend_rows, 0.45, 0.62 + 0.32 * len(order)
    figure = new_figure(max(margin + across * _PANEL, 5.0), head + down * (tall + 0.25) + foot)
    wide, high = figure.get_size_inches()
    colours = _colours(len(subjects))
    panel = (wide - margin) / across
    for position, column in enumerate(columns):
        left = margin + (position % across) * panel
        above = head + (position // across) * (tall + 0.25) + 0.28
        axes = figure.add_axes((left / wide, 1 - (above + tall - 0.5) / high, (panel - 0.25) / wide, (tall - 0.5) / high))
        boxes = [_box(comparison, i, column) for i in order]
        _draw(axes, column, boxes, colours)
        ticks = labels if position % across == 0 else [""] * len(order)
        axes.set_yticks(range(1, len(order) + 1), ticks, fontsize=8, parse_math=False)
    protocol, dataset = runs[0].manifest.protocol.name, runs[0].manifest.dataset.alias
    slices = f"{count(len(comparison.items), 'slice')} of {count(len(subjects), 'subject')}"
    thinned = f"; at most {MOST_POINTS} points per box are drawn" if len(comparison.items) > MOST_POINTS else ""
    title = f"{dataset}, {protocol}: {slices}, a point per slice{thinned}"
    figure.text(0.1 / wide, 1 - 0.1 / high, fontsize=9, va="top", weight="bold", **literal(title))
    _legend(figure, subjects, colours)
    return figure


def _box(comparison: Comparison, i: int, column: Column) -> _Box:
    a = comparison.runs[i]
    values = a.values(column.name)
    finite = np.isfinite(values)
    infinite = int(np.isinf(values).sum())
    missing = int((a.ok & np.isnan(values)).sum())
    return _Box(values[finite], comparison.codes[finite], int(finite.sum()) + infinite, infinite, missing)


def _draw(axes: Axes, column: Column, boxes: Sequence[_Box], colours: NDArray[np.float64]) -> None:
    generator = np.random.default_rng(_SEED)
    places = [p for p, b in enumerate(boxes, 1) if b.values.size]
    axes.boxplot(
        [boxes[p - 1].values for p in places],
        positions=places,
        orientation="horizontal",
        widths=0.62,
        showfliers=False,
        manage_ticks=False,
        boxprops={"color": "#444444", "linewidth": 0.9},
        whiskerprops={"color": "#444444", "linewidth": 0.9},
        capprops={"color": "#444444", "linewidth": 0.9},
        medianprops={"color": "black", "linewidth": 1.8},
        zorder=3,
    )
    for place in places:
        box = boxes[place - 1]
        offsets = generator.uniform(-0.22, 0.22, box.values.size)
        chosen = np.arange(box.values.size)
        if chosen.size > MOST_POINTS:
            chosen = np.sort(generator.choice(chosen, MOST_POINTS, replace=False))
        axes.scatter(
            box.values[chosen],
            place + offsets[chosen],
            s=9,
            c=colours[box.subjects[chosen]],
            alpha=0.75,
            linewidths=0,
            zorder=2,
            rasterized=chosen.size > 100,
        )
    axes.set_ylim(len(boxes) + 0.6, 0.4)
    axes.margins(x=0.06)
    most = max(b.n for b in boxes)
    for place, box in enumerate(boxes, 1):
        parts = [f"n = {box.n}"] if box.n != most else []
        words = ", ".join(filter(None, [*parts, box.remark])) if box.n else "n/a"
        if words:
            _remark(axes, place, words, box)
    unit = f" [{column.unit}]" if column.unit else ""
    title = f"{column.header} {column.arrow}".strip() + unit
    axes.set_title(f"{title}, n = {most}", fontsize=9, pad=4, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _remark(axes: Axes, place: int, words: str, box: _Box) -> None:
    """Beside the box, on the side where the axes have more room."""
    low, high = axes.get_xlim()
    left = bool(box.values.size) and float(np.median(box.values)) > (low + high) / 2
    where = axes.get_yaxis_transform()
    side: dict[str, Any] = {"x": 0.01, "ha": "left"} if left else {"x": 0.99, "ha": "right"}
    axes.text(y=place, s=words, fontsize=6, color="#444444", va="center", transform=where, zorder=4, **side)


def _colours(n: int) -> NDArray[np.float64]:
    """One RGBA colour per subject: a qualitative map up to ten, else evenly spaced hues of one sequential map."""
    from matplotlib import colormaps

    if n <= _NAMED_SUBJECTS:
        return np.asarray(colormaps["tab10"](np.arange(n)))
    return np.asarray(colormaps["viridis"](np.linspace(0, 0.95, n)))


def _legend(figure: Figure, subjects: Sequence[str], colours: NDArray[np.float64]) -> None:
    from matplotlib.lines import Line2D

    wide, high = figure.get_size_inches()
    if len(subjects) > _NAMED_SUBJECTS:
        words = f"points are coloured by subject ({len(subjects)} subjects)"
        figure.text(0.1 / wide, 0.1 / high, words, fontsize=7, va="bottom")
        return
    marks = [Line2D([], [], marker="o", linestyle="", markersize=4, color=c) for c in colours]
    legend = figure.legend(
        marks,
        [shorten(s, 30) for s in subjects],
        loc="lower left",
        bbox_to_anchor=(0.02 / wide, 0.02 / high),
        ncols=min(4, len(subjects)),
        fontsize=7,
        frameon=False,
        title="subject",
        title_fontsize=7,
        alignment="left",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
