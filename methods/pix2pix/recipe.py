"""Training of pix2pix: a conditional GAN plus absolute error (Isola 2017, eqs. 1 to 4).

Generator: ``a GAN(D(x, G(x)), real) + lambda |y - G(x)|``; discriminator: half the sum of its losses on real and fake pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mrbench.degradation.measurement import upsample
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.gan_losses import GanKind, check_optimisers, gan_loss
from ..networks.gan_options import PREUPSAMPLE, Kernel, PatchGANConfig, UNetGeneratorConfig
from ..networks.norms import init_normal
from ..networks.patchgan import PatchGAN
from ..networks.translation import check_channels
from ..networks.unet_generator import UNetGenerator


class Pix2PixRecipeOptions(RecipeOptions):
    """What a preset of pix2pix says."""

    generator: UNetGeneratorConfig
    discriminator: PatchGANConfig = PatchGANConfig()
    preupsample: Kernel = PREUPSAMPLE
    gan: GanKind = "vanilla"
    adversarial: float = Field(default=1.0, gt=0, description="weight of the generator's adversarial loss")
    l1: float = Field(default=100.0, ge=0, description="weight of the absolute error, of images in [-1, 1] (lambda)")
    running_statistics: bool = Field(
        default=False, description="whether the checkpoint asks for running statistics of batch normalisation"
    )


class Pix2PixRecipe(Recipe[Pix2PixRecipeOptions]):
    """A generator and a discriminator that sees the LR image beside the real or made one. The generator is kept."""

    options_model = Pix2PixRecipeOptions
    shipped: ClassVar[tuple[str, ...]] = ("generator",)
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no_l1": {"l1": 0.0}}

    def __init__(self, options: Pix2PixRecipeOptions, context: Context) -> None:
        """Check the options (``UserError`` if they do not fit each other or the images)."""
        super().__init__(options, context)
        check_channels(options.generator.channels, context.channels, context.card.name)
        check_optimisers(options.stages, ("generator", "discriminator"))

    def build(self) -> dict[str, nn.Module]:
        """Both networks, weights from N(0, 0.02)."""
        o = self.options
        networks: dict[str, nn.Module] = {
            "generator": UNetGenerator(o.generator),
            "discriminator": PatchGAN(2 * o.generator.channels, o.discriminator),
        }
        return {name: init_normal(network).to(memory_format=torch.channels_last) for name, network in networks.items()}

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``gan`` and ``l1`` of the generator, ``real`` and ``fake`` of the discriminator."""
        o, judge = self.options, networks["discriminator"]
        x, y = 2 * upsample(batch.measurement, o.preupsample) - 1, 2 * batch.hr - 1
        if optimiser == "generator":
            made = networks["generator"](x)
            terms = {"gan": o.adversarial * gan_loss(o.gan, judge(torch.cat([x, made], dim=1)), real=True)}
            return {**terms, "l1": o.l1 * (made - y).abs().mean()} if o.l1 else terms
        with torch.no_grad():
            made = networks["generator"](x)
        return {
            "real": 0.5 * gan_loss(o.gan, judge(torch.cat([x, y], dim=1)), real=True),
            "fake": 0.5 * gan_loss(o.gan, judge(torch.cat([x, made], dim=1)), real=False),
        }

    def checkpoint_config(self) -> dict[str, Any]:
        """The generator, and how the method has to use it."""
        o = self.options
        return {
            "architecture": {"generator": o.generator.model_dump(mode="json")},
            "method_options": {"preupsample": o.preupsample, "statistics": "running" if o.running_statistics else "image"},
        }
