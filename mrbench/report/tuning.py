"""A tuning as a table and as a picture: the objective of every trial, against every option that was searched."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrbench.report.figures import literal, new_figure, save
from mrbench.report.text import NOT_AVAILABLE, clean, count, listing, number, shorten, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from mrbench.store.tuned import TrialRecord, TunedResult

DIGITS = 4
_MOST = 12  # rows of the table: the best ones
_ACROSS = 3
_WIDE, _HIGH = 2.9, 2.3  # inches of one axes with its labels
_GREY, _BEST, _BAD = "#5b7fa6", "#c4451c", "#9a9a9a"


def ordered(result: TunedResult) -> list[TrialRecord]:
    """The trials, best first, equals in their order, failed ones last."""
    sign = -1.0 if result.objective.higher_is_better else 1.0
    return sorted(result.trials, key=lambda t: (t.score is None, sign * (t.score or 0.0)))


def values_text(values: dict[str, Any]) -> str:
    """``zeta=0.3162, steps=100``; ``default options`` for trial 0."""
    return ", ".join(f"{k}={clean(v)}" for k, v in values.items()) or "default options"


def sentence(result: TunedResult) -> str:
    """What came out, in one sentence."""
    best, default = result.best, result.trials[0]
    of = f"{result.objective.column} ({result.objective.aggregation})"
    people = count(len(result.subjects), "validation subject")
    if best is None or best.score is None:
        return f"all {len(result.trials)} trials failed."
    text = f"best of {len(result.trials)} trials on {people}: {values_text(best.values)}; {of} {number(best.score, DIGITS)}"
    if best.trial == 0 or default.score is None:
        return f"{text}."
    return f"{text}, with the default options {number(default.score, DIGITS)}."


def trials_table(result: TunedResult) -> Table:
    """The best trials and the default options, as a rich table; texts are literal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    arrow = "↑" if result.objective.higher_is_better else "↓"
    for name, numeric in (
        ("trial", True),
        (f"{clean(result.objective.column)} {arrow}", True),
        ("options", False),
        ("s/slice", True),
    ):
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    trials = ordered(result)
    for t in trials[:_MOST] + [t for t in trials[_MOST:] if t.trial == 0]:
        score = number(t.score, DIGITS) if t.score is not None else "failed"
        seconds = significant(t.seconds_per_item) if t.seconds_per_item is not None else NOT_AVAILABLE
        cells = (str(t.trial), score, values_text(t.values), seconds)
        table.add_row(*(Text(c, style="bold" if t.trial == result.winner else "") for c in cells))
    return table


def tuning_picture(result: TunedResult, out_stem: Path) -> tuple[Path, Path]:
    """Write the picture as ``<out_stem>.png`` and ``<out_stem>.pdf``; returns both paths."""
    return save(tuning_figure(result), out_stem)


def tuning_figure(result: TunedResult) -> Figure:
    """One axes per searched option: a point per trial, the winner ringed, the default options as a dashed line.

    A trial without a score is a cross at the lower edge. Values of the default options that lie outside the axes (or are left
    to the weights) have the line alone.
    """
    names = list(result.space)
    across = min(_ACROSS, len(names))
    down = math.ceil(len(names) / across)
    head, foot = 0.3, 0.3
    figure = new_figure(max(across * _WIDE + 0.3, 5.2), head + down * _HIGH + foot)
    wide, high = figure.get_size_inches()
    panel = (wide - 0.3) / across
    handles: dict[str, Any] = {}
    for position, name in enumerate(names):
        left = 0.3 + (position % across) * panel + 0.45
        top = head + (position // across) * _HIGH
        axes = figure.add_axes((left / wide, 1 - (top + _HIGH - 0.45) / high, (panel - 0.65) / wide, (_HIGH - 0.6) / high))
        handles |= _draw(axes, result, name)
        axes.set_xlabel(clean(name), fontsize=8, parse_math=False)
        if position % across == 0:
            arrow = "↑" if result.objective.higher_is_better else "↓"
            axes.set_ylabel(f"{clean(result.objective.column)} {arrow}", fontsize=8, parse_math=False)
    figure.text(0.1 / wide, 1 - 0.1 / high, fontsize=8, va="top", weight="bold", **literal(_title(result)))
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", ncols=4, fontsize=7, frameon=False, handletextpad=0.4,
        borderaxespad=0.2,
    )  # fmt: skip
    return figure


def _title(result: TunedResult) -> str:
    where = listing([d.alias for d in result.datasets], 3)
    method = result.method.name + (f"@{result.method.checkpoint}" if result.method.checkpoint else "")
    people = count(len(result.subjects), "subject")
    return shorten(
        f"{method} on {where} (validation, {people}), {result.protocol.name}: {count(len(result.trials), 'trial')}", 90
    )


def _draw(axes: Axes, result: TunedResult, name: str) -> dict[str, Any]:
    """One option's axes; returns its legend handles by text."""
    declared = result.space[name]
    choices = [str(c) for c in declared.get("choices", ())]
    drawn = [(t, x) for t in result.trials if (x := _place(t, name, choices)) is not None]
    good = [(x, t.score) for t, x in drawn if t.score is not None and t.trial != 0]
    bad = [x for t, x in drawn if t.score is None]
    default, best = result.trials[0], result.best
    handles: dict[str, Any] = {
        "trial": axes.plot([x for x, _ in good], [y for _, y in good], "o", ms=4, color=_GREY, alpha=0.8)[0]
    }
    if default.score is not None:
        line = axes.axhline(default.score, ls="--", lw=1, color="black", alpha=0.6, zorder=0)
        handles["default options"] = line
        at = _place(default, name, choices)
        if at is not None:
            axes.plot([at], [default.score], "D", ms=5, color="black", zorder=3)
    if best is not None and best.score is not None and (at := _place(best, name, choices)) is not None:
        ring = axes.plot([at], [best.score], "o", ms=9, mfc="none", mec=_BEST, mew=1.6, zorder=4)[0]
        handles[f"best: trial {best.trial}"] = ring
    if bad:
        cross = axes.plot(bad, [0.03] * len(bad), "x", ms=5, color=_BAD, transform=axes.get_xaxis_transform())[0]
        handles["failed"] = cross
    if choices:
        axes.set_xticks(range(len(choices)), [shorten(clean(c), 12) for c in choices], parse_math=False)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif declared.get("log"):
        axes.set_xscale("log")
    axes.margins(0.08, 0.12)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, lw=0.5)
    axes.ticklabel_format(axis="y", useOffset=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return handles


def _place(trial: TrialRecord, name: str, choices: list[str]) -> float | None:
    """Where a trial stands on the axis of an option; ``None``: nowhere."""
    value = trial.values.get(name, trial.options.get(name))
    if choices:
        return float(choices.index(str(value))) if str(value) in choices else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
