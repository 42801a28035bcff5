"""A prior as samplers with integer time steps want it, whatever it was trained with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint
from mrbench.hub.checkpoint import notes_beside, record_from_files, weights_in

from .gaussian_diffusion import linear_betas
from .prior import Prediction, Prior
from .prior_channels import for_channels
from .prior_loading import load_prior
from .residual_model import no_weights

LINEAR_STEPS = 1000  # Ho et al. 2020: the schedule of continuous priors


class PlanewisePrior(Prior):
    """A prior of single-channel images on each channel alone: colours, or real and imaginary part."""

    channels: int

    def __init__(self, prior: Prior, channels: int) -> None:
        """Around an unconditional prior of one channel."""
        self.prior, self.channels = prior, channels
        self.multiple, self.alphas_cumprod, self.sigma_range = prior.multiple, prior.alphas_cumprod, prior.sigma_range

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """See :meth:`Prior.denoise`."""
        return self._together(self.prior.denoise(self._apart(x), sigma.repeat_interleave(self.channels)))

    def predict(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Prediction:
        """See :meth:`Prior.predict`."""
        found = self.prior.predict(self._apart(x), t.repeat_interleave(self.channels))
        v = None if found.log_variance is None else self._together(found.log_variance)
        return Prediction(self._together(found.x0), self._together(found.eps), v)

    def _apart(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 1, *x.shape[2:])

    def _together(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.channels, *x.shape[2:])


class SteppedPrior:
    """A prior with the variance-preserving steps ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n``.

    A discrete prior has its own. A continuous one gets those steps of the linear schedule (1000 steps, beta from 1e-4 to 0.02)
    whose noise it knows: ``a_t`` from its smallest to its largest ``sigma_t = sqrt((1 - a_t) / a_t)``.
    """

    def __init__(self, prior: Prior) -> None:
        """Lay out the steps.

        Raises
        ------
        UserError : a continuous prior that knows none of them.
        """
        self.prior = prior
        self.alphas_cumprod: NDArray[np.float64] = (
            linear_steps(*prior.sigma_range) if prior.alphas_cumprod is None else prior.alphas_cumprod
        )

    @property
    def multiple(self) -> int:
        """Of the sides of images."""
        return self.prior.multiple

    def for_channels(self, channels: int) -> SteppedPrior:
        """The same for images with other channels.

        Priors of one channel take each channel alone; for other cases see :func:`mrbench_methods.networks.prior_channels.for_channels`.

        Raises
        ------
        UserError : the prior cannot take such images.
        """
        if self.prior.channels == 1 and channels > 1:
            return SteppedPrior(PlanewisePrior(self.prior, channels))
        return SteppedPrior(for_channels(self.prior, channels))

    def predict(self, x: Tensor, t: int) -> Prediction:
        """The estimate from ``x_t [B, C, H, W]``, not clipped."""
        if self.prior.alphas_cumprod is not None:
            return self.prior.predict(x, torch.full((len(x),), t, device=x.device))
        a = float(self.alphas_cumprod[t])
        sigma = torch.full((len(x),), ((1 - a) / a) ** 0.5, device=x.device)
        x0 = self.prior.denoise(x / a**0.5, sigma)
        return Prediction(x0, (x - a**0.5 * x0) / (1 - a) ** 0.5)

    def denoise(self, x: Tensor, t: int) -> Tensor:
        """The estimate of ``x_0`` alone."""
        return self.predict(x, t).x0


def linear_steps(smallest: float, largest: float) -> NDArray[np.float64]:
    """``a_t`` of those steps of the linear schedule with ``smallest <= sigma_t <= largest``.

    Raises
    ------
    UserError : there are none.
    """
    a = np.cumprod(1 - linear_betas(LINEAR_STEPS), dtype=np.float64)
    sigma = np.sqrt((1 - a) / a)
    inside: NDArray[np.float64] = a[(sigma >= smallest) & (sigma <= largest)]
    if not len(inside):
        raise UserError(
            f"this prior knows noise between {smallest:g} and {largest:g} of the [-1, 1] range, and the steps of a diffusion lie between "
            f"{sigma[0]:.2g} and {sigma[-1]:.3g}. Name another prior."
        )
    return inside


def open_prior(
    method: str,
    checkpoint: LocalCheckpoint | None,
    named: str | None,
    device: torch.device | str,
    label: int | None = None,
) -> Prior:
    """The unconditional prior in ``checkpoint``, or in the file or folder that the option ``prior`` names.

    ``label``: the class of class-conditional ones.

    Raises
    ------
    UserError : neither, or two different ones; weights that are no prior, or one that wants a second image.
    """
    if named is not None and (checkpoint is None or named != checkpoint.record.name):
        file = weights_in(Path(named))
        if checkpoint is None:
            config, training = notes_beside(file)
            record, _ = record_from_files(file, config, training)
            checkpoint = LocalCheckpoint(record, file, config, training)
        elif not file.samefile(checkpoint.file):
            raise UserError(
                f"{method}: two priors are named, {checkpoint.file} (with @) and {named} (option prior). Leave one of them out: results "
                "would be recorded under weights that did not make them."
            )
    if checkpoint is None:
        raise no_weights(method)
    prior = load_prior(checkpoint, device, str(checkpoint.file), label)
    if prior.condition_channels:
        raise UserError(
            f"{checkpoint.file} is a conditional prior: it wants a second image of {prior.condition_channels} channel(s), which {method} does "
            "not have. Name an unconditional one."
        )
    return prior
