"""Pix2pix: a conditional GAN from the interpolated LR image to the HR image."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.gan_options import TranslationOptions

CHECKPOINTS = (
    shipped(
        "pix2pix", "x4", "72aa0384ccd3e29d621898f103d761eb446734c2cf682389e408f45fd75ff4dc",
        {"psnr": 26.702, "ssim": 0.8042, "lpips_squeeze": 0.1283}, scale=4,
    ),
)  # fmt: skip


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of pix2pix."""
    return [
        MethodCard(
            "pix2pix",
            "mrbench_methods.pix2pix.method:Pix2Pix",
            "conditional GAN, U-Net generator and patch discriminator, one pass",
            TranslationOptions,
            tier="demo",
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=1,
            recipe="mrbench_methods.pix2pix.recipe:Pix2PixRecipe",
            paper="Isola, Zhu, Zhou, Efros 2017, Image-to-image translation with conditional adversarial networks, CVPR, arXiv:1611.07004",
            licence="Apache-2.0 (this implementation). The official code: BSD-2-Clause; its weights are for other tasks, none for MRI.",
            notes="As published, batch normalisation uses the statistics of the test image (statistics=image). Dropout, the published "
            "source of randomness, is off at test time: the method is deterministic. Images are extended to multiples of "
            "2^num_downs (256 for unet_256). Knows the LR image through interpolation only; enforces no data consistency.",
        )
    ]
