"""Pictures as 8-bit PNG: grey images, colour images, and maps of one quantity in a colour scale for all eyes."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

Scale = Literal["inferno", "viridis"]  # both of even lightness, and told apart by all kinds of colour vision
SCALES: tuple[Scale, ...] = get_args(Scale)


def grey_png(image: NDArray[np.floating]) -> bytes:
    """``[H, W]`` or ``[H, W, 3]`` in [0, 1], rounded to 256 steps."""
    from PIL import Image

    steps = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return _bytes(Image.fromarray(steps))


def map_png(values: NDArray[np.floating], top: float, scale: Scale) -> bytes:
    """``[H, W]`` from 0 to ``top`` (and above: as ``top``) in a colour scale of 256 steps."""
    from PIL import Image

    share = np.clip(values / top, 0, 1) if top > 0 else np.zeros(values.shape)
    picture = Image.fromarray(np.rint(share * 255).astype(np.uint8))
    picture.putpalette(palette(scale))
    return _bytes(picture)


def bar_png(scale: Scale) -> bytes:
    """The colour scale itself, 256 x 1 pixels from left to right."""
    return map_png(np.arange(256.0)[None], 255.0, scale)


@cache
def palette(scale: Scale) -> bytes:
    """256 colours, three bytes each."""
    from matplotlib import colormaps

    colours = np.rint(np.asarray(colormaps[scale](np.arange(256)))[:, :3] * 255).astype(np.uint8)
    return bytes(colours.tobytes())


def _bytes(picture: Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
