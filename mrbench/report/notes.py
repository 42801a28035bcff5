"""The sentences below a board: what a reader must know about its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mrbench.report.board import INCOMPLETE, BoardRow
from mrbench.report.columns import Column
from mrbench.report.comparable import Comparison
from mrbench.report.hardware import Hardware
from mrbench.report.summary import PSNR_CAP, Over
from mrbench.report.text import clean, count, listing, shorten
from mrbench.report.verified import standing, verification_notes

if TYPE_CHECKING:
    from mrbench.store.runs import RunData

_LONGEST_REASON = 300
_MOST_WARNINGS = 5
TUNED = "tuned"  # begins the track of tuned entries


def warnings_of(runs: Sequence[RunData]) -> list[str]:
    """What the data set says about itself (e.g. no subject ids), and a split other than test."""
    found = list(dict.fromkeys(clean(w) for r in runs for w in r.manifest.dataset.warnings))
    parts = {clean(_part_of(r)) for r in runs} - {"test"}
    return found + [f"split: {part} (not test)" for part in sorted(parts)]


def _part_of(run: RunData) -> str:
    split = run.manifest.protocol.rules.get("split")
    return str(split.get("part", "test")) if isinstance(split, Mapping) else "test"


def footnotes_of(
    comparison: Comparison,
    rows: Sequence[BoardRow],
    columns: Sequence[Column],
    over: Over,
    hardware: Mapping[Hardware, Sequence[int]],
    shown: bool,
) -> list[str]:
    """All footnotes, in reading order. ``rows`` are in the order of the comparison's runs."""
    notes = _coverage(comparison, rows)
    notes += _failures(rows, comparison.intersect)
    notes += [n for c in columns for n in _column_notes(c, rows)]
    notes += _not_available(comparison, rows, columns, shown)
    if any(c.name.endswith("@best") for c in columns):
        notes.append("@best is the best of all draws by the metric itself, and is never ranked.")
    draws = {r.draws for r in rows if r.draws > 1}
    if draws:
        per_run = listing([f"{r.name}: {r.draws}" for r in rows if r.draws > 1])
        notes.append(
            f"plain columns are draw 1 of each method (those with K in their signature: all draws), @mean the mean of its draws ({per_run})."
        )
    if any(r.control for r in rows):
        notes.append("controls stand below the line and are never ranked.")
    notes += cost_notes_of(comparison, rows, hardware)
    notes += _tracks(comparison, rows)
    notes += _training(comparison, rows)
    notes += verification_notes([(r.name, standing(a.run)) for a, r in zip(comparison.runs, rows, strict=True)])
    notes += _row_warnings(comparison, rows)
    return notes


def cost_notes_of(comparison: Comparison, rows: Sequence[BoardRow], hardware: Mapping[Hardware, Sequence[int]]) -> list[str]:
    """The footnotes about times, memory and parameters."""
    return [*_times(rows, hardware), *_memory(comparison, rows, hardware), *_parameters(rows)]


def _coverage(comparison: Comparison, rows: Sequence[BoardRow]) -> list[str]:
    notes = []
    n = len(comparison.items)
    if comparison.intersect:
        total = count(comparison.union, "item")
        notes.append(f"intersection: {n} of {total}, those that every entry restored with equal content.")
    task = max(a.run.manifest.items for a in comparison.runs)
    if comparison.union < task:
        notes.append(f"partial: {comparison.union} of the {count(task, 'item')} of the task.")
    tasks = list(dict.fromkeys(a.run.manifest.task_hash for a in comparison.runs))
    if len(tasks) > 1:
        pairs = list(zip(rows, comparison.runs, strict=True))
        by_task = [f"{t}: {listing([r.name for r, a in pairs if a.run.manifest.task_hash == t])}" for t in tasks]
        notes.append(
            f"the data set held other items when some of the runs were made (task {'; '.join(by_task)}); "
            "the items compared here are equal."
        )
    return notes


def _failures(rows: Sequence[BoardRow], intersect: bool) -> list[str]:
    notes = []
    failed = [f"{r.name}: {r.failed} of {r.items}" for r in rows if r.failed]
    if failed:
        notes.append(f"failed, and not in the means: {listing(failed)}.")
    skipped = [f"{r.name}: {r.skipped}" for r in rows if r.skipped]
    if skipped:
        notes.append(f"skipped (unusable files, or images that the method does not take): {listing(skipped)}.")
    if any(c.incomplete for r in rows for c in r.cells.values()):
        way_on = "" if intersect else "; --intersect compares on the items that all restored"
        notes.append(f"{INCOMPLETE} mean over fewer items than others have, and therefore not ranked{way_on}.")
    return notes


def _column_notes(column: Column, rows: Sequence[BoardRow]) -> list[str]:
    found = [(r, a) for r in rows if (a := r.cells[column.name].aggregate)]
    notes = []
    capped = [f"{r.name}: {a.capped}" for r, a in found if a.capped]
    if capped:
        infinite = sum(a.inf for _, a in found)
        what = "infinite values (estimate and ground truth are identical)" if infinite else "values above it"
        notes.append(f"{column.header}: {what} enter means as {PSNR_CAP:g} dB ({listing(capped)}).")
    elif any(a.inf for _, a in found):
        listed = listing([f"{r.name}: {a.inf}" for r, a in found if a.inf])
        notes.append(f"{column.header}: infinite on some slices ({listed}); such a mean is infinite and not ranked.")
    missing = [f"{r.name}: {a.nan}" for r, a in found if a.nan]
    if missing:
        notes.append(f"{column.header}: no value on some slices, which are left out of its mean ({listing(missing)}).")
    return notes


