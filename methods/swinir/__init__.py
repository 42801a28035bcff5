"""SwinIR: a regression baseline of Swin transformer blocks."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.regression_options import RegressionOptions

CHECKPOINTS = (
    shipped(
        "swinir", "x4", "c3709961717eb2ba8509edada00c93bfb00e188d802b9afbda23fe0866ff5d03",
        {"psnr": 28.318, "ssim": 0.8823, "lpips_squeeze": 0.1154}, scale=4,
    ),
)  # fmt: skip


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of SwinIR."""
    return [
        MethodCard(
            "swinir",
            "mrbench_methods.swinir.method:SwinIRMethod",
            "regression: Swin transformer blocks at LR resolution, added to the interpolated image",
            RegressionOptions,
            tier="demo",
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=1,
            recipe="mrbench_methods.swinir.recipe:SwinIRRecipe",
            paper="Liang, Cao, Sun, Zhang, Van Gool, Timofte 2021, SwinIR: image restoration using Swin transformer, ICCV workshops, "
            "arXiv:2108.10257",
            licence="Apache-2.0 (this implementation)",
            notes="A second regression baseline, of attention instead of convolutions alone: what generative methods must be read "
            "beside. Unlike the published network it adds to the bicubic image and begins at zero; no stochastic depth. Published files "
            "run as LABEL=spandrel@FILE. Knows the LR image and its grid; enforces no data consistency.",
        )
    ]
