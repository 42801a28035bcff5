"""``mrbench uncertainty``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import JsonOption, print_json, stdout, warn

if TYPE_CHECKING:
    from mrbench.store.runs import RunData


def uncertainty(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with several stored draws per slice.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")],
    item: Annotated[str | None, typer.Option("--item", help="The item to show (default: one with the median score).")] = None,
    segment: Annotated[
        str | None,
        typer.Option(
            "--segment",
            metavar="R0,C0,R1,C1",
            help="Rows and columns of both ends of the line (default: through the most uncertain part).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the uncertainty of a run from its stored draws.

    maps-ITEM: standard deviation and standard deviation / mean beside measurement, mean, ground truth and error.
    segment-ITEM: probability along a segment with the ground truth on top. calibration: reliability diagram, rank histogram and
    sparsification over all slices. Each as PNG and PDF; the numbers in calibration.json.
    """
    from mrbench.data.redistribution import notice
    from mrbench.errors import UserError
    from mrbench.report.figures import save
    from mrbench.report.panel import pick_items
    from mrbench.report.uncertainty_figures import calibration_figure, maps_figure, segment_figure
    from mrbench.report.uncertainty_numbers import calibration_of, item_draws, parse_segment, usual_segment
    from mrbench.store.files import write_json

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    data = _the_run(run)
    found = calibration_of(data)
    chosen = item_draws(data, item if item is not None else pick_items([data], 1)[0])
    shape = chosen.truth.shape[0], chosen.truth.shape[1]
    line = parse_segment(segment, shape) if segment is not None else usual_segment(chosen.deviation, chosen.stored.mask)
    name = "-".join(chosen.item_id.split("/")[1:])
    written = [
        *save(maps_figure(data, chosen, line), out / f"maps-{name}"),
        *save(segment_figure(data, chosen, line), out / f"segment-{name}"),
        *save(calibration_figure(data, found), out / "calibration"),
    ]
    document = {
        "run": data.manifest.run,
        "label": data.label,
        "item": chosen.item_id,
        "segment": [*line.start, *line.end],
        **found.document(),
    }
    write_json(out / "calibration.json", document)
    if as_json:
        print_json({**document, "files": [str(p) for p in written]})
        return
    warn(filter(None, [notice(data.manifest.dataset)]))
    for path in written:
        if path.suffix == ".png":
            stdout().print(f"{path} (and .pdf)", soft_wrap=True, markup=False)


def _the_run(path: Path) -> RunData:
    """The only run below ``path`` that has several draws; a run folder itself, whatever its draws."""
    from mrbench.errors import UserError
    from mrbench.report.text import listing
    from mrbench.store.runs import RunFolder, find_runs, load_run

    folders = find_runs([path])
    several = [f for f in folders if RunFolder(f).manifest().draws > 1] if len(folders) > 1 else folders
    if not several:
        raise UserError(
            f"{path}: none of its {len(folders)} runs has several draws per slice, so there is no uncertainty to show. "
            "Run a stochastic method with --draws 10."
        )
    if len(several) > 1:
        raise UserError(f"{path}: holds several such runs ({listing([f.name for f in several])}). Name one run folder.")
    return load_run(several[0])
