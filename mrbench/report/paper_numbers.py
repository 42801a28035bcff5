"""Numbers that papers print, as data: one CSV file a paper in ``papers/``, and what there is to know about them.

They are shown beside measured ones and never ranked or averaged: other data, slices, ranges and metrics stand behind them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

COLUMNS = (
    "paper", "table", "dataset", "dataset_in_paper", "scale", "method", "method_in_paper", "metric", "value", "sd", "note",
)  # fmt: skip
TITLE = "Published numbers, not measured here and never ranked"
METRICS = {
    "psnr": "PSNR [dB]", "ssim": "SSIM", "gmsd": "GMSD", "lpips": "LPIPS", "lpips_vgg": "LPIPS (VGG)", "nll": "NLL",
    "parameters_millions": "parameters [M]", "seconds": "seconds",
}  # fmt: skip
UNKNOWN = "-"
TEXTS = 4  # columns that hold texts


@dataclass(frozen=True)
class PaperNumber:
    """One printed number. Fields are those of the files (:data:`COLUMNS`); an empty text is not recorded.

    ``dataset`` and ``method`` are names of mrbench, empty where it has none; ``value`` and ``sd`` are digits as printed. ``scale``: 4, or
    3x3x2 for in-plane and through-plane factors.
    """

    paper: str
    table: str
    dataset: str
    dataset_in_paper: str
    scale: str
    method: str
    method_in_paper: str
    metric: str
    value: str
    sd: str
    note: str


@dataclass(frozen=True)
class Paper:
    """What there is to know about a paper's numbers. ``notes``: contradictions within it, and known faults."""

    key: str
    name: str
    about: str
    conventions: str
    reference: str = ""
    protocols: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperRow:
    """The numbers of one method on one data set in one table; ``cells``: metric -> text as printed."""

    paper: str
    table: str
    dataset: str
    dataset_in_paper: str
    scale: str
    method: str
    method_in_paper: str
    cells: dict[str, str] = field(default_factory=dict)
    sd: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def text(self, metric: str) -> str:
        """``0.31 ± 0.16``, or a dash."""
        value = self.cells.get(metric, "")
        return f"{value} ± {self.sd[metric]}" if metric in self.sd else value or UNKNOWN


@dataclass(frozen=True)
class PaperPart:
    """The numbers of one paper: rows on the board's data set first."""

    paper: Paper
    metrics: tuple[str, ...]
    rows: tuple[PaperRow, ...]

    @property
    def title(self) -> str:
        """Name and source."""
        return self.paper.name + (f", {self.paper.reference}" if self.paper.reference else "")

    @property
    def header(self) -> list[str]:
        """Column titles; the first :data:`TEXTS` are texts."""
        return ["method", "data set", "scale", "table", *(METRICS[m] for m in self.metrics)]

    @property
    def body(self) -> list[list[str]]:
        """Cells, row by row; methods with notes end in their numbers."""
        marks = self._marks
        return [
            [
                r.method_in_paper + "".join(f" ({marks[n]})" for n in r.notes),
                r.dataset_in_paper or UNKNOWN,
                r.scale or UNKNOWN,
                r.table or UNKNOWN,
                *(r.text(m) for m in self.metrics),
            ]
            for r in self.rows
        ]

    @property
    def footnotes(self) -> list[str]:
        """Notes of rows, then source, conventions and contradictions of the paper."""
        p = self.paper
        notes = [f"({number}) {note}" for note, number in self._marks.items()]
        notes.append(f"{p.about}. Protocols after it: {', '.join(p.protocols)}.")
        notes.append(f"conventions: {p.conventions}.")
        return [*notes, *p.notes]

    @property
    def _marks(self) -> dict[str, int]:
        return {note: i + 1 for i, note in enumerate(dict.fromkeys(n for r in self.rows for n in r.notes))}


