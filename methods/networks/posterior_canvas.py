"""From a measurement to the problem that a posterior sampler works on, and back to images.

Samplers work on *states*, the images of a prior. What is measured is on the scale of the data. For grey and colour images, data
in [0, 1], ``image = (state + 1) / 2``; real and imaginary parts of complex images are in [-1, 1] as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mrbench.degradation.interpolate import KernelName
from mrbench.degradation.measurement import Measurement, NoiseSource, upsample
from mrbench.degradation.operators import Operator
from mrbench.degradation.padding import Crop
from mrbench.errors import UserError

from .conditioning import resample
from .steps import OnStep, of_part

COMPLEX = 2  # channels: real and imaginary part


@dataclass(frozen=True, eq=False)
class Problem:
    """``B K`` images to restore at once, the draws of an item side by side.

    canvas : the measurement, extended so that the network can take its images; ``[B, C, ...]``. crop : undoes the extension.
    operator : the canvas's. draws : K. y : ``[B K, C, h, w]``, what was measured, on the canvas. on_step : for the sampler to call.
    """

    canvas: Measurement
    crop: Crop
    operator: Operator
    draws: int
    source: NoiseSource
    on_step: OnStep | None = None
    y: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Repeat ``y`` for every draw."""
        object.__setattr__(self, "y", self.fold(self.canvas.y))

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` of the states."""
        return (self.canvas.y.shape[1], *self.canvas.size)

    @property
    def gain(self) -> float:
        """Units of the data per unit of a state."""
        return 1.0 if self.shape[0] == COMPLEX else 0.5

    @property
    def offset(self) -> float:
        """The data where the state is 0."""
        return 0.0 if self.shape[0] == COMPLEX else 0.5

    def image(self, state: Tensor) -> Tensor:
        """States on the scale of the data."""
        return self.gain * state + self.offset

    def state(self, image: Tensor) -> Tensor:
        """Images on the scale of the prior."""
        return (image - self.offset) / self.gain

    def fold(self, x: Tensor) -> Tensor:
        """``[B, ...]`` to ``[B K, ...]``."""
        return x.repeat_interleave(self.draws, dim=0)

    def unfold(self, x: Tensor) -> Tensor:
        """``[B K, ...]`` to ``[B, K, ...]``."""
        return x.reshape(-1, self.draws, *x.shape[1:])

    def noise(self) -> Tensor:
        """The next standard normal numbers, ``[B K, C, H, W]``; every (item, draw) has its own."""
        return self.source.normal(self.shape).flatten(0, 1)

    def residual(self, state: Tensor) -> Tensor:
        """``y - H x`` of what was truly measured, ``[B K, C, h, w]`` in units of the data."""
        return self.crop.lr(self.y - self.operator.forward(self.image(state)))

    def prox(self, state: Tensor, rho: float) -> Tensor:
        """``argmin_x |y - H x|^2 + rho |x - z|^2``, both in units of the data, of states ``z``."""
        return self.state(self.operator.prox(self.image(state), self.y, rho))

    def upsampled(self, kernel: KernelName | None = "bicubic") -> Tensor:
        """States ``[B K, C, H, W]`` that are the interpolated LR images; ``None``: cubic convolution with a = -3/4."""
        return self.fold(self.state(resample(self.canvas) if kernel is None else upsample(self.canvas, kernel)))


def check_measurement(measurement: Measurement, multiple: int, method: str) -> Operator:
    """The measurement's operator, if a sampler with an image prior can work on it at all.

    Raises
    ------
    UserError : no operator, or images smaller than one block of the prior's network.
    """
    if measurement.operator is None:
        raise UserError(
            f"{method} needs to know how the LR image was measured, and these slices have no 2-D operator (they come from a volume "
            "that was degraded in 3-D). Choose a degradation in the plane, or a method that works on images alone."
        )
    if min(measurement.size) < multiple:
        height, width = measurement.size
        raise UserError(
            f"{method}: images of {height}x{width} are smaller than one block of the prior's network ({multiple}x{multiple}). "
            "Name a shallower prior."
        )
    return measurement.operator


def restore(
    measurement: Measurement,
    draws: int,
    multiple: int,
    max_batch: int,
    sample: Callable[[Problem], Tensor],
    method: str,
    gradients: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """``[B, K, C, H, W]`` on the scale of the data, unclipped; draw k of an item is the same whatever is computed beside it.

    Parameters
    ----------
    multiple : of the sides of the prior's images; the measurement is extended to it, and the result cut back.
    max_batch : images in the network at once: of many draws, so many are computed together.
    sample : makes states ``[B K, C, H, W]``.
    gradients : ``sample`` takes gradients: it runs outside inference mode, on a copy of ``y`` that was made there.
    on_step : called with the steps done and their number in all, over all draws.

    Raises
    ------
    UserError : see :func:`check_measurement`.
    """
    check_measurement(measurement, multiple, method)
    if gradients:
        with torch.inference_mode(False), torch.no_grad():
            own = replace(measurement, y=measurement.y.clone())
            return restore(own, draws, multiple, max_batch, sample, method, on_step=on_step)
    canvas, crop = measurement.padded(multiple)
    assert canvas.operator is not None
    chunk = max(1, max_batch // len(measurement.ids))
    parts: list[Tensor] = []
    starts = range(1, draws + 1, chunk)
    for first in starts:
        chosen = range(first, min(first + chunk, draws + 1))
        heard = of_part(on_step, len(parts), len(starts))
        problem = Problem(canvas, crop, canvas.operator, len(chosen), canvas.noise(chosen), heard)
        parts.append(problem.unfold(problem.image(sample(problem))))
    return crop(torch.cat(parts, dim=1))
