"""Weights and the people they are tested on: a run refuses those that they were trained on, unless told to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mrbench.cards import Checkpoint
from mrbench.data.items import ItemRef
from mrbench.data.leaks import Overlap, overlap, says_subjects
from mrbench.engine.entries import Entry
from mrbench.engine.imagefiles import few
from mrbench.errors import UserError
from mrbench.hub import resolve

LEAKED = "the weights were trained on this subject"
LEAKED_SLICE = "the weights were trained on this slice"

Training = Literal["", "unknown", "apart", "overlap"]


@dataclass(frozen=True)
class Seen:
    """What the weights of an entry have seen of a run's items.

    training : "" without weights; ``unknown``: nobody says whom they were trained on; ``apart``: none of these; ``overlap``.
    notes : for whoever reads the results, empty for "" and ``apart``.
    """

    training: Training = ""
    overlap: Overlap = field(default_factory=Overlap)
    notes: tuple[str, ...] = ()

    def warning(self, item: ItemRef) -> str:
        """What a reader of this item's numbers must know, or the empty string."""
        if item.item_id not in self.overlap.items:
            return ""
        return LEAKED if item.subject in self.overlap.subjects else LEAKED_SLICE


def check_leaks(entries: Sequence[Entry], items: Sequence[ItemRef], allow: bool) -> dict[str, Seen]:
    """Compare the training of every entry's weights with the items that it is to be run on; by label.

    Parameters
    ----------
    allow : go on with weights that were trained on some of them, and say so in the notes (``--allow-leak``).

    Raises
    ------
    UserError : weights that were trained on some of the items, unless ``allow``.
    """
    return {e.label: _seen(e, items, allow) for e in entries}


def _seen(entry: Entry, items: Sequence[ItemRef], allow: bool) -> Seen:
    if entry.checkpoint is None:
        return Seen()
    training = training_of(entry)
    found = overlap(training, items)
    if found:
        text = f"the weights {entry.checkpoint.name} were trained or validated on {_amount(found, items)}"
        if not allow:
            raise UserError(
                f"{entry.label}: {text}. Scores on them are not scores on unseen people. Name other weights or another data set. If "
                "these are other people who happen to have the same ids, or it is meant so, go on with --allow-leak: it is stored "
                "with the results."
            )
        return Seen("overlap", found, (f"{entry.label}: {text}; told to go on (--allow-leak). The rows concerned say so.",))
    if not says_subjects(training):
        text = f"{entry.label}: training subjects unknown: the weights {entry.checkpoint.name} do not say whom they were trained on"
        return Seen("unknown", notes=(text,))
    return Seen("apart")


def training_of(entry: Entry) -> Mapping[str, Any] | None:
    """The ``training.json`` of an entry's weights; ``None`` without one, and for weights that cannot be had (loading says why)."""
    if not isinstance(entry.checkpoint, Checkpoint):  # weights in memory
        return getattr(entry.checkpoint, "training", None)
    try:
        return resolve(entry.checkpoint, entry.card.name).training
    except UserError:
        return None


def recipe_of(training: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What manifests keep of a ``training.json``: how the weights came about, without data and subjects; ``None`` without one."""
    if training is None or "preset" not in training:
        return None
    stages = [str(s) for s in training.get("earlier_stages", ())]
    stages += [s["name"] for s in training.get("stages", ()) if isinstance(s, Mapping) and "name" in s]
    kept = {k: training[k] for k in ("preset", "seed", "steps", "options", "factors") if k in training}
    return {**kept, "stages": stages}


def _amount(found: Overlap, items: Sequence[ItemRef]) -> str:
    slices = f"{len(found.items)} of {len(items)} slices"
    if not found.subjects:
        return f"the very content of {slices} of this run, under other subjects' names"
    total = len({i.subject for i in items})
    return f"{len(found.subjects)} of the {total} subjects of this run ({few(found.subjects)}): {slices}"
