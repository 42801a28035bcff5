"""Images that were made from a pack, in any framework or container, become an ordinary run of tier ``files``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mrbench.data.items import ItemRef, Progress
from mrbench.engine.draw_files import draws_in, read_draws
from mrbench.engine.entries import check_label
from mrbench.engine.external import LIST, Given, Imported, Matching, match_files, run_files
from mrbench.engine.folders import Conditions
from mrbench.engine.imagefiles import few
from mrbench.engine.packs import Pack
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Task
from mrbench.engine.verify import reopen_task
from mrbench.errors import DataError, MrbenchError, UserError
from mrbench.plugins import Registry


@dataclass(frozen=True)
class Predictions:
    """A folder of restored images under a label. ``declared``: stored values that become 0 and 1; ``draws``: asked for, if so."""

    folder: Path
    label: str
    declared: tuple[float, float] | None = None
    draws: int | None = None


def open_pack(
    pack: Pack, registry: Registry, given: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> tuple[Task, list[ItemRef]]:
    """The task of a pack and its items, from the data set at hand (the ground truth is not in the pack).

    Parameters
    ----------
    given : options of the data set that hold here, such as its folder.

    Raises
    ------
    UserError : the data set is not at hand, does not hold the pack's items, or holds others under their names; or the rules mean
        something else with this version of mrbench.
    """
    try:
        task = reopen_task("the pack", pack.dataset, pack.protocol, pack.mrbench, registry, progress, given)
    except UserError as error:
        needed = f"the ground truth is made from the data set {pack.dataset.alias}, which must be at hand"
        raise UserError(
            f"{needed} (name its folder with --set {pack.dataset.alias}.path=DIR where it has one): {error}"
        ) from None
    here = {i.item_id: i for i in task.items}
    lacking = [i.item_id for i in pack.items if i.item_id not in here]
    if lacking:
        raise UserError(
            f"the data set {pack.dataset.alias} here does not hold {len(lacking)} of the pack's {len(pack.items)} items: {few(lacking)}. "
            "It is not the data set that the pack was made from, or files are missing."
        )
    changed = [i.item_id for i in pack.items if here[i.item_id].item_hash != i.item_hash]
    if changed:
        first = next(i for i in pack.items if i.item_id == changed[0])
        raise UserError(
            f"{len(changed)} of the pack's {len(pack.items)} items have another content here: {few(changed)} (content hash "
            f"{here[first.item_id].item_hash}, in the pack {first.item_hash}). The data set is another one, or it changed."
        )
    wanted = {i.item_id for i in pack.items}
    return task, [i for i in task.items if i.item_id in wanted]


@dataclass(frozen=True)
class Matched:
    """Predictions with the files of each item, and the number of draws that every item should have."""

    predictions: Predictions
    matching: Matching
    draws: int


def match_predictions(items: Sequence[ItemRef], predictions: Predictions) -> Matched:
    """Find the files of every item.

    Raises
    ------
    UserError : bad label, no file for any item, two files for one (see :func:`mrbench.engine.external.match_files`), or no file
        that is an image of its item.
    """
    check_label(predictions.label, f"--label {predictions.label}")
    matching = match_files(predictions.folder, items, several=True)
    return Matched(predictions, matching, predictions.draws or _draws(matching, items, predictions.folder))


def import_predictions(
    pack: Pack,
    task: Task,
    items: Sequence[ItemRef],
    matched: Matched,
    scorer: Scorer,
    device: torch.device,
    threads: int,
    out: Path,
    registry: Registry,
) -> Imported:
    """Score restored images of a pack as a run below ``out``; ``task`` and ``items`` come from :func:`open_pack`.

    Items without a file become skipped rows, files of another shape or number of draws failed ones.
    """
    predictions, draws = matched.predictions, matched.draws
    read = partial(read_draws, declared=predictions.declared)
    notes = (f"made from the pack {pack.digest[:16]} (task {pack.task_hash})",)
    given = Given(predictions.folder, predictions.label, matched.matching, read, predictions.declared, notes)
    done = run_files(given, task, items, scorer, Conditions(device, threads=threads, draws=draws), out, registry)
    if 1 < pack.draws != draws:
        done.warnings.append(f"{pack.draws} draws were asked for, these images have {draws}")
    return done


def _draws(matching: Matching, items: Sequence[ItemRef], folder: Path) -> int:
    """As many draws as the first item has whose files can be read."""
    reasons: list[MrbenchError] = []
    for item in items:
        files = matching.files.get(item.item_id)
        if files is None:
            continue
        try:
            return draws_in(files, item.shape)
        except DataError as error:
            reasons.append(error)
    raise UserError(f"{folder}: no file is an image of its item. First reason: {reasons[0] if reasons else f'{LIST} is empty'}")


__all__ = ["Matched", "Predictions", "import_predictions", "match_predictions", "open_pack"]
