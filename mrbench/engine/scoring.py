"""Metrics of restored images: which columns they give, with which signatures, and why some cannot be had.

Of K draws, ``psnr`` is draw 1, ``psnr@mean`` the posterior mean (mean of the K draws, then clipped) and ``psnr@best``
the best of the K draws; never mixed in one column. Metrics of several draws (``crps``) look at all K at once: one column,
with K in its signature, and none for K = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mrbench.cards import MetricCard, Options
from mrbench.degradation.measurement import Measurement
from mrbench.errors import MetricUnavailable, PluginError, UserError
from mrbench.metrics.base import to_image
from mrbench.metrics.cards import column_signature
from mrbench.metrics.kernels import CompileUnavailable
from mrbench.metrics.uncertainty import Ensemble, Part, ensembles
from mrbench.metrics.uncertainty_cards import DRAWS, NEEDS_DRAWS
from mrbench.plugins import Registry
from mrbench.store.manifest import ColumnInfo

FOREGROUND = "_fg"
NO_UNITS = ("", "arbitrary")  # values without a physical unit


@dataclass
class LoadedMetric:
    """A metric that is ready to use."""

    card: MetricCard
    options: Options
    metric: Any

    def suffixes(self) -> tuple[str, ...]:
        """Regions that it reports: the whole frame, and the foreground where it can."""
        return ("", FOREGROUND) if self.card.foreground else ("",)

    @property
    def native(self) -> bool:
        """Whether its values are in the units of the data set: the scale of an item's intensity map is multiplied in."""
        return bool(getattr(self.metric, "native", False))

    @property
    def signed(self) -> bool:
        """Whether 0 is best and both signs occur: shown, never ranked; the best of K draws is the one nearest to 0."""
        return bool(getattr(self.metric, "signed", False))

    @property
    def parts(self) -> tuple[Part, ...]:
        """Columns of a metric of several draws; none of another one."""
        found: tuple[Part, ...] = getattr(self.metric, "parts", (Part(),)) if self.card.kind == DRAWS else ()
        return found

    def names(self, draws: int) -> list[str]:
        """Its columns for K = ``draws``."""
        if self.parts:
            return [self.card.name + p.ending + suffix for p in self.parts for suffix in self.suffixes() if draws > 1]
        return [self.card.name + suffix + of for of in draw_kinds(draws) for suffix in self.suffixes()]


