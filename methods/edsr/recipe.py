"""Training of EDSR (arXiv:1707.02921)."""

from __future__ import annotations

from ..networks.edsr import EDSR
from ..networks.edsr_options import EDSRConfig, EDSRShape
from ..networks.regression_recipe import RegressionRecipe, RegressionRecipeOptions


class EDSRRecipeOptions(RegressionRecipeOptions):
    """What a preset of EDSR says."""

    network: EDSRShape = EDSRShape()


class EDSRRecipe(RegressionRecipe[EDSRRecipeOptions]):
    """One network, one optimiser, absolute or squared error."""

    options_model = EDSRRecipeOptions
    name, config, network = "edsr", EDSRConfig, EDSR
