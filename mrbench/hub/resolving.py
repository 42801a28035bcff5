"""From a checkpoint's record to files on this machine whose bytes are what the record says."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint, check_config, notes_beside
from mrbench.hub.client import Hub
from mrbench.hub.hashing import is_sha256, weights_sha256
from mrbench.hub.places import CONFIG, SAFETENSORS, TRAINING, shipped_file, sibling, source_of
from mrbench.hub.registered import RegisteredFiles

MISMATCH = ".mismatch"


def resolve(
    record: Checkpoint, method: str, hub: Hub | None = None, registered: RegisteredFiles | None = None
) -> LocalCheckpoint:
    """Get the file of a record (downloaded if need be), check its SHA-256, and read what lies beside it.

    Parameters
    ----------
    method : name of the method that the weights are for.
    hub, registered : default: as the environment says.

    Raises
    ------
    UserError : the file is missing or cannot be had (with the ways out), has another SHA-256 than its record (both are
        printed; a downloaded file is kept aside as ``*.mismatch``), or is a checkpoint of another method.
    """
    owner = f"{method}@{record.name}"
    if not is_sha256(record.sha256) and source_of(record) != "elsewhere":
        raise UserError(
            f"{owner}: its record has no SHA-256, so the file cannot be checked. This is a fault of the method's card."
        )
    match source_of(record):
        case "shipped":
            file = shipped_file(record)
        case "local":
            file = Path(record.file)
            if not file.is_file():
                raise UserError(
                    f"{owner}: the file {file} is not there any more. Put it back, or name another one with @PATH "
                    f"(a registered one is forgotten with `mrbench checkpoints remove {method} {record.name}`)."
                )
        case "hub":
            file = _from_hub(record, hub or Hub.from_environment(), owner)
        case "elsewhere":
            return _elsewhere(record, method, registered or RegisteredFiles.from_environment())
    found = weights_sha256(file)
    if found != record.sha256:
        raise refuse_mismatch(file, record, found, owner, set_aside=source_of(record) == "hub")
    config, training = notes_beside(file)
    check_config(config, record, method, file)
    return LocalCheckpoint(record, file, config, training)


def _from_hub(record: Checkpoint, hub: Hub, owner: str) -> Path:
    file = hub.fetch(record.repo_id, record.revision, record.file, owner).file
    if file.suffix.lower() == SAFETENSORS:
        for name in (CONFIG, TRAINING):
            hub.fetch_optional(record.repo_id, record.revision, sibling(record.file, name), owner)
    return file


def _elsewhere(record: Checkpoint, method: str, registered: RegisteredFiles) -> LocalCheckpoint:
    """Files that others host are not downloaded; one that the user has registered, or the same bytes, serves."""
    for own in registered.of(method):
        if own.name == record.name or (record.sha256 and own.sha256 == record.sha256):
            return resolve(replace(record, file=own.file, sha256=record.sha256 or own.sha256), method)
    check = f" (SHA-256 {record.sha256})" if record.sha256 else ""
    raise UserError(
        f"{method}@{record.name}: its file is not on the Hub; its authors host it at {record.file}{check}. Download it there, "
        f"then: mrbench checkpoints add {method} FILE --name {record.name}"
    )


def refuse_mismatch(file: Path, record: Checkpoint, found: str, owner: str, *, set_aside: bool) -> UserError:
    """The error for a file with another SHA-256 than its record. ``set_aside``: rename it, so that it is fetched anew."""
    text = f"{owner}: {file} is not the file that it should be. Refused.\n  expected SHA-256 {record.sha256}\n  found    SHA-256 {found}\n"
    if set_aside:
        try:
            kept = keep_aside(file)
        except OSError as error:
            return UserError(
                f"{text}It could not be renamed ({error.strerror or error}): remove it, then the same command works."
            )
        return UserError(f"{text}The file is kept as {kept}. The same command downloads it again.")
    if source_of(record) == "shipped":
        return UserError(f"{text}Install the package again.")
    method, _, name = owner.partition("@")
    return UserError(
        f"{text}If the change is wanted, say so: mrbench checkpoints add {method} {file} --name {name} (or name the file by @PATH)."
    )


def keep_aside(file: Path) -> Path:
    """Rename a file of huggingface-hub's cache to ``*.mismatch``; its cache then no longer holds it. Returns the new path."""
    target = file.with_name(file.name + MISMATCH)
    blob = file.resolve()
    linked = Path(os.readlink(file)) if file.is_symlink() else None
    shutil.move(blob, target)
    if linked is not None:
        file.unlink()
        (file.parent / linked).unlink(missing_ok=True)  # a link of its own where the blob is shared between caches
    return target
