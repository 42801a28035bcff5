"""Learning rates, against published code's numbers and by hand."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from mrbench.train.schedules import learning_rate
from mrbench.train.settings import OptimiserSpec, ScheduleSpec, Stage

GOLDEN = Path(os.environ.get("MRBENCH_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))


def rates(spec: ScheduleSpec, base: float, steps: int) -> np.ndarray:
    return np.array([learning_rate(spec, base, step, steps) for step in range(steps)])


def golden(name: str) -> dict[str, np.ndarray]:
    file = GOLDEN / name
    if not file.is_file():
        pytest.skip(f"no golden file {file} (set MRBENCH_GOLDEN)")
    return load_file(file)


def test_resshift_rule_is_that_of_the_published_code() -> None:
    expected = golden("resshift/lr_schedule.safetensors")["lr_used"]
    spec = ScheduleSpec(kind="cosine", warmup=50, warmup_after_step=True, final=2e-5)
    np.testing.assert_allclose(rates(spec, 5e-5, 400), expected, rtol=1e-12)


def test_edm2_rule_is_that_of_the_published_code() -> None:
    """Reference rate 0.012, batch 2048: the rate decays after 70000 steps and ramps up over 10 million images."""
    values = golden("adm/edm2_blocks.safetensors")
    spec = ScheduleSpec(kind="inverse_sqrt", warmup=round(10e6 / 2048), decay=70000)
    mine = [learning_rate(spec, 0.012, int(n / 2048), 10**7) for n in values["lr_nimg"]]
    np.testing.assert_allclose(mine, values["lr"], rtol=1e-3)  # whole steps


def test_warm_up_then_cosine() -> None:
    mine = rates(ScheduleSpec(kind="cosine", warmup=10, final=0.1), 1.0, 110)
    np.testing.assert_allclose(mine[:10], np.arange(1, 11) / 10)
    assert mine[10] == 1.0
    np.testing.assert_allclose(mine[60], 0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert mine[-1] > 0.1
    assert (np.diff(mine[10:]) < 0).all()


def test_constant_linear_and_steps() -> None:
    assert (rates(ScheduleSpec(), 3e-4, 7) == 3e-4).all()
    linear = rates(ScheduleSpec(kind="linear", start=0.5), 2.0, 100)  # constant for half, then down to 0
    assert (linear[:51] == 2).all()
    np.testing.assert_allclose(linear[75], 1.0)
    np.testing.assert_allclose(linear[99], 0.04)
    halved = rates(ScheduleSpec(kind="step", milestones=(3, 6), gamma=0.5), 1.0, 8)
    np.testing.assert_array_equal(halved, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])
    decayed = rates(ScheduleSpec(kind="step", every=2, gamma=0.99), 1.0, 6)
    np.testing.assert_allclose(decayed, [1, 1, 0.99, 0.99, 0.99**2, 0.99**2])


def test_a_shorter_stage_keeps_the_shape_of_its_schedule() -> None:
    schedule = ScheduleSpec(kind="step", warmup=10, milestones=(50, 80))
    stage = Stage(steps=100, batch=1, patch=8, optimisers={"a": OptimiserSpec(lr=1.0, schedule=schedule)})
    short = stage.with_steps(20).optimisers["a"].schedule
    assert (short.warmup, short.milestones) == (2, (10, 16))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "constant", "final": 0.1}, "has no final"),
        ({"kind": "cosine", "milestones": [3]}, "has no milestones"),
        ({"kind": "step"}, "needs every or milestones"),
        ({"kind": "step", "milestones": [5, 3]}, "increasing"),
        ({"kind": "inverse_sqrt"}, "needs decay"),
        ({"warm_up": 3}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(fields, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScheduleSpec(**fields)


def test_a_warm_up_longer_than_its_stage_is_refused() -> None:
    optimiser = OptimiserSpec(lr=1.0, schedule=ScheduleSpec(warmup=11))
    with pytest.raises(ValidationError, match="11 warm-up steps in a stage of 10"):
        Stage(steps=10, batch=1, patch=8, optimisers={"a": optimiser})


def test_steps_outside_of_the_stage_are_refused() -> None:
    with pytest.raises(ValueError, match="step 5 is not one"):
        learning_rate(ScheduleSpec(), 1.0, 5, 5)
