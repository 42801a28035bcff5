"""Several tasks side by side: data sets and scales as column groups, and mean ranks over data sets of one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.board import Board, BoardRow, Mark
from mrbench.report.columns import Column, choose_columns
from mrbench.report.comparable import names_of, refuse_tiers
from mrbench.report.leaderboard import build_board, marks_of_means
from mrbench.report.text import clean, count, listing
from mrbench.report.view import GIVEN, View, by_task

if TYPE_CHECKING:
    from mrbench.report.sheet import Sheet
    from mrbench.store.runs import RunData


@dataclass(frozen=True)
class Group:
    """Which runs form a column group, under which title, with which columns (``None``: those of the view)."""

    title: str
    runs: tuple[RunData, ...]
    metrics: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MeanRanks:
    """Ranks of the entries that have complete means in every group, by one column: 1 is best, ties share their mean rank.

    ``ranks``: entry -> its rank in each group. ``left_out``: other entries, and in which groups they lack a complete mean.
    """

    column: Column
    ranks: Mapping[str, tuple[float, ...]]
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        """Entry -> mean over the groups, each of which counts once."""
        return {name: float(np.mean(r)) for name, r in self.ranks.items()}

    @property
    def marks(self) -> dict[str, Mark]:
        """Best and second."""
        return marks_of_means(self.means, higher_is_better=False)


@dataclass(frozen=True)
class WideBoard:
    """Boards side by side.

    ``names``: entries in the order of the rows, ``controls`` likewise. ``overall``: mean ranks by column, empty where there are none.
    ``costs``: whether every group shows its costs. ``notes`` are about the whole table.
    """

    heading: str
    titles: tuple[str, ...]
    boards: tuple[Board, ...]
    names: tuple[str, ...]
    controls: tuple[str, ...]
    overall: tuple[MeanRanks, ...]
    costs: bool
    notes: tuple[str, ...]

    @property
    def banner(self) -> str:
        """That of any group."""
        return next((b.banner for b in self.boards if b.banner), "")

    @property
    def title(self) -> str:
        """One's own, or what stands in the groups."""
        return self.heading or f"{listing(list(self.titles), 3)}"

    def row(self, group: int, name: str) -> BoardRow | None:
        """An entry's row in a group, ``None`` where it was not run."""
        return next((r for r in self.boards[group].all_rows if r.name == name), None)

    def sheet(self) -> Sheet:
        """The table, cell by cell."""
        from mrbench.report.wide_sheet import wide_sheet

        return wide_sheet(self)


def tasks_of(runs: Sequence[RunData]) -> list[Group]:
    """A group for each data set and protocol; titles name what tells them apart."""
    groups = by_task(runs)
    protocols = {g[0].manifest.protocol.hash for g in groups}
    datasets = {(g[0].manifest.dataset.alias, g[0].manifest.dataset.name) for g in groups}
    found = []
    for members in groups:
        m = members[0].manifest
        parts = [clean(m.dataset.alias)] if len(datasets) > 1 or len(groups) == 1 else []
        parts += [clean(m.protocol.name)] if len(protocols) > 1 or len(groups) == 1 else []
        found.append(Group(", ".join(parts), tuple(members)))
    titles = [g.title for g in found]
    return [
        replace(g, title=f"{g.title} ({g.runs[0].manifest.protocol.hash})") if titles.count(g.title) > 1 else g for g in found
    ]


def build_wide(groups: Sequence[Group], view: View, *, overall: bool | None = None, costs: bool = False) -> WideBoard:
    """One table of several tasks.

    Parameters
    ----------
    groups : from the left to the right.
    overall : mean ranks over the groups. ``None``: where they follow one protocol and none has demonstration weights; ``True``: refuse
        groups of several protocols.

    Raises
    ------
    UserError : what ``build_board`` refuses; demonstration weights beside others in any two groups; a label that is one method here
        and another there; a column or control that no group has; with ``overall``, several protocols or a single group.
    """
    runs = [r for g in groups for r in g.runs]
    refuse_tiers(runs)
    if overall:
        _refuse_ranks(groups)
        if len(groups) < 2:
            raise UserError("a mean rank needs at least two data sets: there is one column group only. Leave out --overall.")
    notes = _same_methods(groups, view)
    demo = any(r.manifest.method.tier == "demo" for r in runs)
    _known_columns(groups, view)
    boards = []
    for g in groups:
        own, told = _view_of(g, view, demo)
        notes += told
        boards.append(build_board(g.runs, view=own))
    titles = tuple(clean(g.title) for g in groups)
    found, why = _overall(boards, titles, demo, overall)
    notes += why
    names = _names(groups, boards, view, found)
    controls = list(dict.fromkeys(r.name for b in boards for r in b.controls))
    return WideBoard(
        clean(view.heading), titles, tuple(boards), tuple(names), tuple(controls), tuple(found), costs, tuple(notes)
    )


