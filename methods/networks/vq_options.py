"""Constructor arguments of the VQ autoencoder, checked (no torch here)."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from mrbench.cards import Options

from .swin_unet_options import GROUPS


class VQConfig(Options):
    """Convolutional autoencoder with a codebook (Esser et al. 2021; Rombach et al. 2022), attention in the middle only."""

    embed_dim: PositiveInt = Field(description="channels of the latent")
    n_embed: PositiveInt = Field(description="codes")
    z_channels: PositiveInt = Field(description="channels between the convolutions and the latent")
    in_channels: PositiveInt = Field(default=3, description="channels of the images that are encoded")
    out_channels: PositiveInt = Field(default=3, description="channels of the decoded images")
    ch: PositiveInt = Field(description="base width")
    ch_mult: tuple[PositiveInt, ...] = Field(min_length=1, description="width of every level, in ch")
    num_res_blocks: tuple[PositiveInt, ...] = Field(description="residual blocks of every level (the decoder has one more)")

    @model_validator(mode="after")
    def _consistent(self) -> VQConfig:
        if len(self.num_res_blocks) != len(self.ch_mult):
            raise ValueError(f"num_res_blocks has {len(self.num_res_blocks)} entries for {len(self.ch_mult)} levels of ch_mult")
        if any(self.ch * m % GROUPS for m in (1, *self.ch_mult)):
            raise ValueError(f"all widths must be multiples of {GROUPS} (group normalisation)")
        return self

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, along an axis."""
        return int(2 ** (len(self.ch_mult) - 1))
