"""Residual-shifting diffusion: schedule, forward process, posterior, samplers.

One process for ResShift (arXiv:2307.12348), SinSR (arXiv:2311.14760) and Res-SRDiff (doi:10.1088/1361-6560/ade049). A chain of T steps
leads from the HR image x_0 (or its latent) to the LR image y plus noise:

    q(x_t | x_0, y) = N(x_0 + eta_t (y - x_0), kappa^2 eta_t I)

Steps are counted from 0 here (the papers count from 1). Coefficients are float64 and become float32 one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .residual_shift_options import DiffusionConfig

Network = Callable[[Tensor, Tensor], Tensor]  # (scaled state [B, C, H, W], original step indices [B]) -> output [B, C, H, W]
Noise = Callable[[], Tensor]  # the next standard normal numbers, [B, C, H, W]
Coefficients = NDArray[np.float64] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Schedule:
    """``sqrt_etas [S]`` and what follows; ``timestep_map [S]`` are the steps of the training schedule, which the network is told."""

    sqrt_etas: NDArray[np.float64]
    timestep_map: NDArray[np.int64]
    kappa: float

    @classmethod
    def from_config(cls, config: DiffusionConfig) -> Schedule:
        """``sqrt(eta_t) = sqrt(eta_1) exp[((t-1)/(T-1))^p log sqrt(eta_T / eta_1)]`` (Res-SRDiff, eq. 14), t = 1..T."""
        steps = config.steps
        if steps == 1:
            roots = np.array([config.etas_end])
        else:
            growth = np.exp(1 / (steps - 1) * np.log(config.etas_end / config.start))
            exponents = np.linspace(0, 1, steps) ** config.power * (steps - 1)
            roots = np.power(growth * np.ones(steps), exponents) * config.start
        return cls(roots, np.arange(steps), config.kappa)

    def respaced(self, count: int) -> Schedule:
        """The sub-schedule of the steps ``int(T / S * i)``; the last training step is not among them unless S = T.

        Raises
        ------
        ValueError : more steps than there are, or none.
        """
        steps = len(self.sqrt_etas)
        if not 1 <= count <= steps:
            raise ValueError(f"a schedule of {steps} steps has between 1 and {steps} sampling steps, got {count}")
        chosen = np.array([int(steps / count * i) for i in range(count)])
        return Schedule(self.sqrt_etas[chosen], self.timestep_map[chosen], self.kappa)

    def __len__(self) -> int:
        return len(self.sqrt_etas)

    @cached_property
    def etas(self) -> NDArray[np.float64]:
        """``eta_t``: how far the mean has moved from x_0 to y."""
        return self.sqrt_etas**2

    @cached_property
    def etas_prev(self) -> NDArray[np.float64]:
        """``eta_{t-1}``, with ``eta_0 = 0``."""
        return np.append(0.0, self.etas[:-1])

    @cached_property
    def alpha(self) -> NDArray[np.float64]:
        """``alpha_t = eta_t - eta_{t-1}``."""
        return self.etas - self.etas_prev

    @cached_property
    def posterior_variance(self) -> NDArray[np.float64]:
        """``kappa^2 eta_{t-1} alpha_t / eta_t``, of q(x_{t-1} | x_t, x_0, y)."""
        return self.kappa**2 * self.etas_prev / self.etas * self.alpha

    @cached_property
    def posterior_variance_clipped(self) -> NDArray[np.float64]:
        """The same with the first entry, which is 0, replaced by the second (for loss weights and logarithms)."""
        variance = self.posterior_variance
        return np.append(variance[1], variance[1:]) if len(variance) > 1 else variance

    @cached_property
    def posterior_log_variance_clipped(self) -> NDArray[np.float64]:
        """Logarithm of :attr:`posterior_variance_clipped`."""
        with np.errstate(divide="ignore"):  # a schedule of one step has no noise
            return np.log(self.posterior_variance_clipped)

    @cached_property
    def posterior_mean_coef1(self) -> NDArray[np.float64]:
        """Weight of x_t in the posterior mean: ``eta_{t-1} / eta_t``."""
        return self.etas_prev / self.etas

    @cached_property
    def posterior_mean_coef2(self) -> NDArray[np.float64]:
        """Weight of x_0 in the posterior mean: ``alpha_t / eta_t``."""
        return self.alpha / self.etas

    def loss_weights(self, prediction: str) -> NDArray[np.float64]:
        """Weights of the squared error in the variational bound, by what the network predicts."""
        if prediction in ("xstart", "residual"):
            return 0.5 / self.posterior_variance_clipped * (self.alpha / self.etas) ** 2
        slope = self.kappa * self.alpha / ((1 - self.etas) * self.sqrt_etas)
        return 0.5 / self.posterior_variance_clipped * slope**2

    @cached_property
    def deterministic(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """``(k, m, j)`` of the deterministic step ``x_{t-1} = k x_0 + m x_t + j y`` (SinSR).

        ``m = sqrt(eta_{t-1}/eta_t)``, ``j = eta_{t-1} - sqrt(eta_{t-1} eta_t)``, ``k = 1 - j - m``; so x_0 at t = 0.
        """
        previous = self.etas_prev.astype(np.float32)
        m = np.sqrt((self.etas_prev / self.etas).astype(np.float32))
        product = np.sqrt((self.etas_prev * self.etas).astype(np.float32))
        return 1 - previous + product - m, m, previous - product


@dataclass(frozen=True)
class Step:
    """One executed step of a sampler: what the network was given and said, and the state that came of it."""

    timestep: int  # the original index, which the network was told
    model_in: Tensor
    model_out: Tensor
    x0: Tensor
    mean: Tensor
    sample: Tensor


class ResidualShift:
    """The process with a network's conventions, on its training schedule or a sub-schedule of it."""

    def __init__(self, config: DiffusionConfig, sampling_steps: int | None = None) -> None:
        """``sampling_steps``: ``None`` for all steps, or as :meth:`Schedule.respaced` (``ValueError`` if too many)."""
        self.config = config
        full = Schedule.from_config(config)
        self.schedule = full if sampling_steps is None else full.respaced(sampling_steps)
        self.steps = len(self.schedule)

    def at(self, coefficients: Coefficients, t: Tensor) -> Tensor:
        """``coefficients[t]`` as float32 ``[B, 1, 1, 1]``."""
        return torch.from_numpy(coefficients.astype(np.float32)).to(t.device)[t].reshape(-1, 1, 1, 1)

    def timesteps(self, t: Tensor) -> Tensor:
        """Steps of this schedule as steps of the training schedule."""
        return torch.from_numpy(self.schedule.timestep_map).to(t.device)[t]

    def q_sample(self, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """``x_t = x_0 + eta_t (y - x_0) + kappa sqrt(eta_t) noise``."""
        s = self.schedule
        return self.at(s.etas, t) * (y - x0) + x0 + self.at(s.sqrt_etas * s.kappa, t) * noise

    def prior(self, y: Tensor, noise: Tensor) -> Tensor:
        """``x_T = y + kappa sqrt(eta_T) noise``, T the last step of this schedule."""
        return y + np.float32(self.schedule.kappa * self.schedule.sqrt_etas[-1]).item() * noise

    def scale_input(self, x: Tensor, t: Tensor) -> Tensor:
        """What the network sees of the state (see ``DiffusionConfig.scaling``)."""
        s, scaling = self.schedule, self.config.scaling
        if scaling == "latent":
            return x / torch.sqrt(self.at(s.etas, t) * s.kappa**2 + 1)
        if scaling == "pixel":
            return x / (self.at(s.sqrt_etas, t) * s.kappa * 3 + 1)
        return x

    def target(self, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the network is trained to return for ``q_sample(x0, y, t, noise)``."""
        s, prediction = self.schedule, self.config.prediction
        if prediction == "xstart":
            return x0
        if prediction == "residual":
            return y - x0
        return noise if prediction == "epsilon" else self.at(s.sqrt_etas * s.kappa, t) * noise

    def x0_from_output(self, output: Tensor, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0 that a network's output stands for."""
        s, prediction = self.schedule, self.config.prediction
        if prediction == "xstart":
            return output
        if prediction == "residual":
            return y - output
        eta = self.at(s.etas, t)
        noise = self.at(s.sqrt_etas * s.kappa, t) * output if prediction == "epsilon" else output
        return (x - noise - eta * y) / (1 - eta)

    def posterior_mean(self, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0, y): ``eta_{t-1}/eta_t x_t + alpha_t/eta_t x_0``."""
        s = self.schedule
        return self.at(s.posterior_mean_coef1, t) * x + self.at(s.posterior_mean_coef2, t) * x0

    def predict(
        self, network: Network, x: Tensor, y: Tensor, t: Tensor, told: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Network input, its output and the estimate of x_0; ``told``: another (original) index than that of ``t``."""
        scaled = self.scale_input(x, t)
        output = network(scaled, self.timesteps(t) if told is None else told)
        return scaled, output, self.x0_from_output(output, x, y, t)

    def trajectory(
        self, network: Network, y: Tensor, noise: Noise, start: Tensor | None = None, clip: bool = False
    ) -> Iterator[Step]:
        """Ancestral sampling (ResShift), one :class:`Step` at a time, noisiest first.

        Parameters
        ----------
        y : ``[B, C, H, W]``, the LR image on the grid of the state (its latent, or its pixels in [-1, 1]).
        noise : called once for x_T (unless ``start`` is given) and once per step but the last.
        start : x_T; ``None``: drawn from the prior.
        clip : clamp every estimate of x_0 to [-1, 1] (pixel space).
        """
        x = self.prior(y, noise()) if start is None else start
        for i in reversed(range(self.steps)):
            t = torch.full((len(y),), i, device=y.device)
            scaled, output, x0 = self.predict(network, x, y, t)
            if clip:
                x0 = x0.clamp(-1, 1)
            mean = self.posterior_mean(x0, x, t)
            deviation = torch.exp(0.5 * self.at(self.schedule.posterior_log_variance_clipped, t))
            x = mean + deviation * noise() if i else mean
            yield Step(int(self.schedule.timestep_map[i]), scaled, output, x0, mean, x)

    def sample(self, network: Network, y: Tensor, noise: Noise, start: Tensor | None = None, clip: bool = False) -> Tensor:
        """The last state of :meth:`trajectory`: ``[B, C, H, W]``."""
        return _last(self.trajectory(network, y, noise, start, clip))

    def deterministic_trajectory(self, network: Network, y: Tensor, start: Tensor, clip: bool = False) -> Iterator[Step]:
        """Sampling without noise from x_T = ``start`` (SinSR): ``x_{t-1} = k x_0 + m x_t + j y``."""
        k, m, j = self.schedule.deterministic
        x = start
        for i in reversed(range(self.steps)):
            t = torch.full((len(y),), i, device=y.device)
            scaled, output, x0 = self.predict(network, x, y, t)
            if clip:
                x0 = x0.clamp(-1, 1)
            x = self.at(k, t) * x0 + self.at(m, t) * x + self.at(j, t) * y
            yield Step(int(self.schedule.timestep_map[i]), scaled, output, x0, x, x)

    def sample_deterministic(self, network: Network, y: Tensor, start: Tensor, clip: bool = False) -> Tensor:
        """The last state of :meth:`deterministic_trajectory`: ``[B, C, H, W]``."""
        return _last(self.deterministic_trajectory(network, y, start, clip))

    def invert(self, network: Network, y: Tensor, x0: Tensor) -> Tensor:
        """x_T whose deterministic trajectory ends near ``x0``: ``x_t = (x_{t-1} - k x_0(x_{t-1}, t) - j y) / m`` for t > 0."""
        k, m, j = self.schedule.deterministic
        x = x0
        for i in range(1, self.steps):
            t = torch.full((len(y),), i, device=y.device)
            estimate = self.predict(network, x, y, t)[2]
            x = (x - self.at(k, t) * estimate - self.at(j, t) * y) / self.at(m, t)
        return x

    def one_step(self, network: Network, y: Tensor, noise: Noise, clip: bool = False) -> Tensor:
        """SinSR: the estimate of x_0 from x_T alone, ``x_0 = f(x_T, T)``; no posterior mean is taken."""
        t = torch.full((len(y),), self.steps - 1, device=y.device)
        x0 = self.predict(network, self.prior(y, noise()), y, t)[2]
        return x0.clamp(-1, 1) if clip else x0


def _last(steps: Iterator[Step]) -> Tensor:
    for step in steps:
        final = step.sample
    return final
