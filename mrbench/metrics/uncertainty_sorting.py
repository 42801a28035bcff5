"""Sorts K numbers at every pixel with a network of compare-exchange steps on whole planes.

With K small and pixels many this is much faster than a general sort along K, on any device. The network is Batcher's
merge exchange for any K (Knuth, The Art of Computer Programming 3, section 5.2.2, algorithm M).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

CPU_BLOCK = 32768  # pixels that are sorted together, per thread: K = 10 of them stay in a core's cache


@lru_cache(maxsize=32)
def merge_exchange(n: int) -> tuple[tuple[int, int], ...]:
    """The steps (i, j), i < j, that sort n >= 1 numbers when each puts the smaller one at i."""
    steps: list[tuple[int, int]] = []
    top = 1 << max(0, (n - 1).bit_length() - 1)  # largest power of two below n
    p = top if n > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            steps += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(steps)


def sort_planes(planes: Tensor) -> Tensor:
    """``planes [K, M]`` with each column in ascending order: a new tensor."""
    k, m = planes.shape
    block = CPU_BLOCK * torch.get_num_threads() if planes.device.type == "cpu" else max(1, m)
    result = torch.empty_like(planes)
    for start in range(0, m, block):
        part = planes[:, start : start + block]
        rows = [row.clone() for row in part]
        spare = torch.empty_like(rows[0])
        for i, j in merge_exchange(k):
            low, high = rows[i], rows[j]
            torch.minimum(low, high, out=spare)
            torch.maximum(low, high, out=high)
            rows[i], spare = spare, low
        for row, target in zip(rows, result[:, start : start + block], strict=True):
            target.copy_(row)
    return result
