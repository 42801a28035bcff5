"""Training of I2SB: squared error of the scaled way from a state of the bridge back to the HR image, at a random step.

Loss (arXiv:2302.05872, eq. 12): ``||f(x_n, t_n) - (x_n - x_0) / sigma_n||^2`` with n uniform over the steps, images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.adm import ADMUNet
from ..networks.adm_options import ADMConfig
from ..networks.bridge import Bridge, bridge_loss
from ..networks.bridge_options import BridgeConfig, Final, Sampling
from ..networks.bridge_weights import channels_of, from_prior


class I2SBRecipeOptions(RecipeOptions):
    """What a preset of I2SB says."""

    unet: ADMConfig
    bridge: BridgeConfig = BridgeConfig()
    preupsample: Literal["nearest", "bicubic", "bspline"] = "nearest"
    nfe: int = Field(default=100, ge=1, description="network calls of the sampler that the checkpoint asks for")
    sampling: Sampling | None = Field(default=None, description="sampler that the checkpoint asks for; none: as trained")
    clip: bool = Field(default=False, description="whether the checkpoint asks to clamp every estimate of x_0")
    final: Final = Field(default="official", description="what the sampler returns, see the method's options")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            channels_of(self.unet, self.bridge, "unet")
        except UserError as error:
            raise ValueError(str(error)) from None
        if self.nfe >= self.bridge.interval:
            raise ValueError(f"nfe {self.nfe}: a bridge of {self.bridge.interval} steps has up to {self.bridge.interval - 1}")
        return self


class I2SBRecipe(Recipe[I2SBRecipeOptions]):
    """One network, one optimiser. ``--init`` takes weights of I2SB or of an unconditional ADM, from which the published ones began."""

    options_model = I2SBRecipeOptions
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ot_ode": {"bridge.ot_ode": True}}

    def __init__(self, options: I2SBRecipeOptions, context: Context) -> None:
        """Make the bridge (``UserError`` if the network takes other images than those of the training)."""
        super().__init__(options, context)
        channels = channels_of(options.unet, options.bridge, "unet")
        if channels != context.channels:
            raise UserError(
                f"the network of this preset takes images of {channels} channel(s), the training images have {context.channels}. "
                f"Convert them with --set {context.card.name}.channels={channels}, or change in_channels and out_channels of unet."
            )
        self._bridge = Bridge(options.bridge)

    def build(self) -> dict[str, nn.Module]:
        """The U-Net, in channels-last layout."""
        return {"unet": ADMUNet(self.options.unet).to(memory_format=torch.channels_last)}

    def load_weights(self, networks: Networks, tensors: Mapping[str, Tensor]) -> None:
        """Weights of the same network, or of an ADM that also estimates a variance or sees no condition.

        Raises
        ------
        UserError : the tensors do not fit, naming the first differing keys and shapes.
        """
        super().load_weights(networks, from_prior(tensors, networks["unet"].state_dict()))

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``mse``."""
        unet, bridge, device = networks["unet"], self._bridge, batch.hr.device
        x0 = 2 * batch.hr - 1
        x1 = 2 * upsample(batch.measurement, self.options.preupsample) - 1
        n = torch.randint(0, bridge.config.interval, (len(x0),), generator=generator, device=device)
        noise = None if bridge.config.ot_ode else torch.randn(x0.shape, generator=generator, device=device)

        def network(state: Tensor, times: Tensor) -> Tensor:
            out: Tensor = unet(torch.cat([state, x1], dim=1) if bridge.config.cond_x1 else state, times)
            return out

        return {"mse": bridge_loss(bridge, network, x0, x1, n, noise).mean()}

    def checkpoint_config(self) -> dict[str, Any]:
        """The network, the bridge, and how the method has to use them."""
        o = self.options
        sampler = {"nfe": o.nfe, "sampling": o.sampling, "clip": o.clip, "final": o.final, "preupsample": o.preupsample}
        return {
            "architecture": {"unet": o.unet.model_dump(mode="json"), "bridge": o.bridge.model_dump(mode="json")},
            "method_options": {key: value for key, value in sampler.items() if value is not None},
        }
