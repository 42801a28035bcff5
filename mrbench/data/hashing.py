"""SHA-256 of source files, remembered by path, size and time so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from mrbench.errors import DataError

_FRESH_NS = 2_000_000_000  # a file changed this recently may change again within one tick of its clock: not remembered


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises
    ------
    DataError : the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            path, f"it cannot be read: {error.strerror or error}.", "Check the path and its permissions."
        ) from error


def content_hashes(files: Sequence[Path], store: Path) -> tuple[str, ...]:
    """SHA-256 of each file, in order.

    ``store`` is a folder with one small JSON file for each list of files; a file whose size and modification time are as
    remembered is not read. Processes may share it: records are replaced atomically, and a damaged or unwritable one only
    costs a new look at the files.

    Raises
    ------
    DataError : a file cannot be read.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    name = hashlib.sha256("\n".join(map(str, paths)).encode("utf-8", "surrogateescape")).hexdigest()
    record = store / name[:2] / f"{name}.json"
    known = _remembered(record, len(paths))
    stamps = [_stamp(path) for path in paths]
    hashes = tuple(
        old[2] if old is not None and (old[0], old[1]) == stamp else file_sha256(path)
        for path, stamp, old in zip(paths, stamps, known, strict=True)
    )
    entries = [(*stamp, digest) for stamp, digest in zip(stamps, hashes, strict=True)]
    settled = all(time.time_ns() - stamp[1] > _FRESH_NS for stamp in stamps) and stamps == [_stamp(path) for path in paths]
    if settled and entries != known:
        with contextlib.suppress(OSError):  # a read-only cache is still a cache
            _write(record, json.dumps(entries))
    return hashes


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            path, f"it cannot be read: {error.strerror or error}.", "Check the path and its permissions."
        ) from error
    return status.st_size, status.st_mtime_ns


def _remembered(record: Path, count: int) -> list[tuple[int, int, str] | None]:
    try:
        entries = [(int(size), int(stamp), str(digest)) for size, stamp, digest in json.loads(record.read_text())]
    except (OSError, ValueError, TypeError):
        return [None] * count
    return list(entries) if len(entries) == count and all(len(e[2]) == 64 for e in entries) else [None] * count


def _write(record: Path, text: str) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    temporary = record.with_name(f"{record.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(text)
    os.replace(temporary, record)
