"""Boards as one self-contained HTML page: no scripts, no requests, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as _escape

from mrbench.report.board import Board, BoardRow, Cell
from mrbench.report.columns import Column
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
thead small { color: var(--dim); font-weight: normal; display: block; }
tbody tr:nth-child(even) { background: var(--soft); }
tbody th, .text { text-align: left; font-weight: normal; }
tbody th { max-width: 22rem; white-space: normal; overflow-wrap: anywhere; }
tbody.controls { border-top: 2px solid var(--line); font-style: italic; }
.sd { color: var(--dim); } .best { font-weight: bold; } .second { text-decoration: underline; }
.na { color: var(--dim); }
.banner { border: 2px solid var(--banner); color: var(--banner); padding: .5rem 1rem; font-weight: bold; }
.warning { border-left: 4px solid var(--banner); padding-left: .75rem; }
.notes, dl { color: var(--dim); font-size: .87rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dd { margin: 0; font-family: monospace; }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def escape(text: str) -> str:
    """``text`` as literal HTML, also inside attributes."""
    return _escape(clean(text), quote=True)


def render(boards: Sequence[Board], title: str = "Leaderboard") -> str:
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


def section(board: Board) -> str:
    """One board as a ``<section>``."""
    lines = ["<section>", f"<h2>{escape(board.title)}</h2>"]
    if board.banner:
        lines.append(f'<p class="banner">{escape(board.banner.capitalize())}</p>')
    lines.append(f"<p>{escape(board.size_text)}</p>")
    lines += [f'<p class="warning">{escape(w)}</p>' for w in board.warnings]
    lines += ['<div class="scroll">', "<table>", "<thead>", f"<tr>{''.join(_header(board))}</tr>", "</thead>"]
    lines += ["<tbody>", *[_row(board, r) for r in board.rows], "</tbody>"]
    if board.controls:
        lines += ['<tbody class="controls">', *[_row(board, r) for r in board.controls], "</tbody>"]
    lines += ["</table>", "</div>", '<div class="notes">']
    lines += [f"<p>{escape(board.legend)}.</p>", f"<p>{escape(board.identity)}.</p>"]
    if board.footnotes:
        lines += ["<ul>", *[f"<li>{escape(n)}</li>" for n in board.footnotes], "</ul>"]
    lines.append("</div>")
    if board.signatures:
        lines += ["<dl>", *[f"<dt>{escape(n)}</dt><dd>{escape(s)}</dd>" for n, s in board.signatures.items()], "</dl>"]
    return "\n".join([*lines, "</section>"])


def _header(board: Board) -> list[str]:
    cells = ['<th scope="col" class="text">method</th>', '<th scope="col" class="text">tier</th>']
    cells += ['<th scope="col" class="text" title="how the options came about">track</th>'] if board.show_track else []
    cells += ['<th scope="col">ok</th>'] if board.show_counts else []
    for c in board.columns:
        unit = f"<small>{escape(c.unit)}</small>" if c.unit else ""
        cells.append(f'<th scope="col" title="{escape(c.signature)}">{escape(c.header)} {c.arrow}{unit}</th>')
    cells += ['<th scope="col" title="network calls per slice">NFE</th>'] if board.show_nfe else []
    cells += ['<th scope="col" title="seconds per slice">s/slice</th>'] if board.show_seconds else []
    return cells


def _row(board: Board, row: BoardRow) -> str:
    name = escape(row.name) + (" (control)" if row.control else "")
    cells = [f'<th scope="row">{name}</th>', f'<td class="text">{escape(row.tier)}</td>']
    cells += [f'<td class="text">{escape(row.track_text)}</td>'] if board.show_track else []
    cells += [f"<td>{row.counts_text}</td>"] if board.show_counts else []
    cells += [_cell(row.cells[c.name], c) for c in board.columns]
    cells += [f"<td>{row.nfe_text}</td>"] if board.show_nfe else []
    cells += [f"<td>{row.seconds_text}</td>"] if board.show_seconds else []
    return f"<tr>{''.join(cells)}</tr>"


def _cell(cell: Cell, column: Column) -> str:
    mean, sd = cell.parts(column)
    if cell.aggregate is None:
        return f'<td class="na" title="{escape(cell.reason)}">{mean}</td>'
    text = f'<span class="{cell.mark}">{mean}</span>' if cell.mark else mean
    text += f' <span class="sd">± {sd}</span>' if sd is not None else ""
    return f"<td>{text}{'†' if cell.incomplete else ''}</td>"
