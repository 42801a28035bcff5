"""Boards with the published numbers below them, in every format that boards have."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mrbench.report import as_csv, as_html, as_latex, as_markdown
from mrbench.report.paper_numbers import TEXTS, TITLE, PaperPart, PaperRow, PaperTable
from mrbench.report.render import render

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from mrbench.report.board import Board
    from mrbench.report.wide import WideBoard

TIER = "published"


class PaperView:
    """A rich renderable of a paper table."""

    def __init__(self, table: PaperTable) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, table, notes."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = self.table
        yield Text("")
        yield Text(TITLE, style="bold italic")
        yield Text(table.intro)
        for part in table.parts:
            view = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
            for i, name in enumerate(part.header):
                view.add_column(Text(name), justify="left" if i < TEXTS else "right", overflow="fold", no_wrap=i >= TEXTS)
            for cells in part.body:
                view.add_row(*(Text(c) for c in cells), style="italic")
            yield Text("")
            yield Text(part.title, style="italic")
            yield view
            for note in part.footnotes:
                yield Text(f"- {note}", style="dim")


def render_with_papers(boards: Sequence[Board | WideBoard], tables: Sequence[PaperTable], form: str) -> str:
    """The boards as :func:`mrbench.report.render.render` gives them, each with its paper table (``tables`` in the same order).

    CSV: lines with the tier ``published`` and columns of their own (``published_psnr`` ...). JSON: a key ``published``.

    Raises
    ------
    UserError : an unknown format.
    """
    pairs = list(zip(boards, tables, strict=True))
    if form == "csv":
        return _csv(render(boards, form), tables)
    if form == "json":
        return _json(render(boards, form), tables)
    if form == "html":
        return render(boards, form).replace("</body>", "\n".join([*(_html(t) for t in _distinct(tables)), "</body>"]), 1)
    if form == "markdown":
        return "\n".join(render([b], form) + "\n" + markdown(t) for b, t in pairs)
    if form == "latex":
        return "\n".join(render([b], form) + "\n" + latex(t) for b, t in pairs)
    return "\n".join(render([b], form) + _terminal(t) for b, t in pairs)


def markdown(table: PaperTable) -> str:
    """The table as a Markdown section."""
    escape = as_markdown.escape
    lines = [f"#### {TITLE}", "", escape(table.intro), ""]
    for part in table.parts:
        align = [":--" if i < TEXTS else "--:" for i in range(len(part.header))]
        cells = [[escape(c) for c in part.header], align, *([f"*{escape(c)}*" for c in row] for row in part.body)]
        lines += [f"{escape(part.title)}:", "", *(f"| {' | '.join(row)} |" for row in cells), ""]
        lines += [*(f"- {escape(note)}" for note in part.footnotes), ""]
    return "\n".join(lines)


def latex(table: PaperTable) -> str:
    """The table as LaTeX ``table`` environments, one a paper (packages as for boards)."""
    if not table.parts:
        return f"% {as_latex.escape(TITLE)}: {as_latex.escape(table.intro)}\n"
    return "\n".join(_latex(part, table.intro) for part in table.parts)


def _latex(part: PaperPart, intro: str) -> str:
    escape = as_latex.escape
    lines = [
        r"\begin{table}[htbp]", r"\centering",
        rf"\caption{{\textbf{{{escape(TITLE)}: {escape(part.title)}.}} {escape(intro)}}}", as_latex.FIT,
        rf"\begin{{tabular}}{{{'l' * TEXTS + 'r' * len(part.metrics)}}}", r"\toprule", " & ".join(map(escape, part.header)) + r" \\",
        r"\midrule", *(" & ".join(rf"\textit{{{escape(c)}}}" for c in row) + r" \\" for row in part.body),
        r"\bottomrule", r"\end{tabular}}", *as_latex.with_notes([escape(note) for note in part.footnotes]), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _html(table: PaperTable) -> str:
    escape = as_html.escape
    lines = ['<section class="published">', f"<h2>{escape(TITLE)}</h2>", f"<p>{escape(table.intro)}</p>"]
    for part in table.parts:
        head = "".join(f'<th scope="col"{_text(i)}>{escape(c)}</th>' for i, c in enumerate(part.header))
        lines += [
            f"<h3>{escape(part.title)}</h3>",
            '<div class="scroll">',
            "<table>",
            "<thead>",
            f"<tr>{head}</tr>",
            "</thead>",
        ]
        lines += ['<tbody class="controls">']
        lines += [f"<tr>{''.join(f'<td{_text(i)}>{escape(c)}</td>' for i, c in enumerate(row))}</tr>" for row in part.body]
        notes = "".join(f"<li>{escape(n)}</li>" for n in part.footnotes)
        lines += ["</tbody>", "</table>", "</div>", f'<div class="notes"><ul>{notes}</ul></div>']
    return "\n".join([*lines, "</section>"])


def _text(column: int) -> str:
    return ' class="text"' if column < TEXTS else ""


def _terminal(table: PaperTable) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=120, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    console.print(PaperView(table))
    return stream.getvalue()


def _csv(text: str, tables: Sequence[PaperTable]) -> str:
    lines: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text)))
    published = {(r.paper, r.table, r.dataset_in_paper, r.scale, r.method_in_paper): r for t in tables for r in t.rows}
    lines += [_csv_line(r) for r in published.values()]
    names = list(dict.fromkeys(n for line in lines for n in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _csv_line(row: PaperRow) -> dict[str, str]:
    line = {
        "dataset": row.dataset, "method": row.method_in_paper, "method_name": row.method, "tier": TIER, "paper": row.paper, "table": row.table,
        "dataset_in_paper": row.dataset_in_paper, "scale": row.scale, "note": "; ".join(row.notes),
    }  # fmt: skip
    line |= {f"published_{m}": value for m, value in row.cells.items()} | {
        f"published_{m}_sd": value for m, value in row.sd.items()
    }
    return {name: as_csv.escape(value) for name, value in line.items()}


def _json(text: str, tables: Sequence[PaperTable]) -> str:
    parsed = json.loads(text)
    documents = parsed if isinstance(parsed, list) else [parsed]
    for document, table in zip(documents, tables, strict=True):
        document["published"] = {
            "ranked": False,
            "rows": [asdict(r) for r in table.rows],
            "papers": [asdict(part.paper) for part in table.parts],
        }
    return (
        json.dumps(documents if isinstance(parsed, list) else documents[0], indent=1, ensure_ascii=False, allow_nan=False)
        + "\n"
    )


def _distinct(tables: Sequence[PaperTable]) -> list[PaperTable]:
    return [t for i, t in enumerate(tables) if t not in tables[:i]]


__all__ = ["PaperView", "latex", "markdown", "render_with_papers"]
