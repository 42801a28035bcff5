"""Restoring an image band by band: a DiffPIR chain on every level of a pyramid, coarse to fine.

At level i the unknown is ``X_i = x_i + c_i`` with ``c_i = U X_(i+1)``, and the measurement is ``y = H U^(i-1) X_i + e_i``,
where e_i is
what finer bands and noise add. A chain is that of DiffPIR (arXiv:2305.08995) in its variance-exploding form, with the data step
``argmin_x |A_i x - y|^2 + rho |x - x_0|^2``, ``rho = lambda s_i^2 / sigma^2``, ``A_i = H U^(i-1)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement, NoiseSource
from mrbench.degradation.operators import Operator
from mrbench.degradation.padding import Crop
from mrbench.errors import UserError

from .band_prior import BandPrior
from .cascade_options import CascadeConfig
from .edm2_sampling import edm_sigmas
from .level_operators import LevelOperator, SeparableLevel, level_operator
from .operator_cache import OperatorCache
from .pyramid import Pyramid, Transfer, coarser
from .steps import OnStep, after, of_part

LEAST_NOISE = 1e-3  # of the measurement, in units of [0, 1], as in DiffPIR
EXACT = 1e-6  # rho of projections onto H x = y: what H all but loses (windows of k-space) would only amplify rounding

Target = Literal["measurement", "cascade"]


@dataclass(frozen=True)
class Chain:
    """How every level is sampled.

    levels : bands that may be sampled, the finest ones. steps : in all, of which each level of the cascade has its share.
    sigma_min, sigma_max : noise levels in units of the networks. lam, zeta : lambda and zeta of DiffPIR.
    """

    levels: int
    steps: int
    target: Target
    sigma_min: float
    sigma_max: float
    lam: float
    zeta: float


def share_steps(steps: int, levels: int) -> list[int]:
    """Steps of every level, the finest first: equal shares, spare ones to the coarse levels (200 of 3: 66, 67, 67).

    Raises
    ------
    UserError : fewer steps than levels.
    """
    if steps < levels:
        raise UserError(f"steps {steps}: every one of the {levels} levels needs at least one step. Give {levels} or more.")
    share, spare = divmod(steps, levels)
    return [share + (i >= levels - spare) for i in range(levels)]


@dataclass(frozen=True)
class _Canvas:
    """A measurement's geometry on a padded canvas: what is prepared once for every operator."""

    operator: Operator
    crop: Crop
    levels: tuple[LevelOperator, ...]
    transfers: tuple[Transfer, ...]


