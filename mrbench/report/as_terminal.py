"""A board for the terminal: as many blocks of columns as the width asks for, the method repeated in each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrbench.report.sheet import HasSheet, Sheet, SheetCell, SheetColumn, SheetRow
from mrbench.report.text import shorten

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

WIDTH = 100
_NAME_WIDTH = 32
_GROUP_WIDTH = 24
_CELL_WIDTH = 48
_GAP = 3  # between columns: padding of 2, and the box's blank divider
_STYLES = {"best": "bold", "second": "underline", "": ""}
_SIGNS = {"best": "*", "second": "_", "": ""}  # where the output has no styles


@dataclass(frozen=True)
class _Field:
    """A column as the terminal shows it: header lines, and per row the text with its style and what follows plainly."""

    header: tuple[str, ...]
    cells: tuple[tuple[str, str, str], ...]
    right: bool = True
    cost: bool = False

    @property
    def width(self) -> int:
        from rich.cells import cell_len

        return max(cell_len(t) for t in (*self.header, *(text + rest for text, _, rest in self.cells)))


@dataclass(frozen=True)
class BoardView:
    """A rich renderable of a board; it fits itself to the console's width."""

    board: HasSheet

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, blocks of columns, notes and signatures."""
        from rich.text import Text

        sheet = self.board.sheet()
        if sheet.banner:
            yield Text(sheet.banner.upper(), style="bold reverse")
        yield Text(f"{sheet.title}: {sheet.size}", style="bold")
        for warning in sheet.warnings:
            yield Text(f"warning: {warning}", style="yellow")
        plain = console.color_system is None
        for block in _blocks(sheet, options.max_width, plain):
            yield Text("")
            yield _table(sheet, block)
        yield Text("")
        legend = sheet.legend(_SIGNS["best"], _SIGNS["second"]) if plain else sheet.legend("bold", "underlined")
        yield Text(legend, style="dim")
        for identity in sheet.identity:
            yield Text(identity, style="dim")
        for sentence in sheet.sentences:
            yield Text(f"- {sentence}")
        for note in sheet.footnotes:
            yield Text(f"- {note}")
        for name, signature in sheet.signatures.items():
            yield Text(f"{name}: {signature}", style="dim", overflow="fold")


def render(board: HasSheet, width: int = WIDTH) -> str:
    """The board as plain text of at most ``width`` columns."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    console.print(BoardView(board))
    return stream.getvalue()


def _field(sheet: Sheet, position: int, column: SheetColumn, plain: bool) -> _Field:
    header = (column.title, f"[{column.unit}]") if column.unit else (column.title,)
    if sheet.groups:
        header = (shorten(sheet.groups[column.group], _GROUP_WIDTH) if column.group >= 0 else "", *header)
    return _Field(header, tuple(_cell(r.cells[position], plain) for r in sheet.all_rows), not column.left, column.cost)


def _cell(cell: SheetCell, plain: bool) -> tuple[str, str, str]:
    text = (_SIGNS[cell.mark] if plain else "") + shorten(cell.plain, _CELL_WIDTH)
    return text, _STYLES[cell.mark], f" {cell.letters}" if cell.letters else ""


def _name(row: SheetRow) -> str:
    return shorten(row.name, _NAME_WIDTH) + (" (control)" if row.control else "")


def _blocks(sheet: Sheet, width: int, plain: bool) -> list[list[_Field]]:
    """Fields in order, cut into blocks that fit beside the method's name (at least one a block)."""
    name = _Field(
        ("", "method") if sheet.groups else ("method",), tuple((_name(r), "", "") for r in sheet.all_rows), right=False
    )
    room = width - name.width
    units: list[list[_Field]] = []
    for position, column in enumerate(sheet.columns):
        field = _field(sheet, position, column, plain)
        if field.cost and units and units[-1][-1].cost:
            units[-1].append(field)  # these stay together
        else:
            units.append([field])
    blocks: list[list[_Field]] = []
    used = room + 1
    for unit in units:
        needed = sum(f.width + _GAP for f in unit)
        if used + needed > room:
            blocks.append([name])
            used = 0
        blocks[-1] += unit
        used += needed
    return blocks


def _table(sheet: Sheet, fields: Sequence[_Field]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, collapse_padding=True, show_edge=False)
    for field in fields:
        header = Text("\n".join(field.header), justify="right" if field.right else "left")
        table.add_column(header, justify="right" if field.right else "left", overflow="fold", no_wrap=field.right)
    for position in range(len(sheet.all_rows)):
        last_entry = bool(sheet.controls) and position == len(sheet.rows) - 1
        cells: list[Text] = []
        for field in fields:
            text, style, rest = field.cells[position]
            cells.append(Text().append(text, style).append(rest))  # a span: the padding stays plain
        table.add_row(*cells, end_section=last_entry)
    return table
