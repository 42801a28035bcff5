"""What ratings say: numbers worked out by hand, incomplete readers, agreement, tests."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from study_support import make_study, read_by, write_runs

from mrbench.errors import UserError
from mrbench.stats import agreement
from mrbench.stats.presets import Plan
from mrbench.study.analysis import analyse_study
from mrbench.study.create import TRUTH
from mrbench.study.readings import collect
from mrbench.study.records import Shown
from mrbench.study.results import StudyResult
from mrbench.study.words import pair_sentence

FAST = Plan(resamples=2000)
LEVEL = {"zebranet": 5, "quokka_sr": 3, "wombat_up": 2, "gt": 5, TRUTH: 5}


def by_method(shown: Shown, criterion: str) -> int:
    return LEVEL[shown.method]


def noisy(seed: int, sd: float = 0.8):
    """A reader with noise of their own; what they think of an image is not the same twice."""
    rng = np.random.default_rng(seed)

    def rate(shown: Shown, criterion: str) -> int:
        return int(np.clip(np.rint(LEVEL[shown.method] - 0.5 + rng.normal(0, sd)), 1, 5))

    return rate


def found(folder: Path, plan: Plan = FAST, unit: str = "subjects", **more: object) -> StudyResult:
    return analyse_study(collect(folder, **more), plan, unit)  # type: ignore[arg-type]


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Twelve subjects with one image each, four methods of which one is a control."""
    runs = write_runs(
        tmp_path / "wide", dict.fromkeys(("zebranet", "quokka_sr", "wombat_up"), 0.0), {f"s{i}": 1 for i in range(12)}
    )
    return make_study(runs, tmp_path / "wide_study", images=12, criteria=("contrast",), truth=True, repeats=6)


def test_constant_readers_give_their_constants(study: Path) -> None:
    read_by(study, "Anna", by_method)
    read_by(study, "Ben", by_method)
    result = found(study)
    for criterion in result.criteria:
        assert {s.method: (s.mean, s.sd, s.n) for s in criterion.scores} == {
            "quokka_sr": (3.0, 0.0, 12), "wombat_up": (2.0, 0.0, 12), "zebranet": (5.0, 0.0, 12),
        }  # fmt: skip
        for s in criterion.scores:
            assert s.bca is not None
            assert (s.bca.low, s.bca.high) == (s.mean, s.mean)
        assert [s.mark for s in criterion.scores] == ["second", "", "best"]
        assert criterion.agreement.alpha.value == 1.0
        assert criterion.agreement.pairs[0].quadratic.value == 1.0
        assert criterion.agreement.pairs[0].exact == 1.0
        assert [(w.reader, w.n, w.exact, w.difference) for w in criterion.within] == [("Anna", 2, 1, 0), ("Ben", 2, 1, 0)]
    assert result.missing == ()
    assert (result.images, result.subjects, result.clusters) == (6, 4, 4)


def test_means_are_over_ratings_and_readers_by_themselves(wide: Path) -> None:
    read_by(wide, "Anna", by_method)
    read_by(wide, "Ben", lambda s, c: max(1, LEVEL[s.method] - 1))
    scores = {s.method: s for s in found(wide).criteria[0].scores}
    assert scores["quokka_sr"].mean == 2.5
    assert scores["quokka_sr"].sd == pytest.approx(np.std([3, 2] * 12, ddof=1))
    assert scores["quokka_sr"].by_reader == (3.0, 2.0)
    assert scores["quokka_sr"].counts == (0, 12, 12, 0, 0)
    assert scores["quokka_sr"].n == 24


