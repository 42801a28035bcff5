"""Quality against time: a point per method, the frontier of those that none beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.board import Board, BoardRow
from mrbench.report.columns import Column
from mrbench.report.figures import literal, new_figure
from mrbench.report.text import NOT_AVAILABLE, clean, listing, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

METRIC = "psnr"
_NAME = 28
_INK, _SOFT, _BLUE, _GREY = "#222222", "#777777", "#1f5fa8", "#9a9a9a"
_WIDE, _HIGH = 6.4, 4.4
_NEAR, _STEPS, _TURNS = 5.0, 14, 16  # points from a mark to its label, then rings of so many, with so many directions each
_LEADER = 9.0  # points from which a line joins label and mark


@dataclass(frozen=True)
class Point:
    """One method: seconds per slice and its mean, with the interval of the mean where the board has one."""

    name: str
    seconds: float
    quality: float
    low: float | None
    high: float | None
    frontier: bool


def pareto_points(board: Board, metric: str) -> list[Point]:
    """The entries of a board that have both numbers, the fastest first.

    On the frontier are those that no other entry beats: as fast and better, or faster and as good. Boards with demonstration weights have
    no frontier, as they rank nothing.

    Raises
    ------
    UserError : no such column, one that ranks nothing, times of unequal conditions, or no entry with both numbers.
    """
    column = _column(board, metric)
    if not board.show_seconds:
        why = board.cost_notes[0] if board.cost_notes else "no run has times"
        raise UserError(
            f"--pareto: {board.title}: times cannot be compared: {why.removesuffix('.')}. Give runs of one machine."
        )
    known = [r for r in board.rows if _drawn(r, column)]
    if not known:
        raise UserError(f"--pareto: {board.title}: no entry has both a finite {column.header} and a time.")
    sign = 1.0 if column.higher_is_better else -1.0
    scores = {r.name: (r.seconds or 0.0, sign * _mean(r, column)) for r in known}
    points = []
    for r in known:
        cell = r.cells[column.name]
        low, high = (cell.interval.low, cell.interval.high) if cell.interval is not None else (None, None)
        best = not board.banner and not cell.incomplete and not any(_beats(s, scores[r.name]) for s in scores.values())
        points.append(Point(r.name, r.seconds or 0.0, _mean(r, column), low, high, best))
    return sorted(points, key=lambda p: (p.seconds, -sign * p.quality))


def _column(board: Board, metric: str) -> Column:
    names = [c.name for c in board.columns]
    column = next((c for c in board.columns if c.name == metric), None)
    if column is None:
        raise UserError(
            f"--pareto-metric {metric}: {board.title} has no such column.{did_you_mean(metric, names)} Columns: {listing(names, 40)}."
        )
    if not column.ranked:
        raise UserError(f"--pareto-metric {metric}: ranks nothing, so there is no better direction to plot.")
    return column


def _drawn(row: BoardRow, column: Column) -> bool:
    aggregate = row.cells[column.name].aggregate
    return bool(aggregate and np.isfinite(aggregate.mean) and row.seconds is not None and row.seconds > 0)


def _mean(row: BoardRow, column: Column) -> float:
    aggregate = row.cells[column.name].aggregate
    assert aggregate is not None
    return aggregate.mean


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether ``(seconds, score)`` is nowhere worse than the other and somewhere better."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def pareto_figure(board: Board, metric: str = METRIC) -> Figure:
    """Mean quality over seconds per slice on a logarithmic axis (raises as :func:`pareto_points`)."""
    points = pareto_points(board, metric)
    column = _column(board, metric)
    figure = new_figure(_WIDE, _HIGH)
    axes = figure.add_axes((0.125, 0.17, 0.845, 0.645))
    _limits(axes, points, column)
    for p in points:
        colour = _BLUE if p.frontier else _SOFT if board.banner else _GREY
        if p.low is not None and p.high is not None:
            axes.plot([p.seconds] * 2, [p.low, p.high], color=colour, linewidth=1.0, zorder=2)
        face = "white" if board.banner else colour
        axes.plot(
            [p.seconds], [p.quality], marker="o", markersize=6, color=colour, markerfacecolor=face, zorder=3, linestyle=""
        )
    front = [p for p in points if p.frontier]
    if len(front) > 1:
        axes.plot([p.seconds for p in front], [p.quality for p in front], color=_BLUE, linewidth=1.2, alpha=0.5,
                  drawstyle="steps-post", zorder=1)  # fmt: skip
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    unit = f" [{column.unit}]" if column.unit else ""
    arrow = "higher is better" if column.higher_is_better else "lower is better"
    axes.set_xlabel("seconds per slice (logarithmic; less is better)", fontsize=8.5)
    axes.set_ylabel(f"{column.header}{unit} ({arrow})", fontsize=8.5, parse_math=False)
    _texts(figure, board, column, points)
    _labels(figure, axes, points)
    return figure


def _limits(axes: Axes, points: Sequence[Point], column: Column) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    seconds = [p.seconds for p in points]
    ends = [v for p in points for v in (p.quality, p.low, p.high) if v is not None]
    axes.set_xscale("log")
    reach = max(np.log10(max(seconds) / min(seconds)), 0.6)
    axes.set_xlim(min(seconds) / 10 ** (0.12 * reach), max(seconds) * 10 ** (0.2 * reach))
    span = max(ends) - min(ends) or abs(max(ends)) * 0.1 or 1.0
    axes.set_ylim(min(ends) - 0.12 * span, max(ends) + 0.14 * span)
    if column.higher_is_better is False:
        axes.invert_yaxis()
    if reach < 2:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _texts(figure: Figure, board: Board, column: Column, points: Sequence[Point]) -> None:
    figure.text(
        0.02,
        0.975,
        fontsize=10,
        va="top",
        weight="bold",
        **literal(shorten(f"{column.header} against time: {board.title}", 84)),
    )
    mean = "mean over subjects' means" if board.over == "subjects" else "mean over slices"
    bars = f"; bars: {100 * board.level:g} % bootstrap intervals" if board.level is not None else ""
    front = "blue: no other entry is at least as fast and as good" if any(p.frontier for p in points) else ""
    lines = [f"{mean}: {board.size_words}{bars}", "demonstration weights: nothing is ranked" if board.banner else front]
    for i, line in enumerate(lines):
        figure.text(0.02, 0.918 - 0.038 * i, fontsize=7.5, va="top", color=_SOFT, **literal(line))
    shown = {p.name for p in points}
    missing = [r.name for r in board.rows if r.name not in shown]
    notes = [board.hardware] if board.hardware else []
    notes += [f"not drawn ({NOT_AVAILABLE}): {listing([shorten(clean(n), _NAME) for n in missing])}"] if missing else []
    figure.text(0.02, 0.015, fontsize=6.5, va="bottom", color=_SOFT, **literal(shorten("; ".join(notes), 150)))


# -- labels ------------------------------------------------------------------------------------------------------------
def _labels(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """A name beside every mark, at the nearest place where it covers no mark, no interval and no other name, inside the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    frame = axes.get_window_extent(renderer)
    marks = [axes.transData.transform((p.seconds, p.quality)) for p in points]
    scale = figure.dpi / 72
    taken = [_around(x, y, 4.5 * scale) for x, y in marks]
    for p in points:
        if p.low is not None and p.high is not None:
            (x, a), (_, b) = (axes.transData.transform((p.seconds, v)) for v in (p.low, p.high))
            taken.append(_box(x - scale, min(a, b), x + scale, max(a, b)))
    taken += _steps(axes, [p for p in points if p.frontier], scale)
    crowd = np.array(marks)
    order = sorted(range(len(points)), key=lambda i: float(np.sum(np.hypot(*(crowd - crowd[i]).T) < 60 * scale)), reverse=True)
    for i in order:
        text = axes.annotate(
            "", (points[i].seconds, points[i].quality), xytext=(0, 0), textcoords="offset points", fontsize=8, color=_INK, zorder=4,
            ha="left", va="bottom", parse_math=False,
        )  # fmt: skip
        text.set_text(shorten(clean(points[i].name), _NAME))
        extent = text.get_window_extent(renderer)
        x, y = marks[i]
        place = _place(x, y, extent.width, extent.height, frame, taken, scale)
        text.set_position(((place.x0 - x) / scale, (place.y0 - y) / scale))
        taken.append(place)
        _leader(figure, axes, text, place, x, y, scale)


