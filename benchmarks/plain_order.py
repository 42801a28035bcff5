"""Networks in a plain order of operations, to compare with: separate window attention with the mask of every window, NCHW, no
fused attention. Same weights, same results.
"""

from __future__ import annotations

import copy

import torch
from mrbench_methods.networks.swin import SwinBlock, WindowAttention, published_mask
from torch import Tensor, nn


def plain_swin(network: nn.Module) -> nn.Module:
    """A copy of a network with Swin layers that computes step by step, in the contiguous memory layout."""
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in plain.modules():
        if isinstance(module, SwinBlock):
            module.__class__ = _PlainBlock
        elif isinstance(module, WindowAttention):
            module.__class__ = _PlainAttention
    return plain


class _PlainAttention(WindowAttention):
    """``softmax(q k^T / sqrt(d) + bias + mask) v``, every product and sum by itself."""

    def forward(self, windows: Tensor, mask: Tensor | None = None, masked: int = 0) -> Tensor:
        """``[B n, w^2, C]``; ``mask``: ``[n, w^2, w^2]`` of all windows of an image."""
        count, tokens, width = windows.shape
        qkv = self.qkv(windows).reshape(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        logits = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        logits = logits + bias.reshape(tokens, tokens, -1).permute(2, 0, 1).contiguous()[None]
        if mask is not None:
            n = len(mask)
            logits = logits.reshape(count // n, n, self.heads, tokens, tokens) + mask[None, :, None].to(logits.dtype)
            logits = logits.reshape(count, self.heads, tokens, tokens)
        out = (logits.softmax(-1) @ v).transpose(1, 2).reshape(count, tokens, width)
        projected: Tensor = self.proj(out)
        return projected


class _PlainBlock(SwinBlock):
    """Windows of one image after the other, and a mask for each of them, made anew for every image size."""

    def _attention(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        w, s = self.window, self.shift
        rows, columns = height // w, breadth // w
        if s:
            x = torch.roll(x, (-s, -s), (2, 3))
        x = x.permute(0, 2, 3, 1).reshape(batch, rows, w, columns, w, width).permute(0, 1, 3, 2, 4, 5).contiguous()
        mask = None
        if s:  # the published mask: the last row of windows only
            square = published_mask(rows * w, w, s)[-rows:][:1] if rows else None
            assert square is not None
            mask = torch.zeros(rows * columns, w * w, w * w)
            mask[(rows - 1) * columns :] = square
        windows = self.attn(x.reshape(-1, w * w, width), mask)
        x = windows.reshape(batch, rows, columns, w, w, width).permute(0, 1, 3, 2, 4, 5).contiguous()
        x = x.reshape(batch, height, breadth, width).permute(0, 3, 1, 2).contiguous()
        return torch.roll(x, (s, s), (2, 3)) if s else x
