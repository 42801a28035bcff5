"""The U-Net of SR3 (Saharia et al. 2021, arXiv:2104.07636), which is told a continuous noise level.

Written from a description of the layout of the published weights; keys and shapes of the state dict are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adm import GroupNorm, doubled
from .sr3_options import SR3Config

LONGEST = 1e4  # of the wavelengths of the embedding, in units of the shortest


@dataclass(frozen=True)
class Features:
    """What an encoder finds.

    skips : one map per element of ``downs``, in order. middle : the map after ``mid``. emb : ``[B, C]``, the embedded noise level.
    """

    skips: tuple[Tensor, ...]
    middle: Tensor
    emb: Tensor


@dataclass(frozen=True)
class Control:
    """What a branch adds to the features of a U-Net: to each of the skips, and to the middle."""

    skips: Sequence[Tensor]
    middle: Tensor


class NoiseLevel(nn.Module):
    """Sines, then cosines of the noise level at ``C / 2`` frequencies from 1 down to almost 1e-4; no factor before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, g: Tensor) -> Tensor:
        """``[B]`` or ``[B, 1]`` to ``[B, C]``."""
        count = self.channels // 2
        k = torch.arange(count, dtype=torch.float32, device=g.device) / count
        angles = g.float().reshape(-1, 1) * torch.exp(-math.log(LONGEST) * k)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Added(nn.Module):
    """The embedded noise level, mapped to one number per channel, is added."""

    def __init__(self, emb: int, channels: int) -> None:
        super().__init__()
        self.noise_func = nn.Sequential(nn.Linear(emb, channels))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``[B, C, H, W]`` and ``[B, E]``."""
        out: Tensor = x + self.noise_func(emb).to(x.dtype)[:, :, None, None]
        return out


class Block(nn.Module):
    """Normalisation, SiLU, dropout if any, convolution."""

    def __init__(self, channels: int, out_channels: int, groups: int, dropout: float = 0.0) -> None:
        super().__init__()
        drop = nn.Dropout(dropout) if dropout else nn.Identity()
        convolution = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.block = nn.Sequential(GroupNorm(groups, channels), nn.SiLU(), drop, convolution)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        out: Tensor = self.block(x)
        return out


class ResnetBlock(nn.Module):
    """Two blocks with the noise level between them; dropout is in the second."""

    def __init__(self, channels: int, out_channels: int, config: SR3Config) -> None:
        super().__init__()
        self.noise_func = Added(config.inner_channel, out_channels)
        self.block1 = Block(channels, out_channels, config.norm_groups)
        self.block2 = Block(out_channels, out_channels, config.norm_groups, config.dropout)
        self.res_conv = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``[B, C, H, W]`` and ``[B, E]``."""
        h = self.block2(self.noise_func(self.block1(x), emb))
        out: Tensor = h + self.res_conv(x)
        return out


class SelfAttention(nn.Module):
    """Self-attention with one head over all pixels, added to its input: ``x + W softmax(q^T k / sqrt(C)) v``."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=3)
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.out(mixed)
        return out


class ResnetBlocWithAttn(nn.Module):
    """A residual block, and attention where there is some."""

    def __init__(self, channels: int, out_channels: int, config: SR3Config, attention: bool) -> None:
        super().__init__()
        self.res_block = ResnetBlock(channels, out_channels, config)
        self.attn = SelfAttention(out_channels, config.norm_groups) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``[B, C, H, W]`` and ``[B, E]``."""
        out: Tensor = self.attn(self.res_block(x, emb))
        return out


class Downsample(nn.Module):
    """Half the size: 3x3 convolution with stride 2, zeros on all sides, or to the right and below only (``asym``)."""

    def __init__(self, channels: int, asymmetric: bool) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H/2, W/2]``."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Upsample(nn.Module):
    """Every pixel doubled, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, 2H, 2W]``."""
        out: Tensor = self.conv(doubled(x))
        return out


