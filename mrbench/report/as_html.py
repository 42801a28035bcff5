"""Boards as one self-contained HTML page: no scripts, no requests, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as _escape

from mrbench.report.sheet import HasSheet, Sheet, SheetCell, SheetColumn, SheetRow
from mrbench.report.text import clean

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --dim: #666; --banner: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --dim: #aaa; --banner: #f2b8b5; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 90rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .75rem 0; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
thead .text { font-weight: bold; }
thead .group { text-align: center; border-bottom: 1px solid var(--line); }
thead small { color: var(--dim); font-weight: normal; display: block; }
tbody tr:nth-child(even) { background: var(--soft); }
tbody th, .text { text-align: left; font-weight: normal; }
tbody th { max-width: 22rem; white-space: normal; overflow-wrap: break-word; }
tbody.controls { border-top: 2px solid var(--line); font-style: italic; }
.sd { color: var(--dim); } .best { font-weight: bold; } .second { text-decoration: underline; }
.na { color: var(--dim); } sup { font-size: .75em; line-height: 0; }
.banner { border: 2px solid var(--banner); color: var(--banner); padding: .5rem 1rem; font-weight: bold; }
.warning { border-left: 4px solid var(--banner); padding-left: .75rem; }
.notes, dl { color: var(--dim); font-size: .87rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dd { margin: 0; font-family: monospace; }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def escape(text: str) -> str:
    """``text`` as literal HTML, also inside attributes."""
    return _escape(clean(text), quote=True)


def render(boards: Sequence[HasSheet], title: str = "Leaderboard") -> str:
    """One page with all boards."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(title)}</h1>",
        *[section(b) for b in boards],
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(parts)


def section(board: HasSheet) -> str:
    """One board as a ``<section>``."""
    sheet = board.sheet()
    lines = ["<section>", f"<h2>{escape(sheet.title)}</h2>"]
    if sheet.banner:
        lines.append(f'<p class="banner">{escape(sheet.banner.capitalize())}</p>')
    lines.append(f"<p>{escape(sheet.size)}</p>")
    lines += [f'<p class="warning">{escape(w)}</p>' for w in sheet.warnings]
    lines += ['<div class="scroll">', "<table>", "<thead>", *_head(sheet), "</thead>"]
    lines += ["<tbody>", *[_row(sheet, r) for r in sheet.rows], "</tbody>"]
    if sheet.controls:
        lines += ['<tbody class="controls">', *[_row(sheet, r) for r in sheet.controls], "</tbody>"]
    lines += ["</table>", "</div>", '<div class="notes">']
    lines += [f"<p>{escape(text)}.</p>" for text in (sheet.legend("bold", "underlined"), *sheet.identity)]
    for notes in (sheet.sentences, sheet.footnotes):
        lines += ["<ul>", *[f"<li>{escape(n)}</li>" for n in notes], "</ul>"] if notes else []
    lines.append("</div>")
    if sheet.signatures:
        lines += ["<dl>", *[f"<dt>{escape(n)}</dt><dd>{escape(s)}</dd>" for n, s in sheet.signatures.items()], "</dl>"]
    return "\n".join([*lines, "</section>"])


def _head(sheet: Sheet) -> list[str]:
    titles = "".join(['<th scope="col" class="text">method</th>', *(_header(c) for c in sheet.columns)])
    if not sheet.groups:
        return [f"<tr>{titles}</tr>"]
    over = ["<td></td>"]
    for group, span in sheet.spans:
        if group < 0:
            over.append(f'<td colspan="{span}"></td>')
        else:
            over.append(f'<th scope="colgroup" class="group" colspan="{span}">{escape(sheet.groups[group])}</th>')
    return [f"<tr>{''.join(over)}</tr>", f"<tr>{titles}</tr>"]


def _header(column: SheetColumn) -> str:
    kind = ' class="text"' if column.left else ""
    hint = f' title="{escape(column.hint)}"' if column.hint else ""
    unit = f"<small>{escape(column.unit)}</small>" if column.unit else ""
    return f'<th scope="col"{kind}{hint}>{escape(column.title)}{unit}</th>'


def _row(sheet: Sheet, row: SheetRow) -> str:
    name = escape(row.name) + (" (control)" if row.control else "")
    cells = [_cell(cell, column) for cell, column in zip(row.cells, sheet.columns, strict=True)]
    return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def _cell(cell: SheetCell, column: SheetColumn) -> str:
    kind = "na" if cell.missing else "text" if column.left else ""
    text = escape(cell.text)
    text = f'<span class="{cell.mark}">{text}</span>' if cell.mark else text
    text += f' <span class="sd">{escape(cell.tail)}</span>' if cell.tail else ""
    text += escape(cell.signs) + (f"<sup>{escape(cell.letters)}</sup>" if cell.letters else "")
    attributes = (f' class="{kind}"' if kind else "") + (f' title="{escape(cell.hint)}"' if cell.hint else "")
    return f"<td{attributes}>{text}</td>"
