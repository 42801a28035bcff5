"""A board as JSON: every number finite or null."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mrbench.report.board import Board, BoardRow, Cell
from mrbench.report.columns import Column
from mrbench.report.significance import document as significance_document
from mrbench.report.wide import MeanRanks, WideBoard


def document(board: Board) -> dict[str, Any]:
    """The board as a JSON-serialisable mapping.

    ``rows`` holds entries, then controls; ``method`` is what the row is called on the board, ``method_name`` the
    registered name. A metric that could not be computed is absent from its row and has its reason under ``unavailable``.
    """
    return {
        "dataset": board.dataset,
        "dataset_version": board.dataset_version,
        "protocol": board.protocol,
        "protocol_hash": board.protocol_hash,
        "task_hash": board.task_hashes[0] if len(board.task_hashes) == 1 else list(board.task_hashes),
        "n_items": board.n_items,
        "n_subjects": board.n_subjects,
        "over": board.over,
        "banner": board.banner,
        "warnings": list(board.warnings),
        **({"interval_level": board.level} if board.level is not None else {}),
        **({"factors": list(board.factors)} if board.factors else {}),
        "columns": {c.name: _column(c) for c in board.columns},
        "rows": [_row(board, r) for r in board.all_rows],
        "marks": board.marks(),
        "signatures": board.signatures,
        "footnotes": list(board.footnotes),
        **({"significance": significance_document(board)} if board.significance is not None else {}),
    }


def wide_document(board: WideBoard) -> dict[str, Any]:
    """A wide board: its groups, each as :func:`document` gives it with a ``title``, the order of the rows, and mean ranks by column."""
    return {
        "title": board.title,
        "banner": board.banner,
        "methods": list(board.names),
        "controls": list(board.controls),
        "groups": [{"title": t, **document(b)} for t, b in zip(board.titles, board.boards, strict=True)],
        "mean_ranks": {o.column.name: _ranks(o, board.titles) for o in board.overall},
        "footnotes": list(board.notes),
    }


def _ranks(overall: MeanRanks, titles: Sequence[str]) -> dict[str, Any]:
    rows = {
        name: {"mean_rank": overall.means[name], "ranks": dict(zip(titles, ranks, strict=True))}
        for name, ranks in overall.ranks.items()
    }
    return {"methods": rows, "left_out": {name: list(where) for name, where in overall.left_out.items()}}


def render(boards: Sequence[Board | WideBoard]) -> str:
    """One board as an object, several as a list of objects."""
    documents = [document(b) if isinstance(b, Board) else wide_document(b) for b in boards]
    return json.dumps(documents[0] if len(documents) == 1 else documents, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _column(column: Column) -> dict[str, Any]:
    return {
        "title": column.header,
        "higher_is_better": column.higher_is_better,
        "ranked": column.ranked,
        "digits": column.digits,
        "unit": column.unit,
    }


def _row(board: Board, row: BoardRow) -> dict[str, Any]:
    return {
        "method": row.name,
        "method_name": row.method,
        "label": row.label,
        "tier": row.tier,
        **({"verified": True} if row.verified else {}),
        **({"track": row.track} if board.show_track else {}),
        "control": row.control,
        "run": row.run,
        "draws": row.draws,
        "items": row.items,
        "ok": row.ok,
        "failed": row.failed,
        "skipped": row.skipped,
        "n_subjects": row.n_subjects,
        "seconds_per_item": row.seconds if board.show_seconds else None,
        "nfe": row.nfe,
        "parameters": row.parameters,
        "peak_memory": row.memory if board.show_memory else None,
        **({"factors": dict(row.factors)} if board.factors else {}),
        "unavailable": {name: cell.reason for name, cell in row.cells.items() if cell.aggregate is None},
        **{name: _cell(cell) for name, cell in row.cells.items() if cell.aggregate is not None},
    }


def _cell(cell: Cell) -> dict[str, Any]:
    assert cell.aggregate is not None
    found = cell.aggregate.document()
    return found | ({"interval": [cell.interval.low, cell.interval.high]} if cell.interval is not None else {})
