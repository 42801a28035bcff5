"""Geometric self-ensemble (Lim 2017, arXiv:1707.02921, section 3.4): the mean over the rotations and mirrorings of a square."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SIZE = 8


def self_ensemble(network: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """``[B, C, h, w] -> [B, C, s h, s w]``: every one of the 8 images is enlarged and turned back; their mean."""
    total: Tensor | None = None
    for turned in range(SIZE):
        quarters, mirrored = turned % 4, turned >= 4
        seen = torch.rot90(y.flip(-1) if mirrored else y, quarters, (-2, -1))
        made = torch.rot90(network(seen), -quarters, (-2, -1))
        made = made.flip(-1) if mirrored else made
        total = made if total is None else total + made
    assert total is not None
    return total / SIZE
