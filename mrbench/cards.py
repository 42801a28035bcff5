"""Cards: small frozen records that describe plugins without importing them (no torch here).

A card names its implementation as a lazy string ``"package.module:Name"`` (or carries the object itself);
:meth:`Card.load` imports it on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mrbench.errors import PluginError, UserError

Tier = Literal["none", "demo", "retrained", "official", "author", "files"]
Redistribution = Literal["none", "figures", "open"]
Information = Literal[
    "operator", "noise level", "training pairs", "training images", "operator in training", "outside pretraining"
]


class Options(BaseModel):
    """Base of every option model: unknown keys are refused, values are immutable and hashable as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoOptions(Options):
    """For cards without options."""


def parse_options(model: type[Options], given: Mapping[str, Any], owner: str) -> Options:
    """Validate ``given`` against ``model``.

    Raises
    ------
    UserError : names the bad key or value, the known keys and their types.
    """
    known = model.model_fields
    unknown = sorted(set(given) - set(known))
    if unknown:
        expected = ", ".join(known) if known else "none: it has no options"
        raise UserError(f"{owner} has no option {', '.join(map(repr, unknown))}. Known options: {expected}.")
    try:
        return model(**given)
    except ValidationError as error:
        lines = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg'].lower()} (got {e['input']!r})" for e in error.errors()
        )
        raise UserError(f"{owner}: bad option value: {lines}.") from None


@dataclass(frozen=True)
class Checkpoint:
    """Where a method's weights come from and what may be said about them (design, section 8)."""

    name: str
    file: str
    sha256: str
    tier: Tier
    repo_id: str = ""
    revision: str = ""
    scale: int | None = None
    degradation: str = ""
    channels: int = 1
    kind: Literal["network", "prior"] = "network"
    trained_on: str = ""
    optimised_for: tuple[str, ...] = ()
    licence: str = ""
    probe_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """What every card has. ``name`` is what users type; ``summary`` is one line."""

    name: str
    implementation: str | Callable[..., Any]
    summary: str = ""
    options: type[Options] = NoOptions

    def load(self) -> Any:
        """Import and return the implementation.

        Raises
        ------
        PluginError : the import failed, with the reason.
        """
        if not isinstance(self.implementation, str):
            return self.implementation
        module, _, attribute = self.implementation.partition(":")
        try:
            target: Any = importlib.import_module(module)
            for part in attribute.split("."):
                target = getattr(target, part)
        except Exception as error:  # a plugin's import may raise anything
            raise PluginError(f"{self.name}: cannot load {self.implementation!r}: {type(error).__name__}: {error}") from error
        return target

    def parse(self, given: Mapping[str, Any], label: str | None = None) -> Options:
        """Validate options for this card; errors name ``label`` (default: the card's name)."""
        return parse_options(self.options, given, label or self.name)


@dataclass(frozen=True)
class MethodCard(Card):
    """A super-resolution method.

    ``implementation`` is a function ``restore(measurement) -> [B, C, H, W]`` (deterministic) or a class with
    ``__init__(options)``, optional ``load(checkpoint, device)`` and ``restore(measurement, draws) -> [B, K, C, H, W]``.
    """

    version: str = "1"
    deterministic: bool = True
    channels: tuple[int, ...] = (1, 2, 3)
    scales: tuple[int, ...] | None = None  # None: any
    needs_operator: bool = True
    information: tuple[Information, ...] = ()  # what it knows besides the LR image, when sampling and from training
    nfe: int | None = None  # network calls per slice; None: no network
    control: bool = False  # sees the ground truth; shown below the table, never ranked
    tier: Tier = "none"
    checkpoints: tuple[Checkpoint, ...] = ()
    recipe: str = ""  # "package.module:Recipe" of trainable methods
    paper: str = ""
    licence: str = ""
    notes: str = ""
    expected_failures: Mapping[str, str] = field(default_factory=dict)  # conformance check -> reason


@dataclass(frozen=True)
class DatasetCard(Card):
    """A data set: who may use it, how subjects are told apart, how it is split."""

    version: str = "1"
    home: str = ""
    licence: str = ""
    citation: str = ""
    access: str = ""
    redistribution: Redistribution = "none"
    group_key: str = ""
    split_rule: str = ""
    path_options: tuple[str, ...] = ()  # options that name a place on disk
    steps: tuple[str, ...] = ()  # how to get the files, a sentence each
    download: str = ""  # "package.module:fetch" where the licence allows an automatic download (see mrbench.data.places)
    expected: str = ""  # counts of subjects and volumes as published
    subjects: bool = True  # False: no subject ids exist, so no claim of subject-disjoint splits can be made
    notes: str = ""
    expected_failures: Mapping[str, str] = field(default_factory=dict)  # conformance check -> reason


@dataclass(frozen=True)
class MetricCard(Card):
    """A metric. ``signature`` turns its options into the text that is stored and printed with every number."""

    version: int = 1
    signature: Callable[[Any], str] = lambda options: ""
    title: str = ""  # begins the signature
    heading: str = ""  # of table columns; empty: the title
    higher_is_better: bool = True
    kind: Literal["image", "measurement", "draws"] = "image"
    foreground: bool = False  # also gives a value inside the foreground mask
    min_side: int = 1
    digits: int = 4
    unit: str = ""
    paper: str = ""
    licence: str = ""
    notes: str = ""
    expected_failures: Mapping[str, str] = field(default_factory=dict)  # conformance check -> reason

    def signed(self, options: Options) -> str:
        """The full signature, e.g. ``SSIM|gauss11|sigma:1.5|L:1|...|mrbench:1``."""
        return f"{self.title or self.name}|{self.signature(options)}|mrbench:{self.version}".replace("||", "|")


@dataclass(frozen=True)
class DegradationCard(Card):
    """A forward operator H. ``version`` is part of every protocol hash: bump it when numbers change."""

    version: int = 1
    ndim: tuple[int, ...] = (2, 3)
    linear: bool = True
    source: str = ""
    notes: str = ""
