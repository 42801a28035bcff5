"""The form of the U-Net with Swin residual blocks, checked (no torch here)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from mrbench.cards import Options

GROUPS = 32  # of group normalisation


class SwinDDPMConfig(Options):
    """Tuples have one entry per level; the defaults are the published network for images of 256 pixels, with a condition."""

    image_size: PositiveInt = Field(
        default=256, description="nominal side of the images: decides which levels have Swin blocks"
    )
    in_channels: PositiveInt = Field(default=2, description="state and condition")
    out_channels: PositiveInt = Field(default=2, description="prediction and, where it is learned, variance")
    model_channels: int = Field(default=128, multiple_of=GROUPS, gt=0)
    channel_mult: tuple[PositiveInt, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: tuple[PositiveInt, ...] = (2, 2, 1, 1, 1, 1)
    attention_resolutions: tuple[PositiveInt, ...] = Field(
        default=(64, 32, 16, 8), description="sides, at nominal size, of the levels whose blocks are Swin blocks"
    )
    num_heads: tuple[PositiveInt, ...] = (4, 4, 4, 8, 16, 16)
    window_size: tuple[PositiveInt, ...] = (4, 4, 4, 8, 8, 4)
    unshuffle: PositiveInt = Field(
        default=1, description="the network works on images of 1/unshuffle the side with more channels"
    )

    @model_validator(mode="after")
    def _levels(self) -> Self:
        lengths = {len(self.channel_mult), len(self.num_res_blocks), len(self.num_heads), len(self.window_size)}
        if len(lengths) > 1:
            raise ValueError("channel_mult, num_res_blocks, num_heads and window_size have one entry per level")
        for mult, heads in zip(self.channel_mult, self.num_heads, strict=True):
            if mult * self.model_channels % heads:
                raise ValueError(f"{mult * self.model_channels} channels cannot be shared out to {heads} heads")
        return self

    @property
    def multiple(self) -> int:
        """What the sides of images are multiples of."""
        return int(2 ** (len(self.channel_mult) - 1) * self.unshuffle)
