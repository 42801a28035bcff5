"""``mrbench stats``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import JsonOption, RunsArgument, local_runs, print_json, split_names, stdout

if TYPE_CHECKING:
    from mrbench.report.statistics import Statistics


class PresetName(StrEnum):
    """Which tests."""

    default = "default"
    res_srdiff = "res_srdiff"
    ablation = "ablation"


class PosthocName(StrEnum):
    """The test of pairs after Friedman's."""

    wilcoxon = "wilcoxon"
    nemenyi = "nemenyi"


class IntervalName(StrEnum):
    """The kind of bootstrap interval."""

    bca = "bca"
    percentile = "percentile"


def stats(
    runs: RunsArgument,
    preset: Annotated[
        PresetName,
        typer.Option(
            "--preset",
            help="default: subject means; res_srdiff: the field's own tests, on slices; ablation: paired tests alone.",
        ),
    ] = PresetName.default,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="A,B", help="Only these columns (default: all that rank).")
    ] = None,
    control: Annotated[
        str | None, typer.Option("--control", metavar="NAME", help="Test every method against this one alone.")
    ] = None,
    posthoc: Annotated[
        PosthocName, typer.Option("--posthoc", help="Tests of pairs: exact signed-rank with Holm, or Nemenyi's.")
    ] = PosthocName.wilcoxon,
    alpha: Annotated[float, typer.Option("--alpha", help="Level of the tests; intervals cover 1 - alpha.")] = 0.05,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC=X",
            help="Test equivalence: differences below X do not matter, e.g. psnr=0.1 (repeatable).",
        ),
    ] = None,
    interval: Annotated[IntervalName, typer.Option("--interval", help="Kind of bootstrap interval.")] = IntervalName.bca,
    resamples: Annotated[int, typer.Option("--resamples", help="Bootstrap resamples.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    intersect: Annotated[
        bool, typer.Option("--intersect", help="Use the items that all runs have, and print how many.")
    ] = False,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Also write tables, sentences and pictures to this folder."),
    ] = None,
) -> None:
    """Which methods differ, by how much and how surely: tests on subject means, effect sizes, intervals, one sentence each.

    --out writes methods.csv, pairs.csv, sentences.txt and statistics.json, and for every metric a critical-difference diagram
    (cd-METRIC) and a forest plot of the intervals (forest-METRIC), each as PNG and PDF.
    """
    from mrbench.errors import UserError
    from mrbench.report.statistics import build_all_statistics
    from mrbench.stats.presets import Plan
    from mrbench.store.runs import load_runs

    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    plan = Plan(
        preset=preset.value,
        posthoc=posthoc.value,
        control=control or "",
        alpha=alpha,
        interval=interval.value,
        resamples=resamples,
        seed=seed,
    )
    margins = parse_margins(margin or [])
    made = build_all_statistics(
        load_runs(local_runs(runs)), plan, metrics=split_names(metrics), margins=margins, intersect=intersect
    )
    documents = [s.document() for s in made]
    document = documents[0] if len(documents) == 1 else documents
    if out is not None:
        _write(made, document, out)
    if as_json:
        print_json(document)
        return
    from mrbench.report.stats_text import StatisticsView

    for s in made:
        stdout().print(StatisticsView(s))


def parse_margins(texts: Sequence[str]) -> dict[str, float]:
    """``["psnr=0.1"]`` -> ``{"psnr": 0.1}`` (``UserError`` for anything else)."""
    import math

    from mrbench.errors import UserError

    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (name and equals and math.isfinite(value) and value > 0):
            raise UserError(f"--margin {text}: write METRIC=X with a positive number in the metric's unit, e.g. psnr=0.1.")
        found[name.strip()] = value
    return found


def _write(made: Sequence[Statistics], document: object, out: Path) -> None:
    from mrbench.report.figures import save
    from mrbench.report.stats_figures import critical_difference_figure, forest_figure
    from mrbench.report.stats_text import pairs_csv, sentences_text, standings_csv
    from mrbench.store.files import write_json, write_text

    write_text(out / "methods.csv", standings_csv(made))
    write_text(out / "pairs.csv", pairs_csv(made))
    write_text(out / "sentences.txt", sentences_text(made))
    write_json(out / "statistics.json", document)
    names = ["methods.csv", "pairs.csv", "sentences.txt", "statistics.json"]
    for s in made:
        folder = out / s.dataset.replace("/", "-") if len(made) > 1 else out
        for result in s.results:
            for kind, draw in (("cd", critical_difference_figure), ("forest", forest_figure)):
                figure = draw(s, result)
                if figure is not None:
                    png, _ = save(figure, folder / f"{kind}-{result.measure.name.replace('/', '-')}")
                    names.append(f"{png.relative_to(out)} (and .pdf)")
    typer.echo(f"written to {out}: {', '.join(names)}", err=True)
