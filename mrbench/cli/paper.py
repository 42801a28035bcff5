"""``mrbench paper``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import stdout, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mrbench.report.paper_figures import PaperFigure
    from mrbench.report.paper_plans import PaperPlan, PlannedFigure, PlannedTable
    from mrbench.store.runs import RunData

DEFAULT_RUNS = Path("runs")


def paper(
    name: Annotated[str, typer.Argument(metavar="PAPER", help="msp_sr, res_srdiff or scale_cascaded.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUNS...]", help="Run folders, or folders that hold some (default: runs, if it is there)."),
    ] = None,
    table: Annotated[str | None, typer.Option("--table", "-t", metavar="N", help="A table of the paper.")] = None,
    figure: Annotated[str | None, typer.Option("--figure", "-f", metavar="N", help="A figure of the paper.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the commands that make it, and nothing else.")] = False,
    format: Annotated[
        str | None,
        typer.Option("--format", help="Of tables: terminal, markdown, latex, html, csv or json (default: by --out's ending)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the table there; of figures the stem of .png and .pdf."),
    ] = None,
    item: Annotated[str | None, typer.Option("--item", metavar="ID", help="The slice that figures show.")] = None,
    segment: Annotated[
        str | None, typer.Option("--segment", metavar="R0,C0,R1,C1", help="The line of figures that have one.")
    ] = None,
) -> None:
    """Make a table or figure of a paper: the commands first, then what the runs at hand give, with missing cells named.

    The paper's own numbers stand below measured ones, are of other slices and conventions, and rank nothing. Without --table and
    --figure, what is planned is listed.
    """
    from mrbench.errors import UserError
    from mrbench.report.paper_documents import script
    from mrbench.report.paper_plans import load_plan

    planned = load_plan(name)
    if table is not None and figure is not None:
        raise UserError("--table and --figure exclude each other.")
    if table is None and figure is None:
        if runs or plan or out or format:
            raise UserError(f"say which: --table N or --figure N. `mrbench paper {name}` lists what is planned.")
        _list(planned)
        return
    kind, number = ("table", table) if table is not None else ("figure", figure or "")
    part = planned.find("table" if kind == "table" else "figure", number or "")
    if plan:
        typer.echo(script(planned, f"{kind} {number}", part), nl=False)
        return
    places = runs if runs else [DEFAULT_RUNS] if DEFAULT_RUNS.is_dir() else []
    if out is None and format in (None, "terminal"):
        typer.echo(script(planned, f"{kind} {number}", part))
    from mrbench.report.paper_plans import PlannedTable

    if isinstance(part, PlannedTable):
        _table(planned, number or "", part, places, format, out)
    else:
        _figure(planned, number or "", part, places, out, item, segment)


def _list(planned: PaperPlan) -> None:
    from rich.table import Table
    from rich.text import Text

    lines = Table(box=None, pad_edge=False)
    lines.add_column("")
    lines.add_column("title")
    for kind, parts in (("table", planned.tables), ("figure", planned.figures)):
        for number, part in parts.items():
            lines.add_row(Text(f"--{kind} {number}"), Text(part.title))
    stdout().print(Text(planned.name, style="bold"))
    stdout().print(lines)


def _loaded(places: Sequence[Path]) -> list[RunData]:
    """All runs there; none are no mistake, as what is missing is named."""
    from mrbench.errors import UserError
    from mrbench.store.manifest import MANIFEST
    from mrbench.store.runs import load_runs

    found: list[RunData] = []
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: no such file or folder. Give run folders, or a folder that holds some.")
        if place.is_dir() and next(place.rglob(MANIFEST), None) is not None:
            found += [r for r in load_runs([place]) if r.folder.resolve() not in {f.folder.resolve() for f in found}]
    return found


def _table(
    planned: PaperPlan, number: str, part: PlannedTable, places: Sequence[Path], format: str | None, out: Path | None
) -> None:
    from mrbench.errors import UserError
    from mrbench.report.as_terminal import BoardView
    from mrbench.report.paper_cells import build_table
    from mrbench.report.paper_documents import render_table
    from mrbench.report.paper_numbers import load_numbers
    from mrbench.report.render import format_of

    form = format or (format_of(out.name) if out is not None else "terminal")
    view = build_table(planned, number, part, _loaded(places), load_numbers())
    if out is None and form == "terminal":
        stdout().print(BoardView(view))
        return
    text = render_table(view, form)
    if out is None:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder. Name a file.")
    from mrbench.store.files import write_text

    write_text(out, text)
    warn(view.missing)
    typer.echo(f"written: {out}", err=True)


def _figure(
    planned: PaperPlan,
    number: str,
    part: PlannedFigure,
    places: Sequence[Path],
    out: Path | None,
    item: str | None,
    segment: str | None,
) -> None:
    from mrbench.report.paper_figures import attribution_figures, panels_of, uncertainty_figure

    if part.draw == "study":
        _study(planned, number, places)
        return
    made: list[PaperFigure]
    if part.draw == "attribution":
        made = attribution_figures(planned, number, part, places)
    else:
        loaded = _loaded(places)
        made = [uncertainty_figure(planned, number, part, panels_of(part, loaded), item, segment)]
        _notice(loaded)
    from mrbench.report.figures import save

    stem = (
        out.with_suffix("")
        if out is not None and out.suffix in (".png", ".pdf")
        else out or Path(f"{planned.paper}-figure-{number}")
    )
    for i, figure in enumerate(made):
        named = stem if i == 0 else stem.with_name(f"{stem.name}-{i + 1}")
        png, _ = save(figure.figure, named)
        warn(figure.missing)
        stdout().print(f"{png} (and .pdf): {', '.join(figure.items)}", soft_wrap=True, markup=False)


def _notice(runs: Sequence[RunData]) -> None:
    from mrbench.data.redistribution import notice

    warn(filter(None, [notice([r.manifest.dataset for r in runs])] if runs else []))


def _study(planned: PaperPlan, number: str, places: Sequence[Path]) -> None:
    """The readings of every study among the folders."""
    from mrbench.errors import UserError
    from mrbench.stats.presets import Plan
    from mrbench.study.analysis import analyse_study
    from mrbench.study.readings import collect
    from mrbench.study.records import STUDY
    from mrbench.study.terminal import StudyView

    folders = [f.parent for place in places for f in sorted(place.rglob(STUDY))]
    if not folders:
        where = ", ".join(map(str, places)) or "no folder given"
        raise UserError(
            f"{planned.name}, {number}: no study in {where}. `mrbench study create RUNS --out studies` makes one; then give its folder."
        )
    for folder in folders:
        stdout().print(StudyView(analyse_study(collect(folder), Plan(), "images")))
