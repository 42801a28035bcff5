"""The model behind ResShift, SinSR and Res-SRDiff: a Swin U-Net in pixel space or in the latent space of a VQ autoencoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mrbench.cards import Options, parse_options
from mrbench.degradation.measurement import Measurement, NoiseSource
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint

from .conditioning import resample
from .loading import CONTAINERS, load_strict, read_tensors, selected, unwrapped
from .reading import read_swin_unet, read_vq
from .residual_shift import Network, Noise
from .residual_shift_options import DiffusionConfig
from .sampling_options import SamplingOptions
from .swin_unet import SwinUNet
from .swin_unet_options import SwinUNetConfig
from .tiling import Average, Tile, tiles
from .vq import VQAutoencoder
from .vq_options import VQConfig

Sampler = Callable[[Network, Tensor, Noise], Tensor]  # network, LR image in the space of the state, noise -> state x_0
Upsampler = Callable[[Measurement], Tensor]  # -> [B, C, H, W] in [0, 1]

PARTS: Mapping[str, type[Options]] = {"unet": SwinUNetConfig, "autoencoder": VQConfig, "diffusion": DiffusionConfig}


class Architecture:
    """``config.json``'s "architecture", checked: ``unet``, and ``autoencoder`` and ``diffusion`` where it has them."""

    def __init__(self, weights: LocalCheckpoint, method: str) -> None:
        """Parse the configuration of ``weights``; without one, all parts are ``None``.

        Raises
        ------
        UserError : the checkpoint belongs to another method, or its architecture has unknown parts or values.
        """
        self.what = str(weights.file)
        self._weights = weights
        owner = weights.config.get("method", method)
        if owner != method:
            raise UserError(
                f"{self.what} holds weights of {owner}, not of {method}. Use --method {owner}@..., or name another file."
            )
        parts: Mapping[str, Any] = weights.config.get("architecture") or {}
        unknown = sorted(set(parts) - set(PARTS))
        if unknown or (parts and "unet" not in parts):
            problem = f"unknown parts {', '.join(unknown)}" if unknown else "no part unet"
            raise UserError(f'{self.what}: the "architecture" of its config.json has {problem}. Known: {", ".join(PARTS)}.')
        parsed = {
            name: parse_options(model, parts[name], f'{self.what}: "architecture.{name}" of config.json')
            for name, model in PARTS.items()
            if parts.get(name) is not None
        }
        self.unet: SwinUNetConfig | None = parsed.get("unet")  # type: ignore[assignment]
        self.autoencoder: VQConfig | None = parsed.get("autoencoder")  # type: ignore[assignment]
        self.diffusion: DiffusionConfig | None = parsed.get("diffusion")  # type: ignore[assignment]

    def on_latents(self, autoencoder: str | None) -> bool:
        """Whether the weights work on latents; ``autoencoder`` is the file that the user named, if any.

        Raises
        ------
        UserError : nobody says, or the file is damaged or holds code.
        """
        if self.unet is None and autoencoder is None:
            self._weights.tensors("cpu", CONTAINERS)  # what cannot be read needs no autoencoder
            raise UserError(
                f"{self.what} comes without a config.json and holds a U-Net alone, as published weights do: name the file of its "
                "autoencoder with the option autoencoder (--set LABEL.autoencoder=FILE)."
            )
        if self.unet is not None and self.autoencoder is None and autoencoder is not None:
            raise UserError(
                f"{self.what} works on pixels (its config.json has no autoencoder): leave the option autoencoder out."
            )
        return autoencoder is not None or self.autoencoder is not None


def no_weights(method: str) -> UserError:
    """What a method says that was given no weights."""
    return UserError(
        f"{method} needs weights, and none were found. Name some with --method {method}@PATH (a checkpoint folder or file) or "
        f"--method {method}@NAME (`mrbench methods {method}` lists the names, `mrbench pull {method}@NAME` fetches one), or "
        f"train your own with `mrbench train`."
    )


