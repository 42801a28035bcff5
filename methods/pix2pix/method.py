"""Pix2Pix: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement
from mrbench.hub import LocalCheckpoint

from ..networks.gan_options import TranslationOptions
from ..networks.translation import Translator


class Pix2Pix:
    """One pass of the generator over the interpolated LR image (arXiv:1611.07004); its dropout is off."""

    nfe = 1

    def __init__(self, options: TranslationOptions) -> None:
        """Keep the options; :meth:`load` brings the network."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the generator that the checkpoint describes, or that a published file holds.

        Raises
        ------
        UserError : no weights, or weights that do not fit.
        """
        self._translator = Translator("pix2pix", self._options, checkpoint, device)

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """One image ``draws`` times, ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels than the network's.
        """
        return self._translator.restore(measurement, draws)
