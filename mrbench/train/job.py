"""What one training is asked to do, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mrbench.cards import MethodCard
from mrbench.protocol import ResolvedProtocol, digest
from mrbench.train.checkpoint import InitialWeights
from mrbench.train.recipe import Recipe
from mrbench.train.settings import RecipeOptions, Stage
from mrbench.train.sources import Source

LOG_EVERY = 10


@dataclass(frozen=True)
class LoopSettings:
    """How a training is carried out; nothing here moves a weight.

    threads : CPU threads, as set by the caller; recorded. save_minutes, save_steps : the state is stored whenever so many
        minutes have passed or so many steps are done. log_every : steps between rows of the log.
    """

    device: torch.device
    threads: int
    save_minutes: float = 10.0
    save_steps: int | None = None
    log_every: int = LOG_EVERY


@dataclass(frozen=True)
class Job:
    """One training: what, on what, how long, and where to.

    preset : its name, as recorded. stage_names, steps, precision : the call's choices; ``None``: as the preset says.
    protocol : prepares slices and measures patches. channels : of the images. seed : everything random follows from it.
    out : the checkpoint folder. name : of the checkpoint. init : weights to begin from.
    licence : of the weights, as their card says it.
    """

    card: MethodCard
    recipe: type[Recipe[Any]]
    options: RecipeOptions
    preset: str
    protocol: ResolvedProtocol
    sources: Sequence[Source]
    channels: int
    seed: int
    out: Path
    name: str
    settings: LoopSettings
    stage_names: tuple[str, ...] | None = None
    steps: int | None = None
    precision: str | None = None
    init: InitialWeights | None = None
    licence: str = ""

    @property
    def scale(self) -> int | float:
        """HR side over LR side (of the last axis), an integer where it is one."""
        scale = self.protocol.protocol.scales[-1]
        return int(scale) if scale == int(scale) else scale


@dataclass(frozen=True)
class Trained:
    """A finished training: the checkpoint folder, and its ``training.json``."""

    out: Path
    document: Mapping[str, Any]


def fingerprint(job: Job, stages: Sequence[Stage]) -> dict[str, Any]:
    """What determines the weights, as flat names and values: a training is resumed only where all of it is the same."""
    options = flatten(job.options.model_dump(mode="json", exclude={"stages", "summary"}), "options.")
    planned = {f"stages.{s.name}": flatten(s.model_dump(mode="json"), "") for s in stages}
    return {
        "method": job.card.name,
        "method version": job.card.version,
        "protocol": f"{job.protocol.name} {job.protocol.hash}",
        "seed": job.seed,
        "channels": job.channels,
        "init": job.init.sha256 if job.init else "",
        **options,
        **{f"{stage}.{key}": value for stage, values in planned.items() for key, value in values.items()},
        **{f"slices of {s.alias}": digest([[i.item_id, i.item_hash] for i in (*s.train, *s.val)]) for s in job.sources},
    }


def flatten(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested mappings with dotted keys; lists become texts."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= flatten(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner if isinstance(inner, (str, int, float, bool)) or inner is None else str(inner)
    return flat
