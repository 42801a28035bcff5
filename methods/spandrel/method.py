"""Networks that spandrel recognises: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from mrbench.cards import NoOptions
from mrbench.degradation.measurement import Measurement
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.enlarge import enlarge
from ..networks.loading import CONTAINERS, selected
from ..networks.residual_model import no_weights
from . import ARCHITECTURES, INSTALL

NAME = "spandrel"
WRAPPERS = ("params_ema", "params-ema", "params", *CONTAINERS, "model", "net")
HUE = 0.01  # channels of a grey image that differ by more are worth a warning
LOG = logging.getLogger(__name__)


class SpandrelMethod:
    """One pass of the user's network over the LR image.

    channel_spread : for grey images that passed a network on colour, by item: the largest difference between the three channels
        of the output before they were averaged. A network that leaves grey images grey has 0.
    """

    nfe = 1

    def __init__(self, options: NoOptions) -> None:
        """There is nothing to choose; :meth:`load` brings the network."""
        self.channel_spread: dict[str, float] = {}

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Let spandrel recognise the network; the file is read here, as tensors only.

        Raises
        ------
        UserError : spandrel is not installed, no file is named, or the file holds no super-resolution network that it knows.
        """
        try:
            from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
        except ImportError as error:
            raise UserError(f"{NAME} needs the library spandrel, which is not installed here ({error}): {INSTALL}.") from error
        if checkpoint is None:
            raise no_weights(NAME)
        self._what = str(checkpoint.file)
        tensors = selected(checkpoint.tensors("cpu", WRAPPERS), ("netG.",))
        try:
            found: Any = ModelLoader(torch.device(device)).load_from_state_dict(tensors)
        except UnsupportedModelError as error:
            raise UserError(
                f"{self._what} holds no network that spandrel recognises. Supported: {', '.join(ARCHITECTURES)}. Not supported: EDSR, SPSR, "
                "SR3 and other diffusion models (some are methods of their own: `mrbench methods`)."
            ) from error
        if not isinstance(found, ImageModelDescriptor) or found.purpose not in ("SR", "FaceSR") or found.scale < 2:
            raise UserError(
                f"{self._what} holds a network of the architecture {found.architecture.name}, which does not enlarge images. "
                f"Supported: {', '.join(ARCHITECTURES)}."
            )
        if found.input_channels != found.output_channels or found.input_channels not in (1, 3):
            raise UserError(
                f"{self._what}: the network takes images of {found.input_channels} and returns {found.output_channels} channel(s); grey (1) "
                "or colour (3) is needed on both sides."
            )
        found.eval()
        self._network = found

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """One image ``draws`` times, ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels or of another scale than the network's.
        """
        network, grey = self._network, measurement.y.shape[1] == 1
        spreads: list[float] = []

        def one_by_one(y: Tensor) -> Tensor:
            made = torch.cat([network(image[None].clamp(0, 1)).float() for image in y])
            if grey and made.shape[1] > 1:
                spreads.extend((made.amax(1) - made.amin(1)).flatten(1).amax(1).tolist())
            return made

        image = enlarge(one_by_one, measurement, network.input_channels, network.scale, self._what).clamp(0, 1)
        self.channel_spread = dict(zip(measurement.ids, spreads, strict=False))
        for item, spread in self.channel_spread.items():
            level = logging.WARNING if spread > HUE else logging.DEBUG
            LOG.log(
                level, "%s: the network's three channels of a grey image differ by up to %.3f; their mean is used", item, spread
            )
        return image[:, None].expand(-1, draws, -1, -1, -1)
