"""What a method is given, and how it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mrbench.degradation.apply import working
from mrbench.degradation.base import Degradation
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.interpolate import KERNELS, KernelName, interpolate
from mrbench.degradation.noise import NoiseKind, add_noise
from mrbench.degradation.operators import Operator
from mrbench.degradation.padding import Crop, pad_grids, pad_measured
from mrbench.errors import UserError
from mrbench.seeds import derive_seed


class NoiseSource:
    """Standard normal numbers, one CPU generator per (item, draw): draw ``k`` is the same whatever is computed beside it."""

    def __init__(self, seed_key: str, ids: Sequence[str], draws: Sequence[int], device: torch.device) -> None:
        """Seed ``derive_seed(seed_key, id, draw)`` for every item and draw."""
        if not draws or any(k < 1 for k in draws):
            raise ValueError(f"draws are counted from 1 and there is at least one, got {list(draws)}")
        self._device = device
        self._generators = [[torch.Generator().manual_seed(derive_seed(seed_key, i, int(k))) for k in draws] for i in ids]
        self._draws = len(draws)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The next numbers of every generator: float32 ``[B, K, *shape]`` on the measurement's device."""
        out = torch.empty(len(self._generators), self._draws, *shape)
        for item, generators in zip(out, self._generators, strict=True):
            for draw, generator in zip(item, generators, strict=True):
                draw.normal_(generator=generator)
        return out.to(self._device)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """A batch of measurements of one size, without the ground truth.

    ``y``: LR images ``[B, C, h, w]`` float32; the ground truth lies in [0, 1], ``y`` may overshoot. C = 1 magnitude,
    2 complex (real, imaginary), 3 colour. ``size``: ``(H, W)`` of the HR images. ``scale``: effective steps ``(sy, sx)``.
    ``operator``: the degradation bound to this size, or ``None`` where no 2-D operator exists (slices of a volume that was
    degraded in 3-D). ``grid``: where LR rows and columns sit, always known. ``sigma``: noise level in units of [0, 1], 0 if
    noise-free, ``None`` if unknown. ``ids``: item ids. ``seed_key``: protocol hash, which with the id seeds all noise.
    """

    y: Tensor
    size: tuple[int, int]
    scale: tuple[float, float]
    operator: Operator | None
    grid: tuple[AxisGrid, AxisGrid]
    sigma: float | None
    ids: tuple[str, ...]
    seed_key: str

    def __post_init__(self) -> None:
        """Check that sizes, grids and ids belong together.

        Raises
        ------
        ValueError : they do not.
        """
        lr, hr = tuple(g.n_lr for g in self.grid), tuple(g.n_hr for g in self.grid)
        if self.y.ndim != 4 or tuple(self.y.shape[2:]) != lr or hr != self.size:
            raise ValueError(f"y of shape {list(self.y.shape)} and size {self.size} do not fit a grid {hr} -> {lr}")
        if len(self.ids) != self.y.shape[0]:
            raise ValueError(f"{self.y.shape[0]} images with {len(self.ids)} ids")
        if self.operator is not None and self.operator.grid != self.grid:
            raise ValueError("the operator is bound to another grid")

    def noise(self, draws: int | Sequence[int] = 1) -> NoiseSource:
        """Noise for ``draws``: a number K (draws 1 to K) or the draws themselves, counted from 1."""
        numbers = range(1, draws + 1) if isinstance(draws, int) else draws
        return NoiseSource(self.seed_key, self.ids, tuple(numbers), self.y.device)

    def padded(self, multiple: int | tuple[int, int]) -> tuple[Measurement, Crop]:
        """The same measurement on a canvas extended at the bottom and right to the next multiples, and the crop back.

        ``y`` is extended by repeating its last row and column, on a grid of the same step and offset. What was measured does
        not depend on the padding (:func:`mrbench.degradation.padding.pad_matrix`).
        """
        crop = Crop(self.size, (self.grid[0].n_lr, self.grid[1].n_lr))
        gy, gx = pad_grids(self.grid, multiple)
        if (gy, gx) == self.grid:
            return self, crop
        operator = None if self.operator is None else self.operator.padded(multiple)[0]
        y = pad_measured(self.y, self.grid, (gy, gx))
        return replace(self, y=y, size=(gy.n_hr, gx.n_hr), operator=operator, grid=(gy, gx)), crop

    def select(self, indices: Sequence[int]) -> Measurement:
        """The items at ``indices``, in that order."""
        chosen = [int(i) for i in indices]
        return replace(self, y=self.y[chosen], ids=tuple(self.ids[i] for i in chosen))

    def to(self, device: torch.device | str) -> Measurement:
        """The same measurement with ``y`` on another device (operators follow their input)."""
        return replace(self, y=self.y.to(device))


