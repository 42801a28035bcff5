"""Golden values of ADM networks and of the schedules of guided-diffusion.

Networks agree within 2e-5 of the largest value, as their JSON says; float64 tables within 1e-11 relatively (they are differences
of numbers near 1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.gaussian_diffusion import GaussianDiffusion, cosine_betas, linear_betas
from mrbench_methods.networks.loading import load_strict
from mrbench_methods.networks.prior_loading import PUBLISHED
from mrbench_methods.networks.swin_unet import timestep_embedding
from safetensors.torch import load_file
from torch import Tensor

FAMILY = "adm"
RELATIVE = 2e-5
TABLES = 1e-11
HEAD = 16  # recorded values of an activation, per sample
Tensors = Mapping[str, Tensor]
WITHOUT_MEANING = {"image_size", "attention_resolutions_note"}


class Comparison:
    """Compares tensors; :meth:`finish` shows all that differ, and those that were not compared."""

    def __init__(self) -> None:
        self._faults: list[str] = []
        self.seen: set[str] = set()

    def close(self, name: str, value: Tensor, expected: Tensor, relative: float = RELATIVE) -> None:
        self.seen.add(name)
        if value.shape != expected.shape:
            self._faults.append(f"{name}: shape {list(value.shape)}, expected {list(expected.shape)}")
            return
        gap = float((value.detach().double() - expected.double()).abs().max())
        allowed = relative * float(expected.double().abs().max())
        if not gap <= allowed:
            self._faults.append(f"{name}: differs by {gap:.3g} (tolerance {allowed:.3g})")

    def finish(self, tensors: Tensors, given: set[str]) -> None:
        left = {key for key in tensors if not key.startswith("sd.")} - self.seen - given
        assert not left, f"not compared: {', '.join(sorted(left))}"
        assert not self._faults, "\n".join(self._faults)
        assert self.seen


def config_of(official: Mapping[str, Any], **changes: Any) -> ADMConfig:
    """A published configuration in our words."""
    given = {k: v for k, v in official.items() if k not in WITHOUT_MEANING}
    given["attention_rates"] = given.pop("attention_resolutions")
    return ADMConfig(**(given | changes))


def network_of(golden: Any, config: ADMConfig) -> ADMUNet:
    """The network with the recorded weights."""
    source = golden.weights_from("unet")
    tensors = load_file(golden.path.with_name(source["file"]))
    network = ADMUNet(config)
    own = {k.removeprefix(source["prefix"]): v for k, v in tensors.items() if k.startswith(source["prefix"])}
    load_strict(network, own, what=golden.path.name)
    return network.eval()


def check_unet(golden: Any) -> None:
    """Outputs for integer and fractional time, the beginning of every activation, a gradient, the embedding of time."""
    io = load_file(golden.path.with_name(golden.document["file"]))
    network = network_of(golden, config_of(golden.document["config"]))
    assert sum(p.numel() for p in network.parameters()) == golden.document["num_parameters"]
    compared = Comparison()
    activations: dict[str, Tensor] = {}
    recorded = {key.removeprefix("act_head."): key for key in io if key.startswith("act_head.")}
    hooks = []
    for name in recorded:
        last = list(network.get_submodule(name).children())[-1] if name != "time_embed" else network.get_submodule(name)
        hooks.append(last.register_forward_hook(lambda _m, _i, out, name=name: activations.update({name: out})))
    x, labels = io["x"].requires_grad_(True), io.get("y")
    out = network(x, io["t_int"], labels)
    for hook in hooks:
        hook.remove()
    compared.close("out_int", out, io["out_int"])
    for name, key in recorded.items():
        compared.close(key, activations[name].flatten(1)[:, :HEAD], io[key], 1e-4)  # of the largest of a few values
        facts = golden.document["activation_stats"][name]
        assert list(activations[name].shape) == facts["shape"], name
        np.testing.assert_allclose(float(activations[name].detach().double().norm()), facts["l2"], rtol=1e-5, err_msg=name)
    (gradient,) = torch.autograd.grad((out * io["vjp_w"]).sum(), x)
    compared.close("vjp_x", gradient, io["vjp_x"])
    compared.close("out_float", network(x, io["t_float"], labels), io["out_float"])
    for kind in ("int", "float"):
        embedded = timestep_embedding(io[f"t_{kind}"], network.config.model_channels)
        compared.close(f"timestep_embedding_{kind}", embedded, io[f"timestep_embedding_{kind}"])
    compared.finish(io, {"x", "y", "t_int", "t_float", "vjp_w"})


def check_super_resolution(golden: Any) -> None:
    """The low-resolution image is enlarged (bilinear) and concatenated."""
    io = load_file(golden.path.with_name(golden.document["file"]))
    channels = io["x"].shape[1]
    config = config_of(golden.document["config"], in_channels=channels, low_res_channels=io["low_res"].shape[1])
    compared = Comparison()
    with torch.no_grad():
        compared.close("out", network_of(golden, config)(io["x"], io["t"], low_res=io["low_res"]), io["out"])
    compared.finish(io, {"x", "low_res", "t"})


def check_schedules(golden: Any) -> None:
    """Every array of every spaced process."""
    io = load_file(golden.path.with_name(golden.document["file"]))
    compared = Comparison()
    for spec, said in golden.document["config"].items():
        betas = {"linear": linear_betas, "cosine": cosine_betas}[said["noise_schedule"]](said["diffusion_steps"])
        compared.close(f"{spec}.base_betas", torch.from_numpy(betas), io[f"{spec}.base_betas"], 1e-15)
        process = GaussianDiffusion.from_betas(betas, said["timestep_respacing"])
        for key in [k for k in io if k.startswith(f"{spec}.") and k not in compared.seen]:
            array = key.removeprefix(f"{spec}.")
            value = getattr(process, array)
            compared.close(key, torch.from_numpy(value), io[key], 0 if array == "timestep_map" else TABLES)
            if array not in ("timestep_map", "posterior_variance"):
                np.testing.assert_allclose(value, io[key].numpy(), rtol=1e-9, err_msg=key)
    compared.finish(io, set())


def check_layouts(golden: Any) -> None:
    """Keys in order, shapes and sizes of the published configurations, on the meta device."""
    document = json.loads(golden.path.read_text())
    published = list(PUBLISHED.values())
    for name, model in document["models"].items():
        said = model["config"]
        assert said["channel_mult"] == ""  # the default of 256 pixels
        config = ADMConfig(
            in_channels=said.get("in_channels", 3),
            out_channels=6 if said["learn_sigma"] else 3,
            model_channels=said["num_channels"],
            channel_mult=(1, 1, 2, 2, 4, 4),
            num_res_blocks=said["num_res_blocks"],
            attention_rates=sorted(said["image_size"] // int(r) for r in said["attention_resolutions"].split(",")),
            num_classes=1000 if said["class_cond"] else None,
            num_heads=said["num_heads"],
            num_head_channels=said["num_head_channels"],
            num_heads_upsample=said["num_heads_upsample"],
            resblock_updown=said["resblock_updown"],
            use_scale_shift_norm=said["use_scale_shift_norm"],
            use_new_attention_order=said["use_new_attention_order"],
            dropout=said["dropout"],
        )
        with torch.device("meta"):
            network = ADMUNet(config)
        assert [[k, list(v.shape)] for k, v in network.state_dict().items()] == model["state_dict"], name
        assert len(network.state_dict()) == model["num_tensors"], name
        assert sum(p.numel() for p in network.parameters()) == model["num_parameters"], name
        assert len(list(network.buffers())) == model["num_buffers"], name
        if not name.startswith("i2sb"):
            assert config.model_copy(update={"num_heads": 4}) in published, name


HANDLERS = {
    "adm_unet_": check_unet,
    "adm_superres_model": check_super_resolution,
    "schedules": check_schedules,
    "full_state_dicts_adm": check_layouts,
}
