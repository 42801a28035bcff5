"""Weights of bridge networks: those of mrbench, published ones, and the priors that trainings begin from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mrbench.errors import UserError

from .adm import ADMUNet
from .adm_options import ADMConfig
from .bridge_options import BridgeConfig
from .loading import unwrapped

OUTPUT, INPUT = ("out.2.weight", "out.2.bias"), "input_blocks.0.0.weight"
PUBLISHED_PREFIX = "diffusion_model."

# The network of the published 256 x 256 weights, but for the channels of its input.
PUBLISHED: Mapping[str, Any] = {
    "model_channels": 256,
    "out_channels": 3,
    "channel_mult": (1, 1, 2, 2, 4, 4),
    "num_res_blocks": 2,
    "attention_rates": (8, 16, 32),
    "num_head_channels": 64,
    "resblock_updown": True,
    "use_scale_shift_norm": True,
}


def channels_of(unet: ADMConfig, bridge: BridgeConfig, what: str) -> int:
    """Channels of the images of a bridge with this network.

    Raises
    ------
    UserError : the network does not take the states of such a bridge, or returns something else.
    """
    seen = "the state and the LR image" if bridge.cond_x1 else "the state"
    if unet.in_channels != (2 if bridge.cond_x1 else 1) * unet.out_channels:
        raise UserError(
            f"{what}: the network takes {unet.in_channels} channel(s) and returns {unet.out_channels}, but this bridge shows it {seen} "
            f"(cond_x1 {str(bridge.cond_x1).lower()}) and wants back as many channels as the state has. A diffusion prior, which also "
            "returns a variance, is no bridge."
        )
    return unet.out_channels


def published_config(tensors: Mapping[str, Tensor], what: str) -> tuple[ADMConfig, BridgeConfig]:
    """The configuration of published weights (keys without prefixes), recognised by their keys and shapes.

    The bridge is that of the published 4x super-resolution; ``cond_x1`` is read off the input.

    Raises
    ------
    UserError : these are no published weights.
    """
    first = tensors.get(INPUT)
    if first is not None and first.ndim == 4 and first.shape[1] in (3, 6):
        config = ADMConfig(in_channels=first.shape[1], **PUBLISHED)
        with torch.device("meta"):
            expected = {key: value.shape for key, value in ADMUNet(config).state_dict().items()}
        if expected == {key: value.shape for key, value in tensors.items()}:
            return config, BridgeConfig(cond_x1=first.shape[1] == 6)
        expected["out.2.weight"], expected["out.2.bias"] = torch.Size((6, 256, 3, 3)), torch.Size((6,))
        if expected == {key: value.shape for key, value in tensors.items()}:
            raise UserError(
                f"{what} holds an unconditional ADM, a diffusion prior: it knows no LR images. Name weights of I2SB, or begin a training "
                "from it (mrbench train i2sb --preset paper --init FILE)."
            )
    raise UserError(
        f"{what} comes without a config.json and holds another network than the published I2SB weights (256x256, ADM with 3 or 6 "
        'input channels). Name another file, or make a checkpoint folder with a config.json that has an "architecture".'
    )


def published_tensors(content: Any, what: str) -> dict[str, Tensor]:
    """The averaged weights of a published ``latest.pt``, without prefixes; the last ones where it holds no average.

    The file is ``{"net": tensors by name, "ema": {"shadow_params": list in the order of the parameters, ...}, ...}``. A file of
    tensors by name alone is taken as it is.

    Raises
    ------
    UserError : something else, or an average that does not belong to the network.
    """
    content = content if isinstance(content, Mapping) else {}
    inner = content["net"] if isinstance(content.get("net"), Mapping) else content
    net = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not net:
        keys = ", ".join(map(repr, list(content)[:8])) or "nothing of that kind"
        raise UserError(
            f'{what}: published weights of I2SB are files with "net" and "ema" (latest.pt), this one holds {keys}. Name another file.'
        )
    average = content.get("ema")
    shadow = average.get("shadow_params") if isinstance(average, Mapping) else None
    if shadow is not None:
        given = [tuple(value.shape) if isinstance(value, Tensor) else None for value in shadow]
        if given != [tuple(value.shape) for value in net.values()]:
            raise UserError(
                f"{what}: its averaged weights ({len(given)} tensors) are not those of its network ({len(net)} tensors). "
                "The file is damaged, or of another kind: get it again."
            )
        net = dict(zip(net, shadow, strict=True))
    return _plain(net)


def from_prior(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights to begin a training from, cut and extended to the bridge's network, whose fresh weights are ``wanted``.

    Of an ADM that estimates a variance the channels of the noise are kept; input channels that it lacks (the LR image) stay fresh.
    Anything else is left as it is.
    """
    made = _plain(tensors)
    for key in OUTPUT:
        if key in made and len(made[key]) == 2 * len(wanted[key]):
            made[key] = made[key][: len(wanted[key])]
    if INPUT in made and made[INPUT].ndim == 4 and 2 * made[INPUT].shape[1] == wanted[INPUT].shape[1]:
        fresh = wanted[INPUT][:, made[INPUT].shape[1] :]
        made[INPUT] = torch.cat([made[INPUT].to(fresh), fresh], dim=1)
    return made


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys without what the published code and distributed training put before them."""
    return {key.removeprefix(PUBLISHED_PREFIX): value for key, value in unwrapped(tensors).items()}
