"""Training of CycleGAN: two generators, two discriminators, and images that do not belong together (Zhu 2017, section 3).

A: interpolated LR images, B: HR images. Generators: ``GAN(D_A(G_A(a))) + GAN(D_B(G_B(b))) + lambda (|G_B(G_A(a)) - a| +
|G_A(G_B(b)) - b|) + identity lambda (|G_A(b) - b| + |G_B(a) - a|)``, D_A judges B. Discriminators: half the sum of their losses on real
images and on images from a pool of earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mrbench.degradation.measurement import upsample
from mrbench.train.recipe import Context, Networks, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.gan_losses import GanKind, ImagePool, check_optimisers, gan_loss
from ..networks.gan_options import PREUPSAMPLE, Kernel, PatchGANConfig, ResnetGeneratorConfig
from ..networks.norms import init_normal
from ..networks.patchgan import PatchGAN
from ..networks.resnet_generator import ResnetGenerator
from ..networks.translation import check_channels


class CycleGANRecipeOptions(RecipeOptions):
    """What a preset of CycleGAN says."""

    generator: ResnetGeneratorConfig
    discriminator: PatchGANConfig = PatchGANConfig(norm="instance")
    preupsample: Kernel = PREUPSAMPLE
    gan: GanKind = "lsgan"
    cycle: float = Field(default=10.0, ge=0, description="weight of both cycles (lambda), of images in [-1, 1]")
    identity: float = Field(default=0.5, ge=0, description="weight of the identity terms, in units of lambda")
    pool: int = Field(default=50, ge=0, description="earlier images that each discriminator is shown again")
    running_statistics: bool = Field(
        default=False, description="whether the checkpoint asks for running statistics of batch normalisation"
    )
    unpaired: bool = Field(
        default=True,
        description="HR images of a batch are shifted by one place against the LR images; false: pairs, as a control",
    )

    @model_validator(mode="after")
    def _several(self) -> Self:
        for stage in self.stages:
            if self.unpaired and stage.batch // stage.accumulate < 2:
                raise ValueError(
                    f"stage {stage.name}: unpaired training takes LR and HR images of different patches of a batch, so it needs micro-batches "
                    "of 2 or more (batch / accumulate)"
                )
        return self


class CycleGANRecipe(Recipe[CycleGANRecipeOptions]):
    """Both directions are trained; the generator from LR to HR is kept."""

    options_model = CycleGANRecipeOptions
    shipped: ClassVar[tuple[str, ...]] = ("g_a",)
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no_cycle": {"cycle": 0.0}, "no_identity": {"identity": 0.0}}

    def __init__(self, options: CycleGANRecipeOptions, context: Context) -> None:
        """Check the options (``UserError`` if they do not fit the images)."""
        super().__init__(options, context)
        check_channels(options.generator.channels, context.channels, context.card.name)
        check_optimisers(options.stages, ("generators", "discriminators"))
        self._pools = {"a": ImagePool(options.pool), "b": ImagePool(options.pool)}

    def build(self) -> dict[str, nn.Module]:
        """``g_a`` (A to B), ``g_b``, ``d_a`` (judges B), ``d_b``; weights from N(0, 0.02)."""
        o = self.options
        channels = o.generator.channels
        networks: dict[str, nn.Module] = {
            "g_a": ResnetGenerator(o.generator),
            "g_b": ResnetGenerator(o.generator),
            "d_a": PatchGAN(channels, o.discriminator),
            "d_b": PatchGAN(channels, o.discriminator),
        }
        return {name: init_normal(network).to(memory_format=torch.channels_last) for name, network in networks.items()}

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``gan_a``, ``gan_b``, ``cycle_a``, ... of the generators; ``judge_a`` and ``judge_b`` of the discriminators."""
        a, b = self.domains(batch)
        if optimiser == "generators":
            return self._generators(networks, a, b)
        with torch.no_grad():
            made_b, made_a = networks["g_a"](a), networks["g_b"](b)
        shown_b, shown_a = self._pools["b"].query(made_b, generator), self._pools["a"].query(made_a, generator)
        return {
            "judge_a": self._judged(networks["d_a"], b, shown_b),
            "judge_b": self._judged(networks["d_b"], a, shown_a),
        }

    def domains(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """Images of A and B in [-1, 1]; unless pairs are wanted, image k of B is of another patch than image k of A."""
        a, b = 2 * upsample(batch.measurement, self.options.preupsample) - 1, 2 * batch.hr - 1
        return a, b.roll(1, 0) if self.options.unpaired else b

    def _generators(self, networks: Networks, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        o, g_a, g_b = self.options, networks["g_a"], networks["g_b"]
        made_b, made_a = g_a(a), g_b(b)
        terms = {
            "gan_a": gan_loss(o.gan, networks["d_a"](made_b), real=True),
            "gan_b": gan_loss(o.gan, networks["d_b"](made_a), real=True),
        }
        if o.cycle:
            terms["cycle_a"] = o.cycle * (g_b(made_b) - a).abs().mean()
            terms["cycle_b"] = o.cycle * (g_a(made_a) - b).abs().mean()
            if o.identity:
                terms["identity_a"] = o.cycle * o.identity * (g_a(b) - b).abs().mean()
                terms["identity_b"] = o.cycle * o.identity * (g_b(a) - a).abs().mean()
        return terms

    def _judged(self, judge: nn.Module, real: Tensor, made: Tensor) -> Tensor:
        kind = self.options.gan
        return 0.5 * (gan_loss(kind, judge(real), real=True) + gan_loss(kind, judge(made), real=False))

    def extra_state(self) -> dict[str, Any]:
        """The pools."""
        return {name: list(pool.images) for name, pool in self._pools.items()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """The pools again."""
        for name, pool in self._pools.items():
            pool.restore(image.to(self.context.device) for image in state[name])

    def checkpoint_config(self) -> dict[str, Any]:
        """The generator, and how the method has to use it."""
        o = self.options
        return {
            "architecture": {"generator": o.generator.model_dump(mode="json")},
            "method_options": {"preupsample": o.preupsample, "statistics": "running" if o.running_statistics else "image"},
        }
