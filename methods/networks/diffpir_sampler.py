"""DiffPIR: denoising diffusion models for plug-and-play image restoration (Zhu et al. 2023, arXiv:2305.08995).

A state at step t is ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n``, ``sigma_t = sqrt((1 - a_t) / a_t)``. Every step estimates ``x_0``, moves
the estimate towards the measurement, and returns to a lower noise level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mrbench.errors import UserError

from .diffpir_options import DiffPIRSettings
from .posterior_canvas import Problem
from .steps import OnStep

Denoiser = Callable[[Tensor, int], Tensor]  # x_t, t -> estimate of x_0, not clipped

RHO_FLOOR = 1e-6  # below, float32 has nothing to gain; noise-free data are met within sqrt(RHO_FLOOR) / 2 of what is missing


@dataclass(frozen=True)
class Step:
    """One step: the state at ``t``, the prior's estimate (clamped), the data step's ``rho`` and result, and the next state.

    ``x_next`` is ``None`` after the last estimate.
    """

    t: int
    x: Tensor
    prior: Tensor
    rho: float
    data: Tensor
    x_next: Tensor | None


class DiffPIR:
    """The time steps of a run and what happens in each."""

    def __init__(self, alphas_cumprod: NDArray[np.float64], settings: DiffPIRSettings) -> None:
        """``alphas_cumprod``: ``a_t`` of the prior's schedule, float64 ``[T]``.

        Raises
        ------
        UserError : more steps than the schedule has, or a first step beyond it.
        """
        self.settings = settings
        self._a: NDArray[np.floating] = rounded_schedule(alphas_cumprod) if settings.official else alphas_cumprod
        self._betas = betas_of(alphas_cumprod)
        size = len(alphas_cumprod)
        self.start = round(settings.start * (size - 1)) if isinstance(settings.start, float) else settings.start
        if self.start >= size:
            raise UserError(f"start {self.start}: the prior's schedule has the steps 0 to {size - 1}.")
        choose = official_timesteps if settings.official else timesteps
        self.timesteps = choose(size, settings, self.start)
        self._total = len(self.timesteps) - (settings.final == "official")

    @property
    def calls(self) -> int:
        """Network calls. The published code's last call, whose output it does not use, is not made."""
        return self._total

    def sigma(self, t: int) -> float:
        """Noise level of step ``t`` over that of the image, in units of the state."""
        return math.sqrt(1 - float(self._a[t])) / math.sqrt(float(self._a[t]))

    def rho(self, t: int, sigma: float, gain: float) -> float:
        """Weight of the prior's estimate in the data step.

        ``lam sigma^2 / sigma_t^2`` (eq. 13 and below), ``sigma`` being the noise of y in units of the data. Here ``sigma_t`` is brought
        to the same unit (``gain`` units of the data per unit of a state); the published code leaves it in units of the state.
        """
        s = self.settings
        noise = max(sigma, s.sigma_floor)
        if s.official:
            return s.lam * noise**2 / self.sigma(t) ** 2
        return max(s.lam * noise**2 / (gain * self.sigma(t)) ** 2, RHO_FLOOR)

    def first(self, problem: Problem) -> Tensor:
        """The state to begin with, at step ``start``."""
        noise = problem.noise()
        if self.settings.init == "noise":
            return noise
        a = float(self._a[self.start])
        upsampled = problem.upsampled(None if self.settings.official else "bicubic")
        return math.sqrt(a) * upsampled + math.sqrt(1 - a) * noise

    def next(self, x: Tensor, x0: Tensor, t: int, after: int, problem: Problem) -> Tensor:
        """From the state at ``t`` and an estimate of ``x_0`` to the state at ``after``.

        ``sqrt(a') x_0 + sqrt(1 - zeta) (sqrt(1 - a' - s^2) eps + s n_1) + sqrt(zeta) sqrt(1 - a') n_2``, ``eps`` being the noise that
        belongs to ``x_0``, and ``s`` that of DDIM, or of the published code (which has beta_t of the full schedule in it).
        """
        s = self.settings
        a, b = float(self._a[t]), float(self._a[after])
        eps = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
        beta = self._betas[t] if s.official else 1 - a / b
        fresh = s.eta * math.sqrt((1 - b) / (1 - a) * beta)
        kept = math.sqrt(max(0.0, 1 - b - fresh**2)) * eps
        if s.eta > 0:
            kept = kept + fresh * problem.noise()
        x = math.sqrt(b) * x0 + math.sqrt(1 - s.zeta) * kept
        return x + math.sqrt(s.zeta) * math.sqrt(1 - b) * problem.noise() if s.zeta > 0 else x

    def trajectory(self, denoise: Denoiser, problem: Problem, sigma: float) -> Iterator[Step]:
        """All steps from :meth:`first` on; ``sigma`` is the noise of y in units of the data."""
        x = self.first(problem)
        for number, t in enumerate(self.timesteps[: self._total]):
            prior = denoise(x, t).clamp(-1, 1)
            rho = self.rho(t, sigma, problem.gain)
            data = prior + self.settings.guidance * (problem.prox(prior, rho) - prior)
            following = None
            if number + 1 < len(self.timesteps):
                following = self.next(x, data, t, self.timesteps[number + 1], problem)
            yield Step(t, x, prior, rho, data, following)
            if following is not None:
                x = following

    def sample(self, denoise: Denoiser, problem: Problem, sigma: float, on_step: OnStep | None = None) -> Tensor:
        """States ``[B K, C, H, W]``: the last estimate of ``x_0`` after its data step, or the last state (``final="official"``)."""
        result = None
        if self._total == 0:  # a single step, whose output the published code does not use
            result = self.first(problem)
        for number, step in enumerate(self.trajectory(denoise, problem, sigma), 1):
            result = step.data if step.x_next is None else step.x_next
            if on_step is not None:
                on_step(number, self._total)
        assert result is not None
        return result


