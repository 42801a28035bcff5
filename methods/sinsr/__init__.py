"""SinSR: the trajectory of a residual-shifting diffusion distilled into one step."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.residual_shift_options import DiffusionConfig
from ..networks.sampling_options import SamplingOptions

CHECKPOINTS = (
    shipped(
        "sinsr", "x4", "565d64c6558c46ff82cbca3382572a89efdce0a31d04c9b0362327fe1cd0a49d",
        {"psnr": 26.284, "ssim": 0.7402, "lpips_squeeze": 0.1508}, scale=4,
    ),
)  # fmt: skip


def diffusion(latent: bool) -> DiffusionConfig:
    """The teacher's schedule, whose last step is the only one."""
    return DiffusionConfig(steps=15, min_noise_level=0.04, start_cap=True, scaling="latent" if latent else "pixel")


class SinSROptions(SamplingOptions):
    """Where the autoencoder is, and how large images are cut."""

    autoencoder: str | None = Field(
        default=None, description="file of the VQ autoencoder, for checkpoints on latents that do not hold it"
    )


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of SinSR."""
    return [
        MethodCard(
            "sinsr",
            "mrbench_methods.sinsr.method:SinSR",
            "one-step residual-shifting diffusion on VQ-f4 latents or pixels, distilled from a teacher",
            SinSROptions,
            tier="demo",
            deterministic=False,
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=1,
            recipe="mrbench_methods.sinsr.recipe:SinSRRecipe",
            paper="Wang et al. 2024, SinSR: diffusion-based image super-resolution in a single step, CVPR, arXiv:2311.14760",
            licence="Apache-2.0 (this implementation). Official weights: CC BY-NC-SA 4.0 and, for what comes from ResShift, NTU S-Lab "
            "License 1.0: non-commercial use only.",
            notes="Official weights are for natural RGB images at 4x. Grey images are repeated to three channels and averaged. One "
            "network call per draw, from x_T; draws differ by the noise of x_T. The window mask of the published network differs "
            "from the textbook's and is kept. No data consistency.",
        )
    ]
