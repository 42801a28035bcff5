"""Which options of a method may be searched, and over what: declared on the options model, or named by the user.

An author declares a tunable option in the field's metadata::

    zeta: float = Field(default=0.3, gt=0, json_schema_extra={"tune": {"low": 0.1, "high": 1.0, "log": True}})
    kernel: Literal["a", "b"] = Field(default="a", json_schema_extra={"tune": {"choices": ["a", "b"]}})

Light on purpose (pydantic only): option models and listings use it without importing torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mrbench.cards import Options
from mrbench.errors import PluginError, UserError
from mrbench.plugins import did_you_mean

TUNE = "tune"  # key of the field's json_schema_extra
AUTO = "auto"
DIGITS = 4  # significant digits of searched numbers, so that they can be typed again
_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; ``log``: evenly spread in the logarithm; ``integer``: whole ones."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low >= self.high:
            raise ValueError(f"a range runs from a lower to a higher number, got {self.low:g} to {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, got {self.low:g}")

    @property
    def size(self) -> float:
        """How many different values there are (``inf`` unless integer)."""
        return self.high - self.low + 1 if self.integer else math.inf

    def at(self, position: float) -> float | int:
        """The value at ``position`` in [0, 1): floats with four significant digits, integers with equal shares."""
        reach = 0.5 if self.integer else 0.0  # an integer owns the half unit on either side of it
        low, high = self.low - reach, self.high + reach
        value = (
            math.exp(math.log(low) + position * (math.log(high) - math.log(low))) if self.log else low + position * (high - low)
        )
        kept = min(max(math.floor(value + 0.5) if self.integer else float(f"{value:.{DIGITS}g}"), self.low), self.high)
        return int(kept) if self.integer else kept

    def document(self) -> dict[str, Any]:
        """As a space file and the result of a tuning state it."""
        return {"low": self.low, "high": self.high, "log": self.log}

    def __str__(self) -> str:
        """As ``--space`` takes it: ``0.1:1:log``."""
        return f"{self.low:g}:{self.high:g}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """Two or more values, each as likely as the others."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or any(v in self.values[:i] for i, v in enumerate(self.values)):
            raise ValueError(f"choices are two or more different values, got {list(self.values)}")

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.values)

    def at(self, position: float) -> Any:
        """The value at ``position`` in [0, 1)."""
        return self.values[min(int(position * len(self.values)), len(self.values) - 1)]

    def document(self) -> dict[str, Any]:
        """As a space file and the result of a tuning state it."""
        return {"choices": list(self.values)}

    def __str__(self) -> str:
        """As ``--space`` takes it: ``a|b``."""
        return "|".join(str(v) for v in self.values)


Dimension = Range | Choices
Space = Mapping[str, Dimension]


def tunable(model: type[Options]) -> dict[str, Dimension]:
    """The options that a method's author declares as tunable, with their ranges, in the order of the fields.

    Raises
    ------
    PluginError : a declaration that is no range or choice of that option's values.
    """
    found: dict[str, Dimension] = {}
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and TUNE in extra:
            try:
                found[name] = _dimension(extra[TUNE], name, info)
            except ValueError as error:
                raise PluginError(f"{model.__name__}.{name}: json_schema_extra['{TUNE}']: {error}.") from None
    return found


