"""The foreground: which pixels of a slice show anatomy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrbench.settings import ForegroundSpec

_BINS = 256
_ROBUST_TOP = 99.9  # percent; a few very bright voxels must not widen the histogram's bins


def percentile(values: NDArray[np.float32], percent: float) -> float:
    """The percentile with linear interpolation between order statistics, in float64 (one copy of ``values``)."""
    flat = values.reshape(-1)
    position = percent / 100 * (flat.size - 1)
    low = int(np.floor(position))
    high = min(low + 1, flat.size - 1)
    ordered = np.partition(flat, (low, high))
    below, above = float(ordered[low]), float(ordered[high])
    return below + (above - below) * (position - low)


def otsu_threshold(values: NDArray[np.float32], factor: float = 1.0) -> float:
    """``min + factor * (t - min)`` with t = Otsu's threshold (IEEE Trans. SMC 9:62, 1979).

    It is the t that maximises the between-class variance ``w0 w1 (m0 - m1)^2`` of a histogram with 256 equal bins from the
    minimum to the 99.9th percentile.

    Parameters
    ----------
    values : finite, of any shape; larger ones count as the 99.9th percentile.
    factor : in (0, 1].
    """
    low, high = float(values.min()), percentile(values, _ROBUST_TOP)
    if high <= low:  # fewer than 0.1 % of the voxels differ from the rest
        high = float(values.max())
    counts, edges = np.histogram(
        np.minimum(values, np.float32(high)), bins=_BINS, range=(low, max(high, np.nextafter(low, np.inf)))
    )
    centres = (edges[:-1] + edges[1:]) / 2
    weight0 = np.cumsum(counts)[:-1].astype(np.float64)
    weight1 = counts.sum() - weight0
    sum0 = np.cumsum(counts * centres)[:-1]
    sum1 = (counts * centres).sum() - sum0
    mean0 = np.divide(sum0, weight0, out=np.zeros_like(sum0), where=weight0 > 0)
    mean1 = np.divide(sum1, weight1, out=np.zeros_like(sum1), where=weight1 > 0)
    threshold = edges[1:-1][np.argmax(weight0 * weight1 * (mean0 - mean1) ** 2)]
    return float(low + factor * (threshold - low))


def slice_mask(image: NDArray[np.float32], threshold: float, closing: float) -> NDArray[np.bool_]:
    """Foreground of one slice: pixels above the threshold, closed, holes filled, largest component (8-connected).

    Closing and filling come before the choice of the component: scalp and brain, which the dark skull separates, are one
    head then. Chosen the other way round, the mask jumps between brain and head from slice to slice.

    Parameters
    ----------
    image : ``[H, W]``.
    threshold : in the image's units.
    closing : radius of the disc as a fraction of the shorter side (at least 1 pixel; 0: no closing).
    """
    above = image > threshold
    rows, columns = (np.flatnonzero(above.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return above
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))  # nothing below leaves it
    radius = max(1, round(closing * min(image.shape))) if closing > 0 else 0
    above[box] = _largest(_filled(_close(above[box], radius) if radius else above[box]))
    return above


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Its largest component; of equal ones the first by rows. Pixels that touch by a corner belong together."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax(), dtype=np.bool_)


def _close(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Closing with the disc of all offsets at most ``radius`` long; the outside is background."""
    dilated = _dilate(np.pad(mask, radius + 1), radius)
    closed = ~_dilate(~dilated, radius)
    return closed[radius + 1 : -radius - 1, radius + 1 : -radius - 1]


def _dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Pixels at most ``radius`` away from the mask.

    The disc is a run of ``2 w + 1`` pixels in each row ``dy``, with ``w = floor(sqrt(radius^2 - dy^2))``; the runs are built from
    the shortest (outermost row) to the longest, each from the one before.
    """
    run = mask.copy()
    result = np.zeros_like(mask)
    width = 0
    for dy in range(radius, -1, -1):
        while (width + 1) ** 2 + dy * dy <= radius * radius:
            width += 1
            run[:, width:] |= mask[:, :-width]
            run[:, :-width] |= mask[:, width:]
        result[dy:] |= run[: len(run) - dy]
        result[: len(run) - dy] |= run[dy:]
    return result


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and its holes: all that the outside does not reach, from pixel to pixel by their sides."""
    from scipy import ndimage

    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return np.asarray(labels[1:-1, 1:-1] != labels[0, 0], dtype=np.bool_)


def foreground(magnitude: NDArray[np.float32], own: NDArray[np.bool_] | None, spec: ForegroundSpec) -> NDArray[np.bool_]:
    """Foreground of a volume: ``[S, H, W]`` bool.

    Parameters
    ----------
    magnitude : ``[S, H, W]``, slices as displayed.
    own : the data set's own mask in the same order, if it brings one.
    spec : see :class:`mrbench.settings.ForegroundSpec`.
    """
    if spec.method == "whole":
        return np.ones(magnitude.shape, dtype=np.bool_)
    if own is not None and spec.method == "dataset_or_otsu":
        return own
    threshold = otsu_threshold(magnitude, spec.otsu_factor)
    return np.stack([slice_mask(image, threshold, spec.closing) for image in magnitude])
