"""Restored slices put back together: volumes of a stored run, and how well neighbouring slices fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrbench.data.items import ItemRef
from mrbench.engine.imagefiles import few
from mrbench.engine.task import Task
from mrbench.errors import UserError
from mrbench.metrics.base import to_image
from mrbench.metrics.interslice import Consistency, consistency, signature
from mrbench.store.images import read_images
from mrbench.store.runs import RunData

Of = Literal["draw1", "mean"]


@dataclass(frozen=True)
class StoredVolume:
    """The slices of one volume in a run.

    name : ``data set/subject/volume``, percent-encoded. items : the longest run of neighbouring slices that the protocol measures, by
    position. apart : number of measured slices beyond it (near the ends of a volume, the foreground rule may leave single slices
    standing). shards : item id -> shard of those that are restored. gaps : items that are not, by position.
    """

    name: str
    items: tuple[ItemRef, ...]
    apart: int
    shards: dict[str, int]
    gaps: dict[int, str]

    @property
    def subject(self) -> str:
        """As the data set names it."""
        return self.items[0].subject

    @property
    def volume(self) -> str:
        """As the data set names it."""
        return self.items[0].volume

    @property
    def span(self) -> tuple[int, int]:
        """Positions of the first and last slice."""
        return self.items[0].index, self.items[-1].index

    @property
    def complete(self) -> bool:
        """Whether all slices from the first to the last are restored."""
        return not self.gaps


@dataclass(frozen=True, eq=False)
class Reassembled:
    """A restored volume on the range of the ground truth.

    source : its slices. estimates : ``[K, C, S, H, W]`` float32, unclipped, NaN where a slice is missing. truth : ``[C, S, H, W]``.
    mask : ``[S, H, W]`` bool.
    """

    source: StoredVolume
    estimates: NDArray[np.float32]
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def images(self) -> dict[Of, NDArray[np.float32]]:
        """``[C, S, H, W]``: draw 1, and of several draws their mean."""
        first: dict[Of, NDArray[np.float32]] = {"draw1": self.estimates[0]}
        return first if len(self.estimates) == 1 else {**first, "mean": self.estimates.mean(axis=0)}

    def consistency(self) -> dict[Of, Consistency]:
        """Inter-slice consistency of the magnitude (colour: of the mean over the channels)."""
        truth, mask = _grey(self.truth), torch.from_numpy(self.mask)
        return {of: consistency(_grey(image), truth, mask) for of, image in self.images().items()}


@dataclass
class VolumeTable:
    """One line per volume and kind of image (draw 1, mean of draws) of a run."""

    run: RunData
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, volume: Reassembled) -> None:
        """Measure a volume and add its lines."""
        m, source = self.run.manifest, volume.source
        for of, found in volume.consistency().items():
            self.lines.append(
                {
                    "run": m.run,
                    "label": m.method.label,
                    "dataset": m.dataset.alias,
                    "protocol": m.protocol.name,
                    "protocol_hash": m.protocol.hash,
                    "subject": source.subject,
                    "volume": source.volume,
                    "of": of if m.draws == 1 or of == "draw1" else f"mean of {m.draws} draws",
                    "first": source.span[0],
                    "slices": source.span[1] - source.span[0] + 1,
                    "missing": len(source.gaps),
                    "apart": source.apart,
                    **asdict(found),
                    "signature": signature(),
                }
            )


def stored_volumes(task: Task, run: RunData) -> list[StoredVolume]:
    """The volumes of which a run has restored slices, in the data set's order.

    Raises
    ------
    UserError : the run stored no images, or none of its items belongs to the task any more.
    """
    if not run.manifest.images:
        raise UserError(
            f"{run.folder}: no restored images are stored, so there is nothing to put together. Call the same `mrbench run` again "
            "with --images all."
        )
    ok = run.rows[run.rows["status"] == "ok"]
    stored = {i: (int(s), h) for i, s, h in zip(ok["item_id"], ok["shard"], ok["item_hash"], strict=True)}
    groups: dict[str, list[ItemRef]] = {}
    for item in task.items:
        groups.setdefault(item.item_id.rpartition("/")[0], []).append(item)
    found = []
    for name, items in groups.items():
        shards = {i.item_id: stored[i.item_id][0] for i in items if stored.get(i.item_id, (0, ""))[1] == i.item_hash}
        if shards:
            run_of = _longest(sorted(items, key=lambda i: i.index))
            gaps = {i.index: i.slice for i in run_of if i.item_id not in shards}
            found.append(StoredVolume(name, run_of, len(items) - len(run_of), shards, gaps))
    if not found:
        raise UserError(f"{run.folder}: holds no restored slice that the data set still gives. Run it again.")
    return found


def _longest(items: Sequence[ItemRef]) -> tuple[ItemRef, ...]:
    """The longest run of items at neighbouring positions (the first of equal ones)."""
    runs: list[list[ItemRef]] = []
    for item in items:
        if runs and item.index == runs[-1][-1].index + 1:
            runs[-1].append(item)
        else:
            runs.append([item])
    longest = max(runs, key=len)
    return tuple(longest)


def refuse_incomplete(run: RunData, volumes: Sequence[StoredVolume]) -> None:
    """Refuse volumes with missing slices (``UserError``), naming the first ones and the ways on."""
    lacking = [v for v in volumes if not v.complete]
    if not lacking:
        return
    first = lacking[0]
    raise UserError(
        f"{run.folder}: {len(lacking)} of {len(volumes)} volumes lack slices that this run has not restored, the first of them "
        f"{first.name}: slices {few(list(first.gaps.values()))}. Run all slices (without --subset and --limit), or take volumes as they are, with gaps, by --incomplete."
    )


def reassemble(task: Task, run: RunData, volume: StoredVolume) -> Reassembled:
    """Read the restored slices of one volume and put them in order (``UserError`` for damaged images)."""
    first, last = volume.span
    channels, height, width = volume.items[0].shape
    draws = run.manifest.draws
    estimates = np.full((draws, channels, last - first + 1, height, width), np.nan, np.float32)
    truth = np.empty((channels, last - first + 1, height, width), np.float32)
    mask = np.zeros((last - first + 1, height, width), np.bool_)
    for shard, items in _by_shard(volume):
        images = read_images(run.folder, shard, {i.item_id for i in items})
        for item in items:
            if item.item_id not in images:
                raise UserError(
                    f"{run.folder}: the restored image of {item.item_id} is gone. Call the same `mrbench run` again with --images all."
                )
            estimates[:, :, item.index - first] = images[item.item_id]
    for item in volume.items:
        hr, inside = task.truth([item])
        truth[:, item.index - first], mask[item.index - first] = hr[0].numpy(), inside[0].numpy()
    return Reassembled(volume, estimates, truth, mask)


def _by_shard(volume: StoredVolume) -> Iterator[tuple[int, list[ItemRef]]]:
    groups: dict[int, list[ItemRef]] = {}
    for item in volume.items:
        if item.item_id in volume.shards:
            groups.setdefault(volume.shards[item.item_id], []).append(item)
    yield from sorted(groups.items())


def native(task: Task, volume: StoredVolume, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[C, S, H, W]`` on the range of the ground truth in the units of the source; gaps stay NaN."""
    out = images.copy()
    for item in volume.items:
        position = item.index - volume.span[0]
        out[:, position] = task.to_native(item, images[:, position])
    return out


def spread(task: Task, volume: Reassembled) -> NDArray[np.float32]:
    """``[C, S, H, W]``: standard deviation of the draws (ddof 1), in the units of the source."""
    out = np.std(volume.estimates, axis=0, ddof=1)
    zero = np.zeros(volume.source.items[0].shape, np.float32)
    for item in volume.source.items:
        one = task.to_native(item, zero + 1) - task.to_native(item, zero)
        out[:, item.index - volume.source.span[0]] *= one
    return np.asarray(out, dtype=np.float32)


def _grey(images: NDArray[np.float32]) -> torch.Tensor:
    slices = to_image(torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, 0, 1))))
    return slices.mean(1)


def table_file(run: Path) -> Path:
    """Where the volume table of a run lies."""
    return run / "volumes.csv"


__all__ = [
    "Reassembled", "StoredVolume", "VolumeTable", "native", "reassemble", "refuse_incomplete", "spread", "stored_volumes", "table_file",
]  # fmt: skip
