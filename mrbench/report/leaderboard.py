"""Leaderboards: a pure function of rows and manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.ablation import factors_of, ticks
from mrbench.report.board import BANNER, Board, BoardRow, Cell, Mark
from mrbench.report.columns import Column, choose_columns
from mrbench.report.comparable import AlignedRun, Comparison, compare, refuse_tiers
from mrbench.report.hardware import hardware_of
from mrbench.report.intervals import interval_notes, mean_intervals
from mrbench.report.notes import TUNED, cost_notes_of, footnotes_of, warnings_of
from mrbench.report.significance import testable, untested, with_significance
from mrbench.report.summary import Over, aggregate, largest_of, mean_of, reason_for
from mrbench.report.text import clean
from mrbench.report.verified import badge, standing
from mrbench.report.view import GIVEN, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.report.statistics import Statistics
    from mrbench.stats.presets import Plan
    from mrbench.store.runs import RunData

K = TypeVar("K")
ROW_COLUMNS = (
    "item_id", "item_hash", "status", "subject", "warning", "seconds", "nfe", "peak_memory", "device", "precision", "threads", "batch",
)  # fmt: skip
"""The fixed columns of rows that boards and statistics read."""
MEASURED = ("seconds", "nfe", "peak_memory")


def build_board(
    runs: Sequence[RunData],
    *,
    metrics: Sequence[str] | None = None,
    over: Over = "slices",
    intersect: bool = False,
    view: View | None = None,
) -> Board:
    """One table of runs of one protocol on one data set.

    Parameters
    ----------
    metrics, over, intersect : see :class:`View`.
    view : all choices at once, instead of the three.

    Raises
    ------
    UserError : what the runs must share and do not (protocol, data set, items and their content, signatures; demonstration
        weights beside others), naming the runs and how to go on; or an unknown column, order, or control.
    """
    view = view or View(metrics=None if metrics is None else tuple(metrics), over=over, intersect=intersect)
    comparison = compare(runs, view.intersect)
    refuse_tiers(runs)
    names = view.named(runs)
    columns = view.styled(choose_columns(runs, view.metrics))
    rows = [_row(a, name, comparison, columns, view.over) for a, name in zip(comparison.runs, names, strict=True)]
    if view.metrics is None:
        columns = [c for c in columns if any(r.cells[c.name].aggregate for r in rows)]
    demo = view.demo or any(a.run.manifest.method.tier == "demo" for a in comparison.runs)
    rows = _ranked(rows, columns, comparison, marks=not demo)
    if view.level is not None:
        rows = _with_intervals(rows, columns, comparison, view.over, view.level)
    headings: tuple[str, ...] = ()
    if view.ablation:
        headings, factors = factors_of(runs)
        rows = [replace(r, factors=f) for r, f in zip(rows, factors, strict=True)]
    entries, controls = [r for r in rows if not r.control], [r for r in rows if r.control]
    hardware = hardware_of(comparison)
    footnotes = footnotes_of(comparison, rows, columns, view.over, hardware, shown=view.metrics is None)
    first = runs[0].manifest
    board = Board(
        dataset=clean(first.dataset.alias),
        dataset_name=clean(first.dataset.name),
        dataset_version=clean(first.dataset.version),
        protocol=clean(first.protocol.name),
        protocol_hash=first.protocol.hash,
        task_hashes=tuple(dict.fromkeys(r.manifest.task_hash for r in runs)),
        n_items=len(comparison.items),
        n_subjects=len(comparison.subjects),
        over=view.over,
        columns=tuple(columns),
        rows=tuple(_in_order(entries, columns, view, demo)),
        controls=tuple(controls),
        footnotes=(*footnotes, *(interval_notes(len(comparison.subjects)) if view.level is not None else ())),
        warnings=tuple(warnings_of(runs)),
        banner=BANNER if demo else "",
        show_counts=any(r.ok < r.items or r.skipped for r in rows),
        show_seconds=len(hardware) == 1 and any(r.seconds is not None for r in rows),
        show_nfe=any(r.nfe is not None for r in rows),
        show_track=any(r.track.startswith(TUNED) for r in rows),
        show_parameters=any(r.parameters is not None for r in rows),
        show_memory=len(hardware) == 1 and any(r.memory is not None for r in rows),
        factors=headings,
        level=view.level,
        heading=clean(view.heading),
        hardware=str(next(iter(hardware))) if len(hardware) == 1 else "",
        cost_notes=tuple(cost_notes_of(comparison, rows, hardware)),
    )
    plan = view.tested(runs)
    return board if plan is None else with_significance(board, _tests(board, runs, comparison, names, plan), plan)


def build_boards(
    runs: Sequence[RunData],
    *,
    metrics: Sequence[str] | None = None,
    over: Over = "slices",
    intersect: bool = False,
    view: View | None = None,
) -> list[Board]:
    """One board per data set, in the order in which they appear. Raises as ``build_board`` does."""
    view = view or View(metrics=None if metrics is None else tuple(metrics), over=over, intersect=intersect)
    groups: dict[tuple[str, str], list[RunData]] = {}
    for run in runs:
        groups.setdefault((run.manifest.dataset.alias, run.manifest.dataset.name), []).append(run)
    return [build_board(group, view=view) for group in groups.values()] or [build_board([], view=view)]


def _tests(
    board: Board, runs: Sequence[RunData], comparison: Comparison, names: Sequence[str], plan: Plan
) -> Statistics | None:
    """The statistics of what stands on the board; ``None`` where nothing can be tested."""
    from mrbench.report.statistics import Prepared, build_statistics

    if untested(board):
        return None
    entries = [(a, n) for a, n in zip(comparison.runs, names, strict=True) if not a.run.manifest.method.control]
    of_entries = replace(comparison, runs=tuple(a for a, _ in entries))
    return build_statistics(runs, plan, prepared=Prepared(of_entries, tuple(n for _, n in entries), tuple(testable(board))))


def _with_intervals(
    rows: Sequence[BoardRow], columns: Sequence[Column], comparison: Comparison, over: Over, level: float
) -> list[BoardRow]:
    found = mean_intervals(comparison, columns, over, level)
    return [
        replace(r, cells={name: replace(cell, interval=found.get((i, name))) for name, cell in r.cells.items()})
        for i, r in enumerate(rows)
    ]


def _row(a: AlignedRun, name: str, comparison: Comparison, columns: Sequence[Column], over: Over) -> BoardRow:
    manifest = a.run.manifest
    ok = int(a.ok.sum())
    cells: dict[str, Cell] = {}
    for column in columns:
        values = a.values(column.name)[a.ok]
        found = aggregate(values, comparison.codes[a.ok], over, column.cap)
        cells[column.name] = Cell(found, reason="" if found else reason_for(manifest, column.name, ok))
    kept = a.rows[[c for c in MEASURED if c in a.rows]][a.ok]
    return BoardRow(
        name=name,
        label=clean(manifest.method.label),
        method=clean(manifest.method.name),
        run=clean(manifest.run),
        tier=clean(manifest.method.tier),
        control=manifest.method.control,
        draws=manifest.draws,
        items=a.counts.items,
        ok=a.counts.ok,
        failed=a.counts.failed,
        skipped=a.counts.skipped,
        n_subjects=len(np.unique(comparison.codes[a.ok])),
        cells=cells,
        seconds=mean_of(kept, "seconds"),
        nfe=mean_of(kept, "nfe"),
        track=clean(manifest.method.track),
        parameters=manifest.method.parameters,
        memory=largest_of(kept, "peak_memory"),
        verified=badge(standing(a.run)),
    )


def _ranked(rows: Sequence[BoardRow], columns: Sequence[Column], comparison: Comparison, marks: bool) -> list[BoardRow]:
    """Rows with marks: means over the same items compete; those over fewer are flagged instead."""
    cells: list[dict[str, Cell]] = [dict(r.cells) for r in rows]
    entries = [i for i, r in enumerate(rows) if not r.control]
    for column in columns:
        name = column.name
        known = {i: ~np.isnan(comparison.runs[i].values(name)) for i in range(len(rows)) if rows[i].cells[name].aggregate}
        competing = [i for i in entries if i in known]
        everywhere: NDArray[Any] = np.logical_or.reduce([known[i] for i in competing]) if competing else np.array(False)
        complete = [i for i in competing if bool((known[i] | ~everywhere).all())]
        for i in known:
            if not bool((known[i] | ~everywhere).all()):
                cells[i][name] = replace(cells[i][name], incomplete=True)
        if marks and column.ranked:
            means = {i: a.mean for i in complete if (a := rows[i].cells[name].aggregate) and np.isfinite(a.mean)}
            for i, mark in marks_of_means(means, bool(column.higher_is_better)).items():
                cells[i][name] = replace(cells[i][name], mark=mark)
    return [replace(r, cells=c) for r, c in zip(rows, cells, strict=True)]


def marks_of_means(means: Mapping[K, float], higher_is_better: bool) -> dict[K, Mark]:
    """Best and second distinct value of two or more; exact ties share the mark."""
    if len(means) < 2:
        return {}
    distinct = sorted(set(means.values()), reverse=higher_is_better)
    names: dict[float, Mark] = dict(zip(distinct, ("best", "second"), strict=False))
    return {i: names[m] for i, m in means.items() if m in names}


_marks = marks_of_means


def _in_order(rows: Sequence[BoardRow], columns: Sequence[Column], view: View, demo: bool) -> list[BoardRow]:
    """As the view asks for; demonstration weights are not ordered by their numbers."""
    names = [c.name for c in columns]
    if view.order and view.order != GIVEN:
        column = next((c for c in columns if c.name == view.order), None)
        if column is None or not column.ranked:
            why = "ranks nothing" if column is not None else "is no column of this table"
            known = [GIVEN, *(c.name for c in columns if c.ranked)]
            raise UserError(f"order: {view.order!r} {why}.{did_you_mean(view.order, names)} Known: {', '.join(known)}.")
        return list(rows) if demo else _best_first(rows, column)
    if view.order == GIVEN:
        return list(rows)
    if view.ablation:
        return sorted(rows, key=lambda r: ticks(r.factors))
    first = next((c for c in columns if c.ranked), None)
    return list(rows) if demo or first is None else _best_first(rows, first)


def _best_first(rows: Sequence[BoardRow], column: Column) -> list[BoardRow]:
    """Sorted by a ranked column: ranked rows, then means over fewer items, then rows without a finite one."""

    def key(row: BoardRow) -> tuple[int, float]:
        cell = row.cells[column.name]
        if cell.aggregate is None or not np.isfinite(cell.aggregate.mean):
            return 2, 0.0
        return int(cell.incomplete), -cell.aggregate.mean if column.higher_is_better else cell.aggregate.mean

    return sorted(rows, key=key)
