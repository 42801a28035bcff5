"""The forms of image-to-image generators and patch discriminators, checked (no torch here)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from mrbench.cards import Options

from .sampling_options import SamplingOptions

Norm = Literal["batch", "instance"]
Kernel = Literal["nearest", "bicubic", "bspline"]
PREUPSAMPLE: Kernel = "bicubic"


class UNetGeneratorConfig(Options):
    """U-Net of pix2pix; ``unet_256`` is ``num_downs=8``."""

    channels: PositiveInt = Field(default=1, description="of the images, in and out")
    num_downs: int = Field(default=8, ge=5, description="halvings; images are multiples of 2^num_downs")
    width: PositiveInt = Field(default=64, description="channels after the first convolution (ngf)")
    norm: Norm = "batch"
    dropout: bool = Field(default=True, description="in the innermost levels, in training")


class ResnetGeneratorConfig(Options):
    """Residual network of CycleGAN; ``resnet_9blocks`` is ``blocks=9``."""

    channels: PositiveInt = Field(default=1, description="of the images, in and out")
    width: PositiveInt = Field(default=64, description="channels after the first convolution (ngf)")
    blocks: PositiveInt = 9
    norm: Norm = "instance"
    dropout: bool = Field(default=False, description="between the convolutions of a block, in training")


class PatchGANConfig(Options):
    """Discriminator that judges overlapping patches; 3 layers see 70 x 70 pixels."""

    width: PositiveInt = Field(default=64, description="channels after the first convolution (ndf)")
    layers: PositiveInt = 3
    norm: Norm = "batch"


class TranslationOptions(SamplingOptions):
    """Of methods that turn the interpolated LR image into the HR image in one pass."""

    preupsample: Kernel | None = Field(
        default=None, description="interpolation of the LR image to the HR grid; default as the checkpoint says, else bicubic"
    )
    statistics: Literal["image", "running"] | None = Field(
        default=None,
        description="of batch normalisation: image: those of the image itself, as the published code tests; running: averages of the "
        "training (eval mode); default as the checkpoint says, else image. Without effect on instance normalisation",
    )
