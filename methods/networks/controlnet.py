"""A ControlNet branch for the SR3 U-Net (Zhang, Rao, Agrawala 2023, arXiv:2302.05543), as MSP-SR has it.

A second encoder sees what the U-Net sees. Each of its maps passes a 1x1 convolution that starts at zero, and is added to the
U-Net's skip of the same place; the map of its middle is added to the U-Net's middle. So a new branch changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .sr3 import Control, Encoder, SR3UNet
from .sr3_options import SR3Config


class ControlBranch(Encoder):
    """The branch: its own embedding of the noise level, ``downs`` and ``mid`` as the U-Net's, and the zero convolutions."""

    def __init__(self, config: SR3Config) -> None:
        """Build with torch's default weights, but for the zero convolutions."""
        super().__init__(config)
        self.zero_convs = nn.ModuleList(_zero(width) for width in self.skip_widths)
        self.mid_out = _zero(config.widths[-1])

    def forward(self, x: Tensor, g: Tensor) -> Control:
        """What is added to the U-Net's features, for the same ``x`` and ``g`` as :meth:`SR3UNet.forward`."""
        found = self.features(x, g)
        skips = [convolution(skip) for convolution, skip in zip(self.zero_convs, found.skips, strict=True)]
        return Control(skips, self.mid_out(found.middle))

    @property
    def silent(self) -> bool:
        """Whether all zero convolutions are zero: the branch has never been trained, and adds nothing."""
        layers = [*self.zero_convs, self.mid_out]
        return not any(bool(p.detach().any()) for layer in layers for p in layer.parameters())

    @torch.no_grad()
    def copy_encoder(self, unet: SR3UNet) -> None:
        """Begin as a copy of the encoder of ``unet`` (of the same configuration)."""
        for name in ("noise_level_mlp", "downs", "mid"):
            getattr(self, name).load_state_dict(getattr(unet, name).state_dict())


def controlled(unet: SR3UNet, branch: ControlBranch | None, x: Tensor, g: Tensor) -> Tensor:
    """The prediction of ``unet`` with what ``branch`` adds, if there is one."""
    out: Tensor = unet(x, g, None if branch is None else branch(x, g))
    return out


def _zero(channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
