"""The characters that LaTeX takes for commands, in a spelling that BibTeX reads as well."""

from __future__ import annotations

# Commands stand inside braces: BibTeX then changes the case of none of them, and a blank behind one is kept. ``\{`` would not do:
# BibTeX counts braces with no regard to backslashes.
SPECIALS = {
    "\\": r"{\textbackslash}",
    "{": r"{\textbraceleft}",
    "}": r"{\textbraceright}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"{\textasciicircum}",
    "~": r"{\textasciitilde}",
    "<": r"{\textless}",
    ">": r"{\textgreater}",
    "|": r"{\textbar}",
    '"': r"{\textquotedbl}",
}
"""Needs fontenc with T1 and textcomp."""
