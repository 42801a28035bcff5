"""The files below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def files_below(root: Path, enter: Callable[[str], bool] | None = None) -> list[Path]:
    """All files below ``root`` in the order of their relative paths, without hidden files and folders.

    Links to folders are followed, each real folder once.

    Parameters
    ----------
    root : folder.
    enter : whether to look into a subfolder, by its name (default: every one that is not hidden).
    """
    found: list[Path] = []
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and (enter is None or enter(name)))
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())
