"""EDSR: ``restore(measurement, draws) -> [B, K, C, H, W]`` (arXiv:1707.02921)."""

from __future__ import annotations

from ..networks.edsr import EDSR
from ..networks.edsr_options import EDSRConfig
from ..networks.regression import Regression


class EDSRMethod(Regression):
    """One pass of the network, added to the interpolated LR image (arXiv:1707.02921)."""

    name, config, network = "edsr", EDSRConfig, EDSR
