"""A prior of one band of an image pyramid: an EDM2 denoiser that remembers the band's mean and spread."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .edm2 import EDM2Precond
from .edm2_options import EDM2Config
from .edm2_training import edm2_loss


class BandPrior(EDM2Precond):
    """Takes and gives bands in the units of the images, whatever their spread.

    The network sees ``(x - centre) / unit``, which has the standard deviation ``sigma_data``, and noise levels
    ``sigma / unit``; the condition is shifted and scaled alike. These numbers are measured once (:meth:`measure`) and stored
    with
    the weights.
    """

    centre: Tensor
    unit: Tensor
    cond_centre: Tensor
    cond_unit: Tensor

    def __init__(self, config: EDM2Config) -> None:
        """Build with random weights, not yet measured."""
        super().__init__(config)
        self.register_buffer("centre", torch.zeros(config.img_channels))
        self.register_buffer("unit", torch.zeros([]))
        self.register_buffer("cond_centre", torch.zeros(config.cond_channels))
        self.register_buffer("cond_unit", torch.zeros([]))

    @property
    def measured(self) -> bool:
        """Whether :meth:`measure` was called, or measured weights were loaded."""
        return bool(self.unit > 0)

    @torch.no_grad()
    def measure(self, pairs: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Take the means (of every channel) and spreads (of all together) of bands and conditions ``[B, C, H, W]``."""
        bands, conditions = zip(*pairs, strict=True)
        self.centre.copy_(_mean(bands))
        self.unit.copy_(_spread(bands, self.centre) / self.config.sigma_data)
        if self.config.cond_channels:
            given = [c for c in conditions if c is not None]
            self.cond_centre.copy_(_mean(given))
            self.cond_unit.copy_(_spread(given, self.cond_centre) / self.config.cond_std)

    def denoise(self, x: Tensor, sigma: Tensor | float, condition: Tensor | None = None) -> Tensor:
        """``E[x_0 | x]`` of ``x = x_0 + sigma n``, all in the units of the images; ``sigma``: a number or ``[B]``."""
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device) / self.unit
        out: Tensor = self(self._inside(x), level, self._condition(condition)) * self.unit + _shaped(self.centre)
        return out

    def loss(self, x: Tensor, condition: Tensor | None, sigma: Tensor, noise: Tensor) -> Tensor:
        """:func:`edm2_loss` of clean bands; ``sigma [B]`` in units of the network."""
        return edm2_loss(self, self._inside(x), sigma, noise, self._condition(condition))

    def _inside(self, x: Tensor) -> Tensor:
        return (x - _shaped(self.centre)) / self.unit

    def _condition(self, condition: Tensor | None) -> Tensor | None:
        return None if condition is None else (condition - _shaped(self.cond_centre)) / self.cond_unit


def _shaped(values: Tensor) -> Tensor:
    return values[:, None, None]


def _mean(images: Iterable[Tensor]) -> Tensor:
    return torch.cat([i.double().transpose(0, 1).flatten(1) for i in images], dim=1).mean(1)


def _spread(images: Iterable[Tensor], centre: Tensor) -> Tensor:
    return torch.cat([(i.double() - _shaped(centre)).flatten() for i in images]).square().mean().sqrt().clamp_min(1e-6)
