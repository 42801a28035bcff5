"""``mrbench new``: the skeleton of a plugin, to begin from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import JsonOption, PluginOption, plugin_warnings, print_json, registry, warn

if TYPE_CHECKING:
    from mrbench.scaffold import Kind, Made

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What users will type.")]
PackageOption = Annotated[
    bool,
    typer.Option("--package", help="A package that installs, with tests, card, README and CI file. Without it: one file."),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write into.")]

app = typer.Typer(
    help="Write the skeleton of a plugin, to begin from.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """Write the skeleton of a plugin, to begin from: it runs, and passes `mrbench check`. Nothing is overwritten."""


@app.command("method")
def method(
    name: NameArgument,
    package: PackageOption = False,
    out: OutOption = Path(),
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a super-resolution method: a function in one file, or a class with options in a package."""
    _new("method", name, package, out, plugin, as_json)


@app.command("dataset")
def dataset(
    name: NameArgument,
    package: PackageOption = False,
    out: OutOption = Path(),
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a data set that reads files from a folder."""
    _new("dataset", name, package, out, plugin, as_json)


@app.command("metric")
def metric(
    name: NameArgument,
    package: PackageOption = False,
    out: OutOption = Path(),
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a metric with its signature."""
    _new("metric", name, package, out, plugin, as_json)


def _new(kind: Kind, name: str, package: bool, out: Path, plugin: list[Path] | None, as_json: bool) -> None:
    from mrbench.data.places import Places
    from mrbench.scaffold import choose_names, make

    reg = registry(plugin)
    remembered = Places.from_environment().all() if kind == "dataset" else ()
    made = make(choose_names(kind, name, reg, remembered), out, package)
    warn(plugin_warnings(reg))
    if as_json:
        written = [str(f) for f in made.written]
        print_json({"kind": kind, "name": name, "place": str(made.place), "files": written, "next": _next(made, package)})
        return
    for file in made.written:
        typer.echo(file if not package else file.relative_to(made.place.parent))
    typer.echo("It runs as it is. Next:")
    for command in _next(made, package):
        typer.echo(f"  {command}")


def _next(made: Made, package: bool) -> list[str]:
    """Commands to try, as typed in a shell."""
    import shlex

    kind, name = made.names.kind, made.names.name
    place = shlex.quote(_shown(made.place))
    load = "" if package else f" --plugin {place}"
    path = f" --set {name}.path=DIR" if kind == "dataset" else ""
    run = {
        "method": f"--method {name} --method bicubic --dataset sample --scale 4",
        "dataset": f"--method bicubic --dataset {name}{path} --scale 4",
        "metric": f"--method bicubic --dataset sample --scale 4 --metrics psnr,{name}",
    }[kind]
    first = [f"pip install {place if '/' in place else f'./{place}'}"] if package else []
    return [*first, f"mrbench check {kind} {name}{load}{path}", f"mrbench run{load} {run}"]


def _shown(place: Path) -> str:
    """A path as it is typed here."""
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)
