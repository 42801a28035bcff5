"""Does a checkpoint still score what was written down when it was made? The comparison; running it is the engine's job."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint
from mrbench.hub.places import TRAINING

DECIBELS = 0.05  # for columns in dB
RELATIVE = 0.01  # of the stored value, for all others
IN_DECIBELS = ("psnr",)
DEFAULT_DATASET = "sample"
DEFAULT_SCALE = 4


@dataclass(frozen=True)
class Probe:
    """A small run whose mean scores were stored with a checkpoint.

    name : ``DATASET/PROTOCOL`` unless it was given another one.
    subset : a seeded choice of that many items, as ``mrbench run --subset``; ``None``: all.
    options, dataset_options : of the method and the data set, where they differ from the defaults.
    scores : mean over the items by metric column (``psnr``, ``psnr@mean`` with ``draws`` > 1, ...).
    """

    name: str
    dataset: str
    protocol: str
    scores: Mapping[str, float]
    subset: int | None = None
    draws: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreCheck:
    """One column. ``measured``: ``None`` where it could not be computed here; ``allowed``: the largest difference."""

    column: str
    stored: float
    measured: float | None
    allowed: float
    agrees: bool


@dataclass(frozen=True)
class ProbeCheck:
    """The outcome for one checkpoint. ``agrees``: ``None`` where nothing could be compared (``reason`` says why)."""

    agrees: bool | None
    reason: str = ""
    probe: Probe | None = None
    scores: tuple[ScoreCheck, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def probe_of(local: LocalCheckpoint) -> Probe | None:
    """The probe that a checkpoint was stored with; ``None`` if it came without scores.

    ``training.json`` names it: ``"probe": {"name", "dataset", "protocol", "subset", "draws", "options", "dataset_options",
    "scores"}``; left-out ``dataset`` and ``protocol`` are read from a name ``DATASET/PROTOCOL``. Scores on a record alone
    belong to ``sample`` at the checkpoint's scale.

    Raises
    ------
    UserError : a probe that does not say on what it was measured.
    """
    text = (local.training or {}).get("probe")
    if not isinstance(text, Mapping) or not text.get("scores"):
        if not local.record.probe_scores:
            return None
        scale = local.record.scale or DEFAULT_SCALE
        text = {"dataset": DEFAULT_DATASET, "protocol": f"uniform-x{scale}", "scores": local.record.probe_scores}
    name = str(text.get("name") or f"{text.get('dataset', '')}/{text.get('protocol', '')}")
    first, _, second = name.partition("/")
    dataset, protocol = str(text.get("dataset") or first), str(text.get("protocol") or second)
    file = local.file.with_name(TRAINING)
    if not dataset or not protocol or "/" in protocol:
        raise UserError(f"{file}: the probe {name!r} does not say on which data set and protocol it was measured.")
    try:
        scores = {str(k): float(v) for k, v in dict(text["scores"]).items()}
        subset = None if text.get("subset") is None else int(text["subset"])
        draws = int(text.get("draws") or 1)
        options, dataset_options = dict(text.get("options") or {}), dict(text.get("dataset_options") or {})
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: the probe {name!r} is damaged ({error}).") from None
    return Probe(name, dataset, protocol, scores, subset, draws, options, dataset_options)


def allowed_difference(column: str, stored: float) -> float:
    """How far a mean may be from the stored one: 0.05 dB, or 1 % for what is not in dB."""
    metric = column.partition("@")[0].removesuffix("_fg")
    return DECIBELS if metric in IN_DECIBELS else RELATIVE * abs(stored)


def check_probe(local: LocalCheckpoint, score: Callable[[LocalCheckpoint, Probe], Mapping[str, float | None]]) -> ProbeCheck:
    """Score a checkpoint on its probe and compare.

    Parameters
    ----------
    score : runs the method with these weights on the probe; means by column, ``None`` or left out where one cannot be
        computed here (a metric whose weights are not at hand). Such columns are not judged.
    """
    probe = probe_of(local)
    if probe is None:
        return ProbeCheck(None, "it came without scores")
    measured = score(local, probe)
    checks = []
    for column, stored in probe.scores.items():
        value = measured.get(column)
        allowed = allowed_difference(column, stored)
        same = value is not None and (value == stored or abs(value - stored) <= allowed)
        checks.append(ScoreCheck(column, stored, None if value is None or math.isnan(value) else value, allowed, same))
    judged = [c for c in checks if c.measured is not None or measured.get(c.column) is not None]
    if not judged:
        return ProbeCheck(None, f"none of {', '.join(probe.scores)} can be computed here", probe, tuple(checks))
    wrong = [c for c in judged if not c.agrees]
    if not wrong:
        return ProbeCheck(True, "", probe, tuple(checks))
    worst = wrong[0]
    found = "NaN" if worst.measured is None else f"{worst.measured:.6g}"
    reason = f"{worst.column}: stored {worst.stored:.6g}, measured {found} (allowed difference {worst.allowed:.2g})"
    return ProbeCheck(False, reason, probe, tuple(checks))
