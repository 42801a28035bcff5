"""SwinIR: ``restore(measurement, draws) -> [B, K, C, H, W]`` (arXiv:2108.10257)."""

from __future__ import annotations

from ..networks.regression import Regression
from ..networks.swinir import SwinIR
from ..networks.swinir_options import SwinIRConfig


class SwinIRMethod(Regression):
    """One pass of the network, added to the interpolated LR image (arXiv:2108.10257)."""

    name, config, network = "swinir", SwinIRConfig, SwinIR
