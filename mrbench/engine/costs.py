"""What a method costs: parameters, network calls, multiply-adds, and the time of one slice alone and of slices in a batch.

Counted are convolutions, matrix products and attention, by the formulas of ``torch.utils.flop_counter``; a multiply-add is two
floating-point operations. Fourier transforms and what works element by element are not counted.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mrbench.degradation.measurement import Measurement
from mrbench.engine.restorer import GroundTruth, Restorer, Steps
from mrbench.errors import UserError

REPEATS = 5  # timed restorations of each batch size, of which the median counts
ENOUGH_SECONDS = 10.0  # ... but no further one after this long
DEPTH = 12  # of objects in objects, where networks are looked for


@dataclass(frozen=True)
class NetworkCost:
    """One network, for one draw of one slice.

    parameters : numbers that were trained. calls : of the whole network; ``None`` where only parts of it are called (encoder,
    decoder). macs : multiply-adds of all calls, forward.
    """

    name: str
    parameters: int
    calls: int | None
    macs: int


@dataclass(frozen=True)
class Timing:
    """Median ``seconds`` per slice with ``batch`` slices at a time, over ``repeats`` restorations."""

    batch: int
    seconds: float
    repeats: int


@dataclass(frozen=True)
class Costs:
    """The costs of one draw of one slice of ``size``.

    networks : in the order in which they were found; none for methods without. nfe : network calls as the method itself says, and
    as its rows do: of a whole image, whether in tiles or not. other_macs : multiply-adds outside of forward passes: gradients, and
    matrix products of data steps. steps : that the method reports while it runs; ``None``: it does not. single, batched : times.
    """

    size: tuple[int, int]
    networks: tuple[NetworkCost, ...]
    nfe: int | None
    other_macs: int
    steps: int | None
    single: Timing
    batched: Timing

    @property
    def parameters(self) -> int | None:
        """Of all networks together; ``None`` without networks."""
        return sum(n.parameters for n in self.networks) if self.networks else None

    @property
    def calls(self) -> int | None:
        """Network calls that were counted, on tiles and whole images alike; ``None`` without networks."""
        return sum(n.calls or 0 for n in self.networks) if self.networks else None

    @property
    def macs(self) -> int | None:
        """Multiply-adds in all; ``None`` without networks."""
        return sum(n.macs for n in self.networks) + self.other_macs if self.networks else None

    @property
    def step_seconds(self) -> float | None:
        """Time of a slice alone per network call of a whole image (per step where there are none); ``None`` without either."""
        count = self.nfe or self.steps
        return self.single.seconds / count if count else None


def measure_costs(
    restorer: Restorer,
    measurement: Measurement,
    truth: GroundTruth | None = None,
    tell: Callable[[str], None] = lambda text: None,
    repeats: int = REPEATS,
) -> Costs:
    """Count one draw of the first slice of ``measurement``, then time it alone and all slices in one batch.

    The counted restoration is the warm-up. Times are those of :class:`Restorer`: without loading, degradation and metrics.

    Parameters
    ----------
    restorer : its ``warm_up`` and ``on_step`` are used for this, and put back.
    truth : for controls.
    tell : called with what is being done.

    Raises
    ------
    UserError : the method fails on these slices, with its reason.
    """
    first = measurement.select([0])
    first_truth = truth and truth.select([0])
    counter = Counter(find_networks(restorer.implementation))
    totals: list[int] = []

    def heard(steps: Steps) -> None:
        totals.append(steps.total)
        tell(f"counting, step {steps.done} of {steps.total}")

    kept = restorer.warm_up, restorer.on_step
    restorer.warm_up, restorer.on_step = False, heard
    try:
        tell("counting")
        with counter.counting():
            _restore(restorer, first, first_truth)
        restorer.on_step = None
        single = _timed(restorer, first, first_truth, repeats, tell)
        several = len(measurement.ids) > 1
        batched = _timed(restorer, measurement, truth, repeats, tell) if several else single
    finally:
        restorer.warm_up, restorer.on_step = kept
    networks = counter.costs()
    nfe = (restorer.nfe or sum(n.calls or 0 for n in networks)) if networks else None
    return Costs(measurement.size, networks, nfe, counter.other // 2, max(totals, default=None), single, batched)


def _restore(restorer: Restorer, measurement: Measurement, truth: GroundTruth | None) -> Timing:
    outcomes = restorer.restore(measurement, 1, truth)
    for item, outcome in zip(measurement.ids, outcomes, strict=True):
        if outcome.status != "ok":
            raise UserError(f"{item}: {outcome.error}")
    return Timing(min(o.batch for o in outcomes), statistics.mean(o.seconds for o in outcomes), 1)


def _timed(
    restorer: Restorer, measurement: Measurement, truth: GroundTruth | None, repeats: int, tell: Callable[[str], None]
) -> Timing:
    found: list[Timing] = []
    begin = time.perf_counter()
    while len(found) < repeats and (not found or time.perf_counter() - begin < ENOUGH_SECONDS):
        tell(f"timing batches of {len(measurement.ids)}, {len(found) + 1} of {repeats}")
        found.append(_restore(restorer, measurement, truth))
    return Timing(found[-1].batch, statistics.median(t.seconds for t in found), len(found))


# -- networks ------------------------------------------------------------------------------------------------------
def find_networks(method: object) -> dict[str, nn.Module]:
    """The networks that an object holds, at any depth, by the names under which it holds them, the nearest first.

    Attributes, containers, closures and bound arguments are looked through. Networks inside of networks are no networks of their own.
    Names lose what all of them begin with: ``_prior.network`` becomes ``network``.
    """
    seen: set[int] = set()
    found: list[tuple[tuple[str, ...], nn.Module]] = []
    waiting: deque[tuple[tuple[str, ...], object]] = deque([((), method)])
    while waiting:
        path, value = waiting.popleft()
        if id(value) in seen or len(path) > DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.append((path, value))
        else:
            waiting.extend(((*path, *name), child) for name, child in _held(value))
    inner = {id(m) for _, network in found for m in network.modules() if m is not network}
    outer = [(path, network) for path, network in found if id(network) not in inner]
    return dict(zip(_names([path for path, _ in outer]), (network for _, network in outer), strict=True))


def count_parameters(method: object) -> int | None:
    """Numbers that were trained, of all networks that a loaded method holds; ``None`` without networks."""
    networks = find_networks(method).values()
    return sum(p.numel() for n in networks for p in n.parameters()) if networks else None


def _held(value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """What an object holds, each with the part that it adds to a name (none for what has no name)."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield (str(key),), child
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for number, child in enumerate(value):
            yield (str(number),), child
    elif isinstance(value, partial):
        yield from (((), child) for child in (value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield (), value.__self__
    elif isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield (name,), cell.cell_contents
            except ValueError:  # not bound yet
                continue
    elif not isinstance(value, (type, ModuleType, Tensor, BaseModel, str, bytes)):
        held = dict(vars(value)) if hasattr(value, "__dict__") else {}
        held |= {s: getattr(value, s) for c in type(value).__mro__ for s in _slots(c) if hasattr(value, s)}
        for name, child in held.items():
            yield (name.lstrip("_"),), child


def _slots(cls: type) -> Sequence[str]:
    slots = cls.__dict__.get("__slots__", ())
    return [slots] if isinstance(slots, str) else [s for s in slots if not s.startswith("__")]


def _names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Paths as names, without what they all begin with."""
    shared = 0
    shortest = min((len(p) for p in paths), default=0)
    while shared < shortest - 1 and len({p[: shared + 1] for p in paths}) == 1:
        shared += 1
    return [".".join(p[shared:]) or "network" for p in paths]


# -- counting ------------------------------------------------------------------------------------------------------
@dataclass
class _Tally:
    name: str
    network: nn.Module
    entered: int = 0  # calls of anything in it
    calls: int = 0  # of the network itself
    flops: int = 0


@dataclass
class Counter:
    """Floating-point operations of the networks and of everything else (``other``) while :meth:`counting`.

    Networks that are not in ``networks`` and are called all the same (a function's, at module level) are added, named by their class.
    """

    networks: Mapping[str, nn.Module]
    other: int = 0
    _tallies: list[_Tally] = field(init=False)
    _owners: dict[int, _Tally] = field(init=False)
    _open: list[tuple[int, _Tally]] = field(init=False, default_factory=list)  # modules that are being called

    def __post_init__(self) -> None:
        self._tallies, self._owners = [], {}
        for name, network in self.networks.items():
            self._own(name, network)

    def costs(self) -> tuple[NetworkCost, ...]:
        """What was counted, network by network."""
        return tuple(
            NetworkCost(
                t.name,
                sum(p.numel() for p in t.network.parameters()),
                t.calls if t.calls or not t.entered else None,
                t.flops // 2,
            )
            for t in self._tallies
        )

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is computed inside."""
        handles = [
            register_module_forward_pre_hook(lambda module, _: self._enter(module)),
            register_module_forward_hook(lambda module, *_: self._leave(module), always_call=True),
        ]
        try:
            with _Operations(self._add):
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._open.clear()

    def _own(self, name: str, network: nn.Module) -> _Tally:
        tally = _Tally(name, network)
        self._tallies.append(tally)
        for module in network.modules():
            self._owners.setdefault(id(module), tally)
        return tally

    def _enter(self, module: nn.Module) -> None:
        if not self._open:
            tally = self._owners.get(id(module)) or self._own(type(module).__name__, module)
            tally.entered += 1
            tally.calls += module is tally.network
            self._open.append((id(module), tally))
        else:
            self._open.append((id(module), self._open[0][1]))

    def _leave(self, module: nn.Module) -> None:
        if self._open and self._open[-1][0] == id(module):
            self._open.pop()

    def _add(self, flops: int) -> None:
        if self._open:
            self._open[0][1].flops += flops
        else:
            self.other += flops


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """``q [B, h, N, d]``, ``k [B, h, M, d]``, ``v [B, h, M, e]``."""
    batch, heads, rows, width = q.shape
    return 2 * batch * heads * rows * k.shape[2] * (width + v.shape[3])


def _attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Five products where forward has two: the weights again, and the gradients of v, of the weights, of q and of k."""
    batch, heads, rows, width = q.shape
    return 2 * batch * heads * rows * k.shape[2] * (3 * width + 2 * v.shape[3])


_CPU_ATTENTION: dict[str, Callable[..., int]] = {  # the registry has the kernels of CUDA devices only
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls ``add`` with the floating-point operations of every operation that has a formula; others are taken apart first.

    ``FlopCounterMode`` itself cannot be used: it hooks into backward passes in a way that ``torch.autograd.grad`` refuses.
    """

    def __init__(self, add: Callable[[int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._add = add
        own = {
            getattr(torch.ops.aten, name): formula for name, formula in _CPU_ATTENTION.items() if hasattr(torch.ops.aten, name)
        }
        self._formulas: dict[Any, Callable[..., int]] = {**own, **flop_registry}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None:
            if func is not torch.ops.prim.device.default:
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        self._add(int(formula(*args, **kwargs, out_val=out)))
        return out


__all__ = ["Costs", "Counter", "NetworkCost", "Timing", "find_networks", "measure_costs"]
