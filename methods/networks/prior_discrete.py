"""Priors that were trained with the integer steps of a variance-preserving diffusion, whatever their network is."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from mrbench.errors import UserError

from .gaussian_diffusion import GaussianDiffusion
from .gaussian_diffusion_options import Prediction as Predicted
from .prior import Prediction, Prior


class DiscretePrior(Prior):
    """What a discrete prior does around its network; a derived class has :meth:`_output`.

    diffusion : on all steps of training. prediction : what the network predicts. learn_sigma : the second half of the network's
    channels are variances.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        prediction: Predicted,
        learn_sigma: bool,
        channels: int,
        condition_channels: int = 0,
        multiple: int = 1,
    ) -> None:
        """Keep the facts."""
        self.diffusion, self.prediction, self.learn_sigma = diffusion, prediction, learn_sigma
        self.channels, self.condition_channels, self.multiple = channels, condition_channels, multiple
        self.alphas_cumprod = diffusion.alphas_cumprod
        self._sigmas = diffusion.sigmas
        self.sigma_range = (float(self._sigmas[0]), float(self._sigmas[-1]))

    @abstractmethod
    def _output(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The network's output for ``x_t [B, C, H, W]`` at steps ``t [B]``: C channels, or 2 C with variances."""

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """See :meth:`Prior.denoise`. The network is told the nearest step; the formulas use ``sigma`` itself."""
        level = sigma.detach().double().cpu().reshape(-1).expand(len(x))
        t = torch.from_numpy(np.abs(self._sigmas[None] - level.numpy()[:, None]).argmin(1))
        a = 1 / (1 + level.square())
        signal, noise, level = (_beside(x, value) for value in (a.sqrt(), (1 - a).sqrt(), level))
        output, _ = self._parts(signal * x, t.to(x.device), condition)
        if self.prediction == "eps":
            return x - level * output
        if self.prediction == "v":
            return signal * signal * x - noise * output
        return output

    def predict(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Prediction:
        """See :meth:`Prior.predict`."""
        output, v = self._parts(x, t, condition)
        x0 = self.diffusion.x0_from(self.prediction, x, t, output)
        return Prediction(x0, self.diffusion.eps_from(self.prediction, x, t, output), v)

    def _parts(self, x: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        output = self._output(x, t, condition)
        if not self.learn_sigma:
            return output, None
        prediction, v = output.chunk(2, dim=1)
        return prediction, v


def check_label(label: int | None, classes: int | None, what: str) -> None:
    """Whether a class label fits a prior with ``classes`` classes (``None``: it knows none).

    Raises
    ------
    UserError : a label is missing, needless or out of range.
    """
    if classes is None and label is not None:
        raise UserError(f"{what} is an unconditional prior: it takes no label. Leave the label out.")
    if classes is not None and (label is None or not 0 <= label < classes):
        given = "none was given" if label is None else f"label {label} was given"
        raise UserError(f"{what} is a class-conditional prior: it needs a label from 0 to {classes - 1}, and {given}.")


def _beside(x: Tensor, values: Tensor) -> Tensor:
    return values.to(device=x.device, dtype=x.dtype)[:, None, None, None]
