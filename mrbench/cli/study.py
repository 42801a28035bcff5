"""``mrbench study``: create, serve, analyse."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import JsonOption, print_json, stdout, warn

if TYPE_CHECKING:
    from mrbench.study.readings import Readings
    from mrbench.study.results import StudyResult

app = typer.Typer(
    help="Reader studies: blinded images, a local page on which people rate them, and what the ratings say.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `mrbench study create`.")]


class ModeName(StrEnum):
    """What is on screen at once."""

    single = "single"
    pair = "pair"


class UnitName(StrEnum):
    """What the analysis takes as independent."""

    subjects = "subjects"
    images = "images"


@app.command("create")
def create(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or folders that hold some.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The new study folder.")],
    images: Annotated[
        int, typer.Option("--images", min=1, help="Images of the data set, spread over subjects; every method shows each.")
    ] = 25,
    criteria: Annotated[
        str, typer.Option("--criteria", metavar="A,B", help="What readers judge.")
    ] = "contrast,sharpness,anatomy",
    scale: Annotated[str, typer.Option("--scale", metavar="LOW..HIGH", help="Ratings, one digit each.")] = "1..5",
    anchors: Annotated[
        str, typer.Option("--anchors", metavar="LOW,HIGH", help="What the lowest and the highest rating mean.")
    ] = "poor,excellent",
    mode: Annotated[
        ModeName, typer.Option("--mode", help="single: one image at a time; pair: two methods side by side, each rated.")
    ] = ModeName.single,
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="A,B", help="Only these runs (default: all but controls).")
    ] = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="Rate the ground truth too, blinded like a method. It is never ranked.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Show the ground truth beside every image, named as what it is.")
    ] = False,
    repeats: Annotated[
        int, typer.Option("--repeats", min=0, help="Trials that come twice, for the agreement of readers with themselves.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the choice of images, pairs and repeats.")] = 0,
    intersect: Annotated[
        bool, typer.Option("--intersect", help="Choose among the items that all runs restored, and print how many.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a study from runs with stored images: the same images of every method, under random names.

    Nothing that the page or its files show names a method: which code is which stands in key.json alone.
    """
    from mrbench.store.runs import load_runs
    from mrbench.study.create import Request, create_study, licence_note
    from mrbench.study.plan import parse_anchors, parse_criteria, parse_scale

    request = Request(
        images=images,
        criteria=parse_criteria(criteria),
        scale=parse_scale(scale),
        anchors=parse_anchors(anchors),
        mode=mode.value,
        methods=_names(methods, "--methods"),
        truth=truth,
        reference=reference,
        repeats=repeats,
        seed=seed,
        intersect=intersect,
    )
    made = create_study(load_runs(runs), request, out)
    notes = [*made.notes, *filter(None, [licence_note(made.study)])]
    warn(f"{n}." for n in notes)
    if as_json:
        print_json(
            {
                "folder": str(out),
                "study": made.study.id,
                "methods": [m.label for m in made.key.methods],
                "trials": len(made.study.trials),
                "images": made.study.rated,
                "ratings_per_reader": made.study.expected,
                "redistribution": made.study.redistribution,
                "notes": notes,
            }
        )
        return
    shown = len({s.item for s in made.key.images.values()})
    typer.echo(
        f"{out}: {shown} images x {len(made.key.methods)} methods, {len(made.study.trials)} trials, "
        f"{made.study.expected} ratings per reader.\n"
        f"Next: mrbench study serve {out}   (keep {out / 'key.json'} away from readers)"
    )


