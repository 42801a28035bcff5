"""Golden values of SR3 and MSP-SR: network, schedules, loss, a whole chain, and the published sizes with weights by recipe.

The MSP-SR files hold a reconstruction on the published SR3 modules, not published code. Recorded noises are fed in order.
Tensors of float32 networks agree within 1e-5 of their largest value (at least of 1).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mrbench_methods.networks.controlnet import ControlBranch, controlled
from mrbench_methods.networks.loading import load_strict
from mrbench_methods.networks.sr3 import SR3UNet
from mrbench_methods.networks.sr3_diffusion import SR3Diffusion, betas
from mrbench_methods.networks.sr3_options import SR3Config, SR3DiffusionConfig
from safetensors.torch import load_file
from torch import Tensor, nn

FAMILY = "sr3_gan"
RELATIVE = 1e-5
SMALLEST_VARIANCE = 1e-20  # of the published code's clipped logarithm
Tensors = Mapping[str, Tensor]


class Comparison:
    """Compares tensors; :meth:`finish` shows all that differ, and what was left out."""

    def __init__(self) -> None:
        self._faults: list[str] = []
        self.seen: set[str] = set()

    def close(self, name: str, value: Tensor, expected: Tensor, relative: float = RELATIVE) -> None:
        self.seen.add(name)
        if value.shape != expected.shape:
            self._faults.append(f"{name}: shape {list(value.shape)}, expected {list(expected.shape)}")
            return
        allowed = relative * max(1.0, float(expected.double().abs().max()))
        gap = float((value.double() - expected.double()).abs().max())
        if not gap <= allowed:
            self._faults.append(f"{name}: differs by {gap:.3g} (tolerance {allowed:.3g})")

    def finish(self, names: set[str]) -> None:
        left = {name for name in names if not name.startswith("sd.")} - self.seen
        assert not left, f"not compared: {', '.join(sorted(left))}"
        assert not self._faults, "\n".join(self._faults)
        assert self.seen, "nothing was compared"


def tensors_of(golden: Any) -> Tensors:
    return load_file(golden.path.with_suffix(".safetensors"))


def weights_of(golden: Any, role: str) -> Tensors:
    source = golden.weights_from(role)
    held = load_file(golden.path.with_name(source["file"]))
    prefix = source["prefix"]
    return {key.removeprefix(prefix): value for key, value in held.items() if key.startswith(prefix)}


def config_of(published: Mapping[str, Any]) -> SR3Config:
    given = dict(published)
    asymmetric = given.pop("downsample", "").startswith("F.pad")
    return SR3Config(**given, downsample="asym" if asymmetric else "sr3")


def unet_of(golden: Any, config: Mapping[str, Any]) -> SR3UNet:
    network = SR3UNet(config_of(config))
    load_strict(network, weights_of(golden, "unet"), what=golden.path.name)
    return network.eval()


def sibling_config(golden: Any) -> dict[str, Any]:
    """The network of ``sr3_unet``, whose weights the other files use."""
    import json

    config: dict[str, Any] = json.loads(golden.path.with_name("sr3_unet.json").read_text())["config"]
    return config


def diffusion_of(settings: Mapping[str, Any]) -> SR3Diffusion:
    return SR3Diffusion(
        SR3DiffusionConfig(
            steps=settings["n_timestep"],
            schedule=settings["schedule"],
            linear_start=settings["linear_start"],
            linear_end=settings["linear_end"],
        )
    )


# -- schedules -----------------------------------------------------------------------------------------------------
def check_schedule(golden: Any) -> None:
    """All buffers of T = 2000, the noise levels in float64, and the betas of all schedules."""
    io, compared = tensors_of(golden), Comparison()
    diffusion = diffusion_of(golden.document["config"]["main"])
    process = diffusion.process()
    a = process.alphas_cumprod
    variance = np.maximum(process.posterior_variance, SMALLEST_VARIANCE)
    buffers = {
        "betas": process.betas,
        "alphas_cumprod": a,
        "alphas_cumprod_prev": process.alphas_cumprod_prev,
        "sqrt_alphas_cumprod": np.sqrt(a),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - a),
        "log_one_minus_alphas_cumprod": np.log(1 - a),
        "sqrt_recip_alphas_cumprod": process.sqrt_recip_alphas_cumprod,
        "sqrt_recipm1_alphas_cumprod": process.sqrt_recipm1_alphas_cumprod,
        "posterior_variance": process.posterior_variance,
        "posterior_log_variance_clipped": np.log(variance),
        "posterior_mean_coef1": process.posterior_mean_coef1,
        "posterior_mean_coef2": process.posterior_mean_coef2,
    }
    for name, values in buffers.items():
        compared.close(name, torch.from_numpy(values), io[name], 1e-7)
    compared.close(
        "sqrt_alphas_cumprod_prev_f64", torch.from_numpy(diffusion.levels), io["sqrt_alphas_cumprod_prev_f64"], 1e-14
    )
    for key in io:
        if key.startswith("betas40."):
            made = betas(key.removeprefix("betas40."), 40, 1e-4, 0.02)
            compared.close(key, torch.from_numpy(made), io[key], 1e-15)
    compared.finish(set(io))


# -- the network ---------------------------------------------------------------------------------------------------
@torch.inference_mode()
def check_unet(golden: Any) -> None:
    """Embeddings, features inside, and the output, for both shapes of noise levels."""
    io, compared = tensors_of(golden), Comparison()
    network = unet_of(golden, golden.document["config"])
    g = io["noise_level"]
    layers = network.noise_level_mlp
    compared.close("posenc", layers[0](g).unsqueeze(1), io["posenc"])
    compared.close("embedding", layers(g).unsqueeze(1), io["embedding"])
    found: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda layer, given, output: found.__setitem__(name, output)

    for name in (key.removeprefix("feat.") for key in io if key.startswith("feat.")):
        network.get_submodule(name).register_forward_hook(note(name))
    compared.close("y", network(io["x"], g), io["y"])
    compared.close("y", network(io["x"], g.flatten()), io["y"])
    for name, value in found.items():
        compared.close(f"feat.{name}", value[:1], io[f"feat.{name}"])
    compared.seen |= {"x", "noise_level"}
    compared.finish(set(io))


@torch.inference_mode()
def check_loss(golden: Any) -> None:
    """A noisy image between two steps, and the L1 loss of the network on it."""
    io, compared = tensors_of(golden), Comparison()
    diffusion = diffusion_of(golden.document["config"]["schedule"])
    network = unet_of(golden, sibling_config(golden))
    g, t = io["sqrt_alpha_bar"], io["t"].reshape(1)
    part = (diffusion.levels[int(t) - 1] - g.double()) / (diffusion.levels[int(t) - 1] - diffusion.levels[int(t)])
    assert ((part >= 0) & (part <= 1)).all()
    compared.close("sqrt_alpha_bar", diffusion.between(t.expand(2), part.float()), g, 1e-6)
    noisy = diffusion.noisy(io["hr"], g, io["noise"])
    compared.close("x_noisy", noisy, io["x_noisy"], 1e-6)
    output = network(torch.cat([io["cond"], noisy], dim=1), g)
    compared.close("eps_pred", output, io["eps_pred"])
    gap = (diffusion.target(io["hr"], g, io["noise"], io["cond"]) - output).abs()
    compared.close("loss_sum", gap.sum(), io["loss_sum"])
    compared.close("loss_mean", gap.mean(), io["loss_mean"])
    compared.seen |= {"hr", "cond", "noise", "t"}
    compared.finish(set(io))


@torch.inference_mode()
def check_sampling(golden: Any) -> None:
    """A whole chain: states, clamped estimates, the result of both items."""
    io, compared = tensors_of(golden), Comparison()
    diffusion = diffusion_of(golden.document["config"]["schedule"])
    network = unet_of(golden, golden.document["config"]["unet"])
    noises = iter([io["xT"], *reversed(io["z"][1:].unbind())])

    def told(x: Tensor, g: Tensor) -> Tensor:
        out: Tensor = network(torch.cat([io["cond"], x], dim=1), g)
        return out

    steps = list(diffusion.trajectory(told, io["cond"], lambda: next(noises)))
    assert next(noises, None) is None, "noises are left"
    compared.close("traj", torch.stack([s.sample for s in steps]), io["traj"])
    compared.close("x0_clamped", torch.stack([s.x0 for s in steps]), io["x0_clamped"])
    compared.close("final", steps[-1].sample, io["final"])
    compared.seen |= {"cond", "xT", "z"}
    compared.finish(set(io))


# -- MSP-SR --------------------------------------------------------------------------------------------------------
class Joined(nn.Module):
    """U-Net and branch under the names of the files."""

    def __init__(self, config: SR3Config) -> None:
        super().__init__()
        self.unet, self.control = SR3UNet(config), ControlBranch(config)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        out: Tensor = controlled(self.unet, self.control, x, g)
        return out


@torch.inference_mode()
def check_branch(golden: Any) -> None:
    """What the branch adds, and the outputs with and without it."""
    io, compared = tensors_of(golden), Comparison()
    joined = Joined(config_of(golden.document["config"])).eval()
    load_strict(joined, weights_of(golden, "net"), what=golden.path.name)
    x, g = io["x"], io["noise_level"]
    added = joined.control(x, g)
    compared.close("control.0", added.skips[0], io["control.0"])
    compared.close("control.last", added.skips[-1], io["control.last"])
    compared.close("control.mid", added.middle, io["control.mid"])
    compared.close("y_with_control", joined(x, g), io["y_with_control"])
    compared.close("y_base_only", controlled(joined.unet, None, x, g), io["y_base_only"])
    compared.seen |= {"x", "noise_level"}
    compared.finish(set(io))


# -- published sizes, weights by recipe ----------------------------------------------------------------------------
def fill(network: nn.Module, seed: int, gain: float) -> None:
    """The weights of the recipe, for keys without exceptions."""
    for key, value in network.state_dict().items():
        rng = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        numbers = rng.standard_normal(tuple(value.shape))
        if value.ndim >= 2:
            numbers *= gain / np.sqrt(np.prod(value.shape[1:]))
        else:
            numbers = (1.0 if key.endswith(".weight") else 0.0) + 0.1 * numbers
        value.copy_(torch.from_numpy(numbers))


def uniform(entry: Mapping[str, Any]) -> Tensor:
    """Inputs of kind u11."""
    assert entry["input_kind"] == "u11"
    rng = np.random.RandomState(entry["input_seed"])
    return torch.from_numpy(2 * rng.random_sample(entry["input_shape"]) - 1).float()


@torch.inference_mode()
def check_full(name: str, entry: Mapping[str, Any], io: Tensors, compared: Any) -> None:
    """One network of published size: parameters, output, and its mean and deviation."""
    config = config_of(entry["config"] | ({"downsample": "F.pad"} if name.endswith("_asym") else {}))
    with torch.device("meta"):
        network = Joined(config) if name.startswith("mspsr_") else SR3UNet(config)
    assert sum(p.numel() for p in network.parameters()) == entry["n_params"]
    network.to_empty(device="cpu").eval()
    fill(network, entry["weight_seed"], entry["gain"])
    x = uniform(entry)
    compared.close(f"{name}.x_corner", x[..., :4, :4], io[f"{name}.x_corner"], 1e-7)
    y = network(x, io[f"{name}.noise_level"])
    assert list(y.shape) == entry["output_shape"]
    assert entry["stored_output"] == "y[..., ::2, ::2]"
    compared.close(f"{name}.y", y[..., ::2, ::2], io[f"{name}.y"])
    assert abs(float(y.double().mean()) - entry["mean"]) < 1e-5
    assert abs(float(y.double().std()) - entry["std"]) < 1e-5
    compared.seen.add(f"{name}.noise_level")


# first part of a name -> check(name, entry, tensors, comparison); other families of this file have such a dictionary too
FULL_CONFIGS = {"sr3_": check_full, "mspsr_": check_full}


def full_configs() -> Iterator[tuple[str, Callable[..., None]]]:
    """The checks of all families that share the file."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mrbench_golden_family_"):
            yield from getattr(module, "FULL_CONFIGS", {}).items()


def check_full_configs(golden: Any) -> None:
    """Every network of the file that some family checks."""
    io, compared = tensors_of(golden), Comparison()
    checks = dict(full_configs())
    assert FULL_CONFIGS.keys() <= checks.keys()
    for name, entry in golden.document["models"].items():
        check = next((check for prefix, check in checks.items() if name.startswith(prefix)), None)
        assert check is not None, f"{name}: nothing checks it"
        check(name, entry, io, compared)
    compared.finish(set(io))


HANDLERS = {
    "sr3_unet": check_unet,
    "sr3_schedule": check_schedule,
    "sr3_sampling": check_sampling,
    "sr3_loss": check_loss,
    "mspsr_recon_": check_branch,
    "full_configs_recipe": check_full_configs,
}