class ResidualShiftModel:
    """Networks on a device, and the road from a measurement to restored images. What happens in between is a sampler's."""

    def __init__(self, unet: SwinUNet, autoencoder: VQAutoencoder | None, what: str = "the checkpoint") -> None:
        """Put the networks together.

        Raises
        ------
        UserError : they do not fit each other, or the U-Net is one for inpainting.
        """
        self.unet = unet
        self.autoencoder = autoencoder
        self.factor = 1 if autoencoder is None else autoencoder.factor
        config = unet.config
        self.channels = config.in_channels if autoencoder is None else autoencoder.config.in_channels
        state = config.in_channels if autoencoder is None else autoencoder.config.embed_dim
        if config.cond_mask:
            raise UserError(f"{what}: this U-Net was made for inpainting (it wants a mask), not for super-resolution.")
        if not config.in_channels == config.out_channels == state or config.lq_channels != self.channels:
            raise UserError(
                f"{what}: the U-Net takes states of {config.in_channels} and LR images of {config.lq_channels} channel(s) and returns "
                f"{config.out_channels}, but here states have {state} and images {self.channels}. Name the autoencoder that "
                "belongs to it, or none if it works on pixels."
            )
        self.multiple = config.multiple * self.factor  # of the sides of HR images
        self.lq_step = self.factor * config.lq_step  # HR pixels per pixel of the condition

    @classmethod
    def load(
        cls, weights: LocalCheckpoint, architecture: Architecture, device: torch.device | str, autoencoder: str | None = None
    ) -> ResidualShiftModel:
        """Build the networks and fill them from ``weights`` (keys under ``unet.`` and ``autoencoder.``, or a U-Net alone).

        ``autoencoder``: a file of its own for the autoencoder. Configurations that the architecture lacks are read off the
        tensors.

        Raises
        ------
        UserError : weights that do not fit, or networks that do not fit each other.
        """
        what, tensors = architecture.what, weights.tensors("cpu", CONTAINERS)
        unet_tensors = selected(tensors, ("unet.",))
        unet = SwinUNet(architecture.unet or read_swin_unet(unet_tensors, what))
        load_strict(unet, unet_tensors, derived=SwinUNet.derived_buffers, what=what)
        vq = None
        if autoencoder is not None:
            vq = _autoencoder(read_tensors(autoencoder), architecture.autoencoder, autoencoder)
        elif architecture.autoencoder is not None:
            if not any(key.startswith("autoencoder.") for key in unwrapped(tensors)):
                raise UserError(
                    f"{what} works on latents but holds no autoencoder. Name the file of its autoencoder with the option "
                    "autoencoder (--set LABEL.autoencoder=FILE)."
                )
            vq = _autoencoder(selected(tensors, ("autoencoder.",)), architecture.autoencoder, what)
        model = cls(unet, vq, what)
        for network in (unet, vq):
            if network is not None:
                network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def encode(self, x: Tensor) -> Tensor:
        """Images in [-1, 1] to states (the same in pixel space)."""
        return x if self.autoencoder is None else self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """States to images in [-1, 1]."""
        return (z if self.autoencoder is None else self.autoencoder.decode(z)).clamp(-1, 1)

    def restore(
        self, measurement: Measurement, draws: int, sampler: Sampler, upsampler: Upsampler, options: SamplingOptions
    ) -> Tensor:
        """``[B, K, C, H, W]`` in [0, 1]; draw k of an item is the same whatever else is computed beside it.

        The image is extended to whole windows, and noise is drawn on that canvas once per item and draw; tiles take their
        part of it. Images with one channel are repeated for networks that take three, and the outputs averaged; colour
        images pass networks with one channel colour by colour.

        Raises
        ------
        UserError : channels that the network cannot take.
        """
        batch, channels = measurement.y.shape[:2]
        planes = self._planes(channels)
        canvas, crop = measurement.padded(self.multiple)
        upsampled = upsampler(canvas)
        condition = upsampled if self.lq_step == 1 else resample(canvas, self.lq_step)
        images, condition = (self._fold(2 * part - 1, planes) for part in (upsampled, condition))
        pieces = [self._piece(tile, images, condition) for tile in self._tiles(canvas.size, options)]
        height, width = (n // self.factor for n in canvas.size)
        shape = (planes, self.unet.config.in_channels, height, width)
        chunk = max(1, options.max_batch // (batch * planes))
        parts = []
        for first in range(1, draws + 1, chunk):
            chosen = range(first, min(first + chunk, draws + 1))
            noise = CanvasNoise(canvas.noise(chosen), shape)
            average = Average(*canvas.size)
            for tile, state_tile, y, lq in pieces:
                y, lq = (_repeat(part, planes, len(chosen)) for part in (y, lq))
                x0 = sampler(_bound(self.unet, lq), y, noise.at(state_tile))
                image = self.decode(x0)
                average.add(tile, image.reshape(batch, len(chosen), planes * self.channels, *image.shape[2:]))
            parts.append(average.result())
        restored = torch.cat(parts, dim=1)
        if restored.shape[2] != channels:  # one grey image was repeated for a network that takes colour
            restored = restored.mean(dim=2, keepdim=True)
        return (crop(restored) + 1) / 2

    def _planes(self, channels: int) -> int:
        """How many images the network sees of one item."""
        if channels in (self.channels, 1):
            return 1
        if channels == 3 and self.channels == 1:
            return 3
        raise UserError(
            f"these weights take images of {self.channels} channel(s), the measurement has {channels}. Name weights for {channels}."
        )

    def _fold(self, x: Tensor, planes: int) -> Tensor:
        """``[B, C, H, W]`` to ``[B planes, channels of the network, H, W]``."""
        if planes > 1:
            return x.reshape(-1, 1, *x.shape[2:])
        return x.expand(-1, self.channels, -1, -1)

    def _tiles(self, size: Sequence[int], options: SamplingOptions) -> list[Tile]:
        if options.tile is None:
            return [Tile(0, size[0], 0, size[1])]
        side = -(-options.tile // self.multiple) * self.multiple
        cell = math.lcm(self.factor, max(1, math.ceil(self.lq_step)))  # tiles begin at whole pixels of every grid
        return list(tiles(size[0], size[1], side, max(cell, (side - options.overlap) // cell * cell)))

    def _piece(self, tile: Tile, images: Tensor, condition: Tensor) -> tuple[Tile, Tile, Tensor, Tensor]:
        """A tile of the image and of the state, with the LR image there as a state and as the network's condition."""
        config = self.unet.config
        lq = tile.scaled(config.lq_side, self.factor * config.image_size).of(condition)
        return tile, tile.scaled(1, self.factor), self.encode(tile.of(images)), lq


class CanvasNoise:
    """Noise on a whole canvas, number after number, of which tiles read their part."""

    def __init__(self, source: NoiseSource, shape: Sequence[int]) -> None:
        """``shape``: ``(planes, C, h, w)`` of one item and draw."""
        self._source, self._shape = source, tuple(shape)
        self._drawn: list[Tensor] = []

    def at(self, tile: Tile) -> Noise:
        """Noise for one run of a sampler on ``tile``: ``[B K planes, C, h, w]``; every run sees the same canvases in order."""
        calls = itertools.count()

        def following() -> Tensor:
            n = next(calls)
            if n == len(self._drawn):
                self._drawn.append(self._source.normal(self._shape))
            return tile.of(self._drawn[n]).flatten(0, 2)

        return following


def _repeat(x: Tensor, planes: int, draws: int) -> Tensor:
    """``[B planes, ...]`` to ``[B draws planes, ...]``."""
    grouped = x.reshape(-1, 1, planes, *x.shape[1:])
    return grouped.expand(-1, draws, *grouped.shape[2:]).flatten(0, 2)


def _bound(unet: SwinUNet, lq: Tensor) -> Network:
    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        out: Tensor = unet(x, timesteps, lq)
        return out

    return network


def _autoencoder(tensors: Mapping[str, Tensor], config: VQConfig | None, what: str) -> VQAutoencoder:
    own = selected(tensors, ("autoencoder.",))
    network = VQAutoencoder(config or read_vq(own, what))
    load_strict(network, own, what=what)
    return network
