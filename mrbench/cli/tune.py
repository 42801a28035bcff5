"""``mrbench tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

    from mrbench.engine.entries import Entry
    from mrbench.engine.run import Runner
    from mrbench.store.tuned import TunedResult

DEFAULT_SCALE = 4
TRIALS = "trials"


def tune(
    method: Annotated[str, typer.Argument(metavar="METHOD[@CHECKPOINT]", help="The method whose options are searched.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", "-d", metavar="[ALIAS=]NAME", help="A data set (repeatable); its val subjects are used."),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            "--space",
            metavar="auto|FILE.yaml|KEY=...",
            help="What to search: auto (as declared), or zeta=0.1:1:log,kernel=a|b.",
        ),
    ] = "auto",
    trials: Annotated[
        int, typer.Option("--trials", "-n", min=2, help="Trials in all; the default options are the first.")
    ] = 20,
    objective: Annotated[
        str,
        typer.Option("--objective", metavar="[min:|max:]COLUMN", help="A metric column, e.g. psnr, psnr@mean, lpips_squeeze."),
    ] = "psnr",
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the protocol uniform-xS (default: 4).")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TARGET.KEY=VALUE",
            help="An option that stays fixed in all trials (METHOD.KEY), of a data set (its alias), or metric.NAME (repeatable).",
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", "-k", min=1, max=1000, help="Posterior samples per slice (default: the protocol's)."),
    ] = None,
    subset: Annotated[
        int | None, typer.Option("--subset", help="Only N items of each data set, a seeded choice spread over subjects.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the points that are tried.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the result, the picture, and the trials' runs.")] = Path(
        "tuned"
    ),
    name: Annotated[str, typer.Option("--name", help="Name of the result (default: METHOD-xS-OBJECTIVE).")] = "",
    batch: Annotated[
        int | None, typer.Option("--batch", "-b", min=1, help="Items per batch (a stored plan wins when resuming).")
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16.")] = "fp32",
    threads: ThreadsOption = None,
    picture: Annotated[bool, typer.Option("--picture/--no-picture", help="Draw the objective against each option.")] = True,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search a method's options on validation subjects; `mrbench run --set LABEL.tuned=FILE` takes the winner.

    Test subjects are never seen. Every trial is a stored run: the same command again goes on where it stopped, and more
    --trials add to those that are there. Exit code 1: every trial failed; 2: something was asked for wrongly.
    """
    from mrbench.errors import UserError

    reg = registry(plugin)
    from mrbench.engine.entries import metric_settings, parse_dataset, parse_entries, parse_settings
    from mrbench.protocol import find_protocol, resolve, uniform_name
    from mrbench.tuning_space import parse_space

    if scale is not None and protocol is not None:
        raise UserError("--scale and --protocol exclude each other: --scale S means --protocol uniform-xS.")
    if not dataset:
        raise UserError(
            "no data set given. Name one with --dataset, e.g. --dataset folder --set folder.path=DIR --set folder.split=hash."
        )
    if precision not in ("fp32", "bf16", "fp16"):
        raise UserError(f"--precision {precision}: unknown. Known: fp32, bf16, fp16.")
    if "=" in method:
        raise UserError(f"{method}: expected METHOD or METHOD@CHECKPOINT, without a label.")
    given = parse_settings(settings or [])
    rules = find_protocol(protocol if protocol is not None else uniform_name(scale if scale is not None else DEFAULT_SCALE))
    resolved = resolve(rules, reg)
    (entry,) = parse_entries([method], given, reg, rules.in_plane)
    if entry.tuning is not None:
        raise UserError(f"--set {entry.label}.tuned: tuned options are no start of a tuning. Name fixed options one by one.")
    if entry.card.control:
        raise UserError(f"{entry.card.name} is a control: it sees the ground truth, so there is nothing to tune.")
    fixed = dict(given.take(entry.label))
    choices = [parse_dataset(d, given, reg) for d in dataset]
    _refuse_twice([c.alias for c in choices], entry.label)
    searched = parse_space(space, entry.card.options, entry.card.name)
    both = sorted(set(searched) & set(fixed))
    if both:
        raise UserError(f"--set {entry.label}.{both[0]}: is searched as well. Fix it, or leave it in --space, not both.")

    from mrbench.engine.tune import Search, make_objective, open_validation, parse_objective, settings_to_try
    from mrbench.engine.tune_result import default_name, make_result, refuse_other, result_file

    column, metric, higher = parse_objective(objective, reg.metrics)
    metric_options = metric_settings(given, reg.metrics.names())
    given.refuse_unused()
    file = result_file(out, name or default_name(entry, rules.name, column))
    refuse_other(file, entry, resolved, choices, column)

    from mrbench.cli.tune_bar import TuneBar
    from mrbench.engine.environment import choose_device
    from mrbench.engine.folders import Conditions, refuse_unfit
    from mrbench.engine.run import Runner, RunOptions
    from mrbench.engine.scoring import Scorer
    from mrbench.engine.threads import use_threads
    from mrbench.hub import resolve as get_weights
    from mrbench.plugins import PluginInfo
    from mrbench.report.summary import cap_of
    from mrbench.store.tuned import write_tuned

    refuse_unfit([entry], rules)
    if entry.checkpoint is not None:
        get_weights(entry.checkpoint, entry.card.name)
    conditions = Conditions(choose_device(device), precision, use_threads(threads), draws if draws is not None else rules.draws)
    with stderr().status(f"loading metric {metric}"):
        scorer = Scorer.load(reg, [metric], metric_options, conditions.device)
    goal = make_objective(column, higher, scorer, conditions.draws_of(entry), cap_of)
    tried = settings_to_try(searched, trials, seed, entry.options.model_dump(mode="json"))
    with TuneBar(stderr(), len(tried), goal) as bar:
        reg.register(bar, PluginInfo("progress", "mrbench.cli.tune_bar"))
        tasks, notes = open_validation(choices, rules, reg, bar.preparing)
        how = RunOptions(out / TRIALS, batch, "none", allow_leak=True)  # weights may have been validated on these subjects
        runners = [Runner(task, task.choose(subset, None), scorer, conditions, how, reg) for task in tasks]
        bar.begin(sum(len(r.chosen) for r in runners))
        search = Search(entry, runners, goal, fixed)
        records = search.run(tried, bar.started, bar.done)
    chosen = [r.chosen for r in runners]
    winner = search.winner(records)
    result = make_result(
        file.stem, entry, resolved, tasks, chosen, goal, searched, fixed, seed, conditions, records, winner
    )  # fmt: skip
    write_tuned(file, result)

    pictures: tuple[Path, ...] = ()
    if picture:
        from mrbench.report.tuning import tuning_picture

        pictures = tuning_picture(result, file.with_suffix(""))
    if len(tried) < trials:
        notes.append(
            f"--trials {trials}: the space holds no more than {len(tried)} different settings, the default ones included"
        )
    warn([*plugin_warnings(reg), *entry.notes, *scorer.warnings, *notes, *_notes(result, runners, entry)])
    if as_json:
        document = {"file": str(file), "pictures": [str(p) for p in pictures], **result.model_dump(mode="json")}
        print_json(document)
    else:
        _print(result, file, pictures, method)
    if result.winner is None:
        typer.echo(f"failed: every trial (trial 0: {result.trials[0].error})", err=True)
        raise typer.Exit(1)


