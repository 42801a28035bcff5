"""SPSR: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.cards import NoOptions
from mrbench.degradation.measurement import Measurement
from mrbench.hub import LocalCheckpoint

from ..networks.enlarge import enlarge
from ..networks.loading import CONTAINERS, load_strict, unwrapped
from ..networks.parts import parts_of
from ..networks.residual_model import no_weights
from ..networks.spsr import SPSR
from ..networks.spsr_options import SPSRConfig
from ..networks.spsr_weights import read_spsr

NAME = "spsr"


class SPSRMethod:
    """One pass of the network over the LR image (arXiv:2003.13081)."""

    nfe = 1

    def __init__(self, options: NoOptions) -> None:
        """There is nothing to choose; :meth:`load` brings the network."""

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the network that the checkpoint describes, or that a published file holds.

        Raises
        ------
        UserError : no weights, or weights that do not fit.
        """
        if checkpoint is None:
            raise no_weights(NAME)
        self._what = str(checkpoint.file)
        parts = parts_of(checkpoint, NAME, {"generator": SPSRConfig}, "generator")
        tensors = unwrapped(checkpoint.tensors("cpu", CONTAINERS))
        self._network = SPSR(parts["generator"] if parts else read_spsr(tensors, self._what))
        load_strict(self._network, tensors, what=self._what)
        self._network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """One image ``draws`` times, ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels or of another scale than the network's.
        """
        config = self._network.config

        def network(y: Tensor) -> Tensor:
            return self._network(y).image.float().clamp(0, 1)  # type: ignore[no-any-return]

        image = enlarge(network, measurement, config.channels, config.scale, self._what)
        return image.clamp(0, 1)[:, None].expand(-1, draws, -1, -1, -1)