@app.command("serve")
def serve(
    folder: FolderArgument,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8765,
    host: Annotated[
        str, typer.Option("--host", help="An address of this machine. Others than loopback need the token in the address.")
    ] = "127.0.0.1",
) -> None:
    """Open a study for readers: a page on this machine, for any number of them, until Ctrl-C.

    Every rating is on the disk before the page calls it saved. Readers may stop at any time and go on by giving their name again.
    """
    from mrbench.study.create import licence_note
    from mrbench.study.server import is_loopback, make_server

    server = make_server(folder, host, port)
    study = server.desk.study
    notes = [licence_note(study)] if licence_note(study) else []
    if not is_loopback(host):
        notes.append(
            f"--host {host}: everyone who can reach this address and knows the token can read the images and rate, and what "
            "they send is not encrypted. The loopback address (the default) is reached from elsewhere through `ssh -L`"
        )
    warn(f"{n}." for n in [*server.desk.warnings(), *notes])
    typer.echo(f"{study.title}: {len(study.trials)} trials. Open {server.url}   (Ctrl-C ends)")
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        typer.echo(f"stopped. All ratings are in {folder / 'ratings'}; the same command goes on.", err=True)
    finally:
        server.server_close()


@app.command("analyse")
def analyse(
    folder: FolderArgument,
    readers: Annotated[
        str | None, typer.Option("--readers", metavar="A,B", help="Only these readers (default: all with ratings).")
    ] = None,
    unit: Annotated[
        UnitName,
        typer.Option("--unit", help="What is resampled and tested; images: takes images of one subject as independent."),
    ] = UnitName.subjects,
    control: Annotated[
        str | None, typer.Option("--control", metavar="NAME", help="Test every method against this one alone.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Test equivalence: differences of mean ratings below this do not matter.")
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Level of the tests; intervals cover 1 - alpha.")] = 0.05,
    resamples: Annotated[int, typer.Option("--resamples", help="Bootstrap resamples.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The study's key, if it is kept elsewhere.")] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="terminal, markdown, latex, csv or json (default: terminal).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Also write tables, ratings and pictures to this folder.")
    ] = None,
) -> None:
    """What the ratings say: means with intervals, agreement between and within readers, paired tests, one sentence each.

    --out writes study.md, study.tex, study.csv, agreement.csv, pairs.csv, ratings.csv, study.json, sentences.txt and the
    figure ratings (PNG and PDF).
    """
    from mrbench.errors import UserError
    from mrbench.stats.presets import Plan
    from mrbench.study.analysis import analyse_study
    from mrbench.study.formats import FORMATS, render
    from mrbench.study.readings import collect

    if format is not None and format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Known: {', '.join(FORMATS)}.")
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    plan = Plan(control=control or "", alpha=alpha, margin=margin, resamples=resamples, seed=seed)
    wanted = _names(readers, "--readers") if readers is not None else None
    readings = collect(folder, key, wanted)
    result = analyse_study(readings, plan, unit.value)
    if out is not None:
        _write(result, readings, out)
    if format in (None, "terminal"):
        from mrbench.study.terminal import StudyView

        stdout().print(StudyView(result))
        return
    text = render(result, format)
    typer.echo(text, nl=not text.endswith("\n"))


def _names(text: str | None, option: str) -> tuple[str, ...]:
    from mrbench.errors import UserError

    if text is None:
        return ()
    found = tuple(dict.fromkeys(" ".join(n.split()) for n in text.split(",") if n.strip()))
    if not found:
        raise UserError(f"{option} is empty. Separate names by commas.")
    return found


def _write(result: StudyResult, readings: Readings, out: Path) -> None:
    from mrbench.report.figures import save
    from mrbench.store.files import write_text
    from mrbench.study.figure import ratings_figure
    from mrbench.study.formats import agreement_csv, pairs_csv, ratings_csv, render, sentences_text

    texts = {
        "study.md": render(result, "markdown"),
        "study.tex": render(result, "latex"),
        "study.csv": render(result, "csv"),
        "study.json": render(result, "json"),
        "agreement.csv": agreement_csv(result),
        "pairs.csv": pairs_csv(result),
        "ratings.csv": ratings_csv(readings),
        "sentences.txt": sentences_text(result),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    save(ratings_figure(result), out / "ratings")
    typer.echo(f"written to {out}: {', '.join(texts)}, ratings.png (and .pdf)", err=True)
