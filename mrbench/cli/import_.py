"""``mrbench import``: images that were made from a pack become a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from mrbench.store.runs import RunData

SHOWN = 10  # failed items that are named


def import_(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="A pack of `mrbench export` (its pack.json is enough).")],
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Folder of the restored images.")],
    label: Annotated[str, typer.Option("--label", "-l", help="Name of the images' entry.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run folders.")] = Path("runs"),
    draws: Annotated[
        int | None,
        typer.Option("--draws", "-k", min=1, max=1000, help="Draws per item (default: as many as the first item has)."),
    ] = None,
    value_range: Annotated[
        str | None, typer.Option("--range", metavar="LO,HI", help="Stored values that become 0 and 1.")
    ] = None,
    metrics: MetricsOption = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score images that were made from a pack, as an ordinary run of tier `files`.

    The data set must be at hand: the ground truth is made from it, and its items are checked against the pack's hashes.
    Exit code 1: images are missing or cannot be scored (all of them are named in the rows).
    """
    from mrbench.errors import UserError

    reg = registry(plugin)
    from mrbench.engine.entries import metric_settings, parse_settings
    from mrbench.engine.environment import choose_device
    from mrbench.engine.packs import read_pack
    from mrbench.engine.pairs import parse_range

    found = read_pack(pack)
    declared = parse_range(value_range) if value_range is not None else None
    given = parse_settings(settings or [])
    asked = split_names(metrics)
    for name in asked or ():
        reg.metrics.get(name)
    options = metric_settings(given, reg.metrics.names())
    data = given.take(found.dataset.alias)
    given.refuse_unused()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    if not predictions.is_dir():
        raise UserError(f"{predictions}: no such folder. Give the folder that holds the restored images.")

    from mrbench.cli.progress import ProgressPlugin
    from mrbench.engine.importing import Predictions, import_predictions, match_predictions, open_pack
    from mrbench.engine.scoring import Scorer
    from mrbench.engine.threads import use_threads
    from mrbench.metrics.uncertainty_cards import usual_metrics
    from mrbench.plugins import PluginInfo
    from mrbench.report.summary import summary_document
    from mrbench.store.runs import load_run

    chosen = choose_device(device)
    count = use_threads(threads)
    with ProgressPlugin(stderr()) as bar:
        task, items = open_pack(found, reg, data, bar.preparing)
    matched = match_predictions(items, Predictions(predictions, label, declared, draws))
    names = asked or list(usual_metrics(found.protocol.source.get("metrics", ()), matched.draws))
    with stderr().status("loading metrics") as status:
        scorer = Scorer.load(reg, names, options, chosen, False, lambda name: status.update(f"loading metric {name}"))
    with ProgressPlugin(stderr()) as bar:
        reg.register(bar, PluginInfo("progress", "mrbench.cli.progress"))
        done = import_predictions(found, task, items, matched, scorer, chosen, count, out, reg)
    run = load_run(done.report.folder)
    bad = list(done.report.failed.items())
    named = [f"failed: {item}: {error}" for item, error in bad[:SHOWN]]
    named += [f"... and {len(bad) - SHOWN} more (`mrbench show {done.report.folder}`)"] if len(bad) > SHOWN else []
    notes = [*plugin_warnings(reg), *scorer.warnings, *done.report.notes, *task.listing.warnings, *done.warnings, *named]
    warn(notes)
    if as_json:
        print_json({"runs": [summary_document(run)]})
    else:
        _print(run, scorer.unavailable)
        typer.echo(f"{label}: {len(done.report.requested)} items; rows in {done.report.folder}")
    problems = [f"{len(bad)} of {len(items)} items failed ({bad[0][0]}: {bad[0][1]})"] if bad else []
    problems += [f"{done.missing} of {len(items)} items have no file"] if done.missing else []
    if problems:
        typer.echo("incomplete: " + "; ".join(problems), err=True)
        raise typer.Exit(1)


def _print(run: RunData, unavailable: dict[str, str]) -> None:
    from mrbench.errors import UserError
    from mrbench.report.as_terminal import BoardView
    from mrbench.report.leaderboard import build_board

    if (run.rows["status"] == "ok").any():
        try:
            stdout().print(BoardView(build_board([run])))
        except UserError as error:
            warn([str(error)])
    for name, reason in unavailable.items():
        typer.echo(f"{name}: n/a ({reason})")
