"""From a checkpoint to a prior, whatever family it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from mrbench.cards import Options, parse_options
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint

from .adm import ADMUNet
from .adm_options import ADMConfig
from .gaussian_diffusion_options import GaussianConfig
from .loading import CONTAINERS, load_strict, selected
from .prior import Prior
from .prior_adm import ADMPrior
from .prior_diffusers import CLASS_NAME, diffusers_prior

O = TypeVar("O", bound=Options)  # noqa: E741
PUBLISHED_DIFFUSION = GaussianConfig(steps=1000, schedule="linear", prediction="eps", learn_sigma=True)
_COMMON: Mapping[str, Any] = {
    "in_channels": 3, "out_channels": 6, "channel_mult": (1, 1, 2, 2, 4, 4), "num_head_channels": 64, "resblock_updown": True,
}  # fmt: skip
# the published networks of 256x256 pixels: shapes do not tell the number of heads, so no others are guessed
PUBLISHED: Mapping[str, ADMConfig] = {
    "ADM 256x256, unconditional": ADMConfig(model_channels=256, num_res_blocks=2, attention_rates=(8, 16, 32), **_COMMON),
    "ADM 256x256, class-conditional": ADMConfig(
        model_channels=256, num_res_blocks=2, attention_rates=(8, 16, 32), num_classes=1000, **_COMMON
    ),
    "FFHQ 256x256 of DPS (ffhq_10m)": ADMConfig(model_channels=128, num_res_blocks=1, attention_rates=(16,), **_COMMON),
}


def load_prior(checkpoint: LocalCheckpoint, device: torch.device | str, what: str = "", label: int | None = None) -> Prior:
    """The prior of a checkpoint, in eval mode, its weights fixed, on ``device``.

    Parameters
    ----------
    checkpoint : a prior that mrbench trained; the weights of a diffusers ``UNet2DModel`` beside its ``config.json``; or a
        published file without any configuration: ADM 256x256 (unconditional or class-conditional) or the FFHQ prior of DPS.
    what : names it in errors; default: the checkpoint's name.
    label : the class of class-conditional priors.

    Raises
    ------
    UserError : no prior, an unknown family, or weights and configuration that do not fit each other.
    """
    what = what or f"the prior {checkpoint.record.name}"
    config = checkpoint.config
    if config.get("_class_name") == CLASS_NAME:
        prior: Prior = diffusers_prior(checkpoint, what, label)
    elif "architecture" in config:
        prior = _FAMILIES[_family(config, what)](checkpoint, what, label)
    else:
        prior = _published(checkpoint, what, label)
    _freeze(prior)
    return prior.to(device)


def _family(config: Mapping[str, Any], what: str) -> str:
    kind, architecture = config.get("kind", "prior"), config["architecture"]
    family = architecture.get("family") if isinstance(architecture, Mapping) else None
    if kind != "prior" or family is None:
        method = config.get("method")
        use = f" They are weights of the method {method}: use them with --method {method}@..." if method else ""
        raise UserError(f"{what} is not a diffusion prior but a network that restores images (config.json).{use}")
    if family not in _FAMILIES:
        raise UserError(f"{what}: the family {family!r} of its config.json is none of {', '.join(_FAMILIES)}. Update mrbench.")
    return str(family)


def _adm(checkpoint: LocalCheckpoint, what: str, label: int | None) -> Prior:
    architecture = checkpoint.config["architecture"]
    unknown = sorted(set(architecture) - {"family", "network", "diffusion"})
    if unknown or "network" not in architecture:
        problem = f"has unknown parts {', '.join(unknown)}" if unknown else "has no part 'network'"
        raise UserError(f'{what}: "architecture" of config.json {problem}; an ADM prior has family, network and diffusion.')
    network = _parsed(ADMConfig, architecture["network"], f'{what}: "architecture.network" of config.json')
    diffusion = _parsed(GaussianConfig, architecture.get("diffusion", {}), f'{what}: "architecture.diffusion" of config.json')
    expected = network.in_channels * (2 if diffusion.learn_sigma else 1)
    if network.out_channels != expected:
        raise UserError(
            f"{what}: its network has {network.out_channels} output channels, and with learn_sigma {diffusion.learn_sigma} a prior "
            f"of {network.in_channels}-channel images has {expected}. Its config.json contradicts itself."
        )
    return _adm_prior(network, diffusion, checkpoint.tensors("cpu", CONTAINERS), what, label)


def _edm2(checkpoint: LocalCheckpoint, what: str, label: int | None) -> Prior:
    from .prior_edm2 import edm2_prior

    if label is not None:
        raise UserError(f"{what} is an unconditional prior: it takes no label. Leave the label out.")
    prior: Prior = edm2_prior(checkpoint.config["architecture"], checkpoint.tensors("cpu", CONTAINERS), what)
    return prior


def _published(checkpoint: LocalCheckpoint, what: str, label: int | None) -> Prior:
    """A file without a configuration: recognised by its keys and shapes."""
    tensors = selected(checkpoint.tensors("cpu", CONTAINERS))
    time = tensors.get("time_embed.0.weight")
    names = "; ".join(PUBLISHED)
    if time is None or time.ndim != 2 or "input_blocks.0.0.weight" not in tensors:
        raise UserError(
            f"{what} comes without a config.json and holds no ADM network (its keys begin with {next(iter(tensors))!r}). "
            f"Priors without one: {names}. Others need a config.json beside them."
        )
    fitting = [
        config
        for config in PUBLISHED.values()
        if time.shape[1] == config.model_channels and ("label_emb.weight" in tensors) == (config.num_classes is not None)
    ]
    if not fitting:
        raise UserError(
            f"{what} comes without a config.json and holds an ADM network of width {time.shape[1]}, "
            f"{'with' if 'label_emb.weight' in tensors else 'without'} classes, which shapes alone do not describe. Known are: {names}. "
            'For others put a config.json with an "architecture" beside the weights, as safetensors.'
        )
    return _adm_prior(fitting[0], PUBLISHED_DIFFUSION, tensors, what, label)


def _adm_prior(
    config: ADMConfig, diffusion: GaussianConfig, tensors: Mapping[str, Tensor], what: str, label: int | None
) -> ADMPrior:
    with torch.device("meta"):  # no time for random weights: all are replaced, or the file is refused
        network = ADMUNet(config)
    network = network.to_empty(device="cpu")
    load_strict(network, tensors, what=what)
    return ADMPrior(network.to(memory_format=torch.channels_last), diffusion, label, what)


def _parsed(model: type[O], given: Any, owner: str) -> O:
    if not isinstance(given, Mapping):
        raise UserError(f"{owner} is no mapping of options.")
    parsed = parse_options(model, given, owner)
    assert isinstance(parsed, model)
    return parsed


def _freeze(prior: Prior) -> None:
    for value in vars(prior).values():
        if isinstance(value, torch.nn.Module):
            value.eval().requires_grad_(False)


_FAMILIES: Mapping[str, Callable[[LocalCheckpoint, str, int | None], Prior]] = {"adm": _adm, "edm2": _edm2}
