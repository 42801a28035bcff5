"""Near-copies among slices: the same picture twice, under other names, sizes, contrasts or compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrbench.data.phash import near_pairs, phash

#: Hashes of copies (half the size, JPEG, noise of 5 %, another gamma) differ in at most this many of 64 bits.
DISTANCE = 8
#: Least correlation of the details of two copies. Measured on axial slices of 150 people, aligned and at 2 mm: slices of
#: different people reach 0.83, of one person at 6 mm distance 0.86, copies at half the size are above 0.86, others above 0.97.
#: Of the boxes around their foregrounds: different people 0.72, one person at 3 mm distance 0.81; moved, padded or cropped copies
#: are above 0.92.
DETAIL = 0.85

_SIDE = 48
_LEAST = 16  # pixels on a side of a foreground that is compared by itself
_FINE, _COARSE = 0.6, 2.5  # of the band of details, in pixels of the small picture


@dataclass(frozen=True)
class Picture:
    """A slice as the search sees it: who it is, its hash, and ``small``, uint8 ``[48, 48]``.

    ``body_hash`` and ``body``: the same of the box around its foreground, which does not change when a picture is moved, padded
    or its background cut off (0 and ``None``: it has none of its own).
    """

    dataset: str
    subject: str
    volume: str
    split: str
    position: int  # display position in the volume, from 0
    hash: int
    small: NDArray[np.uint8]
    body_hash: int = 0
    body: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class NearCopy:
    """Two slices that are the same picture. ``bits``: that differ in their hashes; ``detail``: correlation of their details."""

    first: Picture
    second: Picture
    bits: int
    detail: float

    @property
    def sides(self) -> str:
        """Where they are: ``data sets``, ``splits``, or ``subjects`` (of one split)."""
        if self.first.dataset != self.second.dataset:
            return "data sets"
        return "splits" if self.first.split != self.second.split else "subjects"


def picture_of(
    image: NDArray[np.float32],
    dataset: str,
    subject: str,
    volume: str,
    split: str,
    position: int,
    mask: NDArray[np.bool_] | None = None,
) -> Picture:
    """Hash and shrink one slice ``[H, W]`` (any range, finite). ``mask``: its foreground, ``[H, W]``."""
    whole = Picture(dataset, subject, volume, split, position, phash(image), shrink(image))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) if mask is not None else np.empty(0, int) for axis in (1, 0))
    if min(rows.size, columns.size) < _LEAST:
        return whole
    body = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return replace(whole, body_hash=phash(body), body=shrink(body))


def shrink(image: NDArray[np.float32], side: int = _SIDE) -> NDArray[np.uint8]:
    """An image ``[H, W]`` as uint8 ``[side, side]`` by area averaging, its own smallest value black and its largest white."""
    from PIL import Image

    small = np.asarray(Image.fromarray(image.astype(np.float32)).resize((side, side), Image.Resampling.BOX), dtype=np.float32)
    low, high = float(small.min()), float(small.max())
    if not high > low:
        return np.zeros((side, side), np.uint8)
    return np.round((small - low) / (high - low) * 255).astype(np.uint8)


def detail_correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation of two small pictures after a band-pass (difference of Gaussians): 1 for copies, 0 without contrast."""
    one, other = _details(first), _details(second)
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length > 0 else 0.0


def _details(small: NDArray[np.uint8]) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    values = small.astype(np.float64)
    band = gaussian_filter(values, _FINE) - gaussian_filter(values, _COARSE)
    flat: NDArray[np.float64] = (band - band.mean()).reshape(-1)
    return flat


def near_copies(pictures: Sequence[Picture]) -> list[NearCopy]:
    """Pairs of near-copies of different subjects, or of one subject in several splits or data sets; the surest first.

    Whole pictures are compared, and the boxes around their foregrounds. Neighbouring slices of one subject on one side are no
    finding. Pictures without contrast (hash 0) are passed over.
    """
    found: dict[tuple[int, int], NearCopy] = {}
    whole = [(i, p.hash, p.small) for i, p in enumerate(pictures) if p.hash]
    bodies = [(i, p.body_hash, p.body) for i, p in enumerate(pictures) if p.body_hash and p.body is not None]
    for seen in (whole, bodies):
        for a, b, bits in near_pairs([code for _, code, _ in seen], DISTANCE):
            (i, _, one), (j, _, other) = seen[a], seen[b]
            first, second = pictures[i], pictures[j]
            if (first.dataset, first.subject, first.split) == (second.dataset, second.subject, second.split):
                continue
            detail = detail_correlation(one, other)
            if detail >= DETAIL and ((i, j) not in found or found[i, j].detail < detail):
                found[i, j] = NearCopy(first, second, bits, detail)
    return sorted(found.values(), key=lambda pair: (-pair.detail, pair.bits))


def by_volume(copies: Sequence[NearCopy]) -> list[tuple[NearCopy, int]]:
    """The surest pair of each two volumes, and how many pairs they have, in the order of ``copies``."""
    counts: dict[frozenset[tuple[str, str, str, str]], tuple[NearCopy, int]] = {}
    for copy in copies:
        key = frozenset((p.dataset, p.subject, p.volume, p.split) for p in (copy.first, copy.second))
        first, count = counts.get(key, (copy, 0))
        counts[key] = (first, count + 1)
    return list(counts.values())
