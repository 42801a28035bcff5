"""Tables of papers from whatever runs exist: which run a cell stands for, its number, and why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.report.board import BANNER
from mrbench.report.paper_numbers import METRICS, PaperNumber
from mrbench.report.paper_plans import COSTS, PaperPlan, PlannedColumn, PlannedRow, PlannedTable, Where
from mrbench.report.sheet import Sheet, SheetCell, SheetColumn, SheetRow
from mrbench.report.summary import Aggregate, aggregate, cap_of, mean_of, reason_for
from mrbench.report.text import clean, count, listing, mean_and_sd, significant

if TYPE_CHECKING:
    from mrbench.store.manifest import ColumnInfo, Manifest
    from mrbench.store.runs import RunData

MISSING = "missing"
NEAR = 1  # differences up to which a run is named as a near miss
LEGEND = (
    "printed: the number in the paper, of other slices and conventions; no winner is marked here (`mrbench leaderboard` and "
    "`mrbench stats` compare runs on equal slices)"
)
_COST_TITLES = {"parameters": ("parameters", "M"), "nfe": ("NFE", ""), "seconds": ("s/slice", "")}


@dataclass(frozen=True)
class PaperCell:
    """One cell. run : what its number is of. reason : why there is none. printed : what the paper has. others : runs that fit as well."""

    row: str
    group: str
    metric: str
    run: RunData | None = None
    found: Aggregate | None = None
    number: str = ""  # of costs
    reason: str = ""
    printed: str = ""
    others: tuple[str, ...] = ()

    @property
    def missing(self) -> bool:
        """Whether there is no number."""
        return self.found is None and not self.number


@dataclass(frozen=True)
class PaperTableView:
    """A planned table with its cells, row by row; every renderer of boards prints it."""

    plan: PaperPlan
    number: str
    table: PlannedTable
    cells: tuple[tuple[PaperCell, ...], ...]

    @property
    def title(self) -> str:
        """``MSP-SR, table 3: ...``."""
        return f"{self.plan.name}, table {self.number}: {self.table.title}"

    @property
    def all_cells(self) -> list[PaperCell]:
        """Row by row."""
        return [c for row in self.cells for c in row]

    @property
    def missing(self) -> list[str]:
        """Cells without a number by name, with the reason: one line for all metrics of a row and group that share it."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for cell in self.all_cells:
            if cell.missing:
                groups.setdefault((cell.row, cell.group, cell.reason), []).append(cell.metric)
        own = {
            (c.row, c.group): [d.metric for d in self.all_cells if (d.row, d.group) == (c.row, c.group)] for c in self.all_cells
        }
        found = []
        for (row, group, reason), metrics in groups.items():
            where = f"{row}, {group}" if group else row
            which = "" if metrics == own[row, group] and len(metrics) > 1 else f" ({listing(metrics)})"
            found.append(f"missing: {where}{which}: {reason}")
        return found

    def sheet(self) -> Sheet:
        """The table, cell by cell; the paper's own numbers in rows below."""
        groups = tuple(dict.fromkeys(c.group for c in self.table.columns if c.group))
        columns = tuple(_sheet_column(c, groups, [row[i] for row in self.cells]) for i, c in enumerate(self.table.columns))
        rows: list[SheetRow] = []
        for planned, cells in zip(self.table.rows, self.cells, strict=True):
            rows.append(SheetRow(planned.label, False, tuple(map(_sheet_cell, cells))))
            if any(c.printed for c in cells):
                rows.append(SheetRow(f"{planned.label}, printed", False, tuple(SheetCell(c.printed or "-") for c in cells)))
        runs = {c.run.folder: c.run for c in self.all_cells if c.run is not None}
        demo = any(r.manifest.method.tier == "demo" for r in runs.values())
        signatures = {}
        for cell in self.all_cells:
            info = _info(cell)
            if info is not None and not cell.missing:
                signatures[cell.metric] = clean(info.signature)
        have = len(self.all_cells) - sum(c.missing for c in self.all_cells)
        return Sheet(
            title=clean(self.title),
            banner=BANNER if demo else "",
            size=f"mean ± sd over slices; {have} of {len(self.all_cells)} cells",
            warnings=(),
            groups=groups,
            columns=columns,
            rows=tuple(rows),
            controls=(),
            legend=lambda best, second: LEGEND,
            identity=(),
            sentences=(),
            footnotes=(*self.missing, *self._notes(runs.values()), *self.table.notes),
            signatures=signatures,
        )

    def _notes(self, runs: Iterable[RunData]) -> list[str]:
        notes = [f"runs: {listing([clean(r.manifest.run) for r in runs], 40)}"] if runs else []
        for group in dict.fromkeys(c.group for c in self.all_cells):
            sets = {frozenset(_ok(c.run)["item_id"]) for c in self.all_cells if c.group == group and c.run is not None}
            if len(sets) > 1:
                notes.append(
                    f"{group or 'rows'}: not all are on the same slices ({listing(sorted(str(len(s)) for s in sets))})"
                )
        for cell in self.all_cells:
            if cell.others and cell.metric == self.table.columns[0].metric:
                used = clean(cell.run.manifest.run) if cell.run is not None else ""
                notes.append(f"{cell.row}, {cell.group}: {used} is used; {listing(list(cell.others))} would fit as well")
        return notes

    def document(self) -> dict[str, Any]:
        """As JSON, every number finite or null."""
        return {
            "paper": self.plan.paper,
            "table": self.number,
            "title": self.table.title,
            "cells": [_cell_document(c) for c in self.all_cells],
            "missing": self.missing,
            "notes": list(self.table.notes),
        }


