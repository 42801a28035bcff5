"""From what stands after ``@`` in ``--method NAME@CHECKPOINT`` to a checkpoint's record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mrbench.cards import Checkpoint, MethodCard
from mrbench.errors import UserError
from mrbench.hub.checkpoint import check_config, notes_beside, record_from_files, weights_in
from mrbench.hub.client import Hub
from mrbench.hub.hashing import is_sha256
from mrbench.hub.places import (
    CONFIG,
    HUB_SCHEME,
    PICKLED,
    SAFETENSORS,
    TRAINING,
    HubReference,
    Source,
    is_commit,
    sibling,
    source_of,
)
from mrbench.hub.registered import RegisteredFiles
from mrbench.hub.resolving import refuse_mismatch
from mrbench.plugins import did_you_mean

DEFAULT_TIERS = ("demo", "retrained")  # official weights only when named


@dataclass(frozen=True)
class Found:
    """A checkpoint's record, and where it came from.

    source : see :mod:`mrbench.hub.places`.
    reference : what after ``@`` finds exactly this record again: a name, an absolute path, or ``hf://`` with the commit.
    notes : what a reader of the results should know (a branch that was pinned, a tier that nobody states).
    """

    record: Checkpoint
    source: Source
    reference: str
    notes: tuple[str, ...] = ()


def takes_weights(card: MethodCard) -> bool:
    """Whether a method has weights at all, as its card says."""
    return card.tier not in ("none", "files") or bool(card.checkpoints or card.recipe)


def find(
    card: MethodCard,
    text: str = "",
    scale: float | None = None,
    hub: Hub | None = None,
    registered: RegisteredFiles | None = None,
) -> Found | None:
    """The checkpoint that an entry asks for; ``None`` for a method without weights.

    Parameters
    ----------
    text : a checkpoint's name, a path (checkpoint folder or weights file), ``hf://org/repo@revision/file``, or empty: the
        weights that ship with the method for this scale (of several, the first on the card).
    scale : the protocol's in-plane scale, for the default; ``None``: not known, any will do.
    hub, registered : default: as the environment says.

    Raises
    ------
    UserError : no such checkpoint (listing those that exist), none shipped for this scale, a file that is no checkpoint or
        one of another method, or ``hf://`` weights that cannot be had.
    """
    registered = registered or RegisteredFiles.from_environment()
    if not text:
        return _default(card, scale, registered) if takes_weights(card) else None
    if not takes_weights(card) and not _loads_weights(card):
        raise UserError(f"method {card.name}: no checkpoint {text!r}. This method has no weights: leave out the @ part.")
    if text.startswith(HUB_SCHEME):
        return _on_hub(card, HubReference.parse(text), hub or Hub.from_environment())
    own = registered.of(card.name)
    for record in (*own, *card.checkpoints):  # a registered file stands in for one that is hosted elsewhere
        if record.name == text:
            return Found(record, source_of(record), text)
    if _looks_like_path(text):
        return _at_path(card, Path(text), (*card.checkpoints, *own))
    names = [r.name for r in (*card.checkpoints, *own)]
    raise UserError(
        f"method {card.name}: no checkpoint {text!r}.{did_you_mean(text, names)} {existing(card, own)} "
        f"A path or {HUB_SCHEME}org/repo@COMMIT/FILE works too."
    )


def existing(card: MethodCard, own: Sequence[Checkpoint] = ()) -> str:
    """The checkpoints of a method in one sentence."""
    records = [*own, *(r for r in card.checkpoints if r.name not in {o.name for o in own})]
    if not records:
        return "No checkpoint of it is public or registered."
    return f"Its checkpoints: {', '.join(map(describe, records))}."


def describe(record: Checkpoint) -> str:
    """A record in a few words: ``demo-x4 (demo, 4x, shipped)``."""
    scale = "any scale" if record.scale is None else f"{record.scale}x"
    return f"{record.name} ({record.tier}, {scale}, {whereabouts(record)})"


def whereabouts(record: Checkpoint) -> str:
    """Where the file of a record is, as listings say it."""
    source = source_of(record)
    if source == "hub":
        revision = record.revision[:8] if is_commit(record.revision) else record.revision
        return f"Hub {record.repo_id}@{revision}"
    return "shipped" if source == "shipped" else record.file


def mismatches(record: Checkpoint, *, scale: float | None, degradation: str, channels: int) -> list[str]:
    """How a checkpoint's training differs from what it is used for: one short text each, for the row's ``warning``."""
    found = []
    if record.scale is not None and scale is not None and record.scale != scale:
        found.append(f"weights for {record.scale}x used at {scale:g}x")
    if record.degradation and degradation and record.degradation != degradation:
        found.append(f"weights for degradation {record.degradation} used on {degradation}")
    if record.channels != channels:
        found.append(f"weights for {record.channels} channels used on {channels}")
    return found


def _loads_weights(card: MethodCard) -> bool:
    """Whether the implementation of a method whose card names no weights could take some all the same."""
    implementation = card.load()
    return isinstance(implementation, type) and callable(getattr(implementation, "load", None))


# -- the four roads ------------------------------------------------------------------------------------------------
def _default(card: MethodCard, scale: float | None, registered: RegisteredFiles) -> Found:
    shipped = [r for r in card.checkpoints if source_of(r) == "shipped" and r.tier in DEFAULT_TIERS]
    fitting = [r for r in shipped if scale is None or r.scale == scale]
    fitting += [r for r in shipped if r.scale is None and r not in fitting]
    if fitting:
        return Found(fitting[0], "shipped", fitting[0].name)
    at = "" if scale is None else f" for {scale:g}x"
    training = "" if scale is None else f" --scale {scale:g}"
    raise UserError(
        f"method {card.name}: no weights ship with it{at}. {existing(card, registered.of(card.name))} "
        f"Name some with --method {card.name}@NAME (or @PATH, @{HUB_SCHEME}org/repo@COMMIT/FILE), "
        f"or train some with `mrbench train {card.name}{training}`."
    )


def _looks_like_path(text: str) -> bool:
    known = text.lower().endswith((SAFETENSORS, *PICKLED))
    return known or "/" in text or "\\" in text or text.startswith("~") or Path(text).exists()


def _at_path(card: MethodCard, path: Path, known: Sequence[Checkpoint]) -> Found:
    file = weights_in(path)
    place = str(file.resolve())
    config, training = notes_beside(file)
    record, notes = record_from_files(file, config, training)
    same = next((r for r in known if r.sha256 == record.sha256), None)
    if same is not None:  # the very bytes of a known checkpoint: what is known about it holds
        return Found(replace(same, file=place, repo_id="", revision=""), "local", place)
    check_config(config, record, card.name, file)
    return Found(record, "local", place, tuple(notes))


def _on_hub(card: MethodCard, asked: HubReference, hub: Hub) -> Found:
    for record in card.checkpoints:
        if (record.repo_id, record.revision, record.file) == (asked.repo_id, asked.revision, asked.file):
            return Found(record, "hub", record.name)
    suffix = Path(asked.file).suffix.lower()
    if suffix not in (SAFETENSORS, *PICKLED):
        raise UserError(f"{asked}: weights are read from {', '.join((SAFETENSORS, *PICKLED))} files.")
    owner = f"{card.name}@{asked}"
    fetched = hub.fetch(asked.repo_id, asked.revision, asked.file, owner)
    if suffix == SAFETENSORS:  # beside the weights in the cache, where they are looked for
        for name in (CONFIG, TRAINING):
            hub.fetch_optional(asked.repo_id, fetched.commit, sibling(asked.file, name), owner)
    pinned = HubReference(asked.repo_id, fetched.commit, asked.file)
    config, training = notes_beside(fetched.file)
    record, notes = record_from_files(
        fetched.file, config, training, name=str(config.get("name") or Path(asked.file).stem), place=asked.file
    )
    record = replace(record, repo_id=asked.repo_id, revision=fetched.commit)
    expected = fetched.file.resolve().name  # the cache names large files by their SHA-256
    if is_sha256(expected) and expected != record.sha256:
        raise refuse_mismatch(fetched.file, replace(record, sha256=expected), record.sha256, owner, set_aside=True)
    check_config(config, record, card.name, fetched.file)
    if fetched.note:
        notes.insert(0, fetched.note)
    return Found(record, "hub", str(pinned), tuple(notes))
