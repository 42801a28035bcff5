"""Recompute stored items, each alone, and compare: is what a run folder says true on this machine?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrbench.data.items import Progress
from mrbench.data.places import Places, moved
from mrbench.engine.entries import DatasetChoice, Entry, parse_given, with_weights
from mrbench.engine.restorer import Restorer
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Batch, Task, open_task
from mrbench.errors import UserError
from mrbench.hub import find
from mrbench.plugins import Registry
from mrbench.protocol import parse_protocol
from mrbench.seeds import derive_seed
from mrbench.store.images import read_images
from mrbench.store.manifest import DatasetInfo, Manifest, ProtocolInfo
from mrbench.store.runs import RunData, load_run

if TYPE_CHECKING:
    import pandas as pd

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


def reopen(
    manifest: Manifest, registry: Registry, progress: Progress | None = None, given: Mapping[str, Any] | None = None
) -> Task:
    """The task of a stored run, from its manifest.

    Parameters
    ----------
    given : options of the data set that hold here instead of the recorded ones, such as its folder.

    Raises
    ------
    UserError : the data set is not there any more, or the rules resolve to another hash with this version of mrbench.
    """
    what = f"run {manifest.run}"
    return reopen_task(what, manifest.dataset, manifest.protocol, manifest.mrbench, registry, progress, given)


def reopen_task(
    what: str,
    info: DatasetInfo,
    rules: ProtocolInfo,
    version: str,
    registry: Registry,
    progress: Progress | None = None,
    given: Mapping[str, Any] | None = None,
) -> Task:
    """A task from what was recorded of its data set and its protocol; raises as :func:`reopen` does.

    Parameters
    ----------
    what : how errors name the record. version : of mrbench, with which it was made.
    """
    card = registry.datasets.get(info.name)
    places = Places.from_environment()
    options = {**moved(card, info.options, info.alias, places), **(given or {})}
    if card.path_options and not options.get(card.path_options[0]):  # records for others name no places
        known = places.all()
        place = next((p for p in (known.get(info.alias), known.get(card.name)) if p and p.dataset == card.name), None)
        options |= {k: v for k, v in (place.options if place else {}).items() if k in card.path_options}
    choice = DatasetChoice(info.alias, card, parse_given(card, options, info.alias))
    if not rules.source:
        raise UserError(f"{what}: it does not hold the protocol's text, so it cannot be recomputed.")
    task = open_task(choice, parse_protocol(rules.source, f"{what}: protocol {rules.name}"), registry, progress)
    if task.protocol.hash != rules.hash:
        raise UserError(
            f"{what}: protocol {rules.name} had the hash {rules.hash}, and has {task.protocol.hash} with this version of mrbench. "
            f"Recompute with the version that it was made with ({version})."
        )
    return task


def reopen_entry(manifest: Manifest, registry: Registry, checkpoint: str = "") -> Entry:
    """The entry of a stored run.

    Parameters
    ----------
    checkpoint : where its weights are found instead of where the manifest says (a name, a path, ``hf://``); they must be the same.

    Raises
    ------
    UserError : its method is not installed, the weights are not there or others, or the images were made elsewhere.
    """
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
    reference = checkpoint or info.checkpoint_reference or info.checkpoint
    entry = with_weights(entry, find(card, reference))
    found = entry.checkpoint.sha256 if entry.checkpoint else "none"
    if found != info.checkpoint_sha256:
        raise UserError(
            f"run {manifest.run}: its weights {info.name}@{info.checkpoint} had the SHA-256 {info.checkpoint_sha256}; those that "
            f"are found now ({reference}) have {found}."
        )
    return entry


@dataclass
class Recomputation:
    """A stored run with all that computes its items again."""

    data: RunData
    entry: Entry
    task: Task
    restorer: Restorer
    scorer: Scorer
    columns: list[str]

    @classmethod
    def open(cls, data: RunData, entry: Entry, task: Task, registry: Registry, device: torch.device) -> Recomputation:
        """Load the method and the metrics of the stored columns."""
        restorer = Restorer(entry.card, entry.options, device, data.manifest.precision, entry.checkpoint)
        columns = stored_columns(data)
        names = list(dict.fromkeys(c.metric for k, c in data.manifest.columns.items() if k in columns))
        scorer = Scorer.load(registry, names, metric_options(data.manifest, registry), device)
        return cls(data, entry, task, restorer, scorer, columns)

    def __post_init__(self) -> None:
        self._rows = self.ok_rows.set_index("item_id")
        self._items = {i.item_id: i for i in self.task.items}
        self.latest: NDArray[np.float32] | None = None  # what the latest check restored, [K, C, H, W]

    @property
    def ok_rows(self) -> pd.DataFrame:
        """The rows that can be recomputed."""
        return self.data.rows[self.data.rows["status"] == "ok"]

    def row(self, item_id: str) -> dict[str, Any]:
        """The stored row of an ok item."""
        return {str(k): v for k, v in self._rows.loc[item_id].items()}

    def check(self, item_id: str) -> ItemCheck:
        """Recompute one ok item alone and compare pixels, if its image is stored, and metrics."""
        row, item, self.latest = self.row(item_id), self._items.get(item_id), None
        if item is None:
            return ItemCheck(item_id, False, "the data set does not hold this item any more")
        if item.item_hash != row["item_hash"]:
            return ItemCheck(item_id, False, f"the data changed: content hash {item.item_hash}, stored {row['item_hash']}")
        batch = self.task.load([item])
        truth = self.task.ground_truth(batch).to(self.restorer.device) if self.restorer.card.control else None
        outcome = self.restorer.restore(batch.measurement.to(self.restorer.device), int(row["draws"]), truth)[0]
        if outcome.estimate is None:
            return ItemCheck(item_id, False, f"{outcome.status}: {outcome.error}")
        estimate = outcome.estimate.float().cpu()
        check, self.latest = ItemCheck(item_id, True), estimate.numpy()
        stored = self.stored_image(item_id)
        if stored is not None:
            same_shape = stored.shape == tuple(estimate.shape)
            check.pixel_difference = float(np.abs(stored - estimate.numpy()).max()) if same_shape else math.inf
            if not check.pixel_difference <= PIXEL_TOLERANCE:
                check.agrees, check.reason = False, f"pixels differ by {check.pixel_difference:.2g}"
        self._compare(check, row, batch, estimate)
        return check

    def stored_image(self, item_id: str) -> NDArray[np.float32] | None:
        """The stored estimate ``[K, C, H, W]`` of an ok item, if there is one."""
        if not self.data.manifest.images:
            return None
        return read_images(self.data.folder, int(self.row(item_id)["shard"]), {item_id}).get(item_id)

    def rescore(self, item_id: str) -> ItemCheck:
        """Compute the metrics of a stored image again, without the method."""
        image, item = self.stored_image(item_id), self._items[item_id]
        if image is None:
            return ItemCheck(item_id, False, "no image is stored")
        batch, check = self.task.load([item]), ItemCheck(item_id, True)
        if image.shape != (int(self.row(item_id)["draws"]), *item.shape) or not np.isfinite(image).all():
            return ItemCheck(item_id, False, f"its stored image of shape {list(image.shape)} is none of this item")
        self._compare(check, self.row(item_id), batch, torch.from_numpy(image))
        return check

    def _compare(self, check: ItemCheck, row: Mapping[str, Any], batch: Batch, estimate: torch.Tensor) -> None:
        """Enter the differences of all metrics that can be computed here."""
        scores = self.scorer.score(estimate[None], batch.hr, batch.mask, batch.measurement, batch.scales)
        for column in self.columns:
            if column not in scores or row[column] is None:
                continue
            new, old = scores[column][0], float(row[column])
            same = new == old or (math.isnan(new) and math.isnan(old))
            difference = 0.0 if same else abs(new - old)
            check.differences[column] = difference
            allowed = TOLERANCES.get(self.data.manifest.columns[column].metric, max(ABSOLUTE, RELATIVE * abs(old)))
            if not difference <= allowed:
                check.agrees = False
                check.reason = check.reason or f"{column}: stored {old:.6g}, recomputed {new:.6g}"


def verify(
    folder: Path,
    count: int,
    registry: Registry,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str = "",
    given: Mapping[str, Any] | None = None,
) -> list[ItemCheck]:
    """Recompute ``count`` ok items of a run (a seeded choice), each in a batch of its own, and compare.

    Parameters
    ----------
    checkpoint, given : see :func:`reopen_entry` and :func:`reopen`.

    Raises
    ------
    UserError : nothing to verify, or the run cannot be recomputed here.
    """
    data = load_run(folder)
    stored = data.rows[data.rows["status"] == "ok"]
    if not len(stored):
        raise UserError(f"{folder}: holds no ok rows to verify.")
    entry = reopen_entry(data.manifest, registry, checkpoint)
    task = reopen(data.manifest, registry, given=given)
    ids = sorted(stored["item_id"])
    chosen = sorted(random.Random(derive_seed(data.manifest.key, "verify")).sample(ids, min(count, len(ids))))
    work = Recomputation.open(data, entry, task, registry, device)
    checks = []
    for number, item_id in enumerate(chosen):
        checks.append(work.check(item_id))
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


__all__ = [
    "ItemCheck",
    "Recomputation",
    "metric_options",
    "reopen",
    "reopen_entry",
    "reopen_task",
    "stored_columns",
    "verify",
]
