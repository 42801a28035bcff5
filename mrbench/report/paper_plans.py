"""Plans: which commands make a table or figure of a paper, and which runs its cells stand for. Data in ``plans/*.yaml``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from mrbench.cards import Options
from mrbench.errors import UserError
from mrbench.plugins import did_you_mean

COSTS = ("parameters", "nfe", "seconds")  # columns that are no metrics
Draw = Literal["segment", "maps", "attribution", "study"]
_PLACE = re.compile(r"\{(\w+)\}")


class Where(Options):
    """Which run a cell stands for; what is left out may be anything.

    data, options : of the data set and of the method that the run must have been given. recipe : of its weights' training (dotted
    names). factors : what its weights' training had (columns of ablations). stages : of its weights' training, all of them. draws : at
    least so many.
    """

    method: str = ""
    dataset: str = ""
    protocol: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    factors: dict[str, bool | str] = Field(default_factory=dict)
    stages: tuple[str, ...] = ()
    draws: int = Field(default=1, ge=1)

    def with_(self, other: Where) -> Where:
        """Both; what ``other`` says wins."""
        merged = {**self.model_dump(exclude_defaults=True), **other.model_dump(exclude_defaults=True)}
        return Where(**merged)


class Printed(Options):
    """Where the paper's own number stands (see ``mrbench.report.paper_numbers``): what is left out is taken from row and column."""

    table: str = ""
    method: str = ""
    dataset: str = ""
    scale: str = ""
    metric: str = ""


class PlannedRow(Options):
    """A row of a table or a panel of a figure. blocked : column group -> why it cannot be had (``all``: all of them)."""

    label: str
    where: Where = Where()
    printed: Printed = Printed()
    blocked: dict[str, str] = Field(default_factory=dict)


class PlannedColumn(Options):
    """A column. metric : a column of rows (``psnr``, ``nll``), or one of ``COSTS``."""

    metric: str
    group: str = ""
    where: Where = Where()
    printed: Printed = Printed()


class Step(Options):
    """One command, or one file to write, with why. ``each``: names in braces take these values, all combinations, a command each."""

    command: str = ""
    file: str = ""
    text: str = ""
    why: str = ""
    each: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.command) == bool(self.file) or bool(self.file) != bool(self.text):
            raise ValueError("a step has a command, or a file with its text")
        places = set(_PLACE.findall(self.command))
        if places != set(self.each):
            raise ValueError(f"names in braces {sorted(places)} and values {sorted(self.each)} differ")
        return self

    def commands(self) -> Iterator[str]:
        """The commands with all values put in; lines are joined."""
        command = " ".join(self.command.split())
        for values in itertools.product(*self.each.values()):
            given = dict(zip(self.each, values, strict=True))
            yield _PLACE.sub(lambda m, given=given: given[m.group(1)], command)  # type: ignore[misc]


class Part(Options):
    """What a table and a figure share. needs : files that nobody may pass on or that nobody can download by a command."""

    title: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if not self.steps:
            raise ValueError("a plan has steps")
        return self


class PlannedTable(Part):
    """A table: rows times columns. draws : how the numbers are told apart from the paper's, see :mod:`.paper_cells`."""

    rows: tuple[PlannedRow, ...] = Field(min_length=1)
    columns: tuple[PlannedColumn, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        labels = [r.label for r in self.rows]
        columns = [(c.group, c.metric) for c in self.columns]
        if len(set(labels)) < len(labels) or len(set(columns)) < len(columns):
            raise ValueError("rows need different labels, columns different groups or metrics")
        groups = {c.group for c in self.columns} | {"all"}
        for row in self.rows:
            if unknown := sorted(set(row.blocked) - groups):
                raise ValueError(f"row {row.label!r} is blocked in {unknown}, which is no column group")
        return self


class PlannedFigure(Part):
    """A figure: panels. draw : segment and maps of uncertainty, attribution, or a reader study (panels are its methods)."""

    draw: Draw
    panels: tuple[PlannedRow, ...] = Field(min_length=1)


class PaperPlan(Options):
    """All that is planned of one paper. Numbers of tables and figures are the paper's, or a word."""

    paper: str
    name: str
    tables: dict[str, PlannedTable]
    figures: dict[str, PlannedFigure] = Field(default_factory=dict)

    def find(self, kind: Literal["table", "figure"], number: str) -> PlannedTable | PlannedFigure:
        """The table or figure of that number.

        Raises
        ------
        UserError : there is no plan for it, naming those that there are.
        """
        known: Mapping[str, PlannedTable | PlannedFigure] = self.tables if kind == "table" else self.figures
        if number not in known:
            all_ = [*(f"--table {n}" for n in self.tables), *(f"--figure {n}" for n in self.figures)]
            raise UserError(
                f"{self.paper} has no plan for {kind} {number}.{did_you_mean(number, known)} Planned: {', '.join(all_)}."
            )
        return known[number]


def plan_names() -> list[str]:
    """Papers with a plan."""
    folder = files("mrbench.report").joinpath("plans")
    return sorted(e.name.removesuffix(".yaml") for e in folder.iterdir() if e.name.endswith(".yaml"))


def load_plan(name: str) -> PaperPlan:
    """The plan of a paper (``UserError`` for an unknown one, naming those that there are)."""
    names = plan_names()
    if name not in names:
        raise UserError(f"no paper {name!r} is planned.{did_you_mean(name, names)} Known: {', '.join(names)}.")
    text = files("mrbench.report").joinpath("plans", f"{name}.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    document.pop("shared", None)  # anchors
    return PaperPlan.model_validate({"paper": name, **document})


__all__ = [
    "COSTS", "PaperPlan", "PlannedColumn", "PlannedFigure", "PlannedRow", "PlannedTable", "Printed", "Step", "Where", "load_plan",
    "plan_names",
]  # fmt: skip
