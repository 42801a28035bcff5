"""Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687).

An ancestral step of the prior, then a step against the gradient of the distance between the measurement and what the estimate of
``x_0`` would have given, ``x_(t-1) = x'_(t-1) - zeta grad_(x_t) |y - H x0(x_t)|``. The gradient goes through the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.errors import UserError

from .dps_options import DPSSettings
from .gaussian_diffusion import GaussianDiffusion
from .posterior_canvas import Problem
from .prior import Prediction
from .steps import OnStep

Predictor = Callable[[Tensor, int], Prediction]  # x_t, t of the full schedule

REFERENCE_SIDE = 256  # images of this side and one channel are those that zeta is quoted for
FLOOR = 1e-6  # root mean square residual below which the direction of a residual means nothing
PERTURBATIONS, PERTURBATION = 5, 0.05  # of ps+: how many, and their range
SMALLEST_COUNT = 1 / 255  # poisson: y counts as at least this
PROJECTION_RHO = 1e-6  # mcg: see mrbench_methods.networks.diffpir_sampler.RHO_FLOOR


@dataclass(frozen=True)
class Step:
    """One step: the state at ``t`` of the full schedule, the estimate of ``x_0``, the prior's own step, the distance, the next state.

    distance : ``[B K]``, ``|y - H x0|`` in the units of zeta.
    """

    t: int
    x: Tensor
    x0: Tensor
    free: Tensor
    distance: Tensor
    x_next: Tensor


class DPS:
    """The time steps of a run and what happens in each. Every image has its own distance, so batches change nothing."""

    def __init__(self, alphas_cumprod: NDArray[np.float64], settings: DPSSettings) -> None:
        """``alphas_cumprod``: ``a_t`` of the prior's schedule, float64 ``[T]``.

        Raises
        ------
        UserError : steps that the schedule does not have, or an eta for DDPM.
        """
        if settings.sampler == "ddpm" and settings.eta:
            raise UserError(f"eta {settings.eta:g} belongs to sampler=ddim; ddpm has its own noise. Leave one of them out.")
        self.settings = settings
        self.diffusion = GaussianDiffusion(alphas_cumprod, settings.steps)

    @property
    def calls(self) -> int:
        """Network calls, each with a backward pass."""
        return self.diffusion.num_steps

    def zeta(self, problem: Problem) -> float:
        """Step size for these images: the published code's as it is, else in proportion to the root of the number of values."""
        if self.settings.official:
            return self.settings.zeta
        values = problem.shape[0] * math.prod(problem.crop.size)
        return self.settings.zeta * math.sqrt(values) / REFERENCE_SIDE

    def trajectory(self, predict: Predictor, problem: Problem) -> Iterator[Step]:
        """All steps from noise on. Gradients must be possible here: not inside ``torch.inference_mode``."""
        x = problem.noise()
        for i in reversed(range(self.calls)):
            step = self._step(predict, problem, x, i)
            yield step
            x = step.x_next

    def sample(self, predict: Predictor, problem: Problem, on_step: OnStep | None = None) -> Tensor:
        """The last state ``[B K, C, H, W]``, not clipped."""
        result = None
        for number, step in enumerate(self.trajectory(predict, problem), 1):
            result = step.x_next
            if on_step is not None:
                on_step(number, self.calls)
        assert result is not None
        return result

    def _step(self, predict: Predictor, problem: Problem, x: Tensor, i: int) -> Step:
        t = int(self.diffusion.timestep_map[i])
        x = x.detach()
        with torch.enable_grad():
            start = x.clone().requires_grad_(True)
            prediction = predict(start, t)
            x0 = prediction.x0.float()
            if self.settings.clip:
                x0 = x0.clamp(-1, 1)  # the gradient goes through: none where the estimate is saturated
            distance, surrogate = self._distance(problem, x0)
            (gradient,) = torch.autograd.grad(surrogate.sum(), start)
        with torch.no_grad():
            estimate = x0.detach()
            v = None if prediction.log_variance is None else prediction.log_variance.detach().float()
            free = self._free(problem, x, i, estimate, v)
            following = free - self.zeta(problem) * gradient
            if self.settings.norm == "mcg":
                following = self._projected(problem, following, i)
        return Step(t, x, estimate, free, distance.detach(), following)

    def _free(self, problem: Problem, x: Tensor, i: int, x0: Tensor, v: Tensor | None) -> Tensor:
        """The prior's own step; noise is drawn where it is used."""
        d, eta = self.diffusion, self.settings.eta
        if self.settings.sampler == "ddpm":
            return d.ddpm_step(x, i, x0, problem.noise() if i > 0 else torch.zeros_like(x), v)
        return d.ddim_step(x, i, x0, problem.noise() if eta > 0 and i > 0 else torch.zeros_like(x), eta)

    # -- distances -------------------------------------------------------------------------------------------------
    def _distance(self, problem: Problem, x0: Tensor) -> tuple[Tensor, Tensor]:
        """``[B K]`` twice: the distance, and something with its gradient that is also defined at 0."""
        norm = self.settings.norm
        if norm == "ps+":
            pairs = [self._length(problem, x0 + PERTURBATION * uniform(problem)) for _ in range(PERTURBATIONS)]
            distances, surrogates = (torch.stack(part).mean(0) for part in zip(*pairs, strict=True))
            return distances, surrogates
        if norm != "poisson":
            return self._length(problem, x0)
        y = problem.crop.lr(problem.y)
        if not self.settings.official:  # |r|^2 / y: the variance of counts is their mean
            return self._length(problem, x0, y.abs().clamp_min(SMALLEST_COUNT).rsqrt())
        mean = (1 / problem.state(y).abs().clamp_min(SMALLEST_COUNT)).flatten(1).mean(1)
        distance, surrogate = self._length(problem, x0)
        return mean * distance, mean * surrogate

    def _length(self, problem: Problem, x0: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``|r|`` and ``|r|^2 / (2 max(|r|, floor))``, whose gradient is that of ``|r|``."""
        residual = problem.residual(x0)
        residual = residual if weights is None else weights * residual
        residual = residual / problem.gain if self.settings.official else residual
        squares = residual.square().flatten(1).sum(1)
        length = squares.detach().sqrt()
        floor = FLOOR * math.sqrt(residual[0].numel())
        return length, squares / (2 * length.clamp_min(floor))

    def _projected(self, problem: Problem, x: Tensor, i: int) -> Tensor:
        """mcg: the nearest state whose measurement is y with the noise of that state (Chung 2022, arXiv:2206.00941).

        ``y_t = sqrt(a) H x_0 + sqrt(1 - a) H n``. The published code draws white noise for y instead, of the step before, and puts
        differences back by nearest-neighbour interpolation.
        """
        d, linear = self.diffusion, problem.operator.linear_part
        grey = torch.full_like(x, problem.offset)
        clean = (problem.y - linear.forward(grey)) / problem.gain
        if self.settings.official:
            a = float(d.alphas_cumprod[i])
            target = math.sqrt(a) * clean + math.sqrt(1 - a) * problem.source.normal(clean.shape[1:]).flatten(0, 1)
            return x + problem.operator.upsample(target - linear.forward(x), "nearest")
        a = float(d.alphas_cumprod_prev[i])
        target = math.sqrt(a) * clean
        if i > 0:
            target = target + math.sqrt(1 - a) * linear.forward(problem.noise())
        return linear.prox(x, target, PROJECTION_RHO)


def uniform(problem: Problem) -> Tensor:
    """Uniform numbers in [0, 1] from the problem's noise, ``[B K, C, H, W]``."""
    numbers: Tensor = torch.special.ndtr(problem.noise())
    return numbers
