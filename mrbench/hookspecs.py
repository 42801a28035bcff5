"""Every hook of mrbench. A plugin implements any of them with ``@mrbench.hookimpl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

from mrbench.cards import DatasetCard, DegradationCard, MethodCard, MetricCard

hookspec = pluggy.HookspecMarker("mrbench")
hookimpl = pluggy.HookimplMarker("mrbench")


@hookspec
def mrbench_methods() -> Sequence[MethodCard]:  # type: ignore[empty-body]
    """Return the cards of the methods that this plugin brings."""


@hookspec
def mrbench_datasets() -> Sequence[DatasetCard]:  # type: ignore[empty-body]
    """Return the cards of the data sets that this plugin brings."""


@hookspec
def mrbench_metrics() -> Sequence[MetricCard]:  # type: ignore[empty-body]
    """Return the cards of the metrics that this plugin brings."""


@hookspec
def mrbench_degradations() -> Sequence[DegradationCard]:  # type: ignore[empty-body]
    """Return the cards of the degradations that this plugin brings."""


@hookspec
def mrbench_run_started(run: Mapping[str, Any]) -> None:
    """A run begins (or resumes); ``run`` is its manifest, with ``items`` and ``todo`` counts."""


@hookspec
def mrbench_item_done(row: Mapping[str, Any]) -> None:
    """An item's row is about to be stored (columns: see ``mrbench.store.rows``)."""


@hookspec
def mrbench_step_done(step: Mapping[str, Any]) -> None:
    """A sampler did a step on the items at hand: label, items (ids), done, total, seconds (since the call), warm_up.

    Sent for methods whose class has an attribute ``on_step = None``. While ``restore`` runs it is a function, to be called with the
    steps done and their number in all (``if self.on_step: self.on_step(7, 40)``). Implementations must be quick: the clock runs.
    """


@hookspec
def mrbench_run_finished(run: Mapping[str, Any]) -> None:
    """A run has no work left, or was stopped; ``run`` is its manifest with the counts by status."""


@hookspec
def mrbench_train_started(training: Mapping[str, Any]) -> None:
    """A training begins or resumes: method, preset, name, seed, out, steps, stages, done, resumed."""


@hookspec
def mrbench_train_step(step: Mapping[str, Any]) -> None:
    """A training step is done: method, name, seed, stage, number, step, losses, values (``None`` unless logged)."""


@hookspec
def mrbench_train_finished(training: Mapping[str, Any]) -> None:
    """A training ended: status (done, stopped or failed) and the selection of weights."""
