"""Colour to grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Shares of red, green and blue in the luma Y' of ITU-R BT.601, section 2.5.1.
LUMA = (0.299, 0.587, 0.114)


def luminance(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """``0.299 R + 0.587 G + 0.114 B`` of the stored values, not rounded; grey pictures as they are.

    Parameters
    ----------
    picture : ``[C, ...]`` float32, C = 1 (grey) or 3 (red, green, blue), any range.

    Returns
    -------
    ``[1, ...]`` float32, of the same range.

    Raises
    ------
    ValueError : another number of channels.
    """
    if picture.shape[0] == 1:
        return picture
    if picture.shape[0] != 3:
        raise ValueError(f"expected 1 or 3 channels, got {picture.shape[0]}")
    grey: NDArray[np.float32] = np.tensordot(np.array(LUMA, dtype=np.float64), picture, axes=1)[None].astype(np.float32)
    return grey
