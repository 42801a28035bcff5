"""A task: one protocol on one data set, as a list of items that can be loaded and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.data.items import ItemList, ItemRef, Progress, SliceReader, list_items
from mrbench.data.selection import limit, subset
from mrbench.degradation.base import Degradation
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.degradation.volume import DegradedVolume, degrade_volume, own_min_max
from mrbench.engine.entries import DatasetChoice
from mrbench.engine.restorer import GroundTruth
from mrbench.errors import UserError
from mrbench.plugins import Registry
from mrbench.protocol import Protocol, ResolvedProtocol, resolve, task_hash
from mrbench.seeds import derive_seed

SUBSET_SEED = 0


@dataclass(frozen=True)
class Batch:
    """Some items of one size, loaded and measured. ``hr [B, C, H, W]``, ``mask [B, H, W]`` bool."""

    items: tuple[ItemRef, ...]
    hr: Tensor
    mask: Tensor
    measurement: Measurement

    @property
    def scales(self) -> list[float]:
        """Native units per unit range of each item (see :class:`mrbench.data.preparation.IntensityMap`)."""
        return [i.intensity.scale for i in self.items]


@dataclass
class Task:
    """The items of a protocol on a data set, and how to load them."""

    choice: DatasetChoice
    protocol: ResolvedProtocol
    listing: ItemList
    options: dict[str, Any]  # the data set's options with absolute paths
    _reader: SliceReader = field(default_factory=SliceReader)
    _degraded: tuple[Path, DegradedVolume] | None = None  # 3-D protocols: the last volume

    @property
    def degradation(self) -> Degradation[Any]:
        """The protocol's degradation, with its options."""
        made: Degradation[Any] = self.protocol.degradation.load()(self.protocol.degradation_options)
        return made

    @property
    def items(self) -> Sequence[ItemRef]:
        """All items, in the data set's order."""
        return self.listing.items

    @property
    def units(self) -> str:
        """The units of all items' native values; empty where they are not the same, or every slice has a scale of its own."""
        if self.protocol.protocol.slice_scaling != "none":
            return ""
        found = {i.units for i in self.items}
        return found.pop() if len(found) == 1 else ""

    @property
    def hash(self) -> str:
        """Hash of protocol, data set and the manifest of its items."""
        card = self.choice.card
        return task_hash(self.protocol.hash, card.name, card.version, ((i.item_id, i.item_hash) for i in self.items))

    def choose(self, subset_size: int | None, limit_size: int | None) -> list[ItemRef]:
        """Items for ``--subset N`` (seeded choice spread over subjects) or ``--limit N`` (round-robin over subjects)."""
        for flag, value in (("--subset", subset_size), ("--limit", limit_size)):
            if value is not None and value < 1:
                raise UserError(f"{flag} {value}: expected a number of items, 1 or more.")
        chosen = list(self.items)
        if subset_size is not None:
            chosen = subset(chosen, subset_size, SUBSET_SEED)
        if limit_size is not None:
            chosen = limit(chosen, limit_size)
        return chosen

    def load(self, items: Sequence[ItemRef]) -> Batch:
        """Load and measure items of one size. The measurement depends on each item alone, never on the batch."""
        hr, mask = self._pixels(items)
        p = self.protocol.protocol
        if p.dimensions == 3:
            measurement = self._from_volumes(items)
            if p.slice_scaling == "own_min_max":
                hr, measurement = own_min_max(hr)[0], replace(measurement, y=own_min_max(measurement.y)[0])
            return Batch(tuple(items), hr, mask, measurement)
        measurement = degrade(
            hr,
            [i.item_id for i in items],
            self.degradation,
            p.scales,
            noise_kind=p.noise.kind,
            sigma=p.noise.sigma,
            clip=p.clip_measurement,
            seed_key=self.protocol.hash,
        )
        return Batch(tuple(items), hr, mask, measurement)

    def _pixels(self, items: Sequence[ItemRef]) -> tuple[Tensor, Tensor]:
        """``[B, C, H, W]`` prepared images and ``[B, H, W]`` masks of items of one size."""
        slices = [self._reader.load(i) for i in items]
        return torch.from_numpy(np.stack([s.image for s in slices])), torch.from_numpy(np.stack([s.mask for s in slices]))

    def truth(self, items: Sequence[ItemRef]) -> tuple[Tensor, Tensor]:
        """Ground truth ``[B, C, H, W]`` and foreground ``[B, H, W]`` of items of one size, as :meth:`load` gives them."""
        hr, mask = self._pixels(items)
        return (own_min_max(hr)[0] if self.protocol.protocol.slice_scaling == "own_min_max" else hr), mask

    def to_native(self, item: ItemRef, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images ``[..., C, H, W]`` on an item's [0, 1] range in the units of its source."""
        if self.protocol.protocol.slice_scaling == "own_min_max":
            low, span = own_min_max(self._pixels([item])[0])[1][0].tolist()
            images = images * np.float32(span) + np.float32(low)
        return item.intensity.to_native(images)

    def read_ahead(self, items: Sequence[ItemRef]) -> None:
        """Bring the pixels of items into the page cache, so that loading them soon is fast."""
        for item in items:
            self._reader.load(item)

    def _from_volumes(self, items: Sequence[ItemRef]) -> Measurement:
        """Slices cut from volumes that were degraded in 3-D; each volume is degraded once for its run of items."""
        parts = [self._volume(i).measurement([i.index], [i.item_id]) for i in items]
        first = parts[0]
        return replace(first, y=torch.cat([m.y for m in parts]), ids=tuple(i.item_id for i in items))

    def _volume(self, item: ItemRef) -> DegradedVolume:
        if self._degraded is None or self._degraded[0] != item.folder:
            p = self.protocol.protocol
            degraded = degrade_volume(
                torch.from_numpy(self._reader.volume(item)),
                item.item_id.rpartition("/")[0],
                self.degradation,
                p.scales,
                noise_kind=p.noise.kind,
                sigma=p.noise.sigma,
                clip=p.clip_measurement,
                seed_key=self.protocol.hash,
                through_plane=p.through_plane,
                pre_upsample=p.pre_upsample,
            )
            self._degraded = (item.folder, degraded)
        return self._degraded[1]

    def ground_truth(self, batch: Batch) -> GroundTruth:
        """What controls see: the ground truth, and for every item a slice of another subject cut to its size."""
        others = [self._other(i) for i in batch.items]
        if any(o is None for o in others):
            return GroundTruth(batch.hr)
        return GroundTruth(batch.hr, torch.from_numpy(np.stack([o for o in others if o is not None])))

    def other(self, item: ItemRef) -> ItemRef | None:
        """The slice of another subject that controls see beside an item; ``None`` where there is no other subject."""
        candidates = [i for i in self.items if i.subject != item.subject and i.shape[0] == item.shape[0]]
        if not candidates:
            return None
        return candidates[derive_seed(self.protocol.hash, item.item_id, "impostor") % len(candidates)]

    def _other(self, item: ItemRef) -> NDArray[np.float32] | None:
        pick = self.other(item)
        return None if pick is None else fit(self._reader.load(pick).image, item.shape[1:])


def fit(image: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Centre-crop or zero-pad an image ``[C, H, W]`` to ``[C, *size]``."""
    out = np.zeros((image.shape[0], *size), np.float32)
    have, want = image.shape[1:], size
    source = tuple(slice(max(0, (h - w) // 2), max(0, (h - w) // 2) + min(h, w)) for h, w in zip(have, want, strict=True))
    target = tuple(slice(max(0, (w - h) // 2), max(0, (w - h) // 2) + min(h, w)) for h, w in zip(have, want, strict=True))
    out[:, *target] = image[:, *source]
    return out


def absolute_options(choice: DatasetChoice) -> dict[str, Any]:
    """The data set's options with its places on disk as absolute paths (they identify the run)."""
    options: dict[str, Any] = choice.options.model_dump(mode="json")
    for key in choice.card.path_options:
        if options.get(key):
            options[key] = str(Path(options[key]).expanduser().resolve())
    return options


def open_task(
    choice: DatasetChoice,
    protocol: Protocol,
    registry: Registry,
    progress: Progress | None = None,
) -> Task:
    """Resolve the protocol, prepare the data set's volumes (cached) and list the items.

    Raises
    ------
    UserError : the data set is not there, holds nothing usable, or the protocol does not fit.
    """
    resolved = resolve(protocol, registry)
    options = absolute_options(choice)
    dataset = choice.card.load()(choice.card.parse(options, choice.alias))
    listing = list_items(choice.alias, choice.card.version, dataset, protocol.preparation, protocol.split.part, progress)
    return Task(choice, resolved, listing, options)
