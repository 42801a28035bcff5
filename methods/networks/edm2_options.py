"""Constructor arguments of the magnitude-preserving U-Net of EDM2, checked, with what follows from them (no torch here)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from mrbench.cards import Options

Balance = Annotated[float, Field(ge=0, le=1)]


class EDM2Config(Options):
    """Preconditioned denoiser of EDM2 (Karras et al. 2024, arXiv:2312.02696); field names follow the published code.

    ``cond_channels``, ``cond_std``, ``unshuffle`` and ``middle_attention`` are additions: left at their defaults, keys, shapes
    and numbers are those of published weights. ``img_resolution`` is a *nominal* side: it names the layers and places the
    attention, but the network takes other sizes too (multiples of :attr:`multiple`).
    """

    img_resolution: PositiveInt = Field(description="nominal side of the images (in blocks of pixels, with unshuffle)")
    img_channels: PositiveInt = Field(description="channels of the images")
    cond_channels: int = Field(
        default=0, ge=0, description="channels of an image that is concatenated to the noisy one; 0: none"
    )
    cond_std: float = Field(default=0.5, gt=0, description="the condition is divided by this, so that it has unit variance")
    label_dim: int = Field(default=0, ge=0, description="class labels; 0: none")
    sigma_data: float = Field(default=0.5, gt=0, description="standard deviation of the clean images")
    logvar_channels: PositiveInt = Field(default=128, description="width of the learned uncertainty of the loss")
    model_channels: PositiveInt = Field(default=192, description="base width")
    channel_mult: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 3, 4), min_length=1, description="width of every level, in model_channels"
    )
    channel_mult_noise: PositiveInt | None = Field(
        default=None, description="width of the noise features; default: the first level's"
    )
    channel_mult_emb: PositiveInt | None = Field(
        default=None, description="width of the embedding; default: the widest level's"
    )
    num_blocks: PositiveInt = Field(default=3, description="residual blocks of every level")
    attn_resolutions: tuple[PositiveInt, ...] = Field(default=(16, 8), description="nominal sides of levels with attention")
    channels_per_head: PositiveInt = Field(default=64, description="of the attention")
    middle_attention: bool = Field(
        default=True,
        description="attention in the first block of the decoder (published networks have it); false: the network is "
        "convolutional throughout, so that one trained on patches works alike on whole images",
    )
    unshuffle: PositiveInt = Field(
        default=1, description="the network sees blocks of u x u pixels as channels (faster); img_resolution counts blocks then"
    )
    label_balance: Balance = Field(default=0.5, description="between noise features (0) and labels (1)")
    concat_balance: Balance = Field(default=0.5, description="between the main path (0) and skip connections (1)")
    res_balance: Balance = Field(default=0.3, description="between the main path (0) and residual branches (1)")
    attn_balance: Balance = Field(default=0.3, description="between the main path (0) and attention (1)")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in residual blocks, while training")
    clip_act: float | None = Field(
        default=256.0, gt=0, description="features are clipped to plus and minus this; none: they are not"
    )

    @model_validator(mode="after")
    def _consistent(self) -> EDM2Config:
        if self.img_resolution % 2 ** (self.levels - 1):
            raise ValueError(f"img_resolution {self.img_resolution} cannot be halved {self.levels - 1} times")
        for level, width in enumerate(self.widths):
            last = level == self.levels - 1
            attends = self.resolution(level) in self.attn_resolutions or (last and self.middle_attention)
            if attends and width % self.channels_per_head:
                raise ValueError(f"attention on {width} channels cannot be divided into heads of {self.channels_per_head}")
        return self

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_mult)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level, the finest first."""
        return tuple(self.model_channels * m for m in self.channel_mult)

    @property
    def noise_width(self) -> int:
        """Fourier features of the noise level."""
        return self.widths[0] if self.channel_mult_noise is None else self.model_channels * self.channel_mult_noise

    @property
    def emb_width(self) -> int:
        """Channels of the embedding of noise level and label."""
        return max(self.widths) if self.channel_mult_emb is None else self.model_channels * self.channel_mult_emb

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this."""
        return self.unshuffle * int(2 ** (self.levels - 1))

    def resolution(self, level: int) -> int:
        """Nominal side of the features at ``level`` (0 is the finest)."""
        return self.img_resolution >> level
