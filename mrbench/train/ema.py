"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.train.settings import EmaSpec


def power_exponent(std: float) -> float:
    """The exponent gamma of a power-function average of relative width ``std`` (Karras 2024, eqs. 123-126).

    The largest real root of ``g^3 + 7 g^2 + (16 - std^-2) g + (12 - std^-2) = 0``.
    """
    roots = np.roots([1.0, 7.0, 16.0 - std**-2, 12.0 - std**-2])
    return float(roots.real.max())


def ema_rate(spec: EmaSpec, update: int) -> float:
    """The rate b of the n-th update (n = ``update`` from 1) of ``average = b average + (1 - b) weights``.

    ``constant``: ``rate``; ``warmup``: ``min(rate, (1 + n) / (10 + n))``; ``power``: ``(1 - 1/n)^(gamma + 1)`` (Karras 2024,
    eq. 127, with one update as the unit of time), so that the first update takes the weights as they are.
    """
    if spec.kind == "constant":
        return spec.rate
    if spec.kind == "warmup":
        return min(spec.rate, (1 + update) / (10 + update))
    return float((1 - 1 / update) ** (power_exponent(spec.std) + 1))


class Ema:
    """The average of some networks' parameters. Buffers are not averaged: the networks' own are used.

    Parameters
    ----------
    spec : the rule.
    networks : what is averaged, by name; the average starts at their present weights.
    """

    def __init__(self, spec: EmaSpec, networks: Mapping[str, nn.Module]) -> None:
        self.spec = spec
        self.updates = 0
        self._parameters = {f"{n}.{k}": p for n, network in networks.items() for k, p in network.named_parameters()}
        self._average = {k: p.detach().clone() for k, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the networks' present weights."""
        self.updates += 1
        weight = 1 - ema_rate(self.spec, self.updates)
        torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), weight)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The networks hold the averaged weights inside this context, and their own again after it; nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            own = parameter.data
            parameter.data = self._average[name]
            self._average[name] = own

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on."""
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state.

        Raises
        ------
        UserError : the state belongs to other networks.
        """
        stored: Mapping[str, Tensor] = state["average"]
        if set(stored) != set(self._average):
            raise UserError("the stored average belongs to other networks. Start a new training in another folder.")
        self.updates = int(state["updates"])
        with torch.no_grad():
            for name, tensor in self._average.items():
                tensor.copy_(stored[name])
