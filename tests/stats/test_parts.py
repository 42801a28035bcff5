"""Blocks, effect sizes, bootstrap, ranks, mixed model, equivalence, agreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from mrbench.errors import UserError
from mrbench.stats import agreement, bootstrap, effects, equivalence, mixed, ranks
from mrbench.stats.table import Measure, make_block

RNG = np.random.default_rng(11)
PSNR = Measure("psnr", "PSNR", True, "dB", 2, 100.0)
NLL = Measure("nll", "NLL", False)


# -- blocks ------------------------------------------------------------------------------------------------------------
def test_subject_means_count_every_subject_once():
    scores = {"a": np.array([1.0, 2.0, 3.0, 10.0]), "b": np.array([2.0, 2.0, 2.0, 20.0])}
    block = make_block(PSNR, scores, ["x", "y"], np.array([0, 0, 0, 1]))
    assert block.means.tolist() == [[2, 2], [10, 20]]
    assert block.sizes.tolist() == [3, 1]


def test_what_is_left_out_is_named():
    nan, inf = np.nan, np.inf
    scores = {
        "a": np.array([30.0, inf, 32.0, 33.0]),
        "b": np.array([30.0, 31.0, nan, nan]),
        "gone": np.full(4, nan),
    }
    block = make_block(PSNR, scores, ["x", "y"], np.array([0, 0, 0, 1]), ["i0", "i1", "i2", "i3"])
    assert block.methods == ("a", "b")
    assert block.subjects == ("x",)
    assert block.scores.tolist() == [[30, 30], [100, 31]]
    assert [(x.what, x.name) for x in block.left_out] == [
        ("method", "gone"),
        ("slice", "i2"),
        ("slice", "i3"),
        ("subject", "y"),
    ]
    notes = " ".join(block.notes())
    assert "gone takes no part: it has no value" in notes
    assert "2 slices left out for all methods" in notes
    assert "i2: no value of b" in notes
    assert "values above 100 dB entered as 100 dB: 1 of a" in notes


def test_infinite_scores_without_a_cap_leave_the_method_out():
    block = make_block(NLL, {"a": np.array([1.0, np.inf]), "b": np.array([1.0, 2.0])}, ["x"], np.array([0, 0]))
    assert block.methods == ("b",)
    assert "1 infinite value" in block.notes()[0]


def test_scores_and_slices_must_fit():
    with pytest.raises(UserError, match="2 scores for 3 slices"):
        make_block(NLL, {"a": np.zeros(2)}, ["x"], np.zeros(3, int))


# -- effects -----------------------------------------------------------------------------------------------------------
def test_effects_by_their_definitions():
    a, b = np.round(RNG.normal(0, 1, 30), 1), np.round(RNG.normal(0.3, 1, 30), 1)
    more = (a[:, None] > b).mean() - (a[:, None] < b).mean()
    assert effects.cliffs_delta(a, b) == pytest.approx(more)
    assert effects.vargha_delaney(a, b) == pytest.approx((a[:, None] > b).mean() + (a[:, None] == b).mean() / 2)
    d = np.round(a - b, 9)
    r = scipy.stats.rankdata(np.abs(d[d != 0]))
    assert effects.rank_biserial(d) == pytest.approx((r[d[d != 0] > 0].sum() - r[d[d != 0] < 0].sum()) / r.sum())


@pytest.mark.parametrize("n", [1, 2, 256, 257, 258, 700])
def test_hodges_lehmann_by_bisection_is_that_of_all_averages(n):
    d = np.round(RNG.normal(0, 1, n), 2)
    rows, columns = np.triu_indices(n)
    assert effects.hodges_lehmann(d) == pytest.approx(np.median((d[rows] + d[columns]) / 2), abs=1e-12)


def test_effects_of_equal_and_shifted_scores():
    same = effects.effects_of(np.ones(5), np.ones(5))
    assert (same.rank_biserial, same.cliffs_delta, same.a12, same.dz, same.hodges_lehmann) == (0, 0, 0.5, 0, 0)
    shifted = effects.effects_of(np.ones(5) + 0.1, np.ones(5))
    assert shifted.rank_biserial == shifted.cliffs_delta == 1
    assert math.isnan(shifted.dz)


# -- bootstrap ---------------------------------------------------------------------------------------------------------
def test_bca_is_scipys():
    x = RNG.lognormal(0, 1, 30)
    own = bootstrap.bootstrap(x, lambda v: v.mean(1), resamples=20_000)
    other = scipy.stats.bootstrap((x,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(5))
    low, high = other.confidence_interval
    assert own.low == pytest.approx(low, abs=0.03 * (high - low))
    assert own.high == pytest.approx(high, abs=0.03 * (high - low))


def test_resamples_are_seeded_and_complete():
    first, again = (np.concatenate(list(bootstrap.resample(7, 500, 3))) for _ in range(2))
    assert (first == again).all()
    assert (first.sum(1) == 7).all()
    assert first.mean() == pytest.approx(1, abs=0.05)


def test_cluster_bootstrap_of_slice_means_weighs_subjects_by_size():
    sizes = np.array([1.0, 3.0, 8.0])
    means = np.array([[1.0], [2.0], [4.0]])
    found = bootstrap.cluster_bootstrap(means * sizes[:, None], sizes, 4000, 1)
    assert found.estimate[0] == pytest.approx((1 + 6 + 32) / 12)
    assert found.jackknife[2, 0] == pytest.approx(7 / 4)
    assert set(np.round([1.0, 2.0, 4.0], 6)) <= set(np.round(found.replicates[:, 0], 6))  # one subject thrice


def test_intervals_of_constant_differences_are_points():
    block = np.stack([np.arange(6.0), np.arange(6.0) + 0.3, np.arange(6.0)], 1)
    found = bootstrap.cluster_bootstrap(block, np.ones(6), 300, 0)
    for method in ("percentile", "basic", "bca"):
        shift, same = found.difference(1, 0, 0.95, method), found.difference(0, 2, 0.95, method)
        assert (shift.low, shift.high) == pytest.approx((0.3, 0.3))
        assert (same.low, same.high) == (0, 0)


def test_intervals_cover_what_they_claim():
    hits = 0
    rng = np.random.default_rng(0)
    for seed in range(200):
        x = rng.normal(1, 1, (25, 1))
        found = bootstrap.cluster_bootstrap(np.hstack([x, x * 0]), np.ones(25), 400, seed).difference(0, 1, 0.95, "bca")
        hits += found.low <= 1 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="two units"):
        bootstrap.bootstrap(np.array([1.0]), lambda v: v.mean(1))
    with pytest.raises(UserError, match="Known: percentile"):
        bootstrap.interval_of(np.zeros(3), 0.0, np.zeros(3), 0.95, "studentised")


# -- ranks -------------------------------------------------------------------------------------------------------------
def test_letters_of_a_chain():
    different = np.zeros((4, 4), bool)
    different[0, 2] = different[0, 3] = different[1, 3] = True
    different |= different.T
    assert ranks.groups(different, [0, 1, 2, 3]) == [(0, 1), (1, 2), (2, 3)]
    assert ranks.compact_letters(different, [0, 1, 2, 3]) == ["a", "ab", "bc", "c"]


def test_letters_tell_exactly_which_pairs_differ():
    for seed in range(30):
        k = 6
        upper = np.triu(np.random.default_rng(seed).random((k, k)) < 0.5, 1)
        different = upper | upper.T
        letters = ranks.compact_letters(different, list(range(k)))
        for a in range(k):
            for b in range(a + 1, k):
                assert (not set(letters[a]) & set(letters[b])) == different[a, b]


def test_letters_are_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    different = np.zeros((4, 4), bool)
    different[0, 2] = different[0, 3] = different[1, 3] = True
    different |= different.T
    display = posthocs.compact_letter_display(np.where(different, 0.01, 0.9), alpha=0.05, names=list("wxyz"))
    ours = ranks.compact_letters(different, [0, 1, 2, 3])
    theirs = [str(v).replace(" ", "") for v in np.asarray(display).ravel()] if not hasattr(display, "items") else [
        str(v).replace(" ", "") for _, v in display.items()
    ]  # fmt: skip
    assert [len(x) for x in theirs] == [len(x) for x in ours]


def test_critical_difference_of_demsar():
    assert ranks.critical_difference(4, 14, 0.05) == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=2e-3)  # his table 5


def test_win_matrix():
    wins = ranks.win_matrix(np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0], [9.0, 1.0]]), True)
    assert wins[0, 1] == pytest.approx(2.5 / 4)
    assert wins[1, 0] == pytest.approx(1.5 / 4)
    assert math.isnan(wins[0, 0])


def test_places_under_resampling():
    x = np.stack([np.arange(10.0), np.arange(10.0) + 5, np.arange(10.0) + np.tile([0.5, -0.5], 5)], 1)
    found = ranks.rank_stability(bootstrap.cluster_bootstrap(x, np.ones(10), 1000, 0), True)
    assert found.first.tolist() == [0, 1, 0]
    assert (found.low[1], found.high[1]) == (1, 1)
    assert (found.low[0], found.high[0]) == (2, 3)
    assert 0.2 < found.tau <= 1


# -- mixed model -------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
def test_mixed_model_is_statsmodels():
    api = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    sizes = [3, 9, 5, 7, 4, 8]
    subject = np.repeat(np.arange(6), sizes)
    rng = np.random.default_rng(11)
    d = 0.4 + rng.normal(0, 0.5, 6)[subject] + rng.normal(0, 0.6, subject.size)
    fit = api.MixedLM(d, np.ones((d.size, 1)), groups=subject).fit(reml=True)
    own = mixed.difference_model(d, subject)
    assert own.mean == pytest.approx(float(fit.fe_params[0]), rel=1e-3)
    assert own.se == pytest.approx(float(fit.bse_fe[0]), rel=1e-3)
    assert own.var_between == pytest.approx(float(np.asarray(fit.cov_re)[0, 0]), rel=2e-3)
    assert own.var_within == pytest.approx(float(fit.scale), rel=1e-3)


def test_mixed_model_at_its_edges():
    subject = np.repeat(np.arange(5), 4)
    same = mixed.difference_model(np.zeros(20), subject)
    assert (same.mean, same.se, same.p) == (0, 0, 1)
    assert math.isnan(same.icc)
    assert same.design_effect == 1
    shift = mixed.difference_model(np.full(20, 0.2), subject)
    assert shift.p == 0
    only_between = mixed.difference_model(np.repeat(np.arange(5.0), 4), subject)
    assert only_between.icc == pytest.approx(1)
    assert only_between.se == pytest.approx(np.arange(5.0).std(ddof=1) / math.sqrt(5), rel=1e-4)
    no_between = mixed.difference_model(np.tile([1.0, -1.0, 2.0, -2.0], 5), subject)
    assert no_between.var_between == 0
    assert mixed.difference_model(np.ones(4), np.zeros(4, int)) is None
    assert math.isnan(mixed.icc_anova(np.ones(3), np.arange(3)))


# -- equivalence -------------------------------------------------------------------------------------------------------
def test_tost_rejects_exactly_where_the_interval_lies_inside():
    rng = np.random.default_rng(1)
    for _ in range(50):
        d = rng.normal(0.1, 0.3, 15)
        (found,) = equivalence.equivalence_tests([d], 0.25, 0.05)
        inside = found.interval.low > -0.25 and found.interval.high < 0.25
        assert found.equivalent == inside
        one = max(scipy.stats.ttest_1samp(d, -0.25, alternative="greater").pvalue,
                  scipy.stats.ttest_1samp(d, 0.25, alternative="less").pvalue)  # fmt: skip
        assert found.p == pytest.approx(one, rel=1e-9)


def test_tost_of_constants_and_bad_margins():
    assert equivalence.tost_p(np.zeros(5), 0.1) == 0
    assert equivalence.tost_p(np.full(5, 0.2), 0.1) == 1
    for margin in (0, -1, math.inf):
        with pytest.raises(UserError, match="positive number"):
            equivalence.tost_p(np.zeros(5), margin)


def test_detectable_difference_has_the_power_it_says():
    delta = equivalence.detectable_difference(1.0, 12, 0.05)
    rng = np.random.default_rng(2)
    x = rng.normal(delta, 1, (20_000, 12))
    t = x.mean(1) / (x.std(1, ddof=1) / math.sqrt(12))
    assert (np.abs(t) > scipy.stats.t.isf(0.025, 11)).mean() == pytest.approx(0.8, abs=0.015)
    assert math.isnan(equivalence.detectable_difference(1.0, 1, 0.05))


# -- agreement ---------------------------------------------------------------------------------------------------------
def test_agreement_without_variation_is_not_a_number():
    same = np.full((2, 5), 3)
    assert math.isnan(agreement.cohen_kappa(same[0], same[1]))
    assert math.isnan(agreement.fleiss_kappa(same))
    assert math.isnan(agreement.krippendorff_alpha(same))
    assert math.isnan(agreement.icc(same)["ICC(2,1)"])
    assert agreement.agreement_within(same[0], same[1]) == 1


def test_perfect_agreement_is_one():
    ratings = np.tile([1, 2, 3, 4, 5], (3, 1))
    assert agreement.cohen_kappa(ratings[0], ratings[1], "quadratic") == pytest.approx(1)
    assert agreement.fleiss_kappa(ratings) == pytest.approx(1)
    assert agreement.krippendorff_alpha(ratings) == pytest.approx(1)
    assert agreement.icc(ratings)["ICC(2,1)"] == pytest.approx(1)
    gaps = np.where(np.eye(3, 5) == 1, np.nan, ratings.astype(float))
    assert agreement.krippendorff_alpha(gaps) == pytest.approx(1)
