"""Pictures of uncertainty: maps of an item, probability along a segment, calibration of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.report.figures import literal, new_figure
from mrbench.report.panel import error_scale
from mrbench.report.pictures import grey
from mrbench.report.text import clean, count, number, shorten
from mrbench.report.uncertainty_numbers import BINS, Calibration, ItemDraws, Segment, area_between, probability_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData

_CELL = 2.3  # inches, width of a map
_BAR = 0.75  # inches beside a map for its colour bar
_HEAD, _TITLE, _FOOT = 0.4, 0.42, 0.12
_SEGMENT = "#00a5b5"
_TRUTH, _MEAN = "#d62728", "#1f77b4"
_SHOWN = ("crps", "nll", "coverage80", "spread_skill", "ause")  # scores beside the maps, those that the run has


def maps_figure(run: RunData, item: ItemDraws, segment: Segment, aspect: float = 1.0) -> Figure:
    """LR, posterior mean and ground truth above error, standard deviation and standard deviation over mean.

    Error and standard deviation share one colour scale: where the draws are calibrated, they look alike on average.
    ``aspect`` : height of a pixel over its width.
    """
    height, width = item.truth.shape[:2]
    tall = min(2.0, max(0.4, aspect * height / width)) * _CELL
    figure = new_figure(0.15 + 3 * (_CELL + _BAR), _HEAD + 2 * (_TITLE + tall) + _FOOT)
    wide, high = figure.get_size_inches()
    k = len(item.draws)
    title = f"{clean(run.label)}, {item.item_id}   ({clean(run.manifest.protocol.name)}, K = {k})"
    figure.text(0.1 / wide, 1 - 0.1 / high, fontsize=9, va="top", weight="bold", **literal(shorten(title, 95)))

    def axes(position: int, name: str, below: str = "") -> Axes:
        left = 0.1 + (position % 3) * (_CELL + _BAR)
        above = _HEAD + (position // 3) * (_TITLE + tall) + _TITLE
        made: Axes = figure.add_axes((left / wide, 1 - (above + tall) / high, _CELL / wide, tall / high))
        made.set_xticks([])
        made.set_yticks([])
        text: dict[str, Any] = {"ha": "center", "transform": made.transAxes, "parse_math": False, "fontsize": 8}
        made.text(0.5, 1 + 0.19 / tall, name, weight="bold", **text)
        made.text(0.5, 1 + 0.05 / tall, below, **text)
        return made

    low = item.stored.y.shape[-2:]
    draw_image(axes(0, "measurement", f"{low[0]} x {low[1]}"), grey(item.stored.y), (height, width), aspect)
    draw_image(
        axes(1, f"mean of {k} draws", scores_of(run, item, ("psnr@mean", "ssim@mean"))), item.mean, (height, width), aspect
    )
    shown = axes(2, "ground truth", f"{height} x {width}")
    draw_image(shown, item.truth, (height, width), aspect)
    _mark(shown, segment)
    error, deviation, relative = item.error, item.deviation, item.relative_deviation
    top = error_scale([m.astype(np.float32) for m in (error, deviation)])
    draw_map(figure, axes(3, "|mean - ground truth|", scores_of(run, item, _SHOWN[:2])), error, top, "inferno", aspect)
    shown = axes(4, "standard deviation (K - 1)", scores_of(run, item, _SHOWN[2:4]))
    draw_map(figure, shown, deviation, top, "inferno", aspect)
    _mark(shown, segment)
    inside = relative[item.stored.mask]
    top = max(0.01, float(np.quantile(inside, 0.99))) if inside.size else 1.0
    draw_map(figure, axes(5, "standard deviation / mean", "in the foreground"), relative, top, "viridis", aspect)
    return figure


def segment_figure(run: RunData, item: ItemDraws, segment: Segment) -> Figure:
    """Probability of each of 256 intensity bins along a segment (share of the draws), with ground truth and mean on top."""
    from matplotlib.colors import PowerNorm

    rows, columns = segment.pixels
    flat = item.draws.mean(-1) if item.draws.ndim == 4 else item.draws
    truth = (item.truth.mean(-1) if item.truth.ndim == 3 else item.truth)[rows, columns]
    draws = flat[:, rows, columns]
    figure = new_figure(7.2, 3.6)
    axes = figure.add_axes((0.09, 0.16, 0.78, 0.66))
    n = len(rows)
    shown = axes.imshow(
        probability_map(draws),
        origin="lower",
        aspect="auto",
        extent=(-0.5, n - 0.5, 0, 1),
        cmap="Greys",
        norm=PowerNorm(0.4, vmin=0),  # a bin with a single draw is still seen
        interpolation="nearest",
    )
    steps = np.arange(n)
    axes.plot(steps, truth, color=_TRUTH, linewidth=1.1, label="ground truth")
    axes.plot(steps, draws.mean(0), color=_MEAN, linewidth=1.0, linestyle="--", label=f"mean of {len(draws)} draws")
    bottom, top = min(draws.min(), truth.min()), max(draws.max(), truth.max())
    margin = max(0.02, 0.06 * (top - bottom))
    axes.set_ylim(max(0.0, bottom - margin), min(1.0, top + margin))
    axes.set_xlim(-0.5, n - 0.5)
    (r0, c0), (r1, c1) = segment.start, segment.end
    axes.set_xlabel(f"pixel along the segment from ({r0}, {c0}) to ({r1}, {c1}), row and column", fontsize=8)
    axes.set_ylabel("intensity", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, ncols=2)
    bar = figure.colorbar(shown, cax=figure.add_axes((0.89, 0.16, 0.018, 0.66)))
    bar.set_label(f"share of the draws per bin (of {BINS})", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    title = f"{clean(run.label)}, {item.item_id}"
    figure.text(0.02, 0.97, fontsize=9, va="top", weight="bold", **literal(shorten(title, 90)))
    return figure


def calibration_figure(run: RunData, found: Calibration) -> Figure:
    """Reliability diagram, rank histogram and sparsification curve of a run, means over items of their foregrounds."""
    figure = new_figure(10.2, 3.7)
    left, middle, right = (figure.add_axes((x, 0.15, 0.25, 0.63)) for x in (0.06, 0.39, 0.73))
    over = f"K = {found.draws}, foreground, mean over {count(found.items, 'slice')}"
    if found.left_out:
        over += f" ({found.left_out} without foreground left out)"
    title = f"{clean(run.label)}: {clean(run.manifest.dataset.alias)}, {clean(run.manifest.protocol.name)}; {over}"
    figure.text(0.01, 0.98, fontsize=9, va="top", weight="bold", **literal(shorten(title, 130)))
    left.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    left.plot([0, *found.levels, 1], [0, *found.observed, 1], color=_MEAN, marker="o", markersize=3, linewidth=1.2)
    gap = float(np.abs(found.observed - found.levels).mean())
    _labels(left, f"reliability (mean gap {number(gap, 3)})", "nominal level j / (K + 1)", "observed share below draw j")
    left.set_xlim(0, 1)
    left.set_ylim(0, 1)
    left.set_aspect("equal")
    k = found.draws
    middle.bar(np.arange(k + 1), found.ranks, width=0.9, color=_MEAN)
    middle.axhline(1 / (k + 1), color="#444444", linewidth=0.9, linestyle="--")
    outside = float(found.ranks[0] + found.ranks[-1])
    words = f"rank histogram (outside: {number(outside, 3)}, calibrated {number(2 / (k + 1), 3)})"
    _labels(middle, words, "rank of the ground truth among the draws", "share of pixels")
    if found.curve.size:
        shares = np.arange(len(found.curve)) / len(found.curve)
        right.plot(shares, found.curve, color=_MEAN, linewidth=1.3, label="by standard deviation")
        right.plot(shares, found.oracle, color="#444444", linewidth=1.0, linestyle="--", label="oracle")
        right.fill_between(shares, found.oracle, found.curve, color=_MEAN, alpha=0.15)
        area = area_between(found.curve, found.oracle)
        _labels(right, f"sparsification (AUSE {number(area, 4)})", "share of pixels left out", "error of the rest / of all")
        right.set_ylim(bottom=0)
        right.legend(fontsize=7, frameon=False)
    else:
        _labels(right, "sparsification", "", "")
        right.text(0.5, 0.5, "no order:\nall draws are equal", fontsize=8, ha="center", va="center", transform=right.transAxes)
        right.set_xticks([])
        right.set_yticks([])
    return figure


def _labels(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=8)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)


def scores_of(run: RunData, item: ItemDraws, columns: tuple[str, ...]) -> str:
    """The item's scores in these columns, those that the run has, for a line above a picture."""
    texts = []
    for column in columns:
        info = run.manifest.columns.get(column)
        if info is not None and column in item.scores:
            unit = f" {clean(info.unit)}" if info.unit else ""
            name = clean(info.title) + column[len(info.metric) :].partition("@")[0]
            texts.append(f"{name} {number(item.scores[column], info.digits)}{unit}")
    return ", ".join(texts)


