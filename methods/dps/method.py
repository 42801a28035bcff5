"""DPS: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement
from mrbench.hub import LocalCheckpoint

from ..networks.dps_options import DPSOptions
from ..networks.dps_sampler import DPS
from ..networks.posterior_canvas import Problem, restore
from ..networks.stepped_prior import SteppedPrior, open_prior
from ..networks.steps import OnStep

NAME = "dps"


class DPSMethod:
    """A diffusion prior whose every step is corrected towards the measurement (arXiv:2209.14687)."""

    nfe: int | None = None
    on_step: OnStep | None = None

    def __init__(self, options: DPSOptions) -> None:
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
        self._process = DPS(self._prior.alphas_cumprod, o.settings())
        self.nfe = self._process.calls

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` on the scale of the data, unclipped.

        Raises
        ------
        UserError : no operator, channels that the prior cannot take, or images too small for it.
        """
        prior = self._prior.for_channels(measurement.y.shape[1])

        def sample(problem: Problem) -> Tensor:
            return self._process.sample(prior.predict, problem, problem.on_step)

        options, on_step = self._options, self.on_step
        return restore(measurement, draws, prior.multiple, options.max_batch, sample, NAME, gradients=True, on_step=on_step)
