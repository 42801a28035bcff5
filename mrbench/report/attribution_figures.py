"""Pictures of local attribution maps: several methods side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.report.figures import literal, new_figure
from mrbench.report.pictures import grey
from mrbench.report.text import NOT_AVAILABLE, clean, number, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from mrbench.store.attributions import Attribution, Picture

_COLUMNS = 6  # pictures side by side
_CELL = 1.75  # inches, width of a picture
_TITLE, _HEAD, _LABEL, _GAP, _FOOT = 0.42, 0.36, 0.3, 0.06, 0.34
_ROWS = ("image", "attribution", "contribution")
_REGION = "#ff2d2d"
_COLOURS = ("#ffffff", "#fcae91", "#fb6a4a", "#cb181d", "#67000d")
_SPREAD = 1.0  # LR pixels, of the kernel that turns pixels into areas
_FAINT = 0.5  # power: small attributions are still seen


def attribution_figure(picture: Picture, found: Sequence[Attribution]) -> Figure:
    """Ground truth with the region, LR image, and of every method: its image with DI, its map, and the areas that contribute.

    Maps are absolute attributions over their maximum (a square-root scale), each method on its own scale. Areas are the same smoothed
    by a Gaussian of one LR pixel, over the LR image.
    """
    height, width = picture.hr.shape[-2:]
    tall = min(2.0, max(0.4, picture.aspect * height / width)) * _CELL
    bands = math.ceil((len(found) + 1) / _COLUMNS)
    columns = max(3, math.ceil((len(found) + 1) / bands))
    band = _TITLE + len(_ROWS) * (tall + _GAP) + 0.1
    figure = new_figure(2 * _LABEL + columns * (_CELL + _GAP), _HEAD + bands * band + _FOOT)
    wide, high = figure.get_size_inches()
    title = f"{picture.item_id}   ({clean(picture.protocol)})"
    figure.text(_LABEL / wide, 1 - 0.1 / high, fontsize=8, va="top", weight="bold", **literal(shorten(title, 24 * columns)))

    def axes(position: int, row: int) -> Axes:
        left = _LABEL + (position % columns) * (_CELL + _GAP) + (_LABEL if 0 < position < columns else 0)  # room for names
        above = _HEAD + (position // columns) * band + _TITLE + row * (tall + _GAP)
        made: Axes = figure.add_axes((left / wide, 1 - (above + tall) / high, _CELL / wide, tall / high))
        made.set_xticks([])
        made.set_yticks([])
        for spine in made.spines.values():
            spine.set_edgecolor("#999999")
            spine.set_linewidth(0.5)
        if row == 0 or position == 0:
            return made
        if position % columns == 0 or position == 1:
            made.set_ylabel(_ROWS[row], fontsize=8)
        return made

    def show(at: Axes, image: NDArray[Any]) -> None:
        _image(at, image, picture, (height, width))

    _reference(picture, axes, show, tall)
    for position, a in enumerate(found, 1):
        first, second, third = (axes(position, row) for row in range(3))
        di = a.diffusion_index
        weights = ", demo weights" if a.tier == "demo" else ""
        _title(first, tall, a.label, f"DI {number(di, 2) if np.isfinite(di) else NOT_AVAILABLE}{weights}")
        show(first, grey(np.clip(a.estimate, 0, 1)))
        _box(first, picture)
        strength = np.abs(a.map)
        _scaled(second, strength, picture, (height, width))
        _box(second, picture)
        show(third, grey(picture.y))
        _area(third, strength, picture, (height, width))
        _box(third, picture)
    figure.text(_LABEL / wide, 0.08 / high, fontsize=7, va="bottom", **literal(_words(found, columns)))
    return figure


def _words(found: Sequence[Attribution], columns: int) -> str:
    if not found:
        return "no method could be attributed"
    steps, sigma = len(found[0].path), found[0].sigma
    errors = [a.completeness_error for a in found if np.isfinite(a.completeness_error)]
    worst = f", sums agree with the change of the detector within {max(errors):.1%}" if errors else ""
    return shorten(
        f"Red frame: the region. DI: 100 (1 - Gini). {steps} steps from a blur of {sigma:g} LR pixels{worst}.", 34 * columns
    )


def _reference(picture: Picture, axes: Callable[[int, int], Axes], show: Callable[[Axes, Any], None], tall: float) -> None:
    """The first column: ground truth, LR image, and the region enlarged."""
    region = picture.region
    truth, low, part = (axes(0, row) for row in range(3))
    sizes = [f"{h} x {w}" for h, w in (picture.hr.shape[-2:], picture.y.shape[-2:])]
    _title(truth, tall, "ground truth", f"{sizes[0]}; LR {sizes[1]}")
    show(truth, grey(picture.hr))
    _box(truth, picture)
    show(low, grey(picture.y))
    low.set_ylabel("measurement", fontsize=8)
    show(part, grey(picture.hr))
    part.set_xlim(region.left - 0.5, region.right - 0.5)
    part.set_ylim(region.bottom - 0.5, region.top - 0.5)
    part.set_ylabel("region, enlarged", fontsize=8)
    for spine in part.spines.values():
        spine.set_edgecolor(_REGION)


def _title(axes: Axes, tall: float, name: str, below: str) -> None:
    text: dict[str, Any] = {"fontsize": 8, "ha": "center", "va": "bottom", "transform": axes.transAxes, "parse_math": False}
    axes.text(0.5, 1 + 0.2 / tall, shorten(clean(name), 22), weight="bold", **text)
    axes.text(0.5, 1 + 0.05 / tall, clean(below), **text)


def _extent(picture: Picture, shape: Sequence[int]) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of an LR image in HR pixels: every sample in the middle of its step."""
    (step_y, first_y), (step_x, first_x) = picture.grid
    top, left = first_y - step_y / 2, first_x - step_x / 2
    return left, left + step_x * shape[1], top + step_y * shape[0], top


