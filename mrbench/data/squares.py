"""Pictures of one square size: crop, pad, resize."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def square_crop(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The centre square of ``[C, H, W]``, as large as the shorter side (of an odd surplus the end loses the extra line)."""
    side = min(picture.shape[1:])
    top, left = ((n - side) // 2 for n in picture.shape[1:])
    return picture[:, top : top + side, left : left + side]


def square_pad(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[C, H, W]`` on a square of zeros as large as the longer side, centred (an odd line of zeros more goes to the end)."""
    side = max(picture.shape[1:])
    top, left = ((side - n) // 2 for n in picture.shape[1:])
    out = np.zeros((picture.shape[0], side, side), dtype=np.float32)
    out[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return out


def resized(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """``[C, N, N]`` resized to ``[C, side, side]``: Pillow's antialiased bicubic on float32, kept within the picture's extremes."""
    from PIL import Image

    if picture.shape[1:] == (side, side):
        return picture
    planes = [np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)) for plane in picture]
    return np.clip(np.stack(planes).astype(np.float32, copy=False), picture.min(), picture.max())
