"""SinSR: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement
from mrbench.hub import LocalCheckpoint

from ..networks.conditioning import resample
from ..networks.residual_model import Architecture, ResidualShiftModel, no_weights
from ..networks.residual_shift import Network, Noise, ResidualShift
from ..networks.settings import filled, saved_options
from . import SinSROptions, diffusion

NAME = "sinsr"


class SinSR:
    """From the upsampled LR image plus noise to the HR image in one network call (arXiv:2311.14760)."""

    nfe = 1

    def __init__(self, options: SinSROptions) -> None:
        """Keep the options; :meth:`load` brings the networks."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the networks that the checkpoint describes.

        Raises
        ------
        UserError : no weights, or weights that do not fit.
        """
        if checkpoint is None:
            raise no_weights(NAME)
        architecture = Architecture(checkpoint, NAME)
        self._sampling = options = filled(self._options, saved_options(checkpoint.config, SinSROptions, architecture.what))
        latent = architecture.on_latents(options.autoencoder)
        self._model = ResidualShiftModel.load(checkpoint, architecture, device, options.autoencoder)
        self._process = ResidualShift(architecture.diffusion or diffusion(latent))
        self._clip = not latent

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with channels that the networks cannot take.
        """

        def sampler(network: Network, y: Tensor, noise: Noise) -> Tensor:
            return self._process.one_step(network, y, noise, clip=self._clip)

        return self._model.restore(measurement, draws, sampler, resample, self._sampling)
