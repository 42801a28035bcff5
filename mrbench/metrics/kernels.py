"""Kernels: functions of tensors that run as they are, or compiled once for all image sizes."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mrbench.errors import MetricUnavailable

Function = Callable[..., Any]


class CompileUnavailable(MetricUnavailable):
    """A compiled kernel cannot be built or run here; the plain one may still work."""


class Kernel:
    """A pure function of tensors ``[n, H, W]`` (and a few numbers), with an example of its arguments.

    Compiled with symbolic sizes: the first compilation serves every image size, so data sets of varying sizes cost no
    further ones. Each kernel has its own compilation cache, so that many of them cannot exhaust a shared limit.
    """

    def __init__(self, function: Function, example: Callable[[torch.device], tuple[Any, ...]], tolerance: float = 1e-3):
        self._plain = function
        self._example = example
        self._tolerance = tolerance
        self._compiled: Function | None = None

    def compile(self, owner: str, device: torch.device) -> None:
        """Compile, and check against the plain function on the example.

        Raises
        ------
        CompileUnavailable : no compiler, an unsupported device, or results that differ.
        """
        if self._compiled is not None:
            return
        own_code = types.FunctionType(
            self._plain.__code__.replace(), self._plain.__globals__, self._plain.__name__, self._plain.__defaults__
        )
        self._compiled = torch.compile(own_code, dynamic=True, fullgraph=True)
        try:
            with torch.inference_mode():
                arguments = self._example(device)
                fast, plain = _tuple(self(*arguments)), _tuple(self._plain(*arguments))
        except CompileUnavailable as error:
            self._compiled = None
            raise CompileUnavailable(f"{owner}: {error}") from error
        gap = max(float((f - p).abs().max()) for f, p in zip(fast, plain, strict=True))
        if not gap <= self._tolerance:
            self._compiled = None
            raise CompileUnavailable(f"{owner}: the compiled kernel differs from the plain one by {gap:.2g}; run without it")

    def __call__(self, *arguments: Any) -> Any:
        """Run the compiled function if there is one, else the plain one."""
        if self._compiled is None:
            return self._plain(*arguments)
        # tensors made inside and outside of inference mode would be two cases to compile
        uniform = [_uniform(a) if isinstance(a, Tensor) else a for a in arguments]
        try:
            return self._compiled(*uniform)
        except Exception as error:
            shapes = ", ".join(str(list(a.shape)) for a in arguments if isinstance(a, Tensor))
            reason = str(error).strip().splitlines()
            raise CompileUnavailable(
                f"compiling failed for {shapes}: {type(error).__name__}: {reason[0] if reason else 'no reason given'}. "
                "A C++ compiler is needed on the CPU; without one, run without compiled metrics."
            ) from error


def _uniform(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.is_inference() else tensor.clone()


def _tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
