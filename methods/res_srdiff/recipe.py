"""Training of Res-SRDiff: squared error and LPIPS of the estimate of x_0, at a random step of the diffusion.

Loss (the paper, section 2.2; its published code): ``lambda ||x_0 - f(x_t, t, y)||^2 + LPIPS(x_0, f(x_t, t, y))`` with images in
[-1, 1], f clamped for LPIPS; lambda = 10 in the paper, 4 in the code.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from mrbench.degradation.measurement import Measurement, upsample
from mrbench.train.losses import LpipsKind

from ..networks.residual_recipe import ResidualOptions, ResidualRecipe


class ResSRDiffRecipeOptions(ResidualOptions):
    """What a preset of Res-SRDiff says."""

    preupsample: Literal["nearest", "bicubic", "bspline"] = "bspline"
    sampling_steps: int = Field(default=4, ge=1, description="steps of the sampler that the checkpoint asks for")
    mse: float = Field(default=4.0, gt=0, description="weight of the squared error (lambda)")
    lpips: LpipsKind = Field(default="alex", description="backbone of the perceptual term; off: none")


class ResSRDiffRecipe(ResidualRecipe[ResSRDiffRecipeOptions]):
    """On pixels, with the pre-upsampling of the options."""

    options_model = ResSRDiffRecipeOptions

    def upsample(self, measurement: Measurement) -> Tensor:
        """The LR image on the HR grid, ``[B, C, H, W]`` in [0, 1]."""
        return upsample(measurement, self.options.preupsample)

    def checkpoint_config(self) -> dict[str, Any]:
        """The network, the diffusion, and how the method has to use them."""
        config = super().checkpoint_config()
        options = {"steps": self.options.sampling_steps, "preupsample": self.options.preupsample}
        return {**config, "method_options": {**config["method_options"], **options}}
