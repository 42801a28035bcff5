"""Perceptual hashes of many picture files, remembered by path, size and time so that unchanged files are not decoded again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from mrbench.data.grey import luminance
from mrbench.data.images import read_image
from mrbench.data.phash import phash
from mrbench.errors import DataError

_VERSION = 1  # of the hash: another number, another record


def picture_hashes(files: Sequence[Path], root: Path, store: Path) -> list[int | DataError]:
    """The perceptual hash (:func:`mrbench.data.phash.phash` of the luminance) of each file, or why it has none.

    Parameters
    ----------
    files : below ``root``.
    root : names the record in ``store``, a folder; a record that is damaged or cannot be written only costs time.
    """
    record = (
        store / f"{hashlib.sha256(f'{_VERSION}|{os.path.abspath(root)}'.encode('utf-8', 'surrogateescape')).hexdigest()}.json"
    )
    known = _remembered(record)
    fresh: dict[str, list[int | str]] = {}
    result: list[int | DataError] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            status = file.stat()
            stamp: list[int | str] = [status.st_size, status.st_mtime_ns]
            old = known.get(name, [])
            value = int(str(old[2]), 16) if old[:2] == stamp else phash(luminance(read_image(file))[0])
        except DataError as error:
            result.append(error)
            continue
        except OSError as error:
            result.append(DataError(file, f"it cannot be read: {error.strerror or error}.", "Check its permissions."))
            continue
        fresh[name] = [*stamp, f"{value:016x}"]
        result.append(value)
    if any(known.get(name) != entry for name, entry in fresh.items()):
        with contextlib.suppress(OSError):
            _write(record, json.dumps(known | fresh))
    return result


def _remembered(record: Path) -> dict[str, list[int | str]]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return {
            name: [int(size), int(time), f"{int(value, 16):016x}"]
            for name, (size, time, value) in found.items()
            if len(value) == 16
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write(record: Path, text: str) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    aside = record.with_name(f".{record.name}.{uuid.uuid4().hex}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, record)
    finally:
        aside.unlink(missing_ok=True)
