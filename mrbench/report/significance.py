"""Significance on a board: which entries were not shown to differ from the best, groups as letters, and the tests in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mrbench.report.board import Board, BoardRow, Cell, Significance
from mrbench.report.columns import Column
from mrbench.report.text import clean, listing

if TYPE_CHECKING:
    from mrbench.report.statistics import Statistics
    from mrbench.stats.presets import Plan
    from mrbench.stats.results import MetricResult

DEMO = "no significance is marked: demonstration weights rank nothing (`mrbench stats` describes how they differ)."
ALONE = "no significance is marked: one entry alone has nothing to be compared with."
UNRANKED = "no significance is marked: no column of this table ranks entries."


def testable(board: Board) -> list[Column]:
    """The columns of a board that can be tested: ranked ones in which some entry has a number."""
    return [c for c in board.columns if c.ranked and any(r.cells[c.name].aggregate for r in board.rows)]


def untested(board: Board) -> str:
    """Why nothing on a board is tested, or the empty string."""
    if board.banner:
        return DEMO
    if len(board.rows) < 2:
        return ALONE
    return "" if testable(board) else UNRANKED


def with_significance(board: Board, statistics: Statistics | None, plan: Plan) -> Board:
    """The board with marks, letters and sentences.

    ``statistics``: of the board's runs under the names of its rows; ``None`` where :func:`untested` says why. Without a control, ``‡``
    refers to the best of each column by its mean and letters show the groups; with one, to the control.
    """
    reason = untested(board)
    if reason or statistics is None:
        found = Significance(plan.control, plan.alpha, untested=reason)
        return replace(board, significance=found, footnotes=(*board.footnotes, reason))
    results = {r.measure.name: r for r in statistics.results}
    cells: dict[str, dict[str, Cell]] = {r.name: dict(r.cells) for r in board.rows}
    sentences: list[str] = []
    limits: dict[str, list[str]] = {}  # note -> metrics
    for column in board.columns:
        result = results.get(column.name)
        if result is None:
            continue
        for row in board.rows:
            cells[row.name][column.name] = _marked(row, column, result, _reference(board.rows, column, plan.control))
        sentences += _sentences(board.rows, column, result, plan.control)
        for note in [*([result.reason] if result.reason else []), *result.notes]:
            limits.setdefault(note, []).append(result.measure.title)
    sentences += [f"{listing(titles)}: {note}." for note, titles in limits.items()]
    sentences += _paragraphs(statistics.results)
    found = Significance(plan.control, plan.alpha, tuple(map(clean, sentences)), statistics.results)
    rows = tuple(replace(r, cells=cells[r.name]) for r in board.rows)
    return replace(board, rows=rows, significance=found)


def _reference(rows: Sequence[BoardRow], column: Column, control: str) -> str:
    """Whom a column's marks refer to: the control, or the best by mean (empty where no mean is marked)."""
    return control or next((r.name for r in rows if r.cells[column.name].mark == "best"), "")


def _marked(row: BoardRow, column: Column, result: MetricResult, reference: str) -> Cell:
    cell = row.cells[column.name]
    if result.reason or cell.aggregate is None:
        return cell
    letters = next((s.letters for s in result.standings if s.method == row.name), "")
    pair = result.pair(reference, row.name) if reference and reference != row.name else None
    shared_best = cell.mark == "best" and not result.provenance.control
    not_shown = pair is not None and not pair.different and not shared_best
    change = result.change(pair) if pair is not None and result.provenance.control else math.nan
    return replace(cell, letters=letters, not_shown=not_shown, change=None if math.isnan(change) else change)


def _sentences(rows: Sequence[BoardRow], column: Column, result: MetricResult, control: str) -> list[str]:
    """The test of all entries; then best against second (all against the control)."""
    from mrbench.stats.sentences import omnibus_sentence, pair_sentence

    if result.reason:
        return []
    found = [omnibus_sentence(result)]
    reference = _reference(rows, column, control)
    if control:
        found += [pair_sentence(result, p) for p in result.pairs]
    else:
        second = next((r.name for r in rows if r.cells[column.name].mark == "second"), "")
        pair = result.pair(reference, second) if reference and second else None
        found += [pair_sentence(result, pair)] if pair is not None else []
        found += _contradictions(rows, column, result, reference)
    return found


def _contradictions(rows: Sequence[BoardRow], column: Column, result: MetricResult, reference: str) -> list[str]:
    """Entries that the tests find better than the best by mean, which can happen as they weigh subjects alike or look at ranks."""
    others = [p.better for p in result.pairs if reference in (p.a, p.b) and p.different and p.better != reference]
    return [f"{column.header}: by the tests {name} is better than {reference}, although its mean is not." for name in others]


def _paragraphs(results: Sequence[MetricResult]) -> list[str]:
    from mrbench.stats.sentences import methods_paragraph

    return list(dict.fromkeys(methods_paragraph(r) for r in results if not r.reason))


def document(board: Board) -> Mapping[str, object]:
    """The significance of a board for JSON: reference, level, per column letters and decisions, the whole results."""
    from mrbench.stats.documents import document as result_document

    found = board.significance
    assert found is not None
    return {
        "reference": found.reference or "best",
        "alpha": found.alpha,
        "untested": found.untested,
        "sentences": list(found.sentences),
        "columns": {
            r.measure.name: {
                "tested": not r.reason,
                "reason": r.reason,
                "letters": {s.method: s.letters for s in r.standings},
                "groups": [list(g) for g in r.groups],
                "not_shown_to_differ": [x.name for x in board.rows if x.cells[r.measure.name].not_shown],
            }
            for r in found.results
        },
        "results": [result_document(r) for r in found.results],
    }
