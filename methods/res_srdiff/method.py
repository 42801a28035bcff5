"""Res-SRDiff: ``restore(measurement, draws) -> [B, K, 1, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement, upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.residual_model import Architecture, ResidualShiftModel, no_weights
from ..networks.residual_shift import Network, Noise, ResidualShift
from ..networks.settings import check_steps, choose_diffusion, filled, saved_options
from . import DIFFUSIONS, PREUPSAMPLE, SAMPLING_STEPS, ResSRDiffOptions

NAME = "res_srdiff"


class ResSRDiff:
    """A chain from the interpolated LR image plus noise to the HR image, in pixel space (doi:10.1088/1361-6560/ade049)."""

    nfe: int | None = None

    def __init__(self, options: ResSRDiffOptions) -> None:
        """Keep the options; :meth:`load` brings the network."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the network that the checkpoint describes, and the diffusion that it was trained with.

        Raises
        ------
        UserError : no weights, weights that do not fit, or options that contradict them.
        """
        if checkpoint is None:
            raise no_weights(NAME)
        architecture = Architecture(checkpoint, NAME)
        what = architecture.what
        saved = saved_options(checkpoint.config, ResSRDiffOptions, what)
        diffusion = choose_diffusion(
            DIFFUSIONS, self._options.variant, saved.variant, architecture.diffusion, default="repo", what=what
        )
        self._sampling = options = filled(self._options, saved)
        if architecture.autoencoder is not None:
            raise UserError(f"{what} works on latents, and {NAME} on pixels. Use --method resshift@... for it.")
        self._model = ResidualShiftModel.load(checkpoint, architecture, device)
        self.nfe = check_steps(options.steps, diffusion, SAMPLING_STEPS, what)
        self._process = ResidualShift(diffusion, self.nfe)
        self._kernel = options.preupsample or PREUPSAMPLE[options.variant or "repo"]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, 1, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels than the network's.
        """

        def sampler(network: Network, y: Tensor, noise: Noise) -> Tensor:
            return self._process.sample(network, y, noise, clip=True)

        return self._model.restore(measurement, draws, sampler, self._upsample, self._sampling)

    def _upsample(self, measurement: Measurement) -> Tensor:
        return upsample(measurement, self._kernel)  # type: ignore[arg-type]
