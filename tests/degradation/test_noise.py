from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mrbench.degradation.noise import add_noise
from mrbench.errors import UserError


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def test_none_changes_nothing() -> None:
    y = torch.rand(2, 1, 4, 4)
    assert add_noise(y, "none", 0.0, generators(1, 2)) is y


def test_gaussian_statistics() -> None:
    y = torch.full((1, 1, 400, 400), 0.5)
    noise = add_noise(y, "gaussian", 0.03, generators(7)) - y
    assert float(noise.mean()) == pytest.approx(0, abs=4 * 0.03 / 400)
    assert float(noise.std()) == pytest.approx(0.03, rel=0.01)


def test_complex_gaussian_has_sigma_per_part_and_independent_parts() -> None:
    noise = add_noise(torch.zeros(1, 2, 400, 400), "complex_gaussian", 0.05, generators(3))[0]
    assert noise.std(dim=(1, 2)).tolist() == pytest.approx([0.05, 0.05], rel=0.01)
    assert abs(float((noise[0] * noise[1]).mean())) < 5 * 0.05**2 / 400


def test_rician_background_and_signal() -> None:
    sigma = 0.04
    background = add_noise(torch.zeros(1, 1, 400, 400), "rician", sigma, generators(11))
    assert float(background.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)  # 1.2533 sigma
    assert float(background.square().mean()) == pytest.approx(2 * sigma**2, rel=0.02)
    assert background.min() >= 0
    signal = add_noise(torch.full((1, 1, 400, 400), 0.8), "rician", sigma, generators(12))
    assert float(signal.square().mean()) == pytest.approx(0.8**2 + 2 * sigma**2, rel=0.005)  # E|y|^2 = A^2 + 2 sigma^2


@pytest.mark.parametrize(("kind", "channels"), [("gaussian", 1), ("gaussian", 3), ("complex_gaussian", 2), ("rician", 1)])
def test_noise_belongs_to_the_item(kind: Any, channels: int) -> None:
    y = torch.rand(4, channels, 9, 11)
    together = add_noise(y, kind, 0.1, generators(5, 6, 7, 8))
    pairs = torch.cat([add_noise(y[2:], kind, 0.1, generators(7, 8)), add_noise(y[:2], kind, 0.1, generators(5, 6))])
    assert torch.equal(together, pairs.roll(2, 0))
    assert not torch.equal(together[0] - y[0], together[1] - y[1])


def test_volumes_too() -> None:
    assert add_noise(torch.zeros(1, 1, 3, 4, 5), "rician", 0.1, generators(1)).shape == (1, 1, 3, 4, 5)


@pytest.mark.parametrize(
    ("kind", "sigma", "channels", "message"),
    [
        ("gaussian", -0.1, 1, "0 or more"),
        ("gaussian", float("nan"), 1, "0 or more"),
        ("none", 0.1, 1, "name a kind"),
        ("poisson", 0.1, 1, "Known: none, gaussian, complex_gaussian, rician"),
        ("complex_gaussian", 0.1, 1, "Use rician for magnitude"),
        ("complex_gaussian", 0.1, 3, "2 channels"),
        ("rician", 0.1, 2, "Use complex_gaussian for complex"),
        ("rician", 0.1, 3, "gaussian for colour"),
    ],
)
def test_mistakes_are_refused(kind: Any, sigma: float, channels: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        add_noise(torch.zeros(1, channels, 4, 4), kind, sigma, generators(1))


def test_one_generator_per_item() -> None:
    with pytest.raises(ValueError, match="one generator each"):
        add_noise(torch.zeros(2, 1, 4, 4), "gaussian", 0.1, generators(1))
