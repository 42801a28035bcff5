"""Training of ResShift (arXiv:2307.12348): on the latents of a VQ autoencoder, or on pixels."""

from __future__ import annotations

from ..networks.residual_recipe import LatentOptions, LatentRecipe


class ResShiftRecipe(LatentRecipe[LatentOptions]):
    """As :class:`LatentRecipe`; presets with an autoencoder take its file with ``--set resshift.autoencoder=FILE``."""