def _not_available(comparison: Comparison, rows: Sequence[BoardRow], columns: Sequence[Column], shown: bool) -> list[str]:
    """One sentence per reason; columns and metrics that no run could compute are named as left out."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for column in columns:
        for row in rows:
            cell = row.cells[column.name]
            if cell.aggregate is None and row.ok:
                by_reason.setdefault(cell.reason, {}).setdefault(column.header, []).append(row.name)
    notes = []
    for reason, cells in by_reason.items():
        who = list(dict.fromkeys(n for names in cells.values() for n in names))
        notes.append(f"n/a in {listing(list(cells))} for {listing(who)}: {shorten(reason, _LONGEST_REASON)}.")
    if not shown:
        return notes
    left_out: dict[str, list[str]] = {}
    on_board = {c.name for c in columns} | {c.metric for c in columns}
    for a in comparison.runs:
        for name, reason in a.run.manifest.unavailable.items():
            if name not in on_board:
                left_out.setdefault(clean(reason), []).append(clean(name))
    for reason, names in left_out.items():
        notes.append(f"left out: {listing(list(dict.fromkeys(names)))}: {shorten(reason, _LONGEST_REASON)}.")
    return notes


def _times(rows: Sequence[BoardRow], hardware: Mapping[Hardware, Sequence[int]]) -> list[str]:
    if len(hardware) == 1 and any(r.seconds is not None for r in rows):
        return [f"seconds per slice, of the method alone: {next(iter(hardware))}."]
    if len(hardware) > 1:
        runs_of = {what: listing(list(dict.fromkeys(rows[i].name for i in who)), 3) for what, who in hardware.items()}
        kinds = "; ".join(f"{names}: {what}" for what, names in runs_of.items())
        return [f"seconds per slice are left out, as they were not measured under equal conditions ({kinds})."]
    return []


def _memory(comparison: Comparison, rows: Sequence[BoardRow], hardware: Mapping[Hardware, Sequence[int]]) -> list[str]:
    """What the peaks of memory were measured with: they grow with the batch."""
    known = [(a, r) for a, r in zip(comparison.runs, rows, strict=True) if r.memory is not None]
    if not known or len(hardware) != 1:
        return []
    batches = {r.name: int(a.rows["batch"].max()) for a, r in known if "batch" in a.rows and a.rows["batch"].notna().any()}
    sizes = sorted(set(batches.values()))
    if len(sizes) < 2:
        return [
            f"memory: largest peak of the device, with batches of {count(sizes[0], 'slice')}."
            if sizes
            else "memory: largest peak."
        ]
    listed = listing([f"{name}: {n}" for name, n in batches.items()])
    return [f"memory: largest peak of the device, which grows with the batch; batches were not alike ({listed})."]


def _parameters(rows: Sequence[BoardRow]) -> list[str]:
    """Networks of which the run does not say how large they are."""
    unknown = [r.name for r in rows if r.parameters is None and r.nfe is not None]
    if not unknown or all(r.parameters is None for r in rows):
        return []
    return [f"parameters are not recorded for {listing(unknown)}; the same `mrbench run` once more records them."]


def _training(comparison: Comparison, rows: Sequence[BoardRow]) -> list[str]:
    """Weights of which nobody says whom they were trained on; those trained on the subjects tested say so in their rows."""
    unknown = [r.name for a, r in zip(comparison.runs, rows, strict=True) if a.run.manifest.method.training == "unknown"]
    return [f"training subjects unknown, so some of those tested may be among them: {listing(unknown)}."] if unknown else []


def _tracks(comparison: Comparison, rows: Sequence[BoardRow]) -> list[str]:
    """What the tracks mean, where some entry was tuned, and on what it was."""
    tuned = [
        (a.run.manifest.method.tuning or {}, r) for a, r in zip(comparison.runs, rows, strict=True) if r.track.startswith(TUNED)
    ]
    if not tuned:
        return []
    notes = [
        "track: how a method's options came about. default: as it ships; set: by hand; tuned(N): the best of N trials on "
        "validation subjects, none of them tested here unless a note says so."
    ]
    for how, row in tuned:
        datasets = how.get("datasets")
        where = f" on {listing([clean(d) for d in datasets])}" if isinstance(datasets, list) else ""
        people = f" ({count(n, 'subject')})" if isinstance(n := how.get("subjects"), int) else ""
        notes.append(f"{row.name}: {row.track} by {clean(how.get('objective', 'an unknown objective'))}{where}{people}.")
    if len({r.track for _, r in tuned}) > 1:
        notes.append("entries were tuned with different numbers of trials, which favours those with more.")
    return notes


def _row_warnings(comparison: Comparison, rows: Sequence[BoardRow]) -> list[str]:
    """Warnings stored in the rows, each once per run with the number of slices it concerns."""
    notes = []
    for a, row in zip(comparison.runs, rows, strict=True):
        if "warning" not in a.rows:
            continue
        said = a.rows["warning"]
        told = (said.notna() & (said != "")).to_numpy(dtype=bool) & a.ok
        kinds = Counter(map(str, said[told])).most_common()
        for text, n in kinds[:_MOST_WARNINGS]:
            notes.append(f"{row.name}: {shorten(clean(text), _LONGEST_REASON)} ({n} of {count(int(a.ok.sum()), 'slice')}).")
        if len(kinds) > _MOST_WARNINGS:
            notes.append(f"{row.name}: {len(kinds) - _MOST_WARNINGS} more kinds of warnings in its rows.")
    return notes
