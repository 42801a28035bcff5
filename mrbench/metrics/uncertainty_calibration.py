"""Calibration of draws: central intervals, quantiles, ranks of the ground truth."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mrbench.cards import Options
from mrbench.metrics.base import expect
from mrbench.metrics.uncertainty import Calibrated, DrawsMetric, Ensemble, Part, Values
from mrbench.metrics.uncertainty_cards import DECILES, LEVELS, CalibrationOptions, IntervalOptions, QuantileRule


def quantile(ensemble: Ensemble, q: float, rule: str) -> Tensor:
    """The quantile q of the draws of every pixel, ``[M]``, between the sorted draws x_0 .. x_(K-1).

    Position q (K + 1) - 1 (weibull, at most at the extremes) or q (K - 1) (linear).
    """
    last = ensemble.count - 1
    position = q * (ensemble.count + 1) - 1 if rule == "weibull" else q * last
    position = min(max(round(position, 12), 0.0), float(last))
    below = min(int(position), last - 1)
    low, high = ensemble.sorted[below], ensemble.sorted[below + 1]
    return torch.lerp(low, high, position - below)


def expected_coverage(level: float, rule: QuantileRule, draws: int) -> float:
    """Share of ground-truth pixels in a central interval if ground truth and draws are exchangeable.

    The ground truth then lies between the i-th and the j-th of K sorted draws with probability (j - i) / (K + 1).
    """
    between = (draws - 1) / (draws + 1)
    return min(level, between) if rule == "weibull" else level * between


def _expected_at(level: float) -> Calibrated:
    def calibrated(options: IntervalOptions, draws: int) -> float:
        return expected_coverage(level, options.quantiles, draws)

    return calibrated


def _ending(level: float) -> str:
    return f"{100 * level:.0f}"


def _each_level(ranked: bool) -> tuple[Part, ...]:
    return tuple(Part(_ending(level), f"level:{level:g}", ranked) for level in LEVELS)


class _Intervals(DrawsMetric):
    def __init__(self, options: Options) -> None:
        self._options = expect(options, IntervalOptions)

    def _bounds(self, ensemble: Ensemble) -> Iterator[tuple[str, float, Tensor, Tensor]]:
        """Column ending, level, lower and upper bound ``[M]``."""
        for level in LEVELS:
            outside = (1 - level) / 2
            low, high = (quantile(ensemble, q, self._options.quantiles) for q in (outside, 1 - outside))
            yield _ending(level), level, low, high


class Coverage(_Intervals):
    """Share of ground-truth pixels in closed central intervals."""

    parts = tuple(Part(_ending(v), f"level:{v:g}", ranked=False, calibrated=_expected_at(v)) for v in LEVELS)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"50": [B], "80": [B], "90": [B]}`` and the foreground's."""
        y = ensemble.truth
        found: Values = {}
        for ending, _, low, high in self._bounds(ensemble):
            found |= ensemble.averaged((low <= y) & (y <= high), ending)
        return found


class IntervalWidth(_Intervals):
    """Mean width of central intervals."""

    parts = _each_level(ranked=False)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"50": [B], "80": [B], "90": [B]}`` and the foreground's, on the [0, 1] range."""
        found: Values = {}
        for ending, _, low, high in self._bounds(ensemble):
            found |= ensemble.averaged(high - low, ending)
        return found


class IntervalScore(_Intervals):
    """Interval score (Gneiting & Raftery 2007, eq. 43): width and, outside of the interval, 2 / a times the distance to it."""

    parts = _each_level(ranked=True)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"50": [B], "80": [B], "90": [B]}`` and the foreground's."""
        y = ensemble.truth
        found: Values = {}
        for ending, level, low, high in self._bounds(ensemble):
            outside = (low - y).clamp_min_(0).add_((y - high).clamp_min_(0))
            found |= ensemble.averaged((high - low).add_(outside, alpha=2 / (1 - level)), ending)
        return found


def rank_histogram(ensemble: Ensemble) -> Values:
    """Relative frequencies of the ground truth's rank 0 .. K among the draws, ``{"": [B, K + 1], "_fg": ...}`` float64.

    The rank is the number of draws below the ground truth. With t draws equal to it, its pixel counts 1 / (t + 1) at each of
    the t + 1 ranks that it could have. An empty foreground gives NaN.
    """
    k, y = ensemble.count, ensemble.truth
    below = torch.zeros_like(y, dtype=torch.int16)
    ties = torch.zeros_like(y, dtype=torch.int16)
    for row in ensemble.draws:
        below += row < y
        ties += row == y
    found: Values = {}
    for region, joint in ensemble.counted(below.long() * (k + 1) + ties, (k + 1) ** 2).items():
        pixels = joint.view(ensemble.batch, k + 1, k + 1)  # [B, below, ties]
        steps = pixels.new_zeros(ensemble.batch, k + 2)
        for t in range(k + 1):  # pixels with t ties: ranks r .. r + t, r <= K - t
            share = pixels[:, : k + 1 - t, t] / (t + 1)
            steps[:, : k + 1 - t] += share
            steps[:, t + 1 :] -= share
        found[region] = steps.cumsum(1)[:, : k + 1] / joint.sum(1, keepdim=True)
    return found


class RankHistogram(DrawsMetric):
    """How far the rank histogram is from a flat one, and the share of the outermost ranks."""

    parts = (
        Part("", "sum(abs(f-1/(K+1)))"),
        Part("_outside", "f0+fK", ranked=False, calibrated=lambda options, draws: 2 / (draws + 1)),
    )

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_outside": [B]}`` and the foreground's."""
        found: Values = {}
        for region, f in rank_histogram(ensemble).items():
            found[region] = (f - 1 / (ensemble.count + 1)).abs().sum(1)
            found[f"_outside{region}"] = f[:, 0] + f[:, -1]
        return found


class CalibrationError(DrawsMetric):
    """Mean over levels q of |P(y <= Q_q) - q|."""

    def __init__(self, options: Options) -> None:
        self._options = expect(options, CalibrationOptions)

    def __call__(self, ensemble: Ensemble) -> Values:
        """``{"": [B], "_fg": [B]}``."""
        k = ensemble.count
        if self._options.levels == "ranks":
            levels = torch.arange(1, k + 1, dtype=torch.float64, device=ensemble.truth.device) / (k + 1)
            histograms = rank_histogram(ensemble)
            return {region: (f.cumsum(1)[:, :k] - levels).abs().mean(1) for region, f in histograms.items()}
        rule = self._options.levels.removeprefix("deciles-")
        found: dict[str, list[Tensor]] = {}
        for q in DECILES:
            for region, share in ensemble.averaged(ensemble.truth <= quantile(ensemble, q, rule)).items():
                found.setdefault(region, []).append((share - q).abs())
        return {region: torch.stack(gaps).mean(0) for region, gaps in found.items()}