def draw_image(axes: Axes, image: NDArray[Any], shape: tuple[int, int], aspect: float) -> None:
    """An image ``[H, W(, 3)]`` in [0, 1] on axes of ``shape`` (rows, columns); LR images are enlarged by repetition."""
    options: dict[str, Any] = {"extent": (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5), "interpolation": "nearest"}
    if image.ndim == 2:
        options |= {"cmap": "gray", "vmin": 0, "vmax": 1}
    axes.imshow(image, aspect=aspect, **options)


def draw_map(figure: Figure, axes: Axes, values: NDArray[np.float64], top: float, colours: str, aspect: float) -> None:
    """A map ``[H, W]`` from 0 to ``top`` with its colour bar; where it is not a number, it is grey."""
    axes.set_facecolor("#dddddd")
    shown = axes.imshow(values, cmap=colours, vmin=0, vmax=top, aspect=aspect, interpolation="nearest")
    place = axes.get_position()
    width = 0.09 / figure.get_size_inches()[0]
    bar = figure.add_axes((place.x1 + 0.6 * width, place.y0, width, place.height))
    extend = "max" if float(np.nanmax(values, initial=0)) > top else "neither"
    figure.colorbar(shown, cax=bar, extend=extend).ax.tick_params(labelsize=6)


def _mark(axes: Axes, segment: Segment) -> None:
    (r0, c0), (r1, c1) = segment.start, segment.end
    axes.plot([c0, c1], [r0, r1], color=_SEGMENT, linewidth=1.2, marker="|", markersize=5, clip_on=False)
    axes.set_xlim(axes.get_images()[0].get_extent()[0], axes.get_images()[0].get_extent()[1])
