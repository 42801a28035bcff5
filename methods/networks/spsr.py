"""SPSR: a super-resolution network with a branch that restores the map of gradients and guides the image.

Ma, Rao, Cheng, Chen, Lu, Zhou 2020, Structure-preserving super resolution with gradient guidance, CVPR, arXiv:2003.13081; the trunk is that
of ESRGAN (Wang 2018, arXiv:1809.00219). Keys are those of published files.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .spsr_options import SPSRConfig, VGGDiscriminatorConfig

SLOPE = 0.2  # of leaky rectifiers
RESIDUAL = 0.2  # share of what blocks add
EPSILON = 1e-6
STAGES = 4  # of the gradient branch, one after every fifth block of the trunk


def gradient_map(x: Tensor, padding: int = 1) -> Tensor:
    """``sqrt(v^2 + h^2 + 1e-6)`` per channel, with central differences v, h (Ma 2020, eq. 1) and zeros around the image.

    ``[B, C, H, W]``; with padding 1 of the same size, with padding 2 (the published losses) two rows and columns larger.
    """
    around = F.pad(x, (padding, padding, padding, padding))
    v = around[..., 2:, 1:-1] - around[..., :-2, 1:-1]
    h = around[..., 1:-1, 2:] - around[..., 1:-1, :-2]
    return torch.sqrt(v.square() + h.square() + EPSILON)


def conv(channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the size, under the key ``0``."""
    return nn.Sequential(nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2))


def act(x: Tensor) -> Tensor:
    """Leaky rectifier."""
    return F.leaky_relu(x, SLOPE)


class DenseBlock(nn.Module):
    """Five convolutions that see all before them; ``x + 0.2 last`` (Wang 2018, figure 4)."""

    def __init__(self, width: int, growth: int) -> None:
        """``width`` channels in and out."""
        super().__init__()
        self.conv1 = conv(width, growth)
        self.conv2 = conv(width + growth, growth)
        self.conv3 = conv(width + 2 * growth, growth)
        self.conv4 = conv(width + 3 * growth, growth)
        self.conv5 = conv(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, h, w]``."""
        seen = x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, act(layer(seen))], dim=1)
        added: Tensor = self.conv5(seen)
        return x + RESIDUAL * added


class RRDB(nn.Module):
    """Three dense blocks; ``x + 0.2 result``."""

    def __init__(self, width: int, growth: int) -> None:
        """``width`` channels in and out."""
        super().__init__()
        self.RDB1 = DenseBlock(width, growth)
        self.RDB2 = DenseBlock(width, growth)
        self.RDB3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, h, w]``."""
        added: Tensor = self.RDB3(self.RDB2(self.RDB1(x)))
        return x + RESIDUAL * added


