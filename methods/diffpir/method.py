"""DiffPIR: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.diffpir_options import DiffPIROptions
from ..networks.diffpir_sampler import DiffPIR
from ..networks.posterior_canvas import Problem, restore
from ..networks.stepped_prior import SteppedPrior, open_prior
from ..networks.steps import OnStep

NAME = "diffpir"


class DiffPIRMethod:
    """A diffusion prior and a proximal data step in turns, from noise to image (arXiv:2305.08995)."""

    nfe: int | None = None
    on_step: OnStep | None = None

    def __init__(self, options: DiffPIROptions) -> None:
        """Keep the options; :meth:`load` brings the prior."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Load the prior and lay out the time steps.

        Raises
        ------
        UserError : no weights, weights that are no unconditional prior, or time steps that its schedule does not have.
        """
        o = self._options
        self._prior = SteppedPrior(open_prior(NAME, checkpoint, o.prior, device, o.label))
        self._process = DiffPIR(self._prior.alphas_cumprod, o.settings())
        self.nfe = self._process.calls

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` on the scale of the data, unclipped.

        Raises
        ------
        UserError : no operator, noise of unknown level, channels that the prior cannot take, or images too small for it.
        """
        sigma = self._sigma(measurement)
        prior = self._prior.for_channels(measurement.y.shape[1])

        def sample(problem: Problem) -> Tensor:
            return self._process.sample(prior.denoise, problem, sigma, problem.on_step)

        return restore(measurement, draws, prior.multiple, self._options.max_batch, sample, NAME, on_step=self.on_step)

    def _sigma(self, measurement: Measurement) -> float:
        sigma = measurement.sigma if self._options.sigma is None else self._options.sigma
        if sigma is None:
            raise UserError(
                f"{NAME} weighs the measurement by its noise, and this protocol does not say how strong that is. Give it in units of "
                f"[0, 1] with the option sigma (--set LABEL.sigma=0.02), or use a protocol with a known noise level."
            )
        return sigma
