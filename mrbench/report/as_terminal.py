"""A board for the terminal: as many blocks of columns as the width asks for, the method repeated in each."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrbench.report.board import Board, BoardRow
from mrbench.report.columns import Column
from mrbench.report.text import shorten

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

WIDTH = 100
_NAME_WIDTH = 32
_GAP = 3  # between columns: padding of 2, and the box's blank divider
_STYLES = {"best": "bold", "second": "underline", "": ""}
_SIGNS = {"best": "*", "second": "_", "": ""}  # where the output has no styles


@dataclass(frozen=True)
class _Field:
    """A column as the terminal shows it: header lines, and text with style per row."""

    header: tuple[str, ...]
    cell: Callable[[BoardRow], tuple[str, str]]
    right: bool = True

    def width(self, rows: Sequence[BoardRow]) -> int:
        from rich.cells import cell_len

        return max(cell_len(t) for t in (*self.header, *(self.cell(r)[0] for r in rows)))


@dataclass(frozen=True)
class BoardView:
    """A rich renderable of a board; it fits itself to the console's width."""

    board: Board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, blocks of columns, notes and signatures."""
        from rich.text import Text

        board = self.board
        if board.banner:
            yield Text(board.banner.upper(), style="bold reverse")
        yield Text(f"{board.title}: {board.size_text}", style="bold")
        for warning in board.warnings:
            yield Text(f"warning: {warning}", style="yellow")
        plain = console.color_system is None
        for block in _blocks(board, options.max_width, plain):
            yield Text("")
            yield _table(board, block)
        yield Text("")
        yield Text(board.legend_with(_SIGNS["best"], _SIGNS["second"]) if plain else board.legend, style="dim")
        yield Text(board.identity, style="dim")
        for note in board.footnotes:
            yield Text(f"- {note}")
        for name, signature in board.signatures.items():
            yield Text(f"{name}: {signature}", style="dim", overflow="fold")


def render(board: Board, width: int = WIDTH) -> str:
    """The board as plain text of at most ``width`` columns."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    console.print(BoardView(board))
    return stream.getvalue()


def _fields(board: Board, plain: bool) -> list[_Field]:
    fields = [_Field(("tier",), lambda r: (r.tier, ""), right=False)]
    if board.show_track:
        fields.append(_Field(("track",), lambda r: (r.track_text, ""), right=False))
    if board.show_counts:
        fields.append(_Field(("ok",), lambda r: (r.counts_text, "")))
    fields += [_metric(c, plain) for c in board.columns]
    if board.show_nfe:
        fields.append(_Field(("NFE",), lambda r: (r.nfe_text, "")))
    if board.show_seconds:
        fields.append(_Field(("s/slice",), lambda r: (r.seconds_text, "")))
    return fields


def _metric(column: Column, plain: bool) -> _Field:
    title = f"{column.header} {column.arrow}".strip()

    def cell(row: BoardRow) -> tuple[str, str]:
        found = row.cells[column.name]
        return (_SIGNS[found.mark] if plain else "") + found.text(column), _STYLES[found.mark]

    return _Field((title, f"[{column.unit}]") if column.unit else (title,), cell)


def _name(row: BoardRow) -> str:
    return shorten(row.name, _NAME_WIDTH) + (" (control)" if row.control else "")


def _blocks(board: Board, width: int, plain: bool) -> list[list[_Field]]:
    """Fields in order, cut into blocks that fit beside the method's name (at least one a block)."""
    rows = board.all_rows
    name = _Field(("method",), lambda r: (_name(r), ""), right=False)
    room = width - name.width(rows)
    fields = _fields(board, plain)
    cost = board.show_nfe + board.show_seconds  # these stay together
    units = [[f] for f in fields[: len(fields) - cost]] + ([fields[len(fields) - cost :]] if cost else [])
    blocks: list[list[_Field]] = []
    used = room + 1
    for unit in units:
        needed = sum(f.width(rows) + _GAP for f in unit)
        if used + needed > room:
            blocks.append([name])
            used = 0
        blocks[-1] += unit
        used += needed
    return blocks


def _table(board: Board, fields: Sequence[_Field]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, collapse_padding=True, show_edge=False)
    for field in fields:
        header = Text("\n".join(field.header), justify="right" if field.right else "left")
        table.add_column(header, justify="right" if field.right else "left", overflow="fold", no_wrap=field.right)
    for position, row in enumerate(board.all_rows):
        last_entry = bool(board.controls) and position == len(board.rows) - 1
        cells: list[Text] = []
        for field in fields:
            text, style = field.cell(row)
            cells.append(Text().append(text, style))  # a span: the padding stays plain
        table.add_row(*cells, end_section=last_entry)
    return table