class Encoder(nn.Module):
    """The first half of the U-Net, up to its middle: embedding of the noise level, ``downs``, ``mid``."""

    def __init__(self, config: SR3Config) -> None:
        """Build with torch's default weights."""
        super().__init__()
        self.config = c = config
        width = c.inner_channel
        self.noise_level_mlp = nn.Sequential(
            NoiseLevel(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )
        layers: list[nn.Module] = [nn.Conv2d(c.in_channel * c.unshuffle**2, width, 3, padding=1)]
        self.skip_widths = [width]  # channels of the outputs of downs
        for level, (channels, size) in enumerate(zip(c.widths, c.sizes, strict=True)):
            for _ in range(c.res_blocks):
                layers.append(ResnetBlocWithAttn(self.skip_widths[-1], channels, c, size in c.attn_res))
                self.skip_widths.append(channels)
            if level < c.levels - 1:
                layers.append(Downsample(channels, c.downsample == "asym"))
                self.skip_widths.append(channels)
        self.downs = nn.ModuleList(layers)
        last = c.widths[-1]
        self.mid = nn.ModuleList([ResnetBlocWithAttn(last, last, c, True), ResnetBlocWithAttn(last, last, c, False)])

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this."""
        return self.config.multiple

    def features(self, x: Tensor, g: Tensor) -> Features:
        """Encode ``[B, in_channel, H, W]`` (LR image first) at noise levels ``[B]`` or ``[B, 1]``.

        Raises
        ------
        ValueError : sides that are no multiples of :attr:`multiple`.
        """
        c = self.config
        if x.shape[2] % c.multiple or x.shape[3] % c.multiple:
            raise ValueError(
                f"this network takes sides that are multiples of {c.multiple}, got {x.shape[2]}x{x.shape[3]}: pad them"
            )
        with torch.autocast(x.device.type, enabled=False):  # levels near 1 differ by less than reduced precision tells apart
            emb = self.noise_level_mlp(g.reshape(-1).float())
        h = F.pixel_unshuffle(x, c.unshuffle) if c.unshuffle > 1 else x
        skips = []
        for layer in self.downs:
            h = _run(layer, h, emb)
            skips.append(h)
        for layer in self.mid:
            h = layer(h, emb)
        return Features(tuple(skips), h, emb)


class SR3UNet(Encoder):
    """Predicts from the LR image, the noisy image and the noise level (what it predicts is the diffusion's business)."""

    def __init__(self, config: SR3Config) -> None:
        """Build with torch's default weights."""
        super().__init__(config)
        c, skips = config, list(self.skip_widths)
        layers: list[nn.Module] = []
        channels = c.widths[-1]
        for level in reversed(range(c.levels)):
            for _ in range(c.res_blocks + 1):
                width = c.widths[level]
                layers.append(ResnetBlocWithAttn(channels + skips.pop(), width, c, c.sizes[level] in c.attn_res))
                channels = width
            if level:
                layers.append(Upsample(channels))
        self.ups = nn.ModuleList(layers)
        self.final_conv = Block(channels, c.out_channel * c.unshuffle**2, c.norm_groups)

    def forward(self, x: Tensor, g: Tensor, control: Control | None = None) -> Tensor:
        """Predict ``[B, out_channel, H, W]``, in ``x``'s dtype.

        Parameters
        ----------
        x : ``[B, in_channel, H, W]``: the LR image on the HR grid, then the noisy image; sides are multiples of :attr:`multiple`.
        g : ``[B]`` or ``[B, 1]``, noise levels in (0, 1]: the factor of the image in the noisy one, as it is.
        control : what is added to skips and middle before they are decoded.

        Raises
        ------
        ValueError : sides that do not fit.
        """
        found = self.features(x, g)
        skips, h = list(found.skips), found.middle
        if control is not None:
            skips = [skip + added for skip, added in zip(skips, control.skips, strict=True)]
            h = h + control.middle
        for layer in self.ups:
            h = layer(h) if isinstance(layer, Upsample) else layer(torch.cat([h, skips.pop()], dim=1), found.emb)
        out: Tensor = self.final_conv(h).to(x.dtype)
        return out if self.config.unshuffle == 1 else F.pixel_shuffle(out, self.config.unshuffle)


def initialise(network: nn.Module) -> None:
    """Weights as published trainings begin: orthogonal convolutions and linear maps, biases zero."""
    for layer in _weighted(network):
        nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _weighted(network: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            yield layer


def _run(layer: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    out: Tensor = layer(h, emb) if isinstance(layer, ResnetBlocWithAttn) else layer(h)
    return out
