"""Swin layer on feature maps ``[B, C, H, W]``, as in ResShift, SinSR and Res-SRDiff.

Liu et al. 2021 (Swin transformer, arXiv:2103.14030) with group normalisation, convolutional MLP and a shifted-window mask
that differs from the paper's: see :func:`last_row_mask`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .swin_unet_options import GROUPS

BLOCKED = -100.0  # added to the logits of token pairs that must not see each other
LARGE_MAP = 1024  # pixels from which torch's group norm of bfloat16 maps is faster than that of a float32 copy


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group normalisation of ``[B, C, ...]`` with moments and sums in float32, same type as given.

    On CPUs torch computes so inside its kernel for bfloat16 (and rounds once, to the same numbers); its backward pass, small maps and
    other devices are better served by a float32 copy.
    """
    parts = (norm.num_groups, norm.weight, norm.bias, norm.eps)
    recorded = torch.is_grad_enabled() and (x.requires_grad or norm.weight.requires_grad)
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not recorded and x.shape[2:].numel() >= LARGE_MAP:
        return F.group_norm(x, *parts)
    return F.group_norm(x.float(), *parts).to(x.dtype)


class GroupNorm(nn.GroupNorm):
    """Group normalisation computed in float32 whatever the input; 32 groups, eps 1e-5."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        """For ``channels`` channels."""
        super().__init__(GROUPS, channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``, same type as given."""
        return group_norm(x, self)


def last_row_mask(window: int, shift: int) -> Tensor:
    """``[w^2, w^2]``: what the published networks add to the logits of the windows in the *last row of windows*.

    The textbook mask separates tokens that the cyclic shift brought together, along both axes and in the last row and
    the last column of windows. The published code looks the *row* label up with the token's *column* index ``n mod w``, so that
    in the last row of windows columns ``< w - s`` and ``>= w - s`` do not see each other, and nothing is masked anywhere else.
    Weights were trained with this mask, so it belongs to the network.
    """
    kept = torch.arange(window * window) % window < window - shift
    return BLOCKED * (kept[:, None] != kept[None, :]).float()


def published_mask(resolution: int, window: int, shift: int) -> Tensor:
    """``[(resolution / w)^2, w^2, w^2]``: the buffer ``attn_mask`` of published checkpoints. Nothing reads it."""
    rows = resolution // window
    mask = torch.zeros(rows * rows, window**2, window**2)
    mask[(rows - 1) * rows :] = last_row_mask(window, shift)
    return mask


def relative_position_index(window: int) -> Tensor:
    """``[w^2, w^2]``: row of the bias table for every pair of tokens, ``(ri-rj+w-1)(2w-1) + (ci-cj+w-1)``."""
    token = torch.arange(window * window)
    row, column = token // window, token % window
    vertical = row[:, None] - row[None, :] + window - 1
    horizontal = column[:, None] - column[None, :] + window - 1
    return vertical * (2 * window - 1) + horizontal


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias per relative position."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        """``width`` channels in ``heads`` heads, ``window^2`` tokens."""
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, windows: Tensor, mask: Tensor | None = None, masked: int = 0) -> Tensor:
        """``[n, w^2, C] -> [n, w^2, C]``: ``softmax(q k^T / sqrt(d) + bias) v``; the last ``masked`` windows also get ``mask``."""
        n, tokens, width = windows.shape
        q, k, v = (
            self.qkv(windows).unflatten(2, (3, self.heads, width // self.heads)).permute(2, 0, 3, 1, 4)
        )  # [n, heads, w^2, d]
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if mask is None:
            out = _attend(q, k, v, bias)
        else:
            free = n - masked
            parts = [_attend(q[free:], k[free:], v[free:], bias + mask)]
            if free:
                parts.insert(0, _attend(q[:free], k[:free], v[:free], bias))
            out = torch.cat(parts)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(n, tokens, width))
        return projected


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


class Mlp(nn.Module):
    """Two 1x1 convolutions around an exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        """``width -> hidden -> width`` channels."""
        super().__init__()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwinBlock(nn.Module):
    """Window attention and MLP, each with pre-normalisation and a residual connection."""

    border: Tensor

    def __init__(self, width: int, heads: int, resolution: int, window: int, shifted: bool, mlp_ratio: float) -> None:
        """A block whose nominal ``resolution`` is at most ``window`` has one window of that side, never shifted."""
        super().__init__()
        self.window = min(window, resolution)
        self.shift = window // 2 if shifted and resolution > window else 0
        if self.shift:
            self.register_buffer("attn_mask", published_mask(resolution, self.window, self.shift))
            self.register_buffer("border", last_row_mask(self.window, self.shift), persistent=False)
        self.norm1 = GroupNorm(width)
        self.attn = WindowAttention(width, heads, self.window)
        self.norm2 = GroupNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``; H and W are multiples of the window."""
        x = x + self._attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _attention(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        w, s = self.window, self.shift
        rows, columns = height // w, breadth // w
        if s:
            x = x.roll((-s, -s), (2, 3))
        x = x.reshape(batch, width, rows, w, columns, w)
        windows = x.permute(2, 0, 4, 3, 5, 1).reshape(-1, w * w, width)  # rows of windows outermost: the last are masked
        windows = self.attn(windows, self.border, batch * columns) if s else self.attn(windows)
        x = windows.reshape(rows, batch, columns, w, w, width).permute(1, 0, 3, 2, 4, 5).reshape(batch, height, breadth, width)
        x = x.permute(0, 3, 1, 2)  # channels stay side by side in memory, as the windows have them
        return x.roll((s, s), (2, 3)) if s else x


class Projection(nn.Module):
    """A 1x1 convolution under the key ``proj``."""

    def __init__(self, channels: int, out_channels: int) -> None:
        """From ``channels`` to ``out_channels``."""
        super().__init__()
        self.proj = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        out: Tensor = self.proj(x)
        return out


class SwinLayer(nn.Module):
    """Into the Swin width, through plain and shifted blocks in turn, and back. There is no residual around it."""

    def __init__(
        self, channels: int, width: int, heads: int, resolution: int, window: int, depth: int, mlp_ratio: float
    ) -> None:
        """``channels`` in and out, ``width`` inside."""
        super().__init__()
        self.patch_embed = Projection(channels, width)
        self.patch_unembed = Projection(width, channels)
        self.blocks = nn.ModuleList(SwinBlock(width, heads, resolution, window, i % 2 == 1, mlp_ratio) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.patch_unembed(x)
        return out
