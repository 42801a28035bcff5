"""From a measurement to restored images, for networks on pixels: canvas, channels, tiles, draws. What happens in between is a sampler's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement, NoiseSource
from mrbench.errors import UserError

from .sampling_options import SamplingOptions
from .steps import OnStep, of_part
from .tiling import Average, Tile, tiles

Noise = Callable[[], Tensor]  # the next standard normal numbers, shaped as the images that a sampler was given
# LR images [N, C, h, w] in [-1, 1] on the HR grid, noise, whom to tell of steps -> images [N, C, h, w]
Sampler = Callable[[Tensor, Noise, OnStep | None], Tensor]
Upsampler = Callable[[Measurement], Tensor]  # -> [B, C, H, W] in [0, 1]


def restore_on_canvas(
    measurement: Measurement,
    draws: int,
    sampler: Sampler,
    upsampler: Upsampler,
    options: SamplingOptions,
    *,
    channels: int,
    multiple: int,
    on_step: OnStep | None = None,
) -> Tensor:
    """``[B, K, C, H, W]`` in [0, 1]; draw k of an item is the same whatever else is computed beside it.

    The image is extended to sides that are multiples of ``multiple``, and noise is drawn on that canvas; tiles take their part
    of it. Grey images are repeated for networks on three ``channels``, and the outputs averaged; colour images pass networks on
    one channel colour by colour. ``on_step`` is called with the steps done and their number in all, over all tiles and draws.

    Raises
    ------
    UserError : channels that the network cannot take.
    """
    batch = len(measurement.y)
    planes = planes_of(measurement, channels)
    canvas, crop = measurement.padded(multiple)
    images = fold(2 * upsampler(canvas) - 1, planes, channels)
    places = _places(canvas.size, options, multiple)
    chunk = max(1, options.max_batch // (batch * planes))
    shape = (planes, channels, *canvas.size)
    parts: list[Tensor] = []
    starts = range(1, draws + 1, chunk)
    for first in starts:
        chosen = range(first, min(first + chunk, draws + 1))
        average = Average(*canvas.size)
        # every tile draws the whole canvas again: nothing has to be kept over long chains
        for n, tile in enumerate(places, start=len(parts) * len(places)):
            start = _repeated(tile.of(images), planes, len(chosen))
            heard = of_part(on_step, n, len(starts) * len(places))
            made = sampler(start, _noise(canvas.noise(chosen), shape, tile), heard).clamp(-1, 1)
            average.add(tile, made.reshape(batch, len(chosen), planes * channels, *made.shape[2:]))
        parts.append(average.result())
    restored = torch.cat(parts, dim=1)
    if restored.shape[2] != measurement.y.shape[1]:  # one grey image was repeated for a network on colour
        restored = restored.mean(dim=2, keepdim=True)
    return (crop(restored) + 1) / 2


def planes_of(measurement: Measurement, channels: int) -> int:
    """How many images a network on ``channels`` sees of one item.

    Raises
    ------
    UserError : channels that the network cannot take.
    """
    given = measurement.y.shape[1]
    if given in (channels, 1):
        return 1
    if given == 3 and channels == 1:
        return 3
    raise UserError(
        f"these weights take images of {channels} channel(s), the measurement has {given}. Name weights for {given} channels."
    )


def fold(images: Tensor, planes: int, channels: int) -> Tensor:
    """``[B, C, H, W]`` to ``[B planes, channels, H, W]``."""
    if planes > 1:
        return images.reshape(-1, 1, *images.shape[2:])
    return images.expand(-1, channels, -1, -1)


def _places(size: Sequence[int], options: SamplingOptions, multiple: int) -> list[Tile]:
    if options.tile is None:
        return [Tile(0, size[0], 0, size[1])]
    side = -(-options.tile // multiple) * multiple
    return list(tiles(size[0], size[1], side, side - options.overlap))


def _noise(source: NoiseSource, shape: Sequence[int], tile: Tile) -> Noise:
    """``shape``: ``(planes, C, H, W)`` of one item and draw."""
    return lambda: tile.of(source.normal(shape)).flatten(0, 2)


def _repeated(x: Tensor, planes: int, draws: int) -> Tensor:
    """``[B planes, ...]`` to ``[B draws planes, ...]``."""
    grouped = x.reshape(-1, 1, planes, *x.shape[1:])
    return grouped.expand(-1, draws, *grouped.shape[2:]).flatten(0, 2)
