"""The stored images of an item, as pictures show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.text import clean
from mrbench.store.images import read_images, read_truth, truth_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData

STORE_THEM = "Store them with `mrbench run ... --images all` (the same command as before; rows that are there are kept)."


@dataclass(frozen=True)
class Truth:
    """What an item is compared with: ``hr [C, H, W]``, ``y [C, h, w]``, ``mask [H, W]``."""

    hr: NDArray[np.float32]
    y: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A method's first draw ``[C, H, W]``, unclipped, or ``None`` with the ``reason``; and the item's scores."""

    image: NDArray[np.float32] | None
    reason: str
    scores: dict[str, float]


def grey(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[C, H, W]`` as a picture in [0, 1]: magnitude of complex images ``[H, W]``, colour as ``[H, W, 3]``."""
    if image.shape[0] == 2:
        shown = np.sqrt((image.astype(np.float64) ** 2).sum(0))
    elif image.shape[0] == 3:
        shown = np.moveaxis(image, 0, -1)
    else:
        shown = image[0]
    clipped: NDArray[np.float32] = np.clip(shown, 0, 1).astype(np.float32)
    return clipped


def error_map(estimate: NDArray[np.float32], hr: NDArray[np.float32]) -> NDArray[np.float32]:
    """``|estimate - HR|`` of what is shown, ``[H, W]`` (mean over the channels of colour images)."""
    difference = np.abs(grey(estimate).astype(np.float64) - grey(hr))
    return (difference.mean(-1) if difference.ndim == 3 else difference).astype(np.float32)


def truth_of(runs: Sequence[RunData], item_id: str) -> Truth:
    """The stored ground truth of an item, from the first run that has it.

    Raises
    ------
    UserError : no run has the item, runs hold different content under its name, or no ground truth was stored.
    """
    hashes: dict[str, RunData] = {}
    for run in runs:
        row = row_of(run, item_id)
        digest = row.get("item_hash") if row else None
        if isinstance(digest, str) and digest:
            hashes.setdefault(digest, run)
    if not hashes:
        raise UserError(f"none of the runs has an item {item_id!r}. `mrbench show RUN` lists items.")
    if len(hashes) > 1:
        who = ", ".join(f"{clean(r.label)} ({h})" for h, r in hashes.items())
        raise UserError(f"{item_id}: the runs hold different content under this name: {who}. Run again on the same data.")
    content = next(iter(hashes))
    for run in runs:
        stored = read_truth(truth_file(run.folder, run.manifest.protocol.hash, content))
        if stored is not None:
            return Truth(*stored)
    raise UserError(f"{item_id}: its ground truth was not stored, so there is no picture to make. {STORE_THEM}")


def estimate_of(run: RunData, item_id: str) -> Estimate:
    """The stored first draw of an item.

    Raises
    ------
    UserError : the item was restored but its image was not stored.
    """
    from mrbench.store.runs import RunFolder

    row = row_of(run, item_id)
    if row is None:
        return Estimate(None, "not in this run", {})
    if row["status"] != "ok":
        return Estimate(None, f"{row['status']}: {clean(row['error'])}", {})
    scores = {c: float(row[c]) for c in run.manifest.columns if c in row and row[c] is not None and not np.isnan(row[c])}
    _, shards = RunFolder(run.folder).plan()
    for shard in shards:
        if item_id in shard.items:
            stored = read_images(run.folder, shard.number, {item_id})
            if item_id in stored:
                return Estimate(stored[item_id][0], "", scores)
    raise UserError(f"{clean(run.label)} ({run.folder}): the restored image of {item_id} was not stored. {STORE_THEM}")


def row_of(run: RunData, item_id: str) -> dict[str, Any] | None:
    """The row of an item, or ``None``."""
    if "item_id" not in run.rows:
        return None
    found = run.rows[run.rows["item_id"] == item_id]
    if not len(found):
        return None
    return {str(name): value for name, value in found.iloc[-1].items()}
