"""The form of a SwinIR network, checked (no torch here)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from mrbench.cards import Options


class SwinIRShape(Options):
    """What a preset chooses. The defaults are the published lightweight network."""

    embed_dim: PositiveInt = Field(default=60, description="channels of the features")
    depths: tuple[PositiveInt, ...] = Field(default=(6, 6, 6, 6), min_length=1, description="Swin blocks of each group")
    num_heads: PositiveInt = Field(default=6, description="attention heads; divides embed_dim")
    window_size: int = Field(default=8, ge=2, description="sides of the attention windows, in LR pixels")
    mlp_ratio: float = Field(default=2.0, gt=0, description="width of the MLPs over that of the features")
    upsampler: Literal["direct", "staged"] = Field(
        default="direct",
        description="direct: one convolution to scale^2 channels and one pixel shuffle (published lightweight); staged: convolutions and "
        "pixel shuffles of 2 or 3 on 64 channels and a last convolution at HR resolution (published classical)",
    )

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}")
        return self


class SwinIRConfig(SwinIRShape):
    """All constructor arguments."""

    channels: PositiveInt = Field(default=1, description="of the images")
    scale: int = Field(ge=2, description="HR pixels per LR pixel; staged: a product of 2s and 3s")