class Trunk(nn.Module):
    """Blocks and a last convolution under ``sub``."""

    def __init__(self, config: SPSRConfig) -> None:
        """As many blocks as the configuration says."""
        super().__init__()
        blocks = [RRDB(config.width, config.growth) for _ in range(config.blocks)]
        self.sub = nn.Sequential(*blocks, nn.Conv2d(config.width, config.width, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The result with its skip connection, and the features after 5, 10, 15 and 20 blocks."""
        features: list[Tensor] = []
        h = x
        for number, block in enumerate(self.sub, start=1):
            h = block(h)
            if number % 5 == 0 and len(features) < STAGES:
                features.append(h)
        return x + h, features


class GradientKernels(nn.Module):
    """Holds the two constants that published files hold; :func:`gradient_map` computes with slices."""

    weight_h: Tensor
    weight_v: Tensor

    def __init__(self) -> None:
        super().__init__()
        h = torch.zeros(1, 1, 3, 3)
        h[0, 0, 1, 0], h[0, 0, 1, 2] = -1.0, 1.0
        self.register_buffer("weight_h", h)
        self.register_buffer("weight_v", h.mT.contiguous())


def _doublings(config: SPSRConfig) -> list[nn.Module]:
    stages: list[nn.Module] = []
    for _ in range(config.scale.bit_length() - 1):
        stages += [
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(config.width, config.width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        ]
    return stages


class SPSROutput(NamedTuple):
    """``gradient``: the estimated map of the HR image; ``image``: the restored image; ``seen``: the map of the LR image."""

    gradient: Tensor
    image: Tensor
    seen: Tensor


class SPSR(nn.Module):
    """LR images in [0, 1] to HR images, unclipped, and their gradients."""

    def __init__(self, config: SPSRConfig) -> None:
        """Build the network; one convolution stands under two keys, as in published files."""
        super().__init__()
        self.config = config
        c, g, images = config.width, config.growth, config.channels
        last = nn.Conv2d(c, c, 3, padding=1)
        self.HR_conv0_new = nn.Sequential(last)
        self.HR_conv1_new = conv(c, c)
        self.model = nn.Sequential(nn.Conv2d(images, c, 3, padding=1), Trunk(config), *_doublings(config), last)
        self.get_g_nopadding = GradientKernels()
        self.b_fea_conv = conv(images, c)
        for k in range(1, STAGES + 1):
            self.add_module(f"b_block_{k}", RRDB(2 * c, g))
            self.add_module(f"b_concat_{k}", conv(2 * c, c))
        self.b_LR_conv = conv(c, c)
        self.b_module = nn.Sequential(
            *_doublings(config), nn.Conv2d(c, c, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(c, c, 3, padding=1)
        )
        self.conv_w = conv(c, images, 1)
        self.f_block = RRDB(2 * c, g)
        self.f_concat = conv(2 * c, c)
        self.f_HR_conv0 = conv(c, c)
        self.f_HR_conv1 = conv(c, images)

    def forward(self, y: Tensor) -> SPSROutput:
        """``[B, C, h, w]``; images and gradients of the result are ``[B, C, s h, s w]``."""
        seen = gradient_map(y)
        h, features = self.model[1](self.model[0](y))
        for layer in self.model[2:]:
            h = layer(h)
        image: Tensor = self.HR_conv1_new(act(h))
        start = self.b_fea_conv(seen)
        b = start
        for k, feature in enumerate(features, start=1):
            block, join = self.get_submodule(f"b_block_{k}"), self.get_submodule(f"b_concat_{k}")
            b = join(block(torch.cat([b, feature], dim=1)))
        b = self.b_module(self.b_LR_conv(b) + start)
        fused = self.f_concat(self.f_block(torch.cat([b, image], dim=1)))
        return SPSROutput(self.conv_w(b), self.f_HR_conv1(act(self.f_HR_conv0(fused))), seen)


class VGGDiscriminator(nn.Module):
    """Ten convolutions and two linear layers; one logit per patch (the discriminator of ESRGAN and SPSR)."""

    def __init__(self, channels: int, config: VGGDiscriminatorConfig) -> None:
        """Patches of ``size`` pixels with ``channels`` channels (up to 31 pixels more are cut off by the strides)."""
        super().__init__()
        c, before = config.width, channels
        layers: list[nn.Module] = []
        for level, width in enumerate((c, 2 * c, 4 * c, 8 * c, 8 * c)):
            layers.append(nn.Conv2d(before, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if level else []
            layers += [nn.LeakyReLU(SLOPE), nn.Conv2d(width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)]
            before = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(before * (config.size // 32) ** 2, 100), nn.LeakyReLU(SLOPE), nn.Linear(100, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, P, P]`` to ``[B, 1]``."""
        out: Tensor = self.classifier(self.features(x).flatten(1))
        return out


def init_small(network: nn.Module, factor: float = 0.1) -> nn.Module:
    """He initialisation (fan in) times ``factor``, biases 0 (Wang 2018, section 3.1)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            with torch.no_grad():
                module.weight.mul_(factor)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
