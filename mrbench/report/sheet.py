"""Tables as they are printed: one layout of columns, cells and notes that all text formats share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mrbench.report.board import INCOMPLETE, NOT_SHOWN, Board, BoardRow, Cell, Mark
from mrbench.report.columns import Column

TICK, NO_TICK, UNKNOWN = "✓", "", "-"
CHANGE = "change"  # title of the columns that say by how much a metric differs from that of the control
SIGNS = (INCOMPLETE, NOT_SHOWN, TICK)  # that text may hold beside letters, and every format must be able to print


@dataclass(frozen=True)
class SheetCell:
    """One cell. ``tail`` (sd or interval), ``signs`` and ``letters`` stand behind ``text``; ``hint``: why there is no number."""

    text: str
    tail: str = ""
    signs: str = ""
    letters: str = ""
    mark: Mark = ""
    missing: bool = False
    hint: str = ""

    @property
    def plain(self) -> str:
        """All of it but the letters."""
        return f"{self.text} {self.tail}".rstrip() + self.signs


@dataclass(frozen=True)
class SheetColumn:
    """A column behind the method's name. ``hint``: what it holds, in more words. ``group``: index into the groups, -1: none.

    ``cost``: printed together with its neighbours of that kind.
    """

    title: str
    unit: str = ""
    hint: str = ""
    left: bool = False
    group: int = -1
    cost: bool = False


@dataclass(frozen=True)
class SheetRow:
    """One entry or control."""

    name: str
    control: bool
    cells: tuple[SheetCell, ...]


@dataclass(frozen=True)
class Sheet:
    """A whole table with what stands above and below it. ``controls`` stand below the line.

    ``legend`` takes the words for best and second. ``sentences``: tests in words. ``signatures``: column -> signature.
    """

    title: str
    banner: str
    size: str
    warnings: tuple[str, ...]
    groups: tuple[str, ...]
    columns: tuple[SheetColumn, ...]
    rows: tuple[SheetRow, ...]
    controls: tuple[SheetRow, ...]
    legend: Callable[[str, str], str]
    identity: tuple[str, ...]
    sentences: tuple[str, ...]
    footnotes: tuple[str, ...]
    signatures: Mapping[str, str]

    @property
    def all_rows(self) -> tuple[SheetRow, ...]:
        """Entries, then controls."""
        return self.rows + self.controls

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Runs of neighbouring columns of one group, from the left: group and number of columns."""
        found: list[tuple[int, int]] = []
        for c in self.columns:
            if found and found[-1][0] == c.group:
                found[-1] = (c.group, found[-1][1] + 1)
            else:
                found.append((c.group, 1))
        return found

    def full_title(self, column: SheetColumn) -> str:
        """The column's title with its group's before it, for formats without columns that span others."""
        return f"{self.groups[column.group]}: {column.title}" if column.group >= 0 else column.title


class HasSheet(Protocol):
    """What renderers take: boards of one task and of several."""

    def sheet(self) -> Sheet:
        """The table, cell by cell."""
        ...


@dataclass(frozen=True)
class Field:
    """A column together with how its cells come from a board's row."""

    column: SheetColumn
    cell: Callable[[BoardRow], SheetCell]


def board_sheet(board: Board) -> Sheet:
    """A board of one task: method, tier, and what there is of track, factors, counts, metrics and costs."""
    fields = [*text_fields(board.show_track), *factor_fields(board.factors)]
    if board.show_counts:
        fields.append(Field(SheetColumn("ok"), lambda r: SheetCell(r.counts_text)))
    fields += metric_fields(board)
    fields += cost_fields(board.show_parameters, board.show_nfe, board.show_memory, board.show_seconds)
    return Sheet(
        title=board.title,
        banner=board.banner,
        size=board.size_text,
        warnings=board.warnings,
        groups=(),
        columns=tuple(f.column for f in fields),
        rows=tuple(sheet_row(r, fields) for r in board.rows),
        controls=tuple(sheet_row(r, fields) for r in board.controls),
        legend=board.legend_with,
        identity=(board.identity,),
        sentences=board.significance.sentences if board.significance is not None else (),
        footnotes=board.footnotes,
        signatures=board.signatures,
    )