def build_table(
    plan: PaperPlan, number: str, table: PlannedTable, runs: Sequence[RunData], numbers: Sequence[PaperNumber]
) -> PaperTableView:
    """Fill a planned table from runs. ``numbers``: what papers print."""
    cells = []
    for row in table.rows:
        cells.append(tuple(_cell(row, column, plan.paper, number, runs, numbers) for column in table.columns))
    return PaperTableView(plan, number, table, tuple(cells))


def _cell(
    row: PlannedRow, column: PlannedColumn, paper: str, number: str, runs: Sequence[RunData], numbers: Sequence[PaperNumber]
) -> PaperCell:
    printed = _printed(row, column, paper, number, numbers)
    blocked = row.blocked.get(column.group) or row.blocked.get("all", "")
    if blocked:
        return PaperCell(row.label, column.group, column.metric, reason=blocked, printed=printed)
    where = row.where.with_(column.where)
    run, others, reason = find_run(runs, where)
    cell = PaperCell(row.label, column.group, column.metric, run, reason=reason, printed=printed, others=others)
    if run is None:
        return cell
    found, text = _value(run, column.metric)
    if found is None and not text:
        why = "not measured" if column.metric in COSTS else reason_for(run.manifest, column.metric, len(_ok(run)))
        reason = f"{clean(run.manifest.run)}: {why}"
    return PaperCell(row.label, column.group, column.metric, run, found, text, reason, printed, others)


def _value(run: RunData, metric: str) -> tuple[Aggregate | None, str]:
    rows = _ok(run)
    if metric == "parameters":
        known = run.manifest.method.parameters
        return None, "" if known is None else significant(known / 1e6)
    if metric in COSTS:
        mean = mean_of(rows, metric)
        return None, "" if mean is None else significant(mean)
    info = run.manifest.columns.get(metric)
    if info is None or metric not in rows:
        return None, ""
    values = rows[metric].to_numpy(dtype=float, na_value=np.nan)
    return aggregate(values, rows["subject"].to_numpy(dtype=object), "slices", cap_of(info)), ""


def find_run(runs: Sequence[RunData], where: Where) -> tuple[RunData | None, tuple[str, ...], str]:
    """The run that a cell stands for (of several: most slices, then the latest), the names of the others, and why there is none."""
    fitting = [r for r in runs if not differences(r.manifest, where)]
    if fitting:
        order = sorted(
            fitting, key=lambda r: (len(_ok(r)), r.manifest.updated or r.manifest.created, r.manifest.run), reverse=True
        )
        return order[0], tuple(clean(r.manifest.run) for r in order[1:]), ""
    alike = [r for r in runs if where.method in ("", r.manifest.method.name)]
    near = [(r, d) for r in alike if len(d := differences(r.manifest, where)) <= NEAR]
    told = [f"{clean(r.manifest.run)} {d[0]}" for r, d in near]
    return None, (), f"no run of {describe(where)}" + (f"; near: {listing(told, 3)}" if told else "")


def describe(where: Where) -> str:
    """What a run must be, in words."""
    parts = [where.method or "any method"]
    given = {**where.options, **{f"training {k}": v for k, v in where.recipe.items()}, **where.factors}
    if given:
        parts.append(f"({', '.join(f'{k}: {_word(v)}' for k, v in given.items())})")
    if where.stages:
        parts.append(f"(stages {', '.join(where.stages)})")
    if where.dataset:
        options = ", ".join(f"{k} = {v}" for k, v in where.data.items())
        parts.append(f"on {where.dataset}{f' ({options})' if options else ''}")
    if where.protocol:
        parts.append(f"under {where.protocol}")
    if where.draws > 1:
        parts.append(f"with {where.draws} draws")
    return " ".join(parts)


