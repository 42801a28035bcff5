"""Tests against scipy, statsmodels and scikit-posthocs where these are right, and the inputs on which they are not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from mrbench.errors import UserError
from mrbench.stats import tests
from mrbench.stats.results import p_text

RNG = np.random.default_rng(3)


def exact_by_enumeration(d):
    """Two-sided p of W+ over all signs."""
    d = d[d != 0]
    ranks = scipy.stats.rankdata(np.abs(d))
    sums = np.array(
        [sum(s * r for s, r in zip(signs, ranks, strict=True)) for signs in itertools.product((0, 1), repeat=d.size)]
    )
    w = ranks[d > 0].sum()
    return min(1.0, 2 * min((sums <= w + 1e-9).mean(), (sums >= w - 1e-9).mean()))


@pytest.mark.parametrize(
    "d", [[1.0, 1.0, -2.0, 3.0, 3.0, 3.0, 0.0, -1.0], [0.5, -0.5, 1, 2, 2, -4, 4], [3.0, 1.0, 2.0, -4.0, 7.0]]
)
def test_exact_signed_rank_holds_with_ties_and_zeros(d):
    d = np.array(d)
    found = tests.signed_rank(d)
    assert found.p_exact == pytest.approx(exact_by_enumeration(d), abs=1e-12)
    assert found.outcome.how == "exact"


@pytest.mark.parametrize("n", [5, 20, 50, 51, 300])
def test_signed_rank_is_scipys_without_ties(n):
    d = RNG.normal(0.2, 1, n)
    method = "exact" if n <= 50 else "approx"
    assert tests.signed_rank(d).outcome.p == pytest.approx(scipy.stats.wilcoxon(d, method=method).pvalue, rel=1e-9)


def test_rounding_noise_makes_no_ties_and_no_differences():
    a = np.array([0.1 + 0.2, 0.3, 0.7])
    b = np.array([0.3, 0.1 + 0.2, 0.1])
    found = tests.signed_rank(a - b)
    assert found.n_nonzero == 1
    assert tests.rank_rows(np.array([[0.1 + 0.2, 0.3]]), True).tolist() == [[1.5, 1.5]]


def test_equal_columns_give_p_one_everywhere():
    x = np.tile(RNG.normal(28, 2, 12)[:, None], (1, 3))
    zero = np.zeros(12)
    assert tests.friedman(x, True).f.p == tests.friedman(x, True).chi2.p == 1
    assert tests.friedman(x, True).w == 0
    assert tests.signed_rank(zero).outcome.p == tests.paired_t(zero).p == 1
    assert "equal on every unit" in tests.signed_rank(zero).outcome.note
    assert tests.kruskal(x).p == 1
    assert tests.anova_one_way(x)[0].p == tests.anova_repeated(x).p == 1
    assert tests.tukey(x).min() == 1
    assert tests.nemenyi(tests.friedman(x, True).mean_ranks, 12).min() == 1
    same = np.full((4, 3), 28.0)
    assert tests.kruskal(same).p == tests.tukey(same).min() == tests.levene(same).p == 1
    assert tests.dunn(same, 0, 1).p == 1


def test_constant_shift_has_no_t():
    found = tests.paired_t(np.full(8, 0.25))
    assert found.value == math.inf
    assert found.p == 0
    assert "not defined" in found.note
    assert math.isnan(tests.shapiro(np.full(8, 0.25)).p)


def test_agreeing_blocks_do_not_give_p_zero():
    x = np.arange(3.0) + RNG.normal(0, 5, (3, 1))
    found = tests.friedman(x, True)
    assert found.f.value == math.inf
    assert found.f.p == pytest.approx(1 / 36)  # (1 / 3!)^2
    assert found.w == pytest.approx(1)
    assert found.outcome.p == pytest.approx(1 / 36)


@pytest.mark.parametrize(("k", "n", "chi2", "p"), [(3, 3, 6.0, 0.028), (4, 4, 7.8, 0.036), (3, 10, 6.2, 0.046)])
def test_exact_friedman_is_that_of_printed_tables(k, n, chi2, p):
    squares, shares = tests.friedman_null(np.tile(np.arange(1.0, k + 1), (n, 1)))
    found = 12 / (n * k * (k + 1)) * squares - 3 * n * (k + 1)
    assert shares[found >= chi2 - 1e-9].sum() == pytest.approx(p, abs=5e-4)


def test_exact_friedman_with_ties_is_that_of_all_permutations():
    x = np.array([[1.0, 1.0, 2.0], [3.0, 1.0, 2.0], [2.0, 2.0, 1.0], [5.0, 4.0, 4.0]])
    ranks = tests.rank_rows(x, False)
    squares = [
        (sum(rows) ** 2).sum() for rows in itertools.product(*([np.array(p) for p in itertools.permutations(r)] for r in ranks))
    ]
    share = (np.array(squares) >= (ranks.sum(0) ** 2).sum() - 1e-9).mean()
    assert tests.friedman(x, False).exact.p == pytest.approx(share)


def test_friedman_of_many_units_takes_f():
    found = tests.friedman(RNG.normal(0, 1, (31, 3)), True)
    assert found.exact is None
    assert found.outcome is found.f


def test_friedman_of_two_methods_and_lower_is_better():
    x = RNG.normal(0, 1, (10, 2))
    up, down = tests.friedman(x, True), tests.friedman(x, False)
    assert up.chi2.p == pytest.approx(down.chi2.p)
    assert up.mean_ranks == pytest.approx(down.mean_ranks[::-1])


def test_infinite_scores_rank_as_they_should():
    x = np.array([[np.inf, 30.0, 29.0], [31.0, 30.0, 28.0], [np.inf, np.inf, 20.0]])
    assert tests.rank_rows(x, True).tolist() == [[1, 2, 3], [1, 2, 3], [1.5, 1.5, 3]]


def test_p_values_that_underflow_keep_their_logarithms():
    n = 4000
    d = np.abs(RNG.normal(1, 0.1, n))
    w, t = tests.signed_rank(d).outcome, tests.paired_t(d)
    assert w.p < 1e-300
    assert w.log10_p == pytest.approx(scipy.stats.norm.logsf(tests.signed_rank(d).z) / math.log(10) + math.log10(2), rel=1e-9)
    assert t.p == 0
    assert -1e5 < t.log10_p < -300
    x = np.stack([d * 0, d, 2 * d, 3 * d], 1) + RNG.normal(0, 0.01, (n, 1))
    f = tests.friedman(x, True)
    assert f.f.p == 0
    assert f.chi2.log10_p == pytest.approx(scipy.stats.chi2.logsf(f.chi2.value, 3) / math.log(10))
    assert math.isfinite(f.f.log10_p)
    assert p_text(0.0) == "p < 1e-10"


def test_f_tail_is_continuous_where_it_underflows():
    below = [tests._log_sf_f(f, (3.0, 900.0)) for f in (1400.0, 1500.0, 1800.0, 2500.0)]
    assert all(a > b for a, b in itertools.pairwise(below))
    f = 1000.0
    exact = math.log(scipy.stats.f.sf(f, 3, 700))
    a, b, x = 350.0, 1.5, 700 / (700 + 3 * f)
    assert exact == pytest.approx(tests._log_sf_f(f, (3.0, 700.0)), rel=1e-12)
    series = a * math.log(x) + b * math.log1p(-x) - math.log(a) - scipy.special.betaln(a, b)
    assert exact - series == pytest.approx(math.log1p(x * (a + b) / (a + 1)), abs=0.2)


def test_shapiro_says_when_its_p_means_nothing():
    big = tests.shapiro(RNG.normal(size=6000))
    assert "not accurate" in big.note
    assert "fewer than three" in tests.shapiro(np.array([1.0, 2.0])).note


@pytest.mark.parametrize("correction", ["holm", "bonferroni", "fdr_bh", "fdr_by"])
def test_corrections_are_statsmodels(correction):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.concatenate([RNG.uniform(0, 1, 9), [0.01, 0.01, 1e-300, 1.0]])
    assert tests.adjust(p, correction) == pytest.approx(multitest.multipletests(p, method=correction)[1], rel=1e-9)


def test_corrections_of_zero_and_unknown_ones():
    assert tests.adjust(np.array([0.0, 0.5]), "holm").tolist() == [0.0, 0.5]
    assert tests.adjust(np.array([0.2]), "none").tolist() == pytest.approx([0.2])
    with pytest.raises(UserError, match="Known: none, holm"):
        tests.adjust(np.array([0.2]), "hommel")


def test_dunn_and_nemenyi_are_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    x = np.round(RNG.normal(0, 1, (20, 4)) + np.array([0, 0.2, 0.5, 1]), 1)  # ties
    dunn = posthocs.posthoc_dunn(list(x.T)).to_numpy()
    ours = np.array([[o.p for o in row] for row in tests.dunn_all(x)])
    assert ours[~np.eye(4, dtype=bool)] == pytest.approx(dunn[~np.eye(4, dtype=bool)], abs=1e-12)
    nemenyi = posthocs.posthoc_nemenyi_friedman(x).to_numpy()
    assert tests.nemenyi(tests.friedman(x, True).mean_ranks, 20) == pytest.approx(nemenyi, abs=1e-9)


def test_least_p_of_few_subjects():
    assert tests.least_exact_p(5) == 0.0625
    d = np.arange(1.0, 6.0)
    assert tests.signed_rank(d).outcome.p == tests.least_exact_p(5)
