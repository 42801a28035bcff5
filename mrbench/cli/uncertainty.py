"""``mrbench uncertainty``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import JsonOption, print_json, stdout, warn

if TYPE_CHECKING:
    from mrbench.store.runs import RunData


def uncertainty(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders with several stored draws per slice, for instance of several scales."
        ),
    ],
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
    """Draw the uncertainty of a run, or of several, from the stored draws.

    maps-ITEM: standard deviation and standard deviation / mean beside measurement, mean, ground truth and error.
    segment-ITEM: probability along a segment with the ground truth on top. calibration: reliability diagram, rank histogram and
    sparsification over all slices. Each as PNG and PDF; the numbers in calibration.json. Of several runs, each has a folder of its own,
    and scales-ITEM shows their maps of one slice side by side.
    """
    from mrbench.data.redistribution import notice
    from mrbench.errors import UserError
    from mrbench.report.figures import save
    from mrbench.report.panel import pick_items
    from mrbench.report.uncertainty_numbers import item_draws
    from mrbench.report.uncertainty_scales import scales_figure

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    loaded = [_the_run(run) for run in runs]
    chosen_item = item if item is not None else pick_items([loaded[0]], 1)[0]
    documents = [_one(data, out if len(loaded) == 1 else out / data.folder.name, chosen_item, segment) for data in loaded]
    files = [path for _, written in documents for path in written]
    if len(loaded) > 1:
        name = "-".join(chosen_item.split("/")[1:])
        files += save(scales_figure([(data, item_draws(data, chosen_item)) for data in loaded]), out / f"scales-{name}")
    if as_json:
        shown = [{**document, "files": [str(p) for p in written]} for document, written in documents]
        print_json(shown[0] if len(shown) == 1 else {"runs": shown, "files": [str(p) for p in files]})
        return
    warn(dict.fromkeys(filter(None, [notice(data.manifest.dataset) for data in loaded])))
    for path in files:
        if path.suffix == ".png":
            stdout().print(f"{path} (and .pdf)", soft_wrap=True, markup=False)


def _one(data: RunData, out: Path, item_id: str, segment: str | None) -> tuple[dict[str, Any], list[Path]]:
    """Pictures and numbers of one run: the document that is stored, and the files."""
    from mrbench.report.figures import save
    from mrbench.report.uncertainty_figures import calibration_figure, maps_figure, segment_figure
    from mrbench.report.uncertainty_numbers import calibration_of, item_draws, parse_segment, usual_segment
    from mrbench.store.files import write_json

    found = calibration_of(data)
    chosen = item_draws(data, item_id)
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
    return document, written


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
