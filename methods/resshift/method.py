"""ResShift: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement
from mrbench.hub import LocalCheckpoint

from ..networks.conditioning import resample
from ..networks.residual_model import Architecture, ResidualShiftModel, no_weights
from ..networks.residual_shift import Network, Noise, ResidualShift
from ..networks.settings import check_steps, choose_diffusion, filled, saved_options
from . import ResShiftOptions, diffusions

NAME = "resshift"


class ResShift:
    """A chain from the upsampled LR image plus noise to the HR image, in latent or pixel space (arXiv:2307.12348)."""

    nfe: int | None = None

    def __init__(self, options: ResShiftOptions) -> None:
        """Keep the options; :meth:`load` brings the networks."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the networks that the checkpoint describes, and the diffusion that it was trained with.

        Raises
        ------
        UserError : no weights, weights that do not fit, or options that contradict them.
        """
        if checkpoint is None:
            raise no_weights(NAME)
        architecture = Architecture(checkpoint, NAME)
        saved = saved_options(checkpoint.config, ResShiftOptions, architecture.what)
        options = filled(self._options, saved)
        latent = architecture.on_latents(options.autoencoder)
        diffusion = choose_diffusion(
            diffusions(latent), self._options.variant, saved.variant, architecture.diffusion, None, architecture.what
        )
        self._model = ResidualShiftModel.load(checkpoint, architecture, device, options.autoencoder)
        self._sampling = options
        self.nfe = check_steps(options.steps, diffusion, None, architecture.what)
        self._process = ResidualShift(diffusion, self.nfe)
        self._clip = not latent

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with channels that the networks cannot take.
        """

        def sampler(network: Network, y: Tensor, noise: Noise) -> Tensor:
            return self._process.sample(network, y, noise, clip=self._clip)

        return self._model.restore(measurement, draws, sampler, resample, self._sampling)
