"""``mrbench score``: metrics of stored runs, of two folders of images, or of images made elsewhere for a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import (
    DeviceOption,
    JsonOption,
    MetricsOption,
    PluginOption,
    SetOption,
    ThreadsOption,
    plugin_warnings,
    print_json,
    registry,
    split_names,
    stderr,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from mrbench.engine.entries import Settings
    from mrbench.engine.pairs import PairScores
    from mrbench.engine.scoring import Scorer
    from mrbench.plugins import Registry
    from mrbench.report.summary import Aggregate
    from mrbench.store.runs import RunData

FORMS = """`mrbench score` has three forms:
  mrbench score RUN [RUN...]                            metrics of stored runs, from their stored images
  mrbench score --pred FOLDER --target FOLDER           images made elsewhere against ground truth, without a protocol
  mrbench score FOLDER --dataset D --scale S --label X  images made elsewhere for the items of a task, as a run"""
WORST = 5
LISTED = 10
PAIR_METRICS_OF = "uniform-x4"  # its image metrics are the default for two folders


def score(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN...]", help="Run folders, or folders that hold some; with --dataset: one folder of images."
        ),
    ] = None,
    pred: Annotated[Path | None, typer.Option("--pred", help="Folder of restored images.")] = None,
    target: Annotated[Path | None, typer.Option("--target", help="Folder of their ground truth.")] = None,
    match: Annotated[
        str | None,
        typer.Option("--match", metavar="REGEX", help="Pair files by the first group of REGEX (default: path without ending)."),
    ] = None,
    value_range: Annotated[
        str | None, typer.Option("--range", metavar="LO,HI", help="Stored values that become 0 and 1.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", metavar="[ALIAS=]NAME", help="The data set that the images belong to.")
    ] = None,
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the protocol uniform-xS.")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Name of the images' entry.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run folders (default: runs).")] = None,
    metrics: MetricsOption = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    compile: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile the metrics (faster on many slices).")
    ] = False,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute metrics: of stored runs, of two folders of images, or of images made elsewhere for a task.

    mrbench score RUN...; mrbench score --pred FOLDER --target FOLDER; mrbench score FOLDER --dataset D --scale S --label X.
    Exit code 1: some images could not be scored; 2: something was asked for wrongly.
    """
    from mrbench.errors import UserError

    given = {
        "--pred": pred, "--target": target, "--match": match, "--range": value_range, "--dataset": dataset, "--scale": scale,
        "--protocol": protocol, "--label": label, "--out": out,
    }  # fmt: skip
    present = {name for name, value in given.items() if value is not None}
    if present & {"--pred", "--target"}:
        allowed, needed = {"--pred", "--target", "--match", "--range"}, {"--pred", "--target"}
    elif dataset is not None:
        allowed, needed = {"--dataset", "--scale", "--protocol", "--label", "--out", "--range"}, {"--dataset", "--label"}
    else:
        allowed, needed = set(), set()
    wrong, lacking = sorted(present - allowed), sorted(needed - present)
    if runs and present & {"--pred", "--target"}:
        wrong.append(f"the folder {runs[0]}")
    words = [f"{' and '.join(lacking)} missing"] if lacking else []
    words += [f"{' and '.join(wrong)} not part of this form"] if wrong else []
    if words or not (runs or present):
        raise UserError(f"mrbench score: {'; '.join(words) or 'nothing to score'}.\n{FORMS}")
    reg = registry(plugin)
    from mrbench.engine.entries import parse_settings
    from mrbench.engine.threads import use_threads

    common = _Common(reg, parse_settings(settings or []), split_names(metrics), device, compile, as_json)
    if pred is not None and target is not None:
        use_threads(threads)
        failed = _pairs(common, pred, target, match, value_range)
    elif dataset is not None:
        if not runs or len(runs) > 1:
            raise UserError(f"--dataset needs one folder of images, got {len(runs or [])}.\n{FORMS}")
        if (scale is None) == (protocol is None):
            raise UserError("say which rules the images were made for: either --scale S or --protocol P.")
        rules = _Rules(dataset, scale, protocol, value_range)
        failed = _files(common, runs[0], rules, label or "", out or Path("runs"), use_threads(threads))
    else:
        failed = _stored(common, runs or [], threads)
    if failed:
        typer.echo(f"failed: {failed}", err=True)
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Rules:
    """What images made elsewhere were made for."""

    dataset: str
    scale: int | None
    protocol: str | None
    value_range: str | None


