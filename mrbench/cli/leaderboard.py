"""``mrbench leaderboard``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mrbench.cli.common import RunsArgument, local_runs, split_names, stdout
from mrbench.cli.stats import PresetName

if TYPE_CHECKING:
    from mrbench.report.board import Board
    from mrbench.report.board_file import BoardFile
    from mrbench.report.paper_numbers import PaperTable
    from mrbench.report.view import View
    from mrbench.report.wide import WideBoard
    from mrbench.store.runs import RunData


class Over(StrEnum):
    """The unit of mean, sd and n."""

    slices = "slices"
    subjects = "subjects"


def leaderboard(
    runs: RunsArgument,
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
    significance: Annotated[
        bool,
        typer.Option(
            "--significance", help="Mark what was not shown to differ from the best, letters for groups, tests below."
        ),
    ] = False,
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            metavar="NAME",
            help="Test every entry against this one instead, and print the change to it; implies --significance.",
        ),
    ] = None,
    preset: Annotated[
        PresetName | None,
        typer.Option("--preset", help="The tests, as in `mrbench stats` (default: default; with --ablation: ablation)."),
    ] = None,
    ci: Annotated[
        bool, typer.Option("--ci", help="Print 95 % bootstrap intervals of the means (subjects resampled) instead of sd.")
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="How the weights were trained, as columns of ticks: stages, parts, losses.")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="One table with data sets and protocols (scales) as column groups.")
    ] = False,
    overall: Annotated[
        bool, typer.Option("--overall", help="--wide with mean ranks over the data sets of one protocol.")
    ] = False,
    costs: Annotated[bool, typer.Option("--costs", help="Costs in every column group of a wide table.")] = False,
    board: Annotated[
        Path | None,
        typer.Option("--board", metavar="FILE.yaml", help="Groups, methods, order, digits, labels, title from a file."),
    ] = None,
    pareto: Annotated[
        Path | None, typer.Option("--pareto", metavar="FILE.png", help="Also plot quality against time (.png, .pdf or .svg).")
    ] = None,
    pareto_metric: Annotated[str, typer.Option("--pareto-metric", metavar="COLUMN", help="The quality to plot.")] = "psnr",
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Show the numbers that papers print below each board, marked as such and never ranked."),
    ] = False,
) -> None:
    """Compare runs: mean ± sd, best bold, second underlined, signatures and protocol hash below; one table per data set.

    Several data sets or scales stand in one table with --wide, --overall (with mean ranks) or as a --board file says. A board with
    demonstration weights ranks nothing: it marks no winner, no significance and no ranks.
    """
    from mrbench.errors import UserError
    from mrbench.report.board_file import BoardFile, read_board_file
    from mrbench.report.leaderboard import ROW_COLUMNS
    from mrbench.report.render import FORMATS, format_of, render
    from mrbench.report.view import View
    from mrbench.store.runs import load_runs

    if format is None:
        format = format_of(out.name) if out is not None else "terminal"
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Known: {', '.join(FORMATS)}.")
    file = read_board_file(board) if board is not None else BoardFile()
    names = split_names(metrics)
    view = file.view(
        View(
            metrics=tuple(names) if names is not None else None,
            over="subjects" if over is Over.subjects else "slices",
            intersect=intersect,
            level=0.95 if ci or file.ci else None,
            ablation=ablation,
        )
    )
    tests = preset.value if preset is not None else file.preset or ("ablation" if view.ablation else "default")
    view = _with_tests(view, significance or file.significance, tests, control or file.control)
    if pareto is not None:
        _check_picture(pareto)
    loaded = file.chosen(load_runs(local_runs(runs), ROW_COLUMNS))
    asked = overall or None if file.overall is None else overall or file.overall
    boards = _boards(loaded, view, file, wide or overall or costs, asked, costs or file.costs)
    tables = [_published(b, loaded) for b in boards] if paper else []
    if pareto is not None:
        _plot(boards, pareto_metric, pareto)
    if out is None and format == "terminal":
        from mrbench.report.as_terminal import BoardView
        from mrbench.report.paper_tables import PaperView

        for i, made in enumerate(boards):
            stdout().print(BoardView(made))
            if paper:
                stdout().print(PaperView(tables[i]))
        return
    if paper:
        from mrbench.report.paper_tables import render_with_papers

        text = render_with_papers(boards, tables, format)
    else:
        text = render(boards, format)
    if out is None:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    from mrbench.store.files import write_text

    if out.is_dir():
        raise UserError(f"--out {out}: is a folder. Name a file.")
    write_text(out, text)
    typer.echo(f"written: {out}", err=True)


def _with_tests(view: View, significance: bool, preset: str, control: str) -> View:
    """The view with a plan of tests, where some were asked for."""
    from dataclasses import replace

    if not (significance or control):
        return view
    from mrbench.stats.presets import Plan
    from mrbench.stats.results import Preset

    return replace(view, plan=Plan(preset=cast("Preset", preset), control=control))


def _boards(
    runs: list[RunData], view: View, file: BoardFile, wide: bool, overall: bool | None, costs: bool
) -> list[Board | WideBoard]:
    """One board per data set; or one of several column groups, where these were asked for."""
    from mrbench.report.leaderboard import build_boards
    from mrbench.report.wide import build_wide

    groups = file.arranged(runs)
    several = file.title or file.overall or file.costs
    if runs and (wide or file.groups is not None or (several and len(groups) > 1)):
        return [build_wide(groups, view, overall=overall, costs=costs)]
    return list(build_boards(runs, view=view))


def _check_picture(path: Path) -> None:
    from mrbench.errors import UserError

    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--pareto {path}: name a file that ends in .png, .pdf or .svg.")
    if path.is_dir():
        raise UserError(f"--pareto {path}: is a folder. Name a file.")


def _plot(boards: list[Board | WideBoard], metric: str, out: Path) -> None:
    """One picture per task; where there are several, their number in the name of the file."""
    from mrbench.report.board import Board
    from mrbench.report.figures import save_as
    from mrbench.report.pareto import pareto_figure

    parts = [b for board in boards for b in ([board] if isinstance(board, Board) else board.boards)]
    for number, board in enumerate(parts, 1):
        target = out if len(parts) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        save_as(pareto_figure(board, metric), target)
        typer.echo(f"written: {target} ({board.title})", err=True)


def _published(board: Board | WideBoard, runs: list[RunData]) -> PaperTable:
    """The published numbers beside a board: at the scale of its protocol; of a wide one, with its first data set first.

    Raises
    ------
    UserError : a wide board of several scales.
    """
    from mrbench.errors import UserError
    from mrbench.report.board import Board
    from mrbench.report.paper_numbers import paper_table

    parts = [board] if isinstance(board, Board) else list(board.boards)
    hashes = {b.protocol_hash for b in parts}
    scales = {
        tuple(float(s) for s in r.manifest.protocol.rules["scale"][-2:]) for r in runs if r.manifest.protocol.hash in hashes
    }
    if len(scales) > 1:
        raise UserError(
            "--paper: the column groups have several scales, and published numbers stand beside one. Make a table of each."
        )
    manifest = next(r.manifest for r in runs if r.manifest.protocol.hash == parts[0].protocol_hash)
    return paper_table(parts[0].dataset_name, [float(s) for s in manifest.protocol.rules["scale"]])
