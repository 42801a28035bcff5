"""Volumes degraded in 3-D and handed to 2-D methods slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mrbench.degradation.base import Degradation
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.interpolate import KernelName, interpolate
from mrbench.degradation.measurement import Measurement, measure
from mrbench.degradation.noise import NoiseKind
from mrbench.errors import UserError

ThroughPlane = Literal["linear", "nearest"]
_KERNELS: dict[str, KernelName] = {"linear": "bilinear", "nearest": "nearest"}


def to_slice_positions(y: Tensor, slices: AxisGrid, through_plane: ThroughPlane = "linear") -> Tensor:
    """``[B, C, d, h, w] -> [B, C, D, h, w]``: LR slices interpolated to the positions of the HR slices, grid-aware.

    Beyond the first and last LR slice their values are repeated.

    Raises
    ------
    UserError : an unknown interpolation.
    """
    if through_plane not in _KERNELS:
        raise UserError(f"no through-plane interpolation named {through_plane!r}. Known: {', '.join(_KERNELS)}.")
    in_plane = [AxisGrid.identity(n) for n in y.shape[3:]]
    return interpolate(y, [slices, *in_plane], _KERNELS[through_plane])


@dataclass(frozen=True, slots=True, eq=False)
class DegradedVolume:
    """A volume degraded in 3-D, on the HR slice positions through-plane and LR in-plane.

    ``y``: ``[C, D, h, w]``. ``grid``: in-plane axes. ``slices``: the through-plane axis as it was measured.
    ``sigma``: noise level of the measurement, before it was interpolated through-plane.
    """

    y: Tensor
    grid: tuple[AxisGrid, AxisGrid]
    slices: AxisGrid
    sigma: float
    seed_key: str

    def measurement(self, positions: Sequence[int], ids: Sequence[str]) -> Measurement:
        """The slices at HR ``positions`` as a batch; no 2-D operator made them, so ``operator`` is ``None``."""
        y = self.y[:, list(positions)].movedim(1, 0).contiguous()
        gy, gx = self.grid
        return Measurement(y, (gy.n_hr, gx.n_hr), (gy.step, gx.step), None, (gy, gx), self.sigma, tuple(ids), self.seed_key)


def degrade_volume(
    hr: Tensor,
    volume_id: str,
    degradation: Degradation[Any],
    scale: Sequence[float],
    *,
    noise_kind: NoiseKind = "none",
    sigma: float = 0.0,
    clip: bool = False,
    seed_key: str,
    through_plane: ThroughPlane = "linear",
) -> DegradedVolume:
    """Measure one volume ``[C, D, H, W]`` (range [0, 1], slices first) in 3-D, noise seeded by its id.

    Raises
    ------
    UserError : the degradation, noise or clip does not fit, or an unknown through-plane interpolation.
    """
    if hr.ndim != 4:
        raise ValueError(f"expected a volume of shape [C, D, H, W], got {list(hr.shape)}")
    operator = degradation.bind(tuple(hr.shape[1:]), tuple(scale))
    y = measure(hr[None], operator, [volume_id], noise_kind, sigma, clip, seed_key)
    slices, gy, gx = operator.grid
    return DegradedVolume(to_slice_positions(y, slices, through_plane)[0], (gy, gx), slices, sigma, seed_key)
