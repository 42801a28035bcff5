"""``mrbench data``: where data sets are on this machine, whether they are sound, and how they look."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli import data_add, data_audit, data_check
from mrbench.cli.common import JsonOption, PluginOption, plugin_warnings, print_json, registry, stdout, warn

if TYPE_CHECKING:
    from mrbench.cards import DatasetCard
    from mrbench.data.places import Place

app = typer.Typer(
    help="Where data sets are, whether they are sound, and how they look.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Where data sets are, whether they are sound, and how they look."""


@app.command("list")
def list_places(plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List the data sets: those that were added with their folders, and those that have no place yet."""
    from rich.table import Table
    from rich.text import Text

    from mrbench.data.places import Places
    from mrbench.report.text import shorten

    reg = registry(plugin)
    places = Places.from_environment().all()
    cards = {name: reg.datasets.card(name) for name in reg.datasets.names()}
    rows = [_row(place, cards.get(place.dataset)) for place in places.values()]
    placed = {place.dataset for place in places.values()}
    rows += [_bare(card) for name, card in cards.items() if name not in placed]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "data set", "status", "folder", "options", "licence", box=None, pad_edge=False)
    for row in rows:
        options = ", ".join(f"{k}={v}" for k, v in row["options"].items() if v != row["path"])
        cells = (row["alias"], row["dataset"], row["status"], row["path"] or "", options, shorten(row["licence"], 40))
        table.add_row(*map(Text, cells))
    stdout().print(table)
    warn(plugin_warnings(reg))


def _row(place: Place, card: DatasetCard | None) -> dict[str, Any]:
    folder = place.folder(card) if card is not None else None
    status = "plugin not installed" if card is None else "ready" if folder is None or folder.is_dir() else "folder is gone"
    return {
        "alias": place.alias,
        "dataset": place.dataset,
        "status": status,
        "path": str(folder) if folder is not None else None,
        "options": dict(place.options),
        "added": place.added,
        "licence": card.licence if card is not None else "",
        "redistribution": card.redistribution if card is not None else "none",
    }


def _bare(card: DatasetCard) -> dict[str, Any]:
    status = "mrbench data get" if card.download else "mrbench data add"
    return {
        "alias": card.name,
        "dataset": card.name,
        "status": status if card.path_options else "ready",
        "path": None,
        "options": {},
        "added": "",
        "licence": card.licence,
        "redistribution": card.redistribution,
    }


@app.command("info")
def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set, or the name that it was added under.")],
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the card of a data set: licence, terms, how to get it, options; and its place and counts, if it was added."""
    from mrbench.cli.data_common import bad_documents, counts_document
    from mrbench.cli.listing import describe, details
    from mrbench.data.places import Places, find_dataset, open_dataset, options_of
    from mrbench.data.survey import survey
    from mrbench.errors import UserError

    reg = registry(plugin)
    card, place = find_dataset(name, reg, Places.from_environment())
    document: dict[str, Any] = {**describe(card), "plugin": reg.datasets.owner(card.name)}
    document["place"] = dataclasses.asdict(place) if place is not None else None
    if place is not None or not card.path_options:
        try:
            options = card.parse(options_of(card, place, {}), name)
            found = survey(open_dataset(card, options, name))
            document |= {
                "counts": counts_document(found),
                "warnings": list(found.warnings),
                "unusable": bad_documents(found.bad),
            }
        except UserError as error:
            document["problem"] = str(error)
    if as_json:
        print_json([document])
    else:
        details(document)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that it was added under.")], as_json: JsonOption = False
) -> None:
    """Forget where a data set is. Its files stay."""
    from mrbench.data.places import Places

    place = Places.from_environment().remove(name)
    if as_json:
        print_json({"alias": name, "dataset": place.dataset, "status": "forgotten", "options": dict(place.options)})
    else:
        folder = place.options.get("path", "its folder")
        typer.echo(f"{name} is forgotten; the files in {folder} are untouched.")


app.command("add")(data_add.add)
app.command("get")(data_add.get)
app.command("check")(data_check.check)
app.command("preview")(data_check.preview)
app.command("audit")(data_audit.audit)
