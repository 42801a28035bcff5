"""Aggregates of one run: means, standard deviations and counts of its metric columns, over its ok rows.

Infinite PSNR (identical images) enters means as 100 dB, and so does any PSNR above that; both are counted. NaN (a
metric without a value on a slice) is left out of the mean and counted. Infinite values of other metrics make the
mean infinite, which is never ranked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mrbench.report.text import clean

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mrbench.store.manifest import ColumnInfo, Manifest
    from mrbench.store.runs import RunData

Over = Literal["slices", "subjects"]

PSNR_CAP = 100.0  # dB; the store keeps inf
FAILED = ("failed", "oom")


@dataclass(frozen=True)
class Aggregate:
    """One metric column of one run.

    ``mean``, ``sd`` (ddof = 1; ``None`` for a single value or an infinite mean) and ``median`` are taken over ``n``
    slices, or with ``over="subjects"`` over ``n`` subject means. ``nan``: slices without a value; ``inf``: infinite
    ones; ``capped``: those that entered as 100 dB.
    """

    mean: float
    sd: float | None
    median: float
    n: int
    n_subjects: int
    nan: int = 0
    inf: int = 0
    capped: int = 0

    def document(self) -> dict[str, Any]:
        """``{"mean", "sd", "n"}``, finite or null, with ``nan`` and ``inf`` counts where there are some."""
        found: dict[str, Any] = {"mean": _finite(self.mean), "sd": self.sd, "n": self.n}
        found |= {"nan": self.nan} if self.nan else {}
        found |= {"inf": self.inf} if self.inf else {}
        return found


@dataclass(frozen=True)
class RunCounts:
    """How many items a run has, by outcome. Out-of-memory counts as failed."""

    items: int
    ok: int
    failed: int
    skipped: int


def cap_of(column: ColumnInfo) -> float | None:
    """The value above which a column is cut before averaging: 100 for PSNR in dB, else none."""
    return PSNR_CAP if column.metric == "psnr" or column.unit == "dB" else None


def aggregate(
    values: NDArray[np.float64], subjects: NDArray[Any], over: Over = "slices", cap: float | None = None
) -> Aggregate | None:
    """Aggregate the values of ok rows.

    Parameters
    ----------
    values : ``[n]``, NaN where a slice has no value.
    subjects : ``[n]``, the subject of each slice, any comparable key.
    over : the unit of mean, sd and n.
    cap : values above it (``inf`` included) enter as it.

    Returns ``None`` where no slice has a value.
    """
    known = ~np.isnan(values)
    kept = values[known]
    if not kept.size:
        return None
    infinite = int(np.isinf(kept).sum())
    capped = 0
    if cap is not None:
        capped = int((kept > cap).sum())
        kept = np.minimum(kept, cap)
    keys, codes = np.unique(subjects[known], return_inverse=True)
    if over == "subjects":
        kept = np.bincount(codes, kept) / np.bincount(codes)
    finite = bool(np.isfinite(kept).all())
    with np.errstate(invalid="ignore"):
        mean = float(kept.mean())
        median = float(np.median(kept))
    sd = float(kept.std(ddof=1)) if finite and kept.size > 1 else None
    missing = int(values.size - known.sum())
    return Aggregate(mean, sd, median, int(kept.size), len(keys), missing, infinite, capped)


def count_rows(rows: pd.DataFrame) -> RunCounts:
    """Count rows by status."""
    if "status" not in rows:
        return RunCounts(0, 0, 0, 0)
    by = rows["status"].value_counts().to_dict()
    return RunCounts(len(rows), by.get("ok", 0), sum(by.get(s, 0) for s in FAILED), by.get("skipped", 0))


def reason_for(manifest: Manifest, column: str, ok: int) -> str:
    """Why a run has no value in a column."""
    base, _, of = column.partition("@")
    stem = base.removesuffix("_fg")
    for key in (column, base, stem):
        if key in manifest.unavailable:
            return clean(manifest.unavailable[key])
    if not ok:
        return "no item succeeded"
    if of and manifest.draws == 1:
        return "one draw only"
    if column not in manifest.columns:
        return "not computed for this run; `mrbench score` adds columns to runs with stored images"
    return "no item has a value"


def mean_of(rows: pd.DataFrame, column: str) -> float | None:
    """The mean of a fixed numeric column over rows that have it, or ``None``."""
    if column not in rows:
        return None
    values = rows[column].to_numpy(dtype=float, na_value=np.nan)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def largest_of(rows: pd.DataFrame, column: str) -> float | None:
    """The largest value of a fixed numeric column, or ``None`` where no row has one."""
    if column not in rows:
        return None
    values = rows[column].to_numpy(dtype=float, na_value=np.nan)
    values = values[np.isfinite(values)]
    return float(values.max()) if values.size else None


def summarize(run: RunData, over: Over = "slices") -> dict[str, Aggregate]:
    """The aggregates of all metric columns that have values, in the manifest's order."""
    rows = run.rows
    if "status" not in rows:
        return {}
    ok = rows[rows["status"] == "ok"].sort_values("item_id")
    subjects = ok["subject"].to_numpy(dtype=object)
    found: dict[str, Aggregate] = {}
    for name, info in run.manifest.columns.items():
        if name in ok:
            result = aggregate(ok[name].to_numpy(dtype=float, na_value=np.nan), subjects, over, cap_of(info))
            if result is not None:
                found[name] = result
    return found


def summary_document(run: RunData, over: Over = "slices") -> dict[str, Any]:
    """What ``mrbench run`` and ``mrbench show`` print of a run with ``--json``; every number finite or null."""
    manifest, rows = run.manifest, run.rows
    counts = count_rows(rows)
    ok = rows[rows["status"] == "ok"] if counts.items else rows
    metrics = summarize(run, over)
    missing = [c for c in (*manifest.columns, *manifest.unavailable) if c not in metrics]
    return {
        "run": manifest.run,
        "label": manifest.method.label,
        "method": manifest.method.name,
        "tier": manifest.method.tier,
        "dataset": manifest.dataset.alias,
        "protocol": manifest.protocol.name,
        "protocol_hash": manifest.protocol.hash,
        "items": counts.items,
        "ok": counts.ok,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "n_subjects": int(ok["subject"].nunique()) if counts.ok else 0,
        "metrics": {name: a.document() for name, a in metrics.items()},
        "seconds_per_item": mean_of(ok, "seconds"),
        "nfe": _whole(mean_of(ok, "nfe")),
        "unavailable": {c: reason_for(manifest, c, counts.ok) for c in dict.fromkeys(missing)},
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value
