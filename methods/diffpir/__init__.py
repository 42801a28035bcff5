"""DiffPIR: plug-and-play restoration with a diffusion prior."""

from __future__ import annotations

from collections.abc import Sequence

from mrbench.cards import MethodCard
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import PRIORS
from ..networks.diffpir_options import DEFAULTS, DiffPIROptions


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of DiffPIR."""
    return [
        MethodCard(
            "diffpir",
            "mrbench_methods.diffpir.method:DiffPIRMethod",
            "diffusion prior with a proximal data step at every noise level, 20 steps; knows the operator",
            DiffPIROptions,
            tier="demo",
            deterministic=False,
            checkpoints=PRIORS,
            channels=(1, 2, 3),
            needs_operator=True,
            information=("operator", "noise level", "training images"),
            nfe=DEFAULTS["ours"].steps,
            recipe="mrbench_methods.networks.prior_recipe:PriorRecipe",
            paper="Zhu et al. 2023, Denoising diffusion models for plug-and-play image restoration, CVPR workshops, arXiv:2305.08995",
            licence="Apache-2.0 (this implementation). Official code: MIT. Weights that it uses: OpenAI's 256x256 models (MIT repository, see "
            "their model card); of diffusion_ffhq_10m.pt no licence is stated.",
            notes="The prior knows no degradation: one serves all operators, scales and noise levels. Data steps are exact (no division by "
            "rho). Paper and published code disagree (start, last step, units of lam): see variant. y in [0, 1], the prior in [-1, 1]; "
            "noise-free measurements of linear operators are met within 1e-3 (final=x0). The noise level of y must be known, or given as sigma.",
        )
    ]
