"""SR3: super-resolution by repeated refinement, a diffusion from noise to the HR image conditioned on the LR image."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.sr3_options import SR3SamplingOptions

STEPS = 100  # where neither user nor checkpoint says; published results use 2000


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of SR3."""
    return [
        MethodCard(
            "sr3",
            "mrbench_methods.sr3.method:SR3",
            "diffusion from noise to the HR image, conditioned on the interpolated LR image, 100 steps",
            SR3SamplingOptions,
            tier="files",
            deterministic=False,
            channels=(1, 3),
            needs_operator=False,
            information=("training pairs",),
            nfe=STEPS,
            recipe="mrbench_methods.sr3.recipe:SR3Recipe",
            paper="Saharia, Ho, Chan, Salimans, Fleet, Norouzi 2021, Image super-resolution via iterative refinement, IEEE TPAMI, "
            "arXiv:2104.07636",
            licence="Apache-2.0 (this implementation). The weights that are public belong to an unofficial reimplementation "
            "(Apache-2.0) and were trained on faces; those of the authors are not published.",
            notes="Weights for three channels take grey images repeated to three channels, and their outputs are averaged. Fewer than "
            "2000 steps are spaced evenly over the training steps. Knows the LR image through interpolation only; enforces no data "
            "consistency.",
        )
    ]
