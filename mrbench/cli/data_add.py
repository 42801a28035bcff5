"""``mrbench data add`` and ``mrbench data get``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import JsonOption, PluginOption, plugin_warnings, print_json, registry, stdout, warn
from mrbench.cli.data_common import bad_documents, bytes_bar, counts_document, print_counts, some, unusable

if TYPE_CHECKING:
    from mrbench.cards import DatasetCard
    from mrbench.data.survey import Survey, VolumeFacts
    from mrbench.plugins import Registry

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A data set (`mrbench datasets` lists them).")]
AliasOption = Annotated[
    str | None, typer.Option("--as", metavar="ALIAS", help="Remember it under this name (default: the data set's own).")
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Option of the data set, remembered with it (repeatable)."),
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Take a name that stands for another folder.")]


def add(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder that holds its files.")],
    alias: AliasOption = None,
    settings: KeyOption = None,
    replace: ReplaceOption = False,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remember where a data set is, after looking at it: counts by split, one volume read, warnings.

    From then on `--dataset NAME` (or ALIAS) finds it. The files are neither copied nor changed.
    """
    reg = registry(plugin)
    card, label, given = _chosen(reg, name, alias, settings)
    _add(reg, card, label, {**given, card.path_options[0]: str(path)}, replace, as_json)


