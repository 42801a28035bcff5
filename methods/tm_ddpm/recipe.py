"""Training of TM-DDPM: squared error of the prediction and the variational bound of the learned variance, at a random step.

Loss (Nichol and Dhariwal 2021, eq. 16, as guided-diffusion scales it): ``|target - prediction|^2 + (T / 1000) L_vb``.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.gan_options import Kernel
from ..networks.gaussian_diffusion import GaussianDiffusion
from ..networks.gaussian_diffusion_options import GaussianConfig
from ..networks.swin_ddpm import SwinDDPM
from ..networks.swin_ddpm_options import SwinDDPMConfig
from ..networks.swin_ddpm_sampling import image_channels, losses_per_image
from . import PREUPSAMPLE, STEPS


class TMDDPMRecipeOptions(RecipeOptions):
    """What a preset of TM-DDPM says."""

    unet: SwinDDPMConfig
    diffusion: GaussianConfig = GaussianConfig(learn_sigma=True)
    preupsample: Kernel = PREUPSAMPLE
    sampling_steps: int = Field(default=STEPS, ge=1, description="steps of the sampler that the checkpoint asks for")
    train_on_kept: bool = Field(
        default=False,
        description="train only the steps that the sampler visits, as the published code does; no other number fits then",
    )
    tile: int | None = Field(
        default=None, ge=8, description="side of the tiles that the checkpoint asks for; none: whole images"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            image_channels(self.unet, self.diffusion, "unet")
        except UserError as error:
            raise ValueError(str(error)) from None
        if self.sampling_steps > self.diffusion.steps:
            raise ValueError(f"sampling_steps {self.sampling_steps}: the diffusion has {self.diffusion.steps}")
        return self


class TMDDPMRecipe(Recipe[TMDDPMRecipeOptions]):
    """One network, one optimiser."""

    options_model = TMDDPMRecipeOptions

    def __init__(self, options: TMDDPMRecipeOptions, context: Context) -> None:
        """Make the diffusion (``UserError`` if the network takes other images than those of the training)."""
        super().__init__(options, context)
        channels = image_channels(options.unet, options.diffusion, "unet")
        if channels != context.channels:
            raise UserError(
                f"the network of this preset takes images of {channels} channel(s), the training images have {context.channels}. "
                f"Convert them with --set {context.card.name}.channels={channels}, or change in_channels and out_channels of unet."
            )
        self._diffusion = GaussianDiffusion.of(options.diffusion, options.sampling_steps if options.train_on_kept else None)

    def build(self) -> dict[str, nn.Module]:
        """The U-Net, in channels-last layout."""
        return {"unet": SwinDDPM(self.options.unet).to(memory_format=torch.channels_last)}

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``mse`` and, where the variance is learned, ``vb``."""
        x0, device = 2 * batch.hr - 1, batch.hr.device
        condition = 2 * upsample(batch.measurement, self.options.preupsample) - 1
        i = torch.randint(0, self._diffusion.num_steps, (len(x0),), generator=generator, device=device)
        noise = torch.randn(x0.shape, generator=generator, device=device)

        def network(state: Tensor, times: Tensor) -> Tensor:
            out: Tensor = networks["unet"](torch.cat([state, condition], dim=1), times)
            return out

        terms = losses_per_image(self._diffusion, self.options.diffusion, network, x0, i, noise)
        return {name: values.mean() for name, values in terms.items()}

    def checkpoint_config(self) -> dict[str, Any]:
        """The network, the diffusion, and how the method has to use them."""
        o = self.options
        parts = {"unet": o.unet.model_dump(mode="json"), "diffusion": o.diffusion.model_dump(mode="json")}
        tile = {} if o.tile is None else {"tile": o.tile}
        return {"architecture": parts, "method_options": {"steps": o.sampling_steps, "preupsample": o.preupsample, **tile}}
