"""BibTeX: the entries that belong to cards (``bib/*.bib``), reading, checking and writing them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from mrbench.report.tex import SPECIALS
from mrbench.report.text import clean

CARDS = "cards"  # the field that names cards; not printed
KINDS = {"article", "inproceedings", "misc"}
_START = re.compile(r"@\s*(\w+)\s*\{\s*([^\s,{}]+)\s*,")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")
_NAME = re.compile(r"\s*([A-Za-z]+)\s*=\s*\{")


class BadBibTeX(ValueError):
    """A text that is no BibTeX."""


@dataclass(frozen=True)
class Reference:
    """One entry. ``fields`` hold BibTeX, not plain text; ``cards``: the cards that it belongs to, as ``method.NAME``."""

    kind: str
    key: str
    fields: Mapping[str, str] = field(default_factory=dict)
    cards: tuple[str, ...] = ()

    def bibtex(self) -> str:
        """The entry as BibTeX."""
        lines = [f"  {name} = {{{value}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"]) + "\n"


def known_references() -> list[Reference]:
    """All entries that ship with mrbench, in the order of the files."""
    folder = files("mrbench.report").joinpath("bib")
    found = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".bib"):
            found += parse_bibtex(entry.read_text(encoding="utf-8"))
    return found


def parse_bibtex(text: str) -> list[Reference]:
    """The entries of a text; values stand in braces. Text between entries is comment.

    Raises
    ------
    BadBibTeX : braces that do not match, values without braces, fields or keys that come twice, bad keys.
    """
    found: list[Reference] = []
    position = 0
    while (at := text.find("@", position)) >= 0:
        start = _START.match(text, at)
        if start is None:
            raise BadBibTeX(f"no entry begins at {text[at : at + 30]!r}")
        kind, key = start.group(1).lower(), start.group(2)
        if not _KEY.fullmatch(key) or any(r.key == key for r in found):
            raise BadBibTeX(f"the key {key!r} is bad or comes twice")
        fields, position = _fields(text, start.end(), key)
        cards = tuple(fields.pop(CARDS, "").split())
        found.append(Reference(kind, key, fields, cards))
    return found


def _fields(text: str, position: int, key: str) -> tuple[dict[str, str], int]:
    """``name = {value},`` up to the closing brace of the entry, and where that is."""
    fields: dict[str, str] = {}
    while True:
        rest = re.compile(r"\s*\}").match(text, position)
        if rest is not None:
            return fields, rest.end()
        name = _NAME.match(text, position)
        if name is None:
            raise BadBibTeX(f"{key}: expected NAME = {{VALUE}}, found {text[position : position + 30]!r}")
        value, position = _braced(text, name.end(), key)
        field_name = name.group(1).lower()
        if field_name in fields:
            raise BadBibTeX(f"{key}: {field_name} comes twice")
        fields[field_name] = " ".join(value.split())
        comma = re.compile(r"\s*,").match(text, position)
        position = comma.end() if comma is not None else position


def _braced(text: str, position: int, key: str) -> tuple[str, int]:
    """The text up to the brace that closes the one before ``position``, and the place behind it.

    As in BibTeX, a backslash does not hide a brace.
    """
    depth, at = 1, position
    while at < len(text):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[position:at], at + 1
        at += 1
    raise BadBibTeX(f"{key}: a brace is not closed")


def escape(text: object) -> str:
    """Plain text as a BibTeX value: one line, nothing in it is a command."""
    return "".join(SPECIALS.get(c, c) for c in clean(text))


def free_key(name: str, taken: Iterable[str]) -> str:
    """A key made of a card's name that nobody has."""
    stem = re.sub(r"[^A-Za-z0-9_.:-]", "_", name) or "entry"
    stem = stem if stem[0].isalpha() else f"x{stem}"
    used, number = set(taken), 2
    if stem not in used:
        return stem
    while f"{stem}_{number}" in used:
        number += 1
    return f"{stem}_{number}"


__all__ = ["KINDS", "BadBibTeX", "Reference", "escape", "free_key", "known_references", "parse_bibtex"]
