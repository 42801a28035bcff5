"""``mrbench methods|datasets|metrics|degradations|protocols|plugins``: what exists, without importing any of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import JsonOption, PluginOption, print_json, registry, stdout

if TYPE_CHECKING:
    from mrbench.cards import Card, Options
    from mrbench.plugins import Registry, Shelf

NameArgument = Annotated[str | None, typer.Argument(help="Show everything about this one.")]


def methods(name: NameArgument = None, plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List the methods, or show one with its options."""
    reg = registry(plugin)
    _cards(reg, reg.methods, name, as_json, ("deterministic", "channels", "scales", "tier", "control"))


def datasets(name: NameArgument = None, plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List the data sets, or show one with its options and licence, and the place that `mrbench data add` remembers."""
    from mrbench.data.places import Places, find_dataset

    reg = registry(plugin)
    place: dict[str, Any] = {}
    if name is not None:
        card, found = find_dataset(name, reg, Places.from_environment())
        name = card.name
        place = {"place": dataclasses.asdict(found)} if found is not None else {}
    _cards(reg, reg.datasets, name, as_json, ("licence", "redistribution", "split_rule"), lambda card: place)


def metrics(name: NameArgument = None, plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List the metrics, or show one with its options and signature."""
    reg = registry(plugin)

    def signature(card: Any) -> dict[str, Any]:
        return {"signature": card.signed(card.options())}

    _cards(reg, reg.metrics, name, as_json, ("higher_is_better", "foreground", "min_side"), signature)


def degradations(name: NameArgument = None, plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List the degradations (forward operators), or show one with its options."""
    reg = registry(plugin)
    _cards(reg, reg.degradations, name, as_json, ("version", "ndim", "linear"))


def plugins(name: NameArgument = None, plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List the plugins with their status; a broken one with its reason."""
    from rich.table import Table
    from rich.text import Text

    from mrbench.errors import UserError
    from mrbench.plugins import did_you_mean

    reg = registry(plugin)
    found = [dataclasses.asdict(p) for p in reg.plugins]
    if name is not None:
        found = [p for p in found if p["name"] == name]
        if not found:
            names = [p.name for p in reg.plugins]
            raise UserError(f"no plugin named {name!r}.{did_you_mean(name, names)} Known: {', '.join(names)}.")
    if as_json:
        print_json(found)
    elif name is not None:
        details(found[0])
    else:
        table = Table("plugin", "from", "version", "status", "provides", box=None, pad_edge=False)
        for p in found:
            status = Text(p["status"] if p["status"] == "ok" else f"{p['status']}: {p['reason']}")
            table.add_row(
                Text(p["name"]),
                Text(p["distribution"] or p["origin"]),
                Text(p["version"]),
                status,
                Text(", ".join(p["provides"])),
            )
        stdout().print(table)


def protocols(
    name: Annotated[
        list[str] | None, typer.Argument(metavar="[show] [NAME]", help="Show this protocol (a name, or a YAML file).")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", metavar="[ALIAS=]NAME", help="Also hash the items of a data set.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="TARGET.KEY=VALUE", help="Option of the data set.")
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the protocols, or show one: resolved text, hash and assumptions."""
    from rich.table import Table
    from rich.text import Text

    from mrbench.errors import UserError
    from mrbench.protocol import find_protocol, named_protocols, resolve

    words = [w for i, w in enumerate(name or []) if not (i == 0 and w == "show")]
    reg = registry(plugin)
    if len(words) > 1:
        raise UserError(f"one protocol at a time, got {' '.join(words)}.")
    if not words:
        if dataset is not None or name:
            raise UserError("name a protocol: mrbench protocols show NAME --dataset D.")
        found = [resolve(p, reg) for p in named_protocols().values()]
        documents = [
            {"name": r.name, "status": "ok", "version": r.protocol.version, "hash": r.hash, "summary": r.protocol.summary}
            for r in found
        ]
        if as_json:
            print_json(documents)
            return
        table = Table("protocol", "version", "hash", "summary", box=None, pad_edge=False)
        for d in documents:
            table.add_row(*(Text(str(d[k])) for k in ("name", "version", "hash", "summary")))
        stdout().print(table)
        return
    resolved = resolve(find_protocol(words[0]), reg)
    document = resolved.document()
    if dataset is not None:
        document["task"] = _task(dataset, settings or [], resolved.protocol, reg)
    if as_json:
        print_json([{"status": "ok", **document}])
    else:
        details(document)


def _task(dataset: str, settings: Sequence[str], protocol: Any, reg: Registry) -> dict[str, Any]:
    from mrbench.engine.entries import parse_dataset, parse_settings
    from mrbench.engine.task import open_task

    given = parse_settings(settings)
    choice = parse_dataset(dataset, given, reg)
    given.refuse_unused()
    task = open_task(choice, protocol, reg)
    return {
        "dataset": choice.card.name,
        "dataset_version": choice.card.version,
        "options": task.options,
        "hash": task.hash,
        "items": len(task.items),
        "subjects": task.listing.n_subjects,
        "dropped": len(task.listing.dropped),
        "skipped": len(task.listing.skipped),
        "warnings": list(task.listing.warnings),
    }


def _cards(
    reg: Registry,
    shelf: Shelf[Any],
    name: str | None,
    as_json: bool,
    brief: Sequence[str],
    more: Callable[[Any], Mapping[str, Any]] = lambda card: {},
) -> None:
    """List a shelf or show one card. ``more`` adds fields that are computed from the card."""
    from rich.table import Table
    from rich.text import Text

    if name is not None:
        card = shelf.get(name)
        document = {**describe(card), "plugin": shelf.owner(name), "status": reg.status(shelf, name), **more(card)}
        if as_json:
            print_json([document])
        else:
            details(document)
        return
    cards = [shelf.card(n) for n in shelf.names()]
    if as_json:
        print_json(
            [{**describe(c), "plugin": shelf.owner(c.name), "status": reg.status(shelf, c.name), **more(c)} for c in cards]
        )
        return
    table = Table(shelf.kind, *(b.replace("_", " ") for b in brief), "summary", "status", box=None, pad_edge=False)
    for card in cards:
        cells = [_short(getattr(card, b)) for b in brief]
        table.add_row(*(Text(c) for c in (card.name, *cells, card.summary, reg.status(shelf, card.name))))
    stdout().print(table)
    broken = [p for p in reg.plugins if p.status != "ok"]
    for p in broken:
        stdout().print(Text(f"plugin {p.name} is broken: {p.reason}"), soft_wrap=True)


def describe(card: Card) -> dict[str, Any]:
    """A card as JSON: every field, the implementation as its name, the options with types and defaults."""
    document: dict[str, Any] = {}
    for field in dataclasses.fields(card):
        value = getattr(card, field.name)
        if field.name == "options":
            value = _options(value)
        elif field.name == "checkpoints":
            value = [dataclasses.asdict(c) for c in value]
        elif field.name == "signature":
            continue
        elif callable(value):
            value = f"{value.__module__}:{value.__qualname__}"
        elif isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        document[field.name] = value
    return document


def _options(model: type[Options]) -> dict[str, Any]:
    schema = model.model_json_schema()
    found = {}
    for key, spec in schema.get("properties", {}).items():
        kinds = [s.get("type", "any") for s in spec.get("anyOf", [spec])]
        found[key] = {
            "type": " or ".join(map(str, spec.get("enum", kinds))),
            "default": spec.get("default"),
            "description": spec.get("description", ""),
        }
    return found


def details(document: Mapping[str, Any]) -> None:
    """Print a nested document as readable YAML."""
    import yaml

    shown = {k: v for k, v in document.items() if v not in (None, "", [], {}, ())}
    typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None).rstrip())


def _short(value: Any) -> str:
    if value is None:
        return "any"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
