"""The table object that every renderer prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mrbench.report.columns import Column
from mrbench.report.summary import Aggregate, Over
from mrbench.report.text import NOT_AVAILABLE, count, mean_and_sd, significant

Mark = Literal["", "best", "second"]

INCOMPLETE = "†"
BANNER = "demonstration weights: this table ranks nothing"


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    ``aggregate`` is ``None`` for n/a, with the ``reason``. ``incomplete``: over fewer items than others.
    """

    aggregate: Aggregate | None
    mark: Mark = ""
    incomplete: bool = False
    reason: str = ""

    def parts(self, column: Column) -> tuple[str, str | None]:
        """The printed mean and sd (``None`` where there is none)."""
        if self.aggregate is None:
            return NOT_AVAILABLE, None
        return mean_and_sd(self.aggregate.mean, self.aggregate.sd, column.digits)

    def text(self, column: Column) -> str:
        """``28.12 ± 2.31``, with ``†`` behind where it is over fewer items."""
        mean, sd = self.parts(column)
        return mean + (f" ± {sd}" if sd is not None else "") + (INCOMPLETE if self.incomplete else "")


@dataclass(frozen=True)
class BoardRow:
    """One run. ``name`` is unique on the board; ``items`` to ``skipped`` count all items of the run, on the board or not.
    ``track``: how the options came about (``default``, ``set``, ``tuned(N)``; empty if the run does not say).

    ``n_subjects``: with an ok item on the board. ``seconds`` and ``nfe`` are means over ok items on the board.
    """

    name: str
    label: str
    method: str
    run: str
    tier: str
    control: bool
    draws: int
    items: int
    ok: int
    failed: int
    skipped: int
    n_subjects: int
    cells: Mapping[str, Cell]
    seconds: float | None
    nfe: float | None
    track: str = ""

    @property
    def track_text(self) -> str:
        """How the options came about; a dash where nobody says."""
        return self.track or "-"

    @property
    def seconds_text(self) -> str:
        """Seconds per slice with three significant digits."""
        return NOT_AVAILABLE if self.seconds is None else significant(self.seconds)

    @property
    def nfe_text(self) -> str:
        """Network calls per slice; a dash where there is no network."""
        return "-" if self.nfe is None else f"{self.nfe:g}"

    @property
    def counts_text(self) -> str:
        """``98/100``: ok rows of the run's items."""
        return f"{self.ok}/{self.items}"


@dataclass(frozen=True)
class Board:
    """A leaderboard: one protocol, one data set, one column per metric, one row per run.

    ``rows`` are ranked entries, best first by the first ranked column; ``controls`` stand below and are never ranked.
    ``show_counts``: some row is not ok. ``show_track``: some entry was tuned. ``warnings`` are about the data set, ``footnotes`` about the numbers.
    """

    dataset: str
    dataset_name: str
    dataset_version: str
    protocol: str
    protocol_hash: str
    task_hashes: tuple[str, ...]
    n_items: int
    n_subjects: int
    over: Over
    columns: tuple[Column, ...]
    rows: tuple[BoardRow, ...]
    controls: tuple[BoardRow, ...]
    footnotes: tuple[str, ...]
    warnings: tuple[str, ...]
    banner: str
    show_counts: bool
    show_seconds: bool
    show_nfe: bool
    show_track: bool = False

    @property
    def title(self) -> str:
        """``sample, uniform-x4``."""
        return f"{self.dataset}, {self.protocol}"

    @property
    def all_rows(self) -> tuple[BoardRow, ...]:
        """Entries, then controls."""
        return self.rows + self.controls

    @property
    def size_text(self) -> str:
        """What mean and sd are taken over."""
        slices, subjects = count(self.n_items, "slice"), count(self.n_subjects, "subject")
        if self.over == "subjects":
            return f"mean ± sd over the means of {subjects} ({slices})"
        return f"mean ± sd over {slices} of {subjects}"

    @property
    def legend(self) -> str:
        """How to read marks and arrows."""
        return self.legend_with("bold", "underlined")

    def legend_with(self, best: str, second: str) -> str:
        """The legend where best and second are marked in another way."""
        marks = f"best {best}, second {second} (by unrounded means; exact ties share the mark)"
        return f"↑ higher is better, ↓ lower is better; {'no winner is marked' if self.banner else marks}"

    @property
    def identity(self) -> str:
        """Protocol hash, data set version and task hash."""
        tasks = f"{'task' if len(self.task_hashes) == 1 else 'tasks'} {', '.join(self.task_hashes)}"
        dataset = f"data set {self.dataset} version {self.dataset_version}"
        return f"protocol {self.protocol} {self.protocol_hash}; {dataset}; {tasks}"

    @property
    def signatures(self) -> dict[str, str]:
        """Column -> signature, for the columns shown."""
        return {c.name: c.signature for c in self.columns if c.signature}

    def marks(self) -> dict[str, dict[str, list[str]]]:
        """Column -> ``{"best": names, "second": names}``, for columns with marks."""
        found: dict[str, dict[str, list[str]]] = {}
        for column in self.columns:
            for row in self.rows:
                mark = row.cells[column.name].mark
                if mark:
                    found.setdefault(column.name, {"best": [], "second": []})[mark].append(row.name)
        return found
