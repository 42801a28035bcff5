"""Training of SwinIR (arXiv:2108.10257)."""

from __future__ import annotations

from ..networks.regression_recipe import RegressionRecipe, RegressionRecipeOptions
from ..networks.swinir import SwinIR
from ..networks.swinir_options import SwinIRConfig, SwinIRShape


class SwinIRRecipeOptions(RegressionRecipeOptions):
    """What a preset of SwinIR says."""

    network: SwinIRShape = SwinIRShape()


class SwinIRRecipe(RegressionRecipe[SwinIRRecipeOptions]):
    """One network, one optimiser, absolute or squared error."""

    options_model = SwinIRRecipeOptions
    name, config, network = "swinir", SwinIRConfig, SwinIR
