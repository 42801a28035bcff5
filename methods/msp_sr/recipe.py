"""Training of MSP-SR: the U-Net out of domain, then the branch in domain, then the branch in the target domain.

Loss: ``gamma l_GT + (1 - gamma) l_CON``; l_GT is the error of the predicted noise, l_CON the squared error between the LR image and
the degraded estimate of x_0, both in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.train.recipe import Networks, Step, TrainBatch
from mrbench.train.settings import OptimiserSpec, Stage

from ..networks.controlnet import ControlBranch, controlled
from ..networks.loading import load_strict, selected
from ..networks.sr3 import SR3UNet
from ..networks.sr3_recipe import UNET, SR3BaseRecipe, SR3RecipeOptions

CONTROL = "control"
Consistency = Literal["off", "clamped", "weighted", "paper"]


class MSPSRRecipeOptions(SR3RecipeOptions):
    """What a preset of MSP-SR says."""

    loss: Literal["l1", "l2"] = Field(default="l2", description="of the prediction: l2 as the paper has it, or l1")
    gamma: float = Field(
        default=0.5, gt=0, le=1, description="weight of the prediction's loss; 1 - gamma: of the consistency loss"
    )
    consistency: Consistency = Field(
        default="clamped",
        description="of the estimate of x_0 with the LR image. off: gamma does not count; clamped: the estimate is clamped to the range "
        "of images, as the sampler does; weighted: times g^2 instead; paper: neither, and gradients are not clipped",
    )
    control: bool = Field(default=True, description="whether there is a branch; without one, all stages train the U-Net")
    skip: tuple[str, ...] = Field(
        default=(), description="stages that are left out; the first that is not always trains the whole U-Net"
    )

    @model_validator(mode="after")
    def _stages_left(self) -> Self:
        names = [s.name for s in self.stages]
        unknown = [n for n in self.skip if n not in names]
        if unknown:
            raise ValueError(f"skip: no stage {', '.join(unknown)} (stages: {', '.join(names)})")
        if set(names) <= set(self.skip):
            raise ValueError("skip leaves no stage")
        for stage in self.stages:
            for optimiser in stage.optimisers.values():
                if optimiser.networks not in ((UNET,), (CONTROL,)):
                    raise ValueError(f"stage {stage.name}: an optimiser trains networks: [{UNET}] or networks: [{CONTROL}]")
        return self


class MSPSRRecipe(SR3BaseRecipe[MSPSRRecipeOptions]):
    """A U-Net and a branch; every stage trains one of them. ``--init`` takes weights of MSP-SR or SR3 weights in a plain file.

    The branch begins as a copy of the U-Net's encoder with zero convolutions: of the U-Net that leaves the stage before.
    """

    options_model = MSPSRRecipeOptions
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no_id": {"skip": ["id"]},
        "no_control": {"control": False},
        "no_ood": {"skip": ["ood"]},
        "td_only": {"skip": ["ood", "id"], "control": False},
        "no_consistency": {"consistency": "off"},
        "paper_consistency": {"consistency": "paper"},
    }

    def stages(self) -> Sequence[Stage]:
        """Those of the options but for ``skip``; after a skip the first one trains the U-Net, which the branch needs trained."""
        left = [s for s in self.options.stages if s.name not in self.options.skip]
        return [self._stage(s, number == 0 and bool(self.options.skip)) for number, s in enumerate(left)]

    def _stage(self, stage: Stage, whole: bool) -> Stage:
        changes: dict[str, Any] = {}
        if whole or not self.options.control:
            changes["networks"] = (UNET,)
        if self.options.consistency == "paper":
            changes["clip"] = None
        optimisers: dict[str, OptimiserSpec] = {n: o.model_copy(update=changes) for n, o in stage.optimisers.items()}
        return stage.model_copy(update={"optimisers": optimisers})

    def factors(self, stages: Sequence[str]) -> dict[str, bool | str]:
        """The columns of the paper's table of ablations: the stages, the branch, the consistency loss (another form by its name)."""
        consistency: dict[str, bool | str] = {"off": False, "clamped": True}
        return {
            **{name.upper(): name in stages for name in ("ood", "id", "td")},
            "ControlNet": self.options.control,
            "l_CON": consistency.get(self.options.consistency, self.options.consistency),
        }

    def build(self) -> dict[str, nn.Module]:
        """The U-Net and, with ``control``, the branch."""
        networks = super().build()
        if self.options.control:
            networks[CONTROL] = ControlBranch(self.options.unet).to(memory_format=torch.channels_last)
            _copy_if_untrained(networks)
        return networks

    def predict(self, networks: Networks, x: Tensor, g: Tensor) -> Tensor:
        """With the branch, where it is trained or was."""
        unet, branch = networks[UNET], networks.get(CONTROL)
        assert isinstance(unet, SR3UNet)
        if not isinstance(branch, ControlBranch):
            return controlled(unet, None, x, g)
        idle = not any(p.requires_grad for p in branch.parameters()) and branch.silent  # adds nothing
        return controlled(unet, None if idle else branch, x, g)

    def losses(
        self, networks: Networks, batch: TrainBatch, generator: torch.Generator, step: Step, optimiser: str
    ) -> dict[str, Tensor]:
        """``l1`` or ``l2``, and ``consistency`` unless it is off.

        Raises
        ------
        UserError : there is no operator that would degrade an estimate.
        """
        o = self.options
        error, estimate, g = self.prediction(networks, batch, generator)
        if o.consistency == "off":
            return {o.loss: error}
        operator = batch.measurement.operator
        if operator is None:
            raise UserError("the consistency loss needs an operator, and this protocol has none. Train with consistency: off.")
        x0 = estimate.clamp(-1, 1) if o.consistency == "clamped" else estimate
        gap = (operator.forward((x0 + 1) / 2) - batch.measurement.y).square().flatten(1).mean(1)  # l_CON of every image
        if o.consistency == "weighted":
            gap = g.square() * gap
        return {o.loss: o.gamma * error, "consistency": (1 - o.gamma) * gap.mean()}

    def state_dict(self, networks: Networks) -> dict[str, Tensor]:
        """The networks with their names before the keys, also where there is one only."""
        return {f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()}

    def load_weights(self, networks: Networks, tensors: Mapping[str, Tensor]) -> None:
        """U-Net and branch; of SR3 weights, and of those without a branch, the U-Net alone.

        A branch that was not trained becomes a copy of the encoder here, between stages, so that averages begin there too.

        Raises
        ------
        UserError : the tensors do not fit, or have a branch that this training lacks.
        """
        held = any(key.startswith(f"{CONTROL}.") for key in tensors)
        if held and CONTROL not in networks:
            raise UserError("the weights have a branch, and this training has none (control: false).")
        super().load_weights(networks, tensors)
        if held:
            load_strict(networks[CONTROL], selected(tensors, (f"{CONTROL}.",)), what="the weights of the branch")
        _copy_if_untrained(networks)

    def checkpoint_config(self) -> dict[str, Any]:
        """The networks, the diffusion, and how the method has to use them."""
        config = super().checkpoint_config()
        config["architecture"][CONTROL] = self.options.control
        return config


def _copy_if_untrained(networks: Networks) -> None:
    branch, unet = networks.get(CONTROL), networks[UNET]
    if isinstance(branch, ControlBranch) and isinstance(unet, SR3UNet) and branch.silent:
        branch.copy_encoder(unet)
