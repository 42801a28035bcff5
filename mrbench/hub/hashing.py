"""SHA-256 of weights files, remembered within a process while size and modification time stay."""

from __future__ import annotations

import hashlib
import re
import time
from functools import lru_cache
from pathlib import Path

from mrbench.errors import UserError

_FRESH_NS = 2_000_000_000  # a file changed this recently may change again within one tick of its clock: not remembered
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether ``text`` is a SHA-256 in lower-case hex."""
    return _SHA256.fullmatch(text) is not None


def weights_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises
    ------
    UserError : the file cannot be read.
    """
    try:
        status = file.stat()
        if time.time_ns() - status.st_mtime_ns < _FRESH_NS:
            return _digest(file)
        return _remembered(file.resolve(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}). Check the path and its permissions.") from None


@lru_cache(maxsize=256)
def _remembered(file: Path, size: int, modified: int) -> str:
    return _digest(file)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
