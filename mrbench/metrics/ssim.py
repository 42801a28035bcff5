"""SSIM (Wang 2004) and MS-SSIM (Wang 2003).

With d = y - x, blur E and the window's moments, the two factors of SSIM are computed as

    luminance           (2 mx my + C1) / (mx^2 + my^2 + C1)  =  1 - E[d]^2 / (mx^2 + my^2 + C1)
    contrast-structure  (2 sxy + C2) / (sx^2 + sy^2 + C2)    =  1 - (E[d^2] - E[d]^2) / (sx^2 + sy^2 + C2)

which are exactly 1 for identical images, and need three blurred maps per estimate (d, d^2, y^2), as those of x are known.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mrbench.cards import Options
from mrbench.metrics.base import Chunk, ImageMetric, Mask, block_mask, example_pair, expect, halved, quantised, total
from mrbench.metrics.cards import MsSsimOptions, SsimOptions
from mrbench.metrics.kernels import Kernel
from mrbench.metrics.windows import Taps, correlate_valid, gaussian, uniform

K1, K2 = 0.01, 0.03  # Wang 2004
GAUSSIAN = gaussian(11, 1.5)
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003
POOL_SIDE = 256  # the authors' ssim.m averages blocks of round(min(H, W) / 256) pixels


def ssim_terms(
    y: Tensor, x: Tensor, mean_x: Tensor, square_x: Tensor, c1: Tensor, c2: Tensor, taps: Taps, unbias: float
) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM as maps ``[n, H - k + 1, W - k + 1]``: luminance and contrast-structure.

    Parameters
    ----------
    y, x : estimate and ground truth ``[n, H, W]``. mean_x, square_x : E[x] and E[x^2], from :func:`moments`.
    c1, c2 : ``[n, 1, 1]``. taps : the window of k weights. unbias : factor on all (co)variances.
    """
    d = y - x
    mean_d = correlate_valid(d, taps)
    square_d = correlate_valid(d.mul_(d), taps)
    square_y = correlate_valid(y * y, taps)
    mean_y = mean_x + mean_d
    means = mean_x * mean_x + mean_y * mean_y
    mean_d = mean_d * mean_d
    variances = (square_x + square_y - means) * unbias
    luminance = 1 - mean_d / (means + c1)
    structure = 1 - (square_d - mean_d) * unbias / (variances + c2)
    return luminance, structure


def ssim_product(
    y: Tensor, x: Tensor, mean_x: Tensor, square_x: Tensor, c1: Tensor, c2: Tensor, taps: Taps, unbias: float
) -> Tensor:
    """The SSIM map; parameters of :func:`ssim_terms`."""
    luminance, structure = ssim_terms(y, x, mean_x, square_x, c1, c2, taps, unbias)
    return luminance * structure


