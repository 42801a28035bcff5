"""Distillation of SinSR (arXiv:2311.14760, section 3): one step of the student for all steps of a ResShift teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint
from mrbench.train.recipe import Context, Recipe, Step, TrainBatch
from mrbench.train.settings import RecipeOptions

from ..networks.conditioning import resample
from ..networks.loading import load_strict, selected
from ..networks.residual_losses import distillation_loss
from ..networks.residual_model import Architecture, ResidualShiftModel
from ..networks.residual_recipe import AUTOENCODER, bound
from ..networks.residual_shift import ResidualShift
from ..networks.residual_shift_options import DiffusionConfig
from ..networks.swin_unet import SwinUNet

STUDENT, TEACHER = "unet", "teacher"


class SinSRRecipeOptions(RecipeOptions):
    """What a preset of SinSR says. The network and the diffusion are the teacher's."""

    path_options: ClassVar[tuple[str, ...]] = (AUTOENCODER, TEACHER)

    teacher: str = Field(default="resshift", description="ResShift weights: resshift, resshift@NAME or resshift@PATH")
    diffusion: DiffusionConfig | None = Field(default=None, description="the teacher's, if its checkpoint does not say")
    autoencoder: str | None = Field(
        default=None, description="file of the autoencoder, if the teacher works on latents without it"
    )
    inverse_weight: float = Field(default=1.0, ge=0, description="weight of the loss that maps x_0 back to x_T")
    truth_weight: float = Field(default=1.0, ge=0, description="weight of the consistency with the ground truth")


class SinSRRecipe(Recipe[SinSRRecipeOptions]):
    """Three losses on x_0 (or its latent); the teacher samples deterministically and stays as it is.

    ``distill``: one step of the student against the end of the teacher's trajectory from the same x_T. ``inverse``: the student,
    told step 0, maps that end back to x_T. ``truth``: from the ground truth to x_T (no gradient) and back.
    """

    options_model = SinSRRecipeOptions

    def __init__(self, options: SinSRRecipeOptions, context: Context) -> None:
        """Load the teacher.

        Raises
        ------
        UserError : no such weights, no diffusion stated, or an optimiser that would train other networks than the student.
        """
        super().__init__(options, context)
        self._checkpoint = context.open_checkpoint(options.teacher)
        architecture = Architecture(self._checkpoint, "resshift")
        self._latent = architecture.on_latents(options.autoencoder)
        self._model = ResidualShiftModel.load(self._checkpoint, architecture, "cpu", options.autoencoder)
        diffusion = options.diffusion or architecture.diffusion
        if diffusion is None:
            raise UserError(
                f"{architecture.what} does not say which diffusion it was trained with. Give it: --set {context.card.name}.diffusion.steps=15 "
                f"--set {context.card.name}.diffusion.min_noise_level=0.04 and so on."
            )
        self._process = ResidualShift(diffusion)
        for stage in options.stages:
            if any(o.networks != (STUDENT,) for o in stage.optimisers.values()):
                raise UserError(f"stage {stage.name}: only the student is trained. Every optimiser has networks: [{STUDENT}].")

    def build(self) -> dict[str, nn.Module]:
        """The student, which begins as a copy of the teacher, the teacher, and the autoencoder of both where there is one."""
        networks: dict[str, nn.Module] = {
            STUDENT: copy.deepcopy(self._model.unet).requires_grad_(True),
            TEACHER: self._model.unet,
        }
        if self._model.autoencoder is not None:
            networks[AUTOENCODER] = self._model.autoencoder
        return networks

    def losses(
        self, networks: Mapping[str, nn.Module], batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``distill``, and ``inverse`` and ``truth`` unless their weights are 0."""
        o, model = self.options, self._model
        upsampled = 2 * resample(batch.measurement) - 1
        condition = upsampled if model.lq_step == 1 else 2 * resample(batch.measurement, model.lq_step) - 1
        with torch.no_grad():
            y, x0 = model.encode(upsampled), model.encode(2 * batch.hr - 1)
        noise = torch.randn(y.shape, generator=generator, device=y.device)
        found = distillation_loss(
            self._process,
            bound(networks[STUDENT], condition),
            bound(networks[TEACHER], condition),
            y,
            noise,
            x0,
            learn_inverse=o.inverse_weight > 0,
            truth_weight=o.truth_weight,
        )
        terms = {"distill": found.distill.mean()}
        if found.inverse is not None:
            terms["inverse"] = o.inverse_weight * found.inverse.mean()
        if found.truth is not None:
            terms["truth"] = o.truth_weight * found.truth.mean()
        return terms

    def state_dict(self, networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """The student; on latents with the autoencoder, both with their names before the keys."""
        if AUTOENCODER not in networks:
            return dict(networks[STUDENT].state_dict())
        return {f"{part}.{k}": v for part in (STUDENT, AUTOENCODER) for k, v in networks[part].state_dict().items()}

    def load_weights(self, networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
        """The student from weights of either form."""
        own = selected(tensors, (f"{STUDENT}.",))
        load_strict(networks[STUDENT], own, derived=SwinUNet.derived_buffers, what="the weights")

    def draws_on(self) -> Mapping[str, LocalCheckpoint]:
        """The teacher."""
        return {TEACHER: self._checkpoint}

    def checkpoint_config(self) -> dict[str, Any]:
        """The networks, the diffusion and the size of the tiles, which are the teacher's."""
        parts = {"unet": self._model.unet.config, "diffusion": self._process.config}
        if self._model.autoencoder is not None:
            parts[AUTOENCODER] = self._model.autoencoder.config
        taught = self._checkpoint.config.get("method_options") or {}
        return {
            "architecture": {name: config.model_dump(mode="json") for name, config in parts.items()},
            "method_options": {"tile": taught["tile"]} if taught.get("tile") else {},
        }