class Cascade:
    """The networks of all levels, and the road from a measurement to restored images."""

    def __init__(self, config: CascadeConfig, networks: Mapping[str, BandPrior], what: str = "the checkpoint") -> None:
        """``networks``: level1 (finest), level2, ... as in ``config``.

        Raises
        ------
        UserError : a network whose band has never been measured.
        """
        self.config, self._what = config, what
        self.networks = [networks[name] for name in config.networks]
        for name, network in networks.items():
            if not network.measured:
                raise UserError(
                    f"{what}: {name} was never trained (the spread of its band is not known). Train all stages of the "
                    "recipe, or name another checkpoint."
                )
        self._pyramid = Pyramid(config.pyramid)
        self._canvases: OperatorCache[_Canvas] = OperatorCache()

    @property
    def count(self) -> int:
        """Number of levels."""
        return len(self.networks)

    def known(self, level: int, scale: tuple[float, float], sigma: float) -> bool:
        """Whether a noise-free measurement is at least as fine as the images of ``level``: then nothing is left to sample."""
        return sigma == 0 and 2 ** (level - 1) >= max(scale) - 1e-6

    def sampled(self, chain: Chain, scale: tuple[float, float], sigma: float) -> list[int]:
        """The levels that are sampled, the finest first."""
        return [i for i in range(1, chain.levels + 1) if not self.known(i, scale, sigma)]

    def calls(self, chain: Chain, scale: tuple[float, float], sigma: float) -> int:
        """Network calls of one draw."""
        shares = share_steps(chain.steps, self.count)
        return sum(shares[i - 1] for i in self.sampled(chain, scale, sigma))

    def restore(
        self,
        measurement: Measurement,
        draws: int,
        chain: Chain,
        sigma: float,
        max_batch: int,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """``[B, K, C, H, W]`` in the units of the ground truth, not clipped; draw k of an item is the same whatever else is
        computed.

        Parameters
        ----------
        sigma : noise level of the measurement, in units of [0, 1].
        on_step : called with the steps done and their number in all, over all levels and draws.

        Raises
        ------
        UserError : no operator, one without proximal step, other channels than the networks', fewer steps than levels.
        """
        operator = self._check(measurement)
        share_steps(chain.steps, self.count)
        channels = measurement.y.shape[1]
        canvas = self._canvases.get(operator, channels, lambda: self._prepared(operator, channels))
        padded, _ = measurement.padded(self.config.multiple)
        batch = len(padded.y)
        chunk = max(1, max_batch // batch)
        parts: list[Tensor] = []
        starts = range(1, draws + 1, chunk)
        for first in starts:
            chosen = range(first, min(first + chunk, draws + 1))
            y = padded.y.float().repeat_interleave(len(chosen), 0)
            heard = of_part(on_step, len(parts), len(starts))
            image = self._sample(y, canvas, padded, padded.noise(chosen), chain, sigma, heard)
            parts.append(image.reshape(batch, len(chosen), *image.shape[1:]))
        return canvas.crop(torch.cat(parts, dim=1))

    # -- one draw --------------------------------------------------------------------------------------------------
    def _sample(
        self,
        y: Tensor,
        canvas: _Canvas,
        measurement: Measurement,
        source: NoiseSource,
        chain: Chain,
        sigma: float,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """``[B, C, h, w] -> [B, C, H, W]``: all levels in turn."""
        scale, size = measurement.scale, measurement.size
        h = canvas.operator.linear_part
        explained = h.upsample(y)  # the image that y speaks of, for levels that it determines
        if sigma == 0:
            explained = h.prox(explained, y, EXACT)
        shares = share_steps(chain.steps, self.count)
        image: Tensor | None = None
        done, calls = 0, self.calls(chain, scale, sigma)
        for level in range(self.count, 0, -1):
            if level > chain.levels or self.known(level, scale, sigma):
                image = self._pyramid.down(explained, level - 1)
                continue
            condition = None if image is None else self._pyramid.transfer(coarser(size, level - 1)).up(image)
            halvings = round(math.log2(max(scale))) + 1 - level  # between this level and y
            operator: LevelOperator = canvas.levels[level - 1]
            target, spread = y, self._spread(explained, canvas, level, sigma, size)
            if chain.target == "cascade" and halvings > 1 and image is not None:
                operator = SeparableLevel(canvas.transfers[level - 1].down_matrices)
                target, spread = image, LEAST_NOISE
            shape = (y.shape[1], *coarser(size, level - 1))
            heard = after(on_step, done, calls)
            band = self._chain(level, shares[level - 1], condition, operator, target, spread, source, chain, shape, heard)
            done += shares[level - 1]
            image = band if condition is None else band + condition
        assert image is not None
        if sigma == 0 and chain.target == "measurement":
            image = h.prox(image, y, EXACT)
        return image

    def _chain(
        self,
        level: int,
        steps: int,
        condition: Tensor | None,
        operator: LevelOperator,
        target: Tensor,
        spread: float | Tensor,
        source: NoiseSource,
        chain: Chain,
        shape: tuple[int, ...],
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The band of one level."""
        network = self.networks[level - 1]
        planes = shape[0] // self.config.channels  # 2: real and imaginary parts, each for itself
        wide = condition if condition is not None else 0.0
        told = None if condition is None else _apart(condition, planes)
        sigmas = (edm_sigmas(steps, chain.sigma_min, chain.sigma_max) * float(network.unit)).tolist()
        z = network.centre.repeat(planes)[:, None, None] + sigmas[0] * source.normal(shape).flatten(0, 1)
        for step, now in enumerate(sigmas):
            x0 = network.denoise(_apart(z, planes), now, told).reshape(z.shape)
            rho = chain.lam * (spread / now) ** 2
            x0 = operator.prox(x0 + wide, target, rho) - wide
            if on_step is not None:
                on_step(step + 1, steps)
            if step == steps - 1:
                break
            fresh = (z - x0) / now * math.sqrt(1 - chain.zeta)
            if chain.zeta:
                fresh = fresh + math.sqrt(chain.zeta) * source.normal(shape).flatten(0, 1)
            z = x0 + sigmas[step + 1] * fresh
        return x0

    def _spread(self, explained: Tensor, canvas: _Canvas, level: int, sigma: float, size: tuple[int, int]) -> float | Tensor:
        """``[B]``: spread of what a level cannot explain of y: noise, and what finer bands leak into it (estimated without
        them).
        """
        if level == 1:
            return max(sigma, LEAST_NOISE)
        coarse = self._pyramid.up(self._pyramid.down(explained, level - 1), size, level - 1)
        leak = canvas.operator.linear_part.forward(explained - coarse).square().flatten(1).mean(1)
        return (leak + sigma**2).sqrt().clamp_min(LEAST_NOISE)

    # -- geometry --------------------------------------------------------------------------------------------------
    def _check(self, measurement: Measurement) -> Operator:
        operator, channels = measurement.operator, measurement.y.shape[1]
        if operator is None:
            raise UserError(
                "scale_cascaded needs the degradation's 2-D operator, and these slices were cut from a volume degraded in 3-D. "
                "Choose a 2-D protocol, or another method."
            )
        if channels != self.config.channels and (self.config.channels, channels) != (1, 2):
            raise UserError(
                f"{self._what} takes images of {self.config.channels} channel(s), the measurement has {channels}. Name weights "
                f"for {channels}."
            )
        return operator

    def _prepared(self, operator: Operator, channels: int) -> _Canvas:
        check_prox(operator, channels, "scale_cascaded")
        wide, crop = operator.padded(self.config.multiple)
        size = (wide.hr_size[0], wide.hr_size[1])
        transfers = [self._pyramid.transfer(coarser(size, i)) for i in range(self.count)]
        levels = [level_operator(wide, transfers[:i], channels) for i in range(self.count)]
        return _Canvas(wide, crop, tuple(levels), tuple(transfers))


def _apart(x: Tensor, planes: int) -> Tensor:
    """``[B, planes C, H, W]`` to ``[B planes, C, H, W]``."""
    return x.reshape(-1, x.shape[1] // planes, *x.shape[2:])


def check_prox(operator: Operator, channels: int, method: str) -> None:
    """Refuse an operator that does not carry out what its class promises, before anything is sampled (``UserError``)."""
    try:
        y = torch.zeros(1, channels, *operator.lr_size)
        z = torch.zeros(1, channels, *operator.hr_size)
        operator.linear_part.prox(operator.linear_part.adjoint(y) + z, y, 1.0)
    except (NotImplementedError, AttributeError) as error:
        raise UserError(
            f"{method} needs the adjoint and the proximal step of the degradation, and {operator.name} has none "
            f"({type(error).__name__}: {error}). Choose another degradation, or another method."
        ) from error
