"""A board as CSV: one line per run, full precision, every column with its signature."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from mrbench.report.board import Board, BoardRow

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape(text: str) -> str:
    """Text that spreadsheets would run as a formula gets a leading apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def render(boards: Sequence[Board]) -> str:
    """All boards in one table; columns that a board does not have stay empty."""
    lines = [_line(board, row) for board in boards for row in board.all_rows]
    names = list(dict.fromkeys(n for line in lines for n in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _line(board: Board, row: BoardRow) -> dict[str, Any]:
    line: dict[str, Any] = {
        "dataset": escape(board.dataset),
        "protocol": escape(board.protocol),
        "protocol_hash": board.protocol_hash,
        "task_hash": " ".join(board.task_hashes),
        "method": escape(row.name),
        "method_name": escape(row.method),
        "tier": escape(row.tier),
        **({"track": escape(row.track)} if board.show_track else {}),
        "control": row.control,
        "run": escape(row.run),
        "over": board.over,
        "items": row.items,
        "ok": row.ok,
        "failed": row.failed,
        "skipped": row.skipped,
        "n_subjects": row.n_subjects,
        "banner": escape(board.banner),
    }
    for column in board.columns:
        cell = row.cells[column.name]
        a = cell.aggregate
        key = escape(column.name)
        line[f"{key}_mean"] = _exact(a.mean if a else None)
        line[f"{key}_sd"] = _exact(a.sd if a else None)
        line[f"{key}_median"] = _exact(a.median if a else None)
        line[f"{key}_n"] = a.n if a else 0
        line[f"{key}_nan"] = a.nan if a else ""
        line[f"{key}_inf"] = a.inf if a else ""
        line[f"{key}_mark"] = cell.mark
        line[f"{key}_signature"] = escape(column.signature)
    line["nfe"] = _exact(row.nfe)
    line["seconds_per_item"] = _exact(row.seconds) if board.show_seconds else ""
    return line


def _exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))
