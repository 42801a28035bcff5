"""Proper scores of draws: CRPS per pixel, energy score per image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.metrics.base import expect
from mrbench.metrics.uncertainty import DrawsMetric, Ensemble, Values
from mrbench.metrics.uncertainty_cards import VARIANCE_FLOOR, CrpsOptions, EnergyOptions

PIXELS = 65536  # of a Gram matrix at once


def pairs_of(estimator: str, draws: int) -> float:
    """What the sum of distances over pairs i < j is divided by: K^2 (ecdf) or K (K - 1) (fair)."""
    return draws * (draws - 1 if estimator == "fair" else draws)


def mean_distance(ensemble: Ensemble) -> Tensor:
    """Mean over the draws of |x - y|, ``[M]``."""
    total = torch.zeros_like(ensemble.truth)
    scratch = torch.empty_like(ensemble.truth)
    for row in ensemble.draws:
        torch.sub(row, ensemble.truth, out=scratch)
        total += scratch.abs_()
    return total.div_(ensemble.count)


def pair_distances(ensemble: Ensemble) -> Tensor:
    """Sum over pairs i < j of |x_i - x_j|, ``[M]``.

    With x sorted it is the sum over k <= K / 2 of (K + 1 - 2k) (x_(K+1-k) - x_(k)): K differences instead of K x K, and none
    is negative, so nothing cancels.
    """
    total = torch.zeros_like(ensemble.truth)
    scratch = torch.empty_like(ensemble.truth)
    k = ensemble.count
    for low in range(k // 2):
        torch.sub(ensemble.sorted[k - 1 - low], ensemble.sorted[low], out=scratch)
        total.add_(scratch, alpha=k - 1 - 2 * low)
    return total


def ensemble_crps(ensemble: Ensemble, estimator: str = "fair") -> Tensor:
    """CRPS of every pixel, ``[M]``: mean |x - y| less the pair distances over K^2 (ecdf) or K (K - 1) (fair)."""
    return mean_distance(ensemble).sub_(pair_distances(ensemble).div_(pairs_of(estimator, ensemble.count)))


def gaussian_crps(ensemble: Ensemble) -> Tensor:
    """CRPS of the normal distribution with the draws' mean and variance, ``[M]`` float64 (Gneiting & Raftery 2007).

    s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (y - m) / s.
    """
    s = ensemble.variance.clamp_min(VARIANCE_FLOOR).sqrt_()
    z = ensemble.error / s  # the score is even in z
    density = torch.exp(-0.5 * z * z).mul_(2 / math.sqrt(2 * math.pi))
    return s * (z * torch.erf(z / math.sqrt(2)) + density - 1 / math.sqrt(math.pi))


class Crps(DrawsMetric):
    """Continuous ranked probability score, mean over pixels."""

    def __init__(self, options: Options) -> None:
        self._options = expect(options, CrpsOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}`` on the [0, 1] range."""
        estimator = self._options.estimator
        return ensemble.averaged(gaussian_crps(ensemble) if estimator == "gaussian" else ensemble_crps(ensemble, estimator))


def energy_score(draws: Tensor, truth: Tensor, mean: Tensor, estimator: str = "fair") -> float:
    """Energy score of one image: mean ||x - y|| less the pair distances over K^2 or K (K - 1).

    The K x K distances come from the Gram matrix of the deviations from ``mean`` in float64, a block of pixels at a time.

    Parameters
    ----------
    draws : ``[K, m]``. truth : ``[m]``. mean : ``[m]`` float64, over the draws.
    """
    k, m = draws.shape
    gram = torch.zeros(k, k, dtype=torch.float64, device=draws.device)
    to_truth = torch.zeros(k, dtype=torch.float64, device=draws.device)
    for start in range(0, m, PIXELS):
        part = slice(start, start + PIXELS)
        to_truth += (draws[:, part].double() - truth[part]).square_().sum(1)
        rows = draws[:, part] - mean[part]  # float64
        gram += rows @ rows.T
    squares = gram.diagonal()
    upper = (squares[:, None] + squares - 2 * gram).triu(1).clamp_min_(0)
    return float(to_truth.sqrt().mean() - upper.sqrt().sum() / pairs_of(estimator, k))


class EnergyScore(DrawsMetric):
    """Energy score per image."""

    def __init__(self, options: Options) -> None:
        self._options = expect(options, EnergyOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}``, Euclidean norms over the pixels (and channels) of the frame or the foreground."""

        def value(draws: Tensor, truth: Tensor, mean: Tensor) -> float:
            return energy_score(draws, truth, mean, self._options.estimator)

        return ensemble.each(value, ensemble.draws, ensemble.truth, ensemble.mean)
