"""Leaderboards: a pure function of rows and manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from mrbench.errors import UserError
from mrbench.report.board import BANNER, Board, BoardRow, Cell, Mark
from mrbench.report.columns import Column, choose_columns
from mrbench.report.comparable import AlignedRun, Comparison, compare, names_of, refuse_tiers
from mrbench.report.hardware import hardware_of
from mrbench.report.notes import TUNED, footnotes_of, warnings_of
from mrbench.report.summary import Over, aggregate, mean_of, reason_for
from mrbench.report.text import clean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData


def build_board(
    runs: Sequence[RunData], *, metrics: Sequence[str] | None = None, over: Over = "slices", intersect: bool = False
) -> Board:
    """One table of runs of one protocol on one data set.

    Parameters
    ----------
    metrics : columns to show, in this order; default: all in the default order, ``@mean`` and ``@best`` only where some
        run has several draws.
    over : unit of mean, sd and n.
    intersect : compare on the items that every entry restored, instead of refusing unequal item sets.

    Raises
    ------
    UserError : what the runs must share and do not (protocol, data set, items and their content, signatures; demonstration
        weights beside others), naming the runs and how to go on; or an unknown column.
    """
    if over not in get_args(Over):
        raise UserError(f"no unit {over!r} to average over. Known: {', '.join(get_args(Over))}.")
    comparison = compare(runs, intersect)
    refuse_tiers(runs)
    columns = choose_columns(runs, metrics)
    rows = [_row(a, name, comparison, columns, over) for a, name in zip(comparison.runs, names_of(runs), strict=True)]
    if metrics is None:
        columns = [c for c in columns if any(r.cells[c.name].aggregate for r in rows)]
    demo = any(a.run.manifest.method.tier == "demo" for a in comparison.runs)
    rows = _ranked(rows, columns, comparison, marks=not demo)
    entries, controls = [r for r in rows if not r.control], [r for r in rows if r.control]
    hardware = hardware_of(comparison)
    first = runs[0].manifest
    return Board(
        dataset=clean(first.dataset.alias),
        dataset_name=clean(first.dataset.name),
        dataset_version=clean(first.dataset.version),
        protocol=clean(first.protocol.name),
        protocol_hash=first.protocol.hash,
        task_hashes=tuple(dict.fromkeys(r.manifest.task_hash for r in runs)),
        n_items=len(comparison.items),
        n_subjects=len(comparison.subjects),
        over=over,
        columns=tuple(columns),
        rows=tuple(entries if demo else _best_first(entries, columns)),
        controls=tuple(controls),
        footnotes=tuple(footnotes_of(comparison, rows, columns, over, hardware, shown=metrics is None)),
        warnings=tuple(warnings_of(runs)),
        banner=BANNER if demo else "",
        show_counts=any(r.ok < r.items or r.skipped for r in rows),
        show_seconds=len(hardware) == 1 and any(r.seconds is not None for r in rows),
        show_nfe=any(r.nfe is not None for r in rows),
        show_track=any(r.track.startswith(TUNED) for r in rows),
    )


def build_boards(
    runs: Sequence[RunData], *, metrics: Sequence[str] | None = None, over: Over = "slices", intersect: bool = False
) -> list[Board]:
    """One board per data set, in the order in which they appear. Raises as ``build_board`` does."""
    groups: dict[tuple[str, str], list[RunData]] = {}
    for run in runs:
        groups.setdefault((run.manifest.dataset.alias, run.manifest.dataset.name), []).append(run)
    if not groups:
        return [build_board([], metrics=metrics, over=over, intersect=intersect)]
    return [build_board(group, metrics=metrics, over=over, intersect=intersect) for group in groups.values()]


def _row(a: AlignedRun, name: str, comparison: Comparison, columns: Sequence[Column], over: Over) -> BoardRow:
    manifest = a.run.manifest
    ok = int(a.ok.sum())
    cells: dict[str, Cell] = {}
    for column in columns:
        values = a.values(column.name)[a.ok]
        found = aggregate(values, comparison.codes[a.ok], over, column.cap)
        cells[column.name] = Cell(found, reason="" if found else reason_for(manifest, column.name, ok))
    kept = a.rows[a.ok]
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
            for i, mark in _marks(means, bool(column.higher_is_better)).items():
                cells[i][name] = replace(cells[i][name], mark=mark)
    return [replace(r, cells=c) for r, c in zip(rows, cells, strict=True)]


def _marks(means: Mapping[int, float], higher_is_better: bool) -> dict[int, Mark]:
    """Best and second distinct value of two or more; exact ties share the mark."""
    if len(means) < 2:
        return {}
    distinct = sorted(set(means.values()), reverse=higher_is_better)
    names: dict[float, Mark] = dict(zip(distinct, ("best", "second"), strict=False))
    return {i: names[m] for i, m in means.items() if m in names}


def _best_first(rows: Sequence[BoardRow], columns: Sequence[Column]) -> list[BoardRow]:
    """Sorted by the first ranked column: ranked rows, then means over fewer items, then rows without a finite one."""
    first = next((c for c in columns if c.ranked), None)
    if first is None:
        return list(rows)

    def key(row: BoardRow) -> tuple[int, float]:
        cell = row.cells[first.name]
        if cell.aggregate is None or not np.isfinite(cell.aggregate.mean):
            return 2, 0.0
        return int(cell.incomplete), -cell.aggregate.mean if first.higher_is_better else cell.aggregate.mean

    return sorted(rows, key=key)