@dataclass(frozen=True)
class _Common:
    """What the three forms share."""

    registry: Registry
    given: Settings
    names: list[str] | None  # --metrics
    device: str
    compile: bool
    as_json: bool

    def metrics(self, default: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
        """The metrics to compute and their options; options of other metrics and unknown targets are refused."""
        from mrbench.engine.entries import metric_settings

        names = self.names or list(default)
        for name in names:
            self.registry.metrics.get(name)
        options = metric_settings(self.given, names)
        self.given.refuse_unused()
        return names, options

    def scorer(self, names: Sequence[str], options: dict[str, dict[str, Any]]) -> Scorer:
        """Load metrics, with a word on stderr of what is loaded."""
        from mrbench.engine.environment import choose_device
        from mrbench.engine.scoring import Scorer

        device = choose_device(self.device)
        with stderr().status("loading metrics") as status:
            say = status.update
            return Scorer.load(self.registry, names, options, device, self.compile, lambda name: say(f"loading metric {name}"))


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("ETA"), TimeRemainingColumn(), console=stderr(),
    )  # fmt: skip


# -- stored runs ---------------------------------------------------------------------------------------------------
def _stored(common: _Common, paths: list[Path], threads: int | None) -> str:
    import os
    from functools import partial

    from mrbench.engine.rescore import default_metrics, open_stored, rescore
    from mrbench.engine.threads import use_threads
    from mrbench.report.summary import summary_document
    from mrbench.store.manifest import read_manifest
    from mrbench.store.runs import find_runs, load_run

    folders = find_runs(paths)
    defaults = {folder: default_metrics(read_manifest(folder)) for folder in folders}
    _, options = common.metrics(list(dict.fromkeys(name for names in defaults.values() for name in names)))
    with _bar() as bar:
        preparing = bar.add_task("ground truth from the data set", total=None, visible=False)
        stored = open_stored(
            folders, common.registry, lambda done, total, name: bar.update(preparing, completed=done, total=total, visible=True)
        )
    scorers: dict[tuple[str, ...], Scorer] = {}
    for folder in folders:
        names = tuple(common.names or defaults[folder])
        if names not in scorers:
            scorers[names] = common.scorer(names, {n: options.get(n, {}) for n in names})
    notes: list[str] = []
    with _bar() as bar:
        for run in stored:
            use_threads(threads if threads is not None else min(run.manifest.threads, os.cpu_count() or 1))
            scorer = scorers[tuple(common.names or defaults[run.folder.path])]
            task = bar.add_task(run.manifest.method.label, total=run.items)
            done = rescore(run, scorer, common.registry, partial(bar.advance, task))
            notes += [f"{run.folder.path.name}: {name} is n/a: {reason}" for name, reason in done.unavailable.items()]
            if not run.items:
                notes.append(f"{run.folder.path.name}: holds no ok rows, so there was nothing to score")
    warn([*plugin_warnings(common.registry), *(w for s in scorers.values() for w in s.warnings), *notes])
    data = [load_run(folder) for folder in folders]
    if common.as_json:
        print_json({"runs": [summary_document(run) for run in data]})
    else:
        _boards(data)
    return ""


