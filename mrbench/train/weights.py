"""Weights of several networks as one flat dictionary, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mrbench.errors import UserError

SHOWN = 3


def joined_state(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The only network's state dictionary, or those of several with ``name.`` before each key."""
    if len(networks) == 1:
        return dict(next(iter(networks.values())).state_dict())
    return {f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()}


def load_joined(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`joined_state`, in place.

    Raises
    ------
    UserError : missing or unknown keys or other shapes, with the first of them.
    """
    wanted = joined_state(networks)
    problems = differences(wanted, tensors)
    if problems:
        raise UserError(f"these weights belong to another network: {'; '.join(problems)}.")
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(tensors[key])


def differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """How the keys and shapes of ``given`` differ from ``wanted``, in words; the first few of each kind."""
    missing = [k for k in wanted if k not in given]
    extra = [k for k in given if k not in wanted]
    shapes = [
        f"{k} {list(given[k].shape)} instead of {list(v.shape)}"
        for k, v in wanted.items()
        if k in given and given[k].shape != v.shape
    ]
    found = []
    for title, names in (("missing", missing), ("unknown", extra), ("other shapes", shapes)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            found.append(f"{title}: {', '.join(names[:SHOWN])}{more}")
    return found


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Independent contiguous copies on the CPU."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}


def buffer_keys(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Which of the ``tensors`` are buffers of the networks (schedules, statistics): they are always stored exactly."""
    places = {b.data_ptr() for network in networks.values() for b in network.buffers() if b.numel()}
    return frozenset(k for k, v in tensors.items() if v.numel() and v.data_ptr() in places)


def stored_as(tensors: Mapping[str, Tensor], weights: str, exact: frozenset[str]) -> dict[str, Tensor]:
    """The tensors as they are stored: with ``weights`` fp16, float32 ones in float16, except those named in ``exact``.

    Raises
    ------
    UserError : a value does not fit into float16.
    """
    if weights != "fp16":
        return dict(tensors)
    stored = {k: v.half() if v.dtype == torch.float32 and k not in exact else v for k, v in tensors.items()}
    for key, value in stored.items():
        if value.dtype == torch.float16 and not bool(torch.isfinite(value).all()) and bool(torch.isfinite(tensors[key]).all()):
            raise UserError(f"{key}: a weight does not fit into float16. Store the weights with `weights: fp32` in the preset.")
    return stored
