"""HaarPSI (Reisenhofer 2018) of grey images.

Undecimated Haar wavelets of three scales; the similarity of the two finer ones is weighted by the magnitude of the
coarsest. The local similarity (2ab + C) / (a^2 + b^2 + C) is computed as 1 - (a - b)^2 / (a^2 + b^2 + C).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mrbench.cards import Options
from mrbench.metrics.base import Chunk, ImageMetric, Mask, even, example_pair, expect, halved
from mrbench.metrics.cards import HaarPsiOptions
from mrbench.metrics.kernels import Kernel

_BEFORE, _AFTER = 3, 4  # zero border of the 8-pixel filter, so that every filter is centred as in "same" convolution


def pooled(images: Tensor) -> Tensor:
    """``[n, H, W]`` in [0, 1] scaled to 0..255, averaged over 2x2 blocks (a zero row or column after odd sides), bordered."""
    return F.pad(halved(even(images)) * 255, [_BEFORE, _AFTER, _BEFORE, _AFTER])


def haar_magnitudes(p: Tensor) -> Tensor:
    """Magnitudes of Haar coefficients of bordered images ``[n, h + 7, w + 7]``: ``[n, 3 scales, 2 directions, h, w]``.

    The filter of scale s is 2^-s on a square of 2^s pixels, negative on one half.
    """
    height, width = p.shape[-2] - _BEFORE - _AFTER, p.shape[-1] - _BEFORE - _AFTER
    down = p  # sums of `half` rows
    across = p  # sums of `half` columns
    found = []
    for half in (1, 2, 4):
        first = _BEFORE + 1 - half  # where the window of the first pixel starts
        vertical = down[:, first : first + height] - down[:, first + half : first + half + height]
        horizontal = across[..., first : first + width] - across[..., first + half : first + half + width]
        for step in (1, 2, 4):
            if step <= half:  # sums of 2 * half pixels along the other axis, by doubling
                vertical = vertical[..., :-step] + vertical[..., step:]
                horizontal = horizontal[:, :-step] + horizontal[:, step:]
        vertical = vertical[..., first : first + width] / (2 * half)
        horizontal = horizontal[:, first : first + height] / (2 * half)
        found.append(torch.stack([vertical.abs(), horizontal.abs()], 1))
        down = down[:, :-half] + down[:, half:]
        across = across[..., :-half] + across[..., half:]
    return torch.stack(found, 1)


def local_similarity(p: Tensor, truth: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Local similarity and weight maps ``[n, 2, h, w]``.

    Parameters
    ----------
    p : the estimate as given by :func:`pooled`. truth : magnitudes of the ground truth, from :func:`haar_magnitudes`.
    """
    found = haar_magnitudes(p)
    a, b = found[:, :2], truth[:, :2]
    d = a - b
    similarity = (1 - d * d / (a * a + b * b + c)).sum(1) / 2
    return similarity, torch.maximum(found[:, 2], truth[:, 2])


class HaarPsi(ImageMetric):
    """HaarPSI: weighted mean of logistic(alpha * similarity), through the inverse logistic, over alpha, squared.

    Two images without any structure (all zero) give 1.
    """

    name = "haarpsi"
    foreground = False
    smallest = 16

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = expect(options, HaarPsiOptions)
        self._kernel = Kernel(local_similarity, self._example)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The local similarity and weight maps."""
        return (self._kernel,)

    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        return (haar_magnitudes(pooled(truth)),)

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        alpha = self._options.alpha
        similarity, weights = self._kernel(pooled(estimate), chunk.state[0], self._options.c)
        weights = weights.double()
        logistic = torch.sigmoid(similarity.double() * alpha)
        sums = weights.flatten(1).sum(1)
        mean = (logistic * weights).flatten(1).sum(1) / sums
        value = (torch.logit(mean) / alpha).square()
        return torch.where(sums == 0, 1.0, value), None  # not "sums > 0": a NaN stays one

    def _example(self, device: torch.device) -> tuple[object, ...]:
        y, x = example_pair(device)
        return pooled(y), haar_magnitudes(pooled(x)), self._options.c
