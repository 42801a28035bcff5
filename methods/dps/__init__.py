"""DPS: diffusion posterior sampling."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import PRIORS
from ..networks.dps_options import DEFAULTS, DPSOptions

_STEPS = DEFAULTS["ours"].steps


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of DPS."""
    return [
        MethodCard(
            "dps",
            "mrbench_methods.dps.method:DPSMethod",
            "diffusion prior guided by the gradient of the measurement's misfit through the network; knows the operator",
            DPSOptions,
            tier="demo",
            deterministic=False,
            checkpoints=PRIORS,
            channels=(1, 2, 3),
            needs_operator=True,
            information=("operator", "training images"),
            nfe=_STEPS if isinstance(_STEPS, int) else None,
            recipe="mrbench_methods.networks.prior_recipe:PriorRecipe",
            paper="Chung et al. 2023, Diffusion posterior sampling for general noisy inverse problems, ICLR, arXiv:2209.14687",
            licence="Apache-2.0 (this implementation). Official code: no licence stated. Official weights (ffhq_10m.pt, imagenet256.pt): no "
            "licence stated; none are shipped.",
            notes="The prior knows no degradation: one serves all operators and scales. Each step costs a forward and a backward pass. "
            "zeta is a step along the gradient of |y - H x0| with y in [0, 1], quoted for one channel of 256x256 (the published "
            "code: y in [-1, 1], any size; variant=official). Fewer steps want a larger zeta: report both.",
        )
    ]
