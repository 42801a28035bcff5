"""The Schroedinger bridge between an LR image x_1 and its HR image x_0: schedule, forward process, posterior, sampler.

Image-to-image Schroedinger bridge (I2SB, arXiv:2302.05872). States between the two ends are Gaussian,

    q(x_n | x_0, x_1) = N(mu_n^0 x_0 + mu_n^1 x_1, std_n^2 I),    n = 0 .. N - 1  (0 near x_0)

and the chain starts at x_1 itself, without noise. Coefficients are computed in float64 and become float32 one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bridge_options import BridgeConfig, Final
from .steps import OnStep

Array = NDArray[np.float64]
Network = Callable[[Tensor, Tensor], Tensor]  # (state [B, C, H, W], times [B]) -> output [B, C, H, W]
Noise = Callable[[], Tensor]  # the next standard normal numbers, [B, C, H, W]


def space_indices(interval: int, count: int) -> list[int]:
    """``count`` of the steps ``0 .. interval - 1``, both ends among them, as even as they can be (0 alone if count is 1).

    Positions are added up in floating point and rounded half to even, as published.

    Raises
    ------
    ValueError : more than there are, or none.
    """
    if not 1 <= count <= interval:
        raise ValueError(f"between 1 and {interval} of {interval} steps can be chosen, got {count}")
    stride = 1.0 if count == 1 else (interval - 1) / (count - 1)
    position, chosen = 0.0, []
    for _ in range(count):
        chosen.append(round(position))
        position += stride
    return chosen


@dataclass(frozen=True)
class BridgeStep:
    """One executed step of the sampler, from step ``step`` to step ``following``."""

    step: int
    following: int
    state: Tensor  # what the network was given
    output: Tensor
    x0: Tensor  # the estimate of x_0, clamped if that was asked for
    sample: Tensor  # the state at ``following``


class Bridge:
    """The process that a :class:`BridgeConfig` describes; all arrays are ``[interval]``."""

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config
        self.betas = _betas(config)
        forward = np.cumsum(self.betas)
        backward = np.cumsum(self.betas[::-1])[::-1]
        total = forward + backward
        self.std_fwd: Array = np.sqrt(forward)
        self.std_bwd: Array = np.sqrt(backward)
        self.mu_x0: Array = backward / total
        self.mu_x1: Array = forward / total
        self.std_sb: Array = np.sqrt(forward * backward / total)
        self.noise_levels: Array = np.linspace(config.time_start, 1.0, config.interval) * config.interval

    def at(self, coefficients: Array, step: Tensor) -> Tensor:
        """``coefficients[step]`` as float32 ``[B, 1, 1, 1]``."""
        return torch.from_numpy(coefficients.astype(np.float32)).to(step.device)[step].reshape(-1, 1, 1, 1)

    def times(self, step: Tensor) -> Tensor:
        """What the network is told of steps ``[B]``: float32, fractional, 0.1 to 1000 as published."""
        return self.at(self.noise_levels, step).flatten()

    def q_sample(self, x0: Tensor, x1: Tensor, step: Tensor, noise: Tensor | None) -> Tensor:
        """A state at ``step [B]`` (eq. 11): ``mu^0 x_0 + mu^1 x_1 + std n``; without noise on the line between both (OT-ODE)."""
        mean = self.at(self.mu_x0, step) * x0 + self.at(self.mu_x1, step) * x1
        return mean if noise is None else mean + self.at(self.std_sb, step) * noise

    def target(self, x0: Tensor, state: Tensor, step: Tensor) -> Tensor:
        """What the network is trained to return (eq. 12): ``(x_n - x_0) / sigma_n``, sigma_n the root of the betas' sum up to n."""
        return (state - x0) / self.at(self.std_fwd, step)

    def estimate(self, output: Tensor, state: Tensor, step: Tensor) -> Tensor:
        """The estimate of x_0 that a network's output stands for: ``x_n - sigma_n output``."""
        return state - self.at(self.std_fwd, step) * output

    def posterior(self, step: int, following: int) -> tuple[float, float, float]:
        """Weights of x_0 and x_n in the mean of q(x_m | x_0, x_n), and its standard deviation (eq. 4), m < n.

        With ``delta^2 = sigma_n^2 - sigma_m^2``: ``delta^2 / sigma_n^2``, ``sigma_m^2 / sigma_n^2``, ``sigma_m delta / sigma_n``.
        """
        later, earlier = float(self.std_fwd[step]) ** 2, float(self.std_fwd[following]) ** 2
        gap = later - earlier
        return gap / later, earlier / later, float(np.sqrt(earlier * gap / later))

    def trajectory(
        self,
        network: Network,
        x1: Tensor,
        noise: Noise,
        nfe: int,
        *,
        ot_ode: bool = False,
        clip: bool = False,
        final: Final = "official",
    ) -> Iterator[BridgeStep]:
        """The reverse process from x_1, one :class:`BridgeStep` at a time; ``nfe`` calls of the network.

        Parameters
        ----------
        x1 : ``[B, C, H, W]`` in [-1, 1], the interpolated LR image.
        noise : called once per step but the last (never with ``ot_ode``).
        nfe : 1 to ``interval - 1``.
        clip : clamp every estimate of x_0 to [-1, 1].
        final : ``official``: the chain ends at step 0, whose sigma is not 0, so that the result keeps
            ``sigma_0^2 / sigma_n^2`` of the state before it (half of it at nfe = interval - 1). ``x0``: the last estimate of x_0.

        Raises
        ------
        ValueError : more network calls than the bridge has steps.
        """
        steps = space_indices(self.config.interval, nfe + 1)
        x = x1
        for n, m in zip(steps[:0:-1], steps[-2::-1], strict=True):
            told = torch.full((len(x1),), n, device=x1.device)
            output = network(x, self.times(told))
            x0 = self.estimate(output, x, told)
            if clip:
                x0 = x0.clamp(-1, 1)
            if m == 0 and final == "x0":
                sample = x0
            else:
                of_x0, of_x, deviation = self.posterior(n, m)
                sample = of_x0 * x0 + of_x * x
                if m > 0 and not ot_ode:
                    sample = sample + deviation * noise()
            yield BridgeStep(n, m, x, output, x0, sample)
            x = sample

    def sample(
        self,
        network: Network,
        x1: Tensor,
        noise: Noise,
        nfe: int,
        *,
        ot_ode: bool = False,
        clip: bool = False,
        final: Final = "official",
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The end of :meth:`trajectory`: ``[B, C, H, W]``. ``on_step``: called with the steps done and their number in all."""
        for number, step in enumerate(self.trajectory(network, x1, noise, nfe, ot_ode=ot_ode, clip=clip, final=final), start=1):
            result = step.sample
            if on_step is not None:
                on_step(number, nfe)
        return result


def bridge_loss(bridge: Bridge, network: Network, x0: Tensor, x1: Tensor, step: Tensor, noise: Tensor | None) -> Tensor:
    """``[B]``: mean squared error of the network at ``step [B]`` (eq. 12), unweighted."""
    state = bridge.q_sample(x0, x1, step, noise)
    output = network(state, bridge.times(step))
    return (output - bridge.target(x0, state, step)).square().flatten(1).mean(1)


def _betas(config: BridgeConfig) -> Array:
    """The first half of the root-linear schedule, and back. Its second half is never used: the peak is far below beta_max."""
    half = config.interval // 2
    roots = np.linspace(np.sqrt(config.beta_min), np.sqrt(config.beta_max / config.interval), config.interval)[:half]
    return np.concatenate([roots**2, roots[::-1] ** 2])
