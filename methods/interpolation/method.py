"""``restore(measurement) -> [B, C, H, W]`` for every interpolation kernel."""

from __future__ import annotations

from torch import Tensor

from mrbench.degradation.measurement import Measurement, upsample


def nearest(measurement: Measurement) -> Tensor:
    """The nearest LR sample; halves go to the next one."""
    return upsample(measurement, "nearest")


def bilinear(measurement: Measurement) -> Tensor:
    """Linear interpolation per axis, edges repeated."""
    return upsample(measurement, "bilinear")


def bicubic(measurement: Measurement) -> Tensor:
    """Keys' cubic convolution with a = -1/2, edges repeated."""
    return upsample(measurement, "bicubic")


def lanczos(measurement: Measurement) -> Tensor:
    """Lanczos with three lobes, edges repeated, weights normalised."""
    return upsample(measurement, "lanczos")


def bspline(measurement: Measurement) -> Tensor:
    """Interpolating cubic B-spline."""
    return upsample(measurement, "bspline")


def zero_filled(measurement: Measurement) -> Tensor:
    """Zero-filled k-space, that is trigonometric interpolation."""
    return upsample(measurement, "zero_filled")
