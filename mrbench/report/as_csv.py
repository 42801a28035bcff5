"""A board as CSV: one line per run, full precision, every column with its signature."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from mrbench.report.board import Board, BoardRow
from mrbench.report.wide import WideBoard

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape(text: str) -> str:
    """Text that spreadsheets would run as a formula gets a leading apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def render(boards: Sequence[Board | WideBoard]) -> str:
    """All boards in one table; columns that a board does not have stay empty. A wide board has a line per group and run."""
    lines = [line for board in boards for line in _lines(board)]
    names = list(dict.fromkeys(n for line in lines for n in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _lines(board: Board | WideBoard) -> list[dict[str, Any]]:
    if isinstance(board, Board):
        return [_line(board, row) for row in board.all_rows]
    found = []
    for g, (title, part) in enumerate(zip(board.titles, board.boards, strict=True)):
        rows = {r.name: r for r in part.all_rows}
        for name in (*board.names, *board.controls):
            if name in rows:
                ranks: dict[str, Any] = {}
                for o in board.overall:
                    key, ranked = escape(o.column.name), name in o.ranks
                    ranks[f"{key}_rank"] = _exact(o.ranks[name][g] if ranked else None)
                    ranks[f"{key}_mean_rank"] = _exact(o.means[name] if ranked else None)
                found.append({"group": escape(title), **_line(part, rows[name]), **ranks})
    return found


def _line(board: Board, row: BoardRow) -> dict[str, Any]:
    line: dict[str, Any] = {
        "dataset": escape(board.dataset),
        "protocol": escape(board.protocol),
        "protocol_hash": board.protocol_hash,
        "task_hash": " ".join(board.task_hashes),
        "method": escape(row.name),
        "method_name": escape(row.method),
        "tier": escape(row.tier),
        **({"verified": "yes"} if row.verified else {}),
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
        if board.level is not None:
            line[f"{key}_low"] = _exact(cell.interval.low if cell.interval else None)
            line[f"{key}_high"] = _exact(cell.interval.high if cell.interval else None)
        if board.significance is not None:
            line[f"{key}_letters"] = cell.letters
            line[f"{key}_not_shown_to_differ"] = cell.not_shown
            if board.significance.reference:
                line[f"{key}_change_percent"] = _exact(cell.change)
        line[f"{key}_signature"] = escape(column.signature)
    for heading in board.factors:
        line[f"factor_{escape(heading)}"] = _factor(row.factors.get(heading))
    if board.level is not None:
        line["interval_level"] = _exact(board.level)
    if board.significance is not None:
        line["reference"] = escape(board.significance.reference) or "best"
    line["parameters"] = "" if row.parameters is None else row.parameters
    line["nfe"] = _exact(row.nfe)
    line["peak_memory"] = _exact(row.memory) if board.show_memory else ""
    line["seconds_per_item"] = _exact(row.seconds) if board.show_seconds else ""
    return line


def _factor(value: bool | str | None) -> str:
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else escape(value)


def _exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))