def _image(axes: Axes, image: NDArray[Any], picture: Picture, size: tuple[int, int]) -> None:
    """An image on the pixel coordinates of the ground truth."""
    low = image.shape[:2] == picture.y.shape[-2:] and image.shape[:2] != size
    extent = _extent(picture, image.shape) if low else (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
    options: dict[str, Any] = {"extent": extent, "interpolation": "nearest", "aspect": picture.aspect}
    if image.ndim == 2:
        options |= {"cmap": "gray", "vmin": 0, "vmax": 1}
    axes.imshow(image, **options)
    _frame(axes, size)


def _frame(axes: Axes, size: tuple[int, int]) -> None:
    axes.set_xlim(-0.5, size[1] - 0.5)
    axes.set_ylim(size[0] - 0.5, -0.5)


def _normalised(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    top = float(strength.max(initial=0.0))
    return strength / top if top > 0 else strength


def _scaled(axes: Axes, strength: NDArray[np.float64], picture: Picture, size: tuple[int, int]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    options: dict[str, Any] = {"extent": _extent(picture, strength.shape), "interpolation": "nearest", "aspect": picture.aspect}
    colours = LinearSegmentedColormap.from_list("attribution", _COLOURS)
    axes.imshow(_normalised(strength) ** _FAINT, cmap=colours, vmin=0, vmax=1, **options)
    _frame(axes, size)


def _area(axes: Axes, strength: NDArray[np.float64], picture: Picture, size: tuple[int, int]) -> None:
    from scipy.ndimage import gaussian_filter

    density = _normalised(gaussian_filter(strength, _SPREAD)) ** _FAINT
    options: dict[str, Any] = {"extent": _extent(picture, density.shape), "interpolation": "bilinear", "aspect": picture.aspect}
    axes.imshow(np.ones_like(density), cmap="autumn", vmin=0, vmax=2, alpha=0.85 * density, **options)
    _frame(axes, size)


def _box(axes: Axes, picture: Picture) -> None:
    from matplotlib.patches import Rectangle

    r = picture.region
    corner = (r.left - 0.5, r.top - 0.5)
    axes.add_patch(Rectangle(corner, r.width, r.height, fill=False, edgecolor=_REGION, linewidth=1.1))


__all__ = ["attribution_figure"]
