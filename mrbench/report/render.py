"""One door to all formats of a board."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report import as_csv, as_html, as_json, as_latex, as_markdown, as_terminal
from mrbench.report.board import Board
from mrbench.report.wide import WideBoard

FORMATS = ("terminal", "markdown", "latex", "html", "csv", "json")
ENDINGS = {".txt": "terminal", ".md": "markdown", ".tex": "latex", ".html": "html", ".csv": "csv", ".json": "json"}


def render(boards: Sequence[Board | WideBoard], form: str, width: int = as_terminal.WIDTH) -> str:
    """The boards as text in one of ``FORMATS``; ``width`` is the terminal's.

    Raises
    ------
    UserError : an unknown format, naming the known ones.
    """
    if form == "html":
        return as_html.render(boards)
    if form == "csv":
        return as_csv.render(boards)
    if form == "json":
        return as_json.render(boards)
    if form == "terminal":
        return "\n".join(as_terminal.render(b, width) for b in boards)
    if form == "markdown":
        return "\n".join(as_markdown.render(b) for b in boards)
    if form == "latex":
        return "\n".join(as_latex.render(b) for b in boards)
    raise UserError(f"no table format {form!r}.{did_you_mean(form, FORMATS)} Known: {', '.join(FORMATS)}.")


def format_of(name: str) -> str:
    """The format that a file name's ending stands for (``UserError`` for others)."""
    for ending, form in ENDINGS.items():
        if name.lower().endswith(ending):
            return form
    raise UserError(f"{name}: no table format has this ending. Known endings: {', '.join(ENDINGS)}.")
