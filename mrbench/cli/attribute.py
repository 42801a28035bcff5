"""``mrbench attribute``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import (
    DeviceOption,
    JsonOption,
    PluginOption,
    SetOption,
    ThreadsOption,
    plugin_warnings,
    print_json,
    registry,
    stderr,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from mrbench.data.items import ItemRef
    from mrbench.engine.attribution import PathSettings
    from mrbench.engine.entries import Entry
    from mrbench.engine.task import Batch, Task
    from mrbench.store.attributions import Attribution, Picture, Region

DEFAULT_SCALE = 4
STEPS, SIGMA = 50, 3.0  # as in mrbench.engine.attribution, which imports torch
COMPLETE = 0.05  # completeness errors above are worth a warning
SHARE = 1 / 8  # of each side, of the default region


def attribute(
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", metavar="[LABEL=]NAME[@CHECKPOINT]", help="A method (repeatable).")
    ] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", metavar="[ALIAS=]NAME", help="Whose slice is restored.")
    ] = "sample",
    item: Annotated[
        str | None, typer.Option("--item", metavar="ID", help="The slice: its id or the end of it (default: the first one).")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region",
            metavar="R0,C0,R1,C1",
            help="Rows and columns of the HR image, ends not included (default: where there is most detail).",
        ),
    ] = None,
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the protocol uniform-xS (default: 4).")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the path integral: a gradient each.")] = STEPS,
    sigma: Annotated[float, typer.Option("--sigma", help="Blur at the beginning of the path, in LR pixels.")] = SIGMA,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Stem of the files: .png, .pdf, .json and .npz are written.")
    ] = Path("attribution"),
    settings: SetOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which pixels of the LR image methods use to restore a region (local attribution maps, Gu and Dong 2021).

    Gradients of the region's detail are integrated along a path from a blurred LR image to the LR image. DI, the diffusion index, is 0
    if one pixel decides all and 100 if all contribute alike. Samplers get the same noise all along the path. Exit code 1: a method
    has no gradients (the last lines say where they end) or failed.
    """
    from mrbench.errors import UserError

    reg = registry(plugin)
    from mrbench.engine.entries import parse_dataset, parse_entries, parse_settings
    from mrbench.protocol import find_protocol, resolve, uniform_name

    if scale is not None and protocol is not None:
        raise UserError("--scale and --protocol exclude each other: --scale S means --protocol uniform-xS.")
    stem = _stem(out)
    given = parse_settings(settings or [])
    rules = find_protocol(protocol if protocol is not None else uniform_name(scale if scale is not None else DEFAULT_SCALE))
    resolve(rules, reg)
    entries = parse_entries(method or [], given, reg, rules.in_plane)
    choice = parse_dataset(dataset, given, reg)
    given.refuse_unused()
    asked = _region(region) if region is not None else None

    from mrbench.bars import progress_bar
    from mrbench.engine.attribution import PathSettings
    from mrbench.engine.environment import choose_device
    from mrbench.engine.folders import refuse_unfit
    from mrbench.engine.task import open_task
    from mrbench.engine.threads import use_threads

    refuse_unfit(entries, rules)
    path = PathSettings(steps, sigma)
    chosen = choose_device(device)
    use_threads(threads)
    with stderr().status("preparing volumes"):
        task = open_task(choice, rules, reg)
        ref = _item(task, item)
        batch = task.load([ref])
    picture = _picture(task, ref, batch, asked)
    found: list[Attribution] = []
    failed: dict[str, str] = {}
    with progress_bar(stderr()) as bar:
        for entry in entries:
            line = bar.add_task(entry.label, total=steps, note="checking gradients")

            def told(done: int, total: int, line: Any = line) -> None:
                bar.update(line, completed=done, note="")

            result = _attribute(entry, task, batch, picture.region, path, chosen, told)
            if isinstance(result, str):
                failed[entry.label] = result
                bar.update(line, note="none")
            else:
                found.append(result)
    written = _write(stem, picture, found, failed)
    _report(plugin_warnings(reg), entries, task, picture, found)
    _print(picture, found, failed, written, as_json)
    if failed:
        typer.echo("\n".join(f"no attribution: {reason}" for reason in failed.values()), err=True)
        raise typer.Exit(1)


def _stem(out: Path) -> Path:
    from mrbench.errors import UserError

    if out.is_dir():
        raise UserError(f"--out {out}: is a folder. Name the stem of the files, e.g. {out / 'attribution'}.")
    return out.with_suffix("") if out.suffix.lower() in (".png", ".pdf", ".json", ".npz") else out


def _region(text: str) -> Region:
    from mrbench.errors import UserError
    from mrbench.store.attributions import Region

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise UserError(f"--region {text}: expected four whole numbers R0,C0,R1,C1, for example --region 96,96,128,128.")
    return Region(*numbers)


