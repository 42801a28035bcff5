"""The live table of ``mrbench sweep``: one row per combination, driven by the life-cycle hooks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mrbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from mrbench.engine.sweep import Planned
    from mrbench.engine.sweep_times import Estimate

STYLES = {
    "refused": "red", "failed": "red", "running": "bold", "done": "green", "finished": "green", "same": "dim", "new": "", "started": "",
}  # fmt: skip
FRAME = 6  # lines of a terminal that the table leaves to its head, its caption and what stands above
REFRESH = 2  # times a second


def duration(seconds: float) -> str:
    """``45 s``, ``3:20 min``, ``2:05 h`` or ``3.1 days``."""
    if seconds < 1:
        return "< 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{seconds / 86400:.1f} days"


def plan_table(planned: Sequence[Planned], estimates: Mapping[int, Estimate]) -> Table:
    """The plan, as ``--dry-run`` prints it."""
    table = _table("time left", "remark")
    for one in planned:
        guess = estimates.get(one.number)
        left = duration(guess.seconds) if guess else ("unknown" if one.open else "")
        remark = "; ".join(filter(None, [one.reason, guess.basis if guess else ""]))
        table.add_row(*_cells(one, one.state, one.done), Text(left), Text(remark))
    return table


class SweepTable:
    """Shows the combinations of a call while they run; without a terminal, a line for each one that ends.

    On a terminal that is too short for all of them, those that have ended scroll out at the top.
    """

    def __init__(self, console: Console, planned: Sequence[Planned], estimates: Mapping[int, Estimate]) -> None:
        self._console = console
        self._planned = list(planned)
        self._estimates = estimates
        self._now: Planned | None = None
        self._begun = 0.0
        self._stored = 0  # items that were there when the one at hand began
        self._done = 0
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=REFRESH, transient=True)

    def __enter__(self) -> SweepTable:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def begin(self, one: Planned) -> None:
        """A combination begins."""
        self._now, self._begun, self._stored, self._done = one, time.monotonic(), one.done, one.done

    def end(self, one: Planned) -> None:
        """A combination has ended."""
        self._now = None
        if not self._console.is_terminal:
            ended = sum(not p.open for p in self._planned)
            reason = f": {one.reason}" if one.reason else ""
            line = f"{ended}/{len(self._planned)} {one}: {one.state}, {one.done}/{one.total} items{reason}"
            self._console.print(Text(line), soft_wrap=True)

    @hookimpl
    def mrbench_run_started(self, run: Mapping[str, Any]) -> None:
        """Items that were stored before are no work; the clock starts after loading."""
        self._begun = time.monotonic()
        self._stored = self._done = run["requested"] - run["todo"]

    @hookimpl
    def mrbench_item_done(self, row: Mapping[str, Any]) -> None:
        """Count an item."""
        self._done += 1

    def render(self) -> Table:
        """The table as it is now."""
        table = _table("ETA")
        room = max(3, self._console.height - FRAME)
        for one in self._window(room):
            running = one is self._now
            state, done = ("running", self._done) if running else (one.state, one.done)
            left = self._left(one)
            table.add_row(
                *_cells(one, state, done), Text(duration(left) if left is not None else ("unknown" if one.open else ""))
            )
        table.caption = self._caption()
        return table

    def _window(self, room: int) -> list[Planned]:
        shown = [p for p in self._planned if p.state != "same"]
        first = next((i for i, p in enumerate(shown) if p.open), len(shown))
        start = max(0, min(first - room // 3, len(shown) - room))
        return shown[start : start + room]

    def _left(self, one: Planned) -> float | None:
        """Seconds to go: by this run's own pace once it has one, else by the estimate; ``None``: not known, or nothing to do."""
        fresh = self._done - self._stored
        if one is self._now and fresh > 0 and one.total is not None:
            return (time.monotonic() - self._begun) / fresh * max(0, one.total - self._done)
        guess = self._estimates.get(one.number)
        return guess.seconds if guess and one.open else None

    def _caption(self) -> str:
        counts = Counter("running" if p is self._now else "waiting" if p.open else p.state for p in self._planned)
        left = [self._left(p) for p in self._planned if p.open]
        known = sum(x for x in left if x is not None)
        unknown = sum(x is None for x in left)
        more = f", and {unknown} of unknown length" if unknown else ""
        return ", ".join(f"{n} {state}" for state, n in counts.items()) + (f"; {duration(known)} to go{more}" if left else "")


def _table(*last: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("entry", "data set", "protocol", "state"):
        table.add_column(name, overflow="fold")
    table.add_column("items", justify="right", no_wrap=True)
    for name in last:
        table.add_column(name, overflow="fold")
    return table


def _cells(one: Planned, state: str, done: int) -> tuple[Text, ...]:
    items = f"{done}/{one.total}" if one.total is not None else ""
    names = (one.label, one.dataset.name, one.protocol.name)
    return (*map(Text, names), Text(state, style=STYLES[state]), Text(items))
