"""TM-DDPM: a conventional diffusion model with a Swin transformer U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.gan_options import Kernel
from ..networks.sampling_options import SamplingOptions

STEPS = 50  # where neither user nor checkpoint says
PREUPSAMPLE: Kernel = "bicubic"
CHECKPOINTS = (
    shipped(
        "tm_ddpm", "x4", "a09de10e199330970cd2f9e5f63a69dfc144392578caf31f697ee46032d6cfb3",
        {"psnr": 25.286, "ssim": 0.7074, "lpips_squeeze": 0.1499}, scale=4,
    ),
)  # fmt: skip


class TMDDPMOptions(SamplingOptions):
    """Left open, the first two are as the checkpoint says."""

    steps: PositiveInt | None = Field(
        default=None, description="steps of the chain, evenly over those of training (network calls); default 50"
    )
    preupsample: Kernel | None = Field(
        default=None, description="interpolation of the LR image to the HR grid; default bicubic"
    )


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of TM-DDPM."""
    return [
        MethodCard(
            "tm_ddpm",
            "mrbench_methods.tm_ddpm.method:TMDDPM",
            "conditional DDPM from pure noise, U-Net with Swin transformer blocks, respaced",
            TMDDPMOptions,
            tier="demo",
            deterministic=False,
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=STEPS,
            recipe="mrbench_methods.tm_ddpm.recipe:TMDDPMRecipe",
            paper="Pan, Wang, Qiu, Axente, Chang, Peng, Patel, Shelton, Patel, Roper, Yang 2023, 2D medical image synthesis using transformer-based denoising "
            "diffusion probabilistic model, Phys. Med. Biol. 68, 105004; with the condition of its 3-D follow-up, arXiv:2305.19467",
            licence="Apache-2.0 (this implementation). The official code: MIT; no weights are published.",
            notes="A reading: the Res-SRDiff paper calls a baseline TM-DDPM and MT-DDPM and does not say which code it is; this is the "
            "network of the same name's group that fits its size. The chain starts from pure noise and knows the LR image as "
            "a second channel through interpolation only; enforces no data consistency.",
        )
    ]
