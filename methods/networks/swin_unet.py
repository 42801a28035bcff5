"""The U-Net with Swin blocks of ResShift (arXiv:2307.12348), SinSR (arXiv:2311.14760) and Res-SRDiff
(doi:10.1088/1361-6560/ade049).

Written from the published description and layouts; keys, shapes and order of the state dict are those of published weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .swin import GroupNorm, SwinLayer
from .swin_unet_options import SwinUNetConfig


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """``[B] -> [B, width]`` float32: cosines, then sines, of ``t 10000^(-i / half)``; an odd width ends with a zero."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * exponents)[None]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


class ResBlock(nn.Module):
    """Two convolutions with the time step between them: scale and shift of the normalised features, or a sum."""

    def __init__(self, channels: int, out_channels: int, emb_channels: int, scale_shift: bool, dropout: float) -> None:
        """``channels -> out_channels``; the last convolution starts at zero."""
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels * (2 if scale_shift else 1)))
        last = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.out_layers = nn.Sequential(GroupNorm(out_channels), nn.SiLU(), nn.Dropout(dropout), last)
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``[B, C, H, W]`` and the embedded time step ``[B, E]``."""
        h = self.in_layers(x)
        e = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, norm(h), 1 + scale)
        else:
            h = norm(h + e)
        for layer in rest:
            h = layer(h)
        out: Tensor = self.skip_connection(x) + h
        return out


class Downsample(nn.Module):
    """Convolution with stride 2."""

    def __init__(self, channels: int, out_channels: int) -> None:
        """``channels -> out_channels`` at half the size."""
        super().__init__()
        self.op = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C', H/2, W/2]``."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Every pixel doubled, then a convolution."""

    def __init__(self, channels: int) -> None:
        """``channels`` in and out."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, 2H, 2W]``."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class SwinUNet(nn.Module):
    """Predicts from the noisy state, the step and the LR image (what it predicts is the diffusion's business)."""

    derived_buffers: ClassVar[tuple[str, ...]] = ("attn_mask", "relative_position_index")  # follow from the configuration

    def __init__(self, config: SwinUNetConfig, *, published_buffers: bool = False) -> None:
        """Build with random weights.

        ``published_buffers``: the state dict also holds :attr:`derived_buffers`, as published files do. Nothing needs them.
        """
        super().__init__()
        self.config = c = config
        emb = 4 * c.model_channels
        widths = [c.model_channels * m for m in c.channel_mult]
        self.time_embed = nn.Sequential(nn.Linear(c.model_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        if c.stages:
            self.feature_extractor: nn.Module = _feature_extractor(c.lq_channels + c.cond_mask, c.stages)
        else:
            self.feature_extractor = nn.Identity()

        def res(channels: int, out_channels: int) -> ResBlock:
            return ResBlock(channels, out_channels, emb, c.use_scale_shift_norm, c.dropout)

        def swin(level: int) -> nn.Module:
            arguments = (c.swin_embed_dim, c.heads, c.resolution(level), c.window_size, c.swin_depth, c.mlp_ratio)
            return SwinLayer(widths[level], *arguments) if c.swin else nn.Identity()

        last = c.levels - 1
        channels = widths[0]
        skips = [channels]
        block = c.unshuffle**2
        blocks = [nn.ModuleList([nn.Conv2d(c.in_channels * block + c.added_channels, channels, 3, padding=1)])]
        for level, width in enumerate(widths):
            for j in range(c.num_res_blocks[level]):
                layers = [res(channels, width)] + ([swin(level)] if c.has_swin(level) and j == 0 else [])
                blocks.append(nn.ModuleList(layers))
                channels = width
                skips.append(channels)
            if level != last:
                blocks.append(nn.ModuleList([Downsample(channels, channels)]))
                skips.append(channels)
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = nn.ModuleList([res(channels, channels), swin(last), res(channels, channels)])
        blocks = []
        for level in reversed(range(c.levels)):
            for i in range(c.num_res_blocks[level] + 1):
                layers = [res(channels + skips.pop(), widths[level])]
                channels = widths[level]
                if c.has_swin(level) and i == 0:
                    layers.append(swin(level))
                if level and i == c.num_res_blocks[level]:
                    layers.append(Upsample(channels))
                blocks.append(nn.ModuleList(layers))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, c.out_channels * block, 3, padding=1))
        if not published_buffers:
            _forget(self, self.derived_buffers)

    @property
    def multiple(self) -> int:
        """Sides of ``x`` must be multiples of this."""
        return self.config.multiple

    def forward(self, x: Tensor, timesteps: Tensor, lq: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predict ``[B, out_channels, H, W]``, in ``x``'s dtype.

        Parameters
        ----------
        x : ``[B, in_channels, H, W]``, the scaled noisy state; sides are multiples of :attr:`multiple`.
        timesteps : ``[B]``, *original* step indices, counted from 0.
        lq : ``[B, lq_channels, h, w]``, the LR image in [-1, 1]; its sides relate to those of ``x`` as ``lq_size`` to
            ``image_size``.
        mask : ``[B, 1, h, w]`` in {-1, 1} (1: unknown) for networks with ``cond_mask``.

        Raises
        ------
        ValueError : sizes that do not fit the configuration.
        """
        self._check(x, lq, mask)
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels))
        if self.config.unshuffle > 1:
            x, lq = (F.pixel_unshuffle(part, self.config.unshuffle) for part in (x, lq))
        h = torch.cat([x, self._condition(lq if mask is None else torch.cat([lq, mask], dim=1)).to(x.dtype)], dim=1)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = _run(block, h, emb)
            skips.append(h)
        h = _run(self.middle_block, h, emb)
        for block in self.output_blocks:
            h = _run(block, torch.cat([h, skips.pop()], dim=1), emb)
        out: Tensor = self.out(h).to(x.dtype)
        return out if self.config.unshuffle == 1 else F.pixel_shuffle(out, self.config.unshuffle)

    def _condition(self, lq: Tensor) -> Tensor:
        c = self.config
        if c.lq_side < c.image_size:
            return F.interpolate(lq, scale_factor=float(c.image_size // c.lq_side), mode="nearest")
        if c.condition == "unshuffle" and c.lq_side > c.image_size:
            return F.pixel_unshuffle(lq, c.lq_side // c.image_size)
        features: Tensor = self.feature_extractor(lq)
        return features

    def _check(self, x: Tensor, lq: Tensor, mask: Tensor | None) -> None:
        c = self.config
        height, width = x.shape[-2:]
        if height % c.multiple or width % c.multiple:
            raise ValueError(f"this network takes sides that are multiples of {c.multiple}, got {height}x{width}: pad them")
        expected = (height * c.lq_side // c.image_size, width * c.lq_side // c.image_size)
        if tuple(lq.shape[-2:]) != expected:
            raise ValueError(
                f"beside a state of {height}x{width} the condition has {expected[0]}x{expected[1]} pixels, got {lq.shape}"
            )
        if (mask is not None) != c.cond_mask:
            raise ValueError(f"cond_mask is {c.cond_mask}, but {'no' if mask is None else 'a'} mask was given")


def _feature_extractor(channels: int, stages: int) -> nn.Sequential:
    """Per stage: convolution to ``b = 16, 32, ...`` channels, SiLU, convolution with stride 2 to ``2b``."""
    layers: list[nn.Module] = []
    for k in range(stages):
        base = 16 * 2**k
        layers += [nn.Conv2d(channels, base, 3, padding=1), nn.SiLU(), Downsample(base, 2 * base)]
        channels = 2 * base
    return nn.Sequential(*layers)


def _forget(network: nn.Module, names: Sequence[str]) -> None:
    """Keep buffers of these names out of the state dict."""
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name in names:
                module.register_buffer(name, buffer, persistent=False)


def _run(layers: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    for layer in layers.children():
        h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
    return h
