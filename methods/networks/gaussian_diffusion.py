"""Variance-preserving diffusion with discrete steps: schedules, respacing, and single steps of DDPM and DDIM.

``q(x_t | x_0) = N(sqrt(a_t) x_0, 1 - a_t)`` with ``a_t`` the cumulative product of ``1 - beta`` (Ho et al. 2020, arXiv:2006.11239),
cosine schedule and learned range of variances (Nichol and Dhariwal 2021, arXiv:2102.09672), DDIM (Song et al. 2021,
arXiv:2010.02502). All tables are float64; values are cast to the type of the images after they are looked up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.errors import UserError

from .gaussian_diffusion_options import GaussianConfig, Prediction

Float64 = NDArray[np.float64]
Respacing = int | str | Sequence[int] | None
BETA_START, BETA_END, REFERENCE_STEPS = 1e-4, 0.02, 1000  # of the linear schedule
COSINE_OFFSET, COSINE_MAX = 0.008, 0.999


def linear_betas(steps: int) -> Float64:
    """``[T]`` from 1e-4 to 0.02 at 1000 steps (Ho 2020); both ends are scaled by 1000 / T for others."""
    factor = REFERENCE_STEPS / steps
    return np.linspace(factor * BETA_START, factor * BETA_END, steps, dtype=np.float64)


def cosine_betas(steps: int) -> Float64:
    """``[T]``: ``a_t = f(t / T) / f(0)``, ``f(u) = cos^2((u + 0.008) / 1.008 pi / 2)``, betas at most 0.999."""

    def f(u: float) -> float:
        return math.cos((u + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2

    return np.array([min(1 - f((i + 1) / steps) / f(i / steps), COSINE_MAX) for i in range(steps)])


def betas_of(config: GaussianConfig) -> Float64:
    """The betas ``[T]`` of a configuration."""
    return linear_betas(config.steps) if config.schedule == "linear" else cosine_betas(config.steps)


def space_timesteps(total: int, spacing: str | Sequence[int]) -> list[int]:
    """Which of ``total`` training steps are used, ascending.

    Parameters
    ----------
    spacing : numbers of steps in sections of equal size (``"10,15,20"`` or ``[10, 15, 20]``; the first sections take what is
        left over), evenly from the first to the last of each; or ``"ddim25"``: 25 steps with the smallest constant stride that
        gives so many, from 0.

    Raises
    ------
    UserError : that many steps cannot be had.
    """
    if isinstance(spacing, str):
        if spacing.startswith("ddim"):
            return _strided(total, _count(spacing.removeprefix("ddim"), spacing))
        spacing = [_count(part, spacing) for part in spacing.split(",")]
    if not spacing:
        raise UserError("steps: no number of steps is given.")
    size, extra = divmod(total, len(spacing))
    chosen: list[int] = []
    start = 0
    for k, count in enumerate(spacing):
        length = size + (1 if k < extra else 0)
        if not 1 <= count <= length:
            raise UserError(f"steps {count}: between 1 and {length} of {length} training steps can be used.")
        stride = 1.0 if count == 1 else (length - 1) / (count - 1)
        position = 0.0
        for _ in range(count):
            chosen.append(start + round(position))
            position += stride  # summed up, as published: products round differently
        start += length
    return chosen


def _strided(total: int, count: int) -> list[int]:
    for stride in range(1, total + 1):
        steps = list(range(0, total, stride))
        if len(steps) == count:
            return steps
    raise UserError(
        f"steps ddim{count}: no constant stride takes {count} of {total} steps. Without ddim any number can be had."
    )


def _count(text: str, spacing: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"steps {spacing!r}: expected a number, numbers with commas (10,15,20) or ddimN.") from None


class GaussianDiffusion:
    """The diffusion on all training steps or on some of them, which are indexed by ``i`` from 0 (least noise).

    In all methods ``i`` is an integer or a tensor ``[B]`` of them, images are ``[B, C, H, W]`` in [-1, 1], and nothing is clipped.

    num_steps : N. timestep_map : int64 ``[N]``, the training step of each i: what the network is told.
    alphas_cumprod, alphas_cumprod_prev, betas, posterior_variance, posterior_log_variance_clipped, posterior_mean_coef1,
    posterior_mean_coef2, sqrt_recip_alphas_cumprod, sqrt_recipm1_alphas_cumprod : float64 ``[N]``, of the spaced process.
    """

    def __init__(self, alphas_cumprod: Float64, steps: Respacing = None) -> None:
        """Choose steps of the schedule ``alphas_cumprod`` float64 ``[T]``.

        ``steps``: a number of steps, or see :func:`space_timesteps`; ``None`` or "": all.

        Raises
        ------
        UserError : that many steps cannot be had. ValueError : no schedule.
        """
        table = np.asarray(alphas_cumprod, dtype=np.float64)
        if table.ndim != 1 or not len(table) or not ((table > 0) & (table < 1)).all() or (np.diff(table) >= 0).any():
            raise ValueError("alphas_cumprod must fall from below 1 to above 0")
        total = len(table)
        spacing = [steps] if isinstance(steps, int) else steps
        chosen = space_timesteps(total, spacing) if spacing else list(range(total))
        self.train_steps = total
        self.num_steps = len(chosen)
        self.timestep_map: NDArray[np.int64] = np.array(chosen, dtype=np.int64)
        a = self.alphas_cumprod = table[chosen]
        previous = self.alphas_cumprod_prev = np.append(1.0, a[:-1])
        betas = self.betas = 1 - a / previous
        self.sqrt_recip_alphas_cumprod, self.sqrt_recipm1_alphas_cumprod = np.sqrt(1 / a), np.sqrt(1 / a - 1)
        self.posterior_variance = betas * (1 - previous) / (1 - a)
        # at i = 0 the posterior variance is 0: its logarithm is that of i = 1 (a single step: of beta)
        first = self.posterior_variance[1] if self.num_steps > 1 else betas[0]
        self.posterior_log_variance_clipped = np.log(np.append(first, self.posterior_variance[1:]))
        self.posterior_mean_coef1 = betas * np.sqrt(previous) / (1 - a)
        self.posterior_mean_coef2 = (1 - previous) * np.sqrt(1 - betas) / (1 - a)

    @classmethod
    def of(cls, config: GaussianConfig, steps: Respacing = None) -> GaussianDiffusion:
        """The diffusion of a configuration."""
        return cls.from_betas(betas_of(config), steps)

    @classmethod
    def from_betas(cls, betas: Float64, steps: Respacing = None) -> GaussianDiffusion:
        """The diffusion with these betas ``[T]``."""
        return cls(np.cumprod(1 - np.asarray(betas, dtype=np.float64), dtype=np.float64), steps)

    @property
    def sigmas(self) -> Float64:
        """``[N]``, noise levels of the variance-exploding form: ``sqrt((1 - a) / a)``."""
        return np.sqrt((1 - self.alphas_cumprod) / self.alphas_cumprod)

    def timesteps(self, i: int | Tensor, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """``[batch]`` int64: what the network is told."""
        index = torch.full((batch,), i) if isinstance(i, int) else i.cpu()
        return torch.from_numpy(self.timestep_map)[index].to(device)

    # -- the forward process and its parametrisations --------------------------------------------------------------
    def add_noise(self, x0: Tensor, i: int | Tensor, noise: Tensor) -> Tensor:
        """``x_i = sqrt(a) x_0 + sqrt(1 - a) n``."""
        return self._signal(i, x0) * x0 + self._noise(i, x0) * noise

    def x0_from_eps(self, x_t: Tensor, i: int | Tensor, eps: Tensor) -> Tensor:
        """``sqrt(1 / a) x - sqrt(1 / a - 1) eps``."""
        return at(self.sqrt_recip_alphas_cumprod, i, x_t) * x_t - at(self.sqrt_recipm1_alphas_cumprod, i, x_t) * eps

    def eps_from_x0(self, x_t: Tensor, i: int | Tensor, x0: Tensor) -> Tensor:
        """``(sqrt(1 / a) x - x_0) / sqrt(1 / a - 1)``."""
        return (at(self.sqrt_recip_alphas_cumprod, i, x_t) * x_t - x0) / at(self.sqrt_recipm1_alphas_cumprod, i, x_t)

    def x0_from(self, prediction: Prediction, x_t: Tensor, i: int | Tensor, output: Tensor) -> Tensor:
        """The estimate of ``x_0`` that an output means."""
        if prediction == "eps":
            return self.x0_from_eps(x_t, i, output)
        if prediction == "v":  # Salimans and Ho 2022, arXiv:2202.00512
            return self._signal(i, x_t) * x_t - self._noise(i, x_t) * output
        return output

    def eps_from(self, prediction: Prediction, x_t: Tensor, i: int | Tensor, output: Tensor) -> Tensor:
        """The estimate of the noise that an output means."""
        if prediction == "eps":
            return output
        if prediction == "v":
            return self._noise(i, x_t) * x_t + self._signal(i, x_t) * output
        return self.eps_from_x0(x_t, i, output)

    def target(self, prediction: Prediction, x0: Tensor, i: int | Tensor, noise: Tensor) -> Tensor:
        """What a network of this kind should return."""
        if prediction == "v":
            return self._signal(i, x0) * noise - self._noise(i, x0) * x0
        return noise if prediction == "eps" else x0

    # -- one step back ---------------------------------------------------------------------------------------------
    def posterior(self, x0: Tensor, x_t: Tensor, i: int | Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of ``p(x_{i-1} | x_i)``, given an estimate of ``x_0``.

        ``mean = c1 x_0 + c2 x_i``. ``v``: ``[B, C, H, W]``, -1: the variance of ``q(x_{i-1} | x_i, x_0)``, 1: beta,
        between them in the logarithm (learned range, not clipped); ``None``: -1 everywhere.
        """
        mean = at(self.posterior_mean_coef1, i, x_t) * x0 + at(self.posterior_mean_coef2, i, x_t) * x_t
        smallest = at(self.posterior_log_variance_clipped, i, x_t)
        if v is None:
            return mean, smallest.expand_as(mean)
        part = (v + 1) / 2
        return mean, part * at(np.log(self.betas), i, x_t) + (1 - part) * smallest

    def ddpm_step(self, x_t: Tensor, i: int | Tensor, x0: Tensor, noise: Tensor, v: Tensor | None = None) -> Tensor:
        """``x_{i-1} = mean + exp(log variance / 2) n``; at i = 0 the mean."""
        mean, log_variance = self.posterior(x0, x_t, i, v)
        return mean + self._positive(i, x_t) * torch.exp(0.5 * log_variance) * noise

    def ddim_step(self, x_t: Tensor, i: int | Tensor, x0: Tensor, noise: Tensor | None = None, eta: float = 0.0) -> Tensor:
        """``x_{i-1} = sqrt(a') x_0 + sqrt(1 - a' - s^2) eps + s n`` with the noise that belongs to this ``x_0``.

        ``s = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a')`` (Song 2021, eqs. 12 and 16); ``noise`` may be left out with eta = 0.

        Raises
        ------
        ValueError : eta > 0 without noise.
        """
        a, previous = self.alphas_cumprod, self.alphas_cumprod_prev
        s = eta * np.sqrt((1 - previous) / (1 - a)) * np.sqrt(1 - a / previous)
        rest = np.sqrt(np.maximum(1 - previous - s**2, 0))
        mean = at(np.sqrt(previous), i, x_t) * x0 + at(rest, i, x_t) * self.eps_from_x0(x_t, i, x0)
        if eta == 0:
            return mean
        if noise is None:
            raise ValueError("DDIM with eta > 0 needs noise")
        return mean + self._positive(i, x_t) * at(s, i, x_t) * noise

    def _signal(self, i: int | Tensor, like: Tensor) -> Tensor:
        return at(np.sqrt(self.alphas_cumprod), i, like)

    def _noise(self, i: int | Tensor, like: Tensor) -> Tensor:
        return at(np.sqrt(1 - self.alphas_cumprod), i, like)

    def _positive(self, i: int | Tensor, like: Tensor) -> Tensor:
        return at((np.arange(self.num_steps) > 0).astype(np.float64), i, like)


def at(table: Float64, i: int | Tensor, like: Tensor) -> Tensor:
    """``table[i]``, looked up in float64, in ``like``'s dtype on its device; ``[1 or B, 1, 1, 1]``."""
    index = torch.tensor([i]) if isinstance(i, int) else i.detach().cpu()
    values = torch.from_numpy(np.asarray(table))[index]
    return values.to(device=like.device, dtype=like.dtype).reshape(-1, *[1] * (like.ndim - 1))
