"""Constructor arguments of the U-Net with Swin blocks, checked, with what follows from them (no torch here)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from mrbench.cards import Options

GROUPS = 32  # of every group normalisation


class SwinUNetConfig(Options):
    """U-Net with Swin blocks of ResShift, SinSR and Res-SRDiff; field names follow the published configurations.

    ``image_size`` is the *nominal* side of the noisy state (latent or pixels). The network takes other sizes too, but
    where a level's nominal side is at most ``window_size``, windows have that side and are never shifted.
    """

    image_size: PositiveInt = Field(description="nominal side of the noisy state")
    in_channels: PositiveInt = Field(description="channels of the noisy state, without those of the condition")
    out_channels: PositiveInt = Field(description="channels of the output")
    model_channels: PositiveInt = Field(description="base width")
    channel_mult: tuple[PositiveInt, ...] = Field(min_length=1, description="width of every level, in model_channels")
    num_res_blocks: tuple[PositiveInt, ...] = Field(description="residual blocks of every level")
    attention_resolutions: tuple[PositiveInt, ...] = Field(description="nominal sides of the levels with Swin layers")
    lq_size: PositiveInt | None = Field(default=None, description="nominal side of the condition; default image_size")
    lq_channels: PositiveInt = Field(default=3, description="channels of the condition (the LR image)")
    cond_mask: bool = Field(default=False, description="a mask in {-1, 1} follows the condition's channels (inpainting)")
    unshuffle: PositiveInt = Field(
        default=1, description="the network sees blocks of u x u pixels as channels (faster); image_size counts blocks then"
    )
    condition: Literal["strided", "unshuffle"] = Field(
        default="strided",
        description="a condition larger than the state passes strided convolutions (ResShift), or its pixels are unshuffled (SinSR)",
    )
    use_scale_shift_norm: bool = Field(
        default=True,
        description="the time step scales and shifts features; else it is added before a group normalisation, which takes it "
        "out again where groups have one channel (levels of width 32)",
    )
    swin: bool = Field(default=True, description="false: no Swin layers at all (ablation); the other keys stay the same")
    swin_depth: PositiveInt = Field(default=2, description="blocks per Swin layer")
    swin_embed_dim: PositiveInt = Field(default=192, description="width of Swin layers")
    num_heads: PositiveInt = Field(default=1, description="attention heads, if num_head_channels is -1")
    num_head_channels: int = Field(default=-1, ge=-1, description="channels per head; -1: swin_embed_dim / num_heads")
    window_size: PositiveInt = Field(default=8, description="side of the attention windows")
    mlp_ratio: float = Field(default=4.0, gt=0, description="hidden width of the Swin MLP, in swin_embed_dim")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in residual blocks, while training")

    @model_validator(mode="after")
    def _consistent(self) -> SwinUNetConfig:
        if len(self.num_res_blocks) != self.levels:
            raise ValueError(f"num_res_blocks has {len(self.num_res_blocks)} entries for {self.levels} levels of channel_mult")
        if self.image_size % 2 ** (self.levels - 1):
            raise ValueError(f"image_size {self.image_size} cannot be halved {self.levels - 1} times")
        widths = {self.model_channels * m for m in self.channel_mult} | ({self.swin_embed_dim} if self.swin else set())
        if any(w % GROUPS for w in widths):
            raise ValueError(f"all widths must be multiples of {GROUPS} (group normalisation), got {sorted(widths)}")
        if self.num_head_channels == 0 or self.swin_embed_dim % self.heads:
            raise ValueError(f"swin_embed_dim {self.swin_embed_dim} cannot be divided into these heads")
        if self.unshuffle > 1 and (self.lq_side != self.image_size or self.cond_mask):
            raise ValueError("unshuffle needs a condition of the state's size, and no mask")
        larger, smaller = max(self.lq_side, self.image_size), min(self.lq_side, self.image_size)
        ratio = larger // smaller
        if larger % smaller or (self.lq_side > self.image_size and ratio & (ratio - 1)):
            raise ValueError(f"lq_size {self.lq_side} beside image_size {self.image_size}: a power-of-two multiple is needed")
        return self

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_mult)

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.num_heads if self.num_head_channels == -1 else max(self.swin_embed_dim // self.num_head_channels, 1)

    @property
    def lq_side(self) -> int:
        """Nominal side of the condition."""
        return self.lq_size or self.image_size

    @property
    def lq_step(self) -> float:
        """Pixels of the state per pixel of the condition, along an axis."""
        return self.image_size / self.lq_side

    @property
    def stages(self) -> int:
        """How often a strided feature extractor halves the condition: ``int(log2(lq_size / image_size))``."""
        strided = self.condition == "strided" and self.lq_side > self.image_size
        return int(math.log2(self.lq_side / self.image_size)) if strided else 0

    @property
    def added_channels(self) -> int:
        """Channels that the condition adds to the first convolution."""
        if self.stages:
            return int(16 * 2**self.stages)
        given = self.lq_channels * self.unshuffle**2 + self.cond_mask
        unshuffled = self.condition == "unshuffle" and self.lq_side > self.image_size
        return given * (self.lq_side // self.image_size) ** 2 if unshuffled else given

    def resolution(self, level: int) -> int:
        """Nominal side of the features at ``level`` (0 is the finest)."""
        return self.image_size // int(2**level)

    def has_swin(self, level: int) -> bool:
        """Whether the encoder and decoder have a Swin layer at ``level`` (the middle always has one)."""
        return self.swin and self.resolution(level) in self.attention_resolutions

    @property
    def multiple(self) -> int:
        """Sides of the noisy state must be multiples of this: whole windows wherever there are Swin layers."""
        last = self.levels - 1
        parts = [2**last, max(round(self.lq_step), 1)]
        for level in range(self.levels):
            if self.has_swin(level) or (self.swin and level == last):
                parts.append(2**level * min(self.window_size, self.resolution(level)))
        return self.unshuffle * math.lcm(*parts)
