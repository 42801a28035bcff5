"""EDM2 networks as priors of images in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from mrbench.cards import Options, parse_options
from mrbench.errors import UserError

from .edm2 import EDM2Precond
from .edm2_options import EDM2Config
from .loading import load_strict
from .prior import Prior


class EDM2PriorConfig(Options):
    """``config.json``'s "architecture" of a prior of the family edm2."""

    family: str = Field(default="edm2", pattern="^edm2$")
    network: EDM2Config
    sigma_min: PositiveFloat = Field(default=0.002, description="smallest noise level of the training")
    sigma_max: PositiveFloat = Field(default=80.0, description="largest noise level of the training")


class EDM2Prior(Prior):
    """A network whose data are images in [-1, 1]; continuous: it has noise levels and no steps."""

    def __init__(
        self, network: EDM2Precond, sigma_range: tuple[float, float] = (0.002, 80.0), what: str = "this network"
    ) -> None:
        """Around an unconditional network, or one with an image as a condition.

        Raises
        ------
        UserError : a network of class labels, or of other channels than images have.
        """
        c = network.config
        if c.label_dim:
            raise UserError(f"{what} was trained with {c.label_dim} class labels; only priors without are supported.")
        if c.img_channels > 3:
            raise UserError(f"{what} makes {c.img_channels} channels: a prior of latents, not of images (1, 2 or 3 channels).")
        self.network = network
        self.channels, self.condition_channels = c.img_channels, c.cond_channels
        self.multiple = c.multiple
        self.sigma_range = sigma_range

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """See :meth:`Prior.denoise`."""
        out: Tensor = self.network(x, sigma, condition)
        return out


def edm2_prior(config: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str = "this prior") -> EDM2Prior:
    """The prior of a checkpoint, on the CPU, in eval mode, its weights fixed.

    Parameters
    ----------
    config : "architecture" of its ``config.json``:
    ``{"family": "edm2", "network": {...}, "sigma_min": ..., "sigma_max": ...}``.
    tensors : its weights; a prefix ``net.`` or ``ema.`` is taken off.

    Raises
    ------
    UserError : configuration and weights do not fit each other, or no prior of images.
    """
    parsed = parse_options(EDM2PriorConfig, config, f'{what}: "architecture" of config.json')
    assert isinstance(parsed, EDM2PriorConfig)
    if parsed.sigma_min >= parsed.sigma_max:
        raise UserError(f"{what}: sigma_min {parsed.sigma_min:g} is not below sigma_max {parsed.sigma_max:g}.")
    with torch.device("meta"):  # no time for random weights: all are replaced, or the file is refused
        network = EDM2Precond(parsed.network)
    network = network.to_empty(device="cpu")
    load_strict(network, tensors, prefixes=("net.", "ema."), what=what)
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return EDM2Prior(network, (parsed.sigma_min, parsed.sigma_max), what)
