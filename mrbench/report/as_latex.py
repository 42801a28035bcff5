"""A board as a LaTeX table (booktabs; scaled down where it is wider than the text)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mrbench.report.board import INCOMPLETE, NOT_SHOWN
from mrbench.report.sheet import TICK, HasSheet, Sheet, SheetCell, SheetColumn, SheetRow
from mrbench.report.tex import SPECIALS
from mrbench.report.text import clean, shorten

_LONGEST_NAME = 48
FIT = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
"""Opens a group that is scaled down to the width of the text where it is wider."""
_LONGEST_NOTES = 2500  # characters that a float holds below a table of usual length
_ESCAPES = {
    **SPECIALS,
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
    NOT_SHOWN: r"\ddag{}",
    TICK: r"\checkmark{}",
    "\0": "{}",
}


def escape(text: str) -> str:
    """``text`` as literal LaTeX on one line. Beyond Latin-1, ``?`` stands for what a plain pdflatex has no glyphs for."""
    apart = re.sub("-(?=-)", "-\0", clean(text))  # no ligatures of -- and ---
    return "".join(_ESCAPES.get(c) or (c if ord(c) < 256 else "?") for c in apart)


def render(board: HasSheet) -> str:
    """A ``table`` environment. Needs the packages booktabs, fontenc with T1, textcomp and graphicx; amssymb where there are ticks."""
    sheet = board.sheet()
    align = "l" + "".join("l" if c.left else "c" if _ticks(sheet, i) else "r" for i, c in enumerate(sheet.columns))
    packages = "booktabs,textcomp,graphicx" + (",amssymb" if _has_ticks(sheet) else "")
    lines = [
        rf"% needs \usepackage[T1]{{fontenc}} \usepackage{{{packages}}}",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_caption(sheet)}}}",
    ]
    lines += [FIT, rf"\begin{{tabular}}{{{align}}}", r"\toprule", *_groups(sheet)]
    lines += [_line(["method", *(_header(c) for c in sheet.columns)]), r"\midrule"]
    lines += [_line(_row(r)) for r in sheet.rows]
    if sheet.controls:
        lines += [r"\midrule"] if sheet.rows else []
        lines += [_line(_row(r)) for r in sheet.controls]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    notes = [escape(f"{n}.") for n in (sheet.legend("bold", "underlined"), *sheet.identity)]
    notes += [escape(n) for n in (*sheet.sentences, *sheet.footnotes)]
    notes += [breakable(f"{name}: {signature}") for name, signature in sheet.signatures.items()]
    lines += with_notes(notes)
    lines += [""]
    return "\n".join(lines)


def breakable(text: str) -> str:
    """``text`` escaped, which may go to the next line behind bars and commas as well: signatures have no blanks."""
    return re.sub(rf"({re.escape(SPECIALS['|'])}|,)(?=\S)", r"\1\\allowbreak{}", escape(text))


def with_notes(notes: Sequence[str]) -> list[str]:
    """The end of a ``table`` with escaped notes: in the float, or behind it where it would not fit on a page."""
    told = [rf"{n}\par" for n in notes]
    if sum(map(len, notes)) <= _LONGEST_NOTES:
        opening = [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
        return [*opening, *told, r"\end{minipage}", r"\end{table}"]
    return [r"\end{table}", r"{\footnotesize\raggedright\setlength{\parindent}{0pt}", *told, "}"]


def _caption(sheet: Sheet) -> str:
    text = escape(f"{sheet.title}: {sheet.size}.")
    text += "".join(f" {escape(w)}." for w in sheet.warnings)
    return rf"\textbf{{{escape(sheet.banner.capitalize())}.}} {text}" if sheet.banner else text


def _ticks(sheet: Sheet, column: int) -> bool:
    return any(r.cells[column].text == TICK for r in sheet.all_rows)


def _has_ticks(sheet: Sheet) -> bool:
    return any(_ticks(sheet, i) for i in range(len(sheet.columns)))


def _groups(sheet: Sheet) -> list[str]:
    """Titles over several columns, with a rule below each."""
    if not sheet.groups:
        return []
    cells, rules, at = [""], [], 2
    for group, span in sheet.spans:
        if group < 0:
            cells += [""] * span
        else:
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(shorten(sheet.groups[group], _LONGEST_NAME))}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    return [_line(cells), "".join(rules)]


def _header(column: SheetColumn) -> str:
    return escape(column.title + (f" ({column.unit})" if column.unit else ""))


def _row(row: SheetRow) -> list[str]:
    name = escape(shorten(row.name, _LONGEST_NAME))
    return [rf"\textit{{{name}}} (control)" if row.control else name, *(_cell(c) for c in row.cells)]


def _cell(cell: SheetCell) -> str:
    text = escape(cell.text)
    text = f"${text}$" if re.fullmatch(r"-\d.*", cell.text) else text
    text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[cell.mark]
    text += f" {escape(cell.tail)}" if cell.tail else ""
    return text + escape(cell.signs) + (rf"\textsuperscript{{{escape(cell.letters)}}}" if cell.letters else "")


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
