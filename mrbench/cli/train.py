"""``mrbench train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import (
    DeviceOption,
    JsonOption,
    PluginOption,
    ThreadsOption,
    plugin_warnings,
    print_json,
    registry,
    stderr,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mrbench.cards import MethodCard
    from mrbench.engine.entries import Settings
    from mrbench.train.job import Trained
    from mrbench.train.recipe import Recipe

DEFAULT_SCALE = 4
SHOWN = ("psnr", "ssim", "lpips_squeeze", "loss")


def train(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method with a training recipe.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", "-d", metavar="[ALIAS=]NAME", help="A data set (repeatable); its train and val subjects are used."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", "-P", help="The recipe's preset: demo, small, matched, paper (those it has).")
    ] = None,
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the protocol uniform-xS (default: 4).")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The checkpoint folder (default: checkpoints/METHOD-PRESET-xS).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished training in --out; begin if there is none.")
    ] = False,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="CHECKPOINT", help="Begin from these weights: a name, a checkpoint folder, hf://..."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps in all, shared out to the stages in proportion.")
    ] = None,
    stages: Annotated[str | None, typer.Option("--stages", metavar="A,B", help="Only these stages of the recipe.")] = None,
    ablation: Annotated[
        str | None,
        typer.Option("--ablation", metavar="A,B", help="Train ablations of the recipe, each in a folder of its own; or: all."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Train K times, with the seeds --seed, --seed + 1, ...")] = 1,
    max_slices: Annotated[
        list[str] | None,
        typer.Option("--max-slices", metavar="[ALIAS=]N", help="At most N training slices of each (or that) data set."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="SUBJECT", help="Leave a subject out (repeatable).")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="[ALIAS=]NAME", help="Refuse to train on a subject of this data set (repeatable)."),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            "--probe", metavar="NAME", help="Store the scores on this data set's test items (e.g. sample) with the weights."
        ),
    ] = None,
    probe_subset: Annotated[
        int | None,
        typer.Option("--probe-subset", min=1, help="Only N items of the probe, a seeded choice spread over subjects."),
    ] = None,
    probe_draws: Annotated[int, typer.Option("--probe-draws", min=1, help="Posterior samples per item of the probe.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TARGET.KEY=VALUE",
            help="Option of the recipe (METHOD.KEY, or METHOD.stages.NAME.batch and the like) or of a data set (repeatable).",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the checkpoint (default: PRESET-xS).")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Licence of the weights, for their model card.")] = "",
    device: DeviceOption = "auto",
    precision: Annotated[str | None, typer.Option("--precision", help="fp32 or bf16 (default: the preset's).")] = None,
    threads: ThreadsOption = None,
    save_minutes: Annotated[float, typer.Option("--save-minutes", min=0, help="Store the state that often.")] = 10.0,
    save_steps: Annotated[
        int | None, typer.Option("--save-steps", min=1, help="Store the state every N steps as well.")
    ] = None,
    log: Annotated[
        list[str] | None, typer.Option("--log", help="tensorboard or wandb, besides the CSV file (repeatable).")
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a method's networks and write a checkpoint folder that `mrbench run --method METHOD@DIR` takes.

    Test subjects are never seen. Ctrl-C (or a kill) loses nothing: the same command with --resume goes on and gives the same
    weights. Exit code 1: the loss was not finite; 2: something was asked for wrongly; 130: stopped.
    """
    from mrbench.errors import UserError

    reg = registry(plugin)
    from mrbench.engine.entries import parse_dataset, parse_settings
    from mrbench.protocol import find_protocol, resolve, uniform_name

    if scale is not None and protocol is not None:
        raise UserError("--scale and --protocol exclude each other: --scale S means --protocol uniform-xS.")
    if not dataset:
        raise UserError(
            "no data set given. Name one with --dataset, e.g. --dataset folder --set folder.path=DIR --set folder.split=hash."
        )
    if precision not in (None, "fp32", "bf16"):
        raise UserError(f"--precision {precision}: unknown. Known: fp32, bf16.")
    card = reg.methods.get(method)
    given = parse_settings(settings or [])
    choices = [parse_dataset(d, given, reg) for d in dataset]
    _refuse_twice([c.alias for c in choices])
    probed = parse_dataset(probe, given, reg) if probe is not None else None
    kept = [parse_dataset(d, given, reg) for d in held_out or []] + ([probed] if probed is not None else [])
    changes = _recipe_changes(card.name, given, [c.alias for c in choices])
    given.refuse_unused()
    limits = _limits(max_slices or [])
    rules = find_protocol(protocol if protocol is not None else uniform_name(scale if scale is not None else DEFAULT_SCALE))
    resolved = resolve(rules, reg)

    from mrbench.train.recipe import load_recipe

    recipe = load_recipe(card)
    chosen = _preset(preset, recipe, card)
    _check_scale(card, rules.scales)

    from mrbench.engine.environment import choose_device
    from mrbench.engine.threads import use_threads
    from mrbench.train.checkpoint import initial_weights
    from mrbench.train.devices import first_process
    from mrbench.train.job import LoopSettings
    from mrbench.train.log import Observer, TrackerObserver
    from mrbench.train.loop import INTERRUPTED, Failed, Stopped
    from mrbench.train.presets import read_options
    from mrbench.train.probe import open_probe, with_probe
    from mrbench.train.progress import TrainingBar
    from mrbench.train.session import Request, plan
    from mrbench.train.session import train as carry_out
    from mrbench.train.sources import open_sources, refuse_held_out

    read_options(recipe, card.name, chosen, changes)  # mistakes in options come before the data is prepared
    folder = out if out is not None else Path("checkpoints") / f"{card.name}-{chosen}-{rules.name.removeprefix('uniform-')}"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file. Name a folder.")
    loop = LoopSettings(choose_device(device), use_threads(threads), save_minutes, save_steps)
    weights = initial_weights(card, init) if init is not None else None
    loggers = [TrackerObserver(n) for n in log or []]
    reports = first_process()
    with TrainingBar(stderr(), quiet=not reports) as bar:
        task = open_probe(probed, rules, reg) if probed is not None else None
        sources = open_sources(choices, rules, reg, exclude or (), limits, bar.preparing)
        refuse_held_out(sources, kept)
        request = Request(
            card=card,
            recipe=recipe,
            preset=chosen,
            changes=changes,
            protocol=resolved,
            sources=sources,
            out=folder,
            settings=loop,
            seeds=range(seed, seed + seeds),
            ablations=_names(ablation, "--ablation"),
            stage_names=_names(stages, "--stages") or None,
            steps=steps,
            precision=precision,
            init=weights,
            name=name,
            licence=licence,
        )
        jobs = plan(request)
        observers: list[Observer] = [bar, *loggers]
        problem, code = "", 0
        trained: list[Trained] = []
        notes: list[str] = []
        try:
            trained, notes = carry_out(jobs, reg, observers, resume)
            if task is not None and reports:
                trained = [with_probe(t, card, task, reg, loop, probe_subset, probe_draws) for t in trained]
        except Failed as error:
            problem, code = f"failed: {error}", 1
        except Stopped as error:
            problem, code = str(error), INTERRUPTED.get(error.signal, 1)
    if reports:
        warn([*plugin_warnings(reg), *(w for s in sources for w in s.warnings), *notes])
    if problem:
        if reports:
            typer.echo(problem, err=True)
        raise typer.Exit(code)
    if not reports:
        return
    if as_json:
        print_json({"checkpoints": [_document(t) for t in trained]})
    else:
        for one in trained:
            _print(one)