def test_intervals_resample_images_with_all_their_ratings(wide: Path) -> None:
    """Two readers who agree are no more evidence than one: the interval is that of 12 images, not of 24 ratings."""
    rng = np.random.default_rng(5)
    opinion = {f"toy/s{i}/vol/000": int(v) for i, v in enumerate(rng.integers(1, 6, 12))}
    read_by(wide, "Anna", lambda s, c: opinion[s.item])
    alone = found(wide).criteria[0].scores[0]
    read_by(wide, "Ben", lambda s, c: opinion[s.item])
    both = found(wide).criteria[0].scores[0]
    assert (both.n, alone.n) == (24, 12)
    assert both.bca == alone.bca
    assert both.percentile == alone.percentile
    values = np.array(list(opinion.values()), float)
    assert both.percentile is not None
    draws = rng.choice(values, (20_000, 12)).mean(1)
    assert np.allclose(
        [both.percentile.low, both.percentile.high], np.quantile(draws, [0.025, 0.975]), atol=0.09
    )  # means of 12 ratings lie 1/12 apart
    import scipy.stats

    reference = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert both.bca is not None
    assert np.allclose(
        [both.bca.low, both.bca.high], [reference.low, reference.high], atol=0.09
    )  # means of 12 ratings lie 1/12 apart


def test_paired_tests_are_on_means_over_readers(wide: Path) -> None:
    for i, name in enumerate(("Anna", "Ben", "Carl")):
        read_by(wide, name, noisy(i))
    readings = collect(wide)
    criterion = analyse_study(readings, FAST).criteria[0]
    import scipy.stats

    means = readings.values[..., 0].mean(0)  # [images, methods]
    names = list(readings.methods)
    p = {}
    for a, b in itertools.combinations([n for n in names if n != TRUTH], 2):
        d = np.round(means[:, names.index(a)] - means[:, names.index(b)], 9)
        d = d[d != 0]
        p[frozenset((a, b))] = scipy.stats.permutation_test(
            (d,), lambda x, axis: (scipy.stats.rankdata(np.abs(x), axis=axis) * (x > 0)).sum(axis), permutation_type="samples",
            vectorized=True, n_resamples=np.inf, alternative="two-sided",
        ).pvalue  # fmt: skip
    order = sorted(p, key=lambda pair: p[pair])
    holm = np.maximum.accumulate([min(1.0, p[pair] * (3 - i)) for i, pair in enumerate(order)])
    assert len(criterion.test.pairs) == 3
    for pair in criterion.test.pairs:
        assert pair.outcome.p == pytest.approx(p[frozenset((pair.a, pair.b))], rel=1e-9)
        assert pair.p_adjusted == pytest.approx(holm[order.index(frozenset((pair.a, pair.b)))], rel=1e-9)
    assert criterion.test.omnibus is not None
    assert criterion.test.omnibus.test == "Friedman"
    assert criterion.test.omnibus.n == 12
    assert {p.better for p in criterion.test.pairs} <= {"zebranet", "quokka_sr", ""}
    assert "rated higher than wombat_up" in pair_sentence(criterion.test, criterion.test.pair("zebranet", "wombat_up"))


def test_subjects_count_unless_images_are_asked_for(study: Path) -> None:
    """Six images of four subjects."""
    read_by(study, "Anna", noisy(1))
    read_by(study, "Ben", noisy(2))
    subjects, images = found(study), found(study, unit="images")
    assert (subjects.clusters, images.clusters) == (4, 6)
    assert subjects.criteria[0].test.pairs[0].outcome.n == 4
    assert images.criteria[0].test.pairs[0].outcome.n == 6
    assert any("takes the 6 images of 4 subjects as independent" in n for n in images.notes)
    text = " ".join(pair_sentence(images.criteria[0].test, p) for p in images.criteria[0].test.pairs)
    assert "on 6 images" in text
    assert "subject" not in text
    assert "4 subject means" in pair_sentence(subjects.criteria[0].test, subjects.criteria[0].test.pairs[0])
    assert images.criteria[0].test.provenance.n_subjects == 4


