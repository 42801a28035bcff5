"""Which stored axis runs from left to right in a head: the one along which it is its own mirror image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIDE = 32  # samples along each axis; coarse on purpose


def mirror_correlations(array: NDArray[np.float32]) -> tuple[float, float, float]:
    """Correlation of a volume with its mirror image along each of its three axes, about its own centre of mass.

    A head is nearly symmetric from left to right and along no other direction. A check for files whose headers do not say how
    they are stored; it cannot tell left from right.

    Parameters
    ----------
    array : ``[D0, D1, D2]``, finite, background near the lowest value.

    Returns
    -------
    Three numbers from -1 to 1; NaN for a volume without contrast.
    """
    small = array.astype(np.float64)
    for axis, length in enumerate(array.shape):
        edges = np.unique(np.linspace(0, length, min(_SIDE, length) + 1).astype(int))[:-1]
        counts = np.diff(np.append(edges, length))
        small = np.add.reduceat(small, edges, axis=axis) / counts.reshape([-1 if a == axis else 1 for a in range(3)])
    return (_mirror(small, 0), _mirror(small, 1), _mirror(small, 2))


def _mirror(small: NDArray[np.float64], axis: int) -> float:
    """Correlation with the mirror image about the plane through the centre of mass (to half a sample)."""
    weights = (small - small.min()).sum(axis=tuple(a for a in range(3) if a != axis))
    if not weights.sum() > 0:
        return float("nan")
    doubled = round(2 * float((weights * np.arange(len(weights))).sum() / weights.sum()))  # twice the centre
    first, last = max(0, doubled - len(weights) + 1), min(doubled, len(weights) - 1)
    part = np.take(small, np.arange(first, last + 1), axis=axis)
    one, other = part.reshape(-1), np.flip(part, axis=axis).reshape(-1)
    deviation = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / deviation) if deviation > 0 else float("nan")
