"""``mrbench run``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import (
    AddressOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    JsonOption,
    MetricsOption,
    OutOption,
    PluginOption,
    SetOption,
    ThreadsOption,
    WorkersOption,
    engine_options,
    out_place,
    plugin_warnings,
    print_json,
    registry,
    split_names,
    stderr,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from mrbench.engine.run import RunReport
    from mrbench.engine.task import Task
    from mrbench.store.runs import RunData

DEFAULT_SCALE = 4


def run(
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", metavar="[LABEL=]NAME[@CHECKPOINT]", help="A method (repeatable).")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", metavar="[ALIAS=]NAME", help="A data set (repeatable).")
    ] = None,
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the protocol uniform-xS (default: 4).")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    metrics: MetricsOption = None,
    settings: SetOption = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", "-k", min=1, max=1000, help="Posterior samples per slice (default: the protocol's)."),
    ] = None,
    out: OutOption = "runs",
    subset: Annotated[int | None, typer.Option("--subset", help="Only N items, a seeded choice spread over subjects.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first N items, round-robin over subjects.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", "-b", min=1, help="Items per batch (a stored plan wins when resuming).")
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16.")] = "fp32",
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = None,
    images: Annotated[
        str, typer.Option("--images", help="Store restored images: auto (up to 1 GiB a run), all or none.")
    ] = "auto",
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw comparison panels and box plots at the end.")
    ] = True,
    compile: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile the metrics (faster on many slices).")
    ] = False,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Run weights on subjects that they were trained on; the rows say so.")
    ] = False,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run methods on a data set under one protocol, and store a row per slice.

    The same command again goes on where it stopped. Exit code 1: some items failed; 2: something was asked for wrongly.
    """
    from mrbench.errors import UserError

    reg = registry(plugin)
    from mrbench.engine.entries import metric_settings, parse_dataset, parse_entries, parse_settings
    from mrbench.metrics.uncertainty_cards import usual_metrics
    from mrbench.protocol import find_protocol, resolve, uniform_name

    if scale is not None and protocol is not None:
        raise UserError("--scale and --protocol exclude each other: --scale S means --protocol uniform-xS.")
    if not dataset:
        raise UserError(
            "no data set given. Name one with --dataset, for example --dataset sample (`mrbench datasets` lists them)."
        )
    if precision not in ("fp32", "bf16", "fp16"):
        raise UserError(f"--precision {precision}: unknown. Known: fp32, bf16, fp16.")
    if images not in ("auto", "all", "none"):
        raise UserError(f"--images {images}: unknown. Known: auto, all, none.")
    cluster = engine_options(engine, address, workers, gpus_per_worker, device)
    given = parse_settings(settings or [])
    rules = find_protocol(protocol if protocol is not None else uniform_name(scale if scale is not None else DEFAULT_SCALE))
    resolve(rules, reg)
    entries = parse_entries(method or [], given, reg, rules.in_plane)
    choices = [parse_dataset(d, given, reg) for d in dataset]
    aliases = [c.alias for c in choices]
    if len(set(aliases)) < len(aliases):
        raise UserError(
            f"--dataset: two data sets are called {max(aliases, key=aliases.count)!r}. Give them names: --dataset ALIAS=NAME."
        )
    names = split_names(metrics) or list(usual_metrics(rules.metrics, draws if draws is not None else rules.draws))
    for name in names:
        reg.metrics.get(name)
    metric_options = metric_settings(given, reg.metrics.names())
    given.refuse_unused()
    folder, mirror = out_place(out)

    from mrbench.cli.progress import ProgressPlugin
    from mrbench.hub import resolve as get_weights

    for entry in entries:  # downloaded and checked before any work
        if entry.checkpoint is not None:
            get_weights(entry.checkpoint, entry.card.name)

    from mrbench.engine.environment import choose_device
    from mrbench.engine.folders import Conditions
    from mrbench.engine.run import Runner, RunOptions, refuse_unloadable
    from mrbench.engine.scoring import Scorer
    from mrbench.engine.task import open_task
    from mrbench.engine.threads import use_threads
    from mrbench.plugins import PluginInfo
    from mrbench.report.summary import summary_document

    chosen_device = choose_device(device if cluster is None else "cpu")  # with Ray, only workers need the device
    conditions = Conditions(chosen_device, precision, use_threads(threads), draws if draws is not None else rules.draws)
    finished: list[tuple[Task, list[RunReport]]] = []
    with ExitStack() as stack:
        executor = None
        if cluster is not None:
            from mrbench.engine.ray_pool import ray_engine

            with stderr().status("starting Ray" if address in (None, "local") else "joining the Ray cluster"):
                executor = stack.enter_context(ray_engine(cluster, conditions.threads, reg.files, compile))
            warn(executor.notes)
        with stderr().status("loading metrics") as status:
            scorer = Scorer.load(
                reg, names, metric_options, chosen_device, compile, lambda name: status.update(f"loading metric {name}")
            )
        bar = stack.enter_context(ProgressPlugin(stderr()))
        reg.register(bar, PluginInfo("progress", "mrbench.cli.progress"))
        tasks = [open_task(choice, rules, reg, bar.preparing) for choice in choices]
        how = RunOptions(folder, batch, images, allow_leak, mirror)
        runners = [Runner(task, task.choose(subset, limit), scorer, conditions, how, reg, executor=executor) for task in tasks]
        for runner in runners:  # mistakes come before any work, on whichever data set
            runner.check(entries)
        refuse_unloadable(entries, conditions)
        for runner in runners:
            finished.append((runner.task, runner.run(entries)))

    warn(
        [
            *plugin_warnings(reg),
            *(n for e in entries for n in e.notes),
            *scorer.warnings,
            *(n for _, reports in finished for r in reports for n in r.notes),
            *_data_notes(finished),
        ]
    )
    documents: list[dict[str, Any]] = []
    failures: list[str] = []
    for task, reports in finished:
        runs = [_load(task, r) for r in reports]
        documents += [summary_document(r) for r in runs]
        figures = _pictures(folder, task, runs) if pictures else []
        if not as_json:
            _print(task, reports, runs, figures, scorer.unavailable)
        failures += _failures(task, reports)
    if as_json:
        print_json({"runs": documents})
    elif mirror is not None:
        typer.echo(f"stored at {mirror.url}", err=True)
    if failures:
        typer.echo("failed: " + "; ".join(failures), err=True)
        raise typer.Exit(1)


