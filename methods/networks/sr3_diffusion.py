"""The diffusion of SR3 (arXiv:2104.07636): schedules, continuous noise levels, losses' targets, and the sampler.

``x = g x_0 + sqrt(1 - g^2) n`` with g^2 the cumulative product of ``1 - beta``; the network is told g.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .gaussian_diffusion import Float64, GaussianDiffusion, at, cosine_betas
from .sr3_options import SR3DiffusionConfig, Variance
from .steps import OnStep

Network = Callable[[Tensor, Tensor], Tensor]  # noisy images [B, C, H, W], noise levels [B] -> prediction
Noise = Callable[[], Tensor]
WARM = {"warmup10": 0.1, "warmup50": 0.5}


def betas(schedule: str, steps: int, start: float, end: float) -> Float64:
    """``[T]`` by the names of the published code.

    ``linear``; ``quad``: linear in the root; ``warmup10``, ``warmup50``: linear over that part (in percent), then ``end``;
    ``const``: ``end``; ``jsd``: ``1 / T, 1 / (T - 1), ..., 1`` (ends without any signal: no sampler can begin there);
    ``cosine``: Nichol and Dhariwal 2021.

    Raises
    ------
    ValueError : no such schedule.
    """
    if schedule == "linear":
        return np.linspace(start, end, steps, dtype=np.float64)
    if schedule == "quad":
        return np.square(np.linspace(np.sqrt(start), np.sqrt(end), steps, dtype=np.float64))
    if schedule in WARM:
        warm = int(steps * WARM[schedule])
        return np.concatenate([np.linspace(start, end, warm, dtype=np.float64), np.full(steps - warm, end)])
    if schedule == "const":
        return np.full(steps, end, dtype=np.float64)
    if schedule == "jsd":
        return 1 / np.arange(steps, 0, -1, dtype=np.float64)
    if schedule == "cosine":
        return cosine_betas(steps)
    raise ValueError(f"no schedule {schedule!r}")


@dataclass(frozen=True)
class SR3Step:
    """One step of the sampler: ``index`` of the (spaced) process, the clamped estimate of x_0, and the next state."""

    index: int
    x0: Tensor
    sample: Tensor


class SR3Diffusion:
    """The process that a :class:`SR3DiffusionConfig` describes, or one with given betas ``[T]``.

    levels : float64 ``[T + 1]``, the noise levels g from 1 (no noise) down.
    """

    def __init__(self, config: SR3DiffusionConfig, given: Float64 | None = None) -> None:
        self.config = config
        own = betas(config.schedule, config.steps, config.linear_start, config.linear_end)
        self._table = np.cumprod(1 - (own if given is None else given), dtype=np.float64)
        self.levels: Float64 = np.sqrt(np.append(1.0, self._table))

    @property
    def steps(self) -> int:
        """Steps T of training."""
        return len(self._table)

    def process(self, steps: int | None = None) -> GaussianDiffusion:
        """The process on ``steps`` of the T, evenly from the first to the last (``UserError`` if there are not so many)."""
        return GaussianDiffusion(self._table, steps)

    # -- training --------------------------------------------------------------------------------------------------
    def draw(self, count: int, generator: torch.Generator, one_step: bool = False) -> Tensor:
        """``[count]`` noise levels, float32 on the generator's device: a step, uniform, then uniform between its levels.

        ``one_step``: the step is the same for all, as in the published code.
        """
        device = generator.device
        t = torch.randint(1, self.steps + 1, (1 if one_step else count,), generator=generator, device=device)
        part = torch.rand(count, generator=generator, device=device)
        return self.between(t, part)

    def between(self, t: Tensor, part: Tensor) -> Tensor:
        """Noise levels ``[B]``: the part ``[B]`` of the way from level t - 1 to level t (1 to T)."""
        levels = torch.from_numpy(self.levels).to(device=t.device, dtype=part.dtype)
        return levels[t - 1] + part * (levels[t] - levels[t - 1])

    def noisy(self, x0: Tensor, g: Tensor, noise: Tensor) -> Tensor:
        """``g x_0 + sqrt(1 - g^2) n``."""
        signal, rest = _split(g)
        return signal * x0 + rest * noise

    def target(self, x0: Tensor, g: Tensor, noise: Tensor, condition: Tensor) -> Tensor:
        """What the network should return for :meth:`noisy`; ``condition``: the LR image on the HR grid, in [-1, 1]."""
        kind, (signal, rest) = self.config.prediction, _split(g)
        if kind == "residual":
            part, left, _ = self._mixture(signal, rest)
            return part * noise - left * (x0 - condition) / self.config.residual_scale
        if kind == "v":
            return signal * noise - rest * x0
        return noise if kind == "eps" else x0

    def estimate(self, x: Tensor, g: Tensor, output: Tensor, condition: Tensor) -> Tensor:
        """The estimate of x_0 that an output stands for, not clamped."""
        return self._estimate(x, *_split(g), output, condition)

    def _estimate(self, x: Tensor, signal: Tensor, rest: Tensor, output: Tensor, condition: Tensor) -> Tensor:
        kind = self.config.prediction
        if kind == "residual":
            part, left, size = self._mixture(signal, rest)
            return condition + self.config.residual_scale * (part * (x - signal * condition) / size - left * output)
        if kind == "v":
            return signal * x - rest * output
        return (x - rest * output) / signal if kind == "eps" else output

    def _mixture(self, signal: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Parts ``p, q`` of difference and noise in ``(x - g c) / size``, both of unit variance, with ``p^2 + q^2 = 1``."""
        scaled = signal * self.config.residual_scale
        size = (scaled.square() + rest.square()).sqrt()
        return scaled / size, rest / size, size

    # -- sampling --------------------------------------------------------------------------------------------------
    def trajectory(
        self, network: Network, condition: Tensor, noise: Noise, steps: int | None = None, variance: Variance = "posterior"
    ) -> Iterator[SR3Step]:
        """The reverse process from pure noise, one :class:`SR3Step` at a time.

        ``condition``: the LR image on the HR grid, ``[B, C, H, W]`` in [-1, 1]; ``network`` sees it by itself.
        Estimates of x_0 are clamped to [-1, 1]. ``noise`` is called for the first state and after every step but the last.
        ``variance`` of the added noise: that of ``q(x_{i-1} | x_i, x_0)``, or beta.
        """
        process = self.process(steps)
        x = noise()
        for i in reversed(range(process.num_steps)):
            a = process.alphas_cumprod
            signal, rest = at(np.sqrt(a), i, x), at(np.sqrt(1 - a), i, x)
            output = network(x, signal.flatten().float().expand(len(x)))
            x0 = self._estimate(x, signal, rest, output, condition).clamp(-1, 1)
            x, _ = process.posterior(x0, x, i)
            if i:
                table = process.betas if variance == "beta" else process.posterior_variance
                x = x + float(np.sqrt(table[i])) * noise()
            yield SR3Step(i, x0, x)

    def sample(
        self,
        network: Network,
        condition: Tensor,
        noise: Noise,
        steps: int | None = None,
        variance: Variance = "posterior",
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The end of :meth:`trajectory`: ``[B, C, H, W]``. ``on_step``: called with the steps done and their number in all."""
        total = self.steps if steps is None else steps
        for number, step in enumerate(self.trajectory(network, condition, noise, steps, variance), start=1):
            result = step.sample
            if on_step is not None:
                on_step(number, total)
        return result


def _split(g: Tensor) -> tuple[Tensor, Tensor]:
    """``g`` and ``sqrt(1 - g^2)``, shaped ``[B, 1, 1, 1]``."""
    signal = g.reshape(-1, 1, 1, 1)
    return signal, (1 - signal.square()).clamp_min(0).sqrt()
