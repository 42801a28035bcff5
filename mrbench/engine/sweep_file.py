"""The file of ``mrbench sweep``: which methods, weights and options on which data sets under which protocols.

Example::

    methods:
      - bicubic                          # as after --method: [LABEL=]NAME[@CHECKPOINT]
      - name: dps
        options: {zeta: [0.3, 1]}        # a list is a grid: every value is a run
      - name: res_srdiff
        checkpoints: [default, runs/mine]   # default: the weights that ship for the scale
    datasets:
      - sample
      - {name: folder, alias: mine, options: {path: /data/mine}}
    scales: [2, 4]                       # the protocols uniform-x2 and uniform-x4
    protocols: [uniform-kspace-x4]       # beside them
    exclude:
      - {method: dps, scale: 2}          # combinations that match all of this are left out
    metrics: [psnr, ssim]
    draws: 4
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from mrbench.cards import Options
from mrbench.errors import UserError
from mrbench.plugins import did_you_mean

DEFAULT_WEIGHTS = "default"  # in `checkpoints`: the weights that ship for the scale
DEFAULT_SCALE = 4


def _plain(value: Any) -> bool:
    """Whether a value can be an option: a finite number, a text, true, false, null, or a list of such."""
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _listed(value: Any) -> Any:
    """A single value stands for a list of one."""
    return value if isinstance(value, list) or value is None else [value]


def _method_text(value: Any) -> Any:
    """``[LABEL=]NAME[@CHECKPOINT]`` as a mapping."""
    if not isinstance(value, str):
        return value
    spec, at, checkpoint = value.partition("@")
    label, equals, name = spec.partition("=")
    if at and not checkpoint:
        raise ValueError("nothing stands after the @: name a checkpoint, or leave it out")
    return {
        "name": name if equals else spec,
        **({"label": label} if equals else {}),
        **({"checkpoints": [checkpoint]} if at else {}),
    }


def _dataset_text(value: Any) -> Any:
    """``[ALIAS=]NAME`` as a mapping."""
    if not isinstance(value, str):
        return value
    alias, equals, name = value.partition("=")
    return {"name": name, "alias": alias} if equals else {"name": value}


class MethodSpec(Options):
    """A line of ``methods``: ``checkpoints`` and every list in ``options`` span a grid. ``label`` begins the runs' labels."""

    name: str = Field(min_length=1)
    label: str = ""
    checkpoints: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(default=(DEFAULT_WEIGHTS,), min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _grids(self) -> MethodSpec:
        for key, value in self.options.items():
            if value == []:
                raise ValueError(f"options.{key} is an empty list: give one value or several")
            if not _plain(value):
                raise ValueError(f"options.{key} is {value!r}: give a number, a text or true/false, or a list of them")
        return self


class DatasetSpec(Options):
    """A line of ``datasets``. Options are fixed; the same data set with others is another line with an alias of its own."""

    name: str = Field(min_length=1)
    alias: str = ""
    options: dict[str, Any] = Field(default_factory=dict)


class Filter(Options):
    """Combinations by what they have: all given fields must match; of a list, one value must.

    method : the name, or a label. checkpoint : as in ``checkpoints``. dataset : the alias. options : as given in the file.
    """

    method: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    checkpoint: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    dataset: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    scale: Annotated[tuple[float, ...], BeforeValidator(_listed)] = ()
    protocol: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something(self) -> Filter:
        if not self.model_fields_set:
            raise ValueError(f"is empty: name at least one of {', '.join(type(self).model_fields)}")
        return self


class SweepFile(Options):
    """A whole file. ``scales`` and ``protocols`` add up (neither: 4x); the rest is as in ``mrbench run``.

    include : only combinations that match one of these. exclude : those that match one of these are left out.
    skip : combinations that cannot be run are left out instead of ending the command.
    """

    methods: tuple[Annotated[MethodSpec, BeforeValidator(_method_text)], ...] = Field(min_length=1)
    datasets: Annotated[
        tuple[Annotated[DatasetSpec, BeforeValidator(_dataset_text)], ...], BeforeValidator(_listed)
    ] = Field(min_length=1)  # fmt: skip
    scales: Annotated[tuple[int, ...], BeforeValidator(_listed)] = ()
    protocols: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    include: tuple[Filter, ...] = ()
    exclude: tuple[Filter, ...] = ()
    metrics: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    metric_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    draws: int | None = Field(default=None, ge=1, le=1000)
    subset: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    images: Literal["auto", "all", "none"] = "auto"
    allow_leak: bool = False
    skip: bool = False


def read_sweep(path: Path) -> SweepFile:
    """Read and validate the file of a sweep.

    Raises
    ------
    UserError : it cannot be read, is not YAML, or holds mistakes; each is named with its place, as in ``methods[1].options``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Name a YAML file, as in mrbench sweep sweep.yaml.") from None
    try:
        document = yaml.load(text, _Strict)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(document, dict):
        got = "nothing" if document is None else f"a {type(document).__name__}"
        raise UserError(f"{path}: a sweep is a mapping with at least methods and datasets, got {got}.")
    try:
        return SweepFile.model_validate(document)
    except ValidationError as error:
        lines = "\n".join(f"  {_line(e, document)}" for e in error.errors())
        raise UserError(f"{path}: this sweep cannot be read:\n{lines}") from None


class _Strict(yaml.SafeLoader):
    """YAML whose mappings have every key once: a second one would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = key_node.value
            line = key_node.start_mark.line + 1
            if key != "<<" and key in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice in one mapping, in lines {seen[key]} and {line}")
            seen[key] = line
        return super().construct_mapping(node, deep)


def where(location: tuple[Any, ...]) -> str:
    """``("methods", 1, "options")`` as ``methods[1].options``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _line(error: Mapping[str, Any], document: Any) -> str:
    place, kind = tuple(error["loc"]), error["type"]
    if kind == "extra_forbidden":
        known = _fields_at(place)
        return f"{where(place)}: unknown field.{did_you_mean(str(place[-1]), known)} Known: {', '.join(known)}."
    if kind == "missing":
        return f"{where(place)}: is missing."
    message = str(error["msg"]).removeprefix("Value error, ")
    if kind in ("model_type", "model_attributes_type"):
        message = f"expected a name or a mapping of {', '.join(_fields_at((*place, '')))}"
    got = error["input"]
    shown = "" if isinstance(got, dict | list | tuple | BaseModel) else f" (got {got!r})"
    return f"{where(place)}: {message[:1].lower()}{message[1:]}{shown}."


def _fields_at(place: tuple[Any, ...]) -> list[str]:
    """The known fields beside the last part of a place."""
    models: dict[str, type[BaseModel]] = {"methods": MethodSpec, "datasets": DatasetSpec, "include": Filter, "exclude": Filter}
    model = SweepFile if len(place) == 1 else models.get(str(place[0]), SweepFile)
    return list(model.model_fields)
