"""Normalisation layers of published image-to-image networks, and their weights at the start."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .gan_options import Norm


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that can also use the statistics of every image by itself.

    That is what the published pix2pix code does at test time: the network stays in train mode, with batches of one image. In
    larger batches images would influence each other, so here every image of a batch has statistics of its own.
    """

    per_image = False

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``."""
        if self.per_image and not self.training:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, use_input_stats=True, eps=self.eps)
        return super().forward(x)


def norm_of(kind: Norm, channels: int) -> nn.Module:
    """The layer; instance normalisation has neither weights nor running statistics."""
    return BatchNorm(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


def use_image_statistics(network: nn.Module, on: bool) -> None:
    """Whether batch normalisation in eval mode uses the statistics of every image instead of the running ones."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.per_image = on


def init_normal(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Convolutions from N(0, std), scales of normalisations from N(1, std), biases 0 (Isola 2017, section 6.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    return network
