"""``mrbench data check`` and ``mrbench data preview``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import JsonOption, PluginOption, SetOption, plugin_warnings, print_json, registry, stdout, warn
from mrbench.cli.data_common import bad_documents, counts_document, opened, print_counts, some, unusable, volumes_bar

if TYPE_CHECKING:
    from mrbench.data.records import Dataset, VolumeRef
    from mrbench.report.data_figures import SheetRow
    from mrbench.settings import Plane

NameArgument = Annotated[str, typer.Argument(metavar="[ALIAS=]NAME", help="A data set, or the name that it was added under.")]


def check(
    name: NameArgument,
    settings: SetOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every volume of a data set, and say what cannot be used.

    Exit code 0: all files can be used; 1: some cannot; 2: something was asked for wrongly.
    """
    from rich.text import Text

    from mrbench.data.places import protocol_filters
    from mrbench.data.survey import check_splits, read_all, survey

    reg = registry(plugin)
    ((alias, card, dataset),) = opened([name], settings, reg)
    found = survey(dataset)
    shared = check_splits(alias, dataset, found.refs)
    with volumes_bar(f"reading {alias}") as progress:
        found = read_all(dataset, found, progress)
    filters = protocol_filters(dataset, found.refs)
    if as_json:
        print_json(
            {
                "alias": alias, "dataset": card.name, "status": "unusable files" if found.bad else "ok",
                "counts": counts_document(found), "expected": card.expected, "warnings": [*found.warnings, *filter(None, [shared])],
                "filters": filters, "unusable": bad_documents(found.bad),
            }
        )  # fmt: skip
    else:
        warn([*plugin_warnings(reg), *found.warnings, *filter(None, [shared]), *some(filters), *unusable(found.bad, None)])
        print_counts(found, card)
        many = f"{len(found.bad)} file{'s' if len(found.bad) > 1 else ''} cannot be used (see above)"
        stdout().print(Text(f"{alias}: {many if found.bad else 'every file can be used'}"), soft_wrap=True)
    if found.bad:
        raise typer.Exit(1)


def preview(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.png", help="The picture to write.")],
    subjects: Annotated[int, typer.Option("--subjects", min=1, max=60, help="Rows: subjects, spread over all.")] = 8,
    slices: Annotated[int, typer.Option("--slices", min=1, max=12, help="Slices of each, spread over its volume.")] = 6,
    split: Annotated[str, typer.Option("--split", help="train, val, test or all.")] = "all",
    plane: Annotated[str, typer.Option("--plane", help="native, axial, coronal or sagittal.")] = "native",
    settings: SetOption = None,
    plugin: PluginOption = None,
) -> None:
    """Write a contact sheet: a row a subject with its ids and voxel sizes, the foreground outlined.

    Slices are shown as they are measured: brain volumes with the face up and the patient's left on the right of the picture.
    """
    from typing import get_args

    import mrbench.settings
    from mrbench.data.redistribution import notice
    from mrbench.data.splits import SPLITS
    from mrbench.data.survey import survey
    from mrbench.errors import DataError, UserError
    from mrbench.report.data_figures import contact_sheet

    planes: tuple[Plane, ...] = get_args(mrbench.settings.Plane)
    chosen_plane = next((p for p in planes if p == plane), None)
    if chosen_plane is None:
        raise UserError(f"--plane {plane}: unknown. Known: {', '.join(planes)}.")
    if split not in (*SPLITS, "all"):
        raise UserError(f"--split {split}: unknown. Known: {', '.join(SPLITS)}, all.")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: pictures are written as PNG. Name a file that ends in .png.")
    reg = registry(plugin)
    ((alias, card, dataset),) = opened([name], settings, reg)
    found = survey(dataset)
    refs = _spread([r for r in found.refs if split in ("all", r.split)], subjects)
    rows, problems = [], []
    with volumes_bar(f"reading {alias}") as progress:
        for done, ref in enumerate(refs):
            progress(done, len(refs), f"{ref.subject}/{ref.volume}")
            try:
                rows.append(_row(dataset, ref, slices, chosen_plane))
            except DataError as error:
                problems.append(str(error))
        progress(len(refs), len(refs), "")
    if not rows:
        raise UserError(f"{alias}: nothing to show (split {split}).\n  " + "\n  ".join(problems[:3]))
    own = notice(card)
    counts = found.counts()["all"]
    title = f"{alias}: {len(rows)} of {counts.subjects} subjects" + (f", {split}" if split != "all" else "")
    contact_sheet(rows, title, f"{card.licence or 'no licence stated'}{'; ' + own if own else ''}", out)
    warn([*plugin_warnings(reg), *found.warnings, *problems, *filter(None, [own])])
    typer.echo(f"{out}: {len(rows)} subjects")


def _spread(refs: list[VolumeRef], most: int) -> list[VolumeRef]:
    """The first volume of each subject; of many subjects some, evenly spread."""
    first: dict[str, VolumeRef] = {}
    for ref in refs:
        first.setdefault(ref.subject, ref)
    found = list(first.values())
    if len(found) <= most:
        return found
    return [found[round(i * (len(found) - 1) / max(most - 1, 1))] for i in range(most)]


def _row(dataset: Dataset, ref: VolumeRef, slices: int, plane: Plane) -> SheetRow:
    from mrbench.data.audit import PREPARATION, aspect_of, magnitude, prepared_volume
    from mrbench.report.data_figures import SheetRow

    volume, prepared = prepared_volume(dataset, ref, PREPARATION.model_copy(update={"plane": plane}))
    count = prepared.hr.shape[0]
    positions = list(prepared.positions) or list(range(count))
    chosen = sorted({positions[round(i * (len(positions) - 1) / max(slices - 1, 1))] for i in range(slices)})
    labels = list(reversed(ref.slices)) if prepared.display.flips[0] else list(ref.slices)
    labels = labels if len(labels) == count else [f"{p:03d}" for p in range(count)]
    sizes = " x ".join("?" if side != side else f"{side:.3g}" for side in prepared.voxel)
    plane_name = prepared.display.plane or "as stored"
    lines = (
        ref.subject,
        ref.volume,
        f"{ref.split}, {plane_name} {prepared.display.axcodes}".strip(),
        f"{count} slices of {prepared.hr.shape[2]} x {prepared.hr.shape[3]}",
        f"voxels {sizes} mm",
        f"1 = {prepared.intensity.offset + prepared.intensity.scale:.4g} {volume.units}",
        f"{len(prepared.positions)} slices with foreground",
    )
    return SheetRow(
        lines,
        tuple(magnitude(prepared.hr[p]) for p in chosen),
        tuple(prepared.mask[p] for p in chosen),
        tuple(f"slice {labels[p]}" for p in chosen),
        aspect_of(prepared.voxel),
    )
