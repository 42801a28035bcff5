"""Golden values of I2SB: schedule, training targets, trajectories with the averaged weights, its degradations, the average.

Recorded noises are fed in order. Tensors of float32 networks agree within 1e-5 of their largest value (at least of 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.bridge import Bridge, space_indices
from mrbench_methods.networks.bridge_options import BridgeConfig
from mrbench_methods.networks.bridge_weights import channels_of, published_tensors
from mrbench_methods.networks.loading import load_strict
from safetensors.torch import load_file
from torch import Tensor, nn

from mrbench.degradation.cards import BicubicAAOptions, NoDegradationOptions
from mrbench.degradation.image_space import Area, BicubicAA
from mrbench.degradation.kernels import keys, sampling_matrix
from mrbench.degradation.measurement import degrade, upsample
from mrbench.train.ema import Ema
from mrbench.train.settings import EmaSpec

FAMILY = "adm"
RELATIVE = 1e-5
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

    def finish(self, tensors: Tensors) -> None:
        left = {key for key in tensors if not key.startswith(("sd.", "ema."))} - self.seen
        assert not left, f"not compared: {', '.join(sorted(left))}"
        assert not self._faults, "\n".join(self._faults)
        assert self.seen, "nothing was compared"


def tensors_of(golden: Any) -> Tensors:
    return load_file(golden.path.with_suffix(".safetensors"))


# -- the schedule --------------------------------------------------------------------------------------------------
def check_schedule(golden: Any) -> None:
    """Arrays in float64 and float32, and the steps that a number of calls visits."""
    io = tensors_of(golden)
    compared = Comparison()
    for tag, settings in golden.document["config"].items():
        bridge = bridge_of(settings)
        total = float(bridge.betas.sum())
        assert abs(total - settings["sum_betas"]) < 1e-12
        assert abs(float(bridge.betas.max()) * bridge.config.interval - settings["max_beta_times_interval"]) < 1e-12
        compared.close(f"{tag}.betas64", torch.from_numpy(bridge.betas), io[f"{tag}.betas64"], 1e-15)
        step = torch.arange(bridge.config.interval)
        for name in ("betas", "std_fwd", "std_bwd", "std_sb", "mu_x0", "mu_x1"):
            compared.close(f"{tag}.{name}", bridge.at(getattr(bridge, name), step).flatten(), io[f"{tag}.{name}"], 1e-7)
        compared.close(f"{tag}.noise_levels", bridge.times(step), io[f"{tag}.noise_levels"], 1e-7)
        for key in io:
            if (calls := re.fullmatch(rf"{tag}\.steps_nfe(\d+)", key)) is not None:
                steps = space_indices(bridge.config.interval, int(calls[1]) + 1)
                compared.close(key, torch.tensor(steps), io[key], 0)
    compared.finish(io)


def bridge_of(settings: Mapping[str, Any]) -> Bridge:
    """The bridge of a JSON's settings."""
    assert settings.get("T", 1.0) == 1.0
    return Bridge(
        BridgeConfig(
            interval=settings["interval"],
            beta_max=settings["beta_max"],
            beta_min=settings.get("linear_start", 1e-4),
            time_start=settings["t0"],
            ot_ode=settings.get("ot_ode", False),
            cond_x1=settings.get("cond_x1", False),
        )
    )


# -- trajectories --------------------------------------------------------------------------------------------------
def content_of(golden: Any) -> dict[str, Any]:
    """The recorded weights as a published file holds them."""
    source = load_file(golden.path.with_name(golden.weights_from("unet")["file"]))
    net = {key.removeprefix("sd."): value for key, value in source.items() if key.startswith("sd.")}
    average = golden.weights_from("unet_ema")
    if "index_to_key" not in average:
        return {"net": net}
    names = average["index_to_key"]
    network = ADMUNet(config_of(golden.document["config"]["network"]))
    own = [f"diffusion_model.{name}" for name, _ in network.named_parameters()]
    assert own == names, "the parameters have another order than the published network's"
    shadow = [source[f"{average['prefix']}{k:04d}"] for k in range(len(names))]
    # the safetensors file sorts its keys, a published file has them in the order of the network
    return {"net": {name: net[name] for name in names}, "ema": {"decay": 0.99, "shadow_params": shadow}}


def config_of(published: Mapping[str, Any]) -> ADMConfig:
    given = dict(published)
    given.pop("wrapper")
    return ADMConfig(attention_rates=given.pop("attention_downsample_rates"), **given)


def network_of(config: ADMConfig, tensors: Tensors, what: str) -> ADMUNet:
    network = ADMUNet(config)
    load_strict(network, tensors, what=what)
    return network.eval()


