"""ResShift: residual-shifting diffusion on latents of a VQ autoencoder, or on pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveInt

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.residual_shift_options import DiffusionConfig, Scaling
from ..networks.sampling_options import SamplingOptions

CHECKPOINTS = (
    shipped(
        "resshift", "x4", "6d5970431261389d0b3337ea9c4012b52389594e276c3e9e74e949c358f4794b",
        {"psnr": 26.430, "ssim": 0.7836, "lpips_squeeze": 0.1309}, scale=4,
    ),
)  # fmt: skip


def diffusions(latent: bool) -> dict[str, DiffusionConfig]:
    """The published schedules, by variant; the input scaling depends on the space."""
    scaling: Scaling = "latent" if latent else "pixel"
    return {
        "journal": DiffusionConfig(steps=4, min_noise_level=0.2, scaling=scaling),
        "conference": DiffusionConfig(steps=15, min_noise_level=0.04, scaling=scaling),
        "conference_bicubic": DiffusionConfig(steps=15, min_noise_level=0.04, kappa=1.0, start_cap=True, scaling=scaling),
    }


class ResShiftOptions(SamplingOptions):
    """Left open, variant and steps are as the checkpoint says."""

    variant: Literal["journal", "conference", "conference_bicubic"] | None = Field(
        default=None,
        description="diffusion that the weights were trained with: journal (v3, bicsr) T = 4; conference (v1, v2) T = 15; "
        "conference_bicubic T = 15, kappa = 1",
    )
    steps: PositiveInt | None = Field(default=None, description="sampling steps; default all training steps")
    autoencoder: str | None = Field(
        default=None, description="file of the VQ autoencoder, for checkpoints on latents that do not hold it"
    )


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of ResShift."""
    return [
        MethodCard(
            "resshift",
            "mrbench_methods.resshift.method:ResShift",
            "residual-shifting diffusion on VQ-f4 latents or pixels, U-Net with Swin blocks, 4 or 15 steps",
            ResShiftOptions,
            tier="demo",
            deterministic=False,
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=4,
            recipe="mrbench_methods.resshift.recipe:ResShiftRecipe",
            paper="Yue, Wang, Loy 2023, ResShift: efficient diffusion model for image super-resolution by residual shifting, "
            "NeurIPS, arXiv:2307.12348",
            licence="Apache-2.0 (this implementation). Official weights: NTU S-Lab License 1.0, non-commercial use only.",
            notes="Official weights are for natural RGB images at 4x. Grey images are repeated to three channels and averaged. "
            "variant must be that of the training. Fewer steps than trained leave out the last training step (15 -> 4: {0, 3, 7, 11}). "
            "The window mask of the published network differs from the textbook's and is kept. No data consistency.",
        )
    ]