def test_an_incomplete_reader_is_reported_and_every_method_has_the_same_ratings(study: Path) -> None:
    read_by(study, "Anna", by_method)
    read_by(study, "Ben", lambda s, c: 1, trials=9)
    readings = collect(study)
    result = analyse_study(readings, FAST)
    ben = next(r for r in result.readers if r.name == "Ben")
    assert (ben.rated, ben.expected, ben.complete) == (18, 40, False)
    assert result.missing == ("Ben has not finished: 18 of 40 ratings",)
    rated = ~np.isnan(readings.values[1, :, :, 0])
    complete, begun = int(rated.all(1).sum()), int(rated.any(1).sum())
    for criterion in result.criteria:
        assert {s.n for s in criterion.scores} == {6 + complete}
        assert (criterion.blocks, criterion.incomplete) == (6 + complete, begun - complete)
        zebra = next(s for s in criterion.scores if s.method == "zebranet")
        assert zebra.mean == pytest.approx((6 * 5 + complete * 1) / (6 + complete))
        assert criterion.agreement.alpha.n == int(rated.sum())  # of all that both rated
    assert begun > complete
    assert any(n.startswith(f"{begun - complete} time") for n in result.notes)


def test_chosen_readers_and_those_left_out_are_named(study: Path) -> None:
    for name in ("Anna", "Ben", "Carl"):
        read_by(study, name, by_method)
    read_by(study, "Dora", by_method, trials=0)
    result = found(study, readers=("anna", "Carl"))
    assert [r.name for r in result.readers] == ["Anna", "Carl"]
    assert any("Ben (not asked for)" in n for n in result.notes)
    assert any("Dora (began, and rated nothing)" in n for n in found(study).notes)
    with pytest.raises(UserError, match="Did you mean 'Anna'"):
        collect(study, readers=("Ana",))


def test_agreement_equals_the_plain_functions(wide: Path) -> None:
    for i, name in enumerate(("Anna", "Ben", "Carl")):
        read_by(wide, name, noisy(i))
    readings = collect(wide)
    measured = analyse_study(readings, FAST).criteria[0].agreement
    flat = readings.values[..., 0].reshape(3, -1)
    whole = flat.astype(int)
    assert measured.alpha.value == pytest.approx(agreement.krippendorff_alpha(flat), abs=1e-12)
    assert measured.icc_single.value == pytest.approx(agreement.icc(flat)["ICC(2,1)"], abs=1e-12)
    assert measured.icc_mean.value == pytest.approx(agreement.icc(flat)["ICC(2,k)"], abs=1e-12)
    for pair, (a, b) in zip(measured.pairs, itertools.combinations(range(3), 2), strict=True):
        assert pair.linear.value == pytest.approx(agreement.cohen_kappa(whole[a], whole[b], "linear"), abs=1e-12)
        assert pair.quadratic.value == pytest.approx(agreement.cohen_kappa(whole[a], whole[b], "quadratic"), abs=1e-12)
        assert pair.within_one == agreement.agreement_within(whole[a], whole[b], 1)
        assert pair.quadratic.interval is not None
        assert pair.quadratic.interval.low < pair.quadratic.value < pair.quadratic.interval.high


def test_agreement_within_readers(wide: Path) -> None:
    def steady_but_for_one(shown: Shown, criterion: str) -> int:
        return 4 if shown.repeat_of and shown.method == TRUTH else LEVEL[shown.method]

    read_by(wide, "Anna", steady_but_for_one)
    (within,) = found(wide).criteria[0].within
    assert within.n == 6
    changed = sum(m == TRUTH for _, m in collect(wide).repeated)
    assert changed >= 1
    assert within.exact == pytest.approx(1 - changed / 6)
    assert within.within_one == 1.0
    assert within.difference == pytest.approx(changed / 6)


def test_one_reader_has_no_agreement_with_others(study: Path) -> None:
    read_by(study, "Anna", noisy(3))
    result = found(study)
    assert result.criteria[0].agreement.pairs == ()
    assert math.isnan(result.criteria[0].agreement.alpha.value)
    assert any(n.startswith("one reader") for n in result.notes)
    assert result.criteria[0].test.pairs  # tests there are