@dataclass
class Scorer:
    """The metrics of one call of the command, loaded on one device."""

    device: torch.device
    loaded: list[LoadedMetric] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)  # metric -> reason
    notes: dict[str, str] = field(default_factory=dict)  # column -> why it is n/a for some items
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def load(
        cls,
        registry: Registry,
        names: Sequence[str],
        given: Mapping[str, Mapping[str, Any]],
        device: torch.device,
        compile: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Scorer:
        """Load metrics by name; those that cannot be had are noted with the reason, and nothing else fails.

        ``progress`` gets the name of each metric before it is loaded (LPIPS may download its weights).

        Raises
        ------
        UserError : an unknown metric or a bad option.
        """
        scorer = cls(torch.device("cpu") if device.type == "mps" else device)  # float64 sums; MPS has none
        cards = [registry.metrics.get(name) for name in dict.fromkeys(names)]
        options = [card.parse(given.get(card.name, {}), f"metric.{card.name}") for card in cards]
        for card, chosen in zip(cards, options, strict=True):
            if progress is not None:
                progress(card.name)
            try:
                metric = card.load()(chosen)
                try:
                    metric.prepare(scorer.device, compile)
                except CompileUnavailable as error:
                    scorer.warnings.append(f"metric {card.name} is not compiled: {error}")
                    metric.prepare(scorer.device, False)
            except (MetricUnavailable, PluginError) as error:
                scorer.unavailable[card.name] = str(error).removeprefix(f"{card.name}: ").rstrip(".")
            except UserError:
                raise
            except Exception as error:
                scorer.unavailable[card.name] = f"{type(error).__name__}: {error}"
            else:
                scorer.loaded.append(LoadedMetric(card, chosen, metric))
        return scorer

    def columns(self, draws: int, units: str = "") -> dict[str, ColumnInfo]:
        """The columns that these metrics give for K = ``draws``, in order.

        Metrics of several draws give none for K = 1; ``unavailable`` then says so until this is called with another K. The
        same holds for metrics in native units where ``units``, those of all the images' values, is empty or "arbitrary".
        """
        found: dict[str, ColumnInfo] = {}
        for m in self.loaded:
            if m.native and units in NO_UNITS:
                self.unavailable[m.card.name] = "the images' values have no physical unit that is known here"
            elif m.native:
                self.unavailable.pop(m.card.name, None)
        for of in draw_kinds(draws):
            for m in self.loaded:
                if m.parts:
                    found |= {} if of else self._draws_columns(m, draws)
                    continue
                if m.native and units in NO_UNITS:
                    continue
                for suffix in m.suffixes():
                    signature = column_signature(m.card, m.options, suffix)
                    if of:
                        signature += f"|K:{draws}|{'mean-of-draws' if of == '@mean' else 'best-of-draws'}"
                    found[m.card.name + suffix + of] = ColumnInfo(
                        metric=m.card.name,
                        signature=signature,
                        higher_is_better=m.card.higher_is_better,
                        digits=m.card.digits,
                        title=m.card.heading or m.card.title,
                        unit=units if m.native else m.card.unit,
                        ranked=of != "@best" and not m.signed,
                        options=m.options.model_dump(mode="json"),
                    )
        return found

    def _draws_columns(self, m: LoadedMetric, draws: int) -> dict[str, ColumnInfo]:
        card = m.card
        for name in (card.name, *(card.name + part.ending for part in m.parts)):
            if draws > 1:
                self.unavailable.pop(name, None)
            else:
                self.unavailable[name] = NEEDS_DRAWS
        return {
            card.name + part.ending + suffix: ColumnInfo(
                metric=card.name,
                signature=column_signature(card, m.options, suffix) + part.tail(m.options, draws),
                higher_is_better=card.higher_is_better,
                digits=card.digits if part.digits is None else part.digits,
                title=card.heading or card.title,
                unit=card.unit,
                ranked=part.ranked,
                options=m.options.model_dump(mode="json"),
            )
            for part in (m.parts if draws > 1 else ())
            for suffix in m.suffixes()
        }

    def score(
        self,
        estimates: Tensor,
        truth: Tensor,
        mask: Tensor,
        measurement: Measurement | None,
        scales: Sequence[float] | None = None,
    ) -> dict[str, list[float]]:
        """All metric columns of a batch.

        Parameters
        ----------
        estimates : ``[B, K, C, H, W]`` float32, unclipped.
        truth : ``[B, C, H, W]`` float32 in [0, 1]. mask : ``[B, H, W]`` bool, the foreground.
        measurement : what the method was given, for metrics of kind "measurement"; ``None``: these are left out.
        scales : native units per unit range of each image, for metrics in native units; ``None``: these are left out.
        """
        estimates, truth, mask = (t.to(self.device) for t in (estimates, truth, mask))
        draws = estimates.shape[1]
        target = to_image(truth)
        result: dict[str, list[float]] = {}
        with torch.inference_mode():
            for m in self.loaded:
                if m.parts or (m.native and scales is None):
                    continue
                try:
                    result |= self._one(m, estimates, target, mask, measurement, draws, scales)
                except Exception as error:
                    self._missing(m, draws, error)
            if draws > 1:
                result |= self._of_draws(estimates, target, mask)
        return result

    def _missing(self, m: LoadedMetric, draws: int, error: Exception) -> None:
        reason = str(error) if isinstance(error, MetricUnavailable) else f"{type(error).__name__}: {error}"
        for name in m.names(draws):
            self.notes.setdefault(name, reason)

    def _of_draws(self, estimates: Tensor, target: Tensor, mask: Tensor) -> dict[str, list[float]]:
        """Columns of the metrics of several draws; a few images at a time, whose sorted draws they share."""
        working = [m for m in self.loaded if m.parts]
        result: dict[str, list[float]] = {}
        for some in ensembles(estimates, target, mask) if working else ():
            for m in list(working):
                try:
                    _refuse_small(m.card, target)
                    values = m.metric(some)
                    for part in m.parts:
                        for suffix in m.suffixes():
                            found = values[part.ending + suffix].double().cpu().tolist()
                            name = m.card.name + part.ending + suffix
                            result.setdefault(name, []).extend(found)
                            if any(map(math.isnan, found)):
                                self.notes.setdefault(name, _why_nan(some, suffix, found, part))
                except Exception as error:
                    working.remove(m)
                    for name in m.names(estimates.shape[1]):
                        result.pop(name, None)
                    self._missing(m, estimates.shape[1], error)
        return result

    def _one(
        self,
        m: LoadedMetric,
        estimates: Tensor,
        target: Tensor,
        mask: Tensor,
        measurement: Measurement | None,
        draws: int,
        scales: Sequence[float] | None,
    ) -> dict[str, list[float]]:
        _refuse_small(m.card, target)
        if m.card.kind == "measurement":
            if measurement is None:
                raise MetricUnavailable("no measurement is known for these images")
            given = measurement.to(self.device)

            def evaluate(estimate: Tensor) -> dict[str, Tensor]:
                values: dict[str, Tensor] = m.metric(estimate, given)
                return values
        else:
            reference = m.metric.reference(target, mask)
            factor = torch.tensor(scales, dtype=torch.float64, device=self.device) if m.native and scales is not None else None

            def evaluate(estimate: Tensor) -> dict[str, Tensor]:
                values: dict[str, Tensor] = m.metric(to_image(estimate).clamp(0, 1), reference)
                return values if factor is None else {suffix: found * factor for suffix, found in values.items()}

        single = [evaluate(estimates[:, 0])]
        if draws > 1:
            single += [evaluate(estimates[:, k]) for k in range(1, draws)]
            mean = evaluate(estimates.mean(1))
        result: dict[str, list[float]] = {}
        for suffix in m.suffixes():
            name = m.card.name + suffix
            values = torch.stack([s[suffix].double().cpu() for s in single])  # [K, B]
            result[name] = values[0].tolist()
            if draws > 1:
                result[f"{name}@mean"] = mean[suffix].double().cpu().tolist()
                result[f"{name}@best"] = _best(m, values).tolist()
        return result


def _best(m: LoadedMetric, values: Tensor) -> Tensor:
    """The best of ``values [K, B]``: ``[B]``."""
    if m.signed:
        return values.gather(0, values.abs().argmin(0, keepdim=True))[0]
    return values.amax(0) if m.card.higher_is_better else values.amin(0)


def draw_kinds(draws: int) -> tuple[str, ...]:
    """Column endings for K draws: draw 1, and with K > 1 the posterior mean and the best of K."""
    return ("", "@mean", "@best") if draws > 1 else ("",)


def _refuse_small(card: MetricCard, target: Tensor) -> None:
    height, width = target.shape[-2:]
    if min(height, width) < card.min_side:
        raise MetricUnavailable(f"images of {height}x{width} are smaller than its {card.min_side} pixels")


def _why_nan(ensemble: Ensemble, suffix: str, values: Sequence[float], part: Part) -> str:
    """Why some images of an ensemble have no value."""
    if suffix == FOREGROUND and ensemble.mask is not None:
        empty = ~ensemble.mask.view(ensemble.batch, -1).any(1)
        if all(e for e, value in zip(empty.tolist(), values, strict=True) if math.isnan(value)):
            return "the foreground is empty"
    return part.undefined
