"""CPU threads: set once by the engine and recorded, since the last bits of sums depend on them."""

from __future__ import annotations

import torch


def use_threads(count: int | None) -> int:
    """Set PyTorch's intra-op threads (``None``: keep its choice) and return the number in use."""
    if count is not None:
        torch.set_num_threads(count)
    return torch.get_num_threads()