def _refuse_twice(aliases: Sequence[str]) -> None:
    from mrbench.errors import UserError

    if len(set(aliases)) < len(aliases):
        raise UserError(
            f"--dataset: two data sets are called {max(aliases, key=aliases.count)!r}. Give them names: --dataset ALIAS=NAME."
        )


def _recipe_changes(method: str, given: Settings, aliases: Sequence[str]) -> dict[str, Any]:
    """Options of the recipe: ``--set METHOD.KEY=VALUE`` and, for nested ones, ``--set METHOD.stages.main.batch=8``."""
    from mrbench.errors import UserError

    if method in aliases:
        raise UserError(f"--dataset {method}=...: that is the name of the method. Give the data set another alias.")
    changes = dict(given.take(method))
    for target in list(given.values):
        if target.startswith(f"{method}."):
            path = target.removeprefix(f"{method}.")
            changes |= {f"{path}.{key}": value for key, value in given.take(target).items()}
    return changes


def _limits(texts: Sequence[str]) -> dict[str, int]:
    from mrbench.errors import UserError

    limits = {}
    for text in texts:
        alias, _, number = text.rpartition("=")
        if not number.isdigit() or int(number) < 1:
            raise UserError(f"--max-slices {text}: expected N or ALIAS=N with a number of slices, 1 or more.")
        limits[alias] = int(number)
    return limits


def _names(text: str | None, flag: str) -> tuple[str, ...]:
    from mrbench.errors import UserError

    if text is None:
        return ()
    names = tuple(n.strip() for n in text.split(",") if n.strip())
    if not names:
        raise UserError(f"{flag} is empty. Name some, with commas between them.")
    return names


def _preset(preset: str | None, recipe: type[Recipe[Any]], card: MethodCard) -> str:
    from mrbench.errors import UserError
    from mrbench.train.presets import describe_presets

    if preset is None:
        raise UserError(
            f"no preset given. Name one with --preset. Presets of {card.name}: {describe_presets(recipe, card.name)}."
        )
    return preset


def _check_scale(card: MethodCard, scales: Sequence[float]) -> None:
    from mrbench.errors import UserError

    if card.scales is not None and any(s not in (*card.scales, 1) for s in scales):
        have = ", ".join(f"{s}x" for s in card.scales)
        raise UserError(f"method {card.name} works at {have}, not at {'x'.join(f'{s:g}' for s in scales)}.")


def _document(trained: Trained) -> dict[str, Any]:
    kept = ("method", "seed", "steps", "preset", "sha256", "selection", "optimised_for", "probe", "seconds", "data")
    return {"checkpoint": str(trained.out), **{k: trained.document.get(k) for k in kept}}


def _print(trained: Trained) -> None:
    from rich.text import Text

    document = trained.document
    scores = document["selection"].get("scores", {})
    bicubic = document["selection"].get("reference", {}).get("bicubic", {})
    shown = [
        f"{k} {scores[k]:.4g}" + (f" (bicubic {bicubic[k]:.4g})" if bicubic.get(k) is not None else "")
        for k in scores
        if k.partition("@")[0] in SHOWN and scores[k] is not None
    ]
    console = stdout()
    console.print(
        Text(
            f"{trained.out}: {document['steps']} steps, seed {document['seed']}"
            + (f"; validation: {', '.join(shown)}" if shown else "")
        ),
        soft_wrap=True,
    )
    console.print(Text(f"use it: mrbench run --method {document['method']}@{trained.out} ..."), soft_wrap=True)
