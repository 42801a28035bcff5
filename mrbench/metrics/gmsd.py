"""GMSD (Xue 2014, eqs 3 to 6): deviation of the gradient magnitude similarity.

GMS = (2 m1 m2 + c) / (m1^2 + m2^2 + c) is computed as 1 - (m1 - m2)^2 / (m1^2 + m2^2 + c): exactly 1 for equal gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mrbench.cards import Options
from mrbench.metrics.base import Chunk, ImageMetric, Mask, even, example_pair, expect, halved, total
from mrbench.metrics.cards import GMSD_C, GmsdOptions
from mrbench.metrics.kernels import Kernel


def pooled(images: Tensor) -> Tensor:
    """Means of 2x2 blocks of ``[n, H, W]`` (a zero row or column after odd sides), with a zero border of one pixel."""
    return F.pad(halved(even(images)), [1, 1, 1, 1])


def gradient_magnitude(p: Tensor) -> Tensor:
    """Magnitude of the Prewitt/3 gradient of bordered images ``[n, h + 2, w + 2]``: ``[n, h, w]``."""
    across = p[:, :-2] + p[:, 1:-1] + p[:, 2:]
    down = p[..., :-2] + p[..., 1:-1] + p[..., 2:]
    gx = (across[..., 2:] - across[..., :-2]) / 3
    gy = (down[:, 2:] - down[:, :-2]) / 3
    return torch.sqrt(gx * gx + gy * gy)


def similarity(p: Tensor, magnitude: Tensor, c: float) -> Tensor:
    """GMS of a pooled estimate ``[n, h + 2, w + 2]`` and the ground truth's gradient ``magnitude [n, h, w]``."""
    m = gradient_magnitude(p)
    d = m - magnitude
    return 1 - d * d / (m * m + magnitude * magnitude + c)


def gms_map(estimate: Tensor, truth: Tensor, c: float = GMSD_C) -> Tensor:
    """Gradient magnitude similarity of images ``[n, H, W]`` in [0, 1], as a map of half the size (rounded up)."""
    return similarity(pooled(estimate), gradient_magnitude(pooled(truth)), c)


class Gmsd(ImageMetric):
    """Standard deviation of the GMS map, and the same over the foreground."""

    name = "gmsd"
    smallest = 4

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = expect(options, GmsdOptions)
        self._kernel = Kernel(similarity, self._example)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The GMS map."""
        return (self._kernel,)

    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        return (gradient_magnitude(pooled(truth)),)

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        gms = self._kernel(pooled(estimate), chunk.state[0], self._options.c).double()
        count = torch.tensor(float(gms[0].numel()), dtype=torch.float64, device=gms.device)
        whole = self._deviation(gms, None, count)
        return whole, None if chunk.mask is None else self._deviation(gms, chunk.mask.weights, chunk.mask.count)

    def _deviation(self, gms: Tensor, weights: Tensor | None, count: Tensor) -> Tensor:
        mean = total(gms if weights is None else gms * weights) / count
        squares = (gms - mean[:, None, None]).square_()
        if weights is not None:
            squares.mul_(weights)
        return (total(squares) / (count - self._options.ddof)).sqrt()

    def _weights(self, mask: Tensor) -> Tensor:
        return (halved(even(mask)) >= 0.5).to(mask.dtype)

    def _example(self, device: torch.device) -> tuple[object, ...]:
        y, x = example_pair(device)
        return pooled(y), gradient_magnitude(pooled(x)), self._options.c
