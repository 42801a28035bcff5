"""ADM networks as priors (Dhariwal and Nichol 2021, arXiv:2105.05233)."""

from __future__ import annotations

import torch
from torch import Tensor

from .adm import ADMUNet
from .gaussian_diffusion import GaussianDiffusion
from .gaussian_diffusion_options import GaussianConfig
from .prior_discrete import DiscretePrior, check_label


class ADMPrior(DiscretePrior):
    """An ADM network with the diffusion that it was trained with. The condition of super-resolution networks is the LR image."""

    def __init__(self, network: ADMUNet, config: GaussianConfig, label: int | None = None, what: str = "this network") -> None:
        """``label``: the class of class-conditional networks (``UserError`` if it does not fit)."""
        c = network.config
        check_label(label, c.num_classes, what)
        super().__init__(
            GaussianDiffusion.of(config), config.prediction, config.learn_sigma, c.in_channels, c.low_res_channels, c.multiple
        )
        self.network, self.label = network, label

    def _output(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        labels = None if self.label is None else torch.full((len(x),), self.label, device=x.device)
        output: Tensor = self.network(x, t, labels, condition)
        return output