def _boards(runs: list[RunData]) -> None:
    """One table per protocol and data set."""
    from mrbench.errors import UserError
    from mrbench.report.as_terminal import BoardView
    from mrbench.report.leaderboard import build_board

    groups: dict[tuple[str, str, str], list[RunData]] = {}
    for run in runs:
        if "status" in run.rows and (run.rows["status"] == "ok").any():
            groups.setdefault((run.manifest.protocol.hash, run.manifest.dataset.alias, run.manifest.task_hash), []).append(run)
    console = stdout()
    for group in groups.values():
        try:
            console.print(BoardView(build_board(group, intersect=True)))
        except UserError as error:
            warn([str(error)])


# -- two folders ---------------------------------------------------------------------------------------------------
def _pairs(common: _Common, pred: Path, target: Path, match: str | None, value_range: str | None) -> str:
    from mrbench.engine.pairs import pair_folders, parse_range, score_pairs, whole_frame
    from mrbench.protocol import find_protocol
    from mrbench.report.text import count, listing

    declared = parse_range(value_range) if value_range is not None else None
    usual = [n for n in find_protocol(PAIR_METRICS_OF).metrics if common.registry.metrics.get(n).kind == "image"]
    names, options = common.metrics(usual)
    pairing = pair_folders(pred, target, match)
    scorer = whole_frame(common.scorer(names, options))
    with _bar() as bar:
        task = bar.add_task("pairs", total=len(pairing.pairs))
        scores = score_pairs(pairing, scorer, declared, lambda done, total: bar.update(task, completed=done))
    refused = [f"not read: {name}: {reason}" for name, reason in list(pairing.refused.items())[:LISTED]]
    left = [
        f"{count(len(names), what)} without a partner: {listing(list(names), LISTED)}"
        for what, names in (("prediction", pairing.unmatched_pred), ("ground-truth file", pairing.unmatched_target))
        if names
    ]
    warn([*plugin_warnings(common.registry), *scorer.warnings, *refused, *left])
    aggregates = _aggregates(scores)
    if common.as_json:
        print_json(_pairs_document(scores, aggregates))
    else:
        _print_pairs(scores, aggregates, stdout())
    bad = [i for i in scores.items if i.status == "failed"]
    return f"{len(bad)} of {len(scores.items)} images ({bad[0].name}: {bad[0].error})" if bad else ""


def _aggregates(scores: PairScores) -> dict[str, Aggregate]:
    import numpy as np

    from mrbench.report.summary import aggregate, cap_of

    ok = [i for i in scores.items if i.status == "ok"]
    found = {}
    for column, info in scores.columns.items():
        values = np.array([i.values.get(column, np.nan) for i in ok], dtype=float)
        result = aggregate(values, np.array([i.name for i in ok], dtype=object), "slices", cap_of(info))
        if result is not None:
            found[column] = result
    return found


def _pairs_document(scores: PairScores, aggregates: dict[str, Aggregate]) -> dict[str, Any]:
    pairing = scores.pairing
    return {
        "pairs": len(pairing.pairs),
        "matched": [{"name": p.name, "pred": str(p.pred), "target": str(p.target)} for p in pairing.pairs],
        "unmatched_pred": list(pairing.unmatched_pred),
        "unmatched_target": list(pairing.unmatched_target),
        "range": scores.scale.document(),
        "metrics": {name: a.document() for name, a in aggregates.items()},
        "signatures": {name: info.signature for name, info in scores.columns.items()},
        "unavailable": scores.unavailable,
        "suspicions": [s.document() for s in scores.suspicions],
        "items": [
            {"name": i.name, "status": i.status, "error": i.error, **{k: _number(v) for k, v in i.values.items()}}
            for i in scores.items
        ],
    }


