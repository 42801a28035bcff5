"""SwinIR: groups of Swin transformer blocks at LR resolution, then sub-pixel convolution.

Liang, Cao, Sun, Zhang, Van Gool, Timofte 2021, SwinIR: image restoration using Swin transformer, ICCV workshops,
arXiv:2108.10257. Keys are those of the published code, without its ``attn_mask`` buffers (they follow from the image's size).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sub_pixel import stages, zero_conv
from .swin_ddpm import SwinBlock
from .swinir_options import SwinIRConfig

STAGED_WIDTH = 64  # channels behind the body, with the staged upsampler
SLOPE = 0.01  # of the leaky ReLU there


class Mlp(nn.Module):
    """Two layers around a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        """``width`` channels in and out."""
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Blocks(nn.Module):
    """Swin blocks, every second one with shifted windows."""

    def __init__(self, config: SwinIRConfig, depth: int) -> None:
        """``depth`` blocks."""
        super().__init__()
        c, window = config.embed_dim, config.window_size
        self.blocks = nn.ModuleList(
            SwinBlock(c, config.num_heads, window, window // 2 * (i % 2), Mlp(c, int(c * config.mlp_ratio)), shrink=False)
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, h, w, C]``."""
        for block in self.blocks:
            x = block(x)
        return x


class ResidualGroup(nn.Module):
    """Swin blocks and a convolution within one skip connection (RSTB, arXiv:2108.10257, eq. (6))."""

    def __init__(self, config: SwinIRConfig, depth: int) -> None:
        """``depth`` blocks."""
        super().__init__()
        self.residual_group = Blocks(config, depth)
        self.conv = nn.Conv2d(config.embed_dim, config.embed_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, h, w, C]``."""
        added = self.conv(self.residual_group(x).permute(0, 3, 1, 2))
        return x + added.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """The normalisation in front of the groups. A patch is one LR pixel."""

    def __init__(self, width: int) -> None:
        """``width`` channels."""
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, h, w, C]``."""
        out: Tensor = self.norm(x)
        return out


class SwinIR(nn.Module):
    """What is to be added to the interpolated LR image. It begins at zero: the last convolution does."""

    def __init__(self, config: SwinIRConfig) -> None:
        """Build the network.

        Raises
        ------
        UserError : a scale that is no product of 2s and 3s, with the staged upsampler.
        """
        super().__init__()
        self.config = config
        c = config.embed_dim
        self.conv_first = nn.Conv2d(config.channels, c, 3, padding=1)
        self.patch_embed = PatchEmbed(c)
        self.layers = nn.ModuleList(ResidualGroup(config, depth) for depth in config.depths)
        self.norm = nn.LayerNorm(c)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.conv_after_body = nn.Conv2d(c, c, 3, padding=1)
        if config.upsampler == "staged":
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(c, STAGED_WIDTH, 3, padding=1), nn.LeakyReLU(SLOPE))
            self.upsample = nn.Sequential(*stages(STAGED_WIDTH, config.scale))
            self.conv_last = zero_conv(STAGED_WIDTH, config.channels)
        else:
            self.upsample = nn.Sequential(zero_conv(c, config.channels * config.scale**2), nn.PixelShuffle(config.scale))

    def forward(self, y: Tensor) -> Tensor:
        """``[B, C, h, w]`` in [0, 1] to ``[B, C, s h, s w]``. Sides are extended by reflection to multiples of the window."""
        height, width = y.shape[-2:]
        x = self.conv_first(extended(y, self.config.window_size))
        tokens = self.patch_embed(x.permute(0, 2, 3, 1))
        for layer in self.layers:
            tokens = layer(tokens)
        x = x + self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2))
        if self.config.upsampler == "staged":
            out = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        else:
            out = self.upsample(x)
        s = self.config.scale
        cut: Tensor = out[..., : s * height, : s * width]
        return cut


def extended(y: Tensor, multiple: int) -> Tensor:
    """``[B, C, h, w]``, extended at the ends of both axes to multiples: mirrored about the last sample, as often as needed."""
    for axis in (-2, -1):
        n = y.shape[axis]
        period = max(2 * n - 2, 1)
        place = [i % period for i in range(-(-n // multiple) * multiple)]
        if len(place) > n:
            index = torch.tensor([min(i, period - i) for i in place], device=y.device)
            y = y.index_select(axis, index)
    return y
