"""Which part of an image to enlarge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEARLY = 0.98  # windows compete from this share of the best coverage on


@dataclass(frozen=True)
class Window:
    """Pixels ``[top : top + height, left : left + width]``."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """The window of ``[H, W]`` or ``[H, W, 3]``."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def densest_window(image: NDArray[np.floating[Any]], mask: NDArray[np.bool_], share: float = 0.25) -> Window:
    """The window of ``share`` of each side with the highest gradient energy (sum of gx^2 + gy^2).

    Parameters
    ----------
    image : ``[H, W]``. mask : ``[H, W]``, the foreground; an empty one means the whole image.

    Only windows inside the foreground compete (where it holds none, those that it covers best). The first in reading
    order wins ties.
    """
    height, width = (max(1, round(n * share)) for n in image.shape)
    if not mask.any():
        mask = np.ones_like(mask)
    gy, gx = (np.gradient(image.astype(np.float64), axis=a) if image.shape[a] > 1 else np.zeros(image.shape) for a in (0, 1))
    covered = np.rint(_window_sums(mask.astype(np.float64), height, width)) / (height * width)
    energy = _window_sums((gx**2 + gy**2) * mask, height, width)
    eligible = covered >= _NEARLY * covered.max()
    top, left = np.unravel_index(int(np.argmax(np.where(eligible, energy, -1.0))), energy.shape)
    return Window(int(top), int(left), height, width)


def _window_sums(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Sums over all windows, from a summed-area table: ``[H - height + 1, W - width + 1]``."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    table[1:, 1:] = values.cumsum(0).cumsum(1)
    return table[height:, width:] - table[:-height, width:] - table[height:, :-width] + table[:-height, :-width]
