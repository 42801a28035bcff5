"""The magnitude-preserving network of EDM2: what its layers keep, what our additions change, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mrbench_methods.networks.edm2 import EDM2Precond
from mrbench_methods.networks.edm2_layers import MPConv, mp_cat, mp_silu, mp_sum, normalize
from mrbench_methods.networks.edm2_options import EDM2Config
from mrbench_methods.networks.edm2_sampling import edm_sigmas, heun
from mrbench_methods.networks.edm2_training import blend, edm2_loss, posthoc_coefficients
from mrbench_methods.networks.prior_edm2 import EDM2Prior, edm2_prior

from mrbench.errors import UserError
from mrbench.train.ema import power_exponent

SMALL: dict[str, Any] = {
    "img_resolution": 8,
    "img_channels": 1,
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_blocks": 1,
    "attn_resolutions": (4,),
    "channels_per_head": 16,
    "logvar_channels": 8,
}


def network(**changes: Any) -> EDM2Precond:
    """A small network whose gains do not start at zero, so that every weight matters."""
    torch.manual_seed(0)
    made = EDM2Precond(EDM2Config(**{**SMALL, **changes})).eval()
    for name, parameter in made.named_parameters():
        if name.endswith("gain"):
            parameter.data.fill_(0.7)
    return made


def test_layers_keep_unit_magnitude(rand) -> None:
    a, b = rand(4, 64, 32, 32), rand(4, 32, 32, 32)
    assert float(mp_silu(a).square().mean()) == pytest.approx(1, abs=0.02)
    assert float(mp_sum(a, rand(4, 64, 32, 32), 0.3).square().mean()) == pytest.approx(1, abs=0.02)
    joined = mp_cat(a, b, 0.5)
    assert float(joined.square().mean()) == pytest.approx(1, abs=0.02)
    halves = float(joined[:, :64].square().sum()), float(joined[:, 64:].square().sum())
    assert halves[0] == pytest.approx(halves[1], rel=0.05)  # both paths count alike, whatever their widths
    torch.manual_seed(0)
    conv = MPConv(64, 48, (3, 3)).eval()
    conv.weight.data *= 7  # the size of the weights does not matter
    assert float(conv(a).detach()[..., 1:-1, 1:-1].square().mean()) == pytest.approx(1, abs=0.05)


def test_training_normalises_the_stored_weights_and_evaluation_leaves_them(rand) -> None:
    torch.manual_seed(0)
    conv = MPConv(8, 4, (3, 3))
    conv.weight.data *= 5
    before = conv.weight.detach().clone()
    x = rand(1, 8, 6, 6)
    out = conv.eval()(x)
    assert torch.equal(conv.weight, before)
    assert torch.allclose(conv.train()(x), out, atol=1e-3)
    assert torch.equal(conv.weight, normalize(before))
    conv(x).square().sum().backward()
    inner = (conv.weight.grad * conv.weight).flatten(1).sum(1)
    assert float(inner.detach().abs().max()) < 1e-3 * float(conv.weight.grad.norm())  # gradients only turn the weights


def test_unshuffling_keeps_the_size_and_multiplies_the_channels(rand) -> None:
    made = network(unshuffle=2, cond_channels=1)
    assert made.config.multiple == 4
    assert list(made.unet.enc["8x8_conv"].weight.shape) == [16, 2 * 4 + 1, 3, 3]
    assert list(made.unet.out_conv.weight.shape) == [4, 16, 3, 3]
    x = rand(2, 1, 16, 12)
    out = made(x, torch.tensor([0.5, 2.0]), rand(2, 1, 16, 12))
    assert out.shape == x.shape
    assert not torch.allclose(out, x / (1 + 4 * 0.25))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_condition_is_scaled_and_counts(rand, channels: int) -> None:
    made = network(img_channels=channels, cond_channels=channels, cond_std=0.25)
    x, condition, sigma = rand(2, channels, 8, 8), rand(2, channels, 8, 8), torch.ones(2)
    with torch.no_grad():
        out = made(x, sigma, condition)
        twin = network(img_channels=channels, cond_channels=channels, cond_std=0.5)
        twin.load_state_dict(made.state_dict())
        assert torch.allclose(twin(x, sigma, 2 * condition), out, atol=1e-6)
        assert not torch.allclose(made(x, sigma, 2 * condition), out, atol=1e-3)
    for wrong in (None, condition[:, :, :4]):
        with pytest.raises(ValueError, match="expected a condition"):
            made(x, sigma, wrong)
    with pytest.raises(ValueError, match="expected a condition"):
        network(img_channels=channels)(x, sigma, condition)


def test_without_attention_the_network_is_convolutional(rand) -> None:
    made = network(attn_resolutions=(), middle_attention=False)
    assert not [k for k in made.state_dict() if "attn" in k]
    x = rand(1, 1, 96, 96)
    with torch.no_grad():
        whole, part = made(x, torch.ones(1)), made(x[..., :64, :64], torch.ones(1))
    assert torch.allclose(whole[..., :32, :32], part[..., :32, :32], atol=1e-5)
    assert network().state_dict().keys() > made.state_dict().keys()


def test_limits_of_the_preconditioning(rand) -> None:
    made = network()
    x = rand(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(made(x, torch.tensor(1e-5)), x, atol=1e-4)  # nothing to remove
        far = made(1e4 * x, torch.tensor(1e4))
    assert float(far.abs().max()) < 20  # noise alone: the network's guess, of the size of the data
    assert made.logvar(torch.ones(3)).shape == (3, 1, 1, 1)


def test_the_loss_of_a_perfect_estimate_is_the_uncertainty(rand) -> None:
    made = network()
    images, noise, sigma = rand(2, 1, 8, 8), rand(2, 1, 8, 8), torch.tensor([0.1, 3.0])
    estimate = made(images + sigma[:, None, None, None] * noise, sigma)
    found = edm2_loss(made, images, sigma, noise)
    u = made.logvar(sigma)
    weight = ((sigma**2 + 0.25) / (0.5 * sigma) ** 2)[:, None, None, None]
    assert torch.allclose(found, weight * (estimate - images).square() * (-u).exp() + u)


def test_noise_levels_and_the_sampler(rand) -> None:
    sigmas = edm_sigmas(5, 0.01, 10.0)
    assert sigmas[0] == pytest.approx(10)
    assert sigmas[-1] == pytest.approx(0.01)
    assert (sigmas.diff() < 0).all()
    assert edm_sigmas(1, 0.01, 10.0).tolist() == pytest.approx([10.0])
    with pytest.raises(ValueError, match="not possible"):
        edm_sigmas(4, 2.0, 1.0)
    noise = rand(1, 1, 4, 4)
    exact = heun(lambda x, s: x / (1 + s**2), noise, edm_sigmas(40, 0.002, 80.0))  # data of unit variance
    assert torch.allclose(exact, noise * 80 / (1 + 80**2) ** 0.5, atol=2e-2)
    with pytest.raises(ValueError, match="needs draw"):
        heun(lambda x, s: x, noise, sigmas, churn=1.0)


def test_stored_averages_make_others() -> None:
    narrow, wide = power_exponent(0.05), power_exponent(0.1)
    one = posthoc_coefficients([100.0, 100.0], [narrow, wide], [100.0], [wide])
    assert np.allclose(one[:, 0], [0, 1])
    between = posthoc_coefficients([100.0, 100.0], [narrow, wide], [100.0], [power_exponent(0.07)])
    assert between.sum() == pytest.approx(1)
    assert between[1, 0] > between[0, 0] > 0.1
    mixed = blend([{"w": torch.zeros(2), "n": torch.tensor(3)}, {"w": torch.ones(2), "n": torch.tensor(4)}], between[:, 0])
    assert torch.allclose(mixed["w"], torch.full((2,), float(between[1, 0])))
    assert mixed["n"] == 4


def test_configurations_that_make_no_network() -> None:
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        EDM2Config(**{**SMALL, "img_resolution": 6, "channel_mult": (1, 1, 1)})
    with pytest.raises(ValueError, match="heads of 64"):
        EDM2Config(**{**SMALL, "channels_per_head": 64})
    assert EDM2Config(**{**SMALL, "channels_per_head": 64, "attn_resolutions": (), "middle_attention": False}).multiple == 2


def test_a_checkpoint_becomes_a_prior(rand) -> None:
    made = network()
    config = {"family": "edm2", "network": {**SMALL, "channel_mult": [1, 2], "attn_resolutions": [4]}, "sigma_max": 20.0}
    prior = edm2_prior(config, {f"net.{k}": v for k, v in made.state_dict().items()}, "the file")
    assert (prior.channels, prior.condition_channels, prior.multiple, prior.sigma_range) == (1, 0, 2, (0.002, 20.0))
    assert prior.alphas_cumprod is None
    x, sigma = rand(2, 1, 8, 8).requires_grad_(), torch.tensor([0.2, 0.9])
    out = prior.denoise(x, sigma)
    assert torch.allclose(out, made(x, sigma), atol=1e-6)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert float(gradient.abs().max()) > 0
    with pytest.raises(TypeError, match="no steps t"):
        prior.predict(x, torch.tensor([1]))


def test_weights_that_are_no_prior() -> None:
    config = {"family": "edm2", "network": SMALL}
    with pytest.raises(UserError, match="the file do not fit"):
        edm2_prior(config, network(num_blocks=2).state_dict(), "the file")
    with pytest.raises(UserError, match="no option 'widht'"):
        edm2_prior({**config, "network": {**SMALL, "widht": 3}} | {"widht": 1}, {}, "the file")
    with pytest.raises(UserError, match="not below sigma_max"):
        edm2_prior({**config, "sigma_min": 3.0, "sigma_max": 2.0}, network().state_dict(), "the file")
    with pytest.raises(UserError, match="class labels"):
        EDM2Prior(network(label_dim=3), what="the file")
    with pytest.raises(UserError, match="prior of latents"):
        EDM2Prior(network(img_channels=4), what="the file")
