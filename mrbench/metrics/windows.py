"""Separable windows, applied by shifting and adding: exact to the last bit for any batch size."""

from __future__ import annotations

import math

from torch import Tensor

Taps = tuple[float, ...]


def gaussian(size: int, sigma: float) -> Taps:
    """``size`` samples of a Gaussian (``sigma`` in pixels) that sum to 1."""
    centre = (size - 1) / 2
    values = [math.exp(-((k - centre) ** 2) / (2 * sigma**2)) for k in range(size)]
    total = math.fsum(values)
    return tuple(v / total for v in values)


def uniform(size: int) -> Taps:
    """``size`` weights of 1."""
    return (1.0,) * size


def correlate_valid(images: Tensor, taps: Taps) -> Tensor:
    """``images [n, H, W]`` with the window ``taps x taps``, where it lies inside: ``[n, H - k + 1, W - k + 1]``.

    Weights that do not sum to 1 are normalised in the end, by a division: in float32, weights of 1/7 would not sum to 1,
    which E[x^2] - E[x]^2 would magnify.
    """
    height = images.shape[-2] - len(taps) + 1
    width = images.shape[-1] - len(taps) + 1
    rows = images[:, :height] * taps[0]
    for k in range(1, len(taps)):
        rows.add_(images[:, k : k + height], alpha=taps[k])
    result = rows[..., :width] * taps[0]
    for k in range(1, len(taps)):
        result.add_(rows[..., k : k + width], alpha=taps[k])
    total = sum(taps)
    return result if abs(total - 1) < 1e-9 else result.div_(total**2)
