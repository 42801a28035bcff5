"""Devices and processes, by accelerate."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs, broadcast
from torch import Tensor, nn

from mrbench.errors import UserError

PATIENCE = timedelta(hours=6)  # the other processes wait while the first one validates


def first_process() -> bool:
    """Whether this is the first (or only) process of a training, before its devices are set up."""
    return os.environ.get("RANK", "0") == "0"


class Devices:
    """The device of this process, and the other processes of the same training.

    Networks are not wrapped: gradients are averaged over the processes after each backward pass, which serves any number of
    optimisers, frozen networks and ways of calling a network alike. ``accelerate launch -m mrbench.cli.main train ...`` starts
    several processes; by itself this is one.

    Parameters
    ----------
    device : of a single process; several each take the one that accelerate gives them.
    bf16 : whether some stage computes in bfloat16.

    Raises
    ------
    UserError : the device does not support bfloat16.
    """

    def __init__(self, device: torch.device, bf16: bool) -> None:
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        # one process may train several times (seeds, ablations), with other precisions
        AcceleratorState._reset_state(not torch.distributed.is_initialized())
        try:
            self._accelerator = Accelerator(
                cpu=device.type == "cpu",
                mixed_precision="bf16" if bf16 else "no",
                kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
            )
        except ValueError as error:
            raise UserError(f"{device}: {error} Train with --precision fp32.") from error

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self._accelerator.device
        return device

    @property
    def count(self) -> int:
        """Number of processes."""
        return int(self._accelerator.num_processes)

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return int(self._accelerator.process_index)

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return bool(self._accelerator.is_main_process)

    @contextmanager
    def precision(self, name: str) -> Iterator[None]:
        """Autocast for a stage's precision, "bf16" or "fp32"."""
        with self._accelerator.autocast(AutocastKwargs(enabled=name == "bf16")):
            yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._accelerator.backward(loss)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their means over the processes, in place."""
        if self.count == 1 or not tensors:
            return
        flat = self._accelerator.reduce(torch.cat([t.flatten() for t in tensors]), "mean")
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the tensors of the first one, in place."""
        if self.count == 1:
            return
        for tensor in tensors:
            tensor.copy_(broadcast(tensor.contiguous(), 0))

    def clip(self, parameters: Sequence[nn.Parameter], most: float | None) -> float:
        """Scale the gradients of ``parameters`` down to the global L2 norm ``most``; returns their norm before."""
        return float(self._accelerator.clip_grad_norm_(list(parameters), math.inf if most is None else most))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process."""
        if self.count == 1:
            return flag
        return bool(self._accelerator.reduce(torch.tensor(float(flag), device=self.device), "sum") > 0)

    def wait(self) -> None:
        """Wait for the other processes."""
        self._accelerator.wait_for_everyone()
