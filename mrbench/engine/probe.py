"""A method under test: phantom slices, measured as in a real run, and a probe that calls the method and watches it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mrbench.cards import Checkpoint, MethodCard, Options
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.restorer import GroundTruth, Restorer
from mrbench.plugins import Registry
from mrbench.protocol import Protocol

DEFAULT_SCALES = (2, 4, 8)
BASE_SCALE = 4
EVEN, ODD = (48, 40), (45, 37)
CHANNELS = {1: "magnitude", 2: "complex", 3: "colour"}
DEFAULT_DEGRADATION: str = Protocol.model_fields["degradation"].default.name
COMPLEX = {"kspace_crop": {"domain": "complex"}}  # options of degradations that complex images need
ITEMS = (("a", 0), ("b", 0), ("a", 1))  # subject, position
SEED_KEY = "conformance"


def phantom(subject: str, position: int, size: tuple[int, int], channels: int) -> Tensor:
    """A head-like slice ``[C, H, W]`` in [0, 1]: smooth shading, sharp edges, another anatomy and brightness per subject.

    Two channels are real and imaginary part with a smooth phase, three are colours.
    """
    v, u = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in size), indexing="ij")
    tilt = {"a": 0.25, "b": -0.4}[subject]

    def ellipse(cv: float, cu: float, rv: float, ru: float) -> Tensor:
        return ((((v - cv) / rv) ** 2 + ((u - cu) / ru) ** 2) <= 1).double()

    image = 0.9 * ellipse(0, 0, 0.92, 0.85) - 0.45 * ellipse(0, 0, 0.8, 0.72)
    image = image + 0.25 * ellipse(-0.2, tilt, 0.3, 0.15 + 0.05 * position) - 0.3 * ellipse(0.35, -tilt, 0.15, 0.3)
    image = image + 0.12 * torch.cos(14 * (u + tilt * v)) * ellipse(0.1, 0, 0.5, 0.4)
    bright = {"a": 1.0, "b": 0.7}[subject] * (1 - 0.15 * position)
    image = (bright * image * (0.85 + 0.15 * torch.cos(2 * v + 1.5 * u + tilt))).clamp(0, 1)
    if channels == 2:
        phase = 1.2 * u - 0.8 * v * v + tilt
        return torch.stack([image * torch.cos(phase), image * torch.sin(phase)]).float()
    return torch.stack([image * (1 - 0.2 * c * (1 + u) / 2) for c in range(channels)]).float()


@dataclass(frozen=True)
class Case:
    """One measured phantom batch: the first ``count`` of :data:`ITEMS`."""

    scale: int
    size: tuple[int, int] = EVEN
    channels: int = 1
    degradation: str = DEFAULT_DEGRADATION
    count: int = 2

    def __str__(self) -> str:
        """As failures name it."""
        return f"scale {self.scale}, {self.size[0]}x{self.size[1]}, {CHANNELS[self.channels]}, {self.degradation}"


class Probe(Restorer):
    """A restorer without warm-up, clock and rescue: what a method raises comes out. It notes what calls leave behind."""

    def __post_init__(self) -> None:
        """Load the method (see :class:`Restorer`)."""
        self.dtypes: set[torch.dtype] = set()
        self.drawn: set[str] = set()  # global generators that calls moved
        self.modified: set[str] = set()  # inputs that calls changed
        super().__post_init__()

    @property
    def is_function(self) -> bool:
        """Whether the implementation is a function, not a class."""
        return self._function

    @property
    def loads(self) -> bool:
        """Whether the method has ``load(checkpoint, device)``."""
        return hasattr(self._method, "load")

    def call(self, measurement: Measurement, draws: int, truth: GroundTruth | None, inference: bool = True) -> Tensor:
        """``[B, K, C, H, W]`` float32 on the CPU (``BadOutput`` for another shape), unclipped."""
        inputs = {"measurement.y": measurement.y} | ({"truth.hr": truth.hr} if truth else {})
        copies = {name: t.clone() for name, t in inputs.items()}
        before = _generators(self.device)
        if inference:
            output = self._invoke(measurement, draws, truth)
        else:
            call, self._call = self._call, _outside_inference_mode(self._call)
            try:
                output = self._invoke(measurement, draws, truth)
            finally:
                self._call = call
        after = _generators(self.device)
        self.drawn |= {name for name in before if before[name] != after[name]}
        self.modified |= {name for name, t in inputs.items() if not torch.equal(t, copies[name])}
        if isinstance(output, Tensor):
            self.dtypes.add(output.dtype)
            output = (output.real if output.is_complex() else output).float()
        return self._shape(output, measurement, draws).cpu()


def _outside_inference_mode(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def outside(*arguments: object) -> Tensor:
        with torch.inference_mode(False):
            return call(*arguments)

    return outside


def _generators(device: torch.device) -> dict[str, bytes]:
    """The states of the global random generators."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 (the global generator is what is watched)
    states = {
        "random": repr(random.getstate()).encode(),
        "numpy.random": repr((legacy["state"]["pos"], legacy["state"]["key"].tolist())).encode(),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    if device.type == "cuda":
        states["torch.cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    return states


@contextmanager
def _global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, and give them back as they were."""
    state, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(state)
            np.random.set_state(legacy)  # noqa: NPY002


@dataclass
class Trial:
    """One method under test: its probe, the batches that it is given, and all that it returned."""

    card: MethodCard
    registry: Registry
    options: Options
    checkpoint: Checkpoint | None
    device: torch.device
    seen: list[tuple[Case, Tensor]] = field(default_factory=list)
    _probe: Probe | None = None
    _base: Tensor | None = None

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales to check."""
        if self.checkpoint is not None and self.checkpoint.scale is not None:
            return (self.checkpoint.scale,)
        return self.card.scales or DEFAULT_SCALES

    @property
    def base(self) -> Case:
        """The batch that most checks use: three items of two subjects."""
        scale = BASE_SCALE if BASE_SCALE in self.scales else self.scales[0]
        return Case(scale, channels=1 if 1 in self.card.channels else self.card.channels[0], count=len(ITEMS))

    @property
    def probe(self) -> Probe:
        """The method, loaded once."""
        if self._probe is None:
            self._probe = self.load()
        return self._probe

    def load(self, seed: int = 0, device: torch.device | None = None, checkpoint: Checkpoint | None = None) -> Probe:
        """The method, loaded anew. The global generators start from ``seed``."""
        device = device or self.device
        with _global_seed(seed, device):
            return Probe(self.card, self.options, device, checkpoint=checkpoint or self.checkpoint)

    def measure(
        self, case: Case, items: Sequence[int] | None = None, seed_key: str = SEED_KEY, operator: bool = True
    ) -> tuple[Measurement, GroundTruth | None]:
        """A measurement that no call has seen before, and the truth for controls."""
        chosen = [ITEMS[i] for i in (range(case.count) if items is None else items)]
        card = self.registry.degradations.get(case.degradation)
        hr = torch.stack([phantom(s, p, case.size, case.channels) for s, p in chosen])
        ids = [f"phantom/{s}/volume/{p:03d}" for s, p in chosen]
        degradation = card.load()(card.parse(COMPLEX.get(case.degradation, {}) if case.channels == 2 else {}))
        m = degrade(hr, ids, degradation, (case.scale, case.scale), seed_key=seed_key)
        if not operator:
            m = replace(m, operator=None)
        if not self.card.control:
            return m, None
        others = torch.stack([phantom("b" if s == "a" else "a", p, case.size, case.channels) for s, p in chosen])
        return m, GroundTruth(hr, others)

    def run(
        self,
        case: Case,
        items: Sequence[int] | None = None,
        draws: int = 1,
        seed_key: str = SEED_KEY,
        operator: bool = True,
        inference: bool = True,
        probe: Probe | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Measure anew and restore: ``[B, K, C, H, W]``. The global generators start from ``seed``."""
        probe = probe or self.probe
        m, truth = self.measure(case, items, seed_key, operator)
        if truth is not None and truth.others is not None:
            truth = GroundTruth(truth.hr.to(probe.device), truth.others.to(probe.device))
        with _global_seed(seed, probe.device):
            output = probe.call(m.to(probe.device), draws, truth, inference)
        self.seen.append((case, output))
        return output

    def base_result(self) -> Tensor:
        """What the method returned for :attr:`base` the first time."""
        if self._base is None:
            self._base = self.run(self.base)
        return self._base
