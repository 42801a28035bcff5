"""What runs must share before their numbers may stand side by side, and their rows aligned on the same items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.summary import RunCounts, count_rows
from mrbench.report.text import clean, count, listing

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData

_NEEDED = ("item_id", "item_hash", "status", "subject")


@dataclass(frozen=True)
class AlignedRun:
    """A run on the items of a comparison.

    ``rows`` has one row per item, in the comparison's order (NaN where the run has none), ``ok`` says which are ok.
    ``counts`` are of all items that the run has, in the comparison or not.
    """

    run: RunData
    rows: pd.DataFrame
    ok: NDArray[np.bool_]
    counts: RunCounts
    _read: dict[str, NDArray[np.float64]] = field(default_factory=dict, compare=False, repr=False)

    def values(self, column: str) -> NDArray[np.float64]:
        """A metric column as float64, NaN where the run has no value. Not to be written to: it is read once."""
        if column not in self._read:
            found = self.rows[column].to_numpy(dtype=float, na_value=np.nan) if column in self.rows else np.nan
            self._read[column] = np.where(self.ok, found, np.nan)
        return self._read[column]


@dataclass(frozen=True)
class Comparison:
    """Runs of one protocol and data set, aligned on the same items.

    ``subjects``: names, sorted; ``codes``: per item the index of its subject; ``union``: items that at least one run has.
    """

    runs: tuple[AlignedRun, ...]
    items: tuple[str, ...]
    subjects: tuple[str, ...]
    codes: NDArray[np.intp]
    union: int
    intersect: bool


def names_of(runs: Sequence[RunData]) -> list[str]:
    """What each run is called: its label; with the key where labels coincide, and a number where those do too."""
    labels = [clean(r.label) for r in runs]
    keyed = [f"{n} ({clean(r.manifest.key)})" if labels.count(n) > 1 else n for n, r in zip(labels, runs, strict=True)]
    return [f"{n} #{keyed[: i + 1].count(n)}" if keyed.count(n) > 1 else n for i, n in enumerate(keyed)]


def refuse_mixtures(runs: Sequence[RunData]) -> None:
    """Refuse runs of several data sets or protocols.

    Raises
    ------
    UserError : no runs at all; or what differs, which runs stand where, and how to go on.
    """
    if not runs:
        raise UserError("there are no runs to report on. Make one with `mrbench run`, or name the folder that holds some.")
    names = names_of(runs)
    datasets = _groups((_dataset_of(r), r, n) for r, n in _pairs(runs, names))
    if len(datasets) > 1:
        raise UserError(
            f"the runs are on {len(datasets)} data sets, which do not share a table:\n{_lines(datasets)}\n"
            "Give the runs of one data set for one table."
        )
    refuse_protocols(runs)


def refuse_protocols(runs: Sequence[RunData]) -> None:
    """Refuse runs of several protocols (``UserError`` naming every hash, its protocol, its runs and a folder to give)."""
    groups = _groups((r.manifest.protocol.hash, r, n) for r, n in _pairs(runs, names_of(runs)))
    if len(groups) < 2:
        return
    lines = []
    for digest, members in groups.items():
        protocols = list(dict.fromkeys(clean(r.manifest.protocol.name) for r, _ in members))
        folders = list(dict.fromkeys(str(r.folder.parent) for r, _ in members))
        runs_of = listing([name for _, name in members])
        lines.append(f"  {digest} ({listing(protocols)}): {runs_of}   in {listing(folders, 2)}")
    raise UserError(
        f"the runs follow {len(groups)} protocols, and numbers of different protocols cannot be compared:\n"
        + "\n".join(lines)
        + "\nGive the runs of one protocol, for example the one folder named behind its runs."
    )


def refuse_tiers(runs: Sequence[RunData]) -> None:
    """Refuse demonstration weights beside other weights (``none``, such as bicubic, goes with all; controls do not count)."""
    groups = _groups((r.manifest.method.tier, r, n) for r, n in _pairs(runs, names_of(runs)) if not r.manifest.method.control)
    others = {t: members for t, members in groups.items() if t not in ("none", "demo")}
    if "demo" in groups and others:
        raise UserError(
            "demonstration weights do not stand beside other weights:\n"
            + _lines({"demo": groups["demo"], **others})
            + "\nLeave out the runs with tier demo, or make a table of them alone (methods without weights go with both)."
        )


def compare(runs: Sequence[RunData], intersect: bool = False) -> Comparison:
    """Align runs of one protocol and data set on the same items.

    With ``intersect`` the items are those that every entry (controls apart) restored, with equal content hashes;
    entries without a single ok row take no part in that.

    Raises
    ------
    UserError : several protocols or data sets; no rows; an item twice in a run; without ``intersect`` item sets or
        item contents that differ, saying which runs lack how many; with it, an empty intersection.
    """
    import pandas as pd

    refuse_mixtures(runs)
    names = names_of(runs)
    frames = [_items_of(r, n) for r, n in _pairs(runs, names)]
    union = pd.Index(np.unique(np.concatenate(_distinct([f.index.to_numpy(dtype=object) for f in frames]))), dtype=object)
    if not len(union):
        raise UserError(
            f"the runs have no rows yet ({listing(names)}). Call the same `mrbench run` again: it computes what is missing."
        )
    frames = [f.reindex(union) for f in frames]
    hashes = [f["item_hash"].to_numpy(dtype=object) for f in frames]
    have = [f["status"].notna().to_numpy() for f in frames]
    oks = [(f["status"] == "ok").to_numpy(dtype=bool) for f in frames]
    reference = _first_known(hashes, have)
    conflicts = [h & (own != reference) for h, own in zip(have, hashes, strict=True)]
    subjects = _first_known([f["subject"].to_numpy(dtype=object) for f in frames], have)
    kept = np.ones(len(union), dtype=bool)
    if intersect:
        kept = _intersection(runs, oks, conflicts)
        if not kept.any():
            raise UserError(f"the runs have no item in common that all of them restored:\n{_lacking(names, oks)}")
    else:
        _refuse_unequal(names, union, have, conflicts, hashes, reference)
    counts = [_counts(r, int(h.sum()), int(ok.sum())) for r, h, ok in zip(runs, have, oks, strict=True)]
    aligned = tuple(AlignedRun(r, f[kept], ok[kept], c) for r, f, ok, c in zip(runs, frames, oks, counts, strict=True))
    keys, codes = np.unique(subjects[kept].astype(str), return_inverse=True)
    return Comparison(aligned, tuple(union[kept]), tuple(str(k) for k in keys), codes, len(union), intersect)


def _distinct(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Without those that equal the first, which is the usual case and saves sorting them."""
    return [a for i, a in enumerate(arrays) if i == 0 or not np.array_equal(a, arrays[0])]


