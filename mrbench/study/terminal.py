"""A study's results for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrbench.report.text import clean
from mrbench.stats.sentences import omnibus_sentence
from mrbench.study.grids import (
    Grid,
    agreement_grid,
    criterion_grid,
    legend,
    pairs_grid,
    readers_grid,
    within_grid,
)
from mrbench.study.results import StudyResult
from mrbench.study.words import methods_paragraph, pair_sentence

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

_STYLES = {"best": "bold", "second": "underline", "": ""}
_SIGNS = {"best": "*", "second": "_", "": ""}  # where the output has no styles
_MOST_PAIRS = 6  # comparisons told per criterion; of more, those of the best method


@dataclass(frozen=True)
class StudyView:
    """A rich renderable: readers, per criterion the means and what was tested, agreement, notes."""

    result: StudyResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """All of it."""
        from rich.text import Text

        r = self.result
        plain = console.color_system is None
        if r.banner:
            yield Text(r.banner.upper(), style="bold reverse")
        yield Text(f"Reader study, {clean(r.title)}: {r.size_text}", style="bold")
        for warning in (*r.warnings, *r.missing):
            yield Text(f"warning: {clean(warning)}", style="yellow")
        yield Text("")
        yield _table(readers_grid(r), plain)
        for found in r.criteria:
            yield Text("")
            yield Text(clean(found.criterion), style="bold")
            yield _table(criterion_grid(r, found), plain)
            test = found.test
            best = test.standings[0].method if len(test.pairs) > _MOST_PAIRS else ""
            told = [p for p in test.pairs if not best or best in (p.a, p.b)]
            for line in (omnibus_sentence(test), *(pair_sentence(test, p) for p in told)):
                yield Text(f"- {clean(line)}")
            if len(told) < len(test.pairs):
                yield Text(f"({len(test.pairs)} comparisons in all: --out or --format json has the others)", style="dim")
            for note in found.test.notes:
                yield Text(f"note: {clean(note)}.", style="yellow")
        for grid in (agreement_grid(r), pairs_grid(r), within_grid(r)):
            if grid is not None:
                yield Text("")
                yield Text(grid.title, style="bold")
                yield _table(grid, plain)
        yield Text("")
        yield Text(legend(r, _SIGNS["best"], _SIGNS["second"]) if plain else legend(r, "bold", "underlined"), style="dim")
        yield Text(clean(methods_paragraph(r)), style="dim")
        for note in r.notes:
            yield Text(f"- {clean(note)}.")
        yield Text(identity(r), style="dim")


def identity(r: StudyResult) -> str:
    """Which study, protocol and data."""
    return clean(f"study {r.study}; protocol {r.protocol} {r.protocol_hash}; data set {r.dataset} version {r.dataset_version}")


def _table(grid: Grid, plain: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for i, head in enumerate(grid.heads):
        table.add_column(Text(head), justify="left" if i < grid.left else "right", no_wrap=i >= grid.left)
    for row in grid.rows:
        cells = []
        for cell in row:
            sign = _SIGNS[cell.mark] if plain else ""
            style = "" if plain else _STYLES[cell.mark]
            cells.append(Text().append(sign + cell.text[: cell.marked], style).append(cell.text[cell.marked :]))
        table.add_row(*cells)
    return table
