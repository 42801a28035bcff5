"""CycleGAN: unpaired translation between interpolated LR images and HR images."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.gan_options import TranslationOptions

CHECKPOINTS = (
    shipped(
        "cyclegan", "x4", "151f2c7a43b825a044b3a5f782a1b91a2403d2fdad8da2a7843f8586e8ef8c56",
        {"psnr": 23.530, "ssim": 0.7023, "lpips_squeeze": 0.1758}, scale=4,
    ),
)  # fmt: skip


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of CycleGAN."""
    return [
        MethodCard(
            "cyclegan",
            "mrbench_methods.cyclegan.method:CycleGAN",
            "unpaired cycle-consistent GAN, residual generator, one pass",
            TranslationOptions,
            tier="demo",
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training images",),
            nfe=1,
            recipe="mrbench_methods.cyclegan.recipe:CycleGANRecipe",
            paper="Zhu, Park, Isola, Efros 2017, Unpaired image-to-image translation using cycle-consistent adversarial networks, ICCV, "
            "arXiv:1703.10593",
            licence="Apache-2.0 (this implementation). The official code: BSD-2-Clause; its weights are for other tasks, none for MRI.",
            notes="Never sees which HR image belongs to which LR image: it is compared with methods that do. Nothing but the cycle ties its "
            "result to the LR image. Both directions are trained, A (interpolated LR) to B (HR) is kept. "
            "Knows the LR image through interpolation only; enforces no data consistency.",
        )
    ]
