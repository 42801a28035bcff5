"""What the golden checks of ResShift, SinSR and Res-SRDiff share: comparison, networks from files, recorded noises and steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from mrbench_methods.networks.loading import load_strict, selected
from mrbench_methods.networks.reading import read_swin_unet, read_vq
from mrbench_methods.networks.residual_shift import Network, Noise, ResidualShift, Step
from mrbench_methods.networks.residual_shift_options import DiffusionConfig
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from mrbench_methods.networks.vq import VQAutoencoder
from mrbench_methods.networks.vq_options import VQConfig
from safetensors.torch import load_file
from torch import Tensor

from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.kernels import keys, sampling_matrix

RELATIVE = 1e-4
Tensors = Mapping[str, Tensor]

# what every published configuration sets, and what has no meaning here
FIXED = {"conv_resample": True, "dims": 2, "resblock_updown": False, "patch_norm": False, "cond_lq": True}
WITHOUT_MEANING = {"use_fp16", "_defaults"}
VQ_FIXED = {"double_z": False, "attn_resolutions": [], "dropout": 0.0, "padding_mode": "zeros"}
IGNORED_BY_DIFFUSION = {"sf", "scale_factor", "clip_denoised"}  # of the loop around it


class Comparison:
    """Compares tensors; :meth:`finish` shows all that differ."""

    def __init__(self, tolerance: float | None = None) -> None:
        self._tolerance = tolerance
        self._faults: list[str] = []
        self.seen: set[str] = set()

    def close(self, name: str, value: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
        self.seen.add(name)
        if value.shape != expected.shape:
            self._faults.append(f"{name}: shape {list(value.shape)}, expected {list(expected.shape)}")
            return
        allowed = tolerance if tolerance is not None else self._tolerance
        if allowed is None:
            allowed = RELATIVE * max(1.0, float(expected.double().abs().max()))
        gap = float((value.double() - expected.double()).abs().max())
        if not gap <= allowed:
            self._faults.append(f"{name}: differs by {gap:.3g} (tolerance {allowed:.3g})")

    def finish(self, *unchecked: Tensors) -> None:
        left = {key for tensors in unchecked for key in tensors} - self.seen
        assert not left, f"not compared: {', '.join(sorted(left))}"
        assert not self._faults, "\n".join(self._faults)
        assert self.seen, "nothing was compared"


# -- files to networks ---------------------------------------------------------------------------------------------
def tensors_of(golden: Any, ending: str = "") -> Tensors:
    """``<name><ending>.safetensors`` beside the JSON."""
    return load_file(golden.path.with_name(f"{golden.path.stem}{ending}.safetensors"))


def weights(golden: Any, role: str) -> dict[str, Tensor]:
    """The tensors that ``weights_from`` names, transformed as it says."""
    source = golden.weights_from(role)
    known = {"file", "prefix", "transform", "transform_tensors", "buffers_unchanged"}
    assert set(source) <= known, f"unknown keys in weights_from: {sorted(set(source) - known)}"
    tensors = load_file(golden.path.with_name(source["file"]))
    chosen: dict[str, Tensor] = selected(
        {k: v for k, v in tensors.items() if k.startswith(source["prefix"])}, (source["prefix"],)
    )
    transform = source.get("transform")
    if transform is None:
        return chosen
    factor = re.fullmatch(r"scale ([0-9.]+)", transform)
    assert factor, f"unknown transform {transform!r}"
    kept = source.get("buffers_unchanged", ())
    return {k: v if any(fnmatchcase(k, p) for p in kept) else v * float(factor[1]) for k, v in chosen.items()}


def unet(golden: Any, role: str = "unet", official: Mapping[str, Any] | None = None) -> SwinUNet:
    """The network with these weights; its configuration is the published one, or read off the shapes."""
    tensors = weights(golden, role)
    config = (
        read_swin_unet(tensors) if official is None else unet_config(official, {k: list(v.shape) for k, v in tensors.items()})
    )
    network = SwinUNet(config)
    load_strict(network, tensors, derived=SwinUNet.derived_buffers, what=golden.path.name)
    return network.eval()


def autoencoder(golden: Any, official: Mapping[str, Any] | None = None) -> VQAutoencoder:
    """The autoencoder with these weights."""
    tensors = weights(golden, "autoencoder")
    network = VQAutoencoder(read_vq(tensors) if official is None else vq_config(official))
    load_strict(network, tensors, what=golden.path.name)
    return network.eval()


def unet_config(official: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> SwinUNetConfig:
    """A published configuration in our words. SinSR's counts the condition in ``in_channels`` and has no ``lq_size``."""
    given = {**official.get("_defaults", {}), **official}
    for key, value in FIXED.items():
        assert given.pop(key, value) == value, f"{key} is not {value}"
    for key in WITHOUT_MEANING:
        given.pop(key, None)
    if "lq_size" not in given:
        added = given["in_channels"] - given["out_channels"]
        factor = round((added / 3) ** 0.5)
        assert 3 * factor**2 == added, f"{added} channels of condition"
        given |= {"in_channels": given["out_channels"], "lq_size": factor * given["image_size"]}
        given |= {"condition": "unshuffle"} if factor > 1 else {}
    else:
        first = "feature_extractor.0.weight"
        channels = shapes[first][1] if first in shapes else shapes["input_blocks.0.0.weight"][1] - given["in_channels"]
        given["lq_channels"] = channels - bool(given.get("cond_mask", False))
    return SwinUNetConfig(**given)


