"""Colour priors for grey images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrbench.errors import UserError

from .prior import Prediction, Prior

COLOURS = 3
WORDS = {1: "grey", 2: "complex", 3: "colour"}


class GreyPrior(Prior):
    """A colour prior on grey images.

    A colour image with independent noise of level ``s sqrt(3)`` in each channel has noise of level ``s`` in the mean of its
    channels. So a grey image with noise ``s`` is the mean of a colour image with noise ``s sqrt(3)``: it is repeated, noise of
    that level is added to the differences between the channels (always the same, so that equal images give equal estimates), the
    colour prior is asked at ``s sqrt(3)``, and the channels of its estimate are averaged. Repeating alone would show the prior noise
    that is equal in all channels, which it takes for structure.

    A learned variance belongs to colours and is left out.
    """

    def __init__(self, prior: Prior) -> None:
        """Around a prior of three channels."""
        self.prior = prior
        self.channels = 1
        self.condition_channels = prior.condition_channels // COLOURS
        self.multiple = prior.multiple
        self.alphas_cumprod = prior.alphas_cumprod
        low, high = prior.sigma_range
        self.sigma_range = (low / math.sqrt(COLOURS), high / math.sqrt(COLOURS))

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """See :meth:`Prior.denoise`."""
        wider = sigma * math.sqrt(COLOURS)
        colour = x + wider.to(x).reshape(-1, 1, 1, 1) * _differences(x)
        told = None if condition is None else condition.expand(-1, self.prior.condition_channels, -1, -1)
        return self.prior.denoise(colour, wider, told).mean(1, keepdim=True)

    def predict(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Prediction:
        """See :meth:`Prior.predict`; from :meth:`denoise` at the noise level of step t."""
        if self.alphas_cumprod is None:
            return super().predict(x, t, condition)
        a = torch.from_numpy(self.alphas_cumprod)[t.cpu()]
        signal, noise = (value.to(x)[:, None, None, None] for value in (a.sqrt(), (1 - a).sqrt()))
        x0 = self.denoise(x / signal, ((1 - a) / a).sqrt().to(x), condition)
        return Prediction(x0, (x - signal * x0) / noise)


def for_channels(prior: Prior, channels: int, what: str = "this prior") -> Prior:
    """A prior for images with ``channels`` channels: itself, or a colour prior on grey images.

    Raises
    ------
    UserError : the prior knows nothing of such images.
    """
    if prior.channels == channels:
        return prior
    if (prior.channels, channels) == (COLOURS, 1) and prior.condition_channels % COLOURS == 0:
        return GreyPrior(prior)
    of, on = (WORDS.get(n, f"{n}-channel") for n in (prior.channels, channels))
    raise UserError(
        f"{what} was trained on {of} images and says nothing about {on} ones. Name a prior of {on} images; priors of colour images "
        "work on grey ones too."
    )


def _differences(x: Tensor) -> Tensor:
    """``[1, 3, H, W]``: standard normal noise without its mean over the channels, the same for equal sizes."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, COLOURS, *x.shape[-2:], generator=generator)
    return (noise - noise.mean(1, keepdim=True)).to(x)
