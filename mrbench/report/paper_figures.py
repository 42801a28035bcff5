"""Figures of papers from whatever runs exist: panels side by side, those that are missing named in their place."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.attribution_figures import attribution_figure
from mrbench.report.figures import literal, new_figure
from mrbench.report.panel import error_scale, pick_items
from mrbench.report.paper_cells import MISSING, find_run
from mrbench.report.text import clean, shorten
from mrbench.report.uncertainty_numbers import ItemDraws, Segment, item_draws, parse_segment, probability_map, usual_segment
from mrbench.store.attributions import read_attributions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from mrbench.report.paper_plans import PaperPlan, PlannedFigure
    from mrbench.store.runs import RunData

_CELL, _BAR, _HEAD, _TITLE, _FOOT, _LEFT = 2.4, 0.6, 0.4, 0.3, 0.42, 0.55  # inches
_TRUTH, _MEAN = "#d62728", "#1f77b4"
_ROWS = ("mean", "standard deviation", "standard deviation / mean")


@dataclass(frozen=True)
class PaperPanel:
    """One panel: the run that it shows, or why there is none."""

    label: str
    run: RunData | None = None
    reason: str = ""


@dataclass(frozen=True)
class PaperFigure:
    """What was drawn. items : shown ones. missing : panels that are not, with the reason."""

    figure: Figure
    items: tuple[str, ...]
    missing: tuple[str, ...]


def panels_of(figure: PlannedFigure, runs: Sequence[RunData]) -> list[PaperPanel]:
    """The runs of all panels; a run without several stored draws is none."""
    found = []
    for panel in figure.panels:
        run, _, reason = find_run(runs, panel.where)
        if run is not None and not run.manifest.images:
            reason = f"{clean(run.manifest.run)}: its images were not stored (mrbench run ... --images all)"
            run = None
        found.append(PaperPanel(panel.label, run, reason))
    return found


def uncertainty_figure(
    plan: PaperPlan, number: str, figure: PlannedFigure, panels: Sequence[PaperPanel], item: str | None, segment: str | None
) -> PaperFigure:
    """Panels of draws side by side: probability along a segment, or maps of mean, deviation and their quotient.

    Parameters
    ----------
    item, segment : as for `mrbench uncertainty`; the item is looked for in every run, the default is one that the first run has.

    Raises
    ------
    UserError : no panel can be drawn, or an item or segment that does not exist.
    """
    shown: list[tuple[PaperPanel, ItemDraws | None]] = []
    wanted = item
    for panel in panels:
        draws = None
        if panel.run is not None:
            wanted = wanted or pick_items([panel.run], 1)[0]
            known = set(panel.run.rows["item_id"])
            draws = item_draws(panel.run, wanted if wanted in known or item is not None else pick_items([panel.run], 1)[0])
        shown.append((panel, draws))
    drawn = [d for _, d in shown if d is not None]
    missing = tuple(f"missing: {p.label}: {p.reason}" for p, d in shown if d is None)
    if not drawn:
        raise UserError(f"{plan.name}, figure {number}: no panel can be drawn. " + "; ".join(missing))
    title = f"{plan.name}, figure {number}: {figure.title}"
    make = _segments if figure.draw == "segment" else _maps
    line = None
    if figure.draw == "segment":
        shape = drawn[0].truth.shape[0], drawn[0].truth.shape[1]
        line = parse_segment(segment, shape) if segment is not None else usual_segment(drawn[0].deviation, drawn[0].stored.mask)
    return PaperFigure(make(title, shown, line), tuple(dict.fromkeys(d.item_id for d in drawn)), missing)


def attribution_figures(plan: PaperPlan, number: str, figure: PlannedFigure, places: Sequence[Path]) -> list[PaperFigure]:
    """One figure for every file of `mrbench attribute` below ``places`` that has a method of the plan.

    Raises
    ------
    UserError : there is none.
    """
    made = []
    for stem in _attributions(places):
        picture, found = read_attributions(stem)
        by_method: dict[str, Any] = {}
        for a in found:
            by_method.setdefault(a.method, a)
        kept = [by_method[p.where.method] for p in figure.panels if p.where.method in by_method]
        if kept:
            missing = tuple(f"missing: {p.label}: not in {stem}.json" for p in figure.panels if p.where.method not in by_method)
            made.append(PaperFigure(attribution_figure(picture, kept), (picture.item_id,), missing))
    if not made:
        names = ", ".join(p.where.method for p in figure.panels)
        raise UserError(
            f"{plan.name}, figure {number}: no attributions of {names} lie in {', '.join(map(str, places)) or 'any folder'}. "
            "`mrbench attribute --out STEM` makes some."
        )
    return made


def _attributions(places: Sequence[Path]) -> Iterator[Path]:
    """Stems of files that `mrbench attribute` wrote."""
    for place in places:
        files = sorted(place.rglob("*.npz")) if place.is_dir() else [place.with_suffix(".npz")]
        for file in files:
            beside = file.with_suffix(".json")
            if (
                file.is_file()
                and beside.is_file()
                and '"completeness_error"' in beside.read_text(encoding="utf-8", errors="replace")
            ):
                yield file.with_suffix("")


# -- drawing -----------------------------------------------------------------------------------------------------------
def _segments(title: str, shown: Sequence[tuple[PaperPanel, ItemDraws | None]], line: Segment | None) -> Figure:
    from matplotlib.colors import PowerNorm

    assert line is not None
    figure, axes = _grid(title, _names(shown), 1, _CELL)
    (r0, c0), (r1, c1) = line.start, line.end
    rows, columns = line.pixels
    steps = np.arange(len(rows))
    extent = (-0.5, len(rows) - 0.5, 0.0, 1.0)
    for (panel, item), at in zip(shown, axes[0], strict=True):
        if item is None:
            _absent(at, panel.reason)
            continue
        if max(r0, r1) >= item.truth.shape[0] or max(c0, c1) >= item.truth.shape[1]:
            _absent(at, f"the segment does not lie in its images ({item.truth.shape[0]} x {item.truth.shape[1]})")
            continue
        draws, truth = _flat(item.draws)[:, rows, columns], _flat(item.truth)[rows, columns]
        at.imshow(probability_map(draws), origin="lower", aspect="auto", extent=extent, cmap="Greys", norm=PowerNorm(0.4, vmin=0), interpolation="nearest")  # fmt: skip
        at.plot(steps, truth, color=_TRUTH, linewidth=1.0, marker="x", markersize=2.5, label="ground truth")
        at.plot(steps, draws.mean(0), color=_MEAN, linewidth=1.0, linestyle="--", label=f"mean of {len(draws)} draws")
        at.set_xticks([0, len(rows) - 1])
        at.set_yticks([0, 0.5, 1])
        at.tick_params(labelsize=7)
        at.legend(fontsize=6, loc="upper right", frameon=False)
    figure.text(
        0.5,
        0.02,
        f"pixel from ({r0}, {c0}) to ({r1}, {c1}), row and column; share of the draws in 256 bins",
        fontsize=8,
        ha="center",
    )
    return figure


def _maps(title: str, shown: Sequence[tuple[PaperPanel, ItemDraws | None]], line: Segment | None) -> Figure:
    drawn = [d for _, d in shown if d is not None]
    height, width = drawn[0].truth.shape[:2]
    tall = min(2.0, max(0.4, height / width)) * _CELL
    figure, axes = _grid(title, _names(shown), len(_ROWS), tall, _ROWS)
    deviation = error_scale([d.deviation.astype(np.float32) for d in drawn])
    inside = np.concatenate([d.relative_deviation[d.stored.mask] for d in drawn])
    relative = max(0.01, float(np.quantile(inside, 0.99))) if inside.size else 1.0
    kinds: tuple[tuple[Callable[[ItemDraws], NDArray[Any]], float, str], ...] = (
        (lambda d: _flat(d.mean), 1.0, "gray"),
        (lambda d: d.deviation, deviation, "inferno"),
        (lambda d: d.relative_deviation, relative, "viridis"),
    )
    for row, (values, top, colours) in enumerate(kinds):
        last = None
        for (panel, item), at in zip(shown, axes[row], strict=True):
            if item is None:
                _absent(at, panel.reason if row == 0 else "")
                continue
            at.set_facecolor("#dddddd")
            last = at.imshow(values(item), cmap=colours, vmin=0, vmax=top, interpolation="nearest")
        if row and last is not None:
            place = axes[row][-1].get_position()
            bar = figure.add_axes((place.x1 + 0.008, place.y0, 0.012, place.height))
            figure.colorbar(last, cax=bar, extend="max").ax.tick_params(labelsize=6)
    return figure


def _names(shown: Sequence[tuple[PaperPanel, ItemDraws | None]]) -> list[str]:
    """What stands above the panels."""
    demo = [p.run is not None and p.run.manifest.method.tier == "demo" for p, _ in shown]
    return [f"{p.label} (demo weights)" if d else p.label for (p, _), d in zip(shown, demo, strict=True)]


def _grid(
    title: str, names: Sequence[str], rows: int, tall: float, labels: Sequence[str] = ()
) -> tuple[Figure, list[list[Axes]]]:
    """Axes row by row, with names above the columns."""
    gap = 0.35 if rows == 1 else 0.06
    figure = new_figure(_LEFT + len(names) * (_CELL + gap) + _BAR, _HEAD + _TITLE + rows * (tall + 0.06) + _FOOT)
    wide, high = figure.get_size_inches()
    figure.text(0.1 / wide, 1 - 0.1 / high, fontsize=9, va="top", weight="bold", **literal(shorten(title, int(13 * wide))))
    axes: list[list[Axes]] = []
    for row in range(rows):
        line = []
        for column, name in enumerate(names):
            top = _HEAD + _TITLE + row * (tall + 0.06)
            box = ((_LEFT + column * (_CELL + gap)) / wide, 1 - (top + tall) / high, _CELL / wide, tall / high)
            at: Axes = figure.add_axes(box)
            at.set_xticks([])
            at.set_yticks([])
            if row == 0:
                at.set_title(clean(name), fontsize=8, parse_math=False)
            if column == 0 and labels:
                at.set_ylabel(labels[row], fontsize=8)
            line.append(at)
        axes.append(line)
    return figure, axes


def _absent(axes: Axes, reason: str) -> None:
    axes.set_facecolor("#eeeeee")
    text = "\n".join(textwrap.wrap(clean(f"{MISSING}: {reason}" if reason else MISSING), 34, max_lines=9, placeholder=" …"))
    axes.text(0.5, 0.5, text, fontsize=7, ha="center", va="center", transform=axes.transAxes, parse_math=False)


def _flat(images: NDArray[Any]) -> NDArray[Any]:
    """Colour images by the mean of their channels."""
    return images.mean(-1) if images.ndim > 2 and images.shape[-1] == 3 else images


__all__ = ["PaperFigure", "PaperPanel", "attribution_figures", "panels_of", "uncertainty_figure"]