def _steps(axes: Axes, front: Sequence[Point], scale: float) -> list[Bbox]:
    """The drawn line of the frontier, as boxes."""
    corners = [axes.transData.transform((p.seconds, p.quality)) for p in front]
    found = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        found += [_box(x0, y0 - scale, x1, y0 + scale), _box(x1 - scale, min(y0, y1), x1 + scale, max(y0, y1))]
    return found


def _place(x: float, y: float, width: float, height: float, frame: Bbox, taken: Sequence[Bbox], scale: float) -> Bbox:
    """The free place nearest to a mark, sides first; if all are taken, the one that covers least."""
    best: tuple[float, Bbox] | None = None
    for ring in range(_STEPS):
        away = (_NEAR + 8.0 * ring) * scale
        for turn in range(_TURNS):
            angle = 2 * np.pi * turn / _TURNS
            dx, dy = float(np.cos(angle)), float(np.sin(angle))
            left = x + dx * away - (width / 2) * (1 - dx)
            low = y + dy * away - (height / 2) * (1 - dy)
            box = _box(left, low, left + width, low + height)
            outside = (
                max(frame.x0 - box.x0, 0) + max(box.x1 - frame.x1, 0) + max(frame.y0 - box.y0, 0) + max(box.y1 - frame.y1, 0)
            )
            covered = sum(_overlap(box, other) for other in taken) + outside * height
            if covered == 0:
                return box
            if best is None or covered < best[0]:
                best = covered, box
    assert best is not None
    return best[1]


def _leader(figure: Figure, axes: Axes, text: Text, place: Bbox, x: float, y: float, scale: float) -> None:
    """A thin line from a mark to a label that had to go far."""
    nearest = (min(max(x, place.x0), place.x1), min(max(y, place.y0), place.y1))
    if np.hypot(nearest[0] - x, nearest[1] - y) > _LEADER * scale:
        ends = axes.transData.inverted().transform([(x, y), nearest])
        axes.plot(ends[:, 0], ends[:, 1], color=_SOFT, linewidth=0.5, zorder=1)


def _box(x0: float, y0: float, x1: float, y1: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox([[x0, y0], [x1, y1]])


def _around(x: float, y: float, radius: float) -> Bbox:
    return _box(x - radius, y - radius, x + radius, y + radius)


def _overlap(a: Bbox, b: Bbox) -> float:
    wide = min(a.x1, b.x1) - max(a.x0, b.x0)
    high = min(a.y1, b.y1) - max(a.y0, b.y0)
    return wide * high if wide > 0 and high > 0 else 0.0
