"""A study's results as Markdown, LaTeX, CSV and JSON, all from one object."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report import as_csv, as_latex, as_markdown
from mrbench.report.text import clean
from mrbench.stats.documents import document as test_document
from mrbench.stats.documents import finite, pair_row
from mrbench.stats.results import Interval
from mrbench.study.grids import (
    Cell,
    Grid,
    agreement_grid,
    criterion_grid,
    legend,
    pairs_grid,
    readers_grid,
    scores_grid,
    within_grid,
)
from mrbench.study.readings import Readings
from mrbench.study.results import CriterionResult, StudyResult
from mrbench.study.terminal import StudyView, identity
from mrbench.study.words import agreement_sentence, methods_paragraph, pair_sentence, sentences

FORMATS = ("terminal", "markdown", "latex", "csv", "json")
WIDTH = 120


def render(result: StudyResult, form: str) -> str:
    """The results as text in one of ``FORMATS`` (``UserError`` for another)."""
    if form == "terminal":
        return _terminal(result)
    if form == "markdown":
        return _markdown(result)
    if form == "latex":
        return _latex(result)
    if form == "csv":
        return scores_csv(result)
    if form == "json":
        return json.dumps(document(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    raise UserError(f"no format {form!r}.{did_you_mean(form, FORMATS)} Known: {', '.join(FORMATS)}.")


def document(result: StudyResult) -> dict[str, Any]:
    """As JSON: field names are those of ``mrbench.study.results``, every number finite or null."""
    found = asdict(result)
    for place, criterion in zip(found["criteria"], result.criteria, strict=True):
        place["test"] = test_document(criterion.test)
        for line, pair in zip(place["test"]["pairs"], criterion.test.pairs, strict=True):
            line["sentence"] = pair_sentence(criterion.test, pair)
        place["test"].pop("methods_paragraph")
        place["sentences"] = sentences(result, criterion)
        place["agreement"]["mean_quadratic"] = criterion.agreement.mean_quadratic
    cleaned: dict[str, Any] = finite({**found, "methods_paragraph": methods_paragraph(result)})
    return cleaned


def scores_csv(result: StudyResult) -> str:
    """One line per criterion and method."""
    lines = []
    for found in result.criteria:
        for s in found.scores:
            lines.append(
                {
                    **_task(result),
                    "criterion": found.criterion,
                    "method": s.method,
                    "control": s.control,
                    "mean": s.mean,
                    "sd": s.sd,
                    "n": s.n,
                    "images": found.images,
                    **_ends("percentile", s.percentile),
                    **_ends("bca", s.bca),
                    "unit": result.unit,
                    "group": s.letters,
                    "mark": s.mark,
                    **{f"rated_{v}": n for v, n in enumerate(s.counts, result.scale[0])},
                    **{f"mean of {r.name}": x for r, x in zip(result.readers, s.by_reader, strict=True)},
                }
            )
    return _csv(lines)


def agreement_csv(result: StudyResult) -> str:
    """One line per criterion and measure, between all readers, of every pair, and of readers with themselves."""
    lines = []
    for found in result.criteria:
        a = found.agreement
        for name, agreed in (("ICC(2,1)", a.icc_single), ("ICC(2,k)", a.icc_mean), ("Krippendorff alpha, ordinal", a.alpha)):
            lines.append(_agreed(result, found, name, "all", "", agreed.value, agreed.interval, agreed.n))
        for p in a.pairs:
            who = (p.first, p.second)
            lines.append(
                _agreed(result, found, "kappa, quadratic", *who, p.quadratic.value, p.quadratic.interval, p.quadratic.n)
            )
            lines.append(_agreed(result, found, "kappa, linear", *who, p.linear.value, p.linear.interval, p.linear.n))
            lines.append(_agreed(result, found, "equal", *who, p.exact, None, p.n))
            lines.append(_agreed(result, found, "within one", *who, p.within_one, None, p.n))
        for w in found.within:
            who = (w.reader, w.reader)
            lines.append(
                _agreed(result, found, "kappa, quadratic", *who, w.quadratic.value, w.quadratic.interval, w.quadratic.n)
            )
            lines.append(_agreed(result, found, "equal", *who, w.exact, None, w.n))
            lines.append(_agreed(result, found, "within one", *who, w.within_one, None, w.n))
            lines.append(_agreed(result, found, "mean absolute difference", *who, w.difference, None, w.n))
    return _csv(lines)


def pairs_csv(result: StudyResult) -> str:
    """One line per criterion and comparison, with its sentence."""
    lines = []
    for found in result.criteria:
        for pair in found.test.pairs:
            row = pair_row(found.test, pair)
            row.pop("signature")
            lines.append({**_task(result), **row, "sentence": pair_sentence(found.test, pair)})
    return _csv(lines)


def ratings_csv(readings: Readings) -> str:
    """Every rating that counts, with its method; ``repeat`` 1: of the second showing of an image that came twice."""
    lines: list[dict[str, Any]] = []

    def add(reader: str, item: str, method: str, criterion: str, value: float, repeat: int) -> None:
        if not math.isnan(value):
            subject = readings.subjects[int(readings.subject[readings.items.index(item)])]
            lines.append({"reader": reader, "subject": subject, "item": item, "method": method, "criterion": criterion,
                          "rating": int(value), "repeat": repeat})  # fmt: skip

    for r, reader in enumerate(readings.readers):
        for i, m, c in np.ndindex(readings.values.shape[1:]):
            names = readings.items[i], readings.methods[m], readings.study.criteria[c]
            add(reader.name, *names, float(readings.values[r, i, m, c]), 0)
        for j, (item, method) in enumerate(readings.repeated):
            for c, criterion in enumerate(readings.study.criteria):
                add(reader.name, item, method, criterion, float(readings.repeats[r, j, 1, c]), 1)
    return _csv(lines)


def sentences_text(result: StudyResult) -> str:
    """Every sentence, as text to copy from."""
    parts = [f"{clean(result.title)}: {result.size_text}."]
    parts += [f"{result.banner.capitalize()}."] if result.banner else []
    parts += [f"Warning: {clean(w)}." for w in (*result.warnings, *result.missing)]
    for found in result.criteria:
        parts += ["", *map(clean, sentences(result, found)), *(f"Note: {clean(n)}." for n in found.test.notes)]
    parts += ["", clean(methods_paragraph(result)), "", *(f"{clean(n)}." for n in result.notes)]
    return "\n".join(parts) + "\n"


# -- terminal ----------------------------------------------------------------------------------------------------------
def _terminal(result: StudyResult) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    console.print(StudyView(result))
    return stream.getvalue()


# -- Markdown ----------------------------------------------------------------------------------------------------------
def _markdown(result: StudyResult) -> str:
    e = as_markdown.escape
    lines = [f"### Reader study, {e(result.title)}", ""]
    lines += [f"> **{e(result.banner.capitalize())}.**", ""] if result.banner else []
    lines += [f"{e(result.size_text)}.", ""]
    for warning in (*result.warnings, *result.missing):
        lines += [f"> Warning: {e(warning)}.", ""]
    lines += [*_markdown_grid(scores_grid(result)), "", f"{e(legend(result, 'bold', 'underlined'))}; in brackets "
              f"{100 * result.level:g} % BCa intervals over {result.unit}.", ""]  # fmt: skip
    for grid in (agreement_grid(result), pairs_grid(result), within_grid(result), readers_grid(result)):
        if grid is not None:
            lines += [f"#### {grid.title}", "", *_markdown_grid(grid), ""]
    for found in result.criteria:
        grid = criterion_grid(result, found)
        lines += [f"#### {e(grid.title)}", "", *_markdown_grid(grid), ""]
        told = sentences(result, found)
        told = told[:-1] if found.agreement.pairs else told  # agreement has its tables
        lines += [*(f"- {e(s)}" for s in told), *(f"- Note: {e(n)}." for n in found.test.notes), ""]
    lines += [e(methods_paragraph(result)), "", *(f"- {e(n)}." for n in result.notes), "", f"{e(identity(result))}.", ""]
    return "\n".join(lines)


def _markdown_grid(grid: Grid) -> list[str]:
    def cell(c: Cell) -> str:
        head, tail = as_markdown.escape(c.text[: c.marked]), as_markdown.escape(c.text[c.marked :])
        head = {"best": f"**{head}**", "second": f"<u>{head}</u>", "": head}[c.mark]
        space = " " if c.marked and c.text[c.marked : c.marked + 1] == " " else ""
        text = head + space + tail + (f" <sup>{c.letters}</sup>" if c.letters else "")
        return f"*{text}*" if c.control else text

    align = [":--" if i < grid.left else "--:" for i in range(len(grid.heads))]
    lines = [[as_markdown.escape(h) for h in grid.heads], align, *([cell(c) for c in row] for row in grid.rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


# -- LaTeX -------------------------------------------------------------------------------------------------------------
def _latex(result: StudyResult) -> str:
    lines = [r"% needs \usepackage[T1]{fontenc} \usepackage{booktabs,textcomp,graphicx}"]
    caption = as_latex.escape(
        f"Reader study, {result.title}: {result.size_text}. Mean ± sd"
        + (f" with {100 * result.level:g} % BCa intervals over {result.unit}." if result.criteria[0].scores[0].bca else ".")
    )
    if result.banner:
        caption = rf"\textbf{{{as_latex.escape(result.banner.capitalize())}.}} {caption}"
    notes = [f"{legend(result, 'bold', 'underlined')}.", methods_paragraph(result), *(f"{m}." for m in result.missing)]
    notes += [f"{n}." for n in (*result.warnings, *result.notes)] + [f"{identity(result)}."]
    lines += _latex_grid(scores_grid(result), caption, notes)
    grid = agreement_grid(result)
    if grid is not None:
        told = [agreement_sentence(c.criterion, c.agreement) for c in result.criteria]
        lines += ["", *_latex_grid(grid, as_latex.escape(f"{grid.title}, {result.title}."), told)]
    return "\n".join(lines) + "\n"


def _latex_grid(grid: Grid, caption: str, notes: Sequence[str]) -> list[str]:
    def cell(c: Cell) -> str:
        head, tail = as_latex.escape(c.text[: c.marked]), as_latex.escape(c.text[c.marked :])
        head = {"best": rf"\textbf{{{head}}}", "second": rf"\underline{{{head}}}", "": head}[c.mark]
        space = " " if c.marked and c.text[c.marked : c.marked + 1] == " " else ""
        text = head + space + tail + (rf"\textsuperscript{{{c.letters}}}" if c.letters else "")
        return rf"\textit{{{text}}}" if c.control else text

    lines = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{caption}}}", as_latex.FIT]
    align = "l" * grid.left + "r" * (len(grid.heads) - grid.left)
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [" & ".join(as_latex.escape(h) for h in grid.heads) + r" \\", r"\midrule"]
    lines += [" & ".join(cell(c) for c in row) + r" \\" for row in grid.rows]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    return [*lines, *as_latex.with_notes([as_latex.escape(n) for n in notes])]


# -- CSV ---------------------------------------------------------------------------------------------------------------
def _task(result: StudyResult) -> dict[str, Any]:
    return {
        "study": result.study,
        "dataset": result.dataset,
        "protocol": result.protocol,
        "protocol_hash": result.protocol_hash,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, Any]:
    return {f"{name}_low": interval.low if interval else None, f"{name}_high": interval.high if interval else None}


def _agreed(
    result: StudyResult,
    found: CriterionResult,
    measure: str,
    first: str,
    second: str,
    value: float,
    interval: Interval | None,
    n: int,
) -> dict[str, Any]:
    return {**_task(result), "criterion": found.criterion, "measure": measure, "reader": first, "other": second,
            "value": value, **_ends("bca", interval), "images": n}  # fmt: skip


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(n for line in lines for n in line))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([as_csv.escape(clean(n)) for n in names])
    for line in lines:
        writer.writerow([_plain(line.get(n)) for n in names])
    return stream.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return as_csv.escape(clean(value))
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value
