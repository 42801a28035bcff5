"""Sweeps: all combinations of a file, planned and checked before any work, equal ones once, finished ones not again.

A sweep has no state of its own: what exists is read from the run folders. The same call goes on where a killed one stopped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mrbench.engine.entries import DatasetChoice, Entry, Settings, check_label, parse_dataset, parse_entries
from mrbench.engine.folders import refuse_unfit
from mrbench.engine.run import Runner, RunReport
from mrbench.engine.sweep_file import DEFAULT_SCALE, DEFAULT_WEIGHTS, Filter, MethodSpec, SweepFile
from mrbench.errors import MrbenchError, UserError
from mrbench.plugins import Registry
from mrbench.protocol import Protocol, digest, find_protocol, resolve, uniform_name

LONGEST_LABEL = 80

State = Literal["refused", "same", "finished", "started", "new", "done", "failed"]


# -- what the file asks for ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Variant:
    """A method with weights and options, as the file asks for it. ``given``: one value of each option's grid."""

    place: str  # in the file, as in methods[1]
    method: str
    base: str  # begins the label
    checkpoint: str
    given: Mapping[str, Any]
    label: str = ""

    @property
    def identity(self) -> str:
        """Hash of everything that the file says about it but the label."""
        return digest([self.method, self.checkpoint, dict(self.given)], 6)


@dataclass(frozen=True)
class _Axis:
    """A data set or protocol of the file; ``refusal``: why it cannot be used."""

    place: str
    name: str
    refusal: str = ""
    choice: DatasetChoice | None = None
    rules: Protocol | None = None
    rules_hash: str = ""


