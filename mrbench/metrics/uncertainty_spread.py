"""Spread of the draws and the error of their mean: how much, how well matched, in the same places?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.metrics.base import expect
from mrbench.metrics.uncertainty import DrawsMetric, Ensemble, Part, Values
from mrbench.metrics.uncertainty_cards import AuseOptions, CorrelationOptions

_EQUAL = "the draws are equal in all pixels, so no pixel is more uncertain than another"
_NO_ERROR = "the posterior mean equals the ground truth"


class Spread(DrawsMetric):
    """Mean standard deviation of the draws."""

    parts = (Part(ranked=False),)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}`` on the [0, 1] range."""
        return ensemble.averaged(ensemble.deviation)


class SpreadSkill(DrawsMetric):
    """sqrt((K + 1) / K) * sqrt(mean variance) / RMSE of the posterior mean (Fortin 2014); NaN where there is no error."""

    parts = (Part(ranked=False, calibrated=lambda options, draws: 1.0, undefined=_NO_ERROR),)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}``."""
        k = ensemble.count
        spread, skill = ensemble.averaged(ensemble.variance), ensemble.averaged(ensemble.error.square())
        return {
            region: torch.where(skill[region] > 0, ((k + 1) / k * v / skill[region]).sqrt(), torch.nan)
            for region, v in spread.items()
        }


def average_ranks(values: Tensor) -> Tensor:
    """Ranks 1 .. m of ``values [m]``, ties averaged, float64."""
    found: tuple[Tensor, Tensor, Tensor] = torch.unique(values, sorted=True, return_inverse=True, return_counts=True)
    _, which, count = found
    ranks: Tensor = count.cumsum(0).double() - (count.double() - 1) / 2
    return ranks[which]


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of ``[m]`` float64; NaN if one of them is constant."""
    if bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)))


class ErrorCorrelation(DrawsMetric):
    """Correlation over pixels of |posterior mean - ground truth| with the standard deviation of the draws."""

    parts = (Part(undefined=f"{_EQUAL}, or all errors are equal"),)

    def __init__(self, options: Options) -> None:
        self._options = expect(options, CorrelationOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}``; NaN where errors or deviations are constant."""
        return ensemble.each(self._value, ensemble.error.abs(), ensemble.deviation)

    def _value(self, error: Tensor, deviation: Tensor) -> float:
        if self._options.kind == "spearman":
            error, deviation = average_ranks(error), average_ranks(deviation)
        return pearson(error, deviation)


def sparsification(error: Tensor, by: Tensor, steps: int) -> Tensor:
    """Mean error of what is left without the shares 0, 1/steps, ... of pixels with the largest ``by``, ``[steps]`` float64.

    Relative to the mean of all; of equal pixels the first are left out first. ``error``, ``by`` : ``[m]``.
    """
    m = len(error)
    kept = error.double()[torch.argsort(by, descending=True, stable=True)]
    rest = kept.flip(0).cumsum(0).flip(0)  # sum of what is left from each place on
    first = torch.tensor([i * m // steps for i in range(steps)], device=error.device)
    return rest[first] / (m - first) / (rest[0] / m)


def area_between(curve: Tensor, oracle: Tensor) -> float:
    """Area between two sparsification curves ``[steps]``, by trapezoids."""
    return float(torch.trapezoid(curve - oracle, dx=1 / len(curve)))


class Ause(DrawsMetric):
    """Area between the sparsification curve by the draws' standard deviation and the one of an oracle (Ilg 2018)."""

    parts = (Part(undefined=f"{_EQUAL}, or {_NO_ERROR}"),)

    def __init__(self, options: Options) -> None:
        self._options = expect(options, AuseOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}``; NaN where deviations are constant or there is no error."""
        error = ensemble.error.square() if self._options.error == "squared" else ensemble.error.abs()
        return ensemble.each(self._value, error, ensemble.deviation)

    def _value(self, error: Tensor, deviation: Tensor) -> float:
        if bool((deviation == deviation[0]).all()) or not bool(error.any()):
            return math.nan
        steps = self._options.steps
        return area_between(sparsification(error, deviation, steps), sparsification(error, error, steps))
