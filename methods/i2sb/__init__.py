"""I2SB: a Schroedinger bridge from the interpolated LR image to the HR image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.bridge_options import Final, Sampling
from ..networks.demo_weights import shipped
from ..networks.sampling_options import SamplingOptions

NFE = 10  # where neither user nor checkpoint says; published results use up to 999
PREUPSAMPLE = "nearest"  # of the published weights
CHECKPOINTS = (
    shipped(
        "i2sb", "x4", "87bde5e4e64d479229c433608ce3b9431c8e5eb8183a355b684e72421202749d",
        {"psnr": 26.216, "ssim": 0.8260, "lpips_squeeze": 0.0835}, scale=4,
    ),
)  # fmt: skip


class I2SBOptions(SamplingOptions):
    """Left open, everything but tiles is as the checkpoint says, else as published (but for ``nfe``)."""

    nfe: PositiveInt | None = Field(
        default=None, description="network calls, at most the training steps less one (999 as published); default 10"
    )
    sampling: Sampling | None = Field(
        default=None, description="ddpm: with noise; ot_ode: without, all draws are equal; default as the network was trained"
    )
    clip: bool | None = Field(default=None, description="clamp every estimate of x_0 to [-1, 1]; default false")
    final: Final | None = Field(
        default=None,
        description="official: the state at step 0, which keeps a part of the one before it (half at 999 calls, little at 10); "
        "x0: the last estimate of x_0; default official",
    )
    preupsample: Literal["nearest", "bicubic", "bspline"] | None = Field(
        default=None, description="interpolation of the LR image to the HR grid; default nearest"
    )
    beta_max: PositiveFloat | None = Field(
        default=None, description="schedule of weights that do not say (published files): 0.3 super-resolution, 1.0 others"
    )


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of I2SB."""
    return [
        MethodCard(
            "i2sb",
            "mrbench_methods.i2sb.method:I2SB",
            "Schroedinger bridge from the interpolated LR image to the HR image, ADM U-Net, 10 steps",
            I2SBOptions,
            tier="demo",
            deterministic=False,
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=NFE,
            recipe="mrbench_methods.i2sb.recipe:I2SBRecipe",
            paper="Liu, Vahdat, Huang, Theodorou, Nie, Anandkumar 2023, I2SB: image-to-image Schroedinger bridge, ICML, "
            "arXiv:2302.05872",
            licence="Apache-2.0 (this implementation). Official weights: CC BY-NC-SA 4.0; the official code: NVIDIA Source Code License, "
            "non-commercial use only.",
            notes="The chain starts at the interpolated LR image without noise: with sampling=ot_ode, or one network call, all draws are "
            "equal. Official weights are for natural RGB images at 4x; grey images are repeated to three channels and averaged. "
            "Knows the LR image through interpolation only; enforces no data consistency.",
        )
    ]