def _refuse_ranks(groups: Sequence[Group]) -> None:
    """Refuse mean ranks over groups of several protocols."""
    protocols = {g.title: g.runs[0].manifest.protocol for g in groups}
    if len({p.hash for p in protocols.values()}) > 1:
        lines = "\n".join(f"  {title}: {clean(p.name)} {p.hash}" for title, p in protocols.items())
        raise UserError(
            f"the column groups follow several protocols, over which there are no mean ranks:\n{lines}\n"
            "Give the runs of one protocol, or show the groups without mean ranks (--wide)."
        )


def _known_columns(groups: Sequence[Group], view: View) -> None:
    """Refuse columns, an order and a control that no group has."""
    runs = [r for g in groups for r in g.runs]
    have = list(dict.fromkeys(c for r in runs for c in (*r.manifest.columns, *r.manifest.unavailable)))
    asked = [m for g in groups for m in g.metrics or view.metrics or ()]
    for what, name in [("metrics", m) for m in asked] + [("order", view.order)] * (view.order not in ("", GIVEN)):
        if name not in have:
            raise UserError(
                f"{what}: no run has a metric column {name!r}.{did_you_mean(name, have)} Columns: {listing(have, 40)}."
            )
    if view.plan is not None and view.plan.control:
        called = list(dict.fromkeys(n for g in groups for n in names_of(g.runs)))
        if view.plan.control not in called:
            raise UserError(
                f"no run is called {view.plan.control!r}.{did_you_mean(view.plan.control, called)} Runs: {listing(called, 20)}."
            )


def _view_of(group: Group, view: View, demo: bool) -> tuple[View, list[str]]:
    """The view of one group, with what it lacks left out and told."""
    notes = []
    own = replace(view, heading="", demo=demo)
    metrics = group.metrics or view.metrics
    if metrics is not None:
        have = {c for r in group.runs for c in (*r.manifest.columns, *r.manifest.unavailable)}
        kept = tuple(m for m in metrics if m in have)
        if not kept:
            raise UserError(f"{group.title}: none of its runs has a column {listing(list(metrics))}. Leave the group out.")
        if len(kept) < len(metrics):
            notes.append(f"{group.title}: no run has {listing([m for m in metrics if m not in have])}.")
        own = replace(own, metrics=kept)
    if own.plan is not None and own.plan.control and own.plan.control not in names_of(group.runs):
        notes.append(f"{group.title}: no significance is marked, as {own.plan.control} was not run there.")
        own = replace(own, plan=None)
    if own.order not in ("", GIVEN) and own.order not in {c.name for c in choose_columns(group.runs, own.metrics)}:
        own = replace(own, order="")
    return own, notes


def _same_methods(groups: Sequence[Group], view: View) -> list[str]:
    """A name must mean one method in all groups; other weights or options within one protocol are told."""
    seen: dict[str, dict[str, RunData]] = {}
    for g in groups:
        for name, run in zip(view.named(g.runs), g.runs, strict=True):
            seen.setdefault(name, {})[g.title] = run
    notes = []
    for name, runs in seen.items():
        methods = {title: clean(r.manifest.method.name) for title, r in runs.items()}
        if len(set(methods.values())) > 1:
            where = "; ".join(f"{method} in {title}" for title, method in methods.items())
            raise UserError(f"{name} is not one method in all column groups ({where}). Give the entries different labels.")
        by_protocol: dict[str, list[RunData]] = {}
        for run in runs.values():
            by_protocol.setdefault(run.manifest.protocol.hash, []).append(run)
        for what, of in (("weights", _weights), ("options", _options), ("draws", _draws)):
            if any(len({of(r) for r in members}) > 1 for members in by_protocol.values()):
                notes.append(f"{name} has other {what} in some column groups of one protocol.")
    return notes


