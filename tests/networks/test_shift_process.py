"""The diffusion beyond published values: what follows from its equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mrbench_methods.networks.residual_losses import diffusion_loss, distillation_loss, mse, with_perceptual
from mrbench_methods.networks.residual_shift import ResidualShift, Schedule
from mrbench_methods.networks.residual_shift_options import DiffusionConfig, Prediction
from mrbench_methods.networks.settings import check_steps, choose_diffusion
from torch import Tensor

from mrbench.cards import parse_options
from mrbench.errors import UserError

PAPER = DiffusionConfig(steps=15, min_noise_level=0.04, etas_end=math.sqrt(0.9999))
REPO = DiffusionConfig(steps=4, min_noise_level=0.2)
Rand = Callable[..., Tensor]


def test_schedule_ends_and_shape() -> None:
    for config in (PAPER, REPO, DiffusionConfig(steps=15, min_noise_level=0.04, power=1.0)):
        schedule = Schedule.from_config(config)
        assert schedule.sqrt_etas[0] == pytest.approx(config.min_noise_level / config.kappa, rel=1e-12)
        assert schedule.sqrt_etas[-1] == pytest.approx(config.etas_end, rel=1e-12)
        assert (np.diff(schedule.etas) > 0).all()
        assert schedule.alpha.sum() == pytest.approx(schedule.etas[-1])
    ratios = np.diff(np.log(Schedule.from_config(DiffusionConfig(steps=5, min_noise_level=0.04, power=1.0)).sqrt_etas))
    assert np.allclose(ratios, ratios[0])  # p = 1: geometric


def test_start_cap_and_single_step() -> None:
    assert DiffusionConfig(steps=15, min_noise_level=0.04, kappa=1, start_cap=True).start == pytest.approx(math.sqrt(0.001))
    assert DiffusionConfig(steps=15, min_noise_level=0.04, kappa=2, start_cap=True).start == 0.02
    one = Schedule.from_config(DiffusionConfig(steps=1, min_noise_level=0.2))
    assert one.sqrt_etas.tolist() == [0.99]
    with pytest.raises(UserError, match="the schedule must rise"):
        parse_options(DiffusionConfig, {"steps": 4, "min_noise_level": 1.0, "kappa": 0.5, "etas_end": 0.5}, "a")


@pytest.mark.parametrize(("count", "steps"), [(4, [0, 3, 7, 11]), (5, [0, 3, 6, 9, 12]), (15, list(range(15))), (1, [0])])
def test_respacing(count: int, steps: list[int]) -> None:
    full = Schedule.from_config(PAPER)
    part = full.respaced(count)
    assert part.timestep_map.tolist() == steps
    assert np.array_equal(part.sqrt_etas, full.sqrt_etas[steps])
    assert part.alpha.sum() == pytest.approx(part.etas[-1])
    with pytest.raises(ValueError, match="between 1 and 15"):
        full.respaced(16)


def test_the_posterior_is_the_reverse_of_the_forward_process() -> None:
    """Numerically: x_{t-1} given x_t and x_0 of jointly Gaussian numbers has this mean and variance."""
    s = Schedule.from_config(REPO)
    for t in range(1, 4):
        # x_{t-1} = x0 + eta' (y - x0) + n',  x_t = x_{t-1} + alpha (y - x0) + n, var n' = k^2 eta', var n = k^2 alpha
        gain = s.etas_prev[t] / (s.etas_prev[t] + s.alpha[t])
        assert s.posterior_mean_coef1[t] == pytest.approx(gain)
        assert s.posterior_variance[t] == pytest.approx(s.kappa**2 * s.etas_prev[t] * (1 - gain))
        assert s.posterior_mean_coef1[t] + s.posterior_mean_coef2[t] == pytest.approx(1)


@pytest.mark.parametrize("prediction", ["xstart", "residual", "epsilon", "epsilon_scale"])
def test_a_perfect_network_is_inverted_to_the_truth(prediction: Prediction, rand: Rand) -> None:
    process = ResidualShift(REPO.model_copy(update={"prediction": prediction}))
    x0, y, noise = rand(3, 1, 4, 4), rand(3, 1, 4, 4), rand(3, 1, 4, 4)
    t = torch.tensor([0, 2, 3])
    state = process.q_sample(x0, y, t, noise)
    target = process.target(x0, y, t, noise)
    assert torch.allclose(process.x0_from_output(target, state, y, t), x0, atol=2e-4)
    loss = diffusion_loss(process, lambda x, told: target, x0, y, t, noise)
    assert torch.equal(loss.mse, torch.zeros(3))
    off = diffusion_loss(process, lambda x, told: target + 0.5, x0, y, t, noise)
    scale = (process.at(process.schedule.etas, t) * 4).flatten() if prediction == "epsilon_scale" else 1.0
    assert torch.allclose(off.mse, torch.full((3,), 0.25) / scale, rtol=1e-5)


@pytest.mark.parametrize("config", [PAPER, REPO])
@pytest.mark.parametrize("steps", [None, 4])
def test_samplers_reach_what_the_network_says(config: DiffusionConfig, steps: int | None, rand: Rand) -> None:
    process = ResidualShift(config, steps)
    y, truth = rand(2, 1, 8, 8), rand(2, 1, 8, 8)
    told: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        told.append(int(t[0]))
        return truth

    count = 0

    def noise() -> Tensor:
        nonlocal count
        count += 1
        return rand(2, 1, 8, 8)

    assert torch.allclose(process.sample(network, y, noise), truth, atol=1e-6)  # the posterior mean at step 0 is x_0
    assert count == process.steps  # x_T and every step but the last
    assert told == [int(i) for i in reversed(process.schedule.timestep_map)]
    start = process.prior(y, rand(2, 1, 8, 8))
    assert torch.allclose(process.sample_deterministic(network, y, start), truth, atol=1e-6)
    assert torch.allclose(process.one_step(network, y, noise), truth, atol=1e-6)
    limited = process.sample(lambda x, t: truth * 10, y, noise, clip=True)
    assert float(limited.abs().max()) <= 1


def test_deterministic_steps_follow_the_mean_path(rand: Rand) -> None:
    """On the path x_0 + eta_t (y - x_0) without noise, a perfect network stays on it, and the inversion goes back."""
    process = ResidualShift(PAPER)
    x0, y = rand(1, 1, 4, 4), rand(1, 1, 4, 4)
    roots = process.schedule.sqrt_etas
    direction = rand(1, 1, 4, 4)

    def at(i: int) -> Tensor:
        return x0 + float(roots[i] ** 2) * (y - x0) + float(process.schedule.kappa * roots[i]) * direction

    for step, i in zip(process.deterministic_trajectory(lambda x, t: x0, y, at(14)), range(14, 0, -1), strict=False):
        assert torch.allclose(step.sample, at(i - 1), atol=1e-5)
    assert torch.allclose(process.invert(lambda x, t: x0, y, at(0)), at(14), atol=1e-3)


def test_scalings(rand: Rand) -> None:
    x, t = rand(2, 1, 4, 4), torch.tensor([0, 3])
    for scaling, divisor in (("none", [1, 1]), ("latent", [1.04**0.5, (4 * 0.9801 + 1) ** 0.5]), ("pixel", [1.6, 6.94])):
        process = ResidualShift(REPO.model_copy(update={"scaling": scaling}))
        expected = x / torch.tensor(divisor).reshape(2, 1, 1, 1)
        assert torch.allclose(process.scale_input(x, t), expected, rtol=1e-6)


def test_perceptual_terms() -> None:
    squared, perceptual = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25])
    assert with_perceptual(squared, perceptual, (4, 1)).tolist() == [4.5, 8.25]
    assert with_perceptual(squared, torch.tensor([0.5, float("nan")]), (4, 1)).tolist() == [4.0, 8.0]


def test_distillation_gradients_go_to_the_student_alone(rand: Rand) -> None:
    process = ResidualShift(DiffusionConfig(steps=15, min_noise_level=0.04, scaling="latent"))
    student, teacher = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)
    y, truth, noise = rand(2, 1, 4, 4), rand(2, 1, 4, 4), rand(2, 1, 4, 4)
    told: list[int] = []

    def asked(x: Tensor, t: Tensor) -> Tensor:
        told.append(int(t[0]))
        made: Tensor = student(x)
        return made

    loss = distillation_loss(process, asked, lambda x, t: teacher(x), y, noise, truth, truth_weight=0.5)
    assert told == [14, 0, 0, 14]
    loss.total.mean().backward()
    assert student.weight.grad is not None
    assert teacher.weight.grad is None
    assert loss.inverse is not None
    assert loss.truth is not None
    assert torch.allclose(loss.total, loss.distill + loss.inverse + 0.5 * loss.truth)
    assert torch.allclose(loss.distill, mse(loss.student, loss.teacher))
    alone = distillation_loss(process, asked, lambda x, t: teacher(x), y, noise, learn_inverse=False)
    assert alone.inverse is None
    assert alone.truth is None
    assert torch.equal(alone.total, alone.distill)


def test_settings_of_checkpoints_and_users() -> None:
    variants = {"paper": PAPER, "repo": REPO}
    assert choose_diffusion(variants, None, "paper", None, "repo", "w") == PAPER
    assert choose_diffusion(variants, None, None, None, "repo", "w") == REPO
    assert choose_diffusion(variants, "paper", None, None, "repo", "w") == PAPER
    assert choose_diffusion(variants, "repo", None, REPO, None, "w") == REPO
    own = PAPER.model_copy(update={"steps": 8})
    assert choose_diffusion(variants, None, "paper", own, "repo", "w") == own
    with pytest.raises(UserError, match="trained with the diffusion repo, not with variant 'paper'"):
        choose_diffusion(variants, "paper", "repo", None, None, "w")
    with pytest.raises(UserError, match=r"does not say which diffusion.*paper, repo"):
        choose_diffusion(variants, None, None, None, None, "w")
    assert check_steps(None, PAPER, 4, "w") == 4
    assert check_steps(None, PAPER, None, "w") == 15
    assert check_steps(2, REPO, 4, "w") == 2
    with pytest.raises(UserError, match="between 1 and 4"):
        check_steps(15, REPO, 4, "w")