def _counts(run: RunData, items: int, ok: int) -> RunCounts:
    found = count_rows(run.rows)
    return RunCounts(items, ok, found.failed, found.skipped)


def _dataset_of(run: RunData) -> str:
    info = run.manifest.dataset
    return clean(f"{info.alias}{'' if info.alias == info.name else f' ({info.name})'} version {info.version}")


def _items_of(run: RunData, name: str) -> pd.DataFrame:
    """The rows of real items by id. Files that could not be read have no content hash and are no items."""
    import pandas as pd

    rows: pd.DataFrame = run.rows
    if any(c not in rows for c in _NEEDED):
        empty: pd.DataFrame = pd.DataFrame(columns=list(_NEEDED)).set_index("item_id")
        return empty
    hashes = rows["item_hash"].fillna("").to_numpy(dtype=object)
    rows = rows[(rows["status"].to_numpy(dtype=object) != "skipped") | (hashes != "")]
    frame: pd.DataFrame = rows.set_index(pd.Index(rows["item_id"].to_numpy(dtype=object), dtype=object))
    if not frame.index.is_unique:
        twice = sorted(set(frame.index[frame.index.duplicated()]))
        raise UserError(
            f"run {name} ({run.folder}) has {count(len(twice), 'item')} twice (first: {twice[0]}). "
            "Its folder holds rows of more than one plan: delete it and run again."
        )
    return frame


def _intersection(
    runs: Sequence[RunData], oks: list[NDArray[np.bool_]], conflicts: list[NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    entries = [i for i, r in enumerate(runs) if not r.manifest.method.control and oks[i].any()]
    entries = entries or [i for i in range(len(runs)) if oks[i].any()]
    if not entries:
        return np.zeros(len(oks[0]), dtype=bool)
    common: NDArray[np.bool_] = np.logical_and.reduce([oks[i] for i in entries])
    clash: NDArray[np.bool_] = np.logical_or.reduce(conflicts)
    return common & ~clash


def _refuse_unequal(
    names: list[str],
    union: pd.Index,
    have: list[NDArray[np.bool_]],
    conflicts: list[NDArray[np.bool_]],
    hashes: list[NDArray[Any]],
    reference: NDArray[Any],
) -> None:
    way_on = (
        "Go on with --intersect, which compares on the items that all runs restored, or finish the runs: "
        "the same `mrbench run` computes what is missing."
    )
    if not all(h.all() for h in have):
        lacking = _lacking(names, have)
        raise UserError(f"the runs do not cover the same items, so their means cannot be compared:\n{lacking}\n{way_on}")
    differing = [i for i, c in enumerate(conflicts) if c.any()]
    if differing:
        lines = []
        for i in differing:
            at = int(np.flatnonzero(conflicts[i])[0])
            lines.append(
                f"  {names[i]}: {count(int(conflicts[i].sum()), 'item')} of other content than in {names[0]} "
                f"(first: {union[at]}, {hashes[i][at]} instead of {reference[at]})"
            )
        raise UserError(
            "items of the same name have different content in these runs, so their numbers cannot be compared:\n"
            + "\n".join(lines)
            + "\nThe data or its preparation changed between the runs: run again, or go on with --intersect, "
            "which leaves these items out."
        )


def _lacking(names: list[str], have: list[NDArray[np.bool_]]) -> str:
    total = have[0].size
    return "\n".join(f"  {n}: lacks {int((~h).sum())} of {count(total, 'item')}" for n, h in zip(names, have, strict=True))


def _first_known(arrays: list[NDArray[Any]], have: list[NDArray[np.bool_]]) -> NDArray[Any]:
    """Per item the value of the first run that has it."""
    result = arrays[0].copy()
    known = have[0].copy()
    for values, present in zip(arrays[1:], have[1:], strict=True):
        fill = present & ~known
        result[fill] = values[fill]
        known |= fill
    return result


def _pairs(runs: Sequence[RunData], names: Sequence[str]) -> Iterable[tuple[RunData, str]]:
    return zip(runs, names, strict=True)


def _groups(members: Iterable[tuple[str, RunData, str]]) -> dict[str, list[tuple[RunData, str]]]:
    found: dict[str, list[tuple[RunData, str]]] = {}
    for key, run, name in members:
        found.setdefault(key, []).append((run, name))
    return found


def _lines(groups: Mapping[str, list[tuple[RunData, str]]]) -> str:
    return "\n".join(f"  {key}: {listing([name for _, name in members])}" for key, members in groups.items())
