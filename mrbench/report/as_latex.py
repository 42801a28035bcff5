"""A board as a LaTeX table (booktabs; scaled to the text width where it is wide)."""

from __future__ import annotations

import re

from mrbench.report.board import INCOMPLETE, Board, BoardRow, Cell
from mrbench.report.columns import Column
from mrbench.report.text import clean, shorten

_LONGEST_NAME = 48
_WIDE = 7  # columns from which the table is scaled to the text width
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": r"{[}",  # never taken for the optional argument of a row end
    "]": r"{]}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "\u00d7": r"$\times$",
    "\u2013": "--",
    "…": r"\ldots{}",
    INCOMPLETE: r"\dag{}",
    "\0": "{}",
}


def escape(text: str) -> str:
    """``text`` as literal LaTeX on one line. Beyond Latin-1, ``?`` stands for what a plain pdflatex has no glyphs for."""
    apart = re.sub("-(?=-)", "-\0", clean(text))  # no ligatures of -- and ---
    return "".join(_ESCAPES.get(c) or (c if ord(c) < 256 else "?") for c in apart)


def render(board: Board) -> str:
    """A ``table`` environment. Needs the packages booktabs, fontenc with T1, textcomp and graphicx."""
    columns = 2 + board.show_track + board.show_counts + len(board.columns) + board.show_nfe + board.show_seconds
    wide = columns >= _WIDE
    align = ("lll" if board.show_track else "ll").ljust(columns, "r")
    lines = [
        r"% needs \usepackage[T1]{fontenc} \usepackage{booktabs,textcomp,graphicx}",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_caption(board)}}}",
    ]
    lines += [r"\resizebox{\textwidth}{!}{%"] if wide else []
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", _line(_header(board)), r"\midrule"]
    lines += [_line(_row(board, r)) for r in board.rows]
    if board.controls:
        lines += [r"\midrule"] if board.rows else []
        lines += [_line(_row(board, r)) for r in board.controls]
    lines += [r"\bottomrule", r"\end{tabular}" + ("}" if wide else "")]
    lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
    notes = [f"{board.legend}.", f"{board.identity}.", *board.footnotes]
    notes += [f"{name}: {signature}" for name, signature in board.signatures.items()]
    lines += [f"{escape(note)}\\par" for note in notes]
    lines += [r"\end{minipage}", r"\end{table}", ""]
    return "\n".join(lines)


def _caption(board: Board) -> str:
    text = escape(f"{board.title}: {board.size_text}.")
    text += "".join(f" {escape(w)}." for w in board.warnings)
    return rf"\textbf{{{escape(board.banner.capitalize())}.}} {text}" if board.banner else text


def _header(board: Board) -> list[str]:
    cells = ["method", "tier"] + (["track"] if board.show_track else []) + (["ok"] if board.show_counts else [])
    for c in board.columns:
        cells.append(escape(f"{c.header} {c.arrow}".strip() + (f" ({c.unit})" if c.unit else "")))
    return cells + (["NFE"] if board.show_nfe else []) + (["s/slice"] if board.show_seconds else [])


def _row(board: Board, row: BoardRow) -> list[str]:
    name = escape(shorten(row.name, _LONGEST_NAME))
    cells = [rf"\textit{{{name}}} (control)" if row.control else name, escape(row.tier)]
    cells += [escape(row.track_text)] if board.show_track else []
    cells += [row.counts_text] if board.show_counts else []
    cells += [_cell(row.cells[c.name], c) for c in board.columns]
    cells += [escape(row.nfe_text)] if board.show_nfe else []
    cells += [escape(row.seconds_text)] if board.show_seconds else []
    return cells


def _cell(cell: Cell, column: Column) -> str:
    mean, sd = cell.parts(column)
    mean = f"${mean}$" if mean.startswith("-") else mean
    mean = {"best": rf"\textbf{{{mean}}}", "second": rf"\underline{{{mean}}}", "": mean}[cell.mark]
    return mean + (rf" $\pm$ {sd}" if sd is not None else "") + (r"\dag{}" if cell.incomplete else "")


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
