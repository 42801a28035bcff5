"""What the user asked for on the command line, as records: entries, data sets, and their options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from mrbench.cards import Card, Checkpoint, DatasetCard, MethodCard, Options
from mrbench.data.places import Places, find_dataset, options_of
from mrbench.engine.tuned import Tuning, take_tuned, track_of
from mrbench.errors import UserError
from mrbench.hub import Found, find
from mrbench.plugins import Registry, did_you_mean

_LABEL = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
METRIC_TARGET = "metric"


@dataclass(frozen=True)
class Entry:
    """A method with options and weights, under a label."""

    label: str
    card: MethodCard
    options: Options
    checkpoint: Checkpoint | None = None
    plugin: str = ""
    code: str = ""  # identity of an outside plugin's code: other code is another run
    reference: str = ""  # what after @ finds exactly these weights again
    notes: tuple[str, ...] = ()  # on the weights, for whoever reads the results
    tuning: Tuning | None = None  # where the options come from, if they were tuned

    @property
    def track(self) -> str:
        """How the options came about: ``default``, ``set`` (by hand) or ``tuned(N)``."""
        return track_of(self.card, self.options, self.tuning)

    @property
    def tier(self) -> str:
        """Where the weights come from."""
        return self.checkpoint.tier if self.checkpoint else self.card.tier


@dataclass(frozen=True)
class DatasetChoice:
    """A data set under an alias, with its options."""

    alias: str
    card: DatasetCard
    options: Options


@dataclass
class Settings:
    """Options given with ``--set TARGET.KEY=VALUE``, by target; what is never asked for is refused at the end."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def take(self, target: str) -> dict[str, Any]:
        """The options of a target."""
        self.used.add(target)
        return self.values.get(target, {})

    def refuse_unused(self) -> None:
        """Raise ``UserError`` for options whose target does not exist, naming the known targets."""
        for target in self.values:
            if target not in self.used:
                key = next(iter(self.values[target]))
                known = ", ".join(sorted(self.used))
                raise UserError(
                    f"--set {target}.{key}: there is no {target!r} here.{did_you_mean(target, self.used)} Known: {known}."
                )


def parse_settings(texts: Sequence[str]) -> Settings:
    """Parse ``TARGET.KEY=VALUE`` texts. Values are YAML scalars or lists (``4``, ``true``, ``[1, 2]``, ``text``).

    Raises
    ------
    UserError : a text without ``.`` or ``=``, or the same key twice.
    """
    settings = Settings()
    for text in texts:
        left, equals, right = text.partition("=")
        target, dot, key = left.rpartition(".")
        if not equals or not dot or not target or not key:
            raise UserError(
                f"--set {text}: expected TARGET.KEY=VALUE, for example --set folder.path=DIR or --set metric.ssim.window=uniform7."
            )
        try:
            value = yaml.safe_load(right)
        except yaml.YAMLError:
            value = right
        if value is None:
            value = right
        if not isinstance(value, (str, int, float, bool, list)):
            value = right
        values = settings.values.setdefault(target, {})
        if key in values:
            raise UserError(f"--set {target}.{key} is given twice.")
        values[key] = value
    return settings


def parse_given(card: Card, given: Mapping[str, Any], label: str) -> Options:
    """Validate options; a number given for a text option is read as text (``--set a.path=2024``)."""
    fixed = {}
    for key, value in given.items():
        info = card.options.model_fields.get(key)
        wants_text = info is not None and info.annotation in (str, str | None)
        fixed[key] = str(value) if wants_text and isinstance(value, (int, float)) and not isinstance(value, bool) else value
    return card.parse(fixed, label)


def check_label(label: str, given: str) -> None:
    """Refuse labels that could not stand in a folder's name or in ``--set`` (``UserError``, naming what was ``given``)."""
    if not _LABEL.match(label):
        raise UserError(
            f"{given}: bad label {label!r}. Labels start with a letter or digit and hold letters, digits and _ . + -."
        )
    if label == METRIC_TARGET:
        raise UserError(
            f"{given}: the label {METRIC_TARGET!r} is taken by --set {METRIC_TARGET}.NAME.KEY. Choose another label."
        )


def parse_entries(texts: Sequence[str], settings: Settings, registry: Registry, scale: float | None = None) -> list[Entry]:
    """Parse ``[LABEL=]NAME[@CHECKPOINT]`` texts.

    Parameters
    ----------
    scale : the protocol's in-plane scale; without ``@``, the weights that ship for it are taken. ``None``: for any.

    Raises
    ------
    UserError : unknown method, bad or repeated label, bad option, a tuning that does not fit (``--set LABEL.tuned=FILE``), a
        checkpoint that does not exist, or a method without shipped weights for this scale.
    """
    if not texts:
        raise UserError("no method given. Name one with --method, for example --method bicubic (`mrbench methods` lists them).")
    entries: list[Entry] = []
    for text in texts:
        spec, _, checkpoint_name = text.partition("@")
        label, equals, name = spec.partition("=")
        if not equals:
            label = name = spec
        check_label(label, f"--method {text}")
        card = registry.methods.get(name)
        if any(e.label == label for e in entries):
            raise UserError(
                f"--method {text}: the label {label!r} is used twice. Give each entry its own: --method OTHER={name}."
            )
        given = settings.take(label)
        options, tuning = take_tuned(given, card, label) or (parse_given(card, given, label), None)
        if "@" in text and not checkpoint_name:
            raise UserError(f"--method {text}: nothing stands after the @. Name a checkpoint, or leave it out.")
        owner, code = registry.methods.owner(name), registry.methods.code(name)
        entry = Entry(label, card, options, None, owner, code, tuning=tuning)
        entries.append(with_weights(entry, find(card, checkpoint_name or getattr(options, "prior", None) or "", scale)))
    return entries


def with_weights(entry: Entry, found: Found | None) -> Entry:
    """The entry with the weights that were found for it."""
    if found is None:
        return entry
    return replace(entry, checkpoint=found.record, reference=found.reference, notes=found.notes)


def parse_dataset(text: str, settings: Settings, registry: Registry, places: Places | None = None) -> DatasetChoice:
    """Parse ``NAME`` or ``ALIAS=NAME``; the name is that of a data set, or of a place that ``mrbench data add`` remembers.

    Options of the command line go before remembered ones; a folder given there makes all remembered ones void.

    Parameters
    ----------
    places : what is remembered (default: the user's own).

    Raises
    ------
    UserError : unknown names, bad aliases, bad options, or a damaged list of places.
    """
    alias, equals, name = text.partition("=")
    if not equals:
        alias = name = text
    if not _LABEL.match(alias):
        raise UserError(
            f"--dataset {text}: bad alias {alias!r}. Aliases start with a letter or digit and hold letters, digits and _ . + -."
        )
    card, place = find_dataset(name, registry, places or Places.from_environment())
    return DatasetChoice(alias, card, parse_given(card, options_of(card, place, settings.take(alias)), alias))


def metric_settings(settings: Settings, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options given with ``--set metric.NAME.KEY=VALUE``, by metric name."""
    return {name: settings.take(f"{METRIC_TARGET}.{name}") for name in names}
