"""Residual generator of CycleGAN: Zhu, Park, Isola, Efros 2017, arXiv:1703.10593, section 7.2 (after Johnson 2016), with the keys
of published files.
"""

from __future__ import annotations

from torch import Tensor, nn

from .gan_options import ResnetGeneratorConfig
from .norms import norm_of


class ResnetBlock(nn.Module):
    """``x + norm(conv(relu(norm(conv(x)))))`` with mirrored borders; nothing follows the sum."""

    def __init__(self, channels: int, config: ResnetGeneratorConfig) -> None:
        """``channels`` in and out; dropout moves the second convolution by one place."""
        super().__init__()
        bias = config.norm == "instance"
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_of(config.norm, channels), nn.ReLU(),
        ]  # fmt: skip
        if config.dropout:
            layers.append(nn.Dropout(0.5))
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_of(config.norm, channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        added: Tensor = self.conv_block(x)
        return x + added


class ResnetGenerator(nn.Module):
    """Images ``[B, C, H, W]`` in [-1, 1] to images in [-1, 1]; sides are multiples of 4."""

    multiple = 4

    def __init__(self, config: ResnetGeneratorConfig) -> None:
        """Build the network: two halvings, the blocks, two doublings."""
        super().__init__()
        self.config = config
        c, norm, bias = config.width, config.norm, config.norm == "instance"
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3), nn.Conv2d(config.channels, c, 7, bias=bias), norm_of(norm, c), nn.ReLU(),
        ]  # fmt: skip
        for width in (c, 2 * c):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), norm_of(norm, 2 * width), nn.ReLU()]
        layers += [ResnetBlock(4 * c, config) for _ in range(config.blocks)]
        for width in (4 * c, 2 * c):
            up = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, norm_of(norm, width // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, config.channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        out: Tensor = self.model(x)
        return out
