"""A metric under test: phantoms, distorted in known ways, and calls as the engine makes them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mrbench.cards import MetricCard, Options
from mrbench.degradation.measurement import degrade
from mrbench.engine.conformance_base import Failed
from mrbench.engine.probe import DEFAULT_DEGRADATION, ITEMS, SEED_KEY, phantom
from mrbench.metrics.base import to_image
from mrbench.metrics.cards import FOREGROUND
from mrbench.metrics.uncertainty import Ensemble, Part
from mrbench.plugins import Registry

SIZE = (64, 56)
LEVELS = (0.02, 0.1)  # standard deviation of added noise, on the [0, 1] range
DRAWS = 9
SCALE = 2  # of the measurement that metrics of kind "measurement" get


@dataclass(frozen=True)
class Sample:
    """A batch to score: ``estimates [B, C, H, W]``, of metrics of draws ``[B, K, C, H, W]``, ``truth [B, C, H, W]``."""

    estimates: Tensor
    truth: Tensor

    def of(self, items: Sequence[int]) -> Sample:
        """Some of its items, in the order given."""
        return Sample(self.estimates[list(items)], self.truth[list(items)])


@dataclass
class MetricTrial:
    """One metric under test."""

    card: MetricCard
    registry: Registry
    options: Options
    device: torch.device
    _metric: Any = None

    def loaded(self, device: torch.device) -> Any:
        """The metric, made anew and prepared on a device."""
        metric = self.card.load()(self.options)
        metric.prepare(device)
        return metric

    @property
    def metric(self) -> Any:
        """The metric, prepared once."""
        if self._metric is None:
            self._metric = self.loaded(self.device)
        return self._metric

    @property
    def signed(self) -> bool:
        """Whether 0 is best and both signs occur."""
        return bool(getattr(self.metric, "signed", False))

    @property
    def native(self) -> bool:
        """Whether it is a mean over the foreground only, in units of the data set."""
        return bool(getattr(self.metric, "native", False))

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its columns; one, but for metrics of draws."""
        return tuple(self.metric.parts) if self.card.kind == "draws" else (Part(),)

    def ranked(self) -> list[Part]:
        """Columns in which boards mark a winner."""
        return [] if self.signed else [p for p in self.parts if p.ranked]

    @property
    def size(self) -> tuple[int, int]:
        """Of the phantoms: large enough for the metric."""
        return max(SIZE[0], self.card.min_side), max(SIZE[1], self.card.min_side)

    # -- what is scored ----------------------------------------------------------------------------------------------
    def clean(self, size: tuple[int, int] | None = None, channels: int = 1) -> Tensor:
        """Head-like images ``[B, C, H, W]`` between 0.2 and 0.8, of two subjects."""
        images = torch.stack([phantom(s, p, size or self.size, channels) for s, p in ITEMS])
        return 0.2 + 0.6 * images

    def sample(self, level: float, size: tuple[int, int] | None = None, channels: int = 1) -> Sample:
        """Images with noise of one level; draws: honest ones with this level in the middle (see :meth:`draws`)."""
        truth = self.clean(size, channels)
        if self.card.kind == "draws":
            return self.draws(truth, level)
        return Sample(truth + level * _noise(truth.shape, 1), truth)

    def perfect(self) -> Sample:
        """The ground truth itself; draws: all of them."""
        truth = self.clean()
        return Sample(truth[:, None].repeat(1, DRAWS, 1, 1, 1) if self.card.kind == "draws" else truth, truth)

    def draws(self, clean: Tensor, level: float, honest: bool = True) -> Sample:
        """Draws around ``clean`` whose spread grows from 0.2 to 1.8 times ``level`` from left to right.

        The ground truth is one more such draw, so they are calibrated. Not honest: they are brighter by twice the level and their
        spread falls from left to right.
        """
        b, c, h, w = clean.shape
        spread = level * torch.linspace(0.2, 1.8, w)
        truth = (clean + spread * _noise(clean.shape, 2)).clamp(0, 1)
        noise = _noise((b, DRAWS, c, h, w), 3)
        if honest:
            return Sample(clean[:, None] + spread * noise, truth)
        return Sample(clean[:, None] + 2 * level + spread.flip(0) * noise, truth)

    def worsening(self) -> list[Sample]:
        """Batches from better to worse."""
        if self.card.kind == "draws":
            truth = self.clean()
            return [self.draws(truth, LEVELS[0]), self.draws(truth, LEVELS[0], honest=False)]
        return [self.sample(level) for level in LEVELS]

    def extremes(self) -> dict[str, Sample]:
        """Estimates that nobody would make."""
        truth = self.clean()
        images = {
            "black": torch.zeros_like(truth), "white": torch.ones_like(truth), "inverted": 1 - truth,
            "another subject": truth[[1, 0, 1]], "noise": _noise(truth.shape, 4).abs().clamp(0, 1),
        }  # fmt: skip
        if self.card.kind != "draws":
            return {name: Sample(image, truth) for name, image in images.items()}
        jitter = 0.01 * _noise((len(truth), DRAWS, *truth.shape[1:]), 5)
        return {name: Sample(image[:, None] + jitter, truth) for name, image in images.items()}

    def mask(self, size: tuple[int, int] | None = None) -> Tensor:
        """A foreground ``[B, H, W]``: the middle of the image, 24 pixels and more from its border."""
        h, w = size or self.size
        inside = torch.zeros(len(ITEMS), h, w, dtype=torch.bool)
        inside[:, 24 : h - 24, 24 : w - 24] = True
        return inside

    # -- scoring -----------------------------------------------------------------------------------------------------
    def score(
        self, sample: Sample, mask: Tensor | None = None, metric: Any = None, device: torch.device | None = None
    ) -> dict[str, Tensor]:
        """The metric's values by column ending, on the CPU, as the engine would ask for them."""
        device = device or self.device
        metric = self.metric if metric is None else metric
        estimates, truth = sample.estimates.to(device), sample.truth.to(device)
        mask = None if mask is None else mask.to(device)
        with torch.inference_mode():
            if self.card.kind == "draws":
                found = metric(Ensemble.of(estimates, truth, mask))
            elif self.card.kind == "measurement":
                found = metric(estimates, self._measured(sample).to(device))
            else:
                found = metric(to_image(estimates).clamp(0, 1), metric.reference(to_image(truth), mask))
        if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
            raise Failed(f"gave {type(found).__name__}, expected a mapping of column endings to tensors")
        return {str(k): v.cpu() for k, v in found.items()}

    def values(self, sample: Sample, part: Part | None = None) -> Tensor:
        """The values ``[B]`` of one column over the frame (over the foreground for metrics that know no other)."""
        whole = torch.ones(len(sample.truth), *sample.truth.shape[2:], dtype=torch.bool) if self.native else None
        return self.score(sample, whole)[part.ending if part else self.parts[0].ending]

    def _measured(self, sample: Sample) -> Any:
        degradation = self.registry.degradations.get(DEFAULT_DEGRADATION)
        ids = [f"phantom/{k}" for k in range(len(sample.truth))]
        return degrade(sample.truth, ids, degradation.load()(degradation.parse({})), (SCALE, SCALE), seed_key=SEED_KEY)

    def better(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether values ``a`` are better than ``b``."""
        return a > b if self.card.higher_is_better else a < b


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def foreground_of(ending: str) -> str:
    """The ending of the foreground column beside a column."""
    return ending + FOREGROUND


# -- other values of options -----------------------------------------------------------------------------------------
def variants(options: Options, name: str) -> list[Options]:
    """The same options with other values of one of them, as far as its type tells."""
    current = getattr(options, name)
    found = []
    for value in _candidates(type(options).model_fields[name].annotation, current):
        if type(value) is type(current) and value == current:
            continue
        try:
            found.append(type(options).model_validate({**options.model_dump(), name: value}))
        except ValueError:
            continue
    return [o for o in found if getattr(o, name) != current]


def _candidates(annotation: Any, current: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _candidates(typing.get_args(annotation)[0], current)
    elif origin is Literal:
        yield from typing.get_args(annotation)
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(annotation):
            yield from _candidates(one, current)
    elif annotation is bool:
        yield from (True, False)
    elif annotation in (int, float):
        number = current if isinstance(current, (int, float)) else 1
        scaled = [number + 1, number - 1, number * 2, number + 2] + ([number / 2, 0.5] if annotation is float else [])
        yield from map(annotation, scaled)
    elif annotation is str:
        yield f"{current or ''}x"