def _item(task: Task, text: str | None) -> ItemRef:
    from mrbench.errors import UserError
    from mrbench.plugins import did_you_mean
    from mrbench.report.text import listing

    if text is None:
        return task.items[0]
    fitting = [i for i in task.items if i.item_id == text] or [i for i in task.items if i.item_id.endswith(f"/{text}")]
    if len(fitting) == 1:
        return fitting[0]
    ids = [i.item_id for i in task.items]
    if fitting:
        raise UserError(f"--item {text}: fits several slices ({listing([i.item_id for i in fitting])}). Give more of the id.")
    raise UserError(f"--item {text}: no such slice.{did_you_mean(text, ids)} There are {listing(ids)}.")


def _picture(task: Task, ref: ItemRef, batch: Batch, region: Region | None) -> Picture:
    from mrbench.report.zoom import densest_window
    from mrbench.store.attributions import Picture, Region

    hr, y = batch.hr[0].numpy(), batch.measurement.y[0].numpy()
    if region is None:
        window = densest_window(hr.mean(0), batch.mask[0].numpy(), SHARE)
        region = Region(window.top, window.left, window.top + window.height, window.left + window.width)
    gy, gx = batch.measurement.grid
    _, row, column = ref.voxel
    return Picture(
        item_id=ref.item_id,
        dataset=task.choice.alias,
        dataset_name=task.choice.card.name,
        protocol=task.protocol.name,
        protocol_hash=task.protocol.hash,
        region=region.check(batch.measurement.size),
        hr=hr,
        y=y,
        grid=((gy.step, gy.offset), (gx.step, gx.offset)),
        aspect=row / column if row > 0 and column > 0 else 1.0,
    )


def _attribute(
    entry: Entry, task: Task, batch: Batch, region: Region, path: PathSettings, device: Any, told: Any
) -> Attribution | str:
    """The map of a method, or why there is none."""
    from mrbench.engine.attribution import Explained, attribute
    from mrbench.engine.restorer import Restorer
    from mrbench.errors import MrbenchError

    card, channels = entry.card, batch.hr.shape[1]
    if channels not in card.channels:
        return f"{entry.label}: takes {' or '.join(map(str, card.channels))} channels, this slice has {channels}"
    try:
        restorer = Restorer(card, entry.options, device, "fp32", entry.checkpoint, warm_up=False)
        truth = task.ground_truth(batch).to(device) if card.control else None
        measurement = batch.measurement.to(device)
        return attribute(Explained(restorer, measurement, region, truth, entry.label), measurement.y, path, told)
    except MrbenchError as error:
        return str(error)


def _write(stem: Path, picture: Picture, found: list[Attribution], failed: dict[str, str]) -> list[Path]:
    from mrbench.store.attributions import write_attributions

    if not found:
        return []
    from mrbench.report.attribution_figures import attribution_figure
    from mrbench.report.figures import save

    return [*save(attribution_figure(picture, found), stem), *write_attributions(stem, picture, found, failed)]


def _report(notes: list[str], entries: list[Entry], task: Task, picture: Picture, found: list[Attribution]) -> None:
    from mrbench.data.redistribution import notice

    own = notice(task.choice.card)
    warn([*notes, *(n for e in entries for n in e.notes), *([own] if own and found else [])])
    warn(
        f"{a.label}: its attributions miss {a.completeness_error:.0%} of the change that they should sum to; use more --steps"
        for a in found
        if a.completeness_error > COMPLETE
    )


def _print(picture: Picture, found: list[Attribution], failed: dict[str, str], written: list[Path], as_json: bool) -> None:
    from mrbench.report.text import NOT_AVAILABLE, number
    from mrbench.store.attributions import attributions_document

    if as_json:
        print_json({**attributions_document(picture, found, failed), "files": [str(p) for p in written]})
        return
    if not found:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for head in ("DI", "LR pixels", "completeness"):
        table.add_column(head, justify="right")
    for a in found:
        di, error = a.diffusion_index, a.completeness_error
        cells = [
            a.label,
            number(di, 2) if di == di else NOT_AVAILABLE,
            f"{a.involved}/{a.map.size}",
            f"{error:.1%}" if error == error else NOT_AVAILABLE,
        ]
        table.add_row(*map(Text, cells))
    console = stdout()
    console.print(table)
    r = picture.region
    console.print(
        Text(
            f"{picture.item_id} ({picture.protocol}), rows {r.top} to {r.bottom - 1}, columns {r.left} to {r.right - 1}. DI: 100 (1 - Gini of the "
            "absolute attributions of all LR pixels); completeness: what the sum of attributions misses."
        )
    )
    console.print(Text("written: " + ", ".join(map(str, written))), soft_wrap=True)
