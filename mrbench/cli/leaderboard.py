"""``mrbench leaderboard``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import split_names, stdout


class Over(StrEnum):
    """The unit of mean, sd and n."""

    slices = "slices"
    subjects = "subjects"


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or folders that hold some.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", help="terminal, markdown, latex, html, csv or json (default: by --out's ending, else terminal)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file instead of stdout.")] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="A,B", help="Only these columns (default: all).")] = None,
    over: Annotated[Over, typer.Option("--over", help="Mean and sd over slices, or over subjects' means.")] = Over.slices,
    intersect: Annotated[
        bool, typer.Option("--intersect", help="Use the items that all runs have, and print how many.")
    ] = False,
) -> None:
    """Compare runs in one table: mean ± sd, best bold, second underlined, signatures and protocol hash below."""
    from mrbench.errors import UserError
    from mrbench.report.leaderboard import build_boards
    from mrbench.report.render import FORMATS, format_of, render
    from mrbench.store.runs import load_runs

    if format is None:
        format = format_of(out.name) if out is not None else "terminal"
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Known: {', '.join(FORMATS)}.")
    boards = build_boards(
        load_runs(runs),
        metrics=split_names(metrics),
        over="subjects" if over is Over.subjects else "slices",
        intersect=intersect,
    )
    if out is None and format == "terminal":
        from mrbench.report.as_terminal import BoardView

        for board in boards:
            stdout().print(BoardView(board))
        return
    text = render(boards, format)
    if out is None:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    from mrbench.store.files import write_text

    if out.is_dir():
        raise UserError(f"--out {out}: is a folder. Name a file.")
    write_text(out, text)
    typer.echo(f"written: {out}", err=True)
