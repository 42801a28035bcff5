"""TM-DDPM: ``restore(measurement, draws) -> [B, K, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor

from mrbench.degradation.measurement import Measurement, upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint

from ..networks.canvas import Noise, restore_on_canvas
from ..networks.gaussian_diffusion import GaussianDiffusion
from ..networks.gaussian_diffusion_options import GaussianConfig
from ..networks.loading import CONTAINERS, load_strict, unwrapped
from ..networks.parts import parts_of
from ..networks.residual_model import no_weights
from ..networks.settings import filled, saved_options
from ..networks.steps import OnStep
from ..networks.swin_ddpm import SwinDDPM
from ..networks.swin_ddpm_options import SwinDDPMConfig
from ..networks.swin_ddpm_sampling import image_channels, published_config, sample
from . import PREUPSAMPLE, STEPS, TMDDPMOptions

NAME = "tm_ddpm"
PUBLISHED = GaussianConfig(learn_sigma=True)  # linear, 1000 steps, eps


class TMDDPM:
    """The reverse of a diffusion, from noise to the HR image beside the interpolated LR image."""

    nfe: int | None = None
    on_step: OnStep | None = None

    def __init__(self, options: TMDDPMOptions) -> None:
        """Keep the options; :meth:`load` brings the network."""
        self._options = options

    def load(self, checkpoint: LocalCheckpoint | None, device: torch.device | str) -> None:
        """Build the network and the diffusion that the checkpoint describes, or the published ones.

        Raises
        ------
        UserError : no weights, weights that do not fit, or more steps than the training had.
        """
        if checkpoint is None:
            raise no_weights(NAME)
        what = str(checkpoint.file)
        parts = parts_of(checkpoint, NAME, {"unet": SwinDDPMConfig, "diffusion": GaussianConfig}, "unet")
        self._sampling = options = filled(self._options, saved_options(checkpoint.config, TMDDPMOptions, what))
        tensors = unwrapped(checkpoint.tensors("cpu", CONTAINERS))
        unet = parts["unet"] if parts else published_config(tensors, what)
        self._config: GaussianConfig = parts.get("diffusion", PUBLISHED) if parts else PUBLISHED
        self._channels = image_channels(unet, self._config, what)
        self.nfe = min(STEPS, self._config.steps) if options.steps is None else options.steps
        if self.nfe > self._config.steps:
            raise UserError(
                f"steps {self.nfe}: {what} was trained with {self._config.steps} step(s), so between 1 and {self._config.steps} are possible."
            )
        self._diffusion = GaussianDiffusion.of(self._config, self.nfe)
        self._unet = SwinDDPM(unet)
        load_strict(self._unet, tensors, what=what)
        self._unet.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def restore(self, measurement: Measurement, draws: int) -> Tensor:
        """``draws`` samples ``[B, K, C, H, W]`` in [0, 1].

        Raises
        ------
        UserError : images with other channels than the network's.
        """

        def sampler(condition: Tensor, noise: Noise, on_step: OnStep | None) -> Tensor:
            def network(state: Tensor, times: Tensor) -> Tensor:
                out: Tensor = self._unet(torch.cat([state, condition], dim=1), times)
                return out

            return sample(self._diffusion, self._config, network, noise(), noise, on_step)

        def upsampler(canvas: Measurement) -> Tensor:
            return upsample(canvas, self._sampling.preupsample or PREUPSAMPLE)

        return restore_on_canvas(
            measurement, draws, sampler, upsampler, self._sampling,
            channels=self._channels, multiple=self._unet.config.multiple, on_step=self.on_step,
        )  # fmt: skip