def test_controls_are_tested_only_when_asked(wide: Path) -> None:
    read_by(wide, "Anna", noisy(3))
    plain = found(wide).criteria[0]
    assert all(TRUTH not in (p.a, p.b) for p in plain.test.pairs)
    assert next(s for s in plain.scores if s.method == TRUTH).mark == ""
    against = found(wide, Plan(resamples=500, control=TRUTH)).criteria[0]
    assert [(p.a, p.b) for p in against.test.pairs] == [(m, TRUTH) for m in ("quokka_sr", "wombat_up", "zebranet")]
    with pytest.raises(UserError, match="Did you mean 'zebranet'"):
        found(wide, Plan(control="zebranets"))


def test_equivalence_needs_a_margin(wide: Path) -> None:
    read_by(wide, "Anna", lambda s, c: 4 if s.method == "wombat_up" and s.item.startswith("toy/s1/") else 3)
    loose = found(wide, Plan(resamples=500, margin=0.5)).criteria[0].test.pair("quokka_sr", "wombat_up")
    assert loose is not None
    assert loose.equivalence is not None
    assert loose.equivalence.equivalent
    assert not loose.different
    assert "are equivalent within ±0.5" in pair_sentence(found(wide, Plan(resamples=500, margin=0.5)).criteria[0].test, loose)


def test_too_few_subjects_are_said_and_nothing_is_tested(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", {"zebranet": 0.0, "quokka_sr": 0.0}, {"s1": 4, "s2": 4})
    folder = make_study(runs, tmp_path / "few", images=8, criteria=("contrast",))
    read_by(folder, "Anna", noisy(1))
    result = found(folder)
    assert result.criteria[0].test.reason == "2 subjects: no test (at least 3 are needed)"
    assert all(s.bca is None and s.percentile is None for s in result.criteria[0].scores)
    assert any("--unit images takes images as independent" in n for n in result.notes)
    assert found(folder, unit="images").criteria[0].test.pairs


def test_demonstration_weights_mark_no_winner(tmp_path: Path) -> None:
    runs = write_runs(
        tmp_path / "runs", {"zebranet": 0.0, "quokka_sr": 0.0}, {"s1": 1, "s2": 1, "s3": 1}, tiers={"zebranet": "demo"}
    )
    folder = make_study(runs, tmp_path / "demo", images=3, criteria=("contrast",))
    read_by(folder, "Anna", by_method)
    result = found(folder)
    assert result.banner.startswith("demonstration weights")
    assert {s.mark for s in result.criteria[0].scores} == {""}


def test_a_torn_line_is_reported_with_the_results(study: Path) -> None:
    read_by(study, "Anna", by_method)
    path = next((study / "ratings").glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-10])
    result = found(study)
    assert len(result.warnings) == 1
    assert "was not finished" in result.warnings[0]
    assert result.missing == ("Anna has not finished: 39 of 40 ratings",)


def test_a_copied_file_is_no_second_reader(study: Path) -> None:
    read_by(study, "Anna", by_method)
    path = next((study / "ratings").glob("*.jsonl"))
    (path.parent / "0123456789abcdef.jsonl").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="Is it a copy"):
        collect(study)


def test_nobody_rated(study: Path) -> None:
    with pytest.raises(UserError, match=r"nobody has rated anything yet.*study serve"):
        collect(study)


def test_the_key_may_lie_elsewhere(study: Path, tmp_path: Path) -> None:
    read_by(study, "Anna", by_method)
    (study / "key.json").rename(tmp_path / "kept.json")
    with pytest.raises(UserError, match="--key FILE"):
        collect(study)
    assert collect(study, tmp_path / "kept.json").methods == ("quokka_sr", "wombat_up", "zebranet")
