"""Losses of priors, and their recipe through the real training loop."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.gaussian_diffusion import GaussianDiffusion
from mrbench_methods.networks.gaussian_diffusion_options import GaussianConfig
from mrbench_methods.networks.prior_loading import load_prior
from mrbench_methods.networks.prior_losses import prior_losses, squared_error_weights, variational_bound
from mrbench_methods.networks.prior_recipe import PriorRecipe, PriorRecipeOptions
from PIL import Image
from torch import Tensor

from mrbench.hub.checkpoint import read_folder

Rand = Callable[..., Tensor]
PLUGIN = """
import mrbench


class Sampler:
    def __init__(self, options):
        pass


@mrbench.hookimpl
def mrbench_methods():
    recipe = "mrbench_methods.networks.prior_recipe:PriorRecipe"
    return [mrbench.MethodCard("sampler", Sampler, tier="demo", deterministic=False, recipe=recipe)]
"""
SMALL = {
    "network.model_channels": 8, "network.channel_mult": "[1,2]", "network.num_res_blocks": 1, "network.groups": 4,
    "network.num_head_channels": 8, "stages.main.batch": 4, "stages.main.patch": 16, "stages.main.validation.items": 4,
}  # fmt: skip


# -- losses --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weighting", ["x0", "min_snr"])
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_weighted_losses_do_not_depend_on_what_is_predicted(weighting, learn_sigma: bool, rand: Rand) -> None:
    """One estimate of x_0, told as eps, v or x_0, costs the same."""
    x0, noise, wrong, t = (
        rand(4, 1, 4, 4).double(),
        rand(4, 1, 4, 4).double(),
        rand(4, 1, 4, 4).double(),
        torch.tensor([1, 90, 400, 950]),
    )
    found = []
    for prediction in ("eps", "v", "x0"):
        config = GaussianConfig(prediction=prediction, learn_sigma=learn_sigma)  # type: ignore[arg-type]
        process = GaussianDiffusion.of(config)
        x = process.add_noise(x0, t, noise)
        eps = process.eps_from_x0(x, t, wrong)
        output = {"eps": eps, "x0": wrong, "v": process.target("v", wrong, t, eps)}[prediction]
        output = torch.cat([output, torch.zeros_like(output)], 1) if learn_sigma else output
        weights = squared_error_weights(process, config, weighting, 5.0)
        terms = prior_losses(process, config, output, x0, x, t, noise, weights)
        assert set(terms) == {"mse", "vb"} if learn_sigma else {"mse"}
        found.append(terms["mse"].item())
        per_image = (wrong - x0).square().mean((1, 2, 3))
        snr = torch.from_numpy(process.sigmas)[t] ** -2
        factor = snr.clamp(max=5.0) if weighting == "min_snr" else 1.0
        assert found[-1] == pytest.approx((factor * per_image).mean().item(), rel=1e-6)
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_unweighted_is_the_error_of_the_noise(rand: Rand) -> None:
    config = GaussianConfig()
    process = GaussianDiffusion.of(config)
    x0, noise, output, t = (*(rand(2, 1, 4, 4) for _ in range(3)), torch.tensor([5, 700]))
    weights = squared_error_weights(process, config, "uniform", 5.0)
    terms = prior_losses(process, config, output, x0, process.add_noise(x0, t, noise), t, noise, weights)
    assert terms["mse"].item() == pytest.approx((output - noise).square().mean().item())


def test_the_variational_bound_is_the_divergence_of_two_normal_densities(rand: Rand) -> None:
    """By sampling; and at t = 0 the probabilities of all grey levels add up to 1."""
    process = GaussianDiffusion.of(GaussianConfig(), 10)
    x0, x, estimate = torch.full((1, 1, 1, 1), 0.2), torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.1)
    v, t = torch.full((1, 1, 1, 1), 0.6), torch.tensor([4])
    (mean, log), (other, other_log) = process.posterior(x0, x, 4), process.posterior(estimate, x, 4, v)
    p, q = (torch.distributions.Normal(m.double(), (0.5 * s.double()).exp()) for m, s in ((other, other_log), (mean, log)))
    bits = torch.distributions.kl_divergence(q, p) / math.log(2)
    assert variational_bound(process, x0, x, t, estimate, v).item() == pytest.approx(bits.item(), rel=1e-4)
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64).reshape(256, 1, 1, 1)
    same = [part.double().expand(256, 1, 1, 1) for part in (x, estimate, v)]
    first = variational_bound(process, levels, same[0], torch.zeros(256, dtype=torch.long), same[1], same[2])
    assert torch.exp2(-first).sum().item() == pytest.approx(1, rel=1e-6)


def test_the_variance_alone_learns_from_the_bound(rand: Rand) -> None:
    config = GaussianConfig(learn_sigma=True)
    process = GaussianDiffusion.of(config)
    x0, noise, t = rand(2, 1, 4, 4), rand(2, 1, 4, 4), torch.tensor([0, 300])
    output = rand(2, 2, 4, 4).requires_grad_(True)
    weights = squared_error_weights(process, config, "uniform", 5.0)
    terms = prior_losses(process, config, output, x0, process.add_noise(x0, t, noise), t, noise, weights)
    (gradient,) = torch.autograd.grad(terms["vb"], output)
    assert not gradient[:, 0].any()
    assert gradient[:, 1].any()
    assert np.isfinite(gradient.numpy()).all()


# -- the recipe ----------------------------------------------------------------------------------------------------
@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "volume", "slice_index", "split"])
        for subject, split in (("ann", "train"), ("bob", "train"), ("cem", "val")):
            y, x = np.mgrid[:32, :32]
            disc = (y - 16) ** 2 + (x - 16) ** 2 < rng.uniform(100, 200)
            Image.fromarray((disc * rng.uniform(100, 250, (32, 32))).astype(np.uint8)).save(folder / f"{subject}.png")
            writer.writerow([f"{subject}.png", subject, f"{subject}_v", 0, split])
    return folder


@pytest.fixture
def train(mrbench: Callable[..., Any], images: Path, tmp_path: Path) -> Callable[..., Any]:
    plugin = tmp_path / "sampler.py"
    plugin.write_text(PLUGIN)

    def call(out: str, steps: int = 3, **changes: object) -> Any:
        options = [
            part
            for key, value in {**SMALL, **changes}.items()
            for part in ("--set", f"sampler.{key.replace('__', '.')}={value}")
        ]
        return mrbench(
            "train", "sampler", "--preset", "demo", "--scale", 2, "--plugin", plugin, "--dataset", "faces=folder",
            "--set", f"faces.path={images}", "--device", "cpu", "--threads", 1, "--steps", steps, "--out", tmp_path / out, *options,
        )  # fmt: skip

    return call


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_training_leaves_a_prior(train: Callable[..., Any], tmp_path: Path, learn_sigma: bool) -> None:
    changes = {"diffusion.learn_sigma": "true", "network.out_channels": 2, "diffusion.prediction": "eps"} if learn_sigma else {}
    done = train("out", **changes)
    assert done.code == 0, done.err
    checkpoint = read_folder(tmp_path / "out", "sampler")
    assert {k: checkpoint.config[k] for k in ("kind", "scale", "degradation", "channels", "tier")} == {
        "kind": "prior", "scale": None, "degradation": "", "channels": 1, "tier": "demo",
    }  # fmt: skip
    assert checkpoint.config["architecture"]["family"] == "adm"
    assert (checkpoint.record.kind, checkpoint.record.scale) == ("prior", None)
    assert checkpoint.training is not None
    assert checkpoint.training["selection"]["metric"] == "loss"
    with (tmp_path / "out" / "log.csv").open() as file:
        quantities = {r["quantity"] for r in csv.DictReader(file)}
    assert {"loss/mse", "val/loss"} | ({"loss/vb"} if learn_sigma else set()) <= quantities
    prior = load_prior(checkpoint, "cpu")
    assert (prior.channels, prior.multiple) == (1, 4)
    said = prior.predict(torch.randn(1, 1, 16, 20), torch.tensor([300]))
    assert said.x0.shape == (1, 1, 16, 20)
    assert (said.log_variance is not None) == learn_sigma
    options = PriorRecipeOptions.model_validate(
        {**yaml.safe_load(PriorRecipe.presets()["demo"].read_text()), "network": checkpoint.config["architecture"]["network"],
         "diffusion": checkpoint.config["architecture"]["diffusion"]}
    )  # fmt: skip
    assert list(checkpoint.tensors()) == sorted(ADMUNet(options.network).state_dict())
    assert all(v.dtype == torch.float16 for v in checkpoint.tensors().values())


def test_training_lowers_the_validation_loss(train: Callable[..., Any], tmp_path: Path) -> None:
    done = train("out", steps=40, **{"stages.main.optimisers.main.lr": 0.003, "stages.main.validation.items": 16})
    assert done.code == 0, done.err
    selection = json.loads((tmp_path / "out" / "training.json").read_text())["selection"]
    assert selection["scores"]["loss"] < 0.8  # of 1 at the beginning (noise) and the mean square of the images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.in_channels": 3, "network.out_channels": 3}, "the images have 1 channel"),
        ({"network.out_channels": 2}, "out_channels 2: the output is image, so 1 channels"),
        ({"diffusion.learn_sigma": "true"}, "out_channels 1: the output is image and variance, so 2 channels"),
        ({"network.num_classes": 5}, "trained without classes"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(
    train: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    done = train("out", **changes)
    assert done.code == 2
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize("name", ["demo", "small", "matched", "paper"])
def test_presets_are_valid(name: str) -> None:
    options = PriorRecipeOptions.model_validate(yaml.safe_load(PriorRecipe.presets()[name].read_text(encoding="utf-8")))
    with torch.device("meta"):
        network = ADMUNet(options.network)
    assert options.stages[0].validation.select == "loss"
    assert options.stages[0].patch % options.network.multiple == 0
    if name == "demo":
        assert 2 * sum(p.numel() for p in network.parameters()) < 11.5e6
    if name == "paper":
        published = 93_563_910
        grey = 9 * 128 * 2 + (9 * 128 + 1) * 4  # fewer channels in and out
        assert sum(p.numel() for p in network.parameters()) == published - grey
