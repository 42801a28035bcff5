"""Statistics of runs: their rows as complete blocks, analysed metric by metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.columns import Column, choose_columns
from mrbench.report.comparable import Comparison, compare, names_of, refuse_tiers
from mrbench.report.notes import warnings_of
from mrbench.report.text import clean, count, listing

if TYPE_CHECKING:
    from mrbench.stats.presets import Plan
    from mrbench.stats.results import MetricResult
    from mrbench.stats.table import Block, Measure
    from mrbench.store.runs import RunData

BANNER = "demonstration weights: these results say nothing about the methods that the weights stand in for"


@dataclass(frozen=True)
class Statistics:
    """All results of one task, with what a reader must know about them."""

    dataset: str
    dataset_version: str
    protocol: str
    protocol_hash: str
    n_items: int
    n_subjects: int
    results: tuple[MetricResult, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    banner: str

    @property
    def title(self) -> str:
        """``sample, uniform-x4``."""
        return f"{self.dataset}, {self.protocol}"

    @property
    def size_text(self) -> str:
        """How much there is."""
        return f"{count(self.n_items, 'slice')} of {count(self.n_subjects, 'subject')}"

    def document(self) -> dict[str, Any]:
        """As JSON, every number finite or null."""
        from mrbench.stats.documents import document

        return {
            "dataset": self.dataset,
            "dataset_version": self.dataset_version,
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "n_items": self.n_items,
            "n_subjects": self.n_subjects,
            "banner": self.banner,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "results": [document(r) for r in self.results],
        }


@dataclass(frozen=True)
class Prepared:
    """Entries aligned on the same items (controls apart), their names, and the columns to test."""

    comparison: Comparison
    names: tuple[str, ...]
    columns: tuple[Column, ...]


def build_statistics(
    runs: Sequence[RunData],
    plan: Plan,
    *,
    metrics: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
    intersect: bool = False,
    prepared: Prepared | None = None,
) -> Statistics:
    """The statistics of runs of one protocol on one data set. Controls such as ``gt`` take no part.

    Parameters
    ----------
    plan : the analysis; its margin is replaced by that of ``margins``, metric by metric.
    metrics : columns to analyse, default: all that rank, in the leaderboard's order.
    intersect : see ``build_board``.
    prepared : what a board of the same runs has found already; ``metrics`` and ``intersect`` do not count then.

    Raises
    ------
    UserError : runs that cannot be compared, a column that is unknown or has no better direction, a margin for a metric that
        is not analysed, an unknown control.
    """
    from mrbench.stats.presets import analyse

    entries = [r for r in runs if not r.manifest.method.control]
    if prepared is None:
        comparison, names = compare(entries or runs, intersect), names_of(entries)
        refuse_tiers(runs)
    else:
        comparison, names = prepared.comparison, list(prepared.names)
        intersect = comparison.intersect
    if plan.control and plan.control not in names:
        raise UserError(
            f"no run is called {plan.control!r}.{did_you_mean(plan.control, names)} Runs: {listing(names, 20) or 'none'}."
        )
    columns = list(prepared.columns) if prepared is not None else _columns(entries, metrics)
    for name in margins or {}:
        if name not in {c.name for c in columns}:
            analysed = listing([c.name for c in columns], 20)
            raise UserError(f"--margin {name}: no such metric is analysed.{did_you_mean(name, [c.name for c in columns])} "
                            f"Analysed: {analysed}.")  # fmt: skip
    results = []
    for column in columns:
        block = block_of(comparison, names, column)
        if not block.methods and metrics is None and prepared is None:
            continue
        results.append(analyse(block, replace(plan, margin=(margins or {}).get(column.name, plan.margin))))
    first = runs[0].manifest
    left = [n for r, n in zip(runs, names_of(runs), strict=True) if r.manifest.method.control]
    notes = [f"controls take no part: {listing(left)}"] if left else []
    tested = sum(not r.reason for r in results)
    notes += [f"{tested} metrics were tested, each with a correction of its own"] if tested > 1 else []
    if intersect:
        notes.append(f"intersection: {len(comparison.items)} of {comparison.union} items, those that every entry restored")
    return Statistics(
        dataset=clean(first.dataset.alias),
        dataset_version=clean(first.dataset.version),
        protocol=clean(first.protocol.name),
        protocol_hash=first.protocol.hash,
        n_items=len(comparison.items),
        n_subjects=len(comparison.subjects),
        results=tuple(results),
        notes=tuple(notes),
        warnings=tuple(warnings_of(runs)),
        banner=BANNER if any(r.manifest.method.tier == "demo" for r in entries) else "",
    )


def build_all_statistics(
    runs: Sequence[RunData],
    plan: Plan,
    *,
    metrics: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
    intersect: bool = False,
) -> list[Statistics]:
    """One object per data set, in the order in which they appear. Raises as ``build_statistics`` does."""
    groups: dict[tuple[str, str], list[RunData]] = {}
    for run in runs:
        groups.setdefault((run.manifest.dataset.alias, run.manifest.dataset.name), []).append(run)
    made = [build_statistics(g, plan, metrics=metrics, margins=margins, intersect=intersect) for g in groups.values()]
    return made or [build_statistics([], plan)]


def block_of(comparison: Comparison, names: Sequence[str], column: Column) -> Block:
    """The complete block of a metric column, PSNR capped as on the boards."""
    from mrbench.stats.table import make_block

    scores = {n: a.values(column.name) for n, a in zip(names, comparison.runs, strict=True)}
    codes = comparison.codes.astype(np.intp)
    return make_block(measure_of(column), scores, [clean(s) for s in comparison.subjects], codes, comparison.items)


def measure_of(column: Column) -> Measure:
    """The column as the statistics need it (``UserError`` for one without a better direction)."""
    from mrbench.stats.table import Measure

    if not column.metric:
        raise UserError(f"{column.name}: no run could compute it, so there is nothing to test. `mrbench show RUN` says why.")
    if column.higher_is_better is None or not column.ranked:
        raise UserError(f"{column.name} ranks nothing (no direction is better), so methods cannot be tested on it.")
    return Measure(
        column.name, column.header, column.higher_is_better, column.unit, column.digits, column.cap, column.signature
    )


def _columns(runs: Sequence[RunData], metrics: Sequence[str] | None) -> list[Column]:
    columns = choose_columns(runs, metrics)
    return columns if metrics is not None else [c for c in columns if c.ranked]
