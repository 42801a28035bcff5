"""Agreement of raters: published worked examples, and intervals that resample whole clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mrbench.stats import agreement
from mrbench.stats.agreement_intervals import Clusters, alpha_interval, icc_interval, kappa_interval
from mrbench.stats.bootstrap import bca, percentile, resample

NAN = np.nan
# Krippendorff (2011), Computing Krippendorff's alpha-reliability, section C: four observers, twelve units, gaps
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
# Shrout and Fleiss (1979), Intraclass correlations: uses in assessing rater reliability, table 2: six targets, four judges
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float).T


def ratings(seed: int, raters: int = 3, units: int = 60, sd: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(rng.normal(3, 1, units) + rng.normal(0, sd, (raters, units))), 1, 5)


def spread(units: int, count: int) -> Clusters:
    return Clusters(np.arange(units) % count, count, resamples=400)


# -- published numbers -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("scale", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_example(scale, expected) -> None:
    assert agreement.krippendorff_alpha(KRIPPENDORFF, scale) == pytest.approx(expected, abs=5e-4)


def test_shrout_and_fleiss_example() -> None:
    found = {name: round(value, 2) for name, value in agreement.icc(SHROUT_FLEISS).items()}
    assert found == {"ICC(1,1)": 0.17, "ICC(2,1)": 0.29, "ICC(3,1)": 0.71, "ICC(1,k)": 0.44, "ICC(2,k)": 0.62, "ICC(3,k)": 0.91}


def test_weighted_kappa_by_hand() -> None:
    """Fifty units: 20 both 1, 5 (1, 2), 10 (2, 1), 15 both 2: kappa 0.4, whatever the weights, as there is one distance."""
    first = np.repeat([1, 1, 2, 2], [20, 5, 10, 15])
    second = np.repeat([1, 2, 1, 2], [20, 5, 10, 15])
    for weights in ("none", "linear", "quadratic"):
        assert agreement.cohen_kappa(first, second, weights) == pytest.approx(0.4, abs=1e-12)
    # four units on three values: observed cost 1 of 4 (one step); expected from the margins below
    first, second = np.array([1, 2, 3, 3]), np.array([1, 2, 3, 2])
    margins = np.outer([1, 1, 2], [1, 2, 1]) / 16
    for weights, power in (("linear", 1), ("quadratic", 2)):
        expected = (np.abs(np.subtract.outer([1, 2, 3], [1, 2, 3])) ** power * margins).sum()
        assert agreement.cohen_kappa(first, second, weights) == pytest.approx(1 - 0.25 / expected, abs=1e-12)


# -- intervals ---------------------------------------------------------------------------------------------------------
def test_values_are_those_of_the_plain_functions() -> None:
    x = ratings(1)
    gaps = x.copy()
    gaps[0, :6] = gaps[1, 4:9] = gaps[2, 20] = NAN
    whole = x.astype(int)
    clusters = spread(60, 20)
    for weights in ("none", "linear", "quadratic"):
        expected = agreement.cohen_kappa(whole[0], whole[1], weights)
        assert kappa_interval(x[0], x[1], clusters, weights).value == pytest.approx(expected, abs=1e-12)
    both = ~(np.isnan(gaps[0]) | np.isnan(gaps[1]))
    found = kappa_interval(gaps[0], gaps[1], clusters, "quadratic")
    expected = agreement.cohen_kappa(gaps[0, both].astype(int), gaps[1, both].astype(int), "quadratic")
    assert (found.n, found.value) == (int(both.sum()), pytest.approx(expected, abs=1e-12))
    full = ~np.isnan(gaps).any(0)
    for form in ("ICC(2,1)", "ICC(2,k)"):
        measured = icc_interval(gaps, clusters, form)
        assert (measured.n, measured.value) == (int(full.sum()), pytest.approx(agreement.icc(gaps[:, full])[form], abs=1e-12))
    assert alpha_interval(gaps, clusters).value == pytest.approx(agreement.krippendorff_alpha(gaps), abs=1e-12)
    assert alpha_interval(KRIPPENDORFF, spread(12, 12)).value == pytest.approx(0.815, abs=5e-4)
    assert icc_interval(SHROUT_FLEISS, spread(6, 6), "ICC(2,1)").value == pytest.approx(0.29, abs=5e-3)


def test_resamples_are_those_of_whole_clusters() -> None:
    """Each statistic, computed anew on units that are written out as often as their cluster was drawn."""
    x = ratings(2, units=24)
    clusters = Clusters(np.repeat(np.arange(8), 3), 8, level=0.9, resamples=60, seed=4)
    whole = x.astype(int)
    drawn = [np.repeat(np.arange(24), np.repeat(w.astype(int), 3)) for w in next(iter(resample(8, 60, 4)))]
    for found, plain in (
        (kappa_interval(x[0], x[1], clusters, "linear"), lambda u: agreement.cohen_kappa(whole[0, u], whole[1, u], "linear")),
        (icc_interval(x, clusters, "ICC(2,1)"), lambda u: agreement.icc(x[:, u])["ICC(2,1)"]),
        (icc_interval(x, clusters, "ICC(2,k)"), lambda u: agreement.icc(x[:, u])["ICC(2,k)"]),
        (alpha_interval(x, clusters), lambda u: agreement.krippendorff_alpha(x[:, u])),
    ):
        replicates = np.round([plain(u) for u in drawn], 12)  # rounding noise makes no ties and breaks none
        left = np.round([plain(np.flatnonzero(np.repeat(np.arange(8), 3) != c)) for c in range(8)], 12)
        expected = bca(replicates, round(found.value, 12), left, 0.9).interval
        assert found.interval is not None
        assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert found.interval.method == "BCa bootstrap"
        assert percentile(replicates, 0.9).low < found.value


def test_clusters_that_repeat_are_no_more_evidence() -> None:
    x = ratings(3, units=20)
    once = kappa_interval(x[0], x[1], Clusters(np.arange(20), 20, resamples=500))
    twice = kappa_interval(np.tile(x[0], 2), np.tile(x[1], 2), Clusters(np.tile(np.arange(20), 2), 20, resamples=500))
    assert once.interval is not None
    assert twice.interval is not None
    assert (twice.interval.low, twice.interval.high) == pytest.approx((once.interval.low, once.interval.high), abs=1e-12)


def test_where_nothing_can_be_said() -> None:
    constant = np.full(10, 3.0)
    assert math.isnan(kappa_interval(constant, constant, spread(10, 10)).value)
    assert kappa_interval(constant, constant, spread(10, 10)).interval is None
    assert math.isnan(alpha_interval(np.stack([constant, constant]), spread(10, 10)).value)
    assert math.isnan(icc_interval(np.stack([constant, constant]), spread(10, 10), "ICC(2,1)").value)
    nothing = np.full((2, 4), NAN)
    assert kappa_interval(nothing[0], nothing[1], spread(4, 4)).n == 0
    assert alpha_interval(nothing, spread(4, 4)).n == 0
    assert icc_interval(nothing, spread(4, 4), "ICC(2,k)").n == 0
    one = np.array([[1.0], [2.0]])
    assert math.isnan(kappa_interval(one[0], one[1], spread(1, 1)).value)
    two = ratings(5, raters=2, units=20)
    assert kappa_interval(two[0], two[1], spread(20, 2)).interval is None  # two clusters
    perfect = kappa_interval(two[0], two[0], spread(20, 20), "quadratic")
    assert perfect.value == 1.0
    assert perfect.interval is not None
    assert (perfect.interval.low, perfect.interval.high) == (1.0, 1.0)
