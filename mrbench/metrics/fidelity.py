"""Pixel-wise fidelity: PSNR and NMSE."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.metrics.base import Chunk, ImageMetric, Mask, Reference, expect, quantised, squared_norm
from mrbench.metrics.cards import PsnrOptions


class Psnr(ImageMetric):
    """PSNR = 10 log10(L^2 / MSE) in dB, the MSE over all pixels (and colour channels) of an image.

    Identical images give inf; an empty mask gives NaN.
    """

    name = "psnr"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = expect(options, PsnrOptions)

    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        truth = self._given(truth)
        return (truth, truth.flatten(1).amax(1).double()) if self._options.data_range == "refmax" else (truth,)

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        difference = self._given(estimate) - chunk.state[0]
        whole = squared_norm(difference) / difference[0].numel()
        if chunk.mask is None:
            return whole, None
        return whole, squared_norm(difference * chunk.mask.weights) / chunk.mask.count

    def __call__(self, estimate: Tensor, reference: Reference) -> dict[str, Tensor]:
        """``{"": [B]}`` in dB, with a mask also ``"_fg"``."""
        errors = super().__call__(estimate, reference)
        peak: Tensor | float = 0.0
        if self._options.data_range == "refmax":
            peak = reference.gathered(1).amax(1)
            peak = torch.where(peak > 0, peak, torch.nan)
        else:
            peak = self._options.data_range
        return {key: _decibel(mse + self._options.epsilon, peak) for key, mse in errors.items()}

    def _given(self, images: Tensor) -> Tensor:
        return quantised(images) if self._options.quantise == "uint8" else images


class Nmse(ImageMetric):
    """NMSE = ||x - y||^2 / ||x||^2 of the ground truth x; NaN where x is all zero (in the mask)."""

    name = "nmse"

    def _state(self, truth: Tensor, mask: Mask | None) -> tuple[Tensor, ...]:
        energy = squared_norm(truth)
        return truth, energy, energy if mask is None else squared_norm(truth * mask.weights)

    def _score(self, estimate: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        difference = estimate - chunk.state[0]
        return squared_norm(difference), None if chunk.mask is None else squared_norm(difference * chunk.mask.weights)

    def __call__(self, estimate: Tensor, reference: Reference) -> dict[str, Tensor]:
        """``{"": [B]}``, with a mask also ``"_fg"``."""
        errors = super().__call__(estimate, reference)
        result = {}
        for key, error in errors.items():
            energy = reference.gathered(2 if key else 1).mean(1)
            result[key] = error / torch.where(energy > 0, energy, torch.nan)
        return result


def _decibel(mse: Tensor, peak: Tensor | float) -> Tensor:
    """10 log10(peak^2 / mse), inf for mse = 0 whatever the peak, NaN for other images without a peak."""
    return torch.where(mse == 0, torch.inf, 10 * torch.log10(peak**2 / mse))