@dataclass(frozen=True)
class PaperTable:
    """The published numbers that belong beside one board, paper by paper."""

    dataset: str
    scale: str
    parts: tuple[PaperPart, ...]

    @property
    def rows(self) -> list[PaperRow]:
        """All rows."""
        return [r for part in self.parts for r in part.rows]

    @property
    def intro(self) -> str:
        """What the reader should know first."""
        if not self.parts:
            return f"No published number at {self.scale}x in-plane is recorded."
        same = any(r.dataset == self.dataset for r in self.rows)
        which = f"those on {self.dataset} first" if same else f"none of them on {self.dataset}"
        return (
            f"At {self.scale}x in-plane, or at a scale that is not recorded; {which}. Subjects, slices, degradation, range and metric "
            "conventions are the papers' own, so differences to measured numbers say nothing about methods."
        )


def load_papers() -> dict[str, Paper]:
    """All papers of whom numbers are recorded, by key."""
    text = _folder().joinpath("papers.yaml").read_text(encoding="utf-8")
    found = {}
    for key, entry in yaml.safe_load(text).items():
        given: dict[str, Any] = {
            **entry,
            "protocols": tuple(entry.get("protocols", ())),
            "notes": tuple(entry.get("notes", ())),
        }
        found[key] = Paper(key=key, **given)
    return found


def load_numbers() -> list[PaperNumber]:
    """All recorded numbers, in the order of the files."""
    found = []
    for key in load_papers():
        text = _folder().joinpath(f"{key}.csv").read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{key}.csv has the columns {reader.fieldnames}, expected {COLUMNS}")
        found += [PaperNumber(**line) for line in reader]
    return found


def _folder() -> Any:
    return files("mrbench.report").joinpath("papers")


def scale_text(factors: Sequence[float]) -> str:
    """A protocol's factors as one in-plane number: ``[4, 4]`` and ``[2, 4, 4]`` give ``"4"``, ``[3, 4]`` gives ``"3x4"``."""
    row, column = factors[-2:]
    return f"{row:g}" if row == column else f"{row:g}x{column:g}"


def paper_table(dataset: str, factors: Sequence[float], numbers: Sequence[PaperNumber] | None = None) -> PaperTable:
    """The published numbers beside a board on ``dataset`` (a registered name) under a protocol with these scale factors."""
    scale = scale_text(factors)
    chosen = [n for n in (load_numbers() if numbers is None else numbers) if _in_plane(n.scale) in ("", scale)]
    groups: dict[tuple[str, ...], list[PaperNumber]] = {}
    for n in chosen:
        groups.setdefault((n.paper, n.table, n.dataset, n.dataset_in_paper, n.scale, n.method, n.method_in_paper), []).append(n)
    rows = [_row(members) for members in groups.values()]
    rows.sort(key=lambda r: r.dataset != dataset)  # stable
    parts = []
    for key, paper in load_papers().items():
        own = tuple(r for r in rows if r.paper == key)
        if own:
            parts.append(PaperPart(paper, tuple(m for m in METRICS if any(m in r.cells for r in own)), own))
    parts.sort(key=lambda part: part.rows[0].dataset != dataset)
    return PaperTable(dataset, scale, tuple(parts))


def _row(members: Sequence[PaperNumber]) -> PaperRow:
    first = members[0]
    notes = tuple(dict.fromkeys(n.note for n in members if n.note))
    cells = {n.metric: n.value for n in members}
    if len(cells) < len(members):  # two numbers of one kind: which is which is not recorded
        cells = {m: " or ".join(n.value for n in members if n.metric == m) for m in cells}
    return PaperRow(
        paper=first.paper,
        table=first.table,
        dataset=first.dataset,
        dataset_in_paper=first.dataset_in_paper,
        scale=first.scale,
        method=first.method,
        method_in_paper=first.method_in_paper,
        cells=cells,
        sd={n.metric: n.sd for n in members if n.sd},
        notes=notes,
    )


def _in_plane(scale: str) -> str:
    """``3x3x2`` is 3 in-plane."""
    parts = scale.split("x")
    return parts[0] if len(parts) == 3 and parts[0] == parts[1] else scale


__all__ = [
    "METRICS", "TEXTS", "TITLE", "Paper", "PaperNumber", "PaperPart", "PaperRow", "PaperTable", "load_numbers", "load_papers",
    "paper_table", "scale_text",
]  # fmt: skip
