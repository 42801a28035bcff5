"""EDSR: the plain regression baseline, one pass of a residual network."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import shipped
from ..networks.regression_options import RegressionOptions

CHECKPOINTS = (
    shipped(
        "edsr", "x4", "889eac7c70db64ce905a96ee0e197c418223ab3ad9715edc9c3010657a328d34",
        {"psnr": 28.659, "ssim": 0.8844, "lpips_squeeze": 0.1127}, scale=4,
    ),
)  # fmt: skip


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of EDSR."""
    return [
        MethodCard(
            "edsr",
            "mrbench_methods.edsr.method:EDSRMethod",
            "regression: residual network at LR resolution, added to the interpolated image",
            RegressionOptions,
            tier="demo",
            checkpoints=CHECKPOINTS,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=1,
            recipe="mrbench_methods.edsr.recipe:EDSRRecipe",
            paper="Lim, Son, Kim, Nah, Lee 2017, Enhanced deep residual networks for single image super-resolution, CVPR workshops, "
            "arXiv:1707.02921",
            licence="Apache-2.0 (this implementation)",
            notes="The baseline that generative methods must be read beside: trained on the error itself (squared: it estimates the "
            "posterior mean; absolute, as the weights that ship were: the median), it is hard to beat in PSNR and smooth to look at. "
            "Unlike the published network it adds to the bicubic image, and it begins at zero. Knows the LR image and its grid; enforces "
            "no data consistency.",
        )
    ]
