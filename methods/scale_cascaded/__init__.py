"""Scale-cascaded DiffPIR: one diffusion prior for every band of an image pyramid, from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mrbench.cards import MethodCard, Options
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped

STEPS = 200
CHECKPOINTS = (
    shipped(
        "scale_cascaded", "x4", "6beb4052ac86fbcc16bec0841993ab9ef8c9e801940244673ffdee857a50c70f",
        {"psnr": 27.495, "ssim": 0.8627, "lpips_squeeze": 0.0840}, scale=4,
    ),
)  # fmt: skip


class ScaleCascadedOptions(Options):
    """Left open, ``steps``, ``sigma_min``, ``sigma_max``, ``lam`` and ``zeta`` are as the checkpoint says."""

    levels: Literal[1, 2, 3] | None = Field(
        default=None,
        description="bands that may be sampled, the finest ones; the image below them comes from the measurement. "
        "Default: all that the weights have",
    )
    steps: PositiveInt | None = Field(
        default=None, description=f"network calls in all, shared out to the levels of the cascade; default {STEPS}"
    )
    target: Literal["measurement", "cascade"] = Field(
        default="measurement",
        description="what a band has to explain: measurement (A): y; cascade (B): the image of the level below, where that is "
        "larger than y",
    )
    sigma_min: PositiveFloat | None = Field(
        default=None, description="last noise level, in units of the networks; default 0.002"
    )
    sigma_max: PositiveFloat | None = Field(default=None, description="first noise level, in units of the networks; default 80")
    lam: PositiveFloat | None = Field(
        default=None,
        json_schema_extra={"tune": {"low": 0.1, "high": 30.0, "log": True}},
        description="trust in the prior against the measurement (lambda of DiffPIR, one scale for both); default 1",
    )
    zeta: float | None = Field(
        default=None,
        ge=0,
        le=1,
        json_schema_extra={"tune": {"low": 0.0, "high": 1.0}},
        description="fraction of the noise that is drawn anew at every step (zeta of DiffPIR); default 1",
    )
    sigma: float | None = Field(
        default=None, ge=0, description="noise level of the measurement in units of [0, 1]; default: what the protocol says"
    )
    max_batch: PositiveInt = Field(default=16, description="images in a network at once, when many draws are asked for")


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of scale-cascaded DiffPIR."""
    return [
        MethodCard(
            "scale_cascaded",
            "mrbench_methods.scale_cascaded.method:ScaleCascaded",
            "diffusion priors of image bands with the true operator, coarse to fine (DiffPIR, EDM2)",
            ScaleCascadedOptions,
            tier="demo",
            information=("operator", "noise level", "training images"),
            deterministic=False,
            checkpoints=CHECKPOINTS,
            channels=(1, 2),
            nfe=STEPS,
            recipe="mrbench_methods.scale_cascaded.recipe:ScaleCascadedRecipe",
            paper="Scale-Cascaded Diffusion Models for Super-Resolution in Medical Imaging, arXiv:2601.23201; "
            "Zhu et al. 2023 (DiffPIR), arXiv:2305.08995; Karras et al. 2024 (EDM2), arXiv:2312.02696",
            licence="Apache-2.0 (this implementation). No official code or weights are known. Official EDM2 code and "
            "weights are CC BY-NC-SA 4.0; none of them are used.",
            notes="The paper leaves operators, noise levels and lambda open, see the model card. Every level explains y "
            "through the true operator behind the pyramid's synthesis; noise-free results are projected onto H x = y at the "
            "end. Levels that a noise-free measurement determines are not sampled, and their steps are not given to others.",
        )
    ]
