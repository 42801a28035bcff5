"""Noise levels and the second-order sampler of EDM (Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]  # x [B, C, H, W], sigma [] -> x_0


def edm_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """``[steps]`` float64 levels from ``sigma_max`` down to ``sigma_min`` (eq. 5, without its last zero).

    One step has ``sigma_max`` alone.

    Raises
    ------
    ValueError : no step, or levels in the wrong order.
    """
    if steps < 1 or not 0 < sigma_min <= sigma_max:
        raise ValueError(f"{steps} noise levels from {sigma_max} down to {sigma_min} are not possible")
    part = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels: Tensor = (high + part * (low - high)) ** rho
    return levels


def heun(
    denoise: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    *,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
    draw: Callable[[], Tensor] | None = None,
) -> Tensor:
    """A sample of the prior alone (algorithm 2); ``2 N - 1`` calls of ``denoise``.

    Parameters
    ----------
    noise : ``[B, C, H, W]`` of unit variance; the state has its dtype.
    sigmas : ``[N]``, decreasing (:func:`edm_sigmas`); a zero follows them.
    churn, churn_min, churn_max, churn_noise : noise that is added anew before steps whose level lies between the bounds.
    draw : gives that noise, ``[B, C, H, W]``; needed with ``churn``.

    Raises
    ------
    ValueError : ``churn`` without ``draw``.
    """
    if churn and draw is None:
        raise ValueError("churn needs draw, which gives its noise")
    levels = [*sigmas.to(noise.dtype), torch.zeros((), dtype=noise.dtype)]
    steps = len(sigmas)
    x = noise * levels[0]
    for k, (now, following) in enumerate(itertools.pairwise(levels)):
        raised = now
        if draw is not None and churn_min <= float(now) <= churn_max:
            raised = now + min(churn / steps, math.sqrt(2) - 1) * now
            x = x + (raised**2 - now**2).sqrt() * churn_noise * draw().to(x.dtype)
        slope = (x - denoise(x, raised).to(x.dtype)) / raised
        ahead = x + (following - raised) * slope
        if k < steps - 1:
            slope = 0.5 * slope + 0.5 * (ahead - denoise(ahead, following).to(x.dtype)) / following
            ahead = x + (following - raised) * slope
        x = ahead
    result: Tensor = x
    return result
