"""Restored images and the ground truth that they were compared with, as plain ``.npz`` files (never pickled).

Estimates are float32 and unclipped, ``[K, C, H, W]`` per item, so that any metric can be recomputed from them exactly.
The truth of an item (``hr``, ``y``, ``mask``) is shared by all runs of a task:
``OUT/<data set>/<protocol>/truth-<protocol hash>/<item hash>.npz``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrbench.errors import UserError
from mrbench.store.files import write_atomic

IMAGES = "images"


def image_file(run: Path, shard: int) -> Path:
    """Where the restored images of a shard lie."""
    return run / IMAGES / f"shard-{shard:05d}.npz"


def write_images(run: Path, shard: int, images: Mapping[str, NDArray[np.float32]]) -> None:
    """Store the estimates of a shard, item id -> ``[K, C, H, W]``."""
    ids = list(images)
    arrays = {f"item{i}": np.ascontiguousarray(images[key]) for i, key in enumerate(ids)}
    arrays["ids"] = np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)
    write_atomic(image_file(run, shard), lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]


def read_images(run: Path, shard: int, only: set[str] | None = None) -> dict[str, NDArray[np.float32]]:
    """The stored estimates of a shard (those in ``only``), or an empty mapping where none were stored.

    Raises
    ------
    UserError : a damaged file.
    """
    path = image_file(run, shard)
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            ids = json.loads(arrays["ids"].tobytes().decode())
            return {key: arrays[f"item{i}"] for i, key in enumerate(ids) if only is None or key in only}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged images ({error}). Delete the file and its rows, and run again.") from None


def truth_file(run: Path, protocol_hash: str, item_hash: str) -> Path:
    """Where the ground truth of an item lies, for a run folder of that protocol."""
    return run.parent / f"truth-{protocol_hash}" / f"{item_hash}.npz"


def write_truth(path: Path, hr: NDArray[np.float32], y: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    """Store ground truth ``[C, H, W]``, measurement ``[C, h, w]`` and foreground mask ``[H, W]`` unless they are there."""
    if not path.is_file():
        write_atomic(path, lambda stream: np.savez(stream, hr=hr, y=y, mask=mask))


def read_truth(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]] | None:
    """``(hr, y, mask)``, or ``None`` where they were not stored. Raises ``UserError`` for a damaged file."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return arrays["hr"], arrays["y"], arrays["mask"].astype(bool)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ground truth ({error}). Delete it and run again.") from None
