"""Training of Res-SRDiff: squared error and LPIPS of the estimate of x_0, at a random step of the diffusion.

Loss (the paper, section 2.2; its published code): ``lambda ||x_0 - f(x_t, t, y)||^2 + LPIPS(x_0, f(x_t, t, y))`` with images in
[-1, 1], f clamped for LPIPS; lambda = 10 in the paper, 4 in the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mrbench.degradation.measurement import upsample
from mrbench.train.losses import LpipsKind, LpipsLoss, lpips_loss
from mrbench.train.recipe import Context, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.residual_losses import diffusion_loss
from ..networks.residual_shift import ResidualShift
from ..networks.residual_shift_options import DiffusionConfig
from ..networks.swin_unet import SwinUNet
from ..networks.swin_unet_options import SwinUNetConfig


class ResSRDiffRecipeOptions(RecipeOptions):
    """What a preset of Res-SRDiff says."""

    unet: SwinUNetConfig
    diffusion: DiffusionConfig
    preupsample: Literal["nearest", "bicubic", "bspline"] = "bspline"
    sampling_steps: int = Field(default=4, ge=1, description="steps of the sampler that the checkpoint asks for")
    mse: float = Field(default=4.0, gt=0, description="weight of the squared error (lambda)")
    lpips: LpipsKind = Field(default="alex", description="backbone of the perceptual term; off: none")
    lpips_weight: float = Field(default=1.0, gt=0, description="weight of the perceptual term")


class ResSRDiffRecipe(Recipe[ResSRDiffRecipeOptions]):
    """One network, one optimiser; the step t is uniform over the training steps."""

    options_model = ResSRDiffRecipeOptions
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no_swin": {"unet.swin": False}}  # the paper's Table 2

    def __init__(self, options: ResSRDiffRecipeOptions, context: Context) -> None:
        """Make the diffusion and fetch the perceptual network (``UserError`` if it cannot be had)."""
        super().__init__(options, context)
        self._process = ResidualShift(options.diffusion)
        self._perceptual: LpipsLoss | None = lpips_loss(options.lpips, context.device, f"{context.card.name}.lpips")

    def build(self) -> dict[str, nn.Module]:
        """The U-Net, in channels-last layout."""
        return {"unet": SwinUNet(self.options.unet).to(memory_format=torch.channels_last)}

    def losses(
        self, networks: Mapping[str, nn.Module], batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``mse`` and, unless it is off, ``lpips``."""
        unet, device = networks["unet"], batch.hr.device
        x0 = 2 * batch.hr - 1
        y = 2 * upsample(batch.measurement, self.options.preupsample) - 1
        t = torch.randint(0, self._process.steps, (len(x0),), generator=generator, device=device)
        noise = torch.randn(x0.shape, generator=generator, device=device)
        found = diffusion_loss(self._process, lambda x, told: unet(x, told, y), x0, y, t, noise)
        terms = {"mse": self.options.mse * found.mse.mean()}
        if self._perceptual is not None:
            estimate = (found.x0.clamp(-1, 1) + 1) / 2
            terms["lpips"] = self.options.lpips_weight * self._perceptual(estimate, batch.hr)
        return terms

    def checkpoint_config(self) -> dict[str, Any]:
        """The network, the diffusion, and how the method has to use them."""
        o = self.options
        return {
            "architecture": {"unet": o.unet.model_dump(mode="json"), "diffusion": o.diffusion.model_dump(mode="json")},
            "method_options": {"steps": o.sampling_steps, "preupsample": o.preupsample},
        }

    def optimised_for(self) -> tuple[str, ...]:
        """The perceptual metric that is also the loss."""
        return () if self._perceptual is None else (self._perceptual.metric,)
