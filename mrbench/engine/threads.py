"""CPU threads and float32 arithmetic: set once by the engine and recorded, since the last bits depend on them."""

from __future__ import annotations

import torch


def use_threads(count: int | None) -> int:
    """Set PyTorch's intra-op threads (``None``: keep its choice), switch TF32 off, and return the number of threads.

    ``fp32`` means float32: with TF32, NVIDIA cards round the factors of products to 10 bits of mantissa.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if count is not None:
        torch.set_num_threads(count)
    return torch.get_num_threads()
