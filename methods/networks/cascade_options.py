"""Constructor arguments of a cascade of priors, one for every band of an image pyramid, checked (no torch here)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field, model_validator

from mrbench.cards import Options

from .edm2_options import EDM2Config
from .pyramid_options import PyramidKind


class CascadeConfig(Options):
    """Level 1 has the images' size, level i half of that of level i - 1. The coarsest prior is unconditional, the others know
    the image of the level below, brought to their size.
    """

    pyramid: PyramidKind = Field(
        default="bicubic",
        description="how levels are halved and doubled: pool (means, blocks), kspace (crop, zeros) or bicubic",
    )
    level1: EDM2Config = Field(description="network of the finest band")
    level2: EDM2Config | None = Field(default=None, description="network of the band at half the size; none: one level")
    level3: EDM2Config | None = Field(
        default=None, description="network of the band at a quarter of the size; none: two levels"
    )

    @model_validator(mode="after")
    def _consistent(self) -> CascadeConfig:
        if self.level3 is not None and self.level2 is None:
            raise ValueError("level3 without level2")
        for name, level in self.networks.items():
            wanted = 0 if name == f"level{self.count}" else self.channels
            if level.img_channels != self.channels or level.cond_channels != wanted:
                raise ValueError(
                    f"{name} has img_channels {level.img_channels} and cond_channels {level.cond_channels}, here they must be "
                    f"{self.channels} and {wanted} (the coarsest level has no condition)"
                )
            if level.label_dim:
                raise ValueError(f"{name} has class labels; the levels of a cascade have none")
        return self

    @property
    def networks(self) -> Mapping[str, EDM2Config]:
        """The levels by name, the finest first."""
        levels = {"level1": self.level1, "level2": self.level2, "level3": self.level3}
        return {name: level for name, level in levels.items() if level is not None}

    @property
    def count(self) -> int:
        """Number of levels."""
        return len(self.networks)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.level1.img_channels

    @property
    def multiple(self) -> int:
        """Sides of the finest images must be multiples of this, so that every level's network takes its images."""
        return math.lcm(*(2**i * level.multiple for i, level in enumerate(self.networks.values())))
