"""Options of DPS, and what those that are left open are (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from pydantic import Field, PositiveInt

from mrbench.cards import Options

Variant = Literal["ours", "official"]
Sampler = Literal["ddpm", "ddim"]
Norm = Literal["plain", "poisson", "ps+", "mcg"]


@dataclass(frozen=True)
class DPSSettings:
    """Options of DPS with nothing left open. ``steps``: ``None`` for all of the schedule."""

    steps: int | str | None
    sampler: Sampler
    eta: float
    zeta: float
    norm: Norm
    clip: bool
    official: bool = False


DEFAULTS: Mapping[Variant, DPSSettings] = {
    "ours": DPSSettings(steps=100, sampler="ddpm", eta=0.0, zeta=60.0, norm="plain", clip=True),
    "official": DPSSettings(steps=None, sampler="ddpm", eta=0.0, zeta=0.3, norm="plain", clip=True, official=True),
}


class DPSOptions(Options):
    """Left open, options are as the variant has them."""

    variant: Variant = Field(
        default="ours", description="ours, or the published code's units of zeta, norms and steps (see the card)"
    )
    prior: str | None = Field(default=None, description="file or folder of the prior's weights, instead of @CHECKPOINT")
    label: int | None = Field(default=None, ge=0, description="class, for class-conditional priors")
    steps: PositiveInt | str | None = Field(
        default=None,
        description="steps of the prior's schedule that are used: a number, ddimN, or numbers per section (10,15,20); default 100, "
        "official all",
    )
    sampler: Sampler | None = Field(
        default=None, description="ddpm (learned variances if the prior has them) or ddim; default ddpm"
    )
    eta: float | None = Field(default=None, ge=0, le=1, description="noise of ddim; default 0")
    zeta: float | None = Field(
        default=None,
        ge=0,
        json_schema_extra={"tune": {"low": 1.0, "high": 300.0, "log": True}},
        description="step along the gradient of |y - H x0|: of data in [0, 1], for images of 256x256 with one channel (others in "
        "proportion to the root of their pixels); official: of data in [-1, 1], as it is; default 60, official 0.3. Fewer steps want more",
    )
    norm: Norm | None = Field(
        default=None,
        description="plain; poisson (weighted by y); ps+ (mean over 5 perturbed estimates); mcg (projected onto y after each step)",
    )
    clip: bool | None = Field(default=None, description="clamp estimates of x_0 to [-1, 1]; default true")
    max_batch: PositiveInt = Field(
        default=8, description="images in the network at once, with gradients, when many draws are asked for"
    )

    def settings(self) -> DPSSettings:
        """The same with the variant's defaults where something is open."""
        given = {f.name: getattr(self, f.name, None) for f in fields(DPSSettings)}
        return replace(DEFAULTS[self.variant], **{name: value for name, value in given.items() if value is not None})
