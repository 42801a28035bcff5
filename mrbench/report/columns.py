"""Which metric columns a report shows, in which order, and whether runs may share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.summary import cap_of
from mrbench.report.text import clean, listing

if TYPE_CHECKING:
    from mrbench.store.manifest import ColumnInfo
    from mrbench.store.runs import RunData

ORDER = (
    "psnr",
    "ssim",
    "ms_ssim",
    "gmsd",
    "nmse",
    "haarpsi",
    "lpips",
    "data_consistency",
    "crps",
    "energy_score",
    "nll",
    "nll_miss",
    "nll_kde",
    "nll_gauss",
    "coverage50",
    "coverage80",
    "coverage90",
    "spread_skill",
)
_KINDS = {"": 0, "mean": 1, "best": 2}


@dataclass(frozen=True)
class Column:
    """A metric column as reports print it. ``higher_is_better`` is ``None`` where no run could compute it, and for columns that rank nothing."""

    name: str
    header: str
    metric: str = ""
    higher_is_better: bool | None = None
    digits: int = 4
    unit: str = ""
    signature: str = ""
    ranked: bool = False
    cap: float | None = None

    @property
    def arrow(self) -> str:
        """The direction of better values: ``↑``, ``↓`` or nothing."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


def sort_key(name: str) -> tuple[int, int, str, bool]:
    """Draw 1 before ``@mean`` before ``@best``; known metrics in ``ORDER``, others by name; whole frame before ``_fg``."""
    base, _, of = name.partition("@")
    stem = base.removesuffix("_fg")
    family = "lpips" if stem.startswith("lpips") else stem
    position = ORDER.index(family) if family in ORDER else len(ORDER)
    return _KINDS.get(of, len(_KINDS)), position, stem, base != stem


def choose_columns(runs: Sequence[RunData], metrics: Sequence[str] | None = None) -> list[Column]:
    """The columns to show: ``metrics`` in that order, or all that some run has, in the default order.

    ``@mean`` and ``@best`` are shown by default only where some run has several draws.

    Raises
    ------
    UserError : an unknown column, or two signatures in one column.
    """
    known: dict[str, list[tuple[RunData, ColumnInfo]]] = {}
    for run in runs:
        for name, info in run.manifest.columns.items():
            known.setdefault(name, []).append((run, info))
    if metrics is None:
        several = any(r.manifest.draws > 1 for r in runs)
        names = sorted((n for n in known if several or "@" not in n), key=sort_key)
    else:
        names = list(dict.fromkeys(metrics))
        failed = {u for r in runs for u in r.manifest.unavailable}
        for name in names:
            if name not in known and name not in failed:
                everything = sorted(known, key=sort_key)
                raise UserError(
                    f"no run has a metric column {name!r}.{did_you_mean(name, everything)} "
                    f"Columns: {', '.join(everything) or 'none'}."
                )
    return _with_headers([_column(name, known.get(name, [])) for name in names])


def _column(name: str, found: list[tuple[RunData, ColumnInfo]]) -> Column:
    if not found:
        return Column(name, name)
    by_signature: dict[str, list[str]] = {}
    for run, info in found:
        by_signature.setdefault(info.signature, []).append(run.label)
    if len(by_signature) > 1:
        lines = "\n".join(f"  {s}: {listing(labels)}" for s, labels in by_signature.items())
        raise UserError(
            f"column {name} holds numbers of {len(by_signature)} different definitions, which cannot be compared:\n{lines}\n"
            "Bring the runs to one definition (`mrbench score` recomputes metrics from stored images), leave some of the runs "
            "out, or name other columns with --metrics."
        )
    info = found[0][1]
    return Column(
        name=name,
        header=_header(name, info),
        metric=info.metric,
        higher_is_better=info.higher_is_better if info.ranked or name.endswith("@best") else None,
        digits=info.digits,
        unit=clean(info.unit),
        signature=clean(info.signature),
        ranked=all(i.ranked for _, i in found) and not name.endswith("@best"),
        cap=cap_of(info),
    )


def _header(name: str, info: ColumnInfo) -> str:
    title = clean(info.title)
    if not title or not name.startswith(info.metric):
        return clean(name)
    base, at, of = name[len(info.metric) :].partition("@")
    return title + (" fg" if base == "_fg" else base.replace("_", " ")) + at + of


def _with_headers(columns: list[Column]) -> list[Column]:
    """Columns whose titles coincide are headed by their names."""
    headers = [c.header for c in columns]
    return [replace(c, header=c.name) if headers.count(c.header) > 1 else c for c in columns]
