"""Losses that train discrete diffusion priors."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .gaussian_diffusion import GaussianDiffusion, at
from .gaussian_diffusion_options import GaussianConfig

Weighting = Literal["uniform", "min_snr", "x0"]
HALF_BIN = 1 / 255  # of 8-bit images in [-1, 1]
LEAST = 1e-12  # probability


def squared_error_weights(
    diffusion: GaussianDiffusion, config: GaussianConfig, weighting: Weighting, gamma: float
) -> np.ndarray:
    """``[T]`` float64: factors on the mean squared error of the predicted quantity.

    With ``s = a / (1 - a)``: the error of eps is s times that of x_0, the error of v is (s + 1) times that of x_0. ``uniform``: 1;
    ``x0``: the error of x_0 counts equally at all steps; ``min_snr``: the error of x_0 counts ``min(s, gamma)`` (Hang et al. 2023,
    arXiv:2303.09556).
    """
    a = diffusion.alphas_cumprod
    snr = a / (1 - a)
    if weighting == "uniform":
        return np.ones_like(snr)
    per_x0 = {"eps": snr, "v": snr + 1, "x0": np.ones_like(snr)}[config.prediction]
    return (np.minimum(snr, gamma) if weighting == "min_snr" else 1) / per_x0


def variational_bound(diffusion: GaussianDiffusion, x0: Tensor, x_t: Tensor, t: Tensor, estimate: Tensor, v: Tensor) -> Tensor:
    """``[B]``: the term of the variational bound for step t in bits per dimension (Nichol and Dhariwal 2021, section 3.1).

    The divergence of ``p(x_{t-1} | x_t)`` from ``q(x_{t-1} | x_t, x_0)``; at t = 0 the negative log likelihood of ``x_0`` rounded
    to 256 levels. ``estimate`` of x_0 is detached: only the variance learns from this term.
    """
    true_mean, true_log = diffusion.posterior(x0, x_t, t)
    mean, log_variance = diffusion.posterior(estimate.detach(), x_t, t, v)
    gap = true_log - log_variance
    divergence = 0.5 * (torch.exp(gap) - 1 - gap + (true_mean - mean).square() * torch.exp(-log_variance))
    bits = torch.where((t == 0)[:, None, None, None], _rounded_nll(x0, mean, log_variance), divergence)
    return bits.flatten(1).mean(1) / math.log(2)


def _rounded_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """``-log`` of the normal distribution's mass within half a grey level of ``x``; the outermost levels reach to infinity."""
    scale = torch.exp(-0.5 * log_variance)
    above = torch.special.ndtr((x - mean + HALF_BIN) * scale)
    below = torch.special.ndtr((x - mean - HALF_BIN) * scale)
    above = torch.where(x > 1 - HALF_BIN, torch.ones_like(above), above)
    below = torch.where(x < -1 + HALF_BIN, torch.zeros_like(below), below)
    return -torch.log((above - below).clamp(min=LEAST))


def prior_losses(
    diffusion: GaussianDiffusion,
    config: GaussianConfig,
    output: Tensor,
    x0: Tensor,
    x_t: Tensor,
    t: Tensor,
    noise: Tensor,
    weights: np.ndarray,
) -> dict[str, Tensor]:
    """``mse`` of the predicted quantity (times ``weights[t]``) and, where the variance is learned, ``vb`` times T / 1000."""  # fmt: skip
    prediction, v = output.chunk(2, dim=1) if config.learn_sigma else (output, None)
    error = (prediction - diffusion.target(config.prediction, x0, t, noise)).square()
    terms = {"mse": (at(weights, t, error) * error).mean()}
    if v is not None:
        estimate = diffusion.x0_from(config.prediction, x_t, t, prediction)
        terms["vb"] = variational_bound(diffusion, x0, x_t, t, estimate, v).mean() * (diffusion.num_steps / 1000)
    return terms
