"""Networks in a plain order of operations, to compare with: as published code computes them, step by step in the contiguous memory
layout (NCHW), with the masks and softmaxes of attention written out. Same weights, same results.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from mrbench_methods.networks import adm, swin, swin_unet
from torch import Tensor, nn
from torch.nn import functional as F


def plain_swin(network: nn.Module) -> nn.Module:
    """A copy of a network with Swin layers that computes step by step: separate window attention with a mask for every window."""
    return _plain(network)


def plain_adm(network: nn.Module) -> nn.Module:
    """A copy of an ADM network that computes step by step: attention as two products around a float32 softmax."""
    return _plain(network)


def _plain(network: nn.Module) -> nn.Module:
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()
    for module in plain.modules():
        module.__class__ = _PLAIN.get(type(module), module.__class__)
    return plain


def _float32_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps).to(x.dtype)


def _modulated(block: Any, h: Tensor, emb: Tensor) -> Tensor:
    """The second half of a residual block: time as scale and shift, in a product and a sum, or added before the norm."""
    e = block.emb_layers(emb).to(h.dtype)[:, :, None, None]
    norm, *rest = block.out_layers
    if block.scale_shift:
        scale, shift = e.chunk(2, dim=1)
        h = norm(h) * (1 + scale) + shift
    else:
        h = norm(h + e)
    for layer in rest:
        h = layer(h)
    return h


# -- Swin ----------------------------------------------------------------------------------------------------------
class _SwinNorm(swin.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return _float32_norm(self, x)


class _SwinResBlock(swin_unet.ResBlock):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = _modulated(self, self.in_layers(x), emb)
        out: Tensor = self.skip_connection(x) + h
        return out


class _WindowAttention(swin.WindowAttention):
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
        out = (logits.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(count, tokens, width)
        projected: Tensor = self.proj(out)
        return projected


class _SwinBlock(swin.SwinBlock):
    """Windows of one image after the other, and a mask for each of them, made anew for every image."""

    def _attention(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        w, s = self.window, self.shift
        rows, columns = height // w, breadth // w
        if s:
            x = torch.roll(x, (-s, -s), (2, 3))
        x = x.permute(0, 2, 3, 1).reshape(batch, rows, w, columns, w, width).permute(0, 1, 3, 2, 4, 5).contiguous()
        mask = None
        if s:  # the published mask: the last row of windows only
            mask = torch.zeros(rows * columns, w * w, w * w)
            mask[(rows - 1) * columns :] = swin.last_row_mask(w, s)
        windows = self.attn(x.reshape(-1, w * w, width), mask)
        x = windows.reshape(batch, rows, columns, w, w, width).permute(0, 1, 3, 2, 4, 5).contiguous()
        x = x.reshape(batch, height, breadth, width).permute(0, 3, 1, 2).contiguous()
        return torch.roll(x, (s, s), (2, 3)) if s else x


# -- ADM -----------------------------------------------------------------------------------------------------------
class _ADMNorm(adm.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return _float32_norm(self, x)


class _ADMResBlock(adm.ResBlock):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = activation(norm(x))
        if self.step:
            resize = adm.doubled if self.step > 0 else adm.halved
            h, x = resize(h), resize(x)
        h = _modulated(self, convolution(h), emb)
        out: Tensor = self.skip_connection(x) + h
        return out


class _ADMAttention(adm.Attention):
    """``q`` and ``k`` times ``d^-1/4`` each, their product, a softmax in float32, the product with ``v``."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height * width)
        qkv = self.qkv(self.norm(x))
        each = channels // self.heads
        if self.new_order:
            q, k, v = (part.reshape(batch * self.heads, each, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(batch * self.heads, 3 * each, -1).split(each, dim=1)
        scale = each**-0.25
        weights = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weights = weights.float().softmax(-1).to(weights.dtype)
        mixed = torch.einsum("bts,bcs->bct", weights, v).reshape(batch, channels, -1)
        out: Tensor = x + self.proj_out(mixed)
        return out.reshape(batch, channels, height, width)


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    swin.GroupNorm: _SwinNorm,
    swin_unet.ResBlock: _SwinResBlock,
    swin.WindowAttention: _WindowAttention,
    swin.SwinBlock: _SwinBlock,
    adm.GroupNorm: _ADMNorm,
    adm.ResBlock: _ADMResBlock,
    adm.Attention: _ADMAttention,
}