def differences(manifest: Manifest, where: Where) -> list[str]:
    """What keeps a run from being the one that is meant, in words; nothing if it is."""
    found = []
    for name, have, want in (
        ("is of", manifest.method.name, where.method),
        ("is on", manifest.dataset.name, where.dataset),
        ("is under", manifest.protocol.name, where.protocol),
    ):
        if want and have != want:
            found.append(f"{name} {clean(have)}")
    found += _unlike("has", manifest.dataset.options, where.data)
    found += _unlike("was run with", manifest.method.options, where.options)
    recipe = manifest.method.recipe or {}
    options, factors = recipe.get("options"), recipe.get("factors")
    found += _unlike("was trained with", _flat(options if isinstance(options, Mapping) else {}), where.recipe)
    found += _unlike("was trained with", factors if isinstance(factors, Mapping) else {}, where.factors)
    if where.stages and tuple(recipe.get("stages", ())) != where.stages:
        found.append(f"was trained in the stages {', '.join(map(clean, recipe.get('stages', ()))) or 'unknown'}")
    if manifest.draws < where.draws:
        found.append(f"has {count(manifest.draws, 'draw')}")
    return found


def _unlike(verb: str, have: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    return [f"{verb} {clean(k)}: {_word(have.get(k, 'unknown'))}" for k, v in want.items() if have.get(k) != v or k not in have]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested options by dotted names."""
    if not isinstance(value, Mapping):
        return {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{path}.{key}".lstrip("."))
    return found


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else clean(value)


def _printed(row: PlannedRow, column: PlannedColumn, paper: str, number: str, numbers: Sequence[PaperNumber]) -> str:
    """The paper's own number, or nothing. Without a method of its own a row has none."""
    merged = {**column.printed.model_dump(exclude_defaults=True), **row.printed.model_dump(exclude_defaults=True)}
    if not merged.get("method"):
        return ""
    table = {"-": "", "": number}.get(merged.get("table", ""), merged.get("table", ""))
    wanted = (
        paper,
        table,
        merged.get("dataset", ""),
        merged.get("scale", ""),
        merged["method"],
        merged.get("metric", column.metric),
    )
    found = [n for n in numbers if (n.paper, n.table, n.dataset_in_paper, n.scale, n.method_in_paper, n.metric) == wanted]
    return " or ".join(f"{n.value} ± {n.sd}" if n.sd else n.value for n in found)


# -- printing ----------------------------------------------------------------------------------------------------------
def _ok(run: RunData | None) -> Any:
    assert run is not None
    return run.rows[run.rows["status"] == "ok"] if "status" in run.rows else run.rows


def _info(cell: PaperCell) -> ColumnInfo | None:
    return cell.run.manifest.columns.get(cell.metric) if cell.run is not None else None


def _sheet_column(column: PlannedColumn, groups: Sequence[str], cells: Sequence[PaperCell]) -> SheetColumn:
    at = groups.index(column.group) if column.group else -1
    if column.metric in COSTS:
        title, unit = _COST_TITLES[column.metric]
        return SheetColumn(title, unit, group=at)
    info = next((i for c in cells if (i := _info(c)) is not None), None)
    if info is None:
        title, _, unit = METRICS.get(column.metric, column.metric).removesuffix("]").partition(" [")
        return SheetColumn(title, unit, group=at)
    arrow = "↑" if info.higher_is_better else "↓"
    return SheetColumn(f"{clean(info.title) or column.metric} {arrow}", clean(info.unit), clean(info.signature), group=at)


def _sheet_cell(cell: PaperCell) -> SheetCell:
    if cell.missing:
        return SheetCell(MISSING, missing=True, hint=cell.reason)
    if cell.found is None:
        return SheetCell(cell.number)
    info = _info(cell)
    mean, sd = mean_and_sd(cell.found.mean, cell.found.sd, info.digits if info is not None else 4)
    return SheetCell(mean, f"± {sd}" if sd is not None else "")


def _cell_document(cell: PaperCell) -> dict[str, Any]:
    info = _info(cell)
    return {
        "row": cell.row,
        "group": cell.group,
        "metric": cell.metric,
        **({"value": cell.found.document()} if cell.found is not None else {}),
        **({"cost": float(cell.number)} if cell.number else {}),
        "printed": cell.printed or None,
        "run": None if cell.run is None else cell.run.manifest.run,
        "folder": None if cell.run is None else str(cell.run.folder),
        "tier": None if cell.run is None else cell.run.manifest.method.tier,
        "signature": None if info is None else info.signature,
        **({"missing": cell.reason} if cell.missing else {}),
    }


__all__ = ["PaperCell", "PaperTableView", "build_table", "describe", "differences", "find_run"]
