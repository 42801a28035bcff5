"""Options that all methods on the residual-shifting model have (no torch here)."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from mrbench.cards import Options


class SamplingOptions(Options):
    """How large images and many draws are cut into pieces. Only ``tile`` and ``overlap`` change results."""

    tile: PositiveInt | None = Field(
        default=None, description="side of tiles in HR pixels, rounded up to whole windows; none: the whole image at once"
    )
    overlap: int = Field(default=32, ge=0, description="HR pixels that neighbouring tiles share at least; averaged")
    max_batch: PositiveInt = Field(default=16, description="images in the network at once, when many draws are asked for")

    @model_validator(mode="after")
    def _room(self) -> SamplingOptions:
        if self.tile is not None and self.overlap >= self.tile:
            raise ValueError(f"overlap {self.overlap} leaves nothing of tiles of {self.tile}")
        return self
