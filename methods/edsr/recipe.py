"""Training of EDSR: squared or absolute error of the restored image."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.edsr import EDSR
from ..networks.edsr_options import EDSRConfig, EDSRShape
from ..networks.enlarge import onto_hr_grid


class EDSRRecipeOptions(RecipeOptions):
    """What a preset of EDSR says."""

    network: EDSRShape = EDSRShape()
    loss: Literal["l1", "mse"] = Field(default="l1", description="l1: as published; mse: estimates the posterior mean")


class EDSRRecipe(Recipe[EDSRRecipeOptions]):
    """One network, one optimiser. The scale is that of the training."""

    options_model = EDSRRecipeOptions

    def __init__(self, options: EDSRRecipeOptions, context: Context) -> None:
        """Fix scale and channels (``UserError`` if the scale is no whole number)."""
        super().__init__(options, context)
        if not isinstance(context.scale, int):
            raise UserError(f"edsr enlarges by whole numbers, not {context.scale:g} times. Choose another scale or method.")
        self._config = EDSRConfig(**options.network.model_dump(), channels=context.channels, scale=context.scale)

    def build(self) -> dict[str, nn.Module]:
        """The network, in channels-last layout."""
        return {"network": EDSR(self._config).to(memory_format=torch.channels_last)}

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``l1`` or ``mse``."""
        residual = networks["network"](batch.measurement.y).float()
        estimate = upsample(batch.measurement) + onto_hr_grid(residual, batch.measurement, self._config.scale)
        error = estimate - batch.hr
        return {self.options.loss: error.abs().mean() if self.options.loss == "l1" else error.square().mean()}

    def checkpoint_config(self) -> dict[str, Any]:
        """The network."""
        return {"architecture": {"network": self._config.model_dump(mode="json")}}

    def optimised_for(self) -> tuple[str, ...]:
        """PSNR, of the squared error."""
        return ("psnr",) if self.options.loss == "mse" else ()
