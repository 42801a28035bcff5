"""EDSR: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.cards import NoOptions
from mrbench.degradation.measurement import Measurement, upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.edsr import EDSR
from ..networks.edsr_options import EDSRConfig
from ..networks.enlarge import enlarge
from ..networks.loading import load_strict
from ..networks.parts import parts_of
from ..networks.residual_model import no_weights

NAME = "edsr"


class EDSRMethod:
    """One pass of the network, added to the interpolated LR image (arXiv:1707.02921)."""

    nfe = 1

    def __init__(self, options: NoOptions) -> None:
        """There is nothing to choose; :meth:`load` brings the network."""

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the network that the checkpoint describes.

        Raises
        ------
        UserError : no weights, or weights that do not fit.
        """
        if checkpoint is None:
            raise no_weights(NAME)
        self._what = str(checkpoint.file)
        parts = parts_of(checkpoint, NAME, {"network": EDSRConfig}, "network")
        if parts is None:
            raise UserError(
                f"{self._what} comes without a config.json that describes its network. Published EDSR files have other networks (they "
                "work on RGB in 0..255): run one with a method that reads them, or name a checkpoint folder of mrbench."
            )
        self._network = EDSR(parts["network"])
        load_strict(self._network, checkpoint.tensors("cpu"), what=self._what)
        self._network.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """The same image ``draws`` times, ``[B, K, C, H, W]`` on the scale of [0, 1], unclipped.

        Raises
        ------
        UserError : images with other channels or of another scale than the network's.
        """
        config = self._network.config
        image = upsample(measurement) + enlarge(self._network, measurement, config.channels, config.scale, self._what)
        return image[:, None].expand(-1, draws, -1, -1, -1)
