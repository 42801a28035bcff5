"""Perceptual hashes: near-copies of pictures among files that do not say whom they show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_SIDE = 32  # pixels on a side of the small picture that is transformed
_BLOCK = 8  # frequencies taken along each axis: 8 x 8 = 64 bits
_DIGITS = 6  # below 1e-6 of the largest coefficient there is only rounding error
_ROWS = 4096  # of one bucket that are compared with the whole bucket at once
_POPCOUNT = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def phash(image: NDArray[np.generic]) -> int:
    """The 64-bit perceptual hash of a picture.

    The picture is brought to 32 x 32 pixels by exact area averaging; of its orthonormal 2-D DCT-II the frequencies 1 to 8
    along both axes are kept, and each bit says whether a coefficient is above their median (C. Zauner, Implementation and
    Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1). It does not change with size, brightness or
    (positive) contrast, and changes in a few bits with compression or slight blur; mirrored or turned pictures have other
    hashes. All pictures without contrast have the hash 0.

    Parameters
    ----------
    image : ``[H, W]``, finite, any units and size.

    Raises
    ------
    ValueError : not two-dimensional, empty, or not finite.
    """
    from scipy.fft import dctn

    values = np.asarray(image, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"expected a picture [H, W], got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("expected finite values")
    small = _areas(values.shape[0]) @ values @ _areas(values.shape[1]).T
    block = dctn(small - small.mean(), norm="ortho")[1 : _BLOCK + 1, 1 : _BLOCK + 1]
    largest = float(np.abs(block).max())
    if not largest > 1e-9 * max(1.0, float(np.abs(small).max())):
        return 0
    block = np.round(block / largest, _DIGITS)
    bits = (block > np.median(block)).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(hashes: Sequence[int], distance: int = 6) -> list[tuple[int, int, int]]:
    """All pairs of hashes that differ in at most ``distance`` bits, none missed: ``(i, j, bits)`` with i < j, sorted.

    The 64 bits are cut into ``distance + 1`` bands: of two hashes that differ in at most ``distance`` bits at least one band is
    equal, so only hashes that share a band are compared.

    Parameters
    ----------
    hashes : 64-bit numbers, see :func:`phash`.
    distance : 0 (equal hashes only) to 63.
    """
    found: dict[tuple[int, int], int] = {}
    for rows, columns, bits in _near(hashes, distance):
        found.update(zip(zip(rows.tolist(), columns.tolist(), strict=True), bits.tolist(), strict=True))
    return [(i, j, bits) for (i, j), bits in sorted(found.items())]


def near_groups(hashes: Sequence[int], distance: int = 6) -> list[int]:
    """The group of each hash: near pairs, and whatever chains of them connect, are one group.

    A group's number is the position of its first member, so it does not depend on how the pairs were found.

    Parameters
    ----------
    hashes, distance : as in :func:`near_pairs`.
    """
    parent = list(range(len(hashes)))

    def root(member: int) -> int:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for rows, columns, _ in _near(hashes, distance):
        for first, second in zip(rows.tolist(), columns.tolist(), strict=True):
            one, other = sorted((root(first), root(second)))
            parent[other] = one
    return [root(member) for member in range(len(hashes))]


def _areas(length: int) -> NDArray[np.float64]:
    """``[32, length]``: the share of each stored pixel in each pixel of the small picture; rows sum to 1."""
    edges = np.arange(_SIDE + 1) * (length / _SIDE)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: NDArray[np.float64] = np.clip(overlap, 0, None) * (_SIDE / length)
    return shares


def _near(hashes: Sequence[int], distance: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """Near pairs in pieces: first members, second members, differing bits. A pair may come more than once."""
    if not 0 <= distance < 64:
        raise ValueError(f"distance must be from 0 to 63 bits, got {distance}")
    values = np.array(list(hashes), dtype=np.uint64)
    edges = [64 * band // (distance + 1) for band in range(distance + 2)]
    for low, high in pairwise(edges):
        key = (values >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        for bucket in np.split(order, cuts):  # positions with one band in common, ascending
            for start in range(0, max(len(bucket) - 1, 0), _ROWS):
                part = bucket[start : start + _ROWS]
                bits = _differing(values[part], values[bucket])
                rows, columns = np.nonzero(bits <= distance)
                later = part[rows] < bucket[columns]
                rows, columns = rows[later], columns[later]
                yield part[rows], bucket[columns], bits[rows, columns]


def _differing(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Number of differing bits of every pair: ``[len(one), len(other)]``."""
    changed = np.bitwise_xor(one[:, None], other[None, :])
    total = np.zeros(changed.shape, dtype=np.uint8)
    for byte in range(8):
        total += _POPCOUNT[((changed >> np.uint64(8 * byte)) & np.uint64(255)).astype(np.intp)]
    return total


__all__ = ["near_groups", "near_pairs", "phash"]
