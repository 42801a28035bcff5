"""Per-axis matrices on batches of images: ``[B, C, *size]`` in, ``[B, C, *size']`` out, by matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def working(x: Tensor) -> Tensor:
    """``x`` in a type that operators compute in: half precision is promoted to float32, the rest is kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def apply_axes(x: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Multiply every trailing axis by its matrix ``[out, in]`` (``None``: leave that axis), last axis first.

    Runs outside autocast, and in double precision where float32 products are allowed to be less than that (TF32): a forward
    model in reduced precision would not be the forward model.
    """
    if torch.get_float32_matmul_precision() != "highest" and x.dtype in (torch.float32, torch.complex64):
        wide = torch.float64 if x.dtype == torch.float32 else torch.complex128
        doubled = [None if m is None else m.to(torch.complex128 if m.is_complex() else torch.float64) for m in matrices]
        return _multiply(x.to(wide), doubled).to(x.dtype)
    return _multiply(x, matrices)


def _multiply(x: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        for back, matrix in enumerate(reversed(matrices)):
            if matrix is None:
                continue
            if back == 0:
                x = x @ matrix.mT
            else:
                lead, rest = x.shape[: x.ndim - back - 1], x.shape[x.ndim - back :]
                x = (matrix @ x.flatten(x.ndim - back)).reshape(*lead, matrix.shape[0], *rest)
    return x


def outer(vectors: Sequence[Tensor]) -> Tensor:
    """``[n1, n2, ...]``: the outer product of one vector per axis."""
    product = vectors[0]
    for vector in vectors[1:]:
        product = product[..., None] * vector
    return product


class TensorCache:
    """Numpy matrices as tensors, one copy per (device, dtype); owned by one operator, dropped when it is pickled."""

    def __init__(self) -> None:
        """Start empty."""
        self._store: dict[tuple[Any, ...], tuple[Tensor | None, ...]] = {}

    def get(self, key: str, build: Callable[[], Sequence[NDArray[Any] | None]], like: Tensor) -> tuple[Tensor | None, ...]:
        """The arrays of ``build()`` on ``like``'s device in its dtype (complex arrays for a real ``like``: its precision)."""
        full = (key, like.device, like.dtype)
        if full not in self._store:
            with torch.inference_mode(False):  # tensors made in inference mode could not be used in autograd later
                self._store[full] = tuple(None if m is None else _tensor(m, like) for m in build())
        return self._store[full]

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: tensors are made again where they are needed."""
        return {"_store": {}}


def _tensor(matrix: NDArray[Any], like: Tensor) -> Tensor:
    dtype = _COMPLEX[like.dtype] if np.iscomplexobj(matrix) and not like.is_complex() else like.dtype
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(device=like.device, dtype=dtype)
