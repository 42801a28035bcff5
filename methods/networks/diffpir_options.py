"""Options of DiffPIR, and what those that are left open are (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mrbench.cards import Options

Variant = Literal["ours", "official"]
Skip = Literal["quad", "uniform"]
Init = Literal["measurement", "noise"]
Final = Literal["x0", "official"]


@dataclass(frozen=True)
class DiffPIRSettings:
    """Options of DiffPIR with nothing left open; ``start`` is a fraction of the schedule's last step, or a step."""

    steps: int
    skip: Skip
    lam: float
    zeta: float
    eta: float
    guidance: float
    start: float | int
    init: Init
    final: Final
    sigma_floor: float
    official: bool = False


DEFAULTS: Mapping[Variant, DiffPIRSettings] = {
    "ours": DiffPIRSettings(
        steps=20, skip="quad", lam=1.0, zeta=1.0, eta=0.0, guidance=1.0, start=0.6, init="measurement", final="x0", sigma_floor=0.0
    ),
    "official": DiffPIRSettings(
        steps=20, skip="quad", lam=7.0, zeta=0.25, eta=0.0, guidance=1.0, start=1.0, init="measurement", final="official",
        sigma_floor=0.001, official=True,
    ),
}  # fmt: skip


class DiffPIROptions(Options):
    """Left open, options are as the variant has them."""

    variant: Variant = Field(default="ours", description="ours, or the published code with its quirks (see the card)")
    prior: str | None = Field(default=None, description="file or folder of the prior's weights, instead of @CHECKPOINT")
    label: int | None = Field(default=None, ge=0, description="class, for class-conditional priors")
    steps: PositiveInt | None = Field(default=None, description="denoising steps; default 20")
    skip: Skip | None = Field(
        default=None, description="spacing of the steps: quad (dense at low noise) or uniform; default quad"
    )
    lam: PositiveFloat | None = Field(
        default=None,
        json_schema_extra={"tune": {"low": 0.1, "high": 30.0, "log": True}},
        description="weight of the prior in the data step, rho = lam (sigma / sigma_t)^2 with both noise levels in one unit (official: "
        "4 times that number, as its units differ); default 1, official 7",
    )
    zeta: float | None = Field(
        default=None,
        ge=0,
        le=1,
        json_schema_extra={"tune": {"low": 0.0, "high": 1.0}},
        description="fraction of fresh noise in every step (0: deterministic); default 1, official 0.25",
    )
    eta: float | None = Field(default=None, ge=0, le=1, description="DDIM's noise in the other part; default 0")
    guidance: float | None = Field(
        default=None, gt=0, le=1, description="how far an estimate moves to the data step's result; default 1"
    )
    start: int | None = Field(
        default=None,
        ge=0,
        json_schema_extra={"tune": {"low": 200, "high": 999}},
        description="first time step (of the prior's, mostly 0 to 999); default 60 % of the schedule, the last one with init=noise and "
        "for official",
    )
    init: Init | None = Field(
        default=None,
        description="measurement: the interpolated LR image with noise, as the code; noise: noise alone, as the paper",
    )
    final: Final | None = Field(
        default=None,
        description="x0: the last estimate after its data step; official: the state with its noise at t = 0; default by variant",
    )
    sigma: float | None = Field(
        default=None, ge=0, description="assumed noise of y in units of [0, 1]; default what the measurement says"
    )
    sigma_floor: float | None = Field(
        default=None, ge=0, description="noise of y that is assumed at least; default 0, official 0.001"
    )
    max_batch: PositiveInt = Field(default=16, description="images in the network at once, when many draws are asked for")

    def settings(self) -> DiffPIRSettings:
        """The same with the variant's defaults where something is open."""
        given = {f.name: getattr(self, f.name, None) for f in fields(DiffPIRSettings)}
        base = DEFAULTS[self.variant]
        base = replace(base, start=1.0) if self.init == "noise" else base  # pure noise belongs to the end of the schedule
        return replace(base, **{name: value for name, value in given.items() if value is not None})
