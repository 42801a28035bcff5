"""The bridge beyond published values: what follows from its equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mrbench_methods.networks.bridge import Bridge, bridge_loss, space_indices
from mrbench_methods.networks.bridge_options import BridgeConfig
from torch import Tensor

from mrbench.cards import parse_options
from mrbench.errors import UserError

Rand = Callable[..., Tensor]
SHORT = Bridge(BridgeConfig(interval=20, beta_max=0.1))


def no_noise() -> Tensor:
    raise AssertionError("no noise was to be drawn")


@pytest.mark.parametrize("config", [BridgeConfig(), BridgeConfig(beta_max=1.0), SHORT.config])
def test_the_schedule(config: BridgeConfig) -> None:
    bridge = Bridge(config)
    assert len(bridge.betas) == config.interval
    assert np.array_equal(bridge.betas, bridge.betas[::-1])
    assert bridge.betas[0] == pytest.approx(config.beta_min)
    assert bridge.betas.max() < config.beta_max / config.interval  # the second half of the roots is never reached
    assert np.allclose(bridge.mu_x0 + bridge.mu_x1, 1)
    assert np.allclose(bridge.std_fwd, bridge.std_bwd[::-1])
    assert bridge.std_sb.argmax() in (config.interval // 2 - 1, config.interval // 2)
    assert bridge.mu_x1[0] == pytest.approx(bridge.mu_x0[-1])
    assert bridge.mu_x1[0] < 1 / config.interval + 1e-12
    times = bridge.times(torch.arange(config.interval))
    assert float(times[0]) == pytest.approx(config.time_start * config.interval)
    assert float(times[-1]) == config.interval


def test_published_numbers() -> None:
    bridge = Bridge(BridgeConfig())
    assert 1000 * bridge.betas.max() == pytest.approx(0.1865, abs=1e-4)
    assert bridge.betas.sum() == pytest.approx(0.14103, abs=1e-5)
    assert (bridge.std_fwd[0], bridge.std_fwd[999]) == pytest.approx((0.01, 0.37554), abs=1e-5)
    assert bridge.std_sb[499] == pytest.approx(0.18789, abs=1e-5)
    assert space_indices(1000, 6) == [0, 200, 400, 599, 799, 999]
    assert space_indices(1000, 2) == [0, 999]
    assert space_indices(1000, 1000) == list(range(1000))
    assert space_indices(1000, 1) == [0]


@pytest.mark.parametrize("count", [0, 1001])
def test_steps_that_do_not_exist(count: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 1000 of 1000 steps can be chosen, got {count}"):
        space_indices(1000, count)
    if count:
        with pytest.raises(ValueError, match="between 1 and 1000"):
            list(Bridge(BridgeConfig()).trajectory(lambda x, t: x, torch.zeros(1, 1, 2, 2), no_noise, count))


def test_settings_that_make_no_bridge() -> None:
    with pytest.raises(UserError, match="interval 21 is odd"):
        parse_options(BridgeConfig, {"interval": 21}, "a")
    with pytest.raises(UserError, match="must exceed beta_min"):
        parse_options(BridgeConfig, {"beta_max": 0.05}, "a")


def test_one_step_of_the_posterior_leads_from_marginal_to_marginal() -> None:
    """q(x_m | x_0, x_1) = integral of q(x_m | x_0, x_n) q(x_n | x_0, x_1): means and variances agree for every pair of steps.

    But for beta_n / sum, as published: the sums up to n and from n on both hold beta_n.
    """
    bridge = Bridge(BridgeConfig())
    close = float(2 * bridge.betas.max() / bridge.betas.sum())
    assert close < 0.003
    steps = space_indices(1000, 12)
    for i, n in enumerate(steps):
        for m in steps[:i]:
            of_x0, of_x, deviation = bridge.posterior(n, m)
            assert of_x0 + of_x == pytest.approx(1)
            assert of_x * bridge.mu_x1[n] == pytest.approx(bridge.mu_x1[m], rel=close)
            assert of_x0 + of_x * bridge.mu_x0[n] == pytest.approx(bridge.mu_x0[m], rel=close)
            assert (of_x * bridge.std_sb[n]) ** 2 + deviation**2 == pytest.approx(bridge.std_sb[m] ** 2, rel=close)


def test_a_perfect_network_leads_back(rand: Rand) -> None:
    """With the exact answer at every step the chain without noise stays on the line from x_1 to x_0."""
    x0, x1 = rand(2, 1, 4, 4), rand(2, 1, 4, 4)

    def exact(x: Tensor, times: Tensor) -> Tensor:
        step = (times[0] / 20 * 19 / 1.0).round().long().clamp(0, 19)
        return SHORT.target(x0, x, step.expand(2))

    visited = space_indices(20, 6)
    steps = list(SHORT.trajectory(exact, x1, no_noise, 5, ot_ode=True))
    assert [s.step for s in steps] == visited[:0:-1]
    assert [s.following for s in steps] == visited[-2::-1]
    for step in steps:
        assert torch.allclose(step.x0, x0, atol=1e-6)
        way = (SHORT.std_fwd[step.following] / SHORT.std_fwd[19]) ** 2
        assert torch.allclose(step.sample, x0 + float(way) * (x1 - x0), atol=1e-6)
    ended = SHORT.sample(exact, x1, no_noise, 5, ot_ode=True)
    assert torch.equal(ended, steps[-1].sample)
    assert torch.allclose(SHORT.sample(exact, x1, no_noise, 5, ot_ode=True, final="x0"), x0, atol=1e-6)


def test_what_the_last_step_keeps(rand: Rand) -> None:
    """sigma_0 is not 0: half of the state at 999 calls, little at 10."""
    bridge = Bridge(BridgeConfig())
    assert bridge.posterior(1, 0)[1] == pytest.approx(0.5, abs=2e-3)
    before, kept = space_indices(1000, 11)[1], 1e-4
    assert bridge.posterior(before, 0)[1] == pytest.approx(kept / bridge.std_fwd[before] ** 2)
    x1 = rand(1, 1, 2, 2)
    assert torch.equal(bridge.sample(lambda x, t: 0 * x + 1, x1, no_noise, 1, final="x0"), x1 - np.float32(bridge.std_fwd[999]))


def test_noise_is_drawn_at_every_step_but_the_last(rand: Rand) -> None:
    x1 = rand(3, 1, 4, 4)
    for nfe in (1, 2, 7):
        drawn: list[Tensor] = []

        def noise(drawn: list[Tensor] = drawn) -> Tensor:
            drawn.append(rand(3, 1, 4, 4))
            return drawn[-1]

        calls: list[Tensor] = []

        def network(x: Tensor, times: Tensor, calls: list[Tensor] = calls) -> Tensor:
            calls.append(times)
            return 0.1 * x

        SHORT.sample(network, x1, noise, nfe)
        assert (len(calls), len(drawn)) == (nfe, nfe - 1)
        assert all(len(set(t.tolist())) == 1 and t.shape == (3,) for t in calls)
        assert calls[0][0] == 20


def test_estimates_are_clamped_on_request(rand: Rand) -> None:
    x1 = 3 * rand(1, 1, 4, 4)
    loose, tight = (list(SHORT.trajectory(lambda x, t: -x, x1, no_noise, 2, ot_ode=True, clip=clip)) for clip in (False, True))
    assert float(loose[0].x0.abs().max()) > 1
    assert float(tight[0].x0.abs().max()) == 1


@pytest.mark.parametrize("noisy", [True, False])
def test_targets_are_the_inverse_of_estimates_and_the_loss_measures_them(noisy: bool, rand: Rand) -> None:
    x0, x1 = rand(4, 1, 4, 4), rand(4, 1, 4, 4)
    noise = rand(4, 1, 4, 4) if noisy else None
    step = torch.tensor([0, 3, 12, 19])
    state = SHORT.q_sample(x0, x1, step, noise)
    target = SHORT.target(x0, state, step)
    assert torch.allclose(SHORT.estimate(target, state, step), x0, atol=1e-6)
    told = []

    def network(x: Tensor, times: Tensor) -> Tensor:
        assert torch.equal(x, state)
        told.append(times)
        return target + torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1, 1)

    assert torch.allclose(bridge_loss(SHORT, network, x0, x1, step, noise), torch.tensor([0.0, 1.0, 4.0, 9.0]), atol=1e-5)
    assert torch.equal(told[0], SHORT.times(step))
    if not noisy:
        assert torch.allclose(state[3], x1[3], atol=1.01 * float(SHORT.mu_x0[19]) * float((x1 - x0).abs().max()))


def test_the_marginal_of_states(rand: Rand) -> None:
    step = torch.full((4000,), 9)
    states = SHORT.q_sample(torch.zeros(4000, 1, 1, 1), torch.ones(4000, 1, 1, 1), step, rand(4000, 1, 1, 1))
    assert float(states.mean()) == pytest.approx(float(SHORT.mu_x1[9]), abs=4 * float(SHORT.std_sb[9]) / math.sqrt(4000))
    assert float(states.std()) == pytest.approx(float(SHORT.std_sb[9]), rel=0.05)
