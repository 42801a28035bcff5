"""Schedules, respacing and single steps of a variance-preserving diffusion, against their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mrbench_methods.networks.gaussian_diffusion import GaussianDiffusion, cosine_betas, linear_betas, space_timesteps
from mrbench_methods.networks.gaussian_diffusion_options import GaussianConfig
from torch import Tensor

from mrbench.errors import UserError

Rand = Callable[..., Tensor]


def test_spacings() -> None:
    assert space_timesteps(1000, "4") == [0, 333, 666, 999]
    assert space_timesteps(1000, [1]) == [0]
    assert space_timesteps(10, "2,3") == [0, 4, 5, 7, 9]
    assert space_timesteps(11, "2,3") == [0, 5, 6, 8, 10]  # the first section is the longer one
    assert space_timesteps(1000, "ddim4") == [0, 250, 500, 750]
    assert space_timesteps(6, "3") == [0, 2, 5]  # 2.5 rounds to the even 2


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        ("ddim998", "no constant stride takes 998"),
        ("1001", "between 1 and 1000"),
        ([0], "between 1 and 1000"),
        ("ten", "expected a number"),
        ("5,", "expected a number"),
        ([], "no number"),
    ],
)
def test_spacings_that_cannot_be(spacing: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_timesteps(1000, spacing)


def test_known_noise_levels() -> None:
    sigmas = GaussianDiffusion.of(GaussianConfig()).sigmas
    assert [sigmas[t] for t in (0, 100, 500)] == pytest.approx([0.0100, 0.342, 3.44], rel=2e-3)
    assert sigmas[999] == pytest.approx(157.4, abs=0.05)
    assert GaussianDiffusion.of(GaussianConfig(schedule="cosine")).betas[-1] == pytest.approx(0.999)
    assert linear_betas(100)[[0, -1]] == pytest.approx([1e-3, 0.2])


@pytest.mark.parametrize("steps", [None, 7, "ddim25", "3,4"])
def test_the_posterior_is_that_of_bayes(steps: object) -> None:
    """q(x_{i-1} | x_i, x_0) of the spaced chain: the product of two normal densities."""
    process = GaussianDiffusion.from_betas(cosine_betas(1000), steps)  # type: ignore[arg-type]
    x0, x = (
        torch.tensor(0.3, dtype=torch.float64).reshape(1, 1, 1, 1),
        torch.tensor(-0.8, dtype=torch.float64).reshape(1, 1, 1, 1),
    )
    for i in {1, process.num_steps // 2, process.num_steps - 1}:
        a, before = process.alphas_cumprod[i], process.alphas_cumprod[i - 1]
        forward, prior = 1 - a / before, 1 - before  # variances of x_i given x_{i-1}, and of x_{i-1} given x_0
        precision = (a / before) / forward + 1 / prior
        mean = (np.sqrt(a / before) / forward * x + np.sqrt(before) / prior * x0) / precision
        found, log_variance = process.posterior(x0, x, i)
        assert found.item() == pytest.approx(mean.item(), rel=1e-9)
        assert log_variance.exp().item() == pytest.approx(1 / precision, rel=1e-9)
        assert process.posterior(x0, x, i, torch.ones_like(x))[1].exp().item() == pytest.approx(forward, rel=1e-9)
        halfway = process.posterior(x0, x, i, torch.zeros_like(x))[1].exp().item()
        assert halfway == pytest.approx(np.sqrt(forward / precision), rel=1e-9)


def test_ddim_with_eta_one_is_ddpm(rand: Rand) -> None:
    process = GaussianDiffusion.of(GaussianConfig(), 12)
    x, x0, noise = rand(2, 1, 3, 3).double(), rand(2, 1, 3, 3).double(), rand(2, 1, 3, 3).double()
    for i in (0, 1, 11):
        assert torch.allclose(process.ddim_step(x, i, x0, noise, eta=1.0), process.ddpm_step(x, i, x0, noise), atol=1e-9)
    assert torch.allclose(process.ddim_step(x, 0, x0), x0, atol=1e-12)  # the last step is the estimate
    with pytest.raises(ValueError, match="needs noise"):
        process.ddim_step(x, 3, x0, eta=0.5)


def test_ddim_without_noise_follows_the_noise(rand: Rand) -> None:
    process = GaussianDiffusion.of(GaussianConfig(), 20)
    x0, noise = rand(1, 1, 4, 4).double(), rand(1, 1, 4, 4).double()
    stepped = process.ddim_step(process.add_noise(x0, 15, noise), 15, x0)
    assert torch.allclose(stepped, process.add_noise(x0, 14, noise), atol=1e-9)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_predictions_mean_the_same(prediction, rand: Rand) -> None:
    process = GaussianDiffusion.of(GaussianConfig())
    x0, noise, t = rand(3, 1, 2, 2).double(), rand(3, 1, 2, 2).double(), torch.tensor([0, 400, 998])
    x = process.add_noise(x0, t, noise)
    output = process.target(prediction, x0, t, noise)
    assert torch.allclose(process.x0_from(prediction, x, t, output), x0, atol=1e-9)
    assert torch.allclose(process.eps_from(prediction, x, t, output), noise, atol=1e-9)


def test_a_tensor_of_steps_is_each_step_and_tables_are_not_rounded(rand: Rand) -> None:
    process = GaussianDiffusion.of(GaussianConfig(), 50)
    x, x0, noise, v = (rand(3, 2, 4, 4) for _ in range(4))
    steps = torch.tensor([0, 17, 49])
    together = process.ddpm_step(x, steps, x0, noise, v)
    for k, i in enumerate(steps.tolist()):
        assert torch.equal(together[k], process.ddpm_step(x[k, None], i, x0[k, None], noise[k, None], v[k, None])[0])
    assert process.timesteps(steps, 3).tolist() == process.timestep_map[steps.numpy()].tolist()
    assert process.timesteps(49, 2).tolist() == [999, 999]
    assert process.alphas_cumprod.dtype == np.float64
    assert together.dtype == torch.float32


def test_only_falling_schedules_are_taken() -> None:
    for bad in ([0.9, 0.9], [1.0, 0.5], [0.5, 0.0], [], [[0.5]]):
        with pytest.raises(ValueError, match="must fall"):
            GaussianDiffusion(np.array(bad))
