"""Magnitude-preserving layers of EDM2 (Karras et al. 2024, arXiv:2312.02696), written from its equations.

Every layer keeps the expected magnitude of its input: unit variance in, unit variance out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-4
SILU_GAIN = 0.596  # root mean square of silu of a standard normal number (eq. 81)


def normalize(x: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """``x / (1e-4 + RMS(x))`` over ``dims`` (default: all but the first), the magnitude in float32 (eq. 66)."""
    dims = tuple(range(1, x.ndim)) if dims is None else tuple(dims)
    count = math.prod(x.shape[d] for d in dims)
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    scaled: Tensor = x / (norm * count**-0.5 + EPSILON).to(x.dtype)
    return scaled


def mp_silu(x: Tensor) -> Tensor:
    """``silu(x) / 0.596`` (eq. 81)."""
    return F.silu(x) / SILU_GAIN


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """``((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)`` (eq. 88)."""
    return a.lerp(b.to(a.dtype), t) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Concatenation along the channels, ``b`` weighing ``t`` of the whole, whatever the widths (eq. 103)."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale / math.sqrt(na) * (1 - t)), b * (scale / math.sqrt(nb) * t)], dim=1)


def resample_down(x: Tensor) -> Tensor:
    """Means of blocks of 2 x 2 pixels (the filter [1, 1])."""
    return F.avg_pool2d(x, 2)


def resample_up(x: Tensor) -> Tensor:
    """Every pixel doubled (the transpose of :func:`resample_down`, times 4)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class MPFourier(nn.Module):
    """Random Fourier features ``sqrt(2) cos(x f + phi)`` of a number (eq. 75); ``f`` and ``phi`` belong to the weights."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int, bandwidth: float = 1.0) -> None:
        """Draw the frequencies (normal, times ``2 pi bandwidth``) and phases (uniform)."""
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * bandwidth * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[B] -> [B, channels]``, float32."""
        angles = x.float()[:, None] * self.freqs.float() + self.phases.float()
        return math.sqrt(2.0) * angles.cos()


class MPConv(nn.Module):
    """Convolution (or, with an empty kernel, a linear layer) whose weights have unit magnitude, without bias (eqs. 47, 66).

    In train mode the stored weight itself is normalised before it is used (forced weight normalisation): an optimiser's step
    then turns it, and cannot make it grow.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int] = ()) -> None:
        """Weights ``[out, in, *kernel]``, standard normal."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *kernel))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """``gain`` times the convolution with the normalised weights, of the size of ``x``."""
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight.float()))
        w = normalize(self.weight.float()) * (gain / math.sqrt(self.weight[0].numel()))
        w = w.to(x.dtype)
        if w.ndim == 2:
            return x @ w.t()
        return F.conv2d(x, w, padding=w.shape[-1] // 2)
