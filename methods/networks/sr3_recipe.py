"""How SR3 networks are trained: what the recipes of SR3 and MSP-SR share.

Loss (arXiv:2104.07636, algorithm 1): ``|f(cond, g x_0 + sqrt(1 - g^2) n, g) - n|`` to the power p, with images in [-1, 1] and g
between two neighbouring noise levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from .loading import load_strict
from .sr3 import SR3UNet, initialise
from .sr3_diffusion import SR3Diffusion
from .sr3_options import SR3Config, SR3DiffusionConfig, Variance
from .sr3_weights import unet_tensors

UNET = "unet"


class SR3RecipeOptions(RecipeOptions):
    """Network, diffusion, loss, and the sampler that the checkpoint asks for."""

    unet: SR3Config
    diffusion: SR3DiffusionConfig = SR3DiffusionConfig()
    loss: Literal["l1", "l2"] = Field(default="l1", description="of the prediction: l1 as the published code has it, or l2")
    one_step: bool = Field(
        default=False, description="all images of a batch are noised between the same two steps, as in the published code"
    )
    sampling_steps: PositiveInt = Field(default=100, description="network calls of the sampler that the checkpoint asks for")
    variance: Variance = Field(default="posterior", description="of the noise added in a step of that sampler")
    tile: PositiveInt | None = Field(default=None, description="side of the tiles that the checkpoint asks for")

    @model_validator(mode="after")
    def _sampler(self) -> Self:
        if self.sampling_steps > self.diffusion.steps:
            raise ValueError(f"sampling_steps {self.sampling_steps}: the diffusion has {self.diffusion.steps}")
        return self


O = TypeVar("O", bound=SR3RecipeOptions)  # noqa: E741


class SR3BaseRecipe(Recipe[O]):
    """One network, one optimiser. ``--init`` takes published weights too."""

    options_model: ClassVar[type[RecipeOptions]] = SR3RecipeOptions

    def __init__(self, options: O, context: Context) -> None:
        """Make the diffusion (``UserError`` if the network takes other images than those of the training)."""
        super().__init__(options, context)
        channels = options.unet.out_channel
        if channels != context.channels:
            raise UserError(
                f"the network of this preset takes images of {channels} channel(s), the training images have {context.channels}. "
                f"Convert them with --set {context.card.name}.channels={channels}, or change in_channel and out_channel of unet."
            )
        self._diffusion = SR3Diffusion(options.diffusion)

    def build(self) -> dict[str, nn.Module]:
        """The U-Net with orthogonal weights, in channels-last layout."""
        network = SR3UNet(self.options.unet)
        initialise(network)
        return {UNET: network.to(memory_format=torch.channels_last)}

    def load_weights(self, networks: Networks, tensors: Mapping[str, Tensor]) -> None:
        """The U-Net from weights of this method or published ones.

        Raises
        ------
        UserError : the tensors do not fit, naming the first differing keys and shapes.
        """
        load_strict(networks[UNET], unet_tensors(tensors), what="the weights")

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``l1`` or ``l2``."""
        return {self.options.loss: self.prediction(networks, batch, generator)[0]}

    def prediction(self, networks: Networks, batch: TrainBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of the prediction, the estimate of x_0 that it stands for (``[B, C, H, W]``, not clamped), and g ``[B]``."""
        x0 = 2 * batch.hr - 1
        condition = 2 * upsample(batch.measurement) - 1
        g = self._diffusion.draw(len(x0), generator, self.options.one_step)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = self._diffusion.noisy(x0, g, noise)
        output = self.predict(networks, torch.cat([condition, x], dim=1), g).float()
        gap = output - self._diffusion.target(x0, g, noise, condition)
        error = gap.abs().mean() if self.options.loss == "l1" else gap.square().mean()
        return error, self._diffusion.estimate(x, g, output, condition), g

    def predict(self, networks: Networks, x: Tensor, g: Tensor) -> Tensor:
        """What the networks return for the LR and the noisy image ``[B, 2 C, H, W]`` at noise levels ``[B]``."""
        out: Tensor = networks[UNET](x, g)
        return out

    def checkpoint_config(self) -> dict[str, Any]:
        """The network, the diffusion, and how the method has to use them."""
        o = self.options
        sampler = {"steps": o.sampling_steps, "variance": o.variance, "tile": o.tile}
        return {
            "architecture": {"unet": o.unet.model_dump(mode="json"), "diffusion": o.diffusion.model_dump(mode="json")},
            "method_options": {key: value for key, value in sampler.items() if value is not None},
        }
