"""Res-SRDiff: residual-shifting diffusion on MR pixels, in four steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveInt

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.residual_shift_options import DiffusionConfig
from ..networks.sampling_options import SamplingOptions

DIFFUSIONS = {
    "repo": DiffusionConfig(steps=4, min_noise_level=0.2, etas_end=0.99),
    "paper": DiffusionConfig(steps=15, min_noise_level=0.04, etas_end=math.sqrt(0.9999)),
}
SAMPLING_STEPS = 4  # of both
PREUPSAMPLE = {"repo": "bspline", "paper": "nearest"}
CHECKPOINTS = (
    shipped(
        "res_srdiff", "x4", "25b0391e9a7ba1922355c9d5f4146414e6f82126d2181be63f98b245d89a7937",
        {"psnr": 26.55, "ssim": 0.777, "lpips_squeeze": 0.1307}, scale=4,
    ),
    shipped(
        "res_srdiff", "x2", "53ec02d99287a9b07069173c63b65453e03cb8ff296b3510ee6d6cbb3d84e8f0",
        {"psnr": 32.791, "ssim": 0.8862, "lpips_squeeze": 0.0535}, scale=2,
    ),
)  # fmt: skip


class ResSRDiffOptions(SamplingOptions):
    """Left open, the first three are as the checkpoint says, else those of the published code (variant repo)."""

    variant: Literal["paper", "repo"] | None = Field(
        default=None, description="diffusion that the weights were trained with: repo T = 4, paper T = 15 (sampled in 4)"
    )
    steps: PositiveInt | None = Field(default=None, description="sampling steps, at most the training steps; default 4")
    preupsample: Literal["nearest", "bicubic", "bspline"] | None = Field(
        default=None, description="interpolation of the LR image to the HR grid; repo bspline, paper nearest"
    )


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of Res-SRDiff."""
    return [
        MethodCard(
            "res_srdiff",
            "mrbench_methods.res_srdiff.method:ResSRDiff",
            "residual-shifting diffusion in pixel space, U-Net with Swin blocks, 4 steps",
            ResSRDiffOptions,
            tier="demo",
            deterministic=False,
            checkpoints=CHECKPOINTS,
            channels=(1,),
            needs_operator=False,
            information=("training pairs",),
            nfe=SAMPLING_STEPS,
            recipe="mrbench_methods.res_srdiff.recipe:ResSRDiffRecipe",
            paper="Safari et al. 2025, MRI super-resolution reconstruction using efficient diffusion probabilistic model with "
            "residual shifting, Phys. Med. Biol., doi:10.1088/1361-6560/ade049",
            licence="Apache-2.0 (this implementation). Official weights: MIT by the repository's LICENSE, but its network is an "
            "edited copy of ResShift's (S-Lab 1.0, non-commercial): treat them as non-commercial.",
            notes="Paper and published code disagree (T, noise levels, loss weights, pre-upsampling): see variant. Paper: 15 steps "
            "re-spaced to {0, 3, 7, 11}, so the last training step is not among them. The window mask of the published network "
            "differs from the textbook's and is kept. Knows the LR image through interpolation only; enforces no data consistency.",
        )
    ]
