"""Training of regression baselines: squared or absolute error of the restored image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mrbench.cards import Options
from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from .enlarge import onto_hr_grid


class RegressionRecipeOptions(RecipeOptions):
    """What a preset says. ``network`` is the method's."""

    network: Options
    loss: Literal["l1", "mse"] = Field(default="l1", description="l1: as published; mse: estimates the posterior mean")


RegressionOptions = TypeVar("RegressionOptions", bound=RegressionRecipeOptions)


class RegressionRecipe(Recipe[RegressionOptions]):
    """One network, one optimiser. The scale is that of the training."""

    name: ClassVar[str]
    config: ClassVar[type[Options]]
    network: ClassVar[Callable[[Any], nn.Module]]

    def __init__(self, options: RegressionOptions, context: Context) -> None:
        """Fix scale and channels (``UserError`` if the scale is no whole number)."""
        super().__init__(options, context)
        if not isinstance(context.scale, int):
            raise UserError(
                f"{self.name} enlarges by whole numbers, not {context.scale:g} times. Choose another scale or method."
            )
        shape = options.network.model_dump()
        self._scale = context.scale
        self._config = self.config.model_validate({**shape, "channels": context.channels, "scale": context.scale})

    def build(self) -> dict[str, nn.Module]:
        """The network, in channels-last layout."""
        return {"network": type(self).network(self._config).to(memory_format=torch.channels_last)}  # type: ignore[call-overload]

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``l1`` or ``mse``."""
        residual = networks["network"](batch.measurement.y).float()
        estimate = upsample(batch.measurement) + onto_hr_grid(residual, batch.measurement, self._scale)
        error = estimate - batch.hr
        return {self.options.loss: error.abs().mean() if self.options.loss == "l1" else error.square().mean()}

    def checkpoint_config(self) -> dict[str, Any]:
        """The network."""
        return {"architecture": {"network": self._config.model_dump(mode="json")}}

    def optimised_for(self) -> tuple[str, ...]:
        """PSNR, of the squared error."""
        return ("psnr",) if self.options.loss == "mse" else ()
