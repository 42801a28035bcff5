"""Negative log-likelihoods of the ground truth under the draws: histogram, kernel density, normal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.metrics.base import expect
from mrbench.metrics.uncertainty import DrawsMetric, Ensemble, Part, Values
from mrbench.metrics.uncertainty_cards import GaussOptions, KdeOptions, NllOptions

NUMBERS = 1 << 21  # float64 numbers of a kernel density at once


def bin_of(values: Tensor, bins: int) -> Tensor:
    """min(floor(bins * v), bins - 1) of values in [0, 1], as floating-point numbers."""
    return (values * bins).floor_().clamp_(0, bins - 1)


def hits(ensemble: Ensemble, bins: int) -> Tensor:
    """How many draws of each pixel lie in the bin of the ground truth, ``[M]`` int16."""
    target = bin_of(ensemble.truth, bins)
    found = torch.zeros_like(ensemble.truth, dtype=torch.int16)
    for row in ensemble.draws:
        found += bin_of(row, bins) == target
    return found


def surprise(options: NllOptions, draws: int) -> Tensor:
    """-log p of a pixel by its number of hits 0 .. K, ``[K + 1]`` float64."""
    count = torch.arange(draws + 1, dtype=torch.float64)
    if options.floor == "dirichlet":
        p = (count + options.alpha) / (draws + options.bins * options.alpha)
    elif options.floor == "add":
        p = count / draws + options.epsilon
    else:
        p = (count / draws).clamp_min(options.epsilon)
    surprises: Tensor = -(p.log2() if options.log == "2" else p.log())
    return surprises


class HistogramNll(DrawsMetric):
    """Histogram NLL with an explicit floor, and the share of pixels that no draw hits."""

    parts = (Part(ranked=False), Part("_miss", "share:missed", ranked=False))

    def __init__(self, options: Options) -> None:
        self._options = expect(options, NllOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_miss": [B]}`` and the foreground's; inf with epsilon = 0 as soon as a pixel is missed."""
        found: Values = {}
        counts = ensemble.counted(hits(ensemble, self._options.bins), ensemble.count + 1)
        for region, count in counts.items():
            share = count / count.sum(1, keepdim=True)
            table = surprise(self._options, ensemble.count).to(share.device)
            terms = torch.where(share == 0, 0, share * table)  # no pixel times an infinite surprise is nothing
            found[region] = terms.sum(1)
            found[f"_miss{region}"] = share[:, 0]
        return found


def kde_nll(ensemble: Ensemble, options: KdeOptions) -> Tensor:
    """-log of the Gaussian kernel density of the draws at the ground truth, ``[M]`` float64.

    log K + log h + log(2 pi) / 2 - logsumexp_k(-((y - x_k) / h)^2 / 2), h = max(factor * s * K^(-1/5), smallest).
    """
    k = ensemble.count
    h = (ensemble.deviation * (options.factor * k**-0.2)).clamp_min_(options.smallest)
    found: Tensor = h.log() + (math.log(k) + 0.5 * math.log(2 * math.pi))
    step = max(1, NUMBERS // k)
    for start in range(0, len(h), step):
        part = slice(start, start + step)
        z = (ensemble.draws[:, part].double() - ensemble.truth[part]).div_(h[part])
        found[part] -= torch.logsumexp(z.square_().mul_(-0.5), 0)
    return found


class KdeNll(DrawsMetric):
    """NLL of a Gaussian kernel density with Silverman's bandwidth, mean over pixels."""

    def __init__(self, options: Options) -> None:
        self._options = expect(options, KdeOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}`` in nats."""
        return ensemble.averaged(kde_nll(ensemble, self._options))


class GaussianNll(DrawsMetric):
    """NLL of the normal distribution with the draws' mean and variance (N - 1), mean over pixels."""

    def __init__(self, options: Options) -> None:
        self._options = expect(options, GaussOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}`` in nats: log(2 pi v) / 2 + (y - m)^2 / (2 v)."""
        v = ensemble.variance.clamp_min(self._options.variance_floor)
        return ensemble.averaged(torch.log(2 * math.pi * v).add_(ensemble.error.square() / v).mul_(0.5))