@dataclass
class Planned:
    """One combination of a sweep.

    number : its place in the plan, from 1 on; the same on every machine for the same file.
    state : ``refused`` (``reason`` says why), ``same`` (as another one), ``finished`` before, ``started`` before, ``new``; after
        the work ``done`` or ``failed``.
    total, done : items; ``total`` is ``None`` until the data set has been opened. folder : of its rows.
    """

    number: int
    variant: Variant
    dataset: _Axis
    protocol: _Axis
    state: State = "new"
    reason: str = ""
    entry: Entry | None = None
    total: int | None = None
    done: int = 0
    folder: Path | None = None
    runner: Runner | None = None
    report: RunReport | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The label under which its rows are stored."""
        return self.entry.label if self.entry else self.variant.label

    @property
    def open(self) -> bool:
        """Whether there is work to do."""
        return self.state in ("new", "started")

    def refuse(self, reason: str) -> None:
        """Mark it as one that cannot be run."""
        self.state, self.reason = "refused", reason

    def __str__(self) -> str:
        return f"{self.label} on {self.dataset.name} under {self.protocol.name}"


def variants(specs: Sequence[MethodSpec]) -> list[Variant]:
    """The grid of every line of ``methods``, with labels that are unique.

    A label is the line's own (default: the method's name) with the values that vary in it, as in ``dps-zeta0.3``; where two lines
    would share one, with all that was given, and last with a hash.

    Raises
    ------
    UserError : a label that cannot be one.
    """
    short: list[Variant] = []
    long: list[str] = []
    for i, spec in enumerate(specs):
        base = spec.label or spec.name
        if spec.label:
            check_label(spec.label, f"methods[{i}].label")
        checkpoints = list(dict.fromkeys(spec.checkpoints))
        grids = {k: list(v) if isinstance(v, list) else [v] for k, v in spec.options.items()}
        for checkpoint, *values in itertools.product(checkpoints, *grids.values()):
            given = dict(zip(grids, values, strict=True))
            varying = {k: v for k, v in given.items() if len(grids[k]) > 1}
            label = _label(base, checkpoint if len(checkpoints) > 1 else "", varying)
            long.append(_label(base, checkpoint if checkpoint != DEFAULT_WEIGHTS else "", given))
            short.append(Variant(f"methods[{i}]", spec.name, base, checkpoint, given, label))
    for level in ("long", "hash"):
        taken: dict[str, set[str]] = {}
        for v in short:
            taken.setdefault(v.label, set()).add(v.identity)
        for i, v in enumerate(short):
            if len(taken[v.label]) > 1:
                short[i] = replace(v, label=long[i] if level == "long" else f"{v.label}-{v.identity}")
    return short


def _label(base: str, checkpoint: str, given: Mapping[str, Any]) -> str:
    weights = [Path(checkpoint).name.rpartition(".")[0] or Path(checkpoint).name] if checkpoint else []
    parts = [base, *weights, *(f"{key}{_text(value)}" for key, value in given.items())]
    label = re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(parts)).lstrip("_.+-") or "entry"
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 7]}-{digest(label, 6)}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "_".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def plan(spec: SweepFile, registry: Registry) -> list[Planned]:
    """All combinations, in the file's order (data sets, then protocols, then methods); no data set is opened.

    Those that cannot be run have the state ``refused`` and a reason that names the place in the file; those that are equal to an
    earlier one on the same data set under the same protocol have the state ``same``.

    Raises
    ------
    UserError : labels, aliases, protocol names or metrics that cannot be used, or a filter that matches nothing.
    """
    for i, name in enumerate(spec.metrics):
        _at(f"metrics[{i}]", registry.metrics.get, name)
    for name, given in spec.metric_options.items():
        card = _at(f"metric_options.{name}", registry.metrics.get, name)
        _at(f"metric_options.{name}", card.parse, given, name)
    datasets = _datasets(spec, registry)
    protocols = _protocols(spec, registry)
    asked = variants(spec.methods)
    found = [Planned(0, v, d, p) for d in datasets for p in protocols for v in asked]
    kept = _filtered(found, spec)
    entries: dict[tuple[str, str, float], Entry | str] = {}
    first: dict[tuple[str, str, str], Planned] = {}
    for number, planned in enumerate(kept, 1):
        planned.number = number
        _check(planned, registry, entries)
        if planned.entry is None:
            continue
        key = (planned.dataset.name, planned.protocol.name, _identity(planned.entry))
        twin = first.setdefault(key, planned)
        if twin is not planned:
            planned.state, planned.reason = "same", f"equal to {twin.label}"
    return kept


def _identity(entry: Entry) -> str:
    """What an entry brings into the key of a run (see :func:`mrbench.engine.folders.run_key`)."""
    return digest(
        [
            entry.card.name,
            entry.options.model_dump(mode="json"),
            entry.checkpoint.sha256 if entry.checkpoint else "",
            entry.track if entry.tuning else "",
        ]
    )


def _at(place: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """Call something, with the place in the file before its ``UserError``."""
    try:
        return call(*arguments)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _datasets(spec: SweepFile, registry: Registry) -> list[_Axis]:
    found: list[_Axis] = []
    for i, line in enumerate(spec.datasets):
        place, alias = f"datasets[{i}]", line.alias or line.name
        _at(f"{place}.alias", check_label, alias, f"alias {alias}")
        if any(a.name == alias for a in found):
            raise UserError(f"{place}: two data sets are called {alias!r}. Give this one an alias: OTHER={line.name}.")
        try:
            choice = parse_dataset(f"{alias}={line.name}", Settings({alias: dict(line.options)}), registry)
            found.append(_Axis(place, alias, choice=choice))
        except UserError as error:
            found.append(_Axis(place, alias, f"{place}: {error}"))
    return found


def _protocols(spec: SweepFile, registry: Registry) -> list[_Axis]:
    asked: list[tuple[str, str | int]] = [(f"scales[{i}]", scale) for i, scale in enumerate(spec.scales)]
    asked += [(f"protocols[{i}]", name) for i, name in enumerate(spec.protocols)]
    found: dict[str, _Axis] = {}
    for place, name in asked or [("scales", DEFAULT_SCALE)]:
        try:
            rules = find_protocol(uniform_name(name) if isinstance(name, int) else name)
            axis = _Axis(place, rules.name, rules=rules, rules_hash=resolve(rules, registry).hash)
        except UserError as error:
            axis = _Axis(place, f"uniform-x{name}" if isinstance(name, int) else name, f"{place}: {error}")
        twin = found.setdefault(axis.name, axis)
        if twin.rules != axis.rules:
            raise UserError(f"{place}: another protocol is called {axis.name!r} too ({twin.place}). Give one another name.")
    return list(found.values())


def _filtered(found: Sequence[Planned], spec: SweepFile) -> list[Planned]:
    kept = list(found)
    for kind, filters in (("include", spec.include), ("exclude", spec.exclude)):
        for i, one in enumerate(filters):
            if not any(_matches(p, one) for p in found):
                raise UserError(
                    f"{kind}[{i}]: matches no combination of this sweep. Labels: {_few(p.variant.label for p in found)}; "
                    f"data sets: {_few(p.dataset.name for p in found)}; protocols: {_few(p.protocol.name for p in found)}."
                )
        if filters:
            kept = [p for p in kept if any(_matches(p, one) for one in filters) == (kind == "include")]
    if not kept:
        raise UserError("include and exclude leave no combination of this sweep.")
    return kept


def _matches(planned: Planned, one: Filter) -> bool:
    v, rules = planned.variant, planned.protocol.rules
    scale = rules.in_plane if rules else None
    return (
        (not one.method or bool({v.method, v.base, v.label} & set(one.method)))
        and (not one.checkpoint or v.checkpoint in one.checkpoint)
        and (not one.dataset or planned.dataset.name in one.dataset)
        and (not one.scale or scale in one.scale)
        and (not one.protocol or planned.protocol.name in one.protocol)
        and all(k in v.given and v.given[k] in (x if isinstance(x, list) else [x]) for k, x in one.options.items())
    )


def _few(names: Iterable[str], most: int = 8) -> str:
    every = list(dict.fromkeys(names))
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _check(planned: Planned, registry: Registry, known: dict[tuple[str, str, float], Entry | str]) -> None:
    """Find the method, its options and its weights for the scale, and whether they fit the protocol."""
    rules, v = planned.protocol.rules, planned.variant
    if rules is None or planned.dataset.refusal:
        planned.refuse(" ".join(filter(None, [planned.dataset.refusal, planned.protocol.refusal])))
        return
    key = (v.place, v.label, rules.in_plane)
    if key not in known:
        known[key] = _entry(v, registry, rules.in_plane)
    entry = known[key]
    if isinstance(entry, str):
        planned.refuse(entry)
        return
    try:
        refuse_unfit([entry], rules)
    except UserError as error:
        planned.refuse(f"{v.place}: {error}")
        return
    planned.entry = entry


def _entry(v: Variant, registry: Registry, scale: float) -> Entry | str:
    """The entry of a variant at a scale, or why there is none."""
    weights = "" if v.checkpoint == DEFAULT_WEIGHTS else f"@{v.checkpoint}"
    try:
        (entry,) = parse_entries([f"{v.label}={v.method}{weights}"], Settings({v.label: dict(v.given)}), registry, scale)
    except MrbenchError as error:
        return f"{v.place}: {error}"
    return entry


@dataclass(frozen=True)
class Share:
    """``--shard I/N``: every N-th combination of the plan, from the I-th on. The shares of one file are disjoint and complete."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Parse ``I/N`` (``UserError`` unless 1 <= I <= N)."""
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--shard {text}: expected I/N with 1 <= I <= N, for example --shard 2/8 for the second of eight.")
        return cls(int(match[1]), int(match[2]))

    def take(self, planned: Sequence[Planned]) -> list[Planned]:
        """The combinations of this share. What exists already plays no part, so that shares that start at different times fit."""
        runnable = [p for p in planned if p.state != "same"]
        return runnable[self.number - 1 :: self.of] if self.of > 1 else list(planned)
