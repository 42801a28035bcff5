"""Recompute stored items, each alone, and compare: is what a run folder says true on this machine?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrbench.data.items import ItemRef, Progress
from mrbench.data.places import Places, moved
from mrbench.engine.entries import DatasetChoice, Entry, with_weights
from mrbench.engine.restorer import Restorer
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Task, open_task
from mrbench.errors import UserError
from mrbench.hub import find
from mrbench.plugins import Registry
from mrbench.protocol import Protocol
from mrbench.seeds import derive_seed
from mrbench.store.images import read_images
from mrbench.store.manifest import Manifest
from mrbench.store.runs import RunData, load_run

PIXEL_TOLERANCE = 1e-3  # of the [0, 1] range; networks differ by about 4e-6 between batch sizes
TOLERANCES = {"psnr": 0.01}  # dB; other metrics: RELATIVE of the value, at least ABSOLUTE
RELATIVE, ABSOLUTE = 1e-3, 1e-4


@dataclass
class ItemCheck:
    """One recomputed item. ``differences``: column -> |recomputed - stored|."""

    item_id: str
    agrees: bool
    reason: str = ""
    pixel_difference: float | None = None
    differences: dict[str, float] = field(default_factory=dict)


def reopen(manifest: Manifest, registry: Registry, progress: Progress | None = None) -> Task:
    """The task of a stored run, from its manifest.

    Raises
    ------
    UserError : the data set is not there any more, or the rules resolve to another hash with this version of mrbench.
    """
    info = manifest.dataset
    card = registry.datasets.get(info.name)
    options = moved(card, info.options, info.alias, Places.from_environment())
    choice = DatasetChoice(info.alias, card, card.parse(options, info.alias))
    source = manifest.protocol.source
    if not source:
        raise UserError(f"run {manifest.run}: its manifest does not hold the protocol's text, so it cannot be recomputed.")
    task = open_task(choice, Protocol.model_validate(source), registry, progress)
    if task.protocol.hash != manifest.protocol.hash:
        raise UserError(
            f"run {manifest.run}: protocol {manifest.protocol.name} had the hash {manifest.protocol.hash}, and has "
            f"{task.protocol.hash} with this version of mrbench. Recompute with the version in the manifest ({manifest.mrbench})."
        )
    return task


def reopen_entry(manifest: Manifest, registry: Registry) -> Entry:
    """The entry of a stored run (``UserError`` if its method is not installed, or for images made elsewhere)."""
    info = manifest.method
    if info.tier == "files":
        raise UserError(
            f"run {manifest.run}: images made elsewhere cannot be recomputed here. `mrbench score` recomputes their metrics."
        )
    card = registry.methods.get(info.name)
    owner, code = registry.methods.owner(info.name), registry.methods.code(info.name)
    entry = Entry(info.label, card, card.parse(info.options, info.label), None, owner, code)
    if not info.checkpoint:
        return entry
    entry = with_weights(entry, find(card, info.checkpoint_reference or info.checkpoint))
    found = entry.checkpoint.sha256 if entry.checkpoint else "none"
    if found != info.checkpoint_sha256:
        raise UserError(
            f"run {manifest.run}: its weights {info.name}@{info.checkpoint} had the SHA-256 {info.checkpoint_sha256}; those that "
            f"are found now ({info.checkpoint_reference or info.checkpoint}) have {found}."
        )
    return entry


def verify(
    folder: Path,
    count: int,
    registry: Registry,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> list[ItemCheck]:
    """Recompute ``count`` ok items of a run (a seeded choice), each in a batch of its own, and compare.

    Raises
    ------
    UserError : nothing to verify, or the run cannot be recomputed here.
    """
    data = load_run(folder)
    stored = data.rows[data.rows["status"] == "ok"]
    if not len(stored):
        raise UserError(f"{folder}: holds no ok rows to verify.")
    entry = reopen_entry(data.manifest, registry)
    task = reopen(data.manifest, registry)
    ids = sorted(stored["item_id"])
    chosen = sorted(random.Random(derive_seed(data.manifest.key, "verify")).sample(ids, min(count, len(ids))))
    rows = stored.set_index("item_id")
    items = {i.item_id: i for i in task.items}
    restorer = Restorer(entry.card, entry.options, device, data.manifest.precision, entry.checkpoint)
    columns = stored_columns(data)
    names = list(dict.fromkeys(c.metric for k, c in data.manifest.columns.items() if k in columns))
    scorer = Scorer.load(registry, names, metric_options(data.manifest, registry), device)
    checks = []
    for number, item_id in enumerate(chosen):
        checks.append(_check(item_id, items, rows.loc[item_id].to_dict(), task, restorer, scorer, data, columns))
        if progress is not None:
            progress(number + 1, len(chosen))
    return checks


def stored_columns(data: RunData) -> list[str]:
    """Metric columns of a run that its manifest vouches for."""
    return [c for c in data.manifest.columns if c in data.rows.columns]


def metric_options(manifest: Manifest, registry: Registry) -> dict[str, dict[str, Any]]:
    """The options that the stored columns were computed with."""
    known = registry.metrics.names()
    return {c.metric: c.options for c in manifest.columns.values() if c.metric in known}


def _check(
    item_id: str,
    items: Mapping[str, ItemRef],
    row: Mapping[str, Any],
    task: Task,
    restorer: Restorer,
    scorer: Scorer,
    data: RunData,
    columns: Sequence[str],
) -> ItemCheck:
    item = items.get(item_id)
    if item is None:
        return ItemCheck(item_id, False, "the data set does not hold this item any more")
    if item.item_hash != row["item_hash"]:
        return ItemCheck(item_id, False, f"the data changed: content hash {item.item_hash}, stored {row['item_hash']}")
    batch = task.load([item])
    truth = task.ground_truth(batch).to(restorer.device) if restorer.card.control else None
    outcome = restorer.restore(batch.measurement.to(restorer.device), int(row["draws"]), truth)[0]
    if outcome.estimate is None:
        return ItemCheck(item_id, False, f"{outcome.status}: {outcome.error}")
    estimate = outcome.estimate.float().cpu()
    check = ItemCheck(item_id, True)
    images = read_images(data.folder, int(row["shard"]), {item_id}) if data.manifest.images else {}
    if item_id in images:
        check.pixel_difference = float(np.abs(images[item_id] - estimate.numpy()).max())
        if check.pixel_difference > PIXEL_TOLERANCE:
            check.agrees, check.reason = False, f"pixels differ by {check.pixel_difference:.2g}"
    scores = scorer.score(estimate[None], batch.hr, batch.mask, batch.measurement, batch.scales)
    for column in columns:
        if column not in scores or row[column] is None:
            continue
        new, old = scores[column][0], float(row[column])
        same = new == old or (math.isnan(new) and math.isnan(old))
        difference = 0.0 if same else abs(new - old)
        check.differences[column] = difference
        allowed = TOLERANCES.get(data.manifest.columns[column].metric, max(ABSOLUTE, RELATIVE * abs(old)))
        if not difference <= allowed:
            check.agrees = False
            check.reason = check.reason or f"{column}: stored {old:.6g}, recomputed {new:.6g}"
    return check


__all__ = ["ItemCheck", "metric_options", "reopen", "reopen_entry", "stored_columns", "verify"]
