"""Training of SPSR: adversarial, pixel and perceptual losses of the image and of its gradients (Ma 2020, section 3.3).

Generator, with M the map of gradients: ``pixel |x - G|_1 + perceptual |VGG(x) - VGG(G)|_1 + gan RaGAN(D) + gradient |M(x) - M(G)|^2 +
gradient_gan RaGAN(D_M) + branch |M(x) - branch|_1``. Weights are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mrbench.degradation.measurement import Measurement
from mrbench.errors import UserError
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.enlarge import onto_hr_grid
from ..networks.gan_losses import check_optimisers, relativistic_loss
from ..networks.loading import unwrapped
from ..networks.spsr import SPSR, VGGDiscriminator, gradient_map, init_small
from ..networks.spsr_options import SPSRConfig, SPSRShape, VGGDiscriminatorConfig
from ..networks.spsr_weights import from_trunk
from ..networks.vgg_loss import VGGLoss

LOSS_PADDING = 2  # of gradient maps in the losses, but for the branch


class SPSRRecipeOptions(RecipeOptions):
    """What a preset of SPSR says."""

    path_options: ClassVar[tuple[str, ...]] = ("vgg",)

    generator: SPSRShape = SPSRShape()
    discriminator: VGGDiscriminatorConfig = VGGDiscriminatorConfig()
    pixel: float = Field(default=1e-2, ge=0, description="weight of the absolute error")
    vgg: str | None = Field(
        default=None, description="file of VGG19 (torchvision's vgg19-dcbb9e9d.pth); none: no perceptual loss"
    )
    perceptual: float = Field(default=1.0, ge=0, description="weight of the perceptual loss")
    gan: float = Field(default=5e-3, ge=0, description="weight of the adversarial loss of the image")
    gradient: float = Field(default=1e-2, ge=0, description="weight of the squared error of the gradients")
    gradient_gan: float = Field(default=5e-3, ge=0, description="weight of the adversarial loss of the gradients")
    branch: float = Field(default=0.5, ge=0, description="weight of the absolute error of the branch")


class SPSRRecipe(Recipe[SPSRRecipeOptions]):
    """A generator and two discriminators, of images and of gradients. The generator is kept.

    ``--init`` takes weights of SPSR or of an RRDB network (``RRDB_PSNR_x4.pth``), from which the published ones began.
    """

    options_model = SPSRRecipeOptions
    shipped: ClassVar[tuple[str, ...]] = ("generator",)

    def __init__(self, options: SPSRRecipeOptions, context: Context) -> None:
        """Fix scale and channels and read VGG19, if it is named.

        Raises
        ------
        UserError : a scale that is no power of 2, patches of another size than the discriminators', or no VGG19 in the file.
        """
        super().__init__(options, context)
        if not isinstance(context.scale, int) or context.scale & (context.scale - 1):
            raise UserError(f"spsr enlarges by powers of 2, not {context.scale:g} times. Choose another scale or method.")
        check_optimisers(options.stages, ("generator", "discriminators"))
        for stage in options.stages:
            if stage.patch != options.discriminator.size:
                raise UserError(
                    f"stage {stage.name}: patches of {stage.patch}, but the discriminators judge {options.discriminator.size} pixels. "
                    f"Set {context.card.name}.discriminator.size to the patch, a multiple of 32."
                )
        self._config = SPSRConfig(**options.generator.model_dump(), channels=context.channels, scale=context.scale)
        self._vgg = None if options.vgg is None else VGGLoss(options.vgg).to(context.device)

    def build(self) -> dict[str, nn.Module]:
        """``generator``, ``image_judge`` and ``gradient_judge``."""
        channels, form = self._config.channels, self.options.discriminator
        networks: dict[str, nn.Module] = {
            "generator": init_small(SPSR(self._config)),
            "image_judge": VGGDiscriminator(channels, form),
            "gradient_judge": VGGDiscriminator(channels, form),
        }
        return {name: network.to(memory_format=torch.channels_last) for name, network in networks.items()}

    def load_weights(self, networks: Networks, tensors: Mapping[str, Tensor]) -> None:
        """Weights of the same network, or of a trunk alone.

        Raises
        ------
        UserError : the tensors do not fit, naming the first differing keys and shapes.
        """
        super().load_weights(networks, from_trunk(unwrapped(tensors), networks["generator"].state_dict()))

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """The generator's terms by the names of their weights; ``image_judge`` and ``gradient_judge`` of the discriminators."""
        o, hr, m = self.options, batch.hr, batch.measurement
        wanted = gradient_map(hr, LOSS_PADDING)
        image_judge, gradient_judge = networks["image_judge"], networks["gradient_judge"]
        if optimiser == "discriminators":
            with torch.no_grad():
                image = self._on_grid(networks["generator"](m.y).image, m)
            return {
                "image_judge": relativistic_loss(image_judge(hr), image_judge(image), generator=False),
                "gradient_judge": relativistic_loss(
                    gradient_judge(wanted), gradient_judge(gradient_map(image, LOSS_PADDING)), generator=False
                ),
            }
        made = networks["generator"](m.y)
        image, branch = self._on_grid(made.image, m), self._on_grid(made.gradient, m)
        gradients = gradient_map(image, LOSS_PADDING)
        terms = {
            "pixel": o.pixel * (image - hr).abs().mean(),
            "gradient": o.gradient * (gradients - wanted).square().mean(),
            "branch": o.branch * (branch - gradient_map(hr)).abs().mean(),
        }
        if self._vgg is not None and o.perceptual:
            terms["perceptual"] = o.perceptual * self._vgg(image, hr)
        if o.gan:
            terms["gan"] = o.gan * relativistic_loss(image_judge(hr).detach(), image_judge(image), generator=True)
        if o.gradient_gan:
            real = gradient_judge(wanted).detach()
            terms["gradient_gan"] = o.gradient_gan * relativistic_loss(real, gradient_judge(gradients), generator=True)
        return terms

    def _on_grid(self, image: Tensor, measurement: Measurement) -> Tensor:
        return onto_hr_grid(image.float(), measurement, self._config.scale)

    def checkpoint_config(self) -> dict[str, Any]:
        """The generator."""
        return {"architecture": {"generator": self._config.model_dump(mode="json")}}
