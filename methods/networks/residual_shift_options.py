"""Settings of the residual-shifting diffusion (no torch here)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from mrbench.cards import Options

Prediction = Literal["xstart", "residual", "epsilon", "epsilon_scale"]
Scaling = Literal["none", "latent", "pixel"]


class DiffusionConfig(Options):
    """Schedule and conventions that a network was trained with (ResShift, arXiv:2307.12348; Res-SRDiff, equation 14)."""

    steps: PositiveInt = Field(description="training steps T")
    min_noise_level: float = Field(gt=0, le=1, description="kappa sqrt(eta_1), unless kappa < 1 (then sqrt(eta_1))")
    etas_end: float = Field(default=0.99, gt=0, le=1, description="sqrt(eta_T): the end of the *root* of eta")
    kappa: float = Field(default=2.0, gt=0, description="noise level: x_t has variance kappa^2 eta_t")
    power: float = Field(default=0.3, gt=0, description="exponent p of the schedule")
    start_cap: bool = Field(
        default=False, description="sqrt(eta_1) at most sqrt(0.001), as in ResShift's first release (branch master) and SinSR"
    )
    prediction: Prediction = Field(
        default="xstart", description="what the network returns: x_0 | y - x_0 | the noise | kappa sqrt(eta_t) times the noise"
    )
    scaling: Scaling = Field(
        default="none",
        description="the network sees x_t | x_t / sqrt(kappa^2 eta_t + 1) (latent) | x_t / (3 kappa sqrt(eta_t) + 1) (pixel)",
    )

    @property
    def start(self) -> float:
        """``sqrt(eta_1) = min(m / kappa, m)``, capped at sqrt(0.001) where the code that trained the network did so."""
        start = min(self.min_noise_level / self.kappa, self.min_noise_level)
        return min(start, math.sqrt(0.001)) if self.start_cap else start

    @model_validator(mode="after")
    def _ascending(self) -> DiffusionConfig:
        if not self.start < self.etas_end:
            raise ValueError(f"the schedule must rise: sqrt(eta) goes from {self.start:g} to {self.etas_end:g}")
        return self
