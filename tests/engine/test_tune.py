"""The search: seeded points, the default options first, objectives, ties, and trials that cannot be compared."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from mrbench.engine.tune import Objective, Search, comparable, make_objective, parse_objective, points, settings_to_try
from mrbench.errors import UserError
from mrbench.store.tuned import ObjectiveInfo, TrialRecord
from mrbench.tuning_space import Choices, Range

SPACE = {"zeta": Range(0.1, 10.0, log=True), "steps": Range(1, 9, integer=True), "kernel": Choices(("a", "b"))}


@pytest.fixture(scope="module")
def registry():
    from mrbench.plugins import discover

    return discover()


def objective(higher: bool = True) -> Objective:
    return Objective(ObjectiveInfo(column="psnr", metric="psnr", signature="", higher_is_better=higher))


def test_points_follow_from_the_seed_alone() -> None:
    first = list(islice(points(SPACE, 0), 200))
    assert first == list(islice(points(dict(reversed(SPACE.items())), 0), 200))
    assert first[:20] != list(islice(points(SPACE, 1), 20))
    assert [list(p) for p in first[:2]] == [["zeta", "steps", "kernel"]] * 2


def test_points_fill_the_space_evenly() -> None:
    found = np.log10([p["zeta"] for p in islice(points(SPACE, 3), 64)])
    assert (np.histogram(found, 8, (-1, 1))[0] >= 6).all()  # 8 each on average


def test_a_longer_search_begins_with_the_shorter_one() -> None:
    default = {"zeta": 0.3, "steps": 3, "kernel": "a"}
    short, long = (settings_to_try(SPACE, n, 0, default) for n in (10, 40))
    assert short == long[:10]
    assert len(long) == 40
    assert long[0] == {}
    assert len({tuple(s.items()) for s in long}) == 40


def test_small_spaces_are_exhausted_and_the_default_is_not_repeated() -> None:
    space = {"steps": Range(1, 3, integer=True), "kernel": Choices(("a", "b"))}
    tried = settings_to_try(space, 50, 0, {"steps": 2, "kernel": "a"})
    assert len(tried) == 6
    assert {"steps": 2, "kernel": "a"} not in tried
    assert len(settings_to_try(space, 50, 0, {"steps": 8, "kernel": "a"})) == 7
    assert len(settings_to_try({"zeta": Range(1.0, 1.0001)}, 50, 0, {"zeta": 3.0})) <= 3  # of four digits


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("psnr", ("psnr", "psnr", None)),
        ("psnr_fg@mean", ("psnr_fg@mean", "psnr", None)),
        ("min:lpips_squeeze", ("lpips_squeeze", "lpips_squeeze", False)),
        ("max:gmsd", ("gmsd", "gmsd", True)),
    ],
)
def test_objectives(registry, text: str, parts) -> None:
    assert parse_objective(text, registry.metrics) == parts


@pytest.mark.parametrize("text", ["", "max:", "best:psnr", "psnr@best", "psnr@median"])
def test_bad_objectives(registry, text: str) -> None:
    with pytest.raises(UserError, match="--objective"):
        parse_objective(text, registry.metrics)


def test_columns_that_metrics_of_draws_give(registry) -> None:
    """One metric may give several columns; those without a better direction ask for one."""
    import torch

    from mrbench.engine.scoring import Scorer

    column, metric, higher = parse_objective("coverage50", registry.metrics)
    assert metric == "coverage"
    scorer = Scorer.load(registry, [metric, "crps"], {}, torch.device("cpu"))
    assert not make_objective("crps", None, scorer, 4, lambda c: None).info.higher_is_better
    with pytest.raises(UserError, match="min:coverage50 or max:coverage50"):
        make_objective(column, higher, scorer, 4, lambda c: None)
    with pytest.raises(UserError, match="not available: needs two or more draws"):
        make_objective("crps", None, scorer, 1, lambda c: None)


def test_the_direction_is_the_metric_s_unless_told(registry) -> None:
    import torch

    from mrbench.engine.scoring import Scorer

    scorer = Scorer.load(registry, ["gmsd"], {}, torch.device("cpu"))
    assert not make_objective("gmsd", None, scorer, 1, lambda c: None).info.higher_is_better
    assert make_objective("gmsd", True, scorer, 1, lambda c: None).info.higher_is_better
    with pytest.raises(UserError, match=r"no such column.*Columns: gmsd.*1 draw; for @mean, ask for more"):
        make_objective("gmsd@mean", None, scorer, 1, lambda c: None)
    assert make_objective("gmsd@mean", None, scorer, 4, lambda c: None).info.signature.endswith("|K:4|mean-of-draws")


def records(*scores: float | None) -> list[TrialRecord]:
    return [
        TrialRecord(trial=i, score=s, status="failed" if s is None else "ok", items=4 if s is not None else 0)
        for i, s in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("scores", "higher", "winner"),
    [
        ((20.0, 21.0, 21.0, 19.0), True, 1),
        ((20.0, 21.0, 19.0, 19.0), False, 2),
        ((20.0, 20.0), True, 0),
        ((None, None, 3.0), True, 2),
        ((-1.0, None), False, 0),
        ((None, None), True, None),
    ],
)
def test_the_earlier_of_equals_wins_and_failed_trials_never(scores, higher: bool, winner: int | None) -> None:
    assert Search(None, [], objective(higher), {}).winner(records(*scores)) == winner  # type: ignore[arg-type]


def test_trials_with_values_on_fewer_slices_cannot_win() -> None:
    found = records(20.0, 40.0, 21.0)
    found[1].items = 3
    checked = comparable(found)
    assert [t.status for t in checked] == ["ok", "failed", "ok"]
    assert "3 slices only, others have 4" in checked[1].error
    assert Search(None, [], objective(), {}).winner(checked) == 2  # type: ignore[arg-type]