def _number(value: float) -> float | str | None:
    """JSON knows no infinities: ``"inf"`` stands for one, ``null`` for NaN."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _print_pairs(scores: PairScores, aggregates: dict[str, Aggregate], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from mrbench.report.text import count, mean_and_sd, number

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    ok = [i for i in scores.items if i.status == "ok"]
    others = {s: sum(i.status == s for i in scores.items) for s in ("failed", "skipped")}
    tail = "".join(f", {n} {s}" for s, n in others.items() if n)
    say(f"{count(len(scores.pairing.pairs), 'pair')}, {count(len(ok), 'image')} scored{tail}; {scores.scale.text}")
    table = Table("metric", "mean ± sd", "n", box=None, pad_edge=False)
    for column, found in aggregates.items():
        info = scores.columns[column]
        mean, sd = mean_and_sd(found.mean, found.sd, info.digits)
        value = mean + (f" ± {sd}" if sd else "") + (f" {info.unit}" if info.unit else "")
        table.add_row(Text(f"{column} {'↑' if info.higher_is_better else '↓'}"), Text(value), str(found.n))
    console.print(table)
    for name, reason in scores.unavailable.items():
        say(f"{name}: n/a ({reason})")
    first = next(iter(aggregates), None)
    ranked = [i for i in ok if first is not None and math.isfinite(i.values.get(first, math.nan))]
    if first is not None and len(ranked) > 1:
        info = scores.columns[first]
        worst = sorted(ranked, key=lambda i: i.values[first], reverse=not info.higher_is_better)[:WORST]
        shown = ", ".join(f"{i.name} ({number(i.values[first], info.digits)})" for i in worst)
        say(f"worst by {first}: {shown}")
    for status in ("failed", "skipped"):
        for item in [i for i in scores.items if i.status == status][:LISTED]:
            say(f"{status}: {item.name}: {item.error}")
    say("signatures:")
    for column in aggregates:
        say(f"  {column}: {scores.columns[column].signature}")
    say("suspicions:" if scores.suspicions else "suspicions: none")
    for suspicion in scores.suspicions:
        say(f"  {suspicion.kind}: {suspicion.text}", "yellow")


# -- images for a task ---------------------------------------------------------------------------------------------
def _files(common: _Common, folder: Path, given: _Rules, label: str, out: Path, threads: int) -> str:
    from mrbench.cli.progress import ProgressPlugin
    from mrbench.engine.entries import parse_dataset
    from mrbench.engine.environment import choose_device
    from mrbench.engine.external import import_files
    from mrbench.engine.pairs import parse_range
    from mrbench.engine.task import open_task
    from mrbench.errors import UserError
    from mrbench.plugins import PluginInfo
    from mrbench.protocol import find_protocol, resolve, uniform_name
    from mrbench.report.summary import summary_document
    from mrbench.store.runs import load_run

    reg = common.registry
    declared = parse_range(given.value_range) if given.value_range is not None else None
    choice = parse_dataset(given.dataset, common.given, reg)
    rules = find_protocol(given.protocol if given.protocol is not None else uniform_name(given.scale or 0))
    resolve(rules, reg)
    names, options = common.metrics(rules.metrics)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    scorer = common.scorer(names, options)
    with ProgressPlugin(stderr()) as bar:
        reg.register(bar, PluginInfo("progress", "mrbench.cli.progress"))
        task = open_task(choice, rules, reg, bar.preparing)
        done = import_files(folder, label, task, scorer, choose_device(common.device), threads, out, reg, declared)
    run = load_run(done.report.folder)
    warn([*plugin_warnings(reg), *scorer.warnings, *done.report.notes, *task.listing.warnings, *done.warnings])
    if common.as_json:
        print_json({"runs": [summary_document(run)]})
    else:
        _boards([run])
        for name, reason in scorer.unavailable.items():
            typer.echo(f"{name}: n/a ({reason})")
        typer.echo(f"{label}: {len(done.report.requested)} items; rows in {done.report.folder}")
    if not done.report.failed:
        return ""
    item, error = next(iter(done.report.failed.items()))
    return f"{len(done.report.failed)} of {len(done.report.requested)} items ({item}: {error})"