def parse_space(text: str, model: type[Options], owner: str) -> dict[str, Dimension]:
    """The space that ``--space`` names.

    Parameters
    ----------
    text : ``auto`` (all that the method declares), a YAML file ``{option: {low, high, log} | {choices} | [a, b] | auto}``,
        or ``zeta=0.1:1:log,kernel=a|b,steps=auto``.
    model : the method's options. owner : named in errors.

    Raises
    ------
    UserError : nothing to tune, an unknown option, or a range or choice that the option does not take.
    """
    declared = tunable(model)
    listing = ", ".join(f"{k}={v}" for k, v in declared.items())
    if text.strip() == AUTO:
        if not declared:
            known = ", ".join(model.model_fields) or "none"
            raise UserError(
                f"method {owner} declares no tunable options. Name a space of your own: --space KEY=LOW:HIGH. Its options: {known}."
                if model.model_fields
                else f"method {owner} has no options, so there is nothing to tune."
            )
        return declared
    path = Path(text)
    given = _from_file(path) if text.lower().endswith(_FILES) or ("=" not in text and path.is_file()) else _from_text(text)
    unknown = [key for key in given if key not in model.model_fields]
    if unknown:
        known = ", ".join(model.model_fields) or "none: it has no options"
        hint = f" It declares as tunable: {listing}." if listing else ""
        raise UserError(
            f"--space: {owner} has no option {unknown[0]!r}.{did_you_mean(unknown[0], model.model_fields)} "
            f"Known options: {known}.{hint}"
        )
    space: dict[str, Dimension] = {}
    for key, value in given.items():
        if value == AUTO:
            if key not in declared:
                raise UserError(
                    f"--space {key}=auto: {owner} declares no range for it. Declared: {listing or 'none'}. Give one: {key}=LOW:HIGH."
                )
            space[key] = declared[key]
            continue
        try:
            space[key] = _dimension(value, key, model.model_fields[key])
        except ValueError as error:
            hint = f" Declared: {key}={declared[key]}." if key in declared else ""
            raise UserError(f"--space: option {key} of {owner}: {error}.{hint}") from None
    return space


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--space {path}: no such file. Expected auto, a YAML file, or KEY=LOW:HIGH[:log],KEY=A|B.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--space {path}: cannot be read as YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(document, dict) or not document:
        raise UserError(f"--space {path}: expected a mapping like {{zeta: {{low: 0.1, high: 1, log: true}}, kernel: [a, b]}}.")
    found = {}
    for key, value in document.items():
        text = isinstance(value, str) and value != AUTO
        found[str(key)] = _from_value(str(key), value) if text else {"choices": value} if isinstance(value, list) else value
    return found


def _from_text(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not (key and equals and value):
            raise UserError(
                f"--space {text}: {part.strip() or 'nothing'!r} is not KEY=LOW:HIGH[:log], KEY=A|B or KEY=auto. "
                "Or: --space auto, --space FILE.yaml."
            )
        if key in found:
            raise UserError(f"--space: {key} is given twice.")
        found[key] = _from_value(key, value)
    return found


def _from_value(key: str, text: str) -> Any:
    """``auto``, ``LOW:HIGH[:log]`` or ``A|B`` as a declaration."""
    if text == AUTO:
        return AUTO
    if "|" in text:
        return {"choices": [_scalar(v.strip()) for v in text.split("|")]}
    low, *rest = (p.strip() for p in text.split(":"))
    if len(rest) not in (1, 2) or rest[1:] not in ([], ["log"]):
        raise UserError(
            f"--space {key}={text}: expected LOW:HIGH, LOW:HIGH:log or A|B. One fixed value is --set METHOD.{key}=VALUE."
        )
    return {"low": _scalar(low), "high": _scalar(rest[0]), "log": len(rest) == 2}


def _scalar(text: str) -> Any:
    try:
        return float(text) if not text.lstrip("+-").isdigit() else int(text)  # YAML 1.1 reads 1e-3 as text
    except ValueError:
        value = yaml.safe_load(text) if text else text
        return value if isinstance(value, (str, bool)) or value is None else text


def _dimension(declared: Any, name: str, info: FieldInfo) -> Dimension:
    """A declaration as a range or choices, every value checked by the option's own type (``ValueError``: why not)."""
    if not isinstance(declared, Mapping) or set(declared) not in ({"choices"}, {"low", "high"}, {"low", "high", "log"}):
        raise ValueError(f"expected {{low, high, log}} or {{choices}}, got {declared!r}")
    if "choices" in declared:
        values = declared["choices"]
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ValueError(f"choices are a list, got {values!r}")
        return Choices(tuple(_valid(v, name, info) for v in values))
    low, high, log = declared["low"], declared["high"], declared.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log is true or false, got {log!r}")
    numbers = _numbers(info.annotation)
    if not numbers:
        raise ValueError("it is no number: give choices, as in KEY=A|B")
    for value in (low, high):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{value!r} is no number")
    low, high = _valid(low, name, info), _valid(high, name, info)
    return Range(low, high, log, integer=float not in numbers)


def _numbers(annotation: Any) -> set[type]:
    """Which of ``int`` and ``float`` an annotation takes, through ``| None`` and ``Annotated``."""
    if annotation in (int, float):
        return {annotation}
    inner = [a for a in get_args(annotation) if a is not NoneType]
    return set().union(*(_numbers(a) for a in inner)) if inner else set()


def _valid(value: Any, name: str, info: FieldInfo) -> Any:
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{error.errors()[0]['msg'].lower()} (got {value!r})") from None