@torch.inference_mode()
def check_trajectory(golden: Any) -> None:
    """Raw and averaged weights, the training target, and a whole chain of the averaged network."""
    io, settings, what = tensors_of(golden), golden.document["config"], golden.path.name
    bridge, config = bridge_of(settings), config_of(settings["network"])
    assert channels_of(config, bridge.config, what) == 3
    content = content_of(golden)
    raw = network_of(config, published_tensors({"net": content["net"]}, what), what)
    averaged = network_of(config, published_tensors(content, what), what)
    x0, x1 = io["x0"], io["x1"]

    def told(network: ADMUNet, x: Tensor, times: Tensor) -> Tensor:
        out: Tensor = network(torch.cat([x, x1], dim=1) if bridge.config.cond_x1 else x, times)
        return out

    compared = Comparison()
    times = bridge.times(io["fwd_step"])
    compared.close("fwd_raw", told(raw, x1, times), io["fwd_raw"])
    compared.close("fwd_ema", told(averaged, x1, times), io["fwd_ema"])
    step, state = io["train_step"], io["train_xt"]
    compared.close("train_xt", bridge.q_sample(x0, x1, step, io.get("train_noise")), state, 1e-6)
    target = bridge.target(x0, state, step)
    compared.close("train_label", target, io["train_label"], 1e-6)
    compared.close("train_label_inverse_x0", bridge.estimate(target, state, step), io["train_label_inverse_x0"], 1e-6)
    noises, nfe = iter(io.get("noises", torch.empty(0))), settings["nfe"]
    chain = bridge.trajectory(
        lambda x, t: told(averaged, x, t), x1, lambda: next(noises), nfe,
        ot_ode=settings["ot_ode"], clip=settings["clip_denoise"],
    )  # fmt: skip
    steps = list(chain)
    assert next(noises, None) is None, "noises are left"
    compared.close("steps_visited", torch.tensor([s.step for s in steps]), io["steps_visited"], 0)
    compared.close("x_in", torch.stack([s.state for s in steps]), io["x_in"])
    compared.close("net_out", torch.stack([s.output for s in steps]), io["net_out"])
    compared.close("pred_x0", torch.stack([s.x0 for s in steps]), io["pred_x0"])
    assert settings["log_count"] == nfe
    compared.close("xs", torch.stack([s.sample for s in reversed(steps)], dim=1), io["xs"])
    compared.close("pred_x0s", torch.stack([s.x0 for s in reversed(steps)], dim=1), io["pred_x0s"])
    compared.seen |= {"x0", "x1", "fwd_step", "train_step", "train_noise", "noises"}
    compared.finish(io)


# -- around it -----------------------------------------------------------------------------------------------------
def check_corruption(golden: Any) -> None:
    """Pooling is ``area``; bicubic is ``bicubic_aa`` with mirrored borders; x_1 is their nearest enlargement."""
    io, settings = tensors_of(golden), golden.document["config"]
    factor, compared = settings["factor"], Comparison()
    x = io["x"]
    degradations = {"pool": Area(NoDegradationOptions()), "bicubic": BicubicAA(BicubicAAOptions(border="mirror"))}
    for name, degradation in degradations.items():
        measured = degrade((x + 1) / 2, ["one"], degradation, (factor, factor), seed_key="golden")
        compared.close(f"{name}.H", 2 * measured.y - 1, io[f"{name}.H"], 5e-6)
        compared.close(f"{name}.x1", 2 * upsample(measured, "nearest") - 1, io[f"{name}.x1"], 5e-6)
        if name == "bicubic":
            compared.close(f"{name}.H_by_definition", 2 * measured.y.double() - 1, io[f"{name}.H_by_definition"], 1e-6)
    size = x.shape[-1]
    positions = factor * torch.arange(size // factor).double().numpy() + (factor - 1) / 2
    rows = sampling_matrix(positions, size, keys(-0.5), 2 * factor, factor, border="mirror")
    compared.close("bicubic.matrix1d_by_definition", torch.from_numpy(rows), io["bicubic.matrix1d_by_definition"], 1e-12)
    taps = keys(-0.5)((torch.arange(4 * factor).double().numpy() - 2 * factor + 0.5) / factor)
    compared.close("bicubic.kernel1d", torch.from_numpy(taps / taps.sum()), io["bicubic.kernel1d"], 1e-12)
    compared.seen.add("x")
    compared.finish(io)


def check_average(golden: Any) -> None:
    """torch-ema's warm-up ``min(decay, (1 + n) / (10 + n))`` is the rule of kind ``warmup``."""
    io = tensors_of(golden)
    holder = nn.ParameterList([nn.Parameter(io["params"][0].clone())])
    average = Ema(EmaSpec(kind="warmup", rate=golden.document["config"]["decay"]), {"net": holder})
    shadows = []
    for values in io["params"]:
        with torch.no_grad():
            holder[0].copy_(values)
        if shadows:
            average.update()
        with average.swapped():
            shadows.append(holder[0].detach().clone())
    assert len(shadows) == golden.document["config"]["updates"] + 1
    compared = Comparison()
    compared.close("shadow", torch.stack(shadows), io["shadow"], 1e-6)
    compared.seen.add("params")
    compared.finish(io)


HANDLERS = {
    "i2sb_schedule": check_schedule,
    "i2sb_traj_": check_trajectory,
    "i2sb_corruption": check_corruption,
    "torch_ema_rule": check_average,
}
