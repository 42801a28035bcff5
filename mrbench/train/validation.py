"""Validation: the current weights as a method, through the engine's own restorer, metrics and measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import mrbench
from mrbench.data.items import ItemRef
from mrbench.data.selection import subset
from mrbench.engine.restorer import Restorer
from mrbench.engine.run import group_by_size
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Batch
from mrbench.errors import UserError
from mrbench.plugins import Registry, did_you_mean
from mrbench.train.settings import ValidationSpec
from mrbench.train.sources import Source

LOSS = "loss"  # the name that selects by the recipe's own loss
REFERENCE = "bicubic"
CHOICE_SEED = 0


@dataclass
class Validator:
    """The validation slices and metrics of one stage.

    items : the slices that are restored, with the data set of each. higher_is_better : of the selecting metric.
    """

    spec: ValidationSpec
    items: list[tuple[Source, ItemRef]]
    scorer: Scorer
    device: torch.device
    higher_is_better: bool
    problems: list[str] = field(default_factory=list)  # of the last validation

    @classmethod
    def prepare(cls, spec: ValidationSpec, sources: Sequence[Source], registry: Registry, device: torch.device) -> Validator:
        """Choose the slices and load the metrics.

        Raises
        ------
        UserError : an unknown metric, or a selecting metric that cannot be had here, with the reason.
        """
        wanted = [c for c in (spec.select, *spec.metrics) if c and c != LOSS]
        names = list(dict.fromkeys(_metric_of(c, registry) for c in wanted))
        scorer = Scorer.load(registry, names, {}, device)
        for metric, reason in scorer.unavailable.items():
            raise UserError(f"validation needs the metric {metric}: {reason}. Choose others in the stage's validation options.")
        columns = scorer.columns(spec.draws)
        for column in wanted:
            if column not in columns:
                raise UserError(
                    f"validation.select and metrics: no column {column!r} with draws = {spec.draws}."
                    f"{did_you_mean(column, columns)} Columns: {', '.join(columns)}, {LOSS}."
                )
        better = columns[spec.select].higher_is_better if spec.select in columns else False
        pool = [(s, i) for s in sources for i in s.val]
        owner = {i.item_id: s for s, i in pool}
        chosen = [i for _, i in pool]
        if chosen:
            chosen = subset(chosen, min(spec.items, len(chosen)), CHOICE_SEED)
        return cls(spec, [(owner[i.item_id], i) for i in chosen], scorer, device, better)

    @property
    def restores(self) -> bool:
        """Whether validation restores slices (otherwise only the loss is looked at)."""
        return bool(self.items) and bool(self.scorer.loaded)

    def scores(self, restorer: Restorer) -> dict[str, float]:
        """Mean of every column over the slices; ``nan`` where a slice could not be restored (see ``problems``)."""
        self.problems = []

        def estimate(batch: Batch) -> torch.Tensor | None:
            outcomes = restorer.restore(batch.measurement.to(self.device), self.spec.draws)
            bad = [(i.item_id, o) for i, o in zip(batch.items, outcomes, strict=True) if o.estimate is None]
            self.problems += [f"{item}: {o.status}: {o.error}" for item, o in bad]
            if bad:
                return None
            return torch.stack([o.estimate for o in outcomes if o.estimate is not None])

        return self._mean(estimate)

    def reference(self) -> dict[str, float]:
        """The same columns for bicubic interpolation, to read the scores beside (draw 1 only)."""
        found = self._mean(lambda batch: mrbench.upsample(batch.measurement, kernel=REFERENCE)[:, None])
        return {k: v for k, v in found.items() if "@" not in k}

    def better(self, score: float, than: float | None) -> bool:
        """Whether a score of the selecting metric beats the best so far. Scores that are not finite never do."""
        if not math.isfinite(score):
            return False
        return than is None or (score > than if self.higher_is_better else score < than)

    def _mean(self, estimate: Callable[[Batch], torch.Tensor | None]) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for source, items in self._batches():
            assert source.task is not None
            batch = source.task.load(items)
            images = estimate(batch)
            if images is None:
                for column in self.scorer.columns(self.spec.draws):
                    sums.setdefault(column, []).append(math.nan)
                continue
            for column, values in self.scorer.score(images, batch.hr, batch.mask, batch.measurement).items():
                sums.setdefault(column, []).extend(values)
        return {column: sum(values) / len(values) for column, values in sums.items()}

    def _batches(self) -> list[tuple[Source, list[ItemRef]]]:
        found = []
        for source in {id(s): s for s, _ in self.items}.values():
            mine = {i.item_id: i for s, i in self.items if s is source}
            for ids in group_by_size(list(mine.values())):
                for k in range(0, len(ids), self.spec.batch):
                    found.append((source, [mine[i] for i in ids[k : k + self.spec.batch]]))
        return found


def _metric_of(column: str, registry: Registry) -> str:
    """The metric of a column such as ``psnr_fg`` or ``psnr@mean``."""
    name = column.partition("@")[0]
    known = registry.metrics.names()
    if name not in known and name.endswith("_fg"):
        name = name.removesuffix("_fg")
    registry.metrics.get(name)
    return name


def selection_record(
    validator: Validator, scores: Mapping[str, float], reference: Mapping[str, float], step: int | None, reason: str
) -> dict[str, Any]:
    """What ``training.json`` says about how the weights were chosen and what they scored on the validation slices."""
    spec = validator.spec
    return {
        "metric": spec.select,
        "draws": spec.draws,
        "step": step,
        "reason": reason,
        "scores": {k: v if math.isfinite(v) else None for k, v in scores.items()},
        "reference": {REFERENCE: {k: v if math.isfinite(v) else None for k, v in reference.items()}},
        "items": sorted(i.item_hash for _, i in validator.items),
        "set": sorted({s.alias for s, _ in validator.items}),
        "signatures": {k: c.signature for k, c in validator.scorer.columns(spec.draws).items()},
    }
