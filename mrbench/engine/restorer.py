"""Runs a method on measurements: calls it, times it, checks what it returns, splits batches that fail.

A method never stops a run: what goes wrong on an item becomes the status and error text of that item.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mrbench.cards import Checkpoint, MethodCard, NoOptions, Options
from mrbench.degradation.measurement import Measurement
from mrbench.errors import PluginError
from mrbench.hub import resolve
from mrbench.store.rows import Status

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *AUTOCAST)

# Estimates live on the [0, 1] range of the ground truth and may overshoot. More than OUTSIDE of the pixels beyond
# [LOW, HIGH], or any pixel beyond +-WILD, means another range ([-1, 1], 0..255) or a diverged sampler.
LOW, HIGH, OUTSIDE, WILD = -0.5, 1.5, 0.05, 100.0
ERROR_LENGTH = 500


@dataclass
class GroundTruth:
    """What controls see beside the measurement: ``hr [B, C, H, W]`` and slices of other subjects, cut to the same size."""

    hr: Tensor
    others: Tensor | None = None

    def select(self, indices: list[int]) -> GroundTruth:
        """The same for some items of the batch."""
        return GroundTruth(self.hr[indices], None if self.others is None else self.others[indices])

    def to(self, device: torch.device) -> GroundTruth:
        """The same on another device."""
        return GroundTruth(self.hr.to(device), None if self.others is None else self.others.to(device))


@dataclass
class Restored:
    """The outcome for one item. ``estimate`` is ``[K, C, H, W]`` float32, unclipped, or ``None`` unless ok."""

    status: Status
    estimate: Tensor | None = None
    error: str = ""
    seconds: float = float("nan")
    peak_memory: float | None = None
    batch: int = 0


@dataclass(frozen=True)
class Steps:
    """How far a method is within the items that it restores together.

    items : their ids. done, total : steps. seconds : since the method was called. warm_up : this call is not timed, and its result
    is thrown away.
    """

    items: tuple[str, ...]
    done: int
    total: int
    seconds: float
    warm_up: bool


class BadOutput(PluginError):
    """A method returned something that is no image of the right kind."""


@dataclass
class Restorer:
    """A loaded method on a device.

    limit : the largest batch that fitted into memory so far. warm_up : restore one item of every image size before the first timed
    one, untimed; without it nothing is restored twice, and first times are too long. on_step : hears of the steps of methods that
    report them (see ``mrbench.hookspecs.mrbench_step_done``); it changes no result.
    """

    card: MethodCard
    options: Options
    device: torch.device
    precision: str = "fp32"
    checkpoint: Any = None
    limit: int | None = None
    warm_up: bool = True
    on_step: Callable[[Steps], None] | None = None
    _call: Callable[..., Any] = field(init=False)
    _function: bool = field(init=False)
    _method: Any = field(init=False, default=None)
    _warm: set[tuple[int, ...]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        implementation = self.card.load()
        self._function = not inspect.isclass(implementation)
        if self._function:
            if self.card.options is not NoOptions:
                raise PluginError(f"{self.card.name}: a method with options is a class with __init__(options), not a function.")
            if not callable(implementation):
                raise PluginError(f"{self.card.name}: its implementation is neither a function nor a class.")
            if not self.card.deterministic:
                raise PluginError(
                    f"{self.card.name}: a method that draws samples is a class with restore(measurement, draws), not a function."
                )
            self._call = implementation
            return
        self._method = implementation(self.options)
        if hasattr(self._method, "load"):
            self._method.load(self._weights(), self.device)
        elif self.checkpoint is not None:
            raise PluginError(f"{self.card.name}: has no load(checkpoint, device), so it can take no weights.")
        if not callable(getattr(self._method, "restore", None)):
            raise PluginError(f"{self.card.name}: its class has no restore(measurement, draws).")
        self._call = self._method.restore

    def _weights(self) -> Any:
        """The checkpoint with its files at hand and checked. What training holds in memory is so already."""
        return resolve(self.checkpoint, self.card.name) if isinstance(self.checkpoint, Checkpoint) else self.checkpoint

    @property
    def implementation(self) -> Any:
        """What restores: the loaded instance of the method's class, or its function."""
        return self._call if self._function else self._method

    @property
    def nfe(self) -> int | None:
        """Network calls per slice, as the method says (its attribute ``nfe``, else its card's)."""
        value = getattr(self._method, "nfe", None)
        return self.card.nfe if value is None else int(value)

    def restore(self, measurement: Measurement, draws: int, truth: GroundTruth | None = None) -> list[Restored]:
        """Restore a batch; one outcome per item, in order."""
        items = list(range(len(measurement.ids)))
        if self.warm_up:
            self._warm_up(measurement, truth)
        step = min(len(items), self.limit or len(items))
        outcomes: list[Restored] = []
        start = 0
        while start < len(items):
            part = items[start : start + step]
            try:
                outcomes += self._batch(_select(measurement, part, len(items)), draws, truth and truth.select(part))
            except Exception as error:
                if is_out_of_memory(error):
                    self._free()
                    if step == 1:
                        outcomes.append(Restored("oom", error=_text(error), batch=1))
                        start += 1
                    else:
                        step = self.limit = max(1, step // 2)
                    continue
                outcomes += self._one_by_one(measurement, part, draws, truth, error)
            start += len(part)
        return outcomes

    def _one_by_one(
        self, measurement: Measurement, part: list[int], draws: int, truth: GroundTruth | None, error: Exception
    ) -> list[Restored]:
        """A batch raised: find out which of its items are to blame, so that the others keep their results."""
        if len(part) == 1 or isinstance(error, BadOutput):
            return [Restored("failed", error=_text(error), batch=len(part)) for _ in part]
        outcomes = []
        for i in part:
            try:
                outcomes += self._batch(_select(measurement, [i], len(measurement.ids)), draws, truth and truth.select([i]))
            except Exception as single:
                self._free()
                status: Status = "oom" if is_out_of_memory(single) else "failed"
                outcomes.append(Restored(status, error=_text(single), batch=1))
        return outcomes

    def _batch(self, measurement: Measurement, draws: int, truth: GroundTruth | None) -> list[Restored]:
        count = len(measurement.ids)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._synchronise()
        begin = time.perf_counter()
        output = self._invoke(measurement, draws, truth)
        self._synchronise()
        seconds = (time.perf_counter() - begin) / count
        memory = float(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else None
        estimates = self._shape(output, measurement, draws)
        outcomes = []
        for i in range(count):
            problem = check_values(estimates[i])
            if problem:
                outcomes.append(Restored("failed", error=problem, seconds=seconds, peak_memory=memory, batch=count))
            else:
                outcomes.append(Restored("ok", estimates[i], "", seconds, memory, count))
        return outcomes

    def _invoke(self, measurement: Measurement, draws: int, truth: GroundTruth | None, warm_up: bool = False) -> Any:
        cast = torch.autocast(self.device.type, AUTOCAST[self.precision]) if self.precision in AUTOCAST else nullcontext()
        with torch.inference_mode(), cast, self._heard(measurement.ids, warm_up):
            if self._function:
                return self._call(measurement)
            return self._call(measurement, draws, truth) if self.card.control else self._call(measurement, draws)

    @contextmanager
    def _heard(self, items: tuple[str, ...], warm_up: bool) -> Iterator[None]:
        """While the method runs, its attribute ``on_step`` (``None`` where it has one) passes its steps on."""
        listener, method = self.on_step, self._method
        if listener is None or getattr(method, "on_step", listener) is not None:
            yield
            return
        begin = time.perf_counter()

        def on_step(done: int, total: int) -> None:
            listener(Steps(items, int(done), int(total), time.perf_counter() - begin, warm_up))

        method.on_step = on_step
        try:
            yield
        finally:
            method.on_step = None

    def _shape(self, output: Any, measurement: Measurement, draws: int) -> Tensor:
        """Check type and shape, and bring the output to ``[B, K, C, H, W]`` float32."""
        batch, channels = measurement.y.shape[:2]
        image = (channels, *measurement.size)
        if not isinstance(output, Tensor):
            raise BadOutput(f"returned {type(output).__name__}, expected a torch tensor")
        expected = (batch, *image) if self._function else (batch, draws, *image)
        if tuple(output.shape) != expected:
            names = "[B, C, H, W]" if self._function else "[B, K, C, H, W]"
            raise BadOutput(f"returned shape {list(output.shape)}, expected {names} = {list(expected)}")
        if not output.is_floating_point():
            raise BadOutput(f"returned dtype {output.dtype}, expected floating point on the [0, 1] range")
        images: Tensor = output.detach().to(torch.float32)
        return images[:, None] if self._function else images

    def _warm_up(self, measurement: Measurement, truth: GroundTruth | None) -> None:
        """One untimed item per image size: first calls compile, allocate and load."""
        size = tuple(measurement.y.shape[1:])
        if size in self._warm:
            return
        self._warm.add(size)
        try:
            self._invoke(_select(measurement, [0], len(measurement.ids)), 1, truth and truth.select([0]), True)
            self._synchronise()
        except Exception:  # the timed call meets the same error and records it
            self._free()

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def check_values(estimate: Tensor) -> str:
    """Why an estimate ``[K, C, H, W]`` is not an image on the [0, 1] range, or the empty string."""
    bad = int((~torch.isfinite(estimate)).sum())
    if bad:
        return f"returned NaN or infinite values in {bad} of {estimate.numel()} pixels"
    low, high = float(estimate.min()), float(estimate.max())
    signed = estimate.shape[1] == 2  # real and imaginary parts are signed
    outside = ((estimate < (-HIGH if signed else LOW)) | (estimate > HIGH)).float().mean().item()
    if outside > OUTSIDE or max(-low, high) > WILD:
        return (
            f"returned values between {low:.3g} and {high:.3g}, {outside:.0%} of them outside [{LOW}, {HIGH}]: "
            "estimates are expected on the [0, 1] range of the ground truth"
        )
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _select(measurement: Measurement, part: list[int], total: int) -> Measurement:
    return measurement if len(part) == total else measurement.select(part)


def _text(error: BaseException) -> str:
    message = str(error).strip() or "no message"
    text = message if isinstance(error, BadOutput) else f"{type(error).__name__}: {message}"
    return text if len(text) <= ERROR_LENGTH else text[: ERROR_LENGTH - 1] + "…"
