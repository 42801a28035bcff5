"""Diffusion U-Net whose residual blocks attend in windows: the 2-D network of Pan et al. 2023 (Phys. Med. Biol. 68, 105004).

The U-Net is that of guided-diffusion (Dhariwal 2021), the attention that of Swin transformers (Liu 2021, arXiv:2103.14030) in the
form that MONAI gives it. Keys are those of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .swin import BLOCKED, relative_position_index
from .swin_ddpm_options import GROUPS, SwinDDPMConfig
from .swin_unet import timestep_embedding


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a learned bias per relative position."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        """``width`` channels in ``heads`` heads."""
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[B, windows, n, C]``; ``mask`` ``[windows, n, n]`` is added to the logits.

        In windows with fewer tokens than the nominal ones the table is read with the first rows and columns of the nominal
        index, as published (which is not the geometry of the smaller window).
        """
        tokens, width = x.shape[-2:]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, width // self.heads)).permute(3, 0, 1, 4, 2, 5)
        index = self.relative_position_index[:tokens, :tokens]
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)  # [heads, n, n]
        if mask is not None:
            bias = bias + mask[:, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        projected: Tensor = self.proj(out.transpose(2, 3).flatten(3))
        return projected


class Mlp(nn.Module):
    """Two layers around a GELU, four times as wide."""

    def __init__(self, width: int) -> None:
        """``width`` channels in and out."""
        super().__init__()
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]``."""
        out: Tensor = self.linear2(F.gelu(self.linear1(x)))
        return out


class SwinBlock(nn.Module):
    """Window attention and MLP with pre-normalisation on ``[B, H, W, C]``."""

    def __init__(
        self, width: int, heads: int, window: int, shift: int, mlp: nn.Module | None = None, shrink: bool = True
    ) -> None:
        """``mlp``: on ``[..., C]``, by default :class:`Mlp`.

        ``shrink``: an axis that is not longer than the window has one window of its own length, never shifted. Without, windows
        always have their nominal size.
        """
        super().__init__()
        self.window, self.shift, self.shrink = window, shift, shrink
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width) if mlp is None else mlp

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]``; sides that are no multiple of the window are extended with zeros for the attention."""
        x = x + self._attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _attention(self, x: Tensor) -> Tensor:
        batch, *size, width = x.shape
        windows = [min(self.window, n) if self.shrink else self.window for n in size]
        shifts = [self.shift if n > self.window or not self.shrink else 0 for n in size]
        padded = [-(-n // w) * w for n, w in zip(size, windows, strict=True)]
        x = F.pad(x, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0]))
        mask = None
        if any(shifts):
            x = x.roll([-s for s in shifts], (1, 2))
            mask = shift_mask(padded, windows, shifts, x.device)
        (h, w), (rows, columns) = windows, [n // k for n, k in zip(padded, windows, strict=True)]
        x = x.reshape(batch, rows, h, columns, w, width).transpose(2, 3).reshape(batch, rows * columns, h * w, width)
        x = self.attn(x, mask)
        x = x.reshape(batch, rows, columns, h, w, width).transpose(2, 3).reshape(batch, *padded, width)
        if any(shifts):
            x = x.roll(shifts, (1, 2))
        return x[:, : size[0], : size[1]]


def shift_mask(size: Sequence[int], windows: Sequence[int], shifts: Sequence[int], device: torch.device) -> Tensor:
    """``[windows, n, n]``: -100 between tokens that only the cyclic shift brought together (Liu 2021, figure 4)."""
    labels = []
    for n, w, s in zip(size, windows, shifts, strict=True):
        place = torch.arange(n, device=device)
        labels.append((place >= n - w).long() + (place >= n - s).long() if s else torch.zeros_like(place))
    regions = 3 * labels[0][:, None] + labels[1][None, :]
    (h, w), rows, columns = windows, size[0] // windows[0], size[1] // windows[1]
    tokens = regions.reshape(rows, h, columns, w).transpose(1, 2).reshape(rows * columns, h * w)
    return BLOCKED * (tokens[:, :, None] != tokens[:, None, :]).float()


class ResBlock(nn.Module):
    """Features, scaled and shifted by the time; then a convolution (plain), or two Swin blocks."""

    def __init__(self, channels: int, out_channels: int, time: int, swin: tuple[int, int] | None) -> None:
        """``swin``: heads and window, or ``None``."""
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * out_channels))
        norm = nn.GroupNorm(GROUPS, out_channels)
        self.swin_layer: nn.ModuleList | None = None
        if swin is None:
            last = nn.Conv2d(out_channels, out_channels, 3, padding=1)
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)
            self.out_layers = nn.Sequential(norm, nn.SiLU(), nn.Identity(), last)
        else:
            heads, window = swin
            self.out_layers = nn.Sequential(norm)
            self.swin_layer = nn.ModuleList(SwinBlock(out_channels, heads, window, shift) for shift in (0, window // 2))
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``[B, C, H, W]`` and ``[B, time]``."""
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, dim=1)
        h = self.out_layers[0](self.in_layers(x)) * (1 + scale) + shift
        if self.swin_layer is None:
            h = self.out_layers[1:](h)
        else:
            h = h.permute(0, 2, 3, 1)
            for block in self.swin_layer:
                h = block(h)
            h = h.permute(0, 3, 1, 2)
        return self.skip_connection(x) + h  # type: ignore[no-any-return]


class Resample(nn.Module):
    """Half or twice the side by nearest neighbours, then a convolution."""

    def __init__(self, channels: int, factor: float) -> None:
        """``factor`` 0.5 or 2."""
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``[B, C, H, W]``; the time is not used."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=self.factor, mode="nearest"))
        return out


class SwinDDPM(nn.Module):
    """``[B, in_channels, H, W]`` and times ``[B]`` to ``[B, out_channels, H, W]``."""

    def __init__(self, config: SwinDDPMConfig) -> None:
        """Build the network; its last layers begin at zero."""
        super().__init__()
        self.config = config
        c, time = config.model_channels, 4 * config.model_channels
        self.time_embed = nn.Sequential(nn.Linear(c, time), nn.SiLU(), nn.Linear(time, time))
        width, packed = config.channel_mult[0] * c, config.unshuffle**2
        first = nn.Conv2d(config.in_channels * packed, width, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.ModuleList([first])])
        skips, levels = [width], len(config.channel_mult)
        for level in range(levels):
            for _ in range(config.num_res_blocks[level]):
                out = config.channel_mult[level] * c
                self.input_blocks.append(nn.ModuleList([ResBlock(width, out, time, _swin(config, level))]))
                width = out
                skips.append(width)
            if level < levels - 1:
                self.input_blocks.append(nn.ModuleList([Resample(width, 0.5)]))
                skips.append(width)
        deepest = _swin(config, levels - 1)
        self.middle_block = nn.ModuleList([ResBlock(width, width, time, deepest) for _ in range(2)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(levels)):
            for number in range(config.num_res_blocks[level] + 1):
                out = config.channel_mult[level] * c
                block = nn.ModuleList([ResBlock(width + skips.pop(), out, time, _swin(config, level))])
                width = out
                if level and number == config.num_res_blocks[level]:
                    block.append(Resample(width, 2))
                self.output_blocks.append(block)
        last = nn.Conv2d(width, config.out_channels * packed, 3, padding=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), last)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        """Sides are multiples of ``config.multiple``; times are in units of 1000 steps, not necessarily whole."""
        time = self.time_embed(timestep_embedding(times, self.config.model_channels))
        h = self.input_blocks[0][0](F.pixel_unshuffle(x, self.config.unshuffle))  # type: ignore[index]
        skips = [h]
        for block in self.input_blocks[1:]:
            h = block[0](h, time)  # type: ignore[index]
            skips.append(h)
        for layer in self.middle_block:
            h = layer(h, time)
        for block in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            for layer in block:  # type: ignore[attr-defined]
                h = layer(h, time)
        return F.pixel_shuffle(self.out(h), self.config.unshuffle)


def _swin(config: SwinDDPMConfig, level: int) -> tuple[int, int] | None:
    """Heads and window of a level, if it has Swin blocks."""
    attends = config.image_size // 2**level in config.attention_resolutions
    return (config.num_heads[level], config.window_size[level]) if attends else None
