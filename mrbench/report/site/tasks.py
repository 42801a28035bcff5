"""The runs of a site, sorted into tasks: one protocol on one data set, with its board and its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrbench.errors import UserError
from mrbench.report.board import Board, BoardRow
from mrbench.report.comparable import AlignedRun, Comparison, compare, names_of
from mrbench.report.intervals import LEVEL
from mrbench.report.leaderboard import build_board
from mrbench.report.significance import testable, with_significance
from mrbench.report.site.options import SiteOptions
from mrbench.report.site.permission import Permission, permission_of
from mrbench.report.statistics import Statistics, build_statistics
from mrbench.report.view import View, by_task

if TYPE_CHECKING:
    from mrbench.stats.presets import Plan
    from mrbench.store.runs import RunData


@dataclass(frozen=True)
class SiteTask:
    """One column group of the site. ``runs``: in the order of the board's rows; ``reason``: why there are no statistics."""

    number: int
    board: Board
    comparison: Comparison
    runs: tuple[AlignedRun, ...]
    statistics: Statistics | None
    reason: str
    permission: Permission

    @property
    def rows(self) -> tuple[BoardRow, ...]:
        """Entries, then controls: the order of ``runs``."""
        return self.board.all_rows

    @property
    def anchor(self) -> str:
        """The fragment of the task's sections."""
        return f"task-{self.number}"


def make_tasks(runs: Sequence[RunData], options: SiteOptions) -> list[SiteTask]:
    """One task per data set and protocol, in the order in which they appear.

    Raises
    ------
    UserError : no runs, or runs of one task that cannot be compared (see ``build_board``).
    """
    if not runs:
        raise UserError("there are no runs to report on. Make one with `mrbench run`, or name the folder that holds some.")
    return [_task(i, group, options) for i, group in enumerate(by_task(runs), 1)]


def _task(number: int, runs: list[RunData], options: SiteOptions) -> SiteTask:
    from mrbench.stats.presets import Plan

    level = LEVEL if options.ci else None
    view = View(metrics=options.metrics, over=options.over, intersect=options.intersect, level=level)
    board = build_board(runs, view=view)
    plan = Plan(preset=options.preset, control=options.control)
    statistics, reason = _statistics(runs, board, plan, options.intersect)
    board = with_significance(board, statistics, plan)
    comparison = compare(runs, options.intersect)
    by_name = dict(zip(names_of(runs), comparison.runs, strict=True))
    permission = permission_of(runs[0].manifest.dataset, options.private)
    return SiteTask(number, board, comparison, tuple(by_name[r.name] for r in board.all_rows), statistics, reason, permission)


def _statistics(runs: list[RunData], board: Board, plan: Plan, intersect: bool) -> tuple[Statistics | None, str]:
    """Of the board's columns that rank; or the reason why there are none."""
    ranked = [c.name for c in testable(board)]
    if len(board.rows) < 2:
        return None, "one method alone: there is nothing to compare"
    if not ranked:
        return None, "no column of the board ranks methods"
    return build_statistics(runs, plan, metrics=ranked, intersect=intersect), ""