def _refuse_twice(aliases: Sequence[str], label: str) -> None:
    from mrbench.errors import UserError

    if len(set(aliases)) < len(aliases):
        raise UserError(
            f"--dataset: two data sets are called {max(aliases, key=aliases.count)!r}. Give them names: --dataset ALIAS=NAME."
        )
    if label in aliases:
        raise UserError(f"--dataset {label}: that is the name of the method. Give the data set another alias: ALIAS={label}.")


def _notes(result: TunedResult, runners: Sequence[Runner], entry: Entry) -> list[str]:
    """What a reader of the result should know."""
    notes = []
    for runner in runners:
        notes += list(runner.task.listing.warnings)
        seen = runner.seen.get(entry.label)
        if seen is not None and seen.overlap:
            people = len({i.subject for i in runner.chosen if i.item_id in seen.overlap.items})
            notes.append(
                f"{runner.task.choice.alias}: the weights were trained or validated on {people} of these subjects, so the winner may "
                "suit unseen people less"
            )
    failed = [t for t in result.trials if t.status != "ok"]
    if failed and len(failed) < len(result.trials):
        notes.append(
            f"{len(failed)} of {len(result.trials)} trials failed and cannot win (trial {failed[0].trial}: {failed[0].error})"
        )
    if result.winner == 0:
        notes.append("no trial beat the default options")
    return notes


def _print(result: TunedResult, file: Path, pictures: Sequence[Path], method: str) -> None:
    from rich.text import Text

    from mrbench.report.tuning import sentence, trials_table

    console = stdout()
    console.print(trials_table(result))
    console.print(Text(f"\n{sentence(result)}"), soft_wrap=True)
    console.print(Text(f"result: {file}"), soft_wrap=True)
    if pictures:
        console.print(Text(f"picture: {pictures[0]} (and as PDF)"), soft_wrap=True)
    if result.winner is not None:
        use = f"mrbench run --method {method} --set {result.method.name}.tuned={file} ..."
        console.print(Text(f"use it: {use}"), soft_wrap=True)
