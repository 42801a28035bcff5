"""Sub-pixel convolution (Shi et al. 2016, arXiv:1609.05158): from features at LR resolution to images at HR resolution."""

from __future__ import annotations

from torch import nn

from mrbench.errors import UserError


def stages(width: int, scale: int) -> list[nn.Module]:
    """Convolutions and pixel shuffles of 2 or 3, which keep ``width`` channels: ``[B, C, h, w] -> [B, C, s h, s w]``.

    Raises
    ------
    UserError : the scale is no product of 2s and 3s.
    """
    made: list[nn.Module] = []
    for factor in factors(scale):
        made += [nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
    return made


def zero_conv(width: int, channels: int) -> nn.Conv2d:
    """A 3 x 3 convolution that begins at zero, so that a network begins as the interpolation that it is added to."""
    made = nn.Conv2d(width, channels, 3, padding=1)
    nn.init.zeros_(made.weight)
    assert made.bias is not None
    nn.init.zeros_(made.bias)
    return made


def factors(scale: int) -> list[int]:
    """``scale`` as a product of 2s and 3s.

    Raises
    ------
    UserError : it is none.
    """
    found, rest = [], scale
    for factor in (2, 3):
        while rest % factor == 0:
            found.append(factor)
            rest //= factor
    if rest > 1 or not found:
        raise UserError(f"scale {scale}: the staged upsampler enlarges by products of 2 and 3. Choose upsampler: direct.")
    return found