def upsample(measurement: Measurement, kernel: KernelName = "bicubic", grid_blind: bool = False) -> Tensor:
    """Interpolate the LR images to ``[B, C, H, W]``, aware of where the LR samples sit.

    ``kernel``: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos``, ``bspline`` or ``zero_filled``; borders and conventions are
    those of :func:`mrbench.degradation.interpolate.interpolation_matrix`. ``zero_filled`` of a k-space crop is consistent
    with it.
    ``grid_blind`` pretends the usual centre-aligned grid, to show what ignoring the grid costs.

    Raises
    ------
    UserError : an unknown kernel.
    """
    if kernel not in KERNELS:
        raise UserError(f"no interpolation kernel named {kernel!r}. Known: {', '.join(KERNELS)}.")
    if grid_blind:
        return interpolate(working(measurement.y), [g.blind() for g in measurement.grid], kernel)
    if measurement.operator is not None:
        return measurement.operator.upsample(measurement.y, kernel)
    return interpolate(working(measurement.y), measurement.grid, kernel)


def measure(
    hr: Tensor,
    operator: Operator,
    names: Sequence[str],
    noise_kind: NoiseKind,
    sigma: float,
    clip: bool,
    seed_key: str,
) -> Tensor:
    """``[B, C, *hr] -> [B, C, *lr]``: forward model, noise seeded by ``(seed_key, name, "measurement")``, clip to [0, 1].

    Raises
    ------
    UserError : bad noise (:func:`mrbench.degradation.noise.add_noise`), or a clip of complex images.
    """
    if len(names) != hr.shape[0]:
        raise ValueError(f"{hr.shape[0]} images with {len(names)} ids")
    if clip and hr.shape[1] == 2:
        raise UserError("complex images (2 channels) cannot be clipped to [0, 1]. Set clip_measurement to false.")
    generators = [torch.Generator().manual_seed(derive_seed(seed_key, name, "measurement")) for name in names]
    y = add_noise(operator.forward(hr), noise_kind, sigma, generators)
    return y.clamp(0, 1) if clip else y


def degrade(
    hr: Tensor,
    ids: Sequence[str],
    degradation: Degradation[Any],
    scale: Sequence[float],
    *,
    noise_kind: NoiseKind = "none",
    sigma: float = 0.0,
    clip: bool = False,
    seed_key: str,
) -> Measurement:
    """Measure a batch of slices ``[B, C, H, W]`` (range [0, 1]); the same measurement for an item whatever its batch.

    Raises
    ------
    UserError : the degradation, noise or clip does not fit these images.
    """
    if hr.ndim != 4:
        raise ValueError(f"expected images of shape [B, C, H, W], got {list(hr.shape)}")
    height, width = hr.shape[2:]
    operator = degradation.bind((height, width), tuple(scale))
    y = measure(hr, operator, ids, noise_kind, sigma, clip, seed_key)
    gy, gx = operator.grid
    return Measurement(y, (height, width), (gy.step, gx.step), operator, (gy, gx), sigma, tuple(ids), seed_key)
