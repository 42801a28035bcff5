"""Plans as shell scripts, and tables of papers in every format that boards have."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report import as_csv, as_html, as_latex, as_markdown, as_terminal
from mrbench.report.render import FORMATS
from mrbench.report.text import clean

if TYPE_CHECKING:
    from mrbench.report.paper_cells import PaperTableView
    from mrbench.report.paper_plans import PaperPlan, PlannedFigure, PlannedTable, Step

_COLUMNS = ("row", "group", "metric", "mean", "sd", "n", "cost", "printed", "run", "tier", "signature", "missing")


def script(plan: PaperPlan, what: str, part: PlannedTable | PlannedFigure) -> str:
    """The commands of a table or figure as a shell script; words in capitals are yours to fill in. ``what``: ``table 3``."""
    lines = [f"# {plan.name}, {what}: {part.title}"]
    lines += [f"# needs {clean(n)}" for n in part.needs]
    lines += [f"# {clean(n)}" for n in part.notes]
    for step in part.steps:
        lines += ["", *_step(step)]
    return "\n".join([*lines, ""])


def _step(step: Step) -> list[str]:
    lines = [f"# {clean(step.why)}"] if step.why else []
    if step.file:
        return [*lines, f"cat > {step.file} <<'END'", *step.text.strip("\n").split("\n"), "END"]
    return [*lines, *step.commands()]


def render_table(view: PaperTableView, form: str, width: int = as_terminal.WIDTH) -> str:
    """The table as text in one of the formats of boards.

    Raises
    ------
    UserError : an unknown format, naming the known ones.
    """
    if form == "terminal":
        return as_terminal.render(view, width)
    if form == "markdown":
        return as_markdown.render(view)
    if form == "latex":
        return as_latex.render(view)
    if form == "html":
        return as_html.render([view], view.title)
    if form == "csv":
        return _csv(view)
    if form == "json":
        return json.dumps(view.document(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    raise UserError(f"no table format {form!r}.{did_you_mean(form, FORMATS)} Known: {', '.join(FORMATS)}.")


def _csv(view: PaperTableView) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ("paper", "table", *_COLUMNS), restval="", lineterminator="\n")
    writer.writeheader()
    document = view.document()
    for cell in document["cells"]:
        value = cell.get("value", {})
        line = {
            **cell,
            **{k: value.get(k) for k in ("mean", "sd", "n")},
            "paper": document["paper"],
            "table": document["table"],
        }
        kept = {k: line.get(k) for k in ("paper", "table", *_COLUMNS)}
        writer.writerow({k: as_csv.escape(v) if isinstance(v, str) else v for k, v in kept.items() if v is not None})
    return stream.getvalue()


__all__ = ["render_table", "script"]
