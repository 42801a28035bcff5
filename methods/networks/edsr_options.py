"""The form of an EDSR network, checked (no torch here)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from mrbench.cards import Options


class EDSRShape(Options):
    """What a preset chooses."""

    width: PositiveInt = Field(default=64, description="channels of the residual blocks")
    blocks: PositiveInt = Field(default=16, description="residual blocks of two convolutions")
    residual_scale: float = Field(default=1.0, gt=0, le=1, description="factor on what a block adds; 0.1 in wide networks")
    upsampler: Literal["direct", "staged"] = Field(
        default="staged",
        description="staged: convolutions and pixel shuffles of 2 or 3 and a last convolution at HR resolution, as published; direct: one "
        "convolution to scale^2 channels and one pixel shuffle, so that nothing runs at HR resolution",
    )


class EDSRConfig(EDSRShape):
    """All constructor arguments."""

    channels: PositiveInt = Field(default=1, description="of the images")
    scale: int = Field(ge=2, description="HR pixels per LR pixel; staged: a product of 2s and 3s")
