"""Constructor arguments of the SR3 U-Net and of its diffusion, and the options of its sampler, checked (no torch here)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mrbench.cards import Options

from .sampling_options import SamplingOptions

SR3Prediction = Literal["eps", "v", "x0", "residual"]
Variance = Literal["posterior", "beta"]
Schedule = Literal["linear", "quad", "warmup10", "warmup50", "const", "cosine"]
PUBLISHED_STEPS = 2000


class SR3Config(Options):
    """U-Net of SR3; names are those of the published configurations, but for ``downsample`` and ``unshuffle``.

    Attention is placed by construction, not by the size of the images: a level has it where ``image_size`` halved once per level
    is in ``attn_res``, whatever the network is used on. Its middle always has it.
    """

    in_channel: PositiveInt = Field(description="channels of the LR image and of the noisy image together")
    out_channel: PositiveInt = Field(description="channels of the images")
    inner_channel: PositiveInt = Field(default=64, description="base width")
    norm_groups: PositiveInt = Field(default=32, description="groups of every group normalisation")
    channel_mults: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4, 8, 8), min_length=1, description="width of every level, in inner_channel"
    )
    attn_res: tuple[PositiveInt, ...] = Field(default=(), description="levels with attention, by their size at image_size")
    res_blocks: PositiveInt = Field(default=2, description="residual blocks of every level of the encoder")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in residual blocks, while training")
    image_size: PositiveInt = Field(default=128, description="size of the first level that attn_res counts from")
    downsample: Literal["sr3", "asym"] = Field(
        default="sr3", description="zeros around images before strides: on all sides (published), or right and below only"
    )
    unshuffle: PositiveInt = Field(default=1, description="the network sees blocks of u x u pixels as channels (faster)")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.in_channel != 2 * self.out_channel:
            raise ValueError(
                f"in_channel {self.in_channel}: the LR image and the noisy image have {self.out_channel} channel(s) each (out_channel)"
            )
        if self.inner_channel % 2:
            raise ValueError(f"inner_channel {self.inner_channel} is odd, and noise levels are embedded in pairs")
        uneven = sorted({w for w in self.widths if w % self.norm_groups})
        if uneven:
            raise ValueError(f"widths {uneven} are no multiples of {self.norm_groups} (norm_groups)")
        strange = [r for r in self.attn_res if r not in self.sizes]
        if strange:
            raise ValueError(
                f"attn_res {strange}: the levels have the sizes {list(self.sizes)} at image_size {self.image_size}"
            )
        return self

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_mults)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at every level."""
        return tuple(m * self.inner_channel for m in self.channel_mults)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the levels for ``image_size``."""
        return tuple(self.image_size // 2**level for level in range(self.levels))

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this."""
        return int(self.unshuffle * 2 ** (self.levels - 1))


class SR3DiffusionConfig(Options):
    """``x = g x_0 + sqrt(1 - g^2) n`` with noise levels ``g`` between those of T steps."""

    steps: PositiveInt = Field(default=PUBLISHED_STEPS, description="steps T of training")
    schedule: Schedule = Field(default="linear", description="betas between linear_start and linear_end, or cosine")
    linear_start: PositiveFloat = Field(default=1e-6, lt=1, description="first beta (all but const and cosine)")
    linear_end: PositiveFloat = Field(default=1e-2, lt=1, description="last beta (all but cosine)")
    prediction: SR3Prediction = Field(
        default="eps",
        description="the noise (published), v = g n - sqrt(1 - g^2) x_0, the image, or v of the difference between the image and the "
        "interpolated LR image (residual), which is right from the start up to details",
    )
    residual_scale: PositiveFloat = Field(
        default=0.15, description="standard deviation of that difference, of images in [-1, 1]"
    )


class SR3SamplingOptions(SamplingOptions):
    """Left open, what is not about pieces is as the checkpoint says, else as below."""

    steps: PositiveInt | None = Field(
        default=None, description="network calls, spaced evenly over the training steps (2000 as published); default 100"
    )
    variance: Variance | None = Field(
        default=None,
        description="of the noise added in a step: posterior (published code) or beta (algorithm 2 of the papers); default posterior",
    )
