"""SPSR: a GAN whose gradient branch guides the image."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped

CHECKPOINTS = (
    shipped(
        "spsr", "x4", "10ca83fae34e3a9a26de829f39441bd64bbfea4e30ecc9b08ea145b8417b77df",
        {"psnr": 24.044, "ssim": 0.7965, "lpips_squeeze": 0.1552}, scale=4,
    ),
)  # fmt: skip


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of SPSR."""
    return [
        MethodCard(
            "spsr",
            "mrbench_methods.spsr.method:SPSRMethod",
            "GAN on dense residual blocks, guided by a restored gradient map, one pass",
            tier="demo",
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=1,
            recipe="mrbench_methods.spsr.recipe:SPSRRecipe",
            paper="Ma, Rao, Cheng, Chen, Lu, Zhou 2020, Structure-preserving super resolution with gradient guidance, CVPR, "
            "arXiv:2003.13081",
            licence="Apache-2.0 (this implementation, written from the equations). The official code and weights come without any licence: "
            "nobody but their authors may pass them on, and none are shipped.",
            notes="Needs 20 blocks or more. Published weights are for natural RGB images at 4x (bicubic); grey images are repeated to three "
            "channels and averaged. Demonstration weights were trained without the VGG19 loss. Knows the LR image and its grid; "
            "enforces no data consistency.",
        )
    ]
