"""A board as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from mrbench.report.sheet import HasSheet, Sheet, SheetCell, SheetColumn, SheetRow
from mrbench.report.text import clean, shorten

_SPECIAL = re.compile(r"([\\`*\[\]{}|~#$@])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LONGEST_NAME = 80


def escape(text: str) -> str:
    """``text`` as literal Markdown on one line: no markup, no HTML, no table cell ends."""
    safe = "".join(_ENTITIES.get(c, c) for c in _SPECIAL.sub(lambda m: f"\\{m.group(0)}", clean(text)))
    return re.sub(r"(?i)\b(https?|www)([:.])", r"\1<!-- -->\2", safe)


def render(board: HasSheet) -> str:
    """The board as a Markdown section with its notes below."""
    sheet = board.sheet()
    lines = [f"### {escape(sheet.title)}", ""]
    if sheet.banner:
        lines += [f"> **{escape(sheet.banner.capitalize())}.**", ""]
    lines += [f"{escape(sheet.size)}.", ""]
    for warning in sheet.warnings:
        lines += [f"> Warning: {escape(warning)}", ""]
    lines += _table(sheet)
    lines += ["", f"{escape(sheet.legend('bold', 'underlined'))}.", ""]
    for identity in sheet.identity:
        lines += [f"{escape(identity)}.", ""]
    if sheet.sentences:
        lines += ["Tests:", "", *(f"- {escape(s)}" for s in sheet.sentences), ""]
        lines += ["Notes:", ""] if sheet.footnotes else []
    lines += [f"- {escape(note)}" for note in sheet.footnotes]
    lines += [""] if sheet.footnotes else []
    if sheet.signatures:
        lines += ["Signatures:", ""]
        lines += [f"- {escape(name)}: {_code(signature)}" for name, signature in sheet.signatures.items()]
        lines.append("")
    return "\n".join(lines)


def _table(sheet: Sheet) -> list[str]:
    header = ["method", *(_header(sheet, c) for c in sheet.columns)]
    align = [":--", *(":--" if c.left else "--:" for c in sheet.columns)]
    return [_line(header), _line(align)] + [_line(_row(r)) for r in sheet.all_rows]


def _header(sheet: Sheet, column: SheetColumn) -> str:
    return escape(sheet.full_title(column) + (f" ({column.unit})" if column.unit else ""))


def _row(row: SheetRow) -> list[str]:
    name = escape(shorten(row.name, _LONGEST_NAME))
    return [f"*{name}* (control)" if row.control else name, *(_cell(c) for c in row.cells)]


def _cell(cell: SheetCell) -> str:
    text = escape(cell.plain)
    marked = {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[cell.mark]
    return marked + (f"<sup>{escape(cell.letters)}</sup>" if cell.letters else "")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """A code span; backticks inside are made plain quotes."""
    return f"`{clean(text).replace('`', chr(39))}`"
