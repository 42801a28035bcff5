"""Training patches: cut, turned and measured, each a pure function of (seed, stage, step, position in the batch).

So the data of any step can be made again without having made those before it, which is what makes resuming exact, and does not
depend on the number of devices.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrbench.data.items import ItemRef, SliceReader
from mrbench.degradation.base import Degradation
from mrbench.degradation.measurement import degrade
from mrbench.errors import UserError
from mrbench.protocol import ResolvedProtocol
from mrbench.seeds import derive_seed
from mrbench.train.recipe import TrainBatch
from mrbench.train.settings import Stage
from mrbench.train.sources import Source

CACHE_BYTES = 2 << 30  # slices are held in memory up to this size, in float32 if they fit so, else in float16
TRIES = 8  # for a patch with enough foreground
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Image = NDArray[Any]


@dataclass(frozen=True)
class _Slice:
    item: ItemRef
    group: tuple[str, ...]
    image: Image | None  # [C, H, W] float32 or float16; None: read when needed
    mask: NDArray[np.bool_] | None


class PatchSource:
    """The training (or validation) patches of one stage.

    Parameters
    ----------
    sources : the data sets of the stage. part : "train" or "val".
    protocol : gives degradation, scale and noise.
    channels : of the patches; see ``RecipeOptions.channels``.
    cache_bytes : see :data:`CACHE_BYTES`.

    Raises
    ------
    UserError : as :func:`fitting_slices`, or channels that cannot be converted.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        part: str,
        stage: Stage,
        protocol: ResolvedProtocol,
        channels: int,
        seed: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._stage, self._seed, self._part, self._channels = stage, seed, part, channels
        self._protocol = protocol
        self._degradation: Degradation[Any] = protocol.degradation.load()(protocol.degradation_options)
        self._align = tuple(_align(s) for s in protocol.protocol.scales)
        self._reader = SliceReader()
        fitting = fitting_slices(sources, part, stage, protocol)
        size = sum(4 * channels * i.shape[1] * i.shape[2] for _, i in fitting)
        self.storage = "float32" if size <= cache_bytes else "float16" if size <= 2 * cache_bytes else "disk"
        self._slices = [self._hold(s, i) for s, i in fitting]
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, held in enumerate(self._slices):
            groups[held.group].append(number)
        self._groups = list(groups.values())

    def __len__(self) -> int:
        return len(self._slices)

    def batch(self, step: int, first: int, count: int) -> TrainBatch:
        """Patches ``first`` to ``first + count - 1`` of the batch of ``step``, on the CPU."""
        key = (self._part, self._stage.name, step)
        cut = [self._patch(random.Random(derive_seed("patch", self._seed, *key, first + k))) for k in range(count)]
        hr = torch.from_numpy(np.stack([image for image, _ in cut]))
        p = self._protocol.protocol
        measurement = degrade(
            hr,
            ["/".join(map(str, (*key, first + k))) for k in range(count)],
            self._degradation,
            p.scales,
            noise_kind=p.noise.kind,
            sigma=p.noise.sigma,
            clip=p.clip_measurement,
            seed_key=f"train/{self._seed}",
        )
        return TrainBatch(hr, measurement, tuple(item.item_id for _, item in cut))

    def _hold(self, source: Source, item: ItemRef) -> _Slice:
        group = {"slices": (), "subjects": (source.alias, item.subject), "datasets": (source.alias,)}[self._stage.balance]
        if self.storage == "disk":
            return _Slice(item, group, None, None)
        image, mask = self._load(item)
        return _Slice(item, group, image.astype(self.storage), mask)

    def _load(self, item: ItemRef) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        record = self._reader.load(item)
        image, mask = convert_channels(record.image, self._channels), record.mask
        short = [max(0, self._stage.patch - n) for n in mask.shape]
        if any(short):
            pads = [(s // 2, s - s // 2) for s in short]
            image, mask = np.pad(image, [(0, 0), *pads]), np.pad(mask, pads)
        return image, mask

    def _patch(self, rng: random.Random) -> tuple[NDArray[np.float32], ItemRef]:
        held = self._slices[rng.choice(rng.choice(self._groups))]
        if held.image is not None and held.mask is not None:
            image, mask = held.image, held.mask
        else:
            image, mask = self._load(held.item)
        side = self._stage.patch
        for _ in range(TRIES):
            top, left = (rng.randrange((n - side) // a + 1) * a for n, a in zip(mask.shape, self._align, strict=True))
            inside = mask[top : top + side, left : left + side]
            if inside.mean() >= self._stage.min_foreground:
                break
        patch = image[:, top : top + side, left : left + side]
        return np.ascontiguousarray(self._turn(patch, rng), dtype=np.float32), held.item

    def _turn(self, patch: Image, rng: random.Random) -> Image:
        if self._stage.augment == "none":
            return patch
        if self._stage.augment == "flips":
            axes = tuple(axis for axis in (1, 2) if rng.random() < 0.5)
            return np.flip(patch, axes) if axes else patch
        turned = np.rot90(patch, rng.randrange(4), (1, 2))
        return np.flip(turned, 2) if rng.random() < 0.5 else turned


def fitting_slices(
    sources: Sequence[Source], part: str, stage: Stage, protocol: ResolvedProtocol
) -> list[tuple[Source, ItemRef]]:
    """The slices of a split that a stage's patches can be cut from.

    Raises
    ------
    UserError : a patch size that does not fit the scale, or no slice as large as a patch.
    """
    for scale in protocol.protocol.scales:
        if stage.patch % _align(scale):
            raise UserError(f"stage {stage.name}: patch {stage.patch} is not a multiple of the scale {scale:g}.")
    found = [(s, i) for s in sources for i in getattr(s, part)]
    fitting = [(s, i) for s, i in found if stage.small == "pad" or min(i.shape[1:]) >= stage.patch]
    if not fitting:
        sizes = ", ".join(sorted({f"{i.shape[1]}x{i.shape[2]}" for _, i in found})) or "none"
        raise UserError(
            f"stage {stage.name}: no {part} slice is as large as a patch of {stage.patch} (sizes: {sizes}). "
            "Choose a smaller patch, or small: pad."
        )
    return fitting


def to_device(batch: TrainBatch, device: torch.device) -> TrainBatch:
    """The same batch with its images on another device."""
    return replace(batch, hr=batch.hr.to(device), measurement=batch.measurement.to(device))


def _align(scale: float) -> int:
    """Patches begin at multiples of an integer scale, so that their LR pixels are those of the whole slice."""
    return int(scale) if scale == int(scale) else 1


def convert_channels(image: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """``[C, H, W]`` with another number of channels: colour to grey by luminance (BT.601), complex to magnitude, grey to colour.

    Raises
    ------
    UserError : there is no such conversion.
    """
    have = image.shape[0]
    if have == channels:
        return image
    if channels == 1 and have == 3:
        return np.tensordot(np.asarray(LUMA, np.float32), image, 1)[None].astype(np.float32)
    if channels == 1 and have == 2:
        return np.hypot(image[:1], image[1:]).astype(np.float32)
    if channels == 3 and have == 1:
        return np.repeat(image, 3, axis=0)
    raise UserError(f"images with {have} channels cannot be made images with {channels}.")


def common_channels(sources: Sequence[Source], wanted: int | None) -> int:
    """The number of channels of a training.

    Raises
    ------
    UserError : the data sets differ and the recipe does not say what to make of them.
    """
    if wanted is not None:
        return wanted
    found = {i.shape[0]: s.alias for s in sources for i in (*s.train, *s.val)}
    if len(found) > 1:
        listing = ", ".join(f"{alias}: {n}" for n, alias in sorted(found.items()))
        raise UserError(f"the data sets have images with different numbers of channels ({listing}). Set the option channels.")
    return next(iter(found))
