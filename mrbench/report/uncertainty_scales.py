"""Uncertainty of one slice in several runs side by side, for instance at several scales (the MSP-SR paper's Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.figures import literal, new_figure
from mrbench.report.panel import error_scale
from mrbench.report.pictures import grey
from mrbench.report.text import clean, shorten
from mrbench.report.uncertainty_figures import draw_image, draw_map, scores_of
from mrbench.report.uncertainty_numbers import ItemDraws

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mrbench.store.runs import RunData

_CELL, _BAR, _LINE = 2.0, 0.6, 1.15  # inches: width of a map, of its colour bar, of the words before a line
_HEAD, _TITLE = 0.62, 0.24
_COLUMNS = ("measurement", "mean of the draws", "|mean - ground truth|", "standard deviation", "standard deviation / mean")


def scales_figure(shown: Sequence[tuple[RunData, ItemDraws]], aspect: float = 1.0) -> Figure:
    """A line a run: LR image, posterior mean, error, standard deviation, and standard deviation over mean in the foreground.

    Colour scales are one for all runs, so that lines can be compared. ``aspect`` : height of a pixel over its width.

    Raises
    ------
    UserError : the runs show different slices, or prepared them differently.
    """
    first = shown[0][1]
    for run, item in shown[1:]:
        if item.truth.shape != first.truth.shape or not np.allclose(item.truth, first.truth, atol=1e-6):
            raise UserError(
                f"{run.label} ({run.manifest.protocol.name}): its ground truth of {item.item_id} is not that of {shown[0][0].label} "
                f"({shown[0][0].manifest.protocol.name}), so the maps cannot stand side by side. Take runs of one preparation, such "
                "as uniform-x2, uniform-x4 and uniform-x8."
            )
    height, width = first.truth.shape[:2]
    tall = min(2.0, max(0.4, aspect * height / width)) * _CELL
    figure = new_figure(_LINE + len(_COLUMNS) * (_CELL + _BAR), _HEAD + len(shown) * (_TITLE + tall) + 0.1)
    wide, high = figure.get_size_inches()
    figure.text(0.1 / wide, 1 - 0.1 / high, fontsize=9, va="top", weight="bold", **literal(shorten(first.item_id, 110)))

    def axes(line: int, column: int) -> Axes:
        left, above = _LINE + column * (_CELL + _BAR), _HEAD + line * (_TITLE + tall)
        made: Axes = figure.add_axes((left / wide, 1 - (above + tall) / high, _CELL / wide, tall / high))
        made.set_xticks([])
        made.set_yticks([])
        text: dict[str, Any] = {"ha": "center", "transform": made.transAxes, "parse_math": False, "fontsize": 8}
        if line == 0:
            made.text(0.5, 1 + 0.12 / tall, _COLUMNS[column], weight="bold", **text)
        return made

    top = error_scale([m.astype(np.float32) for _, item in shown for m in (item.error, item.deviation)])
    inside = np.concatenate([item.relative_deviation[item.stored.mask] for _, item in shown])
    relative = max(0.01, float(np.quantile(inside, 0.99))) if inside.size else 1.0
    for line, (run, item) in enumerate(shown):
        draw_image(axes(line, 0), grey(item.stored.y), (height, width), aspect)
        draw_image(axes(line, 1), item.mean, (height, width), aspect)
        draw_map(figure, axes(line, 2), item.error, top, "inferno", aspect)
        draw_map(figure, axes(line, 3), item.deviation, top, "inferno", aspect)
        draw_map(figure, axes(line, 4), item.relative_deviation, relative, "viridis", aspect)
        words = [clean(run.label), clean(run.manifest.protocol.name), f"K = {len(item.draws)}"]
        words += [scores_of(run, item, (column,)) for column in ("psnr@mean", "crps", "coverage80")]
        words = [shorten(w, 24) for w in words if w]
        middle = _HEAD + line * (_TITLE + tall) + tall / 2
        for number, word in enumerate(words):
            y = 1 - (middle + 0.15 * (number - (len(words) - 1) / 2)) / high
            figure.text(0.08 / wide, y, fontsize=7, va="center", **literal(word))
    return figure
