"""The loss of EDM2, and averages of other widths made from stored ones (Karras et al. 2024, arXiv:2312.02696)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .edm2 import EDM2Precond

Vector = NDArray[np.floating[Any]]


def noise_levels(normal: Tensor, p_mean: float, p_std: float) -> Tensor:
    """``sigma = exp(P_mean + P_std n)`` for standard normal ``n``."""
    return (p_mean + p_std * normal).exp()


def edm2_loss(
    network: EDM2Precond,
    images: Tensor,
    sigma: Tensor,
    noise: Tensor,
    condition: Tensor | None = None,
    class_labels: Tensor | None = None,
) -> Tensor:
    """``w / e^u (D - x_0)^2 + u`` of every pixel, ``w = (sigma^2 + sigma_d^2) / (sigma sigma_d)^2`` (eqs. 14, 21, 22).

    Parameters
    ----------
    images : ``[B, C, H, W]``, of standard deviation ``sigma_data``. sigma : ``[B]``. noise : as ``images``, of unit variance.

    Returns
    -------
    ``[B, C, H, W]`` float32. Published code sums it and divides by B.
    """
    data = network.config.sigma_data
    level = sigma.reshape(-1, 1, 1, 1)
    weight = (level**2 + data**2) / (level * data) ** 2
    estimate = network(images + level * noise, sigma, condition, class_labels)
    u = network.logvar(sigma)
    loss: Tensor = weight / u.exp() * (estimate - images) ** 2 + u
    return loss


def power_std(exponent: float | Vector) -> Vector:
    """Relative width of the power-function average of exponent gamma: ``sqrt((g + 1) / ((g + 2)^2 (g + 3)))`` (eq. 126)."""
    g = np.asarray(exponent, np.float64)
    width: Vector = np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3)))
    return width


def posthoc_coefficients(
    times: Sequence[float], exponents: Sequence[float], out_times: Sequence[float], out_exponents: Sequence[float]
) -> Vector:
    """``[stored, wanted]``: weights of stored power-function averages whose sum comes nearest to averages of other widths.

    Least squares between the averages' weight profiles over the training time: ``A X = B`` with the closed inner products of
    profiles (eqs. 149 to 151); the weights of an average are then divided by their sum, so that it is one.
    Exponents of a relative width: :func:`mrbench.train.ema.power_exponent`.

    Parameters
    ----------
    times, exponents : training time (steps or images) and exponent of every stored average.
    out_times, out_exponents : the same of the wanted ones.
    """
    stored = (np.asarray(times, np.float64)[:, None], np.asarray(exponents, np.float64)[:, None])
    wanted = (np.asarray(out_times, np.float64)[None], np.asarray(out_exponents, np.float64)[None])
    a = _inner(*stored, stored[0].T, stored[1].T)
    found = np.linalg.solve(a, _inner(*stored, *wanted))
    weights: Vector = found / found.sum(axis=0)
    return weights


def _inner(time_a: Vector, exponent_a: Vector, time_b: Vector, exponent_b: Vector) -> Vector:
    """Integral over the time of the product of two profiles ``(g + 1) t^g / T^(g + 1)`` on [0, T]."""
    shorter, longer = np.minimum(time_a, time_b), np.maximum(time_a, time_b)
    power = np.where(time_a <= time_b, exponent_b, exponent_a)  # of the longer one
    ratio = (shorter / longer) ** power
    result: Vector = (exponent_a + 1) * (exponent_b + 1) * ratio / ((exponent_a + exponent_b + 1) * longer)
    return result


def blend(averages: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Stored averages summed with :func:`posthoc_coefficients`; what is no floating-point tensor is taken from the last."""
    return {
        key: sum(
            (w * average[key].double() for w, average in zip(weights, averages, strict=True)),
            start=torch.zeros_like(value, dtype=torch.float64),
        ).to(value.dtype)
        if value.is_floating_point()
        else value
        for key, value in averages[-1].items()
    }
