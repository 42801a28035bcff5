"""U-Net generator of pix2pix: Isola, Zhu, Zhou, Efros 2017, arXiv:1611.07004, section 6.1.1, with the keys of published files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .gan_options import UNetGeneratorConfig
from .norms import norm_of


class SkipBlock(nn.Module):
    """One level: halve, what lies deeper, double, and join with the input.

    ``model`` counts activations and normalisations as published files do: convolutions sit at 0 and 3 (outermost), 1 and 5,
    or 1 and 3 (innermost).
    """

    def __init__(
        self, outer: int, inner: int, config: UNetGeneratorConfig, deeper: SkipBlock | None, dropout: bool = False
    ) -> None:
        """``outer`` channels in, twice as many out; ``inner`` channels in the level below. ``deeper`` is ``None`` innermost."""
        super().__init__()
        bias = config.norm == "instance"  # batch normalisation has one of its own
        down = nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)
        up = nn.ConvTranspose2d(inner if deeper is None else 2 * inner, outer, 4, 2, 1, bias=bias)
        layers: list[nn.Module] = [nn.LeakyReLU(0.2), down]
        if deeper is not None:
            layers += [norm_of(config.norm, inner), deeper]
        layers += [nn.ReLU(), up, norm_of(config.norm, outer)]
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 2 C, H, W]``."""
        return torch.cat([x, self.model(x)], dim=1)


class Outermost(nn.Module):
    """The level at full resolution: no normalisation, no skip connection."""

    def __init__(self, config: UNetGeneratorConfig, deeper: SkipBlock) -> None:
        """With everything below."""
        super().__init__()
        c = config.width
        self.model = nn.Sequential(
            nn.Conv2d(config.channels, c, 4, 2, 1, bias=config.norm == "instance"),
            deeper,
            nn.ReLU(),
            nn.ConvTranspose2d(2 * c, config.channels, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``, the same size."""
        out: Tensor = self.model(x)
        return out


class UNetGenerator(nn.Module):
    """Images ``[B, C, H, W]`` in [-1, 1] to images in [-1, 1]; sides are multiples of 2^num_downs."""

    def __init__(self, config: UNetGeneratorConfig) -> None:
        """Build the network: widths ngf x (1, 2, 4, 8, 8, ...)."""
        super().__init__()
        self.config = config
        self.multiple = 2**config.num_downs
        widths = [config.width * min(2**level, 8) for level in range(config.num_downs)]
        block = SkipBlock(widths[-2], widths[-1], config, None)
        for level in range(config.num_downs - 2, 0, -1):
            # the num_downs - 5 levels above the innermost that keep 8 ngf channels
            dropout = config.dropout and level >= 4
            block = SkipBlock(widths[level - 1], widths[level], config, block, dropout)
        self.model = Outermost(config, block)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        out: Tensor = self.model(x)
        return out
