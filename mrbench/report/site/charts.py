"""Figures of the statistics as SVG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrbench.errors import UserError
from mrbench.report.text import clean, significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mrbench.report.site.tasks import SiteTask
    from mrbench.stats.results import MetricResult

FOLDER = "figures"


@dataclass(frozen=True)
class Chart:
    """A figure: its path in the site, what it shows in words, its size in CSS pixels, its content."""

    path: str
    caption: str
    alt: str
    width: int
    height: int
    data: bytes


def boxplots(task: SiteTask) -> Chart | None:
    """The distribution of every shown metric of draw 1; ``None`` where no column has a finite value."""
    import numpy as np

    from mrbench.report.boxplot import boxplot_figure

    names = [
        c.name for c in task.board.columns if "@" not in c.name and any(np.isfinite(a.values(c.name)).any() for a in task.runs)
    ]
    if not names:
        return None
    runs = [a.run for a in task.runs]
    figure = boxplot_figure(runs, names, intersect=task.comparison.intersect)
    alt = f"Box plots of {', '.join(clean(n) for n in names)}, a box per method and a point per slice. The numbers are in the table."
    return chart(figure, f"{FOLDER}/box-{task.number}.svg", "Distribution over slices, coloured by subject", alt)


def pareto(task: SiteTask, metric: str) -> Chart | None:
    """Quality against time; ``None`` where times cannot be compared or no entry has both numbers."""
    from mrbench.report.pareto import pareto_figure, pareto_points

    try:
        points = pareto_points(task.board, metric)
    except UserError:
        return None
    told = ", ".join(f"{clean(p.name)} {significant(p.seconds)} s and {p.quality:.4g}" for p in points)
    alt = f"Mean {clean(metric)} against seconds per slice: {told}."
    return chart(pareto_figure(task.board, metric), f"{FOLDER}/pareto-{task.number}.svg", "Quality against time", alt)


def of_metric(task: SiteTask, position: int, result: MetricResult) -> Iterator[Chart]:
    """Critical-difference diagram and forest plot of a metric, where there is something to draw."""
    from mrbench.report.stats_figures import critical_difference_figure, forest_figure
    from mrbench.stats.sentences import omnibus_sentence

    assert task.statistics is not None
    title = clean(result.measure.title)
    figure = critical_difference_figure(task.statistics, result)
    if figure is not None:
        ranks = ", ".join(f"{clean(s.method)} {s.mean_rank:.2f}" for s in result.standings)
        groups = [" and ".join(map(clean, g)) for g in result.groups if len(g) > 1]
        alt = f"Critical-difference diagram of {title}. Average ranks: {ranks}. "
        alt += f"Not shown to differ: {'; '.join(groups)}." if groups else "No two methods are joined."
        path = f"{FOLDER}/cd-{task.number}-{position}.svg"
        yield chart(figure, path, f"Critical-difference diagram: {title}", alt)
    figure = forest_figure(task.statistics, result)
    if figure is not None:
        alt = f"Forest plot of {title}: {clean(omnibus_sentence(result))} The numbers are in the table of comparisons."
        path = f"{FOLDER}/forest-{task.number}-{position}.svg"
        yield chart(figure, path, f"Differences with intervals: {title}", alt)


def chart(figure: Figure, path: str, caption: str, alt: str) -> Chart:
    """A figure as SVG with equal bytes for equal figures, without metadata; texts are drawn as shapes."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context({"svg.hashsalt": "mrbench", "svg.fonttype": "path"}), warnings.catch_warnings():
        # names may hold scripts that the font lacks
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing", category=UserWarning)
        figure.savefig(stream, format="svg", metadata=nothing)
    wide, high = figure.get_size_inches()
    return Chart(path, caption, alt, round(96 * wide), round(96 * high), stream.getvalue())
