"""How long the combinations of a sweep will take, from the rows of past runs on this hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from mrbench.engine.entries import Entry
from mrbench.engine.environment import device_name, processor
from mrbench.engine.folders import Conditions
from mrbench.engine.sweep import Planned
from mrbench.errors import UserError
from mrbench.store.images import read_images
from mrbench.store.manifest import Manifest
from mrbench.store.runs import CorruptPart, RunFolder, find_runs

COLUMNS = ("item_id", "status", "seconds", "shard")


@dataclass(frozen=True)
class Estimate:
    """Seconds of the method's own work for the items that are left (loading and metrics come on top), and what it rests on."""

    seconds: float
    basis: str


@dataclass(frozen=True)
class _Past:
    manifest: Manifest
    items: int
    seconds: float  # mean per item
    per_pixel: float | None  # mean per HR pixel; None: sizes not known


def estimate(planned: Sequence[Planned], out: Path) -> dict[int, Estimate]:
    """Estimates by number, for the open combinations that past runs below ``out`` say something about.

    Taken are, first, rows of the same method, options, weights, protocol, draws and data set; else rows of the same method (of the
    same options, if there are any), scaled by pixels and draws. Only rows of the same device, processor, precision and threads count.
    """
    waiting = [p for p in planned if p.open and p.entry is not None and p.runner is not None]
    if not waiting:
        return {}
    sizes = {i.item_id: i.shape[1] * i.shape[2] for p in waiting if p.runner for i in p.runner.task.items}
    past = _past(out, {p.entry.card.name for p in waiting if p.entry}, sizes)
    found = {}
    for one in waiting:
        entry, runner = one.entry, one.runner
        if entry is None or runner is None:
            continue
        fitting = [
            p for p in past if p.manifest.method.name == entry.card.name and _same_hardware(p.manifest, runner.conditions)
        ]
        guess = _guess(one, entry, runner.conditions, fitting)
        if guess is not None:
            found[one.number] = guess
    return found


def _guess(one: Planned, entry: Entry, conditions: Conditions, past: Sequence[_Past]) -> Estimate | None:
    runner = one.runner
    if runner is None:
        return None
    left, draws = len(runner.chosen) - one.done, conditions.draws_of(entry)
    alike = [p for p in past if _same_entry(p.manifest, entry)]
    exact = [
        p
        for p in alike
        if p.manifest.draws == draws
        and p.manifest.protocol.hash == runner.task.protocol.hash
        and p.manifest.dataset.name == runner.task.choice.card.name
    ]
    if exact:
        count = sum(p.items for p in exact)
        return Estimate(left * sum(p.seconds * p.items for p in exact) / count, f"{count} slices of the same")
    sized = [p for p in alike if p.per_pixel is not None] or [p for p in past if p.per_pixel is not None]
    if not sized:
        return None
    pixels = fmean(i.shape[1] * i.shape[2] for i in runner.chosen)
    count = sum(p.items for p in sized)
    per_pixel = sum((p.per_pixel or 0.0) / p.manifest.draws * p.items for p in sized) / count
    options = "" if sized[0] in alike else " with other options"
    return Estimate(left * pixels * per_pixel * draws, f"{count} slices of {entry.card.name}{options}, scaled by pixels")


def _same_entry(manifest: Manifest, entry: Entry) -> bool:
    sha = entry.checkpoint.sha256 if entry.checkpoint else ""
    return manifest.method.options == entry.options.model_dump(mode="json") and manifest.method.checkpoint_sha256 == sha


def _same_hardware(manifest: Manifest, conditions: Conditions) -> bool:
    return (
        manifest.device == device_name(conditions.device)
        and manifest.environment.get("processor") == processor()
        and manifest.precision == conditions.precision
        and manifest.threads == conditions.threads
    )


def _past(out: Path, methods: set[str], sizes: Mapping[str, int]) -> list[_Past]:
    """What the run folders of some methods say; those that cannot be read say nothing."""
    try:
        folders = find_runs([out])
    except UserError:
        return []
    found = []
    for path in folders:
        folder = RunFolder(path)
        try:
            manifest = folder.manifest()
            if manifest.method.name not in methods:
                continue
            rows = folder.rows(COLUMNS)
        except (UserError, CorruptPart):
            continue
        rows = rows[(rows["status"] == "ok") & rows["seconds"].notna()]
        if rows.empty:
            continue
        known = {i: sizes[i] for i in rows["item_id"] if i in sizes} or _stored_size(
            path, list(rows["item_id"]), int(rows["shard"].iloc[0])
        )
        timed = [(s, known[i]) for i, s in zip(rows["item_id"], rows["seconds"], strict=True) if i in known]
        per_pixel = sum(s for s, _ in timed) / sum(n for _, n in timed) if timed else None
        found.append(_Past(manifest, len(rows), float(rows["seconds"].mean()), per_pixel))
    return found


def _stored_size(path: Path, items: Sequence[str], shard: int) -> dict[str, int]:
    """Pixels of the items of one shard whose restored images are stored."""
    try:
        images = read_images(path, shard)
    except UserError:
        return {}
    return {name: image.shape[-1] * image.shape[-2] for name, image in images.items() if name in set(items)}
