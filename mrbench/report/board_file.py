"""Board files: a table described once, in YAML, and made again from whatever runs there are.

::

    title: Brain and prostate at 4x
    groups:                       # column groups from the left; without them one for each data set and protocol
      - {title: Brain, dataset: brain, protocol: uniform-x4}
      - {title: Prostate, dataset: prostate, protocol: uniform-x4, metrics: [psnr]}
    metrics: [psnr, ssim, lpips_squeeze]
    methods: [bicubic, edsr, res_srdiff]    # labels: which entries, in which order
    order: given                  # or a column; default: by mean rank, or by the first column
    digits: {ssim: 3}
    labels: {res_srdiff: Res-SRDiff, lpips_squeeze: LPIPS}
    significance: true
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mrbench.errors import UserError
from mrbench.plugins import did_you_mean
from mrbench.report.comparable import names_of
from mrbench.report.summary import Over
from mrbench.report.text import clean, listing
from mrbench.report.view import View, by_task, chosen
from mrbench.report.wide import Group, tasks_of

if TYPE_CHECKING:
    from mrbench.store.runs import RunData

MOST_DIGITS = 10
Name = Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GroupSpec(_Record):
    """A column group: a data set (alias or name) under a protocol (name or hash; needed where there are several)."""

    dataset: Name
    protocol: str = ""
    title: str = ""
    metrics: tuple[Name, ...] | None = None


class BoardFile(_Record):
    """What a board file may say; see the module's text. What it leaves out is as the command line has it."""

    title: str = ""
    groups: tuple[GroupSpec, ...] | None = None
    metrics: tuple[Name, ...] | None = None
    methods: tuple[Name, ...] = ()
    order: str = ""
    digits: dict[str, Annotated[int, Field(ge=0, le=MOST_DIGITS)]] = Field(default_factory=dict)
    labels: dict[str, Name] = Field(default_factory=dict)
    over: Over | None = None
    intersect: bool = False
    overall: bool | None = None
    costs: bool = False
    significance: bool = False
    preset: Literal["default", "res_srdiff", "ablation"] | None = None
    control: str = ""
    ci: bool = False
    ablation: bool = False

    @field_validator("groups", "metrics")
    @classmethod
    def _not_empty(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value == ():
            raise ValueError("is empty: leave it out for all")
        return value

    def view(self, base: View) -> View:
        """``base``, the command line's, with what the file says."""
        metrics = base.metrics if base.metrics is not None else self.metrics
        return replace(
            base,
            metrics=metrics,
            over=self.over or base.over,
            intersect=self.intersect or base.intersect,
            ablation=self.ablation or base.ablation,
            order=self.order,
            digits=self.digits,
            labels=self.labels,
            heading=self.title,
        )

    def chosen(self, runs: Sequence[RunData]) -> list[RunData]:
        """The runs of the file's methods (``UserError`` for names, labels and digits that fit nothing)."""
        found = chosen(runs, self.methods)
        columns = list(dict.fromkeys(c for r in runs for c in (*r.manifest.columns, *r.manifest.unavailable)))
        entries = list(dict.fromkeys(n for group in by_task(found) for n in names_of(group)))
        for key, known in (("digits", columns), ("labels", [*entries, *columns])):
            for name in getattr(self, key):
                if name not in known:
                    what = "column" if key == "digits" else "entry or column"
                    raise UserError(
                        f"{key}: {name!r} is no {what} of these runs.{did_you_mean(name, known)} Known: {listing(known, 40)}."
                    )
        return found

    def arranged(self, runs: Sequence[RunData]) -> list[Group]:
        """The column groups (``UserError`` for one without runs, or with runs of several protocols)."""
        if self.groups is None:
            return tasks_of(runs)
        return [_group(i, spec, runs) for i, spec in enumerate(self.groups, 1)]


def _group(position: int, spec: GroupSpec, runs: Sequence[RunData]) -> Group:
    tasks = by_task(runs)
    fitting = [t for t in tasks if _fits(spec, t[0])]
    known = "; ".join(f"dataset: {_dataset(t[0])}, protocol: {clean(t[0].manifest.protocol.name)}" for t in tasks)
    asked = f"groups, {position}: data set {spec.dataset!r}" + (f" under protocol {spec.protocol!r}" if spec.protocol else "")
    if not fitting:
        names = list(dict.fromkeys(n for t in tasks for n in (t[0].manifest.dataset.alias, t[0].manifest.dataset.name)))
        near = did_you_mean(spec.dataset, names) if spec.dataset not in names else ""
        raise UserError(f"{asked}: none of the runs is on it.{near} The runs have {known or 'nothing'}.")
    if len(fitting) > 1:
        raise UserError(
            f"{asked} means {len(fitting)} tasks: say which, by alias and protocol (name or hash). The runs have {known}."
        )
    title = spec.title or next(g.title for g in tasks_of(runs) if g.runs[0] is fitting[0][0])
    return Group(title, tuple(fitting[0]), spec.metrics)


def _fits(spec: GroupSpec, run: RunData) -> bool:
    m = run.manifest
    named = spec.dataset in (m.dataset.alias, m.dataset.name)
    return named and spec.protocol in ("", m.protocol.name, m.protocol.hash)


def _dataset(run: RunData) -> str:
    info = run.manifest.dataset
    return clean(info.alias if info.alias == info.name else f"{info.alias} ({info.name})")


def read_board_file(path: Path) -> BoardFile:
    """Read a board file.

    Raises
    ------
    UserError : no such file, no YAML, unknown keys (naming the known ones), or values of the wrong kind.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--board {path}: cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError:
        raise UserError(f"--board {path}: is not UTF-8 text.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise UserError(
            f"--board {path}{where}: is no YAML ({getattr(error, 'problem', None) or 'cannot be parsed'})."
        ) from None
    if not isinstance(document, Mapping):
        known = ", ".join(BoardFile.model_fields)
        raise UserError(f"--board {path}: expected keys and values such as `metrics: [psnr]`. Known keys: {known}.")
    try:
        return BoardFile.model_validate(document)
    except ValidationError as error:
        raise UserError(f"--board {path}: " + "; ".join(_problem(e) for e in error.errors()) + ".") from None


def _problem(error: Any) -> str:
    place = [str(p + 1) if isinstance(p, int) else str(p) for p in error["loc"]]
    where = ", ".join(place)
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].lower()} (got {error['input']!r})"
    known = list(GroupSpec.model_fields if place[0] == "groups" and len(place) > 1 else BoardFile.model_fields)
    return f"{where}: unknown key.{did_you_mean(place[-1], known)} Known keys: {', '.join(known)}"
