"""Comparison panels: ground truth, measurement and methods, enlarged, with error maps on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.comparable import names_of, refuse_mixtures
from mrbench.report.figures import literal, new_figure, save
from mrbench.report.pictures import Truth, error_map, estimate_of, grey, truth_of
from mrbench.report.text import NOT_AVAILABLE, clean, number, shorten
from mrbench.report.zoom import Window, densest_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData

MAX_METHODS = 12
_COLUMNS = 6  # pictures side by side
_CELL = 1.75  # inches, width of a picture
_TITLE = 0.42  # inches, two lines above a picture
_GAP = 0.06
_LABEL = 0.3  # inches, row names at the left
_HEAD = 0.34
_COLOUR = "#ffb000"
_ROWS = 3  # image, enlarged, error
_NAMES = ("image", "enlarged", "error")


@dataclass(frozen=True)
class _Picture:
    """One column of the panel."""

    title: str
    below: str
    image: NDArray[np.float32] | None  # [h, w] or [h, w, 3] in [0, 1]
    error: NDArray[np.float32] | None
    reason: str = ""


def pick_items(runs: Sequence[RunData], n: int) -> list[str]:
    """Items that are worth showing: per subject the one with the median PSNR of the first run, then the next nearest.

    Subjects take turns, in order of their names. The first run that is no control decides; only items that all runs
    restored are picked, unless there are none. Without PSNR, the first metric column in order decides.

    Raises
    ------
    UserError : no runs, or none with a restored item.
    """
    from mrbench.report.columns import sort_key

    refuse_mixtures(runs)
    first = next((r for r in runs if not r.manifest.method.control), runs[0])
    if "status" not in first.rows or not (first.rows["status"] == "ok").any():
        raise UserError(f"{clean(first.label)} ({first.folder}) has no restored item to show.")
    rows = first.rows[first.rows["status"] == "ok"]
    common = set(rows["item_id"])
    for run in runs:
        if "status" in run.rows:
            common &= set(run.rows.loc[run.rows["status"] == "ok", "item_id"])
    if common:
        rows = rows[rows["item_id"].isin(common)]
    names = [c for c in sorted(first.manifest.columns, key=sort_key) if c in rows and rows[c].notna().any()]
    order = [*names[:1], "item_id"]
    turns: list[list[str]] = []
    for _, group in sorted(rows.groupby("subject"), key=lambda pair: str(pair[0])):
        ids = list(group.sort_values(order, na_position="last")["item_id"])
        known = int(group[names[0]].notna().sum()) if names else len(ids)
        middle = max(0, (max(known, 1) - 1) // 2)
        turns.append([ids[i] for i in sorted(range(len(ids)), key=lambda i: (abs(i - middle), i))])
    longest = max(len(t) for t in turns)
    picked = [t[i] for i in range(longest) for t in turns if i < len(t)]
    return picked[:n]


def comparison_panel(
    runs: Sequence[RunData], item_id: str, out_stem: Path, *, max_methods: int = MAX_METHODS, aspect: float = 1.0
) -> tuple[Path, Path]:
    """Write the panel of an item as ``<out_stem>.png`` and ``<out_stem>.pdf``; returns both paths.

    Parameters
    ----------
    runs : of one protocol and data set, with stored images. The first ``max_methods`` are shown, the title says so.
    aspect : height of a pixel over its width (row spacing over column spacing).

    Raises
    ------
    UserError : mixed protocols or data sets, an unknown item, or images that were not stored.
    """
    return save(panel_figure(runs, item_id, max_methods=max_methods, aspect=aspect), out_stem)


def panel_figure(runs: Sequence[RunData], item_id: str, *, max_methods: int = MAX_METHODS, aspect: float = 1.0) -> Figure:
    """The panel as a figure: per band of pictures a row of images, one of the enlarged window, one of error maps.

    All images share the grey scale [0, 1]; all error maps share one colour scale, whose top is the 99.9th percentile
    of all errors shown. Raises as ``comparison_panel`` does.
    """
    refuse_mixtures(runs)
    shown = list(runs[:max_methods])
    truth = truth_of(shown, item_id)
    pictures = _pictures(shown, item_id, truth)
    reference = grey(truth.hr)
    window = densest_window(reference.mean(-1) if reference.ndim == 3 else reference, truth.mask)
    title = f"{item_id}   ({clean(runs[0].manifest.protocol.name)})"
    if len(runs) > len(shown):
        title += f"   first {len(shown)} of {len(runs)} methods"
    return _draw(pictures, truth, window, title, aspect)


def _pictures(runs: Sequence[RunData], item_id: str, truth: Truth) -> list[_Picture]:
    height, width = truth.hr.shape[-2:]
    low = truth.y.shape[-2:]
    found = [
        _Picture("ground truth", f"{height} x {width}", grey(truth.hr), None),
        _Picture("measurement", f"{low[0]} x {low[1]}", grey(truth.y), None),
    ]
    for run, name in zip(runs, names_of(runs), strict=True):
        estimate = estimate_of(run, item_id)
        scores = []
        for column in ("psnr", "ssim"):
            info = run.manifest.columns.get(column)
            if info is not None:
                value = estimate.scores.get(column)
                unit = f" {clean(info.unit)}" if info.unit else ""
                scores.append(NOT_AVAILABLE if value is None else number(value, info.digits) + unit)
        image = estimate.image
        found.append(
            _Picture(
                name,
                " / ".join(scores) if image is not None else "",
                None if image is None else grey(image),
                None if image is None else error_map(image, truth.hr),
                estimate.reason,
            )
        )
    return found


def error_scale(errors: Sequence[NDArray[np.float32]]) -> float:
    """Top of the common colour scale: the 99.9th percentile of all errors, rounded up to two digits, at least 0.01."""
    if not errors:
        return 0.01
    top = float(np.quantile(np.concatenate([e.ravel() for e in errors]), 0.999))
    return max(0.01, math.ceil(top * 100) / 100)


def _draw(pictures: Sequence[_Picture], truth: Truth, window: Window, title: str, aspect: float) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width = truth.hr.shape[-2:]
    tall = min(2.0, max(0.4, aspect * height / width)) * _CELL
    bands = math.ceil(len(pictures) / _COLUMNS)
    columns = max(3, math.ceil(len(pictures) / bands))
    band = _TITLE + _ROWS * (tall + _GAP) + 0.12
    figure = new_figure(_LABEL + columns * (_CELL + _GAP), _HEAD + bands * band)
    wide, high = figure.get_size_inches()
    errors = [p.error for p in pictures if p.error is not None]
    top = error_scale(errors)
    norm = Normalize(0, top)
    figure.text(_LABEL / wide, 1 - 0.1 / high, fontsize=8, va="top", **literal(shorten(title, 24 * columns)))

    def axes(position: int, row: int) -> Axes:
        left = _LABEL + (position % columns) * (_CELL + _GAP)
        above = _HEAD + (position // columns) * band + _TITLE + row * (tall + _GAP)
        made: Axes = figure.add_axes((left / wide, 1 - (above + tall) / high, _CELL / wide, tall / high))
        made.set_xticks([])
        made.set_yticks([])
        return made

    for position, picture in enumerate(pictures):
        whole = axes(position, 0)
        _head(figure, whole, picture)
        _show(whole, picture, truth, window, aspect, frame=position == 0)
        if picture.image is not None:
            _show_window(axes(position, 1), picture.image, truth, window, aspect)
        if picture.error is not None:
            shown = axes(position, 2)
            shown.imshow(picture.error, cmap="inferno", norm=norm, aspect=aspect, interpolation="nearest")
            _frame(shown)
        if position % columns == 0:
            _row_names(figure, position // columns, band, tall, first=position == 0)
    below = _HEAD + _TITLE + 2 * (tall + _GAP) + 0.45 * tall  # where the first two pictures have no error map
    bar = figure.add_axes(((_LABEL + 0.1) / wide, 1 - below / high, 1.7 * _CELL / wide, 0.13 / high))
    mappable = ScalarMappable(norm, "inferno")
    over = any(float(e.max()) > top for e in errors)
    colour_bar = figure.colorbar(mappable, cax=bar, orientation="horizontal", extend="max" if over else "neither")
    colour_bar.set_label("|estimate - ground truth|", fontsize=8)
    colour_bar.ax.tick_params(labelsize=7)
    return figure


def _row_names(figure: Figure, band_number: int, band: float, tall: float, first: bool) -> None:
    wide, high = figure.get_size_inches()
    for row, name in enumerate(_NAMES):
        if first and name == "error":
            continue  # the colour bar with its label stands there
        middle = _HEAD + band_number * band + _TITLE + row * (tall + _GAP) + tall / 2
        figure.text(0.17 / wide, 1 - middle / high, name, fontsize=8, rotation=90, ha="center", va="center")


def _head(figure: Figure, axes: Axes, picture: _Picture) -> None:
    text: dict[str, Any] = {"fontsize": 8, "ha": "center", "transform": axes.transAxes, "parse_math": False}
    inches = axes.get_position().height * figure.get_size_inches()[1]
    axes.text(0.5, 1 + 0.2 / inches, shorten(clean(picture.title), 22), va="bottom", weight="bold", **text)
    axes.text(0.5, 1 + 0.05 / inches, clean(picture.below), va="bottom", **text)


def _show(axes: Axes, picture: _Picture, truth: Truth, window: Window, aspect: float, frame: bool) -> None:
    from matplotlib.patches import Rectangle

    if picture.image is None:
        axes.set_facecolor("#eeeeee")
        words = _wrapped(picture.reason or NOT_AVAILABLE, 24, 7)
        axes.text(0.5, 0.5, words, fontsize=7, ha="center", va="center", transform=axes.transAxes, parse_math=False)
        _frame(axes)
        return
    _imshow(axes, picture.image, truth, aspect)
    _frame(axes)
    if frame:
        corner = (window.left - 0.5, window.top - 0.5)
        axes.add_patch(Rectangle(corner, window.width, window.height, fill=False, edgecolor=_COLOUR, linewidth=1.4))


def _show_window(axes: Axes, image: NDArray[np.float32], truth: Truth, window: Window, aspect: float) -> None:
    _imshow(axes, image, truth, aspect)
    axes.set_xlim(window.left - 0.5, window.left + window.width - 0.5)
    axes.set_ylim(window.top + window.height - 0.5, window.top - 0.5)
    _frame(axes, _COLOUR)


def _imshow(axes: Axes, image: NDArray[np.float32], truth: Truth, aspect: float) -> None:
    """Any image on the pixel coordinates of the ground truth, so that windows of all agree."""
    height, width = truth.hr.shape[-2:]
    options: dict[str, Any] = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "nearest", "aspect": aspect}
    if image.ndim == 2:
        options |= {"cmap": "gray", "vmin": 0, "vmax": 1}
    axes.imshow(image, **options)


def _frame(axes: Axes, colour: str = "#999999") -> None:
    for spine in axes.spines.values():
        spine.set_edgecolor(colour)
        spine.set_linewidth(1.2 if colour == _COLOUR else 0.5)


def _wrapped(text: str, width: int, lines: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(clean(text), width, max_lines=lines, placeholder=" …"))
