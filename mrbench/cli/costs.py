"""``mrbench costs``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    from rich.status import Status

    from mrbench.engine.costs import Costs
    from mrbench.engine.entries import Entry, Settings
    from mrbench.engine.task import Batch, Task
    from mrbench.plugins import Registry

DEFAULT_SCALE = 4
ABSENT = "-"
NOTABLE = 0.01  # multiply-adds outside of the only network have a row if they are more than this share


@dataclass
class _Line:
    """One method: its costs, or why there are none."""

    label: str
    method: str
    tier: str = ""
    checkpoint: str = ""
    costs: Costs | None = None
    reason: str = ""


def costs(
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", metavar="[LABEL=]NAME[@CHECKPOINT]", help="A method (repeatable).")
    ] = None,
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", metavar="[ALIAS=]NAME", help="Whose slices are restored.")
    ] = "sample",
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the protocol uniform-xS (default: 4).")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", min=1, help="Slices in a batch, for the throughput.")] = 4,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed restorations, at most; 10 s are enough.")] = 5,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16.")] = "fp32",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what methods cost: parameters, network calls, multiply-adds, and times of one slice alone and in a batch.

    Nothing is stored. Exit code 1: a method has no weights here or failed; 2: something was asked for wrongly.
    """
    from mrbench.errors import UserError

    reg = registry(plugin)
    from mrbench.engine.entries import parse_dataset, parse_settings
    from mrbench.protocol import find_protocol, resolve, uniform_name

    if scale is not None and protocol is not None:
        raise UserError("--scale and --protocol exclude each other: --scale S means --protocol uniform-xS.")
    if not method:
        raise UserError("no method given. Name one with --method, for example --method bicubic (`mrbench methods` lists them).")
    if precision not in ("fp32", "bf16", "fp16"):
        raise UserError(f"--precision {precision}: unknown. Known: fp32, bf16, fp16.")
    given = parse_settings(settings or [])
    rules = find_protocol(protocol if protocol is not None else uniform_name(scale if scale is not None else DEFAULT_SCALE))
    resolve(rules, reg)
    asked = _entries(method, given, reg, rules.in_plane)
    choice = parse_dataset(dataset, given, reg)
    given.refuse_unused()

    from mrbench.engine.costs import measure_costs
    from mrbench.engine.environment import choose_device, describe
    from mrbench.engine.folders import refuse_unfit
    from mrbench.engine.task import open_task
    from mrbench.engine.threads import use_threads

    entries = [e for e, _ in asked if e is not None]
    refuse_unfit(entries, rules)
    chosen = choose_device(device)
    facts = describe(chosen, use_threads(threads), precision)
    with stderr().status("preparing volumes") as status:
        task = open_task(choice, rules, reg)
        slices = task.load(_items(task, batch))
        lines = []
        for entry, line in asked:
            lines.append(line)
            if entry is not None:
                told = partial(_tell, status, line.label)
                measured = partial(measure_costs, tell=told, repeats=repeats)
                _measure(line, entry, task, slices, chosen, precision, measured)

    notes = [*plugin_warnings(reg), *(n for e in entries for n in e.notes)]
    if len(slices.items) < batch:
        notes.append(f"{choice.alias} has {len(slices.items)} slices of one size at most, fewer than --batch {batch}")
    notes += [f"{line.label}: {line.reason}" for line in lines if line.reason]
    for line in lines:
        if line.costs is not None and line.costs.batched.batch < len(slices.items):
            notes.append(
                f"{line.label}: only {line.costs.batched.batch} at a time fit into memory; its batch time is of so many"
            )
    warn(notes)
    if as_json:
        print_json(_document(lines, task, slices, facts))
    else:
        _print(lines, task, slices, facts)
    if any(line.reason for line in lines):
        raise typer.Exit(1)


def _entries(texts: list[str], given: Settings, reg: Registry, scale: float) -> list[tuple[Entry | None, _Line]]:
    """Entries in their order; one whose weights are missing is ``None``, with the reason.

    Raises
    ------
    UserError : as for ``mrbench run``, but for missing weights that nobody named.
    """
    from mrbench.engine.entries import parse_entries
    from mrbench.errors import UserError
    from mrbench.hub import find

    found: list[tuple[Entry | None, _Line]] = []
    for text in texts:
        spec, at, _ = text.partition("@")
        label, equals, name = spec.partition("=")
        name = name if equals else spec
        card = reg.methods.get(name)
        if any(line.label == label for _, line in found):
            raise UserError(
                f"--method {text}: the label {label!r} is used twice. Give each entry its own: --method OTHER={name}."
            )
        try:
            (entry,) = parse_entries([text], given, reg, scale)
        except UserError as error:
            if at:
                raise
            try:
                find(card, "", scale)
            except UserError:
                found.append((None, _Line(label, card.name, card.tier, reason=str(error))))
                continue
            raise
        checkpoint = entry.checkpoint.name if entry.checkpoint else ""
        found.append((entry, _Line(entry.label, card.name, entry.tier, checkpoint)))
    return found


def _tell(status: Status, label: str, text: str) -> None:
    status.update(f"{label}: {text}")


