"""Settings of the Schroedinger bridge between LR and HR images (no torch here)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mrbench.cards import Options

Sampling = Literal["ddpm", "ot_ode"]
Final = Literal["official", "x0"]


class BridgeConfig(Options):
    """The bridge that a network was trained with (I2SB, arXiv:2302.05872). Defaults: the published 4x super-resolution."""

    interval: int = Field(default=1000, ge=4, description="training steps, an even number")
    beta_max: float = Field(
        default=0.3, gt=0, description="end of the root-linear schedule, of which only the first half is used (there and back)"
    )
    beta_min: float = Field(default=1e-4, gt=0, description="first and last beta")
    time_start: float = Field(
        default=1e-4, gt=0, lt=1, description="time of the first step; the network is told interval times it"
    )
    ot_ode: bool = Field(default=False, description="trained without noise: states lie on the line between HR and LR image")
    cond_x1: bool = Field(default=False, description="the network also sees the LR image, concatenated to the state")

    @model_validator(mode="after")
    def _consistent(self) -> BridgeConfig:
        if self.interval % 2:
            raise ValueError(f"interval {self.interval} is odd: the schedule rises in its first half and falls in the second")
        if not self.beta_max / self.interval > self.beta_min:
            raise ValueError(f"beta_max / interval = {self.beta_max / self.interval:g} must exceed beta_min {self.beta_min:g}")
        return self