def text_fields(show_track: bool) -> list[Field]:
    """Tier and track."""
    fields = [Field(SheetColumn("tier", left=True), lambda r: SheetCell(r.tier_text))]
    if show_track:
        hint = "how the options came about"
        fields.append(Field(SheetColumn("track", hint=hint, left=True), lambda r: SheetCell(r.track_text)))
    return fields


def factor_fields(factors: Sequence[str]) -> list[Field]:
    """Columns of ticks."""

    def field(heading: str) -> Field:
        return Field(SheetColumn(heading, hint="part of the method or of its training"), lambda r: tick(r.factors.get(heading)))

    return [field(heading) for heading in factors]


def tick(value: bool | str | None) -> SheetCell:
    """A tick, nothing, a text, or a dash where nobody says."""
    if value is None:
        return SheetCell(UNKNOWN, hint="the run does not say")
    if isinstance(value, bool):
        return SheetCell(TICK, hint="yes") if value else SheetCell(NO_TICK, hint="no")
    return SheetCell(value)


def metric_fields(board: Board) -> list[Field]:
    """The metrics, each followed by its change where the tests are against a control."""
    fields = []
    for column in board.columns:
        fields.append(metric_field(column, board.level is not None))
        if any(r.cells[column.name].change is not None for r in board.rows):
            fields.append(change_field(column, board.significance.reference if board.significance is not None else ""))
    return fields


def metric_field(column: Column, intervals: bool) -> Field:
    """A metric column."""
    title = f"{column.header} {column.arrow}".strip()
    return Field(
        SheetColumn(title, column.unit, column.signature), lambda r: metric_cell(r.cells[column.name], column, intervals)
    )


def change_field(column: Column, control: str) -> Field:
    """The change of a metric to a control that was named."""

    def cell(row: BoardRow) -> SheetCell:
        change = row.cells[column.name].change
        return SheetCell("-") if change is None else SheetCell(f"{change:+.1f}")

    hint = f"{column.header}: difference of the means over subjects to {control}, in per cent of its mean"
    return Field(SheetColumn(CHANGE, "%", hint), cell)


def metric_cell(cell: Cell, column: Column, intervals: bool) -> SheetCell:
    """Mean with sd or interval, marks, signs and letters."""
    mean, sd = cell.parts(column)
    if cell.aggregate is None:
        return SheetCell(mean, missing=True, hint=cell.reason)
    tail = cell.interval_text(column) if intervals else f"± {sd}" if sd is not None else ""
    return SheetCell(mean, tail, cell.signs, cell.letters, cell.mark)


def cost_fields(parameters: bool, nfe: bool, memory: bool, seconds: bool) -> list[Field]:
    """Columns of costs, those that are to be shown."""
    known = [
        (parameters, "parameters", "M", "trained numbers of all networks, in millions", lambda r: r.parameters_text),
        (nfe, "NFE", "", "network calls per slice", lambda r: r.nfe_text),
        (memory, "memory", "MiB", "largest peak of the device's memory", lambda r: r.memory_text),
        (seconds, "s/slice", "", "seconds per slice", lambda r: r.seconds_text),
    ]  # fmt: skip

    def field(title: str, unit: str, hint: str, text: Callable[[BoardRow], str]) -> Field:
        return Field(SheetColumn(title, unit, hint, cost=True), lambda r: SheetCell(text(r)))

    return [field(title, unit, hint, text) for shown, title, unit, hint, text in known if shown]


def sheet_row(row: BoardRow, fields: Sequence[Field]) -> SheetRow:
    """A row of a board, field by field."""
    return SheetRow(row.name, row.control, tuple(f.cell(row) for f in fields))


def in_group(field: Field, group: int) -> Field:
    """The same under a column that spans others."""
    return replace(field, column=replace(field.column, group=group))
