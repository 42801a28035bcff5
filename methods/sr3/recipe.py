"""Training of SR3: L1 or squared error of the predicted noise at a continuous noise level (arXiv:2104.07636, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..networks.sr3_recipe import SR3BaseRecipe, SR3RecipeOptions


class SR3Recipe(SR3BaseRecipe[SR3RecipeOptions]):
    """One network, one optimiser."""

    options_model = SR3RecipeOptions
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"l2": {"loss": "l2"}}