def timesteps(size: int, settings: DiffPIRSettings, start: int) -> tuple[int, ...]:
    """``steps`` time steps from ``start`` to 0: ``start (1 - u)`` with ``u`` uniform in [0, 1], or its square root (quad).

    Raises
    ------
    UserError : two of them fall together.
    """
    u = np.linspace(0, 1, settings.steps)
    u = np.sqrt(u) if settings.skip == "quad" else u
    return _checked(tuple(int(t) for t in np.round(start * (1 - u))), size, settings, start)


def official_timesteps(size: int, settings: DiffPIRSettings, start: int) -> tuple[int, ...]:
    """The published code's: counted from the noisy end, integer parts taken, those before ``start`` left out.

    quad: ``q = int(sqrt(linspace(0, T^2, n)))``, the last one less 1. uniform: ``q = i int(T / n)``, and T - 1 after them, so n + 1
    steps. ``t = T - 1 - q``.

    Raises
    ------
    UserError : two of them fall together, or they do not reach t = 0.
    """
    n = settings.steps
    if settings.skip == "quad":
        q = [int(v) for v in np.sqrt(np.linspace(0, size**2, n))]
        q[-1] -= 1
    else:
        stride = size // max(1, n)
        q = [i * stride for i in range(n)] + ([size - 1] if stride > 1 else [])
    chosen = tuple(size - 1 - i for i in q if size - 1 - i <= start)
    return _checked(chosen, size, settings, start)


def _checked(chosen: tuple[int, ...], size: int, settings: DiffPIRSettings, start: int) -> tuple[int, ...]:
    falling = all(a > b for a, b in pairwise(chosen))
    inside = all(0 <= t < size for t in chosen)
    if not chosen or not falling or not inside or (len(chosen) > 1 and chosen[-1] != 0):
        hint = "" if settings.skip == "uniform" else " quad spacing is dense at its end; skip=uniform holds more."
        raise UserError(
            f"steps {settings.steps}: between start {start} and 0 there is no room for so many with skip {settings.skip}. "
            f"Choose fewer steps or a larger start.{hint}"
        )
    return chosen


def rounded_schedule(alphas_cumprod: NDArray[np.float64]) -> NDArray[np.float32]:
    """``a_t`` as the published code has them: the product of ``1 - beta`` in float32."""
    product: NDArray[np.float32] = np.cumprod(np.float32(1) - betas_of(alphas_cumprod).astype(np.float32), dtype=np.float32)
    return product


def betas_of(alphas_cumprod: NDArray[np.float64]) -> NDArray[np.float64]:
    """``beta_t = 1 - a_t / a_(t-1)``, ``a_-1 = 1``."""
    betas: NDArray[np.float64] = 1 - alphas_cumprod / np.concatenate([[1.0], alphas_cumprod[:-1]])
    return betas
