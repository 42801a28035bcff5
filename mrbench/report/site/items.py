"""The items of a task as the browser of items needs them: numbers of every entry, and which items come first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

from mrbench.report.columns import Column
from mrbench.report.text import clean, number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.report.site.tasks import SiteTask

MOST_ITEMS = 2000  # in the browser of items; all are in the downloads
_DIGITS = 6  # significant ones, of numbers in pages


@dataclass(frozen=True)
class Extreme:
    """An item that is worth a look: where the mean over the entries is worst or best."""

    item_id: str
    value: str


def main_column(task: SiteTask) -> Column | None:
    """The column by which items are ordered: the first that ranks and has values."""
    columns = task.board.columns
    having = [c for c in columns if any(r.cells[c.name].aggregate for r in task.rows)]
    return next((c for c in having if c.ranked), having[0] if having else None)


def goodness(task: SiteTask) -> NDArray[np.float64]:
    """Per item the mean of the main column over all entries (controls apart), larger is better; NaN where none has a value."""
    n = len(task.comparison.items)
    column = main_column(task)
    entries = [a for a in task.runs if not a.run.manifest.method.control] or list(task.runs)
    if column is None:
        return np.full(n, np.nan)
    values = np.stack([a.values(column.name) for a in entries])
    if column.cap is not None:
        values = np.minimum(values, column.cap)
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values)
    means = np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
    sign = -1.0 if column.higher_is_better is False else 1.0
    return np.where(known.any(0), sign * means, np.nan)


def in_turn(scores: NDArray[np.float64]) -> list[int]:
    """All items, in the order in which they get pictures: the worst, the best, one from the middle, the next worst ...

    Those from the middle are spread evenly: 1/2, 1/4, 3/4, 1/8 ... of the sorted items. Items without a score come last.
    """
    known = np.flatnonzero(~np.isnan(scores))
    ranked = known[np.argsort(scores[known], kind="stable")]
    n = len(ranked)
    turns: list[Iterator[int]] = [iter(range(n)), iter(range(n - 1, -1, -1)), _spread(n)]
    picked: dict[int, None] = {}
    while len(picked) < n:
        for turn in turns:
            position = next((p for p in turn if int(ranked[p]) not in picked), None)
            if position is not None:
                picked[int(ranked[position])] = None
    return [*picked, *(int(i) for i in np.flatnonzero(np.isnan(scores)))]


def extremes(task: SiteTask, n: int = 3) -> tuple[list[Extreme], list[Extreme]]:
    """The ``n`` worst and the ``n`` best items (none twice)."""
    column = main_column(task)
    scores = goodness(task)
    known = np.flatnonzero(~np.isnan(scores))
    if column is None or not known.size:
        return [], []
    ranked = [int(i) for i in known[np.argsort(scores[known], kind="stable")]]
    n = min(n, max(1, len(ranked) // 2))
    sign = -1.0 if column.higher_is_better is False else 1.0

    def told(i: int) -> Extreme:
        return Extreme(task.comparison.items[i], f"{number(sign * scores[i], column.digits)} {clean(column.unit)}".strip())

    return [told(i) for i in ranked[:n]], [told(i) for i in reversed(ranked[n:][-n:])]


def item_link(page: str, item_id: str) -> str:
    """The address of an item: ``items.html#item=...``."""
    return f"{page}#{urlencode({'item': item_id})}"


def records(task: SiteTask, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Per item ``{"id", "subject", "values": [entry][column], "status": [entry]}``; numbers with six digits, ``null`` for NaN."""
    chosen = np.asarray(positions, dtype=np.intp)
    columns = [[_short(a.values(c.name)[chosen]) for c in task.board.columns] for a in task.runs]
    states = [_states(task, k) for k in range(len(task.runs))]
    comparison = task.comparison
    return [
        {
            "id": comparison.items[i],
            "subject": clean(comparison.subjects[int(comparison.codes[i])]),
            "values": [[values[j] for values in of_entry] for of_entry in columns],
            "status": [of_entry.get(i, "") for of_entry in states],
        }
        for j, i in enumerate(positions)
    ]


def _states(task: SiteTask, k: int) -> dict[int, str]:
    """Position -> why an entry has nothing there, for items that are not ok."""
    from mrbench.report.site.private import without_places

    a = task.runs[k]
    found: dict[int, str] = {}
    for i in np.flatnonzero(~a.ok):
        row = a.rows.iloc[int(i)]
        status, error = row["status"], row.get("error", "")
        told = clean(status) if isinstance(status, str) else "not in this run"
        found[int(i)] = told + (f": {without_places(clean(error))}" if isinstance(error, str) and error else "")
    return found


def _short(values: NDArray[np.float64]) -> list[float | str | None]:
    return [_number(float(v)) for v in values]


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(f"{value:.{_DIGITS}g}")


def _spread(n: int) -> Iterator[int]:
    """Positions at 1/2, 1/4, 3/4, 1/8, 3/8 ... of ``n``, then all."""
    parts = 2
    while parts <= 2 * n:
        for k in range(1, parts, 2):
            yield min(n - 1, n * k // parts)
        parts *= 2
    yield from range(n)
