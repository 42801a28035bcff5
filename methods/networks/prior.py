"""Diffusion priors: what a sampler needs of a network that was trained without knowing any degradation.

Images of a prior lie in [-1, 1]. Two parametrisations of one thing are in use: ``x = x_0 + sigma n`` (variance exploding; every
prior has it), and ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n`` with integer steps t (variance preserving; only priors that were trained
so). They are the same with ``sigma_t = sqrt((1 - a_t) / a_t)`` and ``x = x_t / sqrt(a_t)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

COMPLEX = 2  # channels: real and imaginary part


def states(images: Tensor) -> Tensor:
    """Images ``[B, C, H, W]`` on the scale of a prior: [0, 1] becomes [-1, 1]; complex ones, of magnitude up to 1, stay as they are."""
    return images if images.shape[1] == COMPLEX else 2 * images - 1


@dataclass(frozen=True)
class Prediction:
    """What a discrete prior says of ``x_t``.

    x0 : ``[B, C, H, W]``, the estimate of the clean image, not clipped. eps : the noise that belongs to it.
    log_variance : ``[B, C, H, W]``, the logarithm of the variance of the step that is taken, as fractions ``v`` (about [-1, 1]) between
        its two bounds, which are those of the respaced schedule (learned range, see ``GaussianDiffusion.posterior``); ``None`` where
        the variance is fixed.
    """

    x0: Tensor
    eps: Tensor
    log_variance: Tensor | None = None


class Prior(ABC):
    """A trained denoiser. Everything is differentiable with respect to the images.

    channels : of its images (1, 2 or 3). condition_channels : of the image that is concatenated to the noisy one, 0 for none.
    multiple : of the sides of its images. alphas_cumprod : float64 ``[T]`` of a discrete prior, ``None`` of a continuous one.
    sigma_range : smallest and largest noise level (in units of the [-1, 1] range) that it was trained on.
    """

    channels: int
    condition_channels: int = 0
    multiple: int = 1
    alphas_cumprod: NDArray[np.float64] | None = None
    sigma_range: tuple[float, float]

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """``E[x_0 | x]`` of ``x = x_0 + sigma n``, not clipped.

        x : ``[B, C, H, W]``. sigma : ``[B]``, > 0; discrete priors take the step with the nearest sigma. condition :
        ``[B, condition_channels, H, W]`` in [-1, 1].
        """

    def predict(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Prediction:
        """The estimate from ``x_t`` (variance preserving) at integer steps ``t [B]`` of the full schedule.

        condition : as for :meth:`denoise`.

        Raises
        ------
        TypeError : a continuous prior, which has no steps.
        """
        raise TypeError(f"{type(self).__name__} is a continuous prior: it has no steps t. Use denoise().")

    def to(self, device: torch.device | str) -> Self:
        """Move the networks to a device; returns this prior."""
        for value in vars(self).values():
            if isinstance(value, (nn.Module, Prior)):
                value.to(device)
        return self
