"""Ways to compute one network, timed in turns, and the tables that show them side by side."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

Precision = Literal["fp32", "bf16"]
Rows = dict[str, dict[str, float]]  # by name of the variant: columns
CONSOLE = Console()
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
REFERENCE = "plain fp32"


@dataclass(frozen=True)
class Timing:
    """How to measure. clock : ``wall``, or ``cpu`` (of all threads, for a busy machine). compiled : also compiled networks."""

    repeats: int
    clock: str = "wall"
    compiled: bool = True

    def seconds(self, work: Callable[[], Any]) -> float:
        """Of one call of ``work``."""
        now = CLOCKS[self.clock]
        begin = now()
        work()
        return now() - begin


@dataclass(frozen=True)
class Variant:
    """One way to compute a network. precision : of autocast; inputs are float32."""

    name: str
    network: Any
    precision: Precision = "fp32"

    def cast(self) -> AbstractContextManager[Any]:
        """The autocast context."""
        return torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The network's output under autocast."""
        with self.cast():
            output: Tensor = self.network(*arguments)
        return output


def variants(network: nn.Module, plain: nn.Module, compiled: bool) -> list[Variant]:
    """The plain order first, then the network as the methods use it (channels last), then compiled with its weights packed.

    ``bf16 stored``: weights rounded to bfloat16 once, where autocast does it in every call; the same numbers.
    """
    own: Any = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    plain.requires_grad_(False)
    ways: list[tuple[str, Any]] = [
        (REFERENCE, plain),
        ("plain bf16", plain),
        ("fp32", own),
        ("bf16", own),
        ("bf16 stored", _stored(own)),
    ]
    if compiled:
        torch.compiler.reset()  # the number of variants of one function that may be compiled is limited
        fast = torch.compile(own, dynamic=False, options={"freezing": True})
        ways += [("fp32 compiled", fast), ("bf16 compiled", fast)]
    return [Variant(name, way, "bf16" if "bf16" in name else "fp32") for name, way in ways]


def _stored(network: nn.Module) -> nn.Module:
    rounded = copy.deepcopy(network)
    for module in rounded.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):  # the layers that autocast computes in bfloat16
            module.to(torch.bfloat16)
    return rounded


def call_times(ways: Sequence[Variant], arguments: tuple[Tensor, ...], timing: Timing) -> tuple[Rows, list[Variant]]:
    """Median seconds of a call, and the largest difference from the first way over the largest value; with the ways that ran.

    The first call of each is not timed. A way that cannot be compiled here is left out, and named.
    """
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode():
        for way in ways:
            try:
                outputs[way.name] = way(*arguments).float()
            except Exception as error:
                if "compiled" not in way.name:
                    raise
                CONSOLE.print(f"{way.name} left out, torch.compile failed: {str(error).strip().splitlines()[0]}", markup=False)
        ran = [way for way in ways if way.name in outputs]
        seconds = in_turns({way.name: lambda way=way: way(*arguments) for way in ran}, timing)  # type: ignore[misc]
    reference = outputs[ways[0].name]
    largest = reference.abs().max()
    rows = {
        name: {"call_s": median, "difference": float((outputs[name] - reference).abs().max() / largest)}
        for name, median in seconds.items()
    }
    return rows, ran


def in_turns(work: Mapping[str, Callable[[], Any]], timing: Timing) -> dict[str, float]:
    """Median seconds of each piece of work. They take turns, so that a busy machine disturbs all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(timing.repeats):
        for name, piece in work.items():
            seconds[name].append(timing.seconds(piece))
    return {name: float(np.median(values)) for name, values in seconds.items()}


def with_ratios(rows: Rows, columns: Sequence[str] = ("call_s", "slice_s")) -> Rows:
    """Beside every time: how many times faster than the plain order in float32, and than the plain order in the same precision."""
    found: Rows = {}
    for name, values in rows.items():
        same = "plain bf16" if "bf16" in name else REFERENCE
        found[name] = {}
        for column, value in values.items():
            found[name][column] = value
            if column in columns:
                found[name][f"{column[:-2]} x"] = rows[REFERENCE][column] / value
                found[name][f"{column[:-2]} x same"] = rows[same][column] / value
    return found


def show(title: str, rows: Rows, caption: str = "") -> None:
    """A table of all columns; ``x`` and ``x same`` are ratios of the times before them."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    columns = list(next(iter(rows.values())))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(_HEADS.get(column, column), justify="right", no_wrap=True)
    for name, values in rows.items():
        table.add_row(name, *(_cell(column, values[column]) for column in columns))
    CONSOLE.print(f"\n{title}", style="bold", highlight=False, soft_wrap=True)
    CONSOLE.print(table)
    if caption:
        CONSOLE.print(caption, highlight=False, soft_wrap=True)


_HEADS = {
    "call_s": "s/call", "call x": "x", "call x same": "x same", "slice_s": "s/slice", "slice x": "x", "slice x same": "x same",
    "psnr": "PSNR", "outside": "outside %", "peak_mib": "peak MiB",
}  # fmt: skip


def _cell(column: str, value: float) -> str:
    if value != value:
        return "-"
    if " x" in column:
        return f"{value:.2f}"
    if column == "difference":
        return f"{value:.1e}"
    if column == "outside":
        return f"{100 * value:.0f}"
    return f"{value:.2f}" if column == "psnr" else f"{value:.4g}"
