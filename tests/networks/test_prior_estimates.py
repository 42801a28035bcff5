"""Priors against estimates that are known exactly: those of normally distributed images."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.gaussian_diffusion import GaussianDiffusion
from mrbench_methods.networks.gaussian_diffusion_options import GaussianConfig
from mrbench_methods.networks.prior import Prior
from mrbench_methods.networks.prior_adm import ADMPrior
from mrbench_methods.networks.prior_channels import GreyPrior, for_channels
from mrbench_methods.networks.prior_discrete import DiscretePrior
from torch import Tensor

from mrbench.errors import UserError

SPREAD = 0.7  # standard deviation of every pixel
PROCESS = GaussianDiffusion.of(GaussianConfig())
Rand = Callable[..., Tensor]


class Normal(DiscretePrior):
    """Independent normal pixels: ``E[x_0 | x_t] = sqrt(a) s^2 x_t / (a s^2 + 1 - a)``, told as a network would."""

    def _output(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        a = torch.from_numpy(PROCESS.alphas_cumprod)[t].to(x)[:, None, None, None]
        x0 = a.sqrt() * SPREAD**2 * x / (a * SPREAD**2 + 1 - a)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        output = {"x0": x0, "eps": eps, "v": a.sqrt() * eps - (1 - a).sqrt() * x0}[self.prediction]
        return torch.cat([output, 0.25 * torch.ones_like(output)], 1) if self.learn_sigma else output


class Greys(Prior):
    """Colour images of equal channels: only the mean of the channels tells anything."""

    channels = 3
    sigma_range = (0.01, 100.0)

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        noise = sigma[:, None, None, None].square() / 3
        return (x.mean(1, keepdim=True) * SPREAD**2 / (SPREAD**2 + noise)).expand_as(x)


class DiscreteGreys(Greys):
    alphas_cumprod = PROCESS.alphas_cumprod


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_the_estimate_is_the_posterior_mean(prediction, learn_sigma: bool, rand: Rand) -> None:
    prior = Normal(PROCESS, prediction, learn_sigma, 2)
    x, t = rand(3, 2, 4, 4), torch.tensor([3, 250, 980])
    sigma = torch.from_numpy(PROCESS.sigmas)[t].float()
    expected = x * SPREAD**2 / (SPREAD**2 + sigma.square())[:, None, None, None]
    assert torch.allclose(prior.denoise(x, sigma), expected, atol=2e-4)
    a = torch.from_numpy(PROCESS.alphas_cumprod)[t].float()[:, None, None, None]
    said = prior.predict(a.sqrt() * x, t)
    assert torch.allclose(said.x0, expected, atol=2e-4)
    assert torch.allclose(a.sqrt() * said.x0 + (1 - a).sqrt() * said.eps, a.sqrt() * x, atol=1e-4)
    assert (said.log_variance is None) == (not learn_sigma)
    if said.log_variance is not None:
        assert said.log_variance.shape == x.shape
        assert (said.log_variance == 0.25).all()
    assert prior.sigma_range == pytest.approx((0.01, 157.4), rel=1e-2)


def test_between_steps_the_nearest_one_is_told_and_beyond_them_the_last(rand: Rand) -> None:
    told: list[Tensor] = []

    class Spy(Normal):
        def _output(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
            told.append(t)
            return super()._output(x, t, condition)

    levels = PROCESS.sigmas
    sigma = torch.tensor(
        [0.6 * levels[500] + 0.4 * levels[501], 0.4 * levels[500] + 0.6 * levels[501], 1e-4, 1e4], dtype=torch.float32
    )
    x = rand(4, 1, 4, 4)
    found = Spy(PROCESS, "eps", False, 1).denoise(x, sigma)
    assert told[0].tolist() == [500, 501, 0, 999]
    expected = x * SPREAD**2 / (SPREAD**2 + sigma.square())[:, None, None, None]
    assert torch.allclose(found[:2], expected[:2], atol=0.02)


def test_estimates_are_differentiable_in_the_image(rand: Rand) -> None:
    network = ADMUNet(
        ADMConfig(in_channels=1, out_channels=2, model_channels=8, channel_mult=(1, 2), num_res_blocks=1, groups=4)
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    prior = ADMPrior(network.eval().requires_grad_(False), GaussianConfig(learn_sigma=True))
    x = rand(1, 1, 8, 8).requires_grad_(True)
    step = 1e-2 * torch.ones_like(x)
    (gradient,) = torch.autograd.grad(prior.predict(x, torch.tensor([200])).x0.sum(), x)
    with torch.no_grad():
        ahead, behind = (prior.predict(x + s, torch.tensor([200])).x0.sum() for s in (step, -step))
    assert gradient.sum().item() == pytest.approx((ahead - behind).item() / 2e-2, rel=1e-2)
    assert prior.multiple == 2


def test_the_condition_and_the_label_reach_the_network(rand: Rand) -> None:
    config = ADMConfig(
        in_channels=1,
        out_channels=1,
        model_channels=8,
        channel_mult=(1,),
        num_res_blocks=1,
        groups=4,
        num_classes=4,
        low_res_channels=2,
    )
    network = ADMUNet(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    prior = ADMPrior(network, GaussianConfig(prediction="x0"), label=3)
    x, condition, t = rand(2, 1, 8, 8), rand(2, 2, 8, 8), torch.tensor([10, 20])
    assert prior.condition_channels == 2
    assert torch.equal(prior.predict(x, t, condition).x0, network(x, t, torch.tensor([3, 3]), condition))
    for label in (None, 4, -1):
        with pytest.raises(UserError, match="label from 0 to 3"):
            ADMPrior(network, GaussianConfig(), label)
    plain = ADMUNet(ADMConfig(in_channels=1, out_channels=1, model_channels=8, channel_mult=(1,), num_res_blocks=1, groups=4))
    with pytest.raises(UserError, match="takes no label"):
        ADMPrior(plain, GaussianConfig(), 0)


@pytest.mark.parametrize("prior", [Greys(), DiscreteGreys()])
def test_a_colour_prior_estimates_grey_images_as_a_grey_one_would(prior: Prior, rand: Rand) -> None:
    grey = for_channels(prior, 1)
    assert isinstance(grey, GreyPrior)
    x, sigma = rand(3, 1, 6, 5), torch.tensor([0.1, 1.0, 20.0])
    expected = x * SPREAD**2 / (SPREAD**2 + sigma.square())[:, None, None, None]
    assert torch.allclose(grey.denoise(x, sigma), expected, atol=1e-4)
    assert grey.sigma_range == pytest.approx((0.01 / math.sqrt(3), 100 / math.sqrt(3)))
    t = torch.tensor([5, 400, 900])
    if prior.alphas_cumprod is None:
        with pytest.raises(TypeError, match="no steps"):
            grey.predict(x, t)
    else:
        a = torch.from_numpy(PROCESS.alphas_cumprod)[t].float()[:, None, None, None]
        said = grey.predict(a.sqrt() * x + 0.5, t)
        assert torch.allclose(a.sqrt() * said.x0 + (1 - a).sqrt() * said.eps, a.sqrt() * x + 0.5, atol=1e-4)
        expected = (x + 0.5 / a.sqrt()) * SPREAD**2 / (SPREAD**2 + (1 - a) / a)
        assert torch.allclose(said.x0, expected, atol=1e-4)


def test_the_colour_prior_sees_noise_that_is_independent_in_all_channels() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Spy(Greys):
        def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
            seen.append((x, sigma))
            return x

    noise = 0.4 * torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(5))
    grey = for_channels(Spy(), 1)
    assert torch.allclose(grey.denoise(noise, torch.tensor([0.4])), noise, atol=1e-6)
    colour, told = seen[0]
    covariance = np.cov(colour[0].flatten(1).numpy())
    assert told.item() == pytest.approx(0.4 * math.sqrt(3))
    np.testing.assert_allclose(covariance, told.item() ** 2 * np.eye(3), atol=0.01)
    again = grey.denoise(torch.cat([noise, noise]), torch.tensor([0.4, 0.4]))
    assert torch.equal(again[0], again[1])


def test_other_channels_are_refused() -> None:
    one, three = Normal(PROCESS, "eps", False, 1), Normal(PROCESS, "eps", False, 3)
    assert for_channels(three, 3) is three
    for prior, channels, words in (
        (one, 3, "grey images .* colour"),
        (one, 2, "grey images .* complex"),
        (three, 2, "complex"),
    ):
        with pytest.raises(UserError, match=words):
            for_channels(prior, channels)
