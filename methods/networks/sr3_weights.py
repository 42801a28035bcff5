"""Weights of SR3 networks: published files, which say nothing about themselves, and where their keys lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mrbench.errors import UserError

from .gaussian_diffusion import Float64
from .loading import selected
from .sr3 import SR3UNet
from .sr3_options import SR3Config

PREFIXES = ("denoise_fn.", "unet.")  # of published files, of ours with a branch
BETAS = "betas"
FIRST = "downs.0.weight"
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "16 to 128 pixels": {"attn_res": (16,), "dropout": 0.2},
    "64 to 512 pixels": {"norm_groups": 16, "channel_mults": (1, 2, 4, 8, 16), "res_blocks": 1, "image_size": 512},
}


def unet_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the U-Net, without prefixes; schedules that lie beside it are left out."""
    return selected(tensors, PREFIXES)


def published_betas(tensors: Mapping[str, Tensor]) -> Float64 | None:
    """The schedule that a published file holds beside its network, if it does."""
    stored = tensors.get(BETAS)
    return None if stored is None else stored.double().numpy()


def published_config(unet: Mapping[str, Tensor], what: str) -> SR3Config:
    """The configuration of published weights, recognised by their keys and shapes.

    Raises
    ------
    UserError : these are no published weights.
    """
    if FIRST in unet and unet[FIRST].ndim == 4 and unet[FIRST].shape[1] % 2 == 0:
        shapes = {key: value.shape for key, value in unet.items()}
        images: dict[str, Any] = {"in_channel": unet[FIRST].shape[1], "out_channel": unet[FIRST].shape[1] // 2}
        for settings in PUBLISHED.values():
            config = SR3Config(**images, **settings)
            with torch.device("meta"):
                network = SR3UNet(config)
            if {key: value.shape for key, value in network.state_dict().items()} == shapes:
                return config
    raise UserError(
        f"{what} comes without a config.json and holds another network than the published SR3 weights "
        f"({', '.join(PUBLISHED)}). Put it into a checkpoint folder with a config.json that describes the network."
    )
