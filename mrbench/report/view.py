"""What a board shows and how: the choices that are no property of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.columns import Column
from mrbench.report.comparable import names_of
from mrbench.report.summary import Over
from mrbench.report.text import clean, listing

if TYPE_CHECKING:
    from mrbench.stats.presets import Plan
    from mrbench.store.runs import RunData

GIVEN = "given"


@dataclass(frozen=True)
class View:
    """Choices for one board, or for all column groups of a wide one.

    Parameters
    ----------
    metrics : columns in their order; ``None``: all in the default order, ``@mean`` and ``@best`` only where some run has several draws.
    over : unit of mean, sd and n.
    intersect : compare on the items that every entry restored, instead of refusing unequal item sets.
    plan : mark significance by these tests; ``None``: no tests.
    level : print confidence intervals of this level instead of sd.
    ablation : show how the weights were trained as columns of ticks.
    order : rows by this column, the best first; ``given``: in the order of the runs; empty: by the first column that ranks (ablations: by
        their number of ticks).
    demo : mark no winner, as if demonstration weights stood here (they stand in another column group).
    digits : decimals by column. labels : other names for entries and columns. heading : a title of one's own.
    """

    metrics: tuple[str, ...] | None = None
    over: Over = "slices"
    intersect: bool = False
    plan: Plan | None = None
    level: float | None = None
    ablation: bool = False
    order: str = ""
    demo: bool = False
    digits: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    heading: str = ""

    def __post_init__(self) -> None:
        """Refuse units that do not exist."""
        if self.over not in get_args(Over):
            raise UserError(f"no unit {self.over!r} to average over. Known: {', '.join(get_args(Over))}.")

    def named(self, runs: Sequence[RunData]) -> list[str]:
        """What runs are called on a board, each differently (``UserError`` where a label takes another entry's name)."""
        names = [clean(self.labels.get(name, name)) for name in names_of(runs)]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise UserError(f"the labels give two entries the name {twice[0]!r}. Give each its own.")
        return names

    def styled(self, columns: Sequence[Column]) -> list[Column]:
        """Columns with one's own titles and decimals."""
        return [
            replace(c, header=clean(self.labels.get(c.name, c.header)), digits=self.digits.get(c.name, c.digits))
            for c in columns
        ]

    def tested(self, runs: Sequence[RunData]) -> Plan | None:
        """The plan with its control under the name that it has on the board; ``None`` where it is on none of these runs."""
        if self.plan is None or not self.plan.control:
            return self.plan
        by_name = dict(zip(names_of(runs), self.named(runs), strict=True))
        shown = by_name.get(self.plan.control, self.plan.control)
        if shown not in by_name.values():
            known = listing(list(by_name), 20)
            raise UserError(
                f"no run is called {self.plan.control!r}.{did_you_mean(self.plan.control, list(by_name))} Runs: {known}."
            )
        return replace(self.plan, control=shown)


def chosen(runs: Sequence[RunData], methods: Sequence[str]) -> list[RunData]:
    """The runs of these entries, in the order of ``methods`` (all for none).

    An entry is named by its label; one of several runs with that label on one data set by what boards call it (``label (key)``).

    Raises
    ------
    UserError : a name that no run has.
    """
    if not methods:
        return list(runs)
    called: list[tuple[str, str]] = list(zip((clean(r.label) for r in runs), names_of(runs), strict=True))
    known = list(dict.fromkeys(n for both in called for n in both))
    for method in methods:
        if method not in known:
            labels = list(dict.fromkeys(label for label, _ in called))
            raise UserError(f"no run is called {method!r}.{did_you_mean(method, known)} Runs: {listing(labels, 20)}.")
    return [r for m in dict.fromkeys(methods) for r, both in zip(runs, called, strict=True) if m in both]


def by_task(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs by data set and protocol, in the order in which these appear."""
    groups: dict[tuple[str, str, str], list[RunData]] = {}
    for run in runs:
        m = run.manifest
        groups.setdefault((m.dataset.alias, m.dataset.name, m.protocol.hash), []).append(run)
    return list(groups.values())
