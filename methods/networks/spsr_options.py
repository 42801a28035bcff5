"""The form of SPSR networks, checked (no torch here)."""

from __future__ import annotations

from pydantic import Field, PositiveInt, field_validator

from mrbench.cards import Options

LEAST_BLOCKS = 20  # the gradient branch reads the features after 5, 10, 15 and 20


class SPSRShape(Options):
    """What a preset chooses."""

    width: PositiveInt = Field(default=64, description="channels (nf)")
    blocks: int = Field(
        default=23, ge=LEAST_BLOCKS, description="residual-in-residual dense blocks of the trunk (nb), 20 or more"
    )
    growth: PositiveInt = Field(default=32, description="channels that every dense convolution adds (gc)")


class SPSRConfig(SPSRShape):
    """All constructor arguments."""

    channels: PositiveInt = Field(default=1, description="of the images")
    scale: int = Field(ge=2, description="HR pixels per LR pixel, a power of 2")

    @field_validator("scale")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("SPSR doubles: the scale is a power of 2")
        return value


class VGGDiscriminatorConfig(Options):
    """Discriminator that judges whole patches."""

    width: PositiveInt = Field(default=64, description="channels after the first convolution")
    size: int = Field(default=128, ge=32, multiple_of=32, description="side of the patches")
