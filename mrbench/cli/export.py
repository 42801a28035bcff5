"""``mrbench export``: the LR images of a task as plain files, for methods that run elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import JsonOption, PluginOption, SetOption, plugin_warnings, print_json, registry, stderr, warn


class Part(StrEnum):
    """Which side of the split."""

    train = "train"
    val = "val"
    test = "test"


def export(
    dataset: Annotated[str, typer.Option("--dataset", "-d", metavar="[ALIAS=]NAME", help="A data set.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PACK", help="The pack: a new folder, or one to go on with.")],
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the protocol uniform-xS.")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    split: Annotated[
        Part | None, typer.Option("--split", help="Which part of the data set (default: the protocol's, usually test).")
    ] = None,
    subset: Annotated[int | None, typer.Option("--subset", help="Only N items, a seeded choice spread over subjects.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first N items, round-robin over subjects.")] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", "-k", min=1, max=1000, help="Posterior samples to ask for (default: the protocol's)."),
    ] = None,
    with_hr: Annotated[bool, typer.Option("--with-hr", help="Also write the ground truth, for instance to train on.")] = False,
    local: Annotated[
        bool,
        typer.Option("--local", help="For this machine alone: allowed whatever the terms of the data set; the pack says so."),
    ] = False,
    settings: SetOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every item's LR image, the operator and the ids as a pack. The ground truth stays here, unless asked for.

    `mrbench import PACK PREDICTIONS --label X` turns what comes back into a run. The same command again goes on where it stopped.
    """
    from mrbench.errors import UserError

    if (scale is None) == (protocol is None):
        raise UserError("say which rules the images are made by: either --scale S or --protocol P.")
    reg = registry(plugin)
    from mrbench.engine.entries import parse_dataset, parse_settings
    from mrbench.protocol import find_protocol, resolve, uniform_name

    given = parse_settings(settings or [])
    choice = parse_dataset(dataset, given, reg)
    given.refuse_unused()
    rules = find_protocol(protocol if protocol is not None else uniform_name(scale or 0))
    if split is not None and split.value != rules.split.part:
        rules = rules.model_copy(update={"split": rules.split.model_copy(update={"part": split.value})})
    resolve(rules, reg)

    from mrbench.bars import progress_bar
    from mrbench.cli.progress import ProgressPlugin
    from mrbench.engine.export import export as write
    from mrbench.engine.task import open_task
    from mrbench.report.text import count

    with ProgressPlugin(stderr()) as bar:
        task = open_task(choice, rules, reg, bar.preparing)
    items = task.choose(subset, limit)
    with progress_bar(stderr()) as items_bar:
        number = items_bar.add_task("items", total=len(items), note="")

        def progress(done: int, total: int, name: str) -> None:
            items_bar.update(number, completed=done, note=name)

        done = write(task, items, out, with_hr=with_hr, local=local, draws=draws, progress=progress)
    notices = [done.pack.notice] if done.pack.notice else []
    warn([*plugin_warnings(reg), *task.listing.warnings, *notices])
    if as_json:
        print_json(
            {
                "pack": str(out),
                "items": len(items),
                "written": done.written,
                "kept": done.kept,
                "protocol_hash": done.pack.protocol.hash,
                "task_hash": done.pack.task_hash,
                "digest": done.pack.digest,
                "with_hr": done.pack.with_hr,
                "local": done.pack.local,
            }
        )
        return
    before = f", {count(done.kept, 'file')} were there before" if done.kept else ""
    typer.echo(f"{count(len(items), 'item')} in {out}{before}; {out / 'README.md'} says what to return")
    typer.echo(f"then: mrbench import {out} PREDICTIONS --label NAME")
