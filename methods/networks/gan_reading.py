"""Published generators of pix2pix and CycleGAN: their form, read off keys and shapes, and what has to be mended in old files."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mrbench.errors import UserError

from .gan_options import Norm, ResnetGeneratorConfig, UNetGeneratorConfig

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def read_unet_generator(tensors: Mapping[str, Tensor], what: str) -> UNetGeneratorConfig:
    """The U-Net that has these tensors (dropout cannot be seen, and matters in training only).

    Raises
    ------
    UserError : these are not the weights of a pix2pix U-Net.
    """
    first = tensors.get("model.model.0.weight")
    depth = max((key.count(".model") for key in tensors if key.endswith(".weight")), default=0)
    if first is None or first.ndim != 4 or first.shape[2:] != (4, 4) or depth < 5:
        raise _unknown(what, "a pix2pix U-Net", "model.model.0.weight of 4x4 and five levels or more")
    return UNetGeneratorConfig(channels=first.shape[1], num_downs=depth, width=first.shape[0], norm=_norm(tensors))


def read_resnet_generator(tensors: Mapping[str, Tensor], what: str) -> ResnetGeneratorConfig:
    """The residual generator that has these tensors.

    Raises
    ------
    UserError : these are not the weights of such a generator.
    """
    first = tensors.get("model.1.weight")
    blocks = {m[1] for key in tensors if (m := re.match(r"^model\.(\d+)\.conv_block\.", key))}
    if first is None or first.ndim != 4 or not blocks or first.shape[2:] != (7, 7):
        raise _unknown(what, "a CycleGAN generator (resnet)", "model.1.weight of 7x7 and conv_block")
    return ResnetGeneratorConfig(
        channels=first.shape[1],
        width=first.shape[0],
        blocks=len(blocks),
        norm=_norm(tensors),
        dropout=any(".conv_block.6.weight" in key and value.ndim == 4 for key, value in tensors.items()),
    )


def mended(tensors: Mapping[str, Tensor], norm: Norm) -> dict[str, Tensor]:
    """The tensors as today's layers have them.

    Old files hold statistics for instance normalisation, which are not used; older ones count no batches.
    """
    if norm == "instance":
        return {key: value for key, value in tensors.items() if key.rpartition(".")[2] not in STATISTICS}
    made = dict(tensors)
    for key in tensors:
        stem, _, last = key.rpartition(".")
        if last == "running_mean":
            made.setdefault(f"{stem}.num_batches_tracked", torch.tensor(0))
    return made


def _norm(tensors: Mapping[str, Tensor]) -> Norm:
    """Only batch normalisation has scales."""
    return "batch" if any(key.endswith(".weight") and value.ndim == 1 for key, value in tensors.items()) else "instance"


def _unknown(what: str, kind: str, sign: str) -> UserError:
    return UserError(f"{what} comes without a config.json and holds no weights of {kind}: it lacks {sign}. Name another file.")
