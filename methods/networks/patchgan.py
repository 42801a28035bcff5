"""Patch discriminator of pix2pix and CycleGAN (Isola 2017, section 6.1.2), with the keys of published files."""

from __future__ import annotations

from torch import Tensor, nn

from .gan_options import PatchGANConfig
from .norms import norm_of


class PatchGAN(nn.Module):
    """Convolutions of 4 x 4: ``layers`` with stride 2, two with stride 1. Returns one logit per patch."""

    def __init__(self, channels: int, config: PatchGANConfig) -> None:
        """``channels`` of what is judged (pix2pix: of the condition and the image together)."""
        super().__init__()
        bias = config.norm == "instance"
        c = config.width
        layers: list[nn.Module] = [nn.Conv2d(channels, c, 4, 2, 1), nn.LeakyReLU(0.2)]
        widths = [c * min(2**n, 8) for n in range(config.layers + 1)]
        for n in range(1, config.layers + 1):
            stride = 2 if n < config.layers else 1
            layers += [
                nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1, bias=bias), norm_of(config.norm, widths[n]), nn.LeakyReLU(0.2),
            ]  # fmt: skip
        layers.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 1, H', W']``."""
        out: Tensor = self.model(x)
        return out
