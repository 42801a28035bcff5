"""``mrbench show``."""

from __future__ import annotations

from typing import Annotated

import typer

from mrbench.cli.common import JsonOption, RunsArgument, local_runs, print_json, stdout


def show(
    runs: RunsArgument,
    metric: Annotated[
        str | None, typer.Option("--metric", help="The column whose worst items are listed (default: the first).")
    ] = None,
    worst: Annotated[int, typer.Option("--worst", min=0, help="How many of them.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show runs: what was run, counts by status with reasons, means, subjects, worst items, manifest (--json)."""
    from mrbench.report.details import DetailsView, details
    from mrbench.report.summary import summary_document
    from mrbench.store.runs import load_runs

    found = [details(r, metric, worst) for r in load_runs(local_runs(runs))]
    if as_json:
        documents = [
            {
                **summary_document(d.run),
                "folder": str(d.run.folder),
                **d.document(),
                "manifest": d.run.manifest.model_dump(mode="json"),
            }
            for d in found
        ]
        print_json({"runs": documents})
        return
    for number, d in enumerate(found):
        if number:
            stdout().rule()
        stdout().print(DetailsView(d))
