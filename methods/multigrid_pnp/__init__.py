"""Multi-Grid PnP: a denoiser as a prior, with corrections from coarser grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mrbench.cards import MethodCard, Options
from mrbench.hookspecs import hookimpl

from ..networks.demo_weights import PRIORS


class MultiGridOptions(Options):
    """Levels, iterations, and the strength of the denoiser."""

    prior: str | None = Field(default=None, description="file or folder of the prior's weights, instead of @CHECKPOINT")
    label: int | None = Field(default=None, ge=0, description="class, for class-conditional priors")
    levels: Literal[1, 2, 3, 4] = Field(default=3, description="grids, each half the size of the one before; 1: no corrections")
    iterations: PositiveInt = Field(default=30, description="steps on the finest grid")
    cycles: int = Field(default=2, ge=0, description="first steps that begin with corrections from coarser grids")
    coarse_steps: PositiveInt = Field(default=3, description="steps of a correction, on every coarser grid")
    start_steps: int = Field(default=5, ge=0, description="steps on every coarser grid before the first one on the finest")
    denoise: PositiveFloat = Field(
        default=0.05,
        json_schema_extra={"tune": {"low": 0.01, "high": 0.3, "log": True}},
        description="noise level that the denoiser is told, in units of [0, 1]",
    )
    step: float = Field(
        default=0.9,
        gt=0,
        lt=2,
        json_schema_extra={"tune": {"low": 0.5, "high": 1.9}},
        description="gradient step, in units of 1 / |A|^2 of every grid",
    )


@hookimpl
def mrbench_methods() -> Sequence[MethodCard]:
    """Return the card of Multi-Grid PnP."""
    return [
        MethodCard(
            "multigrid_pnp",
            "mrbench_methods.multigrid_pnp.method:MultiGridPnP",
            "plug-and-play proximal gradient with corrections from coarser grids; deterministic",
            MultiGridOptions,
            tier="demo",
            checkpoints=PRIORS,
            information=("operator", "training images"),
            channels=(1, 2, 3),
            nfe=60,
            recipe="mrbench_methods.networks.prior_recipe:PriorRecipe",
            paper="Laurent, Tachella, Riccietti, Pustelnik 2025, multilevel plug-and-play image restoration (code: "
            "Nils-Laurent/multilevel_deepinv); a baseline of arXiv:2601.23201",
            licence="Apache-2.0 (this implementation). The published code has no licence file; none of it is used.",
            notes="The published code has no super-resolution: the coarse operators are H P, with steps from power iteration. "
            "The denoiser is the estimate of a diffusion prior at one noise level (published: DRUNet, made equivariant by "
            "random transforms; nothing is random here). Calls count images of all grids.",
        )
    ]