def _items(task: Task, count: int) -> Any:
    """The first slices of one size: of the first size that has enough of them, else of the most frequent one."""
    from mrbench.engine.run import group_by_size

    groups = group_by_size(task.items)
    ids = next((g for g in groups if len(g) >= count), max(groups, key=len))[:count]
    by_id = {i.item_id: i for i in task.items}
    return [by_id[i] for i in ids]


def _measure(
    line: _Line, entry: Entry, task: Task, slices: Batch, device: Any, precision: str, measured: Callable[..., Costs]
) -> None:
    from mrbench.engine.restorer import Restorer
    from mrbench.errors import MrbenchError

    card, channels = entry.card, slices.hr.shape[1]
    if channels not in card.channels:
        takes = " or ".join(map(str, card.channels))
        line.reason = f"takes {takes} channels, these slices have {channels}"
        return
    try:
        restorer = Restorer(card, entry.options, device, precision, entry.checkpoint, warm_up=False)
        truth = task.ground_truth(slices).to(device) if card.control else None
        line.costs = measured(restorer, slices.measurement.to(device), truth)
    except MrbenchError as error:
        line.reason = str(error)
    except Exception as error:  # a plugin may raise anything
        line.reason = f"{type(error).__name__}: {error}"


# -- output --------------------------------------------------------------------------------------------------------
def _document(lines: list[_Line], task: Task, slices: Batch, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": task.choice.alias,
        "protocol": task.protocol.name,
        "protocol_hash": task.protocol.hash,
        "items": [i.item_id for i in slices.items],
        "size": list(slices.measurement.size),
        "environment": facts,
        "methods": [_record(line) for line in lines],
    }


def _record(line: _Line) -> dict[str, Any]:
    found = {"label": line.label, "method": line.method, "tier": line.tier, "checkpoint": line.checkpoint, "error": line.reason}
    c = line.costs
    if c is None:
        return found
    return {
        **found,
        "parameters": c.parameters,
        "nfe": c.nfe,
        "calls": c.calls,
        "macs": c.macs,
        "other_macs": c.other_macs if c.networks else None,
        "networks": [{"name": n.name, "parameters": n.parameters, "calls": n.calls, "macs": n.macs} for n in c.networks],
        "steps": c.steps,
        "step_seconds": c.step_seconds,
        "timings": [
            {"batch": t.batch, "seconds": t.seconds, "slices_per_second": 1 / t.seconds, "repeats": t.repeats}
            for t in dict.fromkeys((c.single, c.batched))
        ],
    }


def _print(lines: list[_Line], task: Task, slices: Batch, facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mrbench.report.text import count

    together = len(slices.items)
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for head in ("parameters", "NFE", "calls", "GMAC", "alone", f"in {together}", "per step"):
        table.add_column(head, justify="right")
    for line in lines:
        for cells in _cells(line):
            table.add_row(*map(Text, cells))
    console = stdout()
    console.print(table)
    height, width = slices.measurement.size
    console.print(
        Text(
            f"One draw of one slice of {height} x {width} ({task.choice.alias}, {task.protocol.name}). NFE: network calls as the method counts "
            "them; calls: those that were made, on tiles and images of all sizes; GMAC: 10^9 multiply-adds of convolutions, matrix products "
            f"and attention. Times are medians per slice, without loading and metrics: one slice alone, {together} at a time, and alone per "
            f"network call (NFE). {facts['device']}, {facts['processor']}, {count(facts['threads'], 'thread')}, {facts['precision']}."
        )
    )


def _cells(line: _Line) -> list[list[str]]:
    """The row of a method, then those of its networks if there are several, and of what is computed outside of them."""
    c = line.costs
    if c is None:
        return [[line.label, *[ABSENT] * 7]]
    rows = [
        [
            line.label,
            *(_millions(c.parameters), _number(c.nfe), _number(c.calls), _giga(c.macs)),
            *(_time(c.single.seconds), _time(c.batched.seconds), _time(c.step_seconds)),
        ]
    ]
    several = len(c.networks) > 1
    for n in c.networks if several else ():
        rows.append([f"  {n.name}", _millions(n.parameters), "", _number(n.calls), _giga(n.macs), "", "", ""])
    if c.networks and c.other_macs and (several or c.other_macs > NOTABLE * sum(n.macs for n in c.networks)):
        rows.append(["  outside of forward passes", "", "", "", _giga(c.other_macs), "", "", ""])
    return rows


def _number(value: int | None) -> str:
    return ABSENT if value is None else str(value)


def _millions(parameters: int | None) -> str:
    from mrbench.report.text import significant

    return ABSENT if parameters is None else f"{significant(parameters / 1e6)} M"


def _giga(macs: int | None) -> str:
    from mrbench.report.text import significant

    return ABSENT if macs is None else significant(macs / 1e9)


def _time(seconds: float | None) -> str:
    from mrbench.report.text import significant

    if seconds is None:
        return ABSENT
    factor, unit = next((f, u) for f, u in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")) if seconds * f >= 1 or u == "µs")
    return f"{significant(seconds * factor)} {unit}"
