"""Runs with tuned options: ``--set LABEL.tuned=FILE`` takes those of a tuning's best trial."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrbench.cards import Checkpoint, MethodCard, Options
from mrbench.data.items import ItemRef
from mrbench.data.leaks import Overlap, overlap
from mrbench.errors import UserError
from mrbench.store.tuned import TunedResult, read_tuned

if TYPE_CHECKING:
    from mrbench.engine.entries import Entry

KEY = "tuned"  # of --set LABEL.tuned=FILE
DEFAULT, BY_HAND = "default", "set"
LEAKED = "the options were tuned on this subject"


@dataclass(frozen=True)
class Tuning:
    """A tuning whose winner an entry takes its options from. ``sha256``: of the file."""

    file: Path
    sha256: str
    result: TunedResult

    @property
    def track(self) -> str:
        """``tuned(N)``."""
        return self.result.track

    def record(self) -> dict[str, Any]:
        """What a run's manifest says about it."""
        result = self.result
        return {
            "file": self.file.name,
            "sha256": self.sha256,
            "objective": result.objective.column,
            "trials": len(result.trials),
            "winner": result.winner,
            "datasets": [d.alias for d in result.datasets],
            "subjects": len(result.subjects),
            "protocol": f"{result.protocol.name} {result.protocol.hash}",
        }

    def mismatches(self, protocol: str, protocol_hash: str, checkpoint: Checkpoint | None) -> list[str]:
        """How what was tuned differs from what is run, as texts for the rows' ``warning``."""
        result, found = self.result, []
        if result.protocol.hash != protocol_hash:
            found.append(
                f"options tuned under protocol {result.protocol.name} {result.protocol.hash}, not {protocol} {protocol_hash}"
            )
        sha = checkpoint.sha256 if checkpoint else ""
        if result.method.checkpoint_sha256 != sha:
            found.append(f"options tuned with {_weights(result.method.checkpoint_sha256)}, not {_weights(sha)}")
        return found


def take_tuned(given: Mapping[str, Any], card: MethodCard, label: str) -> tuple[Options, Tuning] | None:
    """The options of a tuning's winner, if ``given`` names one (``tuned=FILE``).

    Raises
    ------
    UserError : no such file, a tuning of another method or without a winner, options that the method does not have any more,
        or other options beside it: they would not be the tuned ones.
    """
    if KEY not in given:
        return None
    others = sorted(set(given) - {KEY})
    if others:
        raise UserError(
            f"--set {label}.{KEY} and --set {label}.{others[0]} exclude each other: with an option changed by hand, the others "
            f"were not tuned for it. Leave one out, or tune again with --set {card.name}.{others[0]}=... held fixed."
        )
    path = Path(str(given[KEY])).expanduser()
    result = read_tuned(path)
    if result.method.name != card.name:
        raise UserError(f"--set {label}.{KEY}={path}: is a tuning of method {result.method.name}, not of {card.name}.")
    best = result.best
    if best is None:
        raise UserError(f"--set {label}.{KEY}={path}: all its trials failed, so it has no winner. Tune again.")
    options = card.parse(best.options, f"{label}.{KEY}={path}")
    return options, Tuning(path, hashlib.sha256(path.read_bytes()).hexdigest(), result)


def track_of(card: MethodCard, options: Options, tuning: Tuning | None) -> str:
    """``tuned(N)``, ``default`` for options as the method ships, ``set`` for those chosen by hand, "" for images made elsewhere."""
    if card.tier == "files":
        return ""
    if tuning is not None:
        return tuning.track
    try:
        return DEFAULT if options == card.parse({}) else BY_HAND
    except UserError:  # a method with required options has no defaults
        return BY_HAND


@dataclass(frozen=True)
class TunedHere:
    """What the tuning of an entry's options has to do with a run's items.

    overlap : items that the options were tuned on. differing : how protocol and weights of the tuning differ from the run's.
    notes : for whoever reads the results.
    """

    overlap: Overlap = field(default_factory=Overlap)
    differing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def warnings(self, item: ItemRef) -> list[str]:
        """What a reader of this item's numbers must know."""
        return [LEAKED, *self.differing] if item.item_id in self.overlap.items else list(self.differing)


def check_tuned(
    entries: Sequence[Entry], items: Sequence[ItemRef], protocol: str, protocol_hash: str, allow: bool
) -> dict[str, TunedHere]:
    """Compare the tuning of every entry's options with the items that it is to be run on; by label.

    Parameters
    ----------
    allow : go on with options that were tuned on some of them, and say so (``--allow-leak``).

    Raises
    ------
    UserError : options that were tuned on some of the items, unless ``allow``.
    """
    return {e.label: _here(e, items, protocol, protocol_hash, allow) for e in entries}


def _here(entry: Entry, items: Sequence[ItemRef], protocol: str, protocol_hash: str, allow: bool) -> TunedHere:
    tuning = entry.tuning
    if tuning is None:
        return TunedHere()
    differing = tuple(tuning.mismatches(protocol, protocol_hash, entry.checkpoint))
    notes = tuple(f"{entry.label}: {text}" for text in differing)
    found = overlap({"subjects": tuning.result.subjects, "items": tuning.result.items}, items)
    if not found:
        return TunedHere(differing=differing, notes=notes)
    people = len({i.subject for i in items if i.item_id in found.items})
    text = (
        f"the options of {tuning.file} were tuned on {people} of the {len({i.subject for i in items})} subjects of this run "
        f"({len(found.items)} of {len(items)} slices)"
    )
    if not allow:
        raise UserError(
            f"{entry.label}: {text}. Scores on them are not scores on unseen people. Test on other subjects, or tune on others. If "
            "these are other people who happen to have the same ids, or it is meant so, go on with --allow-leak: it is stored "
            "with the results."
        )
    return TunedHere(
        found, differing, (*notes, f"{entry.label}: {text}; told to go on (--allow-leak). The rows concerned say so.")
    )


def _weights(sha256: str) -> str:
    return f"weights {sha256[:12]}" if sha256 else "no weights"