def vq_config(official: Mapping[str, Any]) -> VQConfig:
    """A published configuration in our words."""
    given = dict(official["ddconfig"])
    for key, value in VQ_FIXED.items():
        assert given.pop(key, value) == value, f"{key} is not {value}"
    given.pop("resolution")
    blocks = given["num_res_blocks"]
    given["num_res_blocks"] = [blocks] * len(given["ch_mult"]) if isinstance(blocks, int) else blocks
    return VQConfig(embed_dim=official["embed_dim"], n_embed=official["n_embed"], out_channels=given.pop("out_ch"), **given)


def process_of(official: Mapping[str, Any], **more: Any) -> ResidualShift:
    """The diffusion of a JSON's settings."""
    given = {k: v for k, v in official.items() if k not in IGNORED_BY_DIFFUSION}
    assert official.get("scale_factor", 1.0) == 1.0
    respacing = given.pop("timestep_respacing", None)
    normalise, latent = given.pop("normalize_input", False), given.pop("latent_flag", False)
    scaling = ("latent" if latent else "pixel") if normalise else "none"
    prediction = given.pop("predict_type", "xstart")
    return ResidualShift(DiffusionConfig(scaling=scaling, prediction=prediction, **given, **more), respacing)


def bind(network: SwinUNet, lq: Tensor) -> Network:
    """The network with its condition."""
    return lambda x, t: network(x, t, lq)


def recorded(tensors: Tensors, names: Sequence[str]) -> Noise:
    """Noises in the order of ``names``."""
    queue = iter(names)
    return lambda: tensors[next(queue)]


def replay(steps: Iterator[Step], tensors: Tensors, compared: Comparison, prefix: str = "step") -> Step:
    """Compare every executed step of which something was recorded; the last one is returned."""
    for k, step in enumerate(steps):
        parts = {
            "model_in": step.model_in,
            "model_t": torch.full((len(step.sample),), step.timestep),
            "model_out": step.model_out,
            "pred_xstart": step.x0,
            "mean": step.mean,
            "sample": step.sample,
        }
        for part, value in parts.items():
            name = f"{prefix}{k}.{part}"
            if name in tensors:
                compared.close(name, value, tensors[name])
    return step


def torch_bicubic(y: Tensor, factor: int) -> Tensor:
    """Cubic convolution with a = -3/4 on the centre-aligned grid, as the methods upsample."""
    parts = [AxisGrid.centre(n * factor, factor) for n in y.shape[2:]]
    vertical, horizontal = (
        torch.from_numpy(sampling_matrix(g.coordinates(), g.n_lr, keys(-0.75), 2, border="replicate")).float() for g in parts
    )
    return vertical @ y @ horizontal.mT


def inference(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Run a check without gradients."""

    def run(golden: Any) -> None:
        with torch.inference_mode():
            check(golden)

    return run
