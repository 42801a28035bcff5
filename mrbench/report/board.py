"""The table object that every renderer prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mrbench.report.columns import Column
from mrbench.report.summary import Aggregate, Over
from mrbench.report.text import NOT_AVAILABLE, count, mean_and_sd, number, significant

if TYPE_CHECKING:
    from mrbench.report.sheet import Sheet
    from mrbench.stats.results import Interval, MetricResult

Mark = Literal["", "best", "second"]

INCOMPLETE = "†"
NOT_SHOWN = "‡"  # not shown to differ from the reference
MIB = 2**20
BANNER = "demonstration weights: this table ranks nothing"


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    ``aggregate`` is ``None`` for n/a, with the ``reason``. ``incomplete``: over fewer items than others. ``interval``: of the mean.
    ``letters``: of the groups that were not shown to differ; ``not_shown``: no difference to the reference was shown.
    ``change``: to a control that was named, in per cent of its mean over subjects.
    """

    aggregate: Aggregate | None
    mark: Mark = ""
    incomplete: bool = False
    reason: str = ""
    interval: Interval | None = None
    letters: str = ""
    not_shown: bool = False
    change: float | None = None

    def parts(self, column: Column) -> tuple[str, str | None]:
        """The printed mean and sd (``None`` where there is none)."""
        if self.aggregate is None:
            return NOT_AVAILABLE, None
        return mean_and_sd(self.aggregate.mean, self.aggregate.sd, column.digits)

    def text(self, column: Column) -> str:
        """``28.12 ± 2.31``, with ``†`` behind where it is over fewer items."""
        mean, sd = self.parts(column)
        return mean + (f" ± {sd}" if sd is not None else "") + self.signs

    def interval_text(self, column: Column) -> str:
        """``[27.90, 28.35]``, or nothing."""
        if self.interval is None:
            return ""
        return f"[{number(self.interval.low, column.digits)}, {number(self.interval.high, column.digits)}]"

    @property
    def signs(self) -> str:
        """What stands behind the number."""
        return (INCOMPLETE if self.incomplete else "") + (NOT_SHOWN if self.not_shown else "")


@dataclass(frozen=True)
class Significance:
    """What a board says about its differences.

    ``reference``: the entry that ``‡`` refers to, empty: the best of each column. ``sentences``: the tests in words, ``results``
    behind them, one a column. ``untested``: why nothing is marked at all.
    """

    reference: str
    alpha: float
    sentences: tuple[str, ...] = ()
    results: tuple[MetricResult, ...] = ()
    untested: str = ""

    @property
    def legend(self) -> str:
        """How to read the marks."""
        if self.untested:
            return ""
        who = self.reference or "the best"
        letters = "" if self.reference else "; entries that share a letter were not shown to differ"
        return f"{NOT_SHOWN} not shown to differ from {who} at {self.alpha:g}, which is no evidence of equality{letters}"


@dataclass(frozen=True)
class BoardRow:
    """One run. ``name`` is unique on the board; ``items`` to ``skipped`` count all items of the run, on the board or not.
    ``track``: how the options came about (``default``, ``set``, ``tuned(N)``; empty if the run does not say).
    ``verified``: the word that stands behind the tier, where a verification is on file for these rows.

    ``n_subjects``: with an ok item on the board. ``seconds`` and ``nfe`` are means over ok items on the board, ``memory`` the largest
    peak of the device in bytes. ``parameters``: of all networks, ``None`` without one or where the run does not say.
    ``factors``: of ablations, heading -> there or not, or which one; headings of which the weights say nothing are absent.
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
    parameters: int | None = None
    memory: float | None = None
    factors: Mapping[str, bool | str] = field(default_factory=dict)
    verified: str = ""

    @property
    def tier_text(self) -> str:
        """``official``, or ``official, verified``."""
        return f"{self.tier}, {self.verified}" if self.verified else self.tier

    @property
    def parameters_text(self) -> str:
        """Millions, with three significant digits; a dash where there are none."""
        return "-" if self.parameters is None else significant(self.parameters / 1e6)

    @property
    def memory_text(self) -> str:
        """MiB, with three significant digits; a dash where it was not measured."""
        return "-" if self.memory is None else significant(self.memory / MIB)

    @property
    def track_text(self) -> str:
        """How the options came about; a dash where nobody says."""
        return self.track or "-"

    @property
    def seconds_text(self) -> str:
        """Seconds per slice with three significant digits; below a millisecond, that alone is said."""
        if self.seconds is None:
            return NOT_AVAILABLE
        return "<0.001" if self.seconds < 0.001 else significant(self.seconds)

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
    ``factors``: headings of the columns of ablations. ``level``: of the intervals that are printed instead of sd, ``None``: sd is.
    ``heading``: a title of one's own. ``hardware``: on which times and memory were measured, empty if on several; ``cost_notes``: those
    footnotes that are about times, memory and parameters.
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
    show_parameters: bool = False
    show_memory: bool = False
    factors: tuple[str, ...] = ()
    level: float | None = None
    significance: Significance | None = None
    heading: str = ""
    hardware: str = ""
    cost_notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """``sample, uniform-x4``."""
        return self.heading or f"{self.dataset}, {self.protocol}"

    def sheet(self) -> Sheet:
        """The board as it is printed, cell by cell."""
        from mrbench.report.sheet import board_sheet

        return board_sheet(self)

    @property
    def all_rows(self) -> tuple[BoardRow, ...]:
        """Entries, then controls."""
        return self.rows + self.controls

    @property
    def size_text(self) -> str:
        """What mean and sd are taken over."""
        if self.over == "subjects":
            return f"{self.spread} over the means of {count(self.n_subjects, 'subject')} ({count(self.n_items, 'slice')})"
        return f"{self.spread} over {self.size_words}"

    @property
    def size_words(self) -> str:
        """``126 slices of 21 subjects``."""
        return f"{count(self.n_items, 'slice')} of {count(self.n_subjects, 'subject')}"

    @property
    def spread(self) -> str:
        """What a cell holds."""
        if self.level is None:
            return "mean ± sd"
        return f"mean [{100 * self.level:g} % BCa bootstrap interval, subjects resampled]"

    @property
    def legend(self) -> str:
        """How to read marks and arrows."""
        return self.legend_with("bold", "underlined")

    def legend_with(self, best: str, second: str) -> str:
        """The legend where best and second are marked in another way."""
        marks = f"best {best}, second {second} (by unrounded means; exact ties share the mark)"
        found = f"↑ higher is better, ↓ lower is better; {'no winner is marked' if self.banner else marks}"
        more = self.significance.legend if self.significance is not None else ""
        return f"{found}; {more}" if more else found

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
