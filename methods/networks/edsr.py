"""EDSR: residual blocks without normalisation at LR resolution, then sub-pixel convolution.

Lim, Son, Kim, Nah, Lee 2017, Enhanced deep residual networks for single image super-resolution, CVPR workshops,
arXiv:1707.02921. Sub-pixel convolution: Shi et al. 2016, arXiv:1609.05158.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .edsr_options import EDSRConfig
from .sub_pixel import stages, zero_conv


class ResidualBlock(nn.Module):
    """``x + a conv(relu(conv(x)))`` (Lim 2017, section 3.1 and figure 2c)."""

    def __init__(self, width: int, residual_scale: float) -> None:
        """``width`` channels in and out; a = ``residual_scale``."""
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, h, w]``."""
        added: Tensor = self.conv2(F.relu(self.conv1(x)))
        return x + self.residual_scale * added


class EDSR(nn.Module):
    """What is to be added to the interpolated LR image. It begins at zero: the last convolution does."""

    def __init__(self, config: EDSRConfig) -> None:
        """Build the network.

        Raises
        ------
        UserError : a scale that is no product of 2s and 3s, with the staged upsampler.
        """
        super().__init__()
        self.config = config
        c = config.width
        self.head = nn.Conv2d(config.channels, c, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(c, config.residual_scale) for _ in range(config.blocks)))
        self.body_end = nn.Conv2d(c, c, 3, padding=1)
        if config.upsampler == "staged":
            tail = [*stages(c, config.scale), zero_conv(c, config.channels)]
        else:
            tail = [zero_conv(c, config.channels * config.scale**2), nn.PixelShuffle(config.scale)]
        self.tail = nn.Sequential(*tail)

    def forward(self, y: Tensor) -> Tensor:
        """``[B, C, h, w]`` in [0, 1] to ``[B, C, s h, s w]``."""
        x = self.head(y)
        out: Tensor = self.tail(x + self.body_end(self.body(x)))
        return out
