"""Options of regression baselines (no torch here)."""

from __future__ import annotations

from pydantic import Field

from mrbench.cards import Options


class RegressionOptions(Options):
    """The same for all of them."""

    self_ensemble: bool = Field(
        default=False,
        description="average over the 8 rotations and mirrorings of the LR image (published as EDSR+, SwinIR+): 8 network calls",
    )
