"""The leaderboard as the page prints it: the sheet that all formats share, with the numbers to sort by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mrbench.report.board import Board
from mrbench.report.columns import Column
from mrbench.report.sheet import CHANGE, Sheet, SheetCell, SheetColumn

Sort = Literal["text", "number", "high", "low"]
_GROUPS = {"draw": "draw 1", "mean": "mean of draws", "best": "best of draws", "fg": "foreground"}


@dataclass(frozen=True)
class TableColumn:
    """A column: what it prints, how it sorts (``high``: the largest first), and the groups that hide it."""

    column: SheetColumn
    sort: Sort
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableCell:
    """A cell: what it prints, and its number where it is a metric (``None``: its text serves)."""

    cell: SheetCell
    value: float | None


@dataclass(frozen=True)
class TableRow:
    """An entry or control."""

    name: str
    control: bool
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class BoardTable:
    """The whole table. ``groups``: class and title of groups of columns that can be hidden, where there are several."""

    sheet: Sheet
    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    controls: tuple[TableRow, ...]
    groups: tuple[tuple[str, str], ...]


def board_table(board: Board) -> BoardTable:
    """The sheet of a board; NaN is the number of a metric that a row has no value of."""
    sheet = board.sheet()
    metrics = _places(sheet, board)
    names = {place: column.name for place, column in metrics.items()}
    columns = []
    for place, c in enumerate(sheet.columns):
        if place in metrics:
            columns.append(
                TableColumn(c, "low" if metrics[place].higher_is_better is False else "high", kinds_of(names[place]))
            )
        elif c.title == CHANGE:  # hidden together with its metric, which stands before it
            columns.append(TableColumn(c, "number", columns[-1].kinds))
        else:
            columns.append(TableColumn(c, "text" if c.left or c.title in board.factors else "low" if c.cost else "number"))
    rows = []
    for row, printed in zip(board.all_rows, sheet.all_rows, strict=True):
        cells = []
        for place, cell in enumerate(printed.cells):
            found = row.cells[names[place]].aggregate if place in names else None
            value = None if place not in names else math.nan if found is None else found.mean
            cells.append(TableCell(cell, value))
        rows.append(TableRow(row.name, row.control, tuple(cells)))
    entries = len(board.rows)
    return BoardTable(sheet, tuple(columns), tuple(rows[:entries]), tuple(rows[entries:]), _groups(board))


def kinds_of(column: str) -> tuple[str, ...]:
    """The groups that a metric column belongs to: ``draw``, ``mean`` or ``best``, and ``fg`` in the foreground."""
    base, _, of = column.partition("@")
    return ((of if of in ("mean", "best") else "draw"), *(("fg",) if base.endswith("_fg") else ()))


def _places(sheet: Sheet, board: Board) -> dict[int, Column]:
    """Index in the sheet -> the board's column that stands there; both are in one order."""
    found: dict[int, Column] = {}
    left = list(board.columns)
    for place, c in enumerate(sheet.columns):
        if left and (c.title, c.hint) == (f"{left[0].header} {left[0].arrow}".strip(), left[0].signature):
            found[place] = left.pop(0)
    return found


def _groups(board: Board) -> tuple[tuple[str, str], ...]:
    kinds = {k for c in board.columns for k in kinds_of(c.name)}
    found = [k for k in ("draw", "mean", "best") if k in kinds]
    shown = (found if len(found) > 1 else []) + (["fg"] if "fg" in kinds else [])
    return tuple((k, _GROUPS[k]) for k in shown)
