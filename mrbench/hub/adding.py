"""What a file that the user registers is: a known checkpoint by its hash, else what lies beside it and the user say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import cast

from mrbench.cards import Checkpoint, MethodCard, Tier
from mrbench.errors import UserError
from mrbench.hub.checkpoint import WEIGHT_TIERS, check_config, notes_beside, record_from_files, weights_in
from mrbench.hub.places import source_of
from mrbench.hub.registered import RegisteredFiles

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def record_to_add(
    card: MethodCard,
    path: Path,
    registered: RegisteredFiles,
    *,
    name: str = "",
    tier: str = "",
    scale: int | None = None,
    licence: str = "",
) -> tuple[Checkpoint, list[str]]:
    """The record under which a file is registered, and notes.

    The bytes of a checkpoint on the card (same SHA-256) keep all that is known about it. Otherwise ``config.json`` beside
    the file says what it is; ``tier``, ``scale`` and ``licence`` say it where nothing else does. ``name`` may be that of a
    checkpoint on the card that is hosted elsewhere: the file then stands in for it.

    Raises
    ------
    UserError : no weights file, one of another method, a name that is taken, a statement against what the file says, or
        a file that is not the one on the card.
    """
    if tier and tier not in WEIGHT_TIERS:
        raise UserError(f"--tier {tier}: unknown. Known: {', '.join(WEIGHT_TIERS)}.")
    if name and not _NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: names start with a letter or digit and hold letters, digits and _ . + -.")
    file = weights_in(path)
    config, training = notes_beside(file)
    record, notes = record_from_files(file, config, training, name=name, tier=tier)
    check_config(config, record, card.name, file)
    same = next((c for c in card.checkpoints if c.sha256 == record.sha256), None)
    named = next((c for c in card.checkpoints if c.name == record.name), None)
    known = same or next((c for c in card.checkpoints if _stands_for(name, file, c)), None)
    if known is not None:
        if known.sha256 and known.sha256 != record.sha256:
            raise UserError(
                f"{file}: not the file that {card.name}@{known.name} names.\n  expected SHA-256 {known.sha256}\n"
                f"  found    SHA-256 {record.sha256}\nDownload it again from {known.file}, or register it as another one with --name."
            )
        unchecked = [] if known.sha256 else [f"{card.name}@{known.name}: no SHA-256 is known for it, so this one is remembered"]
        stated = {"tier": known.tier, "scale": known.scale, "licence": known.licence}
        record = replace(known, name=name or known.name, file=record.file, sha256=record.sha256, repo_id="", revision="")
        notes = unchecked
    elif named is not None:
        raise UserError(f"{card.name}@{named.name} exists already. Choose another name with --name.")
    else:
        ours = "method" in config
        stated = {"tier": config.get("tier") if ours else None, "scale": record.scale, "licence": record.licence}
    for key, value in (("tier", tier), ("scale", scale), ("licence", licence)):
        if value and stated[key] and stated[key] != value:
            raise UserError(f"--{key} {value}: the checkpoint itself says {stated[key]}. Leave it out.")
    record = replace(
        record,
        tier=cast(Tier, tier) if tier else record.tier,  # checked above
        scale=scale if scale is not None else record.scale,
        licence=licence or record.licence,
    )
    if not _NAME.fullmatch(record.name):
        raise UserError(f"{file}: its name {record.name!r} cannot stand after @. Give one with --name.")
    earlier = next((r for r in registered.of(card.name) if r.name == record.name), None)
    if earlier is not None and earlier.file != record.file:
        raise UserError(
            f"{card.name}@{record.name} is registered already, as {earlier.file}. Choose another name with --name, or forget "
            f"that one: mrbench checkpoints remove {card.name} {record.name}"
        )
    return record, notes


def _stands_for(name: str, file: Path, record: Checkpoint) -> bool:
    """Whether a file is meant as the copy of one that others host: by the name given, else by the file's own."""
    if source_of(record) != "elsewhere":
        return False
    return name == record.name if name else record.file.rpartition("/")[2] == file.name
