"""``mrbench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import JsonOption, RunsArgument, local_runs, print_json, split_names, stdout
from mrbench.cli.leaderboard import Over
from mrbench.cli.stats import PresetName


def report(
    runs: RunsArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the site; a former site there is replaced.")
    ],
    title: Annotated[str, typer.Option("--title", help="Title of the pages.")] = "MRI super-resolution",
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="A,B", help="Only these columns (default: all).")] = None,
    over: Annotated[Over, typer.Option("--over", help="Mean and sd over slices, or over subjects' means.")] = Over.slices,
    intersect: Annotated[
        bool, typer.Option("--intersect", help="Use the items that all runs have, and print how many.")
    ] = False,
    ci: Annotated[
        bool, typer.Option("--ci", help="Print 95 % bootstrap intervals of the means (subjects resampled) instead of sd.")
    ] = False,
    preset: Annotated[PresetName, typer.Option("--preset", help="Which tests (see `mrbench stats`).")] = PresetName.default,
    control: Annotated[
        str | None, typer.Option("--control", metavar="NAME", help="Test every method against this one alone.")
    ] = None,
    max_size: Annotated[
        float, typer.Option("--max-size", metavar="MB", min=1, help="Size of the whole site; pictures fill what is left.")
    ] = 25,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Show restored images, where the terms of the data set allow it.")
    ] = True,
    private: Annotated[
        bool,
        typer.Option(
            "--private/--no-private",
            help="The pages are for your own eyes: pictures of every data set, and a warning on every page.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a static site: leaderboard, statistics, a browser of items, manifests, downloads. It opens without a server.

    Runs of several data sets or protocols get a section each. Pictures of items appear where restored images are stored
    (`mrbench run --images all`) and the data set may be shown.
    """
    from mrbench.report.site.build import build_site
    from mrbench.report.site.options import MEGABYTE, SiteOptions
    from mrbench.store.runs import load_runs

    names = split_names(metrics)
    options = SiteOptions(
        title=title,
        metrics=tuple(names) if names is not None else None,
        over="subjects" if over is Over.subjects else "slices",
        intersect=intersect,
        ci=ci,
        preset=preset.value,
        control=control or "",
        max_bytes=int(max_size * MEGABYTE),
        pictures=pictures,
        private=private,
    )
    made = build_site(load_runs(local_runs(runs, images=True)), out, options)
    if as_json:
        print_json(
            {
                "out": str(made.out),
                "index": str(made.index),
                "files": made.files,
                "bytes": made.size,
                "items": made.items,
                "items_with_pictures": made.pictured,
                "notes": list(made.notes),
            }
        )
        return
    console = stdout()
    for note in made.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    size = f"{made.size / MEGABYTE:.1f} MB in {made.files} files, pictures of {made.pictured} of {made.items} items"
    console.print(f"{made.index} ({size})", soft_wrap=True, markup=False)
