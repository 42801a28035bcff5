"""Constructor arguments of the ADM U-Net, checked, with what follows from them (no torch here)."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mrbench.cards import Options


class ADMConfig(Options):
    """U-Net of Dhariwal and Nichol 2021 (arXiv:2105.05233); most names are those of the published configurations.

    Two are not. ``attention_rates`` is what the published constructor calls ``attention_resolutions``, though it gets factors of
    downsampling: attention at 32, 16 and 8 of 256 pixels is (8, 16, 32). And there is no ``image_size``, which nothing depends
    on: a network that is used at another size keeps its attention at the same depth.
    """

    in_channels: PositiveInt = Field(description="channels of the noisy image, without those of a low-resolution one")
    out_channels: PositiveInt = Field(description="channels of the output; twice the image's where the variance is learned")
    model_channels: PositiveInt = Field(description="base width")
    channel_mult: tuple[PositiveFloat, ...] = Field(min_length=1, description="width of every level, in model_channels")
    num_res_blocks: PositiveInt = Field(description="residual blocks of every level")
    attention_rates: tuple[PositiveInt, ...] = Field(
        default=(), description="levels with attention, by their factor of downsampling; the middle always has it"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in residual blocks, while training")
    num_classes: PositiveInt | None = Field(default=None, description="classes of a class-conditional network")
    num_heads: PositiveInt = Field(default=4, description="attention heads, if num_head_channels is -1")
    num_head_channels: int = Field(default=-1, ge=-1, description="channels per attention head; -1: width / num_heads")
    num_heads_upsample: int = Field(default=-1, ge=-1, description="attention heads of the decoder; -1: num_heads")
    resblock_updown: bool = Field(default=False, description="residual blocks change the resolution")
    conv_resample: bool = Field(default=True, description="convolutions change the resolution (without resblock_updown)")
    use_scale_shift_norm: bool = Field(default=True, description="time scales and shifts normalised features; else it is added")
    use_new_attention_order: bool = Field(default=False, description="queries, keys and values before heads in the channels")
    low_res_channels: int = Field(
        default=0, ge=0, description="channels of an image of any size that is enlarged (bilinear) and concatenated"
    )
    unshuffle: PositiveInt = Field(default=1, description="the network sees blocks of u x u pixels as channels (faster)")
    groups: PositiveInt = Field(default=32, description="groups of every group normalisation")

    @model_validator(mode="after")
    def _consistent(self) -> ADMConfig:
        if self.model_channels % 2:
            raise ValueError(f"model_channels {self.model_channels} is odd, and time is embedded in pairs")
        uneven = sorted({w for w in self.widths if w % self.groups})
        if uneven:
            raise ValueError(f"widths {uneven} are no multiples of {self.groups} (group normalisation)")
        rates = [2**level for level in range(self.levels)]
        strange = [r for r in self.attention_rates if r not in rates]
        if strange:
            raise ValueError(f"attention_rates {strange}: the levels have the rates {rates}")
        if self.num_head_channels == 0 or self.num_heads_upsample == 0:
            raise ValueError("no attention has 0 heads; -1 leaves it to num_heads")
        for level, width in enumerate(self.widths):
            attends = 2**level in self.attention_rates
            heads = ({self.heads(width), self.heads(width, decoder=True)} if attends else set()) | (
                {self.heads(width)} if level == self.levels - 1 else set()
            )
            if any(h < 1 or width % h for h in heads):
                raise ValueError(f"width {width} of level {level} cannot be divided into its attention heads {sorted(heads)}")
        return self

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_mult)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at every level."""
        return tuple(int(m * self.model_channels) for m in self.channel_mult)

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this."""
        return int(self.unshuffle * 2 ** (self.levels - 1))

    def heads(self, width: int, decoder: bool = False) -> int:
        """Attention heads at ``width`` channels."""
        if self.num_head_channels != -1:
            return width // self.num_head_channels if width % self.num_head_channels == 0 else 0
        return self.num_heads_upsample if decoder and self.num_heads_upsample != -1 else self.num_heads