def _weights(run: RunData) -> str:
    return run.manifest.method.checkpoint_sha256


def _options(run: RunData) -> str:
    return repr(sorted(run.manifest.method.options.items()))


def _draws(run: RunData) -> str:
    return str(run.manifest.draws)


def _overall(
    boards: Sequence[Board], titles: Sequence[str], demo: bool, asked: bool | None
) -> tuple[list[MeanRanks], list[str]]:
    """Mean ranks of every column that ranks in all groups under one signature; or why there are none."""
    if asked is False or len(boards) < 2:
        return [], []
    if demo:
        return [], ["no mean ranks: demonstration weights rank nothing."]
    if len({b.protocol_hash for b in boards}) > 1:
        return [], ["no mean ranks: the column groups follow several protocols."]
    found, notes = [], []
    for column in boards[0].columns:
        same = [next((c for c in b.columns if c.name == column.name), None) for b in boards]
        if not all(c is not None and c.ranked for c in same):
            continue
        if len({c.signature for c in same if c is not None}) > 1:
            notes.append(f"no mean rank by {column.header}: it has several definitions in the column groups.")
            continue
        ranks = mean_ranks(boards, titles, column)
        if len(ranks.ranks) > 1:
            found.append(ranks)
    if found:
        notes.append(_words(found, titles))
        for r in found:
            lacking = listing([f"{name} ({listing(list(where))})" for name, where in r.left_out.items()])
            notes += (
                [f"mean rank by {r.column.header} without those that lack a complete mean somewhere: {lacking}."]
                if lacking
                else []
            )
    elif asked:
        notes.append("no mean ranks: no two entries have complete means of one column in all groups.")
    return found, notes


def _words(found: Sequence[MeanRanks], titles: Sequence[str]) -> str:
    return (
        f"mean rank: over {count(len(titles), 'column group')}, each of which counts once, by unrounded means; ties share their mean rank. "
        f"In brackets the ranks in {listing(list(titles), 12)}, among the entries ranked in all of them ({len(found[0].ranks)} by "
        f"{found[0].column.header}). It describes and tests nothing."
    )


def mean_ranks(boards: Sequence[Board], titles: Sequence[str], column: Column) -> MeanRanks:
    """Ranks by one column in every board, among the entries with complete finite means in all of them."""
    means: list[dict[str, float]] = []
    for board in boards:
        cells = {r.name: r.cells[column.name] for r in board.rows}
        means.append(
            {
                n: c.aggregate.mean
                for n, c in cells.items()
                if c.aggregate and not c.incomplete and np.isfinite(c.aggregate.mean)
            }
        )
    everybody = list(dict.fromkeys(r.name for b in boards for r in b.rows))
    common = [n for n in everybody if all(n in m for m in means)]
    sign = -1.0 if column.higher_is_better else 1.0
    ranks = [_ranks([sign * m[n] for n in common]) for m in means]
    lacking = {n: tuple(t for t, m in zip(titles, means, strict=True) if n not in m) for n in everybody if n not in common}
    return MeanRanks(column, {n: tuple(r[i] for r in ranks) for i, n in enumerate(common)}, lacking)


def _ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; equal values share the mean of their ranks."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def _names(groups: Sequence[Group], boards: Sequence[Board], view: View, found: Sequence[MeanRanks]) -> list[str]:
    """Entries in the order of rows: as given, by the first mean rank, or as in the first group that has them."""
    entries = {r.name for b in boards for r in b.rows}
    if view.order == GIVEN:
        given = dict.fromkeys(n for g in groups for n in view.named(g.runs))
        return [n for n in given if n in entries]
    names = list(dict.fromkeys(r.name for b in boards for r in b.rows))
    by = found[0] if not view.order and found else next((o for o in found if o.column.name == view.order), None)
    if by is None:
        return names
    return sorted(names, key=lambda n: by.means.get(n, float("inf")))
