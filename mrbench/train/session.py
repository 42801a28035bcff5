"""One call of ``mrbench train``: seeds and ablations, each a training of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrbench import hookspecs
from mrbench.cards import MethodCard
from mrbench.errors import UserError
from mrbench.hub.checkpoint import read_json
from mrbench.hub.places import TRAINING
from mrbench.plugins import Registry, did_you_mean
from mrbench.protocol import ResolvedProtocol, digest
from mrbench.train.checkpoint import InitialWeights
from mrbench.train.job import Job, LoopSettings, Trained
from mrbench.train.log import Observer
from mrbench.train.loop import Stopped, Trainer
from mrbench.train.patches import common_channels
from mrbench.train.presets import read_options
from mrbench.train.recipe import Recipe
from mrbench.train.sources import Source


@dataclass(frozen=True)
class Request:
    """What a call asks for.

    changes : of the preset's options (dotted keys). seeds : trained one after another. ablations : names from
        ``Recipe.ablations``, or ``("all",)``; the recipe as it is comes first then, as ``full``.
    """

    card: MethodCard
    recipe: type[Recipe[Any]]
    preset: str
    changes: Mapping[str, Any]
    protocol: ResolvedProtocol
    sources: Sequence[Source]
    out: Path
    settings: LoopSettings
    seeds: Sequence[int] = (0,)
    ablations: Sequence[str] = ()
    stage_names: tuple[str, ...] | None = None
    steps: int | None = None
    precision: str | None = None
    init: InitialWeights | None = None
    name: str = ""
    licence: str = ""


class HookObserver:
    """Passes a training's events on to the life-cycle hooks of plugins."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def _notify(self, hook: str, **facts: Mapping[str, Any]) -> None:
        if hasattr(hookspecs, hook):
            self._registry.notify(hook, **facts)

    def train_started(self, training: Mapping[str, Any]) -> None:
        """Hook ``mrbench_train_started``."""
        self._notify("mrbench_train_started", training=training)

    def train_step(self, step: Mapping[str, Any]) -> None:
        """Hook ``mrbench_train_step``."""
        self._notify("mrbench_train_step", step=step)

    def train_finished(self, training: Mapping[str, Any]) -> None:
        """Hook ``mrbench_train_finished``."""
        self._notify("mrbench_train_finished", training=training)


def plan(request: Request) -> list[Job]:
    """The trainings of a request, one for each ablation and seed, in folders of their own if there are several.

    Raises
    ------
    UserError : a bad option, an unknown ablation, or channels and scales that the method does not have.
    """
    card, recipe = request.card, request.recipe
    variants = _variants(request)
    jobs = []
    for variant, changes in variants.items():
        options = read_options(recipe, card.name, request.preset, {**changes, **request.changes})
        channels = common_channels(request.sources, options.channels)
        if channels not in card.channels:
            raise UserError(
                f"method {card.name} takes {' or '.join(map(str, card.channels))} channels, the training images have {channels}. "
                f"Convert them with --set {card.name}.channels=N."
            )
        for seed in request.seeds:
            parts = [variant] if len(variants) > 1 else []
            parts += [f"seed-{seed}"] if len(request.seeds) > 1 else []
            job = Job(
                card=card,
                recipe=recipe,
                options=options,
                preset=request.preset,
                protocol=request.protocol,
                sources=request.sources,
                channels=channels,
                seed=seed,
                out=request.out.joinpath(*parts),
                name="-".join([request.name or f"{request.preset}-{_scale_name(request)}", *parts]),
                settings=request.settings,
                stage_names=request.stage_names,
                steps=request.steps,
                precision=request.precision,
                init=request.init,
                licence=request.licence,
            )
            jobs.append(job)
    return jobs


def _variants(request: Request) -> dict[str, dict[str, Any]]:
    known = request.recipe.ablations
    if not request.ablations:
        return {"full": {}}
    names = ["full", *known] if "all" in request.ablations else list(dict.fromkeys(request.ablations))
    for name in names:
        if name not in ("full", *known):
            raise UserError(
                f"--ablation {name}: unknown.{did_you_mean(name, known)} Those of {request.card.name}: "
                f"{', '.join(['all', 'full', *known])}."
            )
    return {name: dict(known.get(name, {})) for name in names}


def _scale_name(request: Request) -> str:
    name = request.protocol.name
    return name.removeprefix("uniform-") if name.startswith("uniform-x") else name


def finished(job: Job, trainer: Trainer) -> Trained | None:
    """The checkpoint that is in the job's folder already, if it is finished.

    Raises
    ------
    UserError : it came from other settings.
    """
    document = read_json(job.out / TRAINING)
    if document is None:
        return None
    if document.get("fingerprint") != digest(trainer.fingerprint()):
        raise UserError(
            f"--resume {job.out}: holds a finished checkpoint that was trained with other settings. Name another --out."
        )
    return Trained(job.out, document)


def train(
    jobs: Sequence[Job], registry: Registry, observers: Sequence[Observer] = (), resume: bool = False
) -> tuple[list[Trained], list[str]]:
    """Carry out trainings one after another; with ``resume``, those that are finished are not repeated.

    Returns
    -------
    What each one gave, and warnings.

    Raises
    ------
    UserError, Stopped, Failed : see :meth:`mrbench.train.loop.Trainer.run`.
    """
    everybody = [*observers, HookObserver(registry)]
    if not resume:
        taken = [job.out for job in jobs if (job.out / TRAINING).is_file()]
        if taken:
            raise UserError(f"--out {taken[0]}: holds a finished checkpoint. Name another folder, or add --resume to keep it.")
    results: list[Trained] = []
    warnings: list[str] = []
    for number, job in enumerate(jobs):
        trainer = Trainer(job, registry, everybody)
        try:
            results.append((finished(job, trainer) if resume else None) or trainer.run(resume))
        finally:
            warnings += trainer.warnings
        if trainer.interrupted is not None and number + 1 < len(jobs):
            raise Stopped(trainer.interrupted, f"stopped after {number + 1} of {len(jobs)} trainings")
    return results, list(dict.fromkeys(warnings))
