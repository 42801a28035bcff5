"""The controls: gt is the truth, pinv and impostor reproduce the measurement, and what they cannot do they refuse."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from mrbench.cards import MethodCard, NoOptions
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.probe import EVEN, ODD, phantom
from mrbench.engine.restorer import GroundTruth, Restorer
from mrbench.errors import UserError
from mrbench.plugins import Registry

DEGRADATIONS = ("bicubic_aa", "area", "gaussian", "kspace_crop")


def control(registry: Registry, name: str) -> Any:
    return registry.methods.get(name).load()(NoOptions())


def measured(
    registry: Registry, name: str, scale: float, size: tuple[int, int], channels: int = 1, **options: Any
) -> tuple[Measurement, GroundTruth]:
    if channels == 2 and name == "kspace_crop":
        options = {"domain": "complex", **options}
    card = registry.degradations.get(name)
    hr = torch.stack([phantom("a", 0, size, channels), phantom("b", 0, size, channels)])
    others = torch.stack([phantom("b", 1, size, channels), phantom("a", 1, size, channels)])
    m = degrade(hr, ["d/a/v/0", "d/b/v/0"], card.load()(card.parse(options)), (scale, scale), seed_key="test")
    return m, GroundTruth(hr, others)


def consistency(m: Measurement, image: torch.Tensor) -> float:
    assert m.operator is not None
    return float((m.operator.forward(image) - m.y).abs().max())


def test_cards_are_controls_and_light() -> None:
    code = (
        "import sys; from mrbench.plugins import discover; r = discover(environ={'MRBENCH_PLUGINS': ''});"
        "cards = [r.methods.get(n) for n in ('gt', 'pinv', 'impostor')];"
        "assert all(c.control and c.deterministic and c.tier == 'none' for c in cards);"
        "assert [c.needs_operator for c in cards] == [False, True, True];"
        "import mrbench_methods.controls; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gt_is_the_truth(registry: Registry, channels: int) -> None:
    m, truth = measured(registry, "bicubic_aa", 4, ODD, channels)
    estimate = control(registry, "gt").restore(m, 3, truth)
    assert estimate.shape == (2, 3, channels, *ODD)
    assert all(torch.equal(estimate[:, k], truth.hr) for k in range(3))
    estimate.zero_()
    assert float(truth.hr.abs().max()) > 0  # its own memory


@pytest.mark.parametrize("size", [EVEN, ODD])
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_pinv_and_impostor_explain_the_measurement(registry: Registry, name: str, scale: int, size: tuple[int, int]) -> None:
    m, truth = measured(registry, name, scale, size)
    smallest = control(registry, "pinv").restore(m, 1, truth)[:, 0]
    impostor = control(registry, "impostor").restore(m, 1, truth)[:, 0]
    assert consistency(m, smallest) < 1e-4
    assert consistency(m, impostor) < 1e-4
    assert truth.others is not None
    assert consistency(m, truth.others) > 1e-2  # the other subject alone does not explain it
    assert float((impostor - truth.hr).square().mean().sqrt()) > 0.02  # and it is not the truth
    # least norm: every other solution is larger, and the difference is invisible to A
    assert bool((smallest.flatten(1).norm(dim=1) <= impostor.flatten(1).norm(dim=1) + 1e-4).all())
    assert bool((smallest.flatten(1).norm(dim=1) <= truth.hr.flatten(1).norm(dim=1) + 1e-4).all())


def test_impostor_is_the_nearest_solution(registry: Registry) -> None:
    m, truth = measured(registry, "bicubic_aa", 4, EVEN)
    assert truth.others is not None
    assert m.operator is not None
    impostor = control(registry, "impostor").restore(m, 1, truth)[:, 0]
    torch.testing.assert_close(impostor, m.operator.prox(truth.others, m.y, 0.0), atol=1e-5, rtol=0)
    nearer = (impostor - truth.others).square().sum() <= (truth.hr - truth.others).square().sum()
    assert bool(nearer)  # the truth is another solution


@pytest.mark.parametrize("channels", [2, 3])
def test_complex_and_colour(registry: Registry, channels: int) -> None:
    for name in ("bicubic_aa", "kspace_crop"):
        m, truth = measured(registry, name, 4, ODD, channels)
        for entry in ("pinv", "impostor"):
            estimate = control(registry, entry).restore(m, 2, truth)
            assert estimate.shape == (2, 2, channels, *ODD)
            assert torch.equal(estimate[:, 0], estimate[:, 1])
            assert consistency(m, estimate[:, 1]) < 1e-4


def test_impostor_without_another_subject(registry: Registry) -> None:
    m, truth = measured(registry, "bicubic_aa", 4, EVEN)
    with pytest.raises(UserError, match="the data set has one subject"):
        control(registry, "impostor").restore(m, 1, GroundTruth(truth.hr))


def test_impostor_refuses_a_nonlinear_degradation(registry: Registry) -> None:
    m, truth = measured(registry, "kspace_crop", 4, EVEN, domain="magnitude")
    with pytest.raises(UserError, match="linear degradation; kspace_crop is not linear"):
        control(registry, "impostor").restore(m, 1, truth)


@pytest.mark.parametrize("name", ["pinv", "impostor"])
def test_no_operator(registry: Registry, name: str) -> None:
    m, truth = measured(registry, "bicubic_aa", 4, EVEN)
    with pytest.raises(UserError, match=f"{name} needs the degradation's 2-D operator"):
        control(registry, name).restore(replace(m, operator=None), 1, truth)


def test_through_the_engine(registry: Registry) -> None:
    """Controls get the truth of the right items, also when a batch is split."""
    m, truth = measured(registry, "bicubic_aa", 2, EVEN)
    card: MethodCard = registry.methods.get("gt")
    restorer = Restorer(card, card.parse({}), torch.device("cpu"), limit=1)
    outcomes = restorer.restore(m, 1, truth)
    assert [o.status for o in outcomes] == ["ok", "ok"]
    for outcome, hr in zip(outcomes, truth.hr, strict=True):
        assert outcome.estimate is not None
        assert torch.equal(outcome.estimate[0], hr)
    card = registry.methods.get("impostor")
    outcomes = Restorer(card, card.parse({}), torch.device("cpu")).restore(m, 1, GroundTruth(truth.hr))
    assert [o.status for o in outcomes] == ["failed", "failed"]
    assert "another subject" in outcomes[0].error
