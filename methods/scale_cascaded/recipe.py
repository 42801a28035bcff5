"""Training of scale-cascaded DiffPIR: an EDM2 denoiser for every band of the pyramid.

Loss (Karras et al. 2024, arXiv:2312.02696, eqs. 14, 21): ``w(sigma) / e^u(sigma) |D(x_i + sigma n | c_i) - x_i|^2 + u(sigma)``
of the
band ``x_i = X_i - U X_(i+1)``, conditioned on the clean ``c_i = U X_(i+1)``; the degradation is never seen. Bands are scaled
to the
standard deviation of the networks' data; the scale is measured when a level's first stage begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mrbench.cards import MethodCard
from mrbench.engine.restorer import Restorer
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint
from mrbench.train.recipe import Batches, Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions, Stage

from ..networks.band_prior import BandPrior
from ..networks.cascade_options import CascadeConfig
from ..networks.edm2_training import noise_levels
from ..networks.pyramid import Pyramid


class ScaleCascadedRecipeOptions(RecipeOptions):
    """What a preset says. A stage trains the levels that its optimisers name."""

    cascade: CascadeConfig
    p_mean: float = Field(default=-0.8, description="mean of the logarithm of the noise levels, in units of the networks")
    p_std: float = Field(default=1.6, gt=0, description="standard deviation of that logarithm")
    condition_noise: float = Field(
        default=0.0,
        ge=0,
        description="noise of a standard deviation drawn evenly from [0, this] is added to the image of the level below before "
        "it becomes the condition, in units of [0, 1]: when sampling, that image is not perfect either",
    )
    measured_batches: PositiveInt = Field(default=32, description="batches that means and spreads of the bands are measured on")
    sampling_steps: PositiveInt = Field(default=200, description="network calls in all that the checkpoint asks for")
    sigma_min: PositiveFloat = Field(default=0.002, description="last noise level when sampling, in units of the networks")
    sigma_max: PositiveFloat = Field(default=80.0, description="first noise level when sampling, in units of the networks")
    lam: PositiveFloat = Field(default=1.0, description="lambda that the checkpoint asks for")
    zeta: float = Field(default=1.0, ge=0, le=1, description="zeta that the checkpoint asks for")


class ScaleCascadedRecipe(Recipe[ScaleCascadedRecipeOptions]):
    """Networks ``level1`` (finest) to ``level3``; every stage trains those that its optimisers name."""

    options_model = ScaleCascadedRecipeOptions

    def __init__(self, options: ScaleCascadedRecipeOptions, context: Context) -> None:
        """Check that patches and channels fit the networks (``UserError``)."""
        super().__init__(options, context)
        config = options.cascade
        if config.channels != context.channels:
            raise UserError(
                f"{context.card.name}: the networks of this preset take images of {config.channels} channel(s), the data has "
                f"{context.channels}. Set the option channels, or img_channels and cond_channels of every level."
            )
        for stage in self.stages():
            for optimiser in stage.optimisers:
                for level in self._levels(stage, optimiser):
                    multiple = 2 ** (level - 1) * config.networks[f"level{level}"].multiple
                    if stage.patch % multiple:
                        raise UserError(
                            f"stage {stage.name}: patch {stage.patch} is not a multiple of {multiple}, which level{level} "
                            "needs."
                        )
        self._pyramid = Pyramid(config.pyramid)

    def build(self) -> dict[str, nn.Module]:
        """The networks of all levels, in channels-last layout."""
        networks = self.options.cascade.networks
        return {name: BandPrior(config).to(memory_format=torch.channels_last) for name, config in networks.items()}

    def start_stage(self, networks: Networks, stage: Stage, batches: Batches) -> None:
        """Measure the bands of levels that have not been measured yet (those of ``--init`` have)."""
        levels = sorted({level for name in stage.optimisers for level in self._levels(stage, name)})
        fresh = {level: self._network(networks, level) for level in levels}
        fresh = {level: network for level, network in fresh.items() if not network.measured}
        if fresh:
            images = [batch.hr for batch in batches(self.options.measured_batches)]
            for level, network in fresh.items():
                network.measure(self._pair(hr, level) for hr in images)

    def losses(
        self, networks: Mapping[str, nn.Module], batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """One term for every level that the optimiser steps."""
        o = self.options
        terms = {}
        for level in self._levels(step.stage, optimiser):
            network = self._network(networks, level)
            noise_of_condition = None
            if o.condition_noise and level < o.cascade.count:
                uniform = torch.rand(len(batch.hr), generator=generator, device=batch.hr.device)
                noise_of_condition = o.condition_noise * uniform, generator
            x, condition = self._pair(batch.hr, level, noise_of_condition)
            sigma = noise_levels(torch.randn(len(x), generator=generator, device=x.device), o.p_mean, o.p_std)
            noise = torch.randn(x.shape, generator=generator, device=x.device)
            terms[f"level{level}"] = network.loss(x, condition, sigma, noise).mean()
        return terms

    def checkpoint_config(self) -> dict[str, Any]:
        """The cascade, and how it wants to be sampled."""
        o = self.options
        return {
            "architecture": o.cascade.model_dump(mode="json"),
            "method_options": {
                "steps": o.sampling_steps,
                "sigma_min": o.sigma_min,
                "sigma_max": o.sigma_max,
                "lam": o.lam,
                "zeta": o.zeta,
            },
        }

    def restorer(self, card: MethodCard, checkpoint: LocalCheckpoint, device: torch.device) -> Restorer | None:
        """``None`` until every level has been trained."""
        tensors = checkpoint.tensors()
        units = [value for key, value in tensors.items() if key.rpartition(".")[2] == "unit"]
        return super().restorer(card, checkpoint, device) if all(bool(u > 0) for u in units) else None

    def _levels(self, stage: Stage, optimiser: str) -> list[int]:
        """Numbers of the levels that an optimiser steps (names it does not know are the loop's to refuse)."""
        named = stage.optimisers[optimiser].networks
        return [i for i, name in enumerate(self.options.cascade.networks, start=1) if not named or name in named]

    @staticmethod
    def _network(networks: Networks, level: int) -> BandPrior:
        network = networks[f"level{level}"]
        assert isinstance(network, BandPrior)
        return network

    def _pair(
        self, hr: Tensor, level: int, noise: tuple[Tensor, torch.Generator] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The band of a level and its condition; ``noise``: standard deviations ``[B]`` for the image below."""
        image = self._pyramid.down(hr, level - 1)
        if level == self.options.cascade.count:
            return image, None
        below = self._pyramid.down(image)
        condition = self._pyramid.transfer(image.shape[2:]).up(below)
        band = image - condition
        if noise is not None:
            spread, generator = noise
            below = below + spread[:, None, None, None] * torch.randn(below.shape, generator=generator, device=below.device)
            condition = self._pyramid.transfer(image.shape[2:]).up(below)
        return band, condition
