"""MSP-SR: SR3 with a ControlNet branch, trained in three stages, from other domains to the target's."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import THREE_STAGES, shipped
from ..networks.sr3_options import SR3SamplingOptions

STEPS = 100  # where neither user nor checkpoint says; the paper's results are thought to use 2000

CHECKPOINTS = (
    shipped(
        "msp_sr", "x4", "2492976c4ec8035004bbf73142b4a0625aea143ecd02c11d5d553934254c5990",
        {"psnr": 26.426, "ssim": 0.7378, "lpips_squeeze": 0.1708}, scale=4, trained_on=THREE_STAGES,
    ),
)  # fmt: skip


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of MSP-SR."""
    return [
        MethodCard(
            "msp_sr",
            "mrbench_methods.msp_sr.method:MSPSR",
            "SR3 with a ControlNet branch, three-stage transfer (out of domain, in domain, target domain), 100 steps",
            SR3SamplingOptions,
            tier="demo",
            checkpoints=CHECKPOINTS,
            deterministic=False,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs", "operator in training", "outside pretraining"),
            nfe=STEPS,
            recipe="mrbench_methods.msp_sr.recipe:MSPSRRecipe",
            paper="MSP-SR: three-stage transfer for MRI super-resolution with a diffusion prior and a control branch. Networks: Saharia "
            "et al. 2021, arXiv:2104.07636; Zhang, Rao, Agrawala 2023, arXiv:2302.05543",
            licence="Apache-2.0 (this implementation). The authors published neither code nor weights.",
            notes="A reconstruction from the paper, whose tables contradict each other: the README says what was decided. The paper does "
            "not state the number of steps; 2000 fit its timings. Knows the LR image through interpolation, and in training through the "
            "consistency loss; enforces no data consistency when sampling.",
        )
    ]
