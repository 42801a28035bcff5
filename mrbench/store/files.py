"""Writing files so that a kill at any moment leaves either the old content or the new one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY = ".tmp-"


def write_atomic(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write to a temporary file beside ``path``, flush it to disk, rename it over ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            _hold(stream)
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as indented JSON, atomically."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode())

    write_atomic(path, write)


def remove_leftovers(folder: Path, older_than: float) -> None:
    """Delete temporary files that a killed process left in ``folder`` before the time ``older_than`` (epoch seconds).

    Clocks jump, so age alone proves nothing: a file that a living process holds is left alone.
    """
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < older_than:
                with path.open("rb") as stream:
                    abandoned = _hold(stream)
                if abandoned:
                    path.unlink()


def _hold(stream: BinaryIO) -> bool:
    """Mark a temporary file as being written until it is closed; ``False`` if another process holds it."""
    try:
        import fcntl
    except ImportError:  # not on this system: age has to do
        return True
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def umask() -> int:
    """The permissions that this process takes from new files; those of temporary folders are narrower."""
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
