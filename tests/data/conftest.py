"""Small generated files and phantoms for the tests of the reading layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def gradient16() -> NDArray[np.uint16]:
    """24 x 20 pixels with 480 different values from 0 to 4000-odd: saturation at 255 or rounding to 8 bits would show."""
    return (np.arange(24 * 20, dtype=np.uint16).reshape(24, 20) * 8 + 160).astype(np.uint16)


@pytest.fixture
def head() -> Callable[..., NDArray[np.float32]]:
    """A function that draws slices of a head: scalp ring, dark skull, brain with a dark ventricle, background noise."""

    def draw(slices: int = 3, side: int = 64, peak: float = 1000.0, seed: int = 0) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        radius = np.hypot(y, x) / side
        image = np.where(radius < 0.45, 0.9, 0.0)  # scalp
        image[radius < 0.41] = 0.02  # skull
        image[radius < 0.37] = 0.6  # brain
        image[radius < 0.08] = 0.03  # ventricle
        stack = np.stack([image] * slices) * peak
        return np.abs(stack + rng.normal(0, 0.01 * peak, stack.shape)).astype(np.float32)

    return draw
