"""Multi-Grid PnP: ``restore(measurement, draws) -> [B, K, C, H, W]``, every draw the same."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.multigrid import Denoiser, Grid, MultiGrid, MultiGridSettings, grids
from ..networks.operator_cache import OperatorCache
from ..networks.prior import COMPLEX, Prior, states
from ..networks.prior_channels import for_channels
from ..networks.stepped_prior import PlanewisePrior, open_prior
from . import MultiGridOptions

NAME = "multigrid_pnp"


class MultiGridPnP:
    """Proximal gradient steps with a diffusion prior's estimate as the denoiser."""

    nfe: int | None = None

    def __init__(self, options: MultiGridOptions) -> None:
        """Keep the options; :meth:`load` brings the prior."""
        o = self._options = options
        self._settings = MultiGridSettings(o.levels, o.iterations, o.cycles, o.coarse_steps, o.start_steps)
        self.nfe = self._settings.calls
        self._grids: OperatorCache[list[Grid]] = OperatorCache()

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Load the prior.

        Raises
        ------
        UserError : no weights, weights that are no unconditional prior, or a noise level that it does not know.
        """
        o = self._options
        self._prior = open_prior(NAME, checkpoint, o.prior, device, o.label)
        low, high = (0.5 * value for value in self._prior.sigma_range)
        if not low <= o.denoise <= high:
            raise UserError(
                f"denoise {o.denoise:g}: this prior knows noise between {low:.3g} and {high:.3g} of the [0, 1] range. "
                "Choose a level there."
            )

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` equal images ``[B, K, C, H, W]`` on the scale of the ground truth, not clipped.

        Raises
        ------
        UserError : no operator, or channels that the prior cannot take.
        """
        channels = measurement.y.shape[1]
        if measurement.operator is None:
            raise UserError(
                f"{NAME} needs the degradation's 2-D operator, and these slices were cut from a volume degraded in 3-D. Choose "
                "a 2-D protocol, or another method."
            )
        prior = (
            PlanewisePrior(self._prior, channels)
            if self._prior.channels == 1 and channels > 1
            else for_channels(self._prior, channels, "this prior")
        )
        multiple = prior.multiple * 2 ** (self._settings.levels - 1)
        canvas, crop = measurement.padded(multiple)
        wide, y = canvas.operator, canvas.y.float()
        assert wide is not None
        levels = self._grids.get(
            measurement.operator, channels, lambda: grids(wide, self._settings.levels, self._options.step, channels)
        )
        image = crop(MultiGrid(levels, self._denoiser(prior), self._settings).solve(wide.upsample(y), y))
        return image[:, None].repeat(1, draws, 1, 1, 1)

    def _denoiser(self, prior: Prior) -> Denoiser:
        def denoise(x: Tensor) -> Tensor:
            scale = 1.0 if x.shape[1] == COMPLEX else 2.0  # units of the prior per unit of the image
            sigma = torch.full((len(x),), scale * self._options.denoise, device=x.device)
            found = prior.denoise(states(x), sigma)
            return found if x.shape[1] == COMPLEX else (found + 1) / 2

        return denoise
