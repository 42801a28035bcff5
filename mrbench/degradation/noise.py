"""Noise of the measurement. Levels are in units of the [0, 1] range of the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mrbench.errors import UserError

NoiseKind = Literal["none", "gaussian", "complex_gaussian", "rician"]
NOISE_KINDS: tuple[str, ...] = get_args(NoiseKind)


def add_noise(y: Tensor, kind: NoiseKind, sigma: float, generators: Sequence[torch.Generator]) -> Tensor:
    """``[B, C, ...] -> [B, C, ...]``: every item's noise comes from its own CPU generator, so batching changes nothing.

    ``gaussian``: ``y + n``. ``complex_gaussian`` (2 channels): ``y + n1 + i n2``, ``sigma`` per part. ``rician`` (1 channel):
    ``|y + n1 + i n2|``, whose mean in pure background is ``sigma sqrt(pi / 2) = 1.2533 sigma`` (Gudbjartsson and Patz 1995).

    Raises
    ------
    UserError : unknown kind, negative ``sigma``, kind ``none`` with a level, or channels that the kind has no meaning for.
    """
    if kind not in NOISE_KINDS:
        raise UserError(f"no noise kind named {kind!r}. Known: {', '.join(NOISE_KINDS)}.")
    if not 0 <= sigma < float("inf"):
        raise UserError(f"noise sigma must be 0 or more (in units of the [0, 1] range), got {sigma}.")
    if kind == "none":
        if sigma:
            raise UserError(f"noise kind 'none' with sigma {sigma}: name a kind, or set sigma to 0.")
        return y
    channels = y.shape[1]
    if kind == "complex_gaussian" and channels != 2:
        raise UserError(
            f"complex_gaussian noise takes complex images (2 channels: real, imaginary), got {channels} channel(s). "
            "Use rician for magnitude images, gaussian for others."
        )
    if kind == "rician" and channels != 1:
        raise UserError(
            f"rician noise takes magnitude images (1 channel), got {channels}. "
            "Use complex_gaussian for complex images, gaussian for colour."
        )
    if len(generators) != y.shape[0]:
        raise ValueError(f"{y.shape[0]} items need one generator each, got {len(generators)}")
    parts = 2 if kind == "rician" else 1
    noise = torch.empty(y.shape[0], parts, *y.shape[1:])
    for item, generator in zip(noise, generators, strict=True):
        item.normal_(generator=generator)
    noise = sigma * noise.to(device=y.device, dtype=y.dtype)
    return torch.hypot(y + noise[:, 0], noise[:, 1]) if kind == "rician" else y + noise[:, 0]
