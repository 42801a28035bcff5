"""``mrbench data audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import JsonOption, PluginOption, SetOption, plugin_warnings, print_json, registry, stdout, warn
from mrbench.cli.data_common import opened, volumes_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mrbench.data.audit import Audit
    from mrbench.data.near_copies import NearCopy
    from mrbench.data.outliers import Outlier, VolumeLook
    from mrbench.data.records import Dataset
    from mrbench.report.data_figures import Tile

PICTURED = 24  # findings of a kind with pictures
REPORT, DOCUMENT = "audit.md", "audit.json"


def audit(
    names: Annotated[list[str], typer.Argument(metavar="[ALIAS=]NAME...", help="Data sets; several are also compared.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the report (default: audit-NAME).")
    ] = None,
    slices: Annotated[
        int, typer.Option("--slices", min=0, help="Compare at most so many slices of each volume (0: all with foreground).")
    ] = 0,
    settings: SetOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for leaks and oddities: people on two sides, near-copies of slices, turned volumes, strange intensities.

    Writes a report with pictures of the findings. Exit code 1: a person, or a picture, is in two splits or two data sets.
    """
    from rich.text import Text

    from mrbench.data.audit import Audited
    from mrbench.data.audit import audit as run_audit
    from mrbench.data.redistribution import notice
    from mrbench.errors import UserError
    from mrbench.report.audit_text import audit_document, audit_lines, audit_markdown
    from mrbench.store.files import write_json, write_text

    reg = registry(plugin)
    sets = opened(names, settings, reg)
    folder = out if out is not None else Path("audit-" + "-".join(alias for alias, _, _ in sets))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file. Name a folder.")
    with volumes_bar("reading") as progress:
        found = run_audit([Audited(alias, dataset, card.subjects) for alias, card, dataset in sets], slices, progress)
        own = notice([card for _, card, _ in sets])
        pictures = _pictures(found, {alias: dataset for alias, _, dataset in sets}, folder, own)
    document = audit_document(found)
    write_json(folder / DOCUMENT, document)
    write_text(folder / REPORT, audit_markdown(found, pictures))
    warn([*plugin_warnings(reg), *(w for s in found.surveys.values() for w in s.warnings), *found.notes, *filter(None, [own])])
    if as_json:
        print_json({"report": str(folder / REPORT), **document})
    else:
        for line in audit_lines(found):
            stdout().print(Text(line), soft_wrap=True)
        shown = "".join(f", {name}" for name in pictures.values())
        stdout().print(Text(f"report: {folder / REPORT}{shown}"), soft_wrap=True)
    if found.leaks:
        raise typer.Exit(1)


def _pictures(found: Audit, datasets: Mapping[str, Dataset], folder: Path, below: str) -> dict[str, str]:
    """Draw the first findings of each kind: file names by section. Pictures of an earlier report are taken away."""
    from mrbench.data.near_copies import by_volume
    from mrbench.data.outliers import by_volume as outliers_by_volume
    from mrbench.report.data_figures import tiles

    written = {}
    copies, strange = by_volume(found.copies), outliers_by_volume(found.outliers)
    for section, made, total in (
        ("near-copies", _copies(found, copies[:PICTURED], datasets), len(copies)),
        ("outliers", _outliers(found, strange[:PICTURED], datasets), len(strange)),
    ):
        file = folder / f"{section}.png"
        file.unlink(missing_ok=True)
        if made:
            tiles(made, f"{section}: {len(made)} of {total}" if total > len(made) else section, below, file)
            written[section] = file.name
    return written


def _copies(found: Audit, pairs: Sequence[tuple[NearCopy, int]], datasets: Mapping[str, Dataset]) -> list[Tile]:
    from mrbench.report.audit_text import place_text
    from mrbench.report.data_figures import Tile

    made = []
    for pair, count in pairs:
        (one, first), (other, second) = (
            _slice(found, datasets, p.dataset, p.subject, p.volume, p.position) for p in (pair.first, pair.second)
        )
        how = f"{pair.bits} bits, detail {pair.detail:.2f}, in different {pair.sides}"
        more = f"{count} pairs of these volumes" if count > 1 else ""
        lines = (place_text(pair.first), place_text(pair.second), how, more)
        made.append(Tile((one, other), (first, second), tuple(filter(None, lines))))
    return made


def _outliers(found: Audit, groups: Sequence[tuple[VolumeLook, list[Outlier]]], datasets: Mapping[str, Dataset]) -> list[Tile]:
    from mrbench.report.data_figures import Tile

    strange = {(o.look.dataset, o.look.subject, o.look.volume) for o in found.outliers}
    made = []
    for look, listed in groups:
        usual = next(
            (k for k in found.looks if k.dataset == look.dataset and (k.dataset, k.subject, k.volume) not in strange), None
        )
        shown = [_slice(found, datasets, k.dataset, k.subject, k.volume, k.position) for k in (look, usual) if k is not None]
        beside = f"beside it {usual.subject}/{usual.volume}, which is usual" if usual is not None else ""
        lines = (f"{look.dataset}: {look.subject}/{look.volume}", *(f"{o.kind}: {o.reason}" for o in listed), beside)
        made.append(Tile(tuple(i for i, _ in shown), tuple(a for _, a in shown), tuple(filter(None, lines))))
    return made


def _slice(
    found: Audit, datasets: Mapping[str, Dataset], name: str, subject: str, volume: str, position: int
) -> tuple[NDArray[np.float32], float]:
    from mrbench.data.audit import slice_image

    ref = next(r for r in found.surveys[name].refs if (r.subject, r.volume) == (subject, volume))
    return slice_image(datasets[name], ref, position)
