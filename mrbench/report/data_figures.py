"""Pictures of data sets: the contact sheet of a preview, and the findings of an audit."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.figures import literal, new_figure
from mrbench.report.text import clean, shorten
from mrbench.store.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_CELL = 1.5  # inches, width of an image
_LABEL = 2.1  # inches, the text beside a row
_GAP = 0.06
_HEAD = 0.4
_LINE = 0.14  # inches a line of text
_DPI = 120
_OUTLINE = "#ffb000"


@dataclass(frozen=True)
class SheetRow:
    """One subject: ``images [H, W]`` in [0, 1] with their ``masks [H, W]`` and names, the text beside them, and row over column size."""

    lines: tuple[str, ...]
    images: tuple[NDArray[np.float32], ...]
    masks: tuple[NDArray[np.bool_], ...]
    names: tuple[str, ...]
    aspect: float = 1.0


@dataclass(frozen=True)
class Tile:
    """A finding: its images ``[H, W]`` in [0, 1] side by side, each with row over column size, and the text below them."""

    images: tuple[NDArray[np.float32], ...]
    aspects: tuple[float, ...]
    lines: tuple[str, ...]


def contact_sheet(rows: Sequence[SheetRow], title: str, below: str, file: Path) -> Path:
    """Write a PNG with one row a subject, the foreground outlined.

    Raises
    ------
    UserError : no rows, or a file name that does not end in ``.png``.
    """
    _check(file, rows)
    columns = max(len(row.images) for row in rows)
    heights = [max(_CELL * _tall(row.images, row.aspect), _LINE * (len(row.lines) + 1)) + 0.17 for row in rows]
    figure = new_figure(_LABEL + columns * (_CELL + _GAP), _HEAD + sum(heights) + 0.25)
    wide, high = figure.get_size_inches()
    figure.text(0.08 / wide, 1 - 0.1 / high, fontsize=9, weight="bold", va="top", **literal(shorten(title, 22 * (columns + 1))))
    top = _HEAD
    for row, height in zip(rows, heights, strict=True):
        for number, line in enumerate(row.lines):
            weight = "bold" if number == 0 else "normal"
            where = 1 - (top + 0.06 + number * _LINE) / high
            figure.text(0.08 / wide, where, fontsize=7.5, va="top", weight=weight, **literal(shorten(line, 34)))
        for column, (image, mask, name) in enumerate(zip(row.images, row.masks, row.names, strict=True)):
            tall = height - 0.17
            box = ((_LABEL + column * (_CELL + _GAP)) / wide, 1 - (top + tall) / high, _CELL / wide, tall / high)
            axes = _image(figure, box, image, row.aspect)
            if mask.any() and not mask.all():
                axes.contour(mask.astype(float), levels=[0.5], colors=[_OUTLINE], linewidths=0.7)
            axes.text(0.5, -0.01, clean(name), fontsize=6.5, ha="center", va="top", transform=axes.transAxes, parse_math=False)
        top += height
    figure.text(
        0.08 / wide, 0.08 / high, fontsize=6.5, va="bottom", color="#555555", **literal(shorten(below, 32 * (columns + 1)))
    )
    return _save(figure, file)


def tiles(found: Sequence[Tile], title: str, below: str, file: Path) -> Path:
    """Write a PNG with one tile a finding.

    Raises
    ------
    UserError : no tiles, or a file name that does not end in ``.png``.
    """
    _check(file, found)
    images = max(len(tile.images) for tile in found)
    width = max(images, 2) * (_CELL + _GAP) + 0.2
    columns = min(len(found), max(1, round(9 / width)))
    letters = int(width * 17)
    texts = [[w for line in tile.lines for w in textwrap.wrap(clean(line), letters) or [""]] for tile in found]
    tall = max(_tall(tile.images, *tile.aspects) for tile in found) * _CELL
    height = tall + _LINE * (max(map(len, texts)) + 1) + 0.1
    figure = new_figure(columns * width + 0.1, _HEAD + math.ceil(len(found) / columns) * height + 0.25)
    wide, high = figure.get_size_inches()
    figure.text(0.08 / wide, 1 - 0.1 / high, fontsize=9, weight="bold", va="top", **literal(shorten(title, letters * columns)))
    for number, (tile, lines) in enumerate(zip(found, texts, strict=True)):
        left, top = 0.1 + number % columns * width, _HEAD + number // columns * height
        for position, (image, aspect) in enumerate(zip(tile.images, tile.aspects, strict=True)):
            box = ((left + position * (_CELL + _GAP)) / wide, 1 - (top + tall) / high, _CELL / wide, tall / high)
            _image(figure, box, image, aspect)
        for row, line in enumerate(lines):
            where = 1 - (top + tall + 0.06 + row * _LINE) / high
            figure.text(left / wide, where, fontsize=7, va="top", **literal(line))
    figure.text(
        0.08 / wide,
        0.08 / high,
        fontsize=6.5,
        va="bottom",
        color="#555555",
        **literal(shorten(below, round(1.3 * letters * columns))),
    )
    return _save(figure, file)


def _tall(images: Sequence[NDArray[np.float32]], *aspects: float) -> float:
    """Height of the tallest image over the width of a cell."""
    all_aspects = aspects if len(aspects) == len(images) else aspects * len(images)
    shapes = [aspect * image.shape[0] / image.shape[1] for image, aspect in zip(images, all_aspects, strict=True)]
    return min(2.0, max(0.4, *shapes)) if shapes else 1.0


def _image(figure: Figure, box: tuple[float, float, float, float], image: NDArray[np.float32], aspect: float) -> Axes:
    axes: Axes = figure.add_axes(box)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("N")
    for spine in axes.spines.values():
        spine.set_edgecolor("#999999")
        spine.set_linewidth(0.5)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
    return axes


def _check(file: Path, rows: Sequence[Any]) -> None:
    if file.suffix.lower() != ".png":
        raise UserError(f"{file}: pictures are written as PNG. Name a file that ends in .png.")
    if not rows:
        raise UserError(f"{file}: there is nothing to show.")


def _save(figure: Figure, file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing", category=UserWarning)  # names in other scripts
        write_atomic(file, lambda stream: figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None}))
    return file