def _load(task: Task, report: RunReport) -> RunData:
    """The rows that this call asked for, and those of sources that were skipped."""
    from mrbench.store.runs import load_run

    data = load_run(report.folder)
    wanted = set(report.requested) | {s.item_id for s in task.listing.skipped}
    data.rows = data.rows[data.rows["item_id"].isin(wanted)]
    return data


def _data_notes(finished: list[tuple[Task, list[RunReport]]]) -> list[str]:
    notes = []
    for task, _ in finished:
        listing = task.listing
        notes += list(listing.warnings)
        if listing.dropped:
            notes.append(
                f"{task.choice.alias}: {len(listing.dropped)} slices left out by the protocol's foreground rule (listed in the manifest)"
            )
        notes += [f"skipped {s.file}: {s.reason}" for s in listing.skipped[:5]]
        if len(listing.skipped) > 5:
            notes.append(f"... and {len(listing.skipped) - 5} more files skipped (listed in the manifest)")
    return notes


def _pictures(out: Path, task: Task, runs: list[RunData]) -> list[Path]:
    from mrbench.errors import MrbenchError
    from mrbench.report.boxplot import metric_boxplots
    from mrbench.report.panel import comparison_panel, pick_items

    folder = out / task.choice.alias / task.protocol.name / "figures"
    usable = [r for r in runs if (r.rows["status"] == "ok").any()]
    written: list[Path] = []
    if not usable:
        return written
    try:
        for item in pick_items(usable, 2):
            name = "-".join(item.split("/")[1:])
            written += comparison_panel(usable, item, folder / f"panel-{name}", aspect=_aspect(task, item))
        written += metric_boxplots(usable, folder / "boxplots", intersect=True)
    except MrbenchError as error:
        warn([f"no pictures: {error}"])
    return written


def _aspect(task: Task, item_id: str) -> float:
    """Height of an item's pixels over their width (1 if the voxel size is not known)."""
    _, row, column = next(i.voxel for i in task.items if i.item_id == item_id)
    return row / column if row > 0 and column > 0 else 1.0


def _print(task: Task, reports: list[RunReport], runs: list[RunData], figures: list[Path], unavailable: dict[str, str]) -> None:
    from rich.text import Text

    from mrbench.data.redistribution import notice
    from mrbench.errors import UserError
    from mrbench.report.as_terminal import BoardView
    from mrbench.report.leaderboard import build_board

    console = stdout()
    usable = [r for r in runs if (r.rows["status"] == "ok").any()]
    if usable:
        items = {frozenset(r.rows.loc[r.rows["status"] == "ok", "item_id"]) for r in usable}
        try:
            console.print(BoardView(build_board(usable, intersect=len(items) > 1)))
        except UserError as error:
            warn([str(error)])
    else:
        warn([f"{name} is n/a: {reason}" for name, reason in unavailable.items()])
    for report in reports:
        stored = f", {report.done_before} were stored before" if report.done_before else ""
        console.print(
            Text(f"{report.entry.label}: {len(report.requested)} items{stored}; rows in {report.folder}"), soft_wrap=True
        )
    shown = [f for f in figures if f.suffix == ".png"]
    if shown:
        own = notice(task.choice.card)
        where = f"{shown[0].parent}{f' ({own})' if own else ''}"
        console.print(Text(f"pictures ({', '.join(f.name for f in shown)}, and as PDF): {where}"), soft_wrap=True)


def _failures(task: Task, reports: list[RunReport]) -> list[str]:
    texts = []
    for report in reports:
        failed = report.failed
        if failed:
            item, error = next(iter(failed.items()))
            texts.append(
                f"{report.entry.label} on {task.choice.alias}: {len(failed)} of {len(report.requested)} items ({item}: {error})"
            )
    return texts
