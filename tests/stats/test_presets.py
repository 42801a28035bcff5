"""What the presets decide and what they say."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from mrbench.errors import UserError
from mrbench.stats.presets import Plan, analyse
from mrbench.stats.sentences import methods_paragraph, omnibus_sentence, pair_sentence, sentences
from mrbench.stats.table import Measure

QUICK = Plan(resamples=200)
GMSD = Measure("gmsd", "GMSD", False, "", 4)


def scores(n, gains, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(28, 2, (n, 1)) + np.asarray(gains) + rng.normal(0, noise, (n, len(gains)))


def test_default_finds_the_better_and_groups_the_rest(block_from):
    result = analyse(block_from(scores(20, [0, 0, 1.0])), QUICK)
    assert (result.omnibus.test, result.omnibus.how) == ("Friedman", "exact")
    assert result.standings[0].method == "C"
    assert {s.method: s.letters for s in result.standings} == {"C": "a", "A": "b", "B": "b"}
    assert result.pair("A", "C").better == "C"
    assert result.not_shown_to_differ_from("A") == ("B",)
    assert result.pair("A", "B").interval.low < result.pair("A", "B").difference < result.pair("A", "B").interval.high
    assert {p.outcome.how for p in result.pairs} == {"exact"}
    many = analyse(block_from(scores(40, [0, 0, 1.0])), QUICK)
    assert many.omnibus.test == "Friedman (Iman-Davenport)"


def test_lower_is_better_turns_the_verdict_not_the_difference(block_from):
    x = scores(20, [0, 1.0, 2.0])
    up, down = analyse(block_from(x), QUICK), analyse(block_from(x, measure=GMSD), QUICK)
    assert up.pair("A", "B").better == "B"
    assert down.pair("A", "B").better == "A"
    assert up.pair("A", "B").difference == down.pair("A", "B").difference
    assert [s.method for s in down.standings] == ["A", "B", "C"]
    assert "A is better than B (mean difference A - B -" in pair_sentence(down, down.pair("A", "B"))


def test_two_methods_take_the_test_that_fits_their_differences(block_from):
    normal = analyse(block_from(scores(15, [0, 0.5])), QUICK)
    assert normal.pairs[0].outcome.test == "paired t"
    assert normal.pairs[0].correction == "none"
    skewed = scores(30, [0, 0.5])
    skewed[:, 1] += np.random.default_rng(1).lognormal(0, 2, 30)
    assert analyse(block_from(skewed), QUICK).pairs[0].outcome.test == "Wilcoxon signed-rank"
    assert "Shapiro-Wilk rejects normal differences" in sentences(analyse(block_from(skewed), QUICK))[1]


@pytest.mark.parametrize(("n", "words"), [(0, "no method has a value"), (1, "1 subject: no test"), (2, "2 subjects: no test")])
def test_too_few_subjects(block_from, n, words):
    x = scores(n, [0, 1, 2]) if n else np.full((1, 3), np.nan)
    result = analyse(block_from(x), QUICK)
    assert words in result.reason
    assert result.pairs == ()
    assert words in omnibus_sentence(result)


def test_two_subjects_of_many_slices_are_still_two(block_from):
    result = analyse(block_from(scores(40, [0, 5]), np.repeat([0, 1], 20)), QUICK)
    assert "2 subjects: no test" in result.reason
    field = analyse(block_from(scores(40, [0, 5]), np.repeat([0, 1], 20)), Plan(preset="res_srdiff", resamples=200))
    assert field.pairs[0].interval is None
    assert any("no intervals" in n for n in field.notes)
    assert "no interval" in sentences(field)[1]


def test_five_subjects_can_show_nothing_and_it_says_so(block_from):
    result = analyse(block_from(scores(5, [0, 5, 10])), QUICK)
    assert not any(p.different for p in result.pairs)
    assert any("cannot give p below 0.0625, 0.188 after correction over 3 pairs" in n for n in result.notes)
    assert any("tend to be too short" in n for n in result.notes)
    assert not any("cannot give p" in n for n in analyse(block_from(scores(12, [0, 5, 10])), QUICK).notes)


def test_identical_methods_are_not_called_equal(block_from):
    x = scores(12, [0, 2.0])
    result = analyse(block_from(np.column_stack([x[:, 0], x[:, 0], x[:, 1]])), QUICK)
    pair = result.pair("A", "B")
    assert pair.outcome.p == pair.p_adjusted == 1
    assert pair.effects.rank_biserial == 0
    assert (pair.interval.low, pair.interval.high) == (0, 0)
    text = pair_sentence(result, pair)
    assert "no difference between A and B was shown" in text
    assert "no evidence of equality" in text
    assert result.standings[0].method == "C"


def test_all_methods_identical(block_from):
    result = analyse(block_from(np.tile(scores(8, [0]), (1, 3))), QUICK)
    assert result.omnibus.p == 1
    assert {s.letters for s in result.standings} == {"a"}
    for preset in ("res_srdiff", "ablation"):
        again = analyse(block_from(np.tile(scores(8, [0]), (1, 3))), Plan(preset=preset, resamples=200))
        assert not any(p.different for p in again.pairs)


def test_a_pair_counts_only_where_the_omnibus_test_rejects(block_from):
    for seed in range(400):
        result = analyse(block_from(scores(9, [0, 0.15, 0.3], seed=seed)), Plan(resamples=100, correction="none"))
        if result.omnibus.p > 0.05 and any(p.p_adjusted <= 0.05 for p in result.pairs):
            break
    else:
        pytest.fail("no such case")
    assert not any(p.different for p in result.pairs)
    assert any("so no pair counts as different" in n for n in result.notes)


def test_control_tests_all_others_against_it_alone(block_from):
    block = block_from(scores(20, [0, 1, 2, 2.05]))
    result = analyse(block, dataclasses.replace(QUICK, control="B"))
    assert [(p.a, p.b) for p in result.pairs] == [("A", "B"), ("C", "B"), ("D", "B")]
    assert result.pairs[0].correction == "Holm over 3 pairs"
    assert result.groups == ()
    assert "A is worse than B (mean difference A - B -" in pair_sentence(result, result.pairs[0])
    with pytest.raises(UserError, match="no method 'Z'"):
        analyse(block, dataclasses.replace(QUICK, control="Z"))


def test_control_without_values_is_named(block_from):
    x = scores(6, [0, 1])
    x[:, 1] = np.nan
    assert (
        "the control B takes no part: it has no value" in analyse(block_from(x), dataclasses.replace(QUICK, control="B")).reason
    )


def test_nemenyi_and_its_critical_difference(block_from):
    result = analyse(block_from(scores(20, [0, 0.1, 2])), dataclasses.replace(QUICK, posthoc="nemenyi"))
    assert result.critical_difference == pytest.approx(0.7411, abs=1e-3)
    ranks = {s.method: s.mean_rank for s in result.standings}
    for p in result.pairs:
        assert p.different == (abs(ranks[p.a] - ranks[p.b]) > result.critical_difference)
        assert p.outcome.p == pytest.approx(p.p_adjusted)


def test_field_preset_takes_anova_or_kruskal_by_shapiro(block_from):
    plan = Plan(preset="res_srdiff", resamples=200)
    subject = np.repeat(np.arange(6), 5)
    normal = analyse(block_from(scores(30, [0, 1, 2]), subject), plan)
    assert (normal.omnibus.test, normal.provenance.posthoc) == ("one-way ANOVA", "Tukey HSD")
    skewed = analyse(block_from(np.exp(scores(30, [0, 1, 2]) - 28), subject, GMSD), plan)
    assert (skewed.omnibus.test, skewed.provenance.posthoc) == ("Kruskal-Wallis", "Dunn")
    assert skewed.pairs[0].correction == "Bonferroni over 3 pairs"
    assert skewed.provenance.n == 30
    assert "ignores the pairing" in sentences(skewed)[1]
    assert any(re.search("30 slices then count as \\d+ independent", n) for n in skewed.notes)


def test_slices_and_subjects_weigh_differently_in_the_presets(block_from):
    x = np.zeros((12, 2)) + 28.0 + np.random.default_rng(0).normal(0, 0.01, (12, 2))
    x[:9, 1] += 1.0  # one large subject
    subject = np.array([0] * 9 + [1, 2, 3])
    by_subject = analyse(block_from(x, subject), QUICK).pairs[0].difference
    by_slice = analyse(block_from(x, subject), Plan(preset="res_srdiff", resamples=200)).pairs[0].difference
    assert by_subject == pytest.approx(-0.25, abs=0.03)
    assert by_slice == pytest.approx(-0.75, abs=0.03)


def test_sensitivity_by_the_mixed_model(block_from):
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(10), 8)
    x = rng.normal(28, 2, (80, 1)) + rng.normal(0, 0.2, (80, 3)) + np.array([0, 0, 2.0])
    result = analyse(block_from(x, subject), QUICK)
    assert all(p.mixed is not None and p.mixed.n_slices == 80 for p in result.pairs)
    assert any("decides alike for all 3 pairs" in n for n in result.notes)
    assert analyse(block_from(scores(10, [0, 1, 2])), QUICK).pairs[0].mixed is None  # one slice each: nothing to add


def test_sentences_name_everything(block_from):
    result = analyse(block_from(scores(20, [0, 1.0, 1.02])), dataclasses.replace(QUICK, margin=0.5))
    better, _, same = sentences(result)[1:]
    for words in ("B is better than A", "95 % BCa bootstrap interval over subjects +", "Wilcoxon signed-rank test (exact) on 20 subject means",
                  "after Holm over 3 pairs p = ", "matched rank-biserial r +"):  # fmt: skip
        assert words in better
    assert "no evidence of equality: a paired t test on 20 subjects detects" in same
    assert "are equivalent within ±0.5 dB (two one-sided paired t tests on 20 subject means" in same
    assert "equal " not in same.replace("equality", "").replace("equivalent", "")
    assert "subjects are independent" in methods_paragraph(result)


def test_infinite_psnr_is_capped_and_told(block_from):
    x = scores(8, [0, 1, 2])
    x[0, 2] = np.inf
    result = analyse(block_from(x), QUICK)
    assert all(np.isfinite(p.difference) for p in result.pairs)
    assert any("values above 100 dB entered as 100 dB: 1 of C" in n for n in result.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "mine"}, "no preset 'mine'"),
        ({"posthoc": "dunn"}, "no post-hoc test"),
        ({"correction": "hommel"}, "no correction"),
        ({"alpha": 1.0}, "between 0 and 0.5"),
        ({"margin": -1.0}, "positive number"),
        ({"resamples": 9}, "too few"),
        ({"posthoc": "nemenyi", "preset": "ablation"}, "default preset"),
    ],
)
def test_impossible_plans(options, words):
    with pytest.raises(UserError, match=words):
        Plan(**options)
