"""A board as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from mrbench.report.board import Board, BoardRow, Cell
from mrbench.report.columns import Column
from mrbench.report.text import clean, shorten

_SPECIAL = re.compile(r"([\\`*\[\]{}|~#$@])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LONGEST_NAME = 80


def escape(text: str) -> str:
    """``text`` as literal Markdown on one line: no markup, no HTML, no table cell ends."""
    safe = "".join(_ENTITIES.get(c, c) for c in _SPECIAL.sub(lambda m: f"\\{m.group(0)}", clean(text)))
    return re.sub(r"(?i)\b(https?|www)([:.])", r"\1<!-- -->\2", safe)


def render(board: Board) -> str:
    """The board as a Markdown section with its notes below."""
    lines = [f"### {escape(board.title)}", ""]
    if board.banner:
        lines += [f"> **{escape(board.banner.capitalize())}.**", ""]
    lines += [f"{escape(board.size_text)}.", ""]
    for warning in board.warnings:
        lines += [f"> Warning: {escape(warning)}", ""]
    lines += _table(board)
    lines += ["", f"{escape(board.legend)}.", "", f"{escape(board.identity)}.", ""]
    lines += [f"- {escape(note)}" for note in board.footnotes]
    lines += [""] if board.footnotes else []
    if board.signatures:
        lines += ["Signatures:", ""]
        lines += [f"- {escape(name)}: {_code(signature)}" for name, signature in board.signatures.items()]
        lines.append("")
    return "\n".join(lines)


def _table(board: Board) -> list[str]:
    header = ["method", "tier"] + (["track"] if board.show_track else []) + (["ok"] if board.show_counts else [])
    align = [":--", ":--"] + ([":--"] if board.show_track else []) + (["--:"] if board.show_counts else [])
    for column in board.columns:
        header.append(escape(f"{column.header} {column.arrow}".strip() + (f" ({column.unit})" if column.unit else "")))
        align.append("--:")
    extra = (["NFE"] if board.show_nfe else []) + (["s/slice"] if board.show_seconds else [])
    header += extra
    align += ["--:"] * len(extra)
    return [_line(header), _line(align)] + [_line(_row(board, r)) for r in board.all_rows]


def _row(board: Board, row: BoardRow) -> list[str]:
    name = escape(shorten(row.name, _LONGEST_NAME))
    cells = [f"*{name}* (control)" if row.control else name, escape(row.tier)]
    cells += [escape(row.track_text)] if board.show_track else []
    cells += [row.counts_text] if board.show_counts else []
    cells += [_cell(row.cells[c.name], c) for c in board.columns]
    cells += [row.nfe_text] if board.show_nfe else []
    cells += [row.seconds_text] if board.show_seconds else []
    return cells


def _cell(cell: Cell, column: Column) -> str:
    text = cell.text(column)
    return {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[cell.mark]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """A code span; backticks inside are made plain quotes."""
    return f"`{clean(text).replace('`', chr(39))}`"
