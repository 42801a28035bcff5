"""What ``mrbench show RUN`` tells about one run: data, and a rich view of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.columns import Column, choose_columns
from mrbench.report.summary import Aggregate, aggregate, count_rows, mean_of, reason_for, summarize, summary_document
from mrbench.report.text import NOT_AVAILABLE, clean, mean_and_sd, number, shorten, significant

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from mrbench.store.runs import RunData

_MOST_REASONS = 5
_MOST_SUBJECTS = 40


@dataclass(frozen=True)
class WorstItem:
    """An item with one of the worst values of a metric."""

    item_id: str
    subject: str
    value: float


@dataclass(frozen=True)
class StatusCount:
    """How many rows have a status, and the most frequent reasons."""

    status: str
    n: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Details:
    """One run at a glance. ``subjects``: subject -> column -> aggregate over its slices. ``metric``: of ``worst``."""

    run: RunData
    essentials: tuple[tuple[str, str], ...]
    statuses: tuple[StatusCount, ...]
    columns: tuple[Column, ...]
    aggregates: Mapping[str, Aggregate]
    unavailable: Mapping[str, str]
    subjects: Mapping[str, Mapping[str, Aggregate]]
    metric: str
    worst: tuple[WorstItem, ...]

    def document(self) -> dict[str, Any]:
        """The run's summary with everything shown here, JSON-serialisable, every number finite or null."""
        return {
            **summary_document(self.run),
            "essentials": dict(self.essentials),
            "statuses": [{"status": s.status, "n": s.n, "reasons": dict(s.reasons)} for s in self.statuses],
            "subjects": {s: {c: a.document() for c, a in cells.items()} for s, cells in self.subjects.items()},
            "worst": {
                "metric": self.metric,
                "items": [{"item_id": w.item_id, "subject": w.subject, "value": _finite(w.value)} for w in self.worst],
            },
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def details(run: RunData, metric: str | None = None, worst: int = 10) -> Details:
    """Collect what there is to tell about a run.

    Parameters
    ----------
    metric : column whose worst items are listed; default: the first ranked column that has values.
    worst : how many of them.

    Raises
    ------
    UserError : an unknown metric column.
    """
    columns = choose_columns([run])
    counts = count_rows(run.rows)
    found = summarize(run)
    if metric is not None and metric not in run.manifest.columns:
        known = [c.name for c in columns]
        hint = did_you_mean(metric, known)
        raise UserError(f"run {clean(run.label)} has no metric column {metric!r}.{hint} Columns: {', '.join(known) or 'none'}.")
    chosen = metric or next((c.name for c in columns if c.ranked and c.name in found), "")
    missing = [c.name for c in columns if c.name not in found]
    missing += [u for u in run.manifest.unavailable if u not in found and u not in missing]
    return Details(
        run=run,
        essentials=tuple(essentials(run)),
        statuses=tuple(status_counts(run.rows)),
        columns=tuple(columns),
        aggregates=found,
        unavailable={c: reason_for(run.manifest, c, counts.ok) for c in missing},
        subjects=subject_means(run, columns),
        metric=chosen,
        worst=tuple(worst_items(run, chosen, worst)) if chosen else (),
    )


def worst_items(run: RunData, metric: str, n: int) -> list[WorstItem]:
    """The ``n`` ok items with the worst values of a column, worst first, ties by id; items without a value are left out."""
    if "status" not in run.rows or metric not in run.rows:
        return []
    rows = run.rows[(run.rows["status"] == "ok") & run.rows[metric].notna()]
    info = run.manifest.columns[metric]
    rows = rows.sort_values([metric, "item_id"], ascending=[info.higher_is_better, True]).head(n)
    kept = rows[["item_id", "subject", metric]].itertuples(index=False, name=None)
    return [WorstItem(str(item), str(subject), float(value)) for item, subject, value in kept]


def subject_means(run: RunData, columns: Sequence[Column]) -> dict[str, dict[str, Aggregate]]:
    """Per subject (by name) and column the aggregate over its slices."""
    if "status" not in run.rows:
        return {}
    ok = run.rows[run.rows["status"] == "ok"].sort_values("item_id")
    found: dict[str, dict[str, Aggregate]] = {}
    for subject, group in sorted(ok.groupby("subject"), key=lambda pair: str(pair[0])):
        keys = group["subject"].to_numpy(dtype=object)
        cells = found.setdefault(str(subject), {})
        for column in columns:
            if column.name in group:
                values = group[column.name].to_numpy(dtype=float, na_value=np.nan)
                result = aggregate(values, keys, "slices", column.cap)
                if result is not None:
                    cells[column.name] = result
    return found


def status_counts(rows: pd.DataFrame) -> list[StatusCount]:
    """Rows by status, ok first, with the most frequent error texts of the others."""
    if "status" not in rows:
        return []
    found = []
    for status in ("ok", "failed", "oom", "skipped"):
        of = rows[rows["status"] == status]
        if len(of):
            errors = of["error"].fillna("").map(clean) if "error" in of and status != "ok" else of["status"].iloc[:0]
            common = errors[errors != ""].value_counts().sort_index().sort_values(ascending=False, kind="stable")
            reasons = tuple((str(text), int(n)) for text, n in common.head(_MOST_REASONS).items())
            found.append(StatusCount(status, len(of), reasons))
    return found


def essentials(run: RunData) -> list[tuple[str, str]]:
    """The manifest's main facts as names and texts."""
    m = run.manifest
    options = ", ".join(f"{k}={v}" for k, v in m.method.options.items())
    weights = m.method.checkpoint + (f" (sha256 {m.method.checkpoint_sha256[:12]})" if m.method.checkpoint_sha256 else "")
    processor = str(m.environment.get("processor", ""))
    packages = m.environment.get("packages")
    versions = ", ".join(f"{k} {v}" for k, v in packages.items()) if isinstance(packages, Mapping) else ""
    rows = run.rows[run.rows["status"] == "ok"] if "status" in run.rows else run.rows
    seconds = mean_of(rows, "seconds")
    memory = mean_of(rows, "peak_memory")
    facts = [
        ("run", f"{m.run} ({run.folder})"),
        ("method", f"{m.method.name} version {m.method.version}" + (" (control)" if m.method.control else "")),
        ("label", m.method.label),
        ("tier", m.method.tier),
        ("weights", weights),
        ("options", options),
        ("track", m.method.track),
        ("paper", m.method.paper),
        ("data set", f"{m.dataset.alias} ({m.dataset.name} version {m.dataset.version})"),
        ("licence of the data", m.dataset.licence),
        ("protocol", f"{m.protocol.name} version {m.protocol.version}, hash {m.protocol.hash}"),
        ("task", m.task_hash),
        ("items", f"{m.items} of {m.subjects} subjects" + (", partial: not all are stored" if m.partial else "")),
        ("left out", f"{len(m.dataset.dropped)} slices by the foreground rule" if m.dataset.dropped else ""),
        ("draws", str(m.draws)),
        ("seconds per slice", significant(seconds) if seconds is not None else ""),
        ("device memory", f"{memory / 2**20:.0f} MiB" if memory is not None else ""),
        ("device", ", ".join(filter(None, [m.device, processor, f"{m.threads} threads", m.precision]))),
        ("images", "stored" if m.images else "not stored"),
        ("mrbench", m.mrbench),
        ("versions", versions),
        ("created", m.created + (f", updated {m.updated}" if m.updated and m.updated != m.created else "")),
        *[("warning", w) for w in m.dataset.warnings],
        *[("note", n) for n in m.notes],
    ]
    return [(name, clean(text)) for name, text in facts if clean(text)]


@dataclass(frozen=True)
class DetailsView:
    """A rich renderable of ``Details``."""

    details: Details

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Facts, counts, metrics, subjects, worst items."""
        from rich.text import Text

        d = self.details
        facts = _table([("", False), ("", False)], [list(fact) for fact in d.essentials])
        facts.show_header = False
        yield facts
        yield Text("")
        yield _statuses(d)
        if d.columns:
            yield Text("")
            yield _metrics(d)
        if len(d.subjects) > 1:
            yield Text("\nmean per subject", style="bold")
            yield from _subjects(d, options.max_width)
        if d.worst:
            yield Text(f"\nworst {len(d.worst)} items by {d.metric}", style="bold")
            column = next(c for c in d.columns if c.name == d.metric)
            rows = [[w.item_id, number(w.value, column.digits)] for w in d.worst]
            yield _table([("item", False), (f"{column.header} {column.arrow}".strip(), True)], rows)


def _statuses(d: Details) -> Table:
    rows = []
    for s in d.statuses:
        reasons = [f"{n} x {shorten(text, 200)}" for text, n in s.reasons] or [""]
        rows += [[s.status if i == 0 else "", str(s.n) if i == 0 else "", reason] for i, reason in enumerate(reasons)]
    return _table([("status", False), ("rows", True), ("reason", False)], rows)


def _metrics(d: Details) -> Table:
    rows = []
    for column in d.columns:
        a = d.aggregates.get(column.name)
        name = f"{column.name} {column.arrow}".strip()
        if a is None:
            rows.append([name, NOT_AVAILABLE, "", "0", shorten(d.unavailable.get(column.name, ""), 200)])
            continue
        mean, sd = mean_and_sd(a.mean, a.sd, column.digits)
        remarks = [f"{a.nan} without value"] if a.nan else []
        remarks += [f"{a.inf} infinite"] if a.inf else []
        remarks += [f"{a.capped} enter as {column.cap:g}"] if a.capped and column.cap is not None else []
        spread = f"{mean} ± {sd}" if sd is not None else mean
        rows.append([name, spread, number(a.median, column.digits), str(a.n), ", ".join(remarks)])
    others = {name: reason for name, reason in d.unavailable.items() if name not in {c.name for c in d.columns}}
    rows += [[name, NOT_AVAILABLE, "", "0", shorten(reason, 200)] for name, reason in others.items()]
    return _table([("metric", False), ("mean ± sd", True), ("median", True), ("n", True), ("remarks", False)], rows)


def _subjects(d: Details, width: int) -> RenderResult:
    """Subjects as rows, the columns that have values cut into tables that fit the width."""
    from rich.text import Text

    columns = [c for c in d.columns if c.name in d.aggregates and "@" not in c.name]
    names = list(d.subjects)[:_MOST_SUBJECTS]
    texts = {c.name: [_mean(d.subjects[s].get(c.name), c) for s in names] for c in columns}
    first = max(len(s) for s in (*names, "subject")) + 2
    blocks: list[list[Column]] = []
    used = width
    for column in columns:
        needed = max(len(t) for t in (*texts[column.name], f"{column.header} {column.arrow}")) + 2
        if used + needed > width:
            blocks.append([])
            used = first
        blocks[-1].append(column)
        used += needed
    for block in blocks:
        heads = [("subject", False)] + [(f"{c.header} {c.arrow}".strip(), True) for c in block]
        yield _table(heads, [[s, *(texts[c.name][i] for c in block)] for i, s in enumerate(names)])
    if len(d.subjects) > len(names):
        yield Text(f"and {len(d.subjects) - len(names)} more subjects")


def _mean(found: Aggregate | None, column: Column) -> str:
    return NOT_AVAILABLE if found is None else number(found.mean, column.digits)


def _table(heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table; texts are literal. ``heads``: name and whether the column is numeric (right-aligned)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for name, numeric in heads:
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    return table
