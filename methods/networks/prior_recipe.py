"""Training of discrete diffusion priors: denoising of images at random steps, no degradation involved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mrbench.cards import MethodCard
from mrbench.engine.restorer import Restorer
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint
from mrbench.train.recipe import Context, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from .adm import ADMUNet
from .adm_options import ADMConfig
from .gaussian_diffusion import GaussianDiffusion
from .gaussian_diffusion_options import GaussianConfig
from .prior import states
from .prior_losses import Weighting, prior_losses, squared_error_weights


class PriorRecipeOptions(RecipeOptions):
    """What a preset of a discrete prior says."""

    family: Literal["adm"] = Field(default="adm", description="architecture")
    network: ADMConfig
    diffusion: GaussianConfig = GaussianConfig()
    weighting: Weighting = Field(default="uniform", description="of the squared error over the steps")
    gamma: float = Field(default=5.0, gt=0, description="cap of the signal-to-noise ratio, with weighting min_snr")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n = self.network
        expected = n.in_channels * (2 if self.diffusion.learn_sigma else 1)
        if n.out_channels != expected:
            what = "image and variance" if self.diffusion.learn_sigma else "image"
            raise ValueError(f"network.out_channels {n.out_channels}: the output is {what}, so {expected} channels")
        if n.num_classes is not None or n.low_res_channels:
            raise ValueError(
                "priors are trained without classes and low-resolution images: there are none to be had from a prior's data"
            )
        return self


class PriorRecipe(Recipe[PriorRecipeOptions]):
    """One network, one optimiser; images in [-1, 1] (:func:`.prior.states`); the step t is uniform over the training steps.

    Any method that samples with a discrete prior names this recipe on its card.
    """

    options_model = PriorRecipeOptions
    preset_folder = "prior_presets"
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "eps": {"diffusion.prediction": "eps"},
        "x0_weighting": {"weighting": "x0"},
    }

    def __init__(self, options: PriorRecipeOptions, context: Context) -> None:
        """Make the diffusion.

        Raises
        ------
        UserError : images with other channels than the network's.
        """
        super().__init__(options, context)
        if options.network.in_channels != context.channels:
            raise UserError(
                f"the images have {context.channels} channel(s), and the network takes {options.network.in_channels}. "
                f"Set channels to {options.network.in_channels}, or network.in_channels and network.out_channels."
            )
        self._diffusion = GaussianDiffusion.of(options.diffusion)
        self._weights = squared_error_weights(self._diffusion, options.diffusion, options.weighting, options.gamma)

    def build(self) -> dict[str, nn.Module]:
        """The U-Net, in channels-last layout."""
        return {"network": ADMUNet(self.options.network).to(memory_format=torch.channels_last)}

    def losses(
        self, networks: Mapping[str, nn.Module], batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``mse`` and, where the variance is learned, ``vb``."""
        x0 = states(batch.hr)
        t = torch.randint(0, self._diffusion.num_steps, (len(x0),), generator=generator, device=x0.device)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        x_t = self._diffusion.add_noise(x0, t, noise)
        output = networks["network"](x_t, t)
        return prior_losses(self._diffusion, self.options.diffusion, output, x0, x_t, t, noise, self._weights)

    def checkpoint_config(self) -> dict[str, Any]:
        """The network and the diffusion; a prior belongs to no scale and no degradation."""
        o = self.options
        return {
            "kind": "prior",
            "scale": None,
            "degradation": "",
            "architecture": {
                "family": o.family,
                "network": o.network.model_dump(mode="json"),
                "diffusion": o.diffusion.model_dump(mode="json"),
            },
        }

    def restorer(self, card: MethodCard, checkpoint: LocalCheckpoint, device: torch.device) -> Restorer | None:
        """``None``: a prior alone restores nothing, so stages select by the loss."""
        return None