def moments(x: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
    """E[x] and E[x^2] of ``x [n, H, W]`` under the window."""
    return correlate_valid(x, taps), correlate_valid(x * x, taps)


def pooling_factor(height: int, width: int) -> int:
    """Side of the blocks that ``downsample=auto`` averages (halves are rounded to even)."""
    return max(1, round(min(height, width) / POOL_SIDE))


def constants(x: Tensor, data_range: float | Literal["refmax"]) -> tuple[Tensor, Tensor]:
    """C1 = (K1 L)^2 and C2 = (K2 L)^2 for each of ``x [n, H, W]``, as ``[n, 1, 1]``."""
    peak = x.amax((1, 2), keepdim=True) if data_range == "refmax" else x.new_full((len(x), 1, 1), data_range)
    return (K1 * peak) ** 2, (K2 * peak) ** 2


class Ssim(ImageMetric):
    """Mean SSIM (Wang 2004, eqs 13 to 17), and the mean of the same map inside the foreground."""

    name = "ssim"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = chosen = expect(options, SsimOptions)
        self._taps = GAUSSIAN if chosen.window == "gauss11" else uniform(7)
        pixels = len(self._taps) ** 2
        self._unbias = 1.0 if chosen.covariance == "population" else pixels / (pixels - 1)
        self._kernel = Kernel(ssim_product, lambda device: _sample(device, self._taps, self._unbias))
        self._moments = Kernel(moments, lambda device: (example_pair(device)[1], self._taps))
        self.smallest = len(self._taps)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The SSIM map, and the ground truth's moments."""
        return self._kernel, self._moments

    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        c1, c2 = constants(self._quantised(truth), self._options.data_range)
        x = self._given(truth)
        return x, *self._moments(x, self._taps), c1, c2

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        return chunk.means(self._kernel(self._given(estimate), *chunk.state, self._taps, self._unbias))

    def _quantised(self, images: Tensor) -> Tensor:
        return quantised(images) if self._options.quantise == "uint8" else images

    def _given(self, images: Tensor) -> Tensor:
        """Images as compared: rounded, pooled and padded as the options say."""
        images = self._quantised(images)
        factor = self._factor(images)
        if factor > 1:
            images = F.avg_pool2d(images[:, None], factor)[:, 0]
        if self._options.border == "reflect":
            images = F.pad(images, [len(self._taps) // 2] * 4, mode="reflect")
        return images

    def _factor(self, images: Tensor) -> int:
        return pooling_factor(*images.shape[-2:]) if self._options.downsample == "auto" else 1

    def _weights(self, mask: Tensor) -> Tensor:
        factor = self._factor(mask)
        if factor > 1:
            mask = block_mask(mask, factor)
        r = len(self._taps) // 2
        return mask if self._options.border == "reflect" else mask[:, r:-r, r:-r]


class MsSsim(ImageMetric):
    """MS-SSIM (Wang 2003, eq. 7): contrast-structure at scales 1 to 4, the whole SSIM at scale 5.

    Between scales: means of 2x2 blocks, the last row and column of odd sides dropped. Negative means count as 0.
    """

    name = "ms_ssim"
    foreground = False
    smallest = len(GAUSSIAN) * 2 ** (len(SCALE_WEIGHTS) - 1)  # the window must fit into the fifth scale

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = expect(options, MsSsimOptions)
        self._kernel = Kernel(ssim_terms, lambda device: _sample(device, GAUSSIAN, 1.0))
        self._moments = Kernel(moments, lambda device: (example_pair(device)[1], GAUSSIAN))

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The two SSIM factors, and the ground truth's moments, used at all scales."""
        return self._kernel, self._moments

    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        state = list(constants(truth, self._options.data_range))
        for x in _pyramid(truth):
            state += [x, *self._moments(x, GAUSSIAN)]
        return tuple(state)

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        c1, c2, *levels = chunk.state
        value: Tensor | None = None
        for s, y in enumerate(_pyramid(estimate)):
            luminance, structure = self._kernel(y, *levels[3 * s : 3 * s + 3], c1, c2, GAUSSIAN, 1.0)
            similarity = structure if s < len(SCALE_WEIGHTS) - 1 else luminance * structure
            mean = (total(similarity) / similarity[0].numel()).clamp_min(0)
            factor = mean ** SCALE_WEIGHTS[s]
            value = factor if value is None else value * factor
        assert value is not None
        return value, None


def _pyramid(images: Tensor) -> list[Tensor]:
    """``images [n, H, W]`` at the five scales, finest first."""
    levels = [images]
    while len(levels) < len(SCALE_WEIGHTS):
        finer = levels[-1]
        height, width = finer.shape[-2] // 2 * 2, finer.shape[-1] // 2 * 2
        levels.append(halved(finer[:, :height, :width]))
    return levels


def _sample(device: torch.device, taps: Taps, unbias: float) -> tuple[object, ...]:
    """Arguments of the kernels for a pair of random images."""
    y, x = example_pair(device)
    return y, x, *moments(x, taps), *constants(x, 1.0), taps, unbias
