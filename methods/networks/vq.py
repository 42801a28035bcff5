"""VQ autoencoder: images in [-1, 1] to latents and back (Esser et al. 2021, arXiv:2012.09841; f4 and f8 of latent diffusion).

Written from the published layout; keys, shapes and order of the state dict are those of published weights.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .swin import GroupNorm
from .vq_options import VQConfig

EPS = 1e-6  # of all group normalisations here
CHUNK = 4096  # latent pixels that are compared with the codebook at once
COMMITMENT = 0.25


class ResnetBlock(nn.Module):
    """Norm, swish, convolution, twice; no time step."""

    def __init__(self, channels: int, out_channels: int) -> None:
        """``channels -> out_channels``."""
        super().__init__()
        self.norm1 = GroupNorm(channels, EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(out_channels, EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = self.nin_shortcut(x) + h
        return out


class AttnBlock(nn.Module):
    """Single-head attention over all positions."""

    def __init__(self, channels: int) -> None:
        """``channels`` in and out."""
        super().__init__()
        self.norm = GroupNorm(channels, EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``: ``x + proj(softmax(q k^T / sqrt(C)) v)``."""
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).mT[:, None] for part in (self.q, self.k, self.v))  # [B, 1, HW, C]
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape)
        out: Tensor = x + self.proj_out(mixed)
        return out


class Level(nn.Module):
    """Residual blocks of one resolution under ``block``, then ``downsample`` or ``upsample``, where there is one."""

    downsample: nn.Module
    upsample: nn.Module

    def __init__(self, channels: int, out_channels: int, blocks: int) -> None:
        """``blocks`` blocks, the first ``channels -> out_channels``."""
        super().__init__()
        sizes = [channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResnetBlock(a, b) for a, b in itertools.pairwise(sizes))
        self.downsample = nn.Identity()
        self.upsample = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        for block in self.block:
            x = block(x)
        out: Tensor = self.upsample(self.downsample(x))
        return out


class Downsample(nn.Module):
    """Convolution with stride 2 after one row and column of zeros at the bottom and right."""

    def __init__(self, channels: int) -> None:
        """``channels`` in and out."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H/2, W/2]``."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
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


class Middle(nn.Module):
    """Block, attention, block."""

    def __init__(self, channels: int) -> None:
        """``channels`` in and out."""
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Images to ``z_channels`` at ``1 / factor`` of the size."""

    def __init__(self, config: VQConfig) -> None:
        """Build with random weights."""
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        channels = config.ch
        for level, width in enumerate(widths):
            stage = Level(channels, width, config.num_res_blocks[level])
            if level < len(widths) - 1:
                stage.downsample = Downsample(width)
            self.down.append(stage)
            channels = width
        self.mid = Middle(channels)
        self.norm_out = GroupNorm(channels, EPS)
        self.conv_out = nn.Conv2d(channels, config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, z, H/f, W/f]``."""
        h = self.conv_in(x)
        for stage in self.down:
            h = stage(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return out


class Decoder(nn.Module):
    """``z_channels`` to images; levels are stored finest first and run coarsest first."""

    def __init__(self, config: VQConfig) -> None:
        """Build with random weights."""
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        channels = widths[-1]
        self.conv_in = nn.Conv2d(config.z_channels, channels, 3, padding=1)
        self.mid = Middle(channels)
        stages: list[Level] = []
        for level in reversed(range(len(widths))):
            stage = Level(channels, widths[level], config.num_res_blocks[level] + 1)
            if level:
                stage.upsample = Upsample(widths[level])
            stages.insert(0, stage)
            channels = widths[level]
        self.up = nn.ModuleList(stages)
        self.norm_out = GroupNorm(channels, EPS)
        self.conv_out = nn.Conv2d(channels, config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """``[B, z, h, w] -> [B, C, f h, f w]``; not limited to [-1, 1]."""
        h = self.mid(self.conv_in(z))
        for stage in reversed(self.up):
            h = stage(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out


class Codebook(nn.Module):
    """The nearest of ``n_embed`` codes."""

    def __init__(self, codes: int, channels: int) -> None:
        """``codes`` vectors of ``channels`` numbers, uniform within ``1 / codes``."""
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def indices(self, z: Tensor) -> Tensor:
        """``[B, C, h, w] -> [B h w]``: argmin of ``|z|^2 + |e|^2 - 2 z.e``, the first of equals; in float32."""
        codes = self.embedding.weight.float()
        squares = codes.square().sum(1)
        pixels = z.float().permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        with torch.autocast(z.device.type, enabled=False):
            parts = [
                (part.square().sum(1, keepdim=True) + squares - 2 * part @ codes.T).argmin(1)
                for part in torch.split(pixels, CHUNK)
            ]
        return torch.cat(parts)

    def forward(self, z: Tensor) -> Tensor:
        """``z + (e - z)`` without gradient through the difference (straight-through), same shape and type as ``z``."""
        return z + (self.lookup(self.indices(z), z) - z).detach()

    def lookup(self, indices: Tensor, like: Tensor) -> Tensor:
        """Codes as ``[B, C, h, w]`` of ``like``'s shape and type."""
        batch, channels, height, width = like.shape
        codes: Tensor = self.embedding(indices).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return codes.to(like.dtype)

    def loss(self, z: Tensor) -> Tensor:
        """Scalar: ``mean((sg(e) - z)^2) + 0.25 mean((e - sg(z))^2)``, as published (the weight on the codes' side)."""
        codes = self.lookup(self.indices(z), z)
        return (codes.detach() - z).square().mean() + COMMITMENT * (codes - z.detach()).square().mean()


class VQAutoencoder(nn.Module):
    """``encode`` gives continuous latents; ``decode`` quantises them first."""

    def __init__(self, config: VQConfig) -> None:
        """Build with random weights."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config.n_embed, config.embed_dim)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, along an axis."""
        return self.config.factor

    def encode(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` in [-1, 1] to ``[B, embed_dim, H/f, W/f]``, not quantised; sides are multiples of f."""
        z: Tensor = self.quant_conv(self.encoder(x))
        return z.to(x.dtype)

    def decode(self, z: Tensor, quantise: bool = True) -> Tensor:
        """``[B, embed_dim, h, w]`` to ``[B, C, f h, f w]``, about [-1, 1] (not clamped)."""
        x: Tensor = self.decoder(self.post_quant_conv(self.quantize(z) if quantise else z))
        return x.to(z.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``."""
        return self.decode(self.encode(x))