def get(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the files (default: data/NAME).")
    ] = None,
    alias: AliasOption = None,
    settings: KeyOption = None,
    replace: ReplaceOption = False,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a data set whose licence allows it, and add it; for the others, say how to get them.

    A download that was broken off goes on where it stopped. Exit code 1: there is no automatic download.
    """
    from mrbench.data.missing import missing
    from mrbench.data.places import Place, Places, absolute, fetch
    from mrbench.errors import UserError

    reg = registry(plugin)
    card, label, given = _chosen(reg, name, alias, settings)
    places = Places.from_environment()
    if not card.download:
        place = places.all().get(label)
        folder = place.folder(card) if place is not None and place.dataset == card.name else None
        if folder is not None and folder.is_dir():
            if as_json:
                print_json({"dataset": card.name, "status": "ok", "path": str(folder)})
            else:
                typer.echo(f"{label} is there already: {folder}. `mrbench data check {label}` reads it.")
            return
        if as_json:
            print_json(
                {
                    "dataset": card.name,
                    "status": "by hand",
                    "home": card.home,
                    "licence": card.licence,
                    "steps": list(card.steps),
                }
            )
        else:
            typer.echo(missing(card))
        raise typer.Exit(1)
    target = out if out is not None else Path("data") / label
    if target.exists() and not target.is_dir():
        raise UserError(f"--out {target}: is a file. Name a folder.")
    from mrbench.engine.entries import parse_given

    options = parse_given(card, given, label)
    main = card.path_options[0]
    if not replace:
        places.refuse_taken(Place(label, card.name, {main: absolute(str(target))}), main)
    warn([f"licence of {card.name}: {card.licence}", *([f"please cite: {card.citation}"] if card.citation else [])])
    with bytes_bar(f"downloading {card.name}") as report:
        fetch(card, target, options, report)
    _add(reg, card, label, {**given, card.path_options[0]: str(target)}, replace, as_json)


def _chosen(
    reg: Registry, name: str, alias: str | None, settings: Sequence[str] | None
) -> tuple[DatasetCard, str, dict[str, Any]]:
    """Card, name to remember, and options without the folder."""
    from mrbench.engine.entries import check_label, parse_settings
    from mrbench.errors import UserError

    card = reg.datasets.get(name)
    if not card.path_options:
        raise UserError(f"{name} needs no files: use it as it is, --dataset {name}.")
    label = alias if alias is not None else name
    check_label(label, f"--as {label}")
    if label != name and label in reg.datasets.names():
        raise UserError(f"--as {label}: that is the name of another data set. Choose another.")
    texts = [t if "." in t.partition("=")[0] else f"{label}.{t}" for t in settings or []]
    parsed = parse_settings(texts)
    given = {**parsed.take(name), **parsed.take(label)}
    parsed.refuse_unused()
    if card.path_options[0] in given:
        raise UserError(f"--set {card.path_options[0]}: the folder is the argument PATH. Leave this out.")
    return card, label, given


def _add(reg: Registry, card: DatasetCard, label: str, given: Mapping[str, Any], replace: bool, as_json: bool) -> None:
    from mrbench.data.missing import place_of
    from mrbench.data.places import Place, Places, absolute, open_dataset, protocol_filters
    from mrbench.data.survey import check_splits, read_one, survey
    from mrbench.engine.entries import parse_given
    from mrbench.errors import UserError

    main = card.path_options[0]
    place_of(card, given[main])
    places = Places.from_environment()
    fixed = {k: absolute(str(v)) if k in card.path_options and v else v for k, v in given.items()}
    options = parse_given(card, fixed, label)
    if not replace:
        places.refuse_taken(Place(label, card.name, fixed), main)
    dataset = open_dataset(card, options, label)
    found = survey(dataset)
    shared = check_splits(label, dataset, found.refs)
    if not found.refs:
        reasons = "\n  ".join(unusable(found.bad))
        raise UserError(f"{label}: no volume in {fixed[main]} can be used, so it is not remembered.\n  {reasons}")
    facts = read_one(dataset, sorted(found.refs, key=lambda ref: ref.split != "test"))
    filters = protocol_filters(dataset, found.refs)
    remembered = {k: v for k, v in options.model_dump(mode="json").items() if k in fixed}
    place = places.add(Place(label, card.name, remembered), replace, main)
    warnings = [*plugin_warnings(reg), *found.warnings, *filter(None, [shared]), *some(filters), *unusable(found.bad)]
    if as_json:
        print_json(
            {
                "alias": label, "dataset": card.name, "status": "ok", "path": fixed[main], "options": dict(place.options),
                "added": place.added, "file": str(places.file), "counts": counts_document(found), "expected": card.expected,
                "warnings": [*found.warnings, *filter(None, [shared])], "filters": filters, "unusable": bad_documents(found.bad),
                "example": _facts(facts),
            }
        )  # fmt: skip
        return
    warn(warnings)
    _print(label, card, found, facts, fixed[main], places.file)


def _print(label: str, card: DatasetCard, found: Survey, facts: VolumeFacts, folder: str, file: Path) -> None:
    from rich.text import Text

    what = card.name if label == card.name else f"{label} ({card.name})"
    stdout().print(Text(f"{what}: {folder}, remembered in {file}"), soft_wrap=True)
    print_counts(found, card)
    shape = " x ".join(map(str, facts.shape[1:]))
    channels = {2: ", complex", 3: ", colour"}.get(facts.shape[0], "")
    sizes = (
        "unknown" if any(side != side for side in facts.voxel) else " x ".join(f"{side:.4g}" for side in facts.voxel) + " mm"
    )
    where = f", {facts.plane} slices" if facts.plane else ""
    stdout().print(
        Text(
            f"read {facts.subject}/{facts.volume}: {shape}{channels}, voxels {sizes}{where}, values {facts.low:.4g} to "
            f"{facts.high:.4g} ({facts.units})"
        ),
        soft_wrap=True,
    )
    stdout().print(Text(f"Look at it: mrbench data preview {label} --out {label}.png"), soft_wrap=True)
    splits = found.counts()
    use = (
        f"mrbench run --method bicubic --dataset {label}"
        if "test" in splits
        else f"mrbench train METHOD --dataset {label} --out DIR"
    )
    stdout().print(Text(f"Use it: {use}"), soft_wrap=True)


def _facts(facts: VolumeFacts) -> dict[str, Any]:
    return {
        "subject": facts.subject,
        "volume": facts.volume,
        "shape": list(facts.shape),
        "voxel_mm": [None if side != side else side for side in facts.voxel],
        "plane": facts.plane,
        "axcodes": facts.axcodes,
        "slices": facts.slices,
        "values": [facts.low, facts.high],
        "units": facts.units,
    }
