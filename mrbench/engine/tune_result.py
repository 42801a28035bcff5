"""What a tuning leaves: its result file, and the check that an earlier one of that name is of the same tuning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mrbench
from mrbench.data.items import ItemRef
from mrbench.data.leaks import subject_hash
from mrbench.engine.entries import DatasetChoice, Entry
from mrbench.engine.environment import device_name, now
from mrbench.engine.folders import Conditions
from mrbench.engine.task import Task, absolute_options
from mrbench.engine.tune import Objective
from mrbench.errors import UserError
from mrbench.protocol import ResolvedProtocol
from mrbench.store.tuned import TrialRecord, TunedData, TunedMethod, TunedProtocol, TunedResult, read_tuned
from mrbench.tuning_space import Space

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")


def result_file(out: Path, name: str) -> Path:
    """``OUT/NAME.json`` (``UserError`` for names that are no file names, or an ``OUT`` that is a file)."""
    if not _NAME.match(name):
        raise UserError(f"--name {name}: names start with a letter or digit and hold letters, digits and _ . + -.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    return out / f"{name}.json"


def default_name(entry: Entry, protocol: str, column: str) -> str:
    """``dps-x4-psnr-mean``."""
    return f"{entry.card.name}-{protocol.removeprefix('uniform-')}-{column.replace('@', '-')}"


def refuse_other(file: Path, entry: Entry, protocol: ResolvedProtocol, choices: Sequence[DatasetChoice], column: str) -> None:
    """Refuse to replace the result of another tuning (``UserError`` naming what differs). One of the same question is replaced."""
    if not file.exists():
        return
    stored = read_tuned(file)
    was = {
        "method": stored.method.name,
        "weights": stored.method.checkpoint_sha256[:12],
        "protocol": f"{stored.protocol.name} {stored.protocol.hash}",
        "data sets": ", ".join(f"{d.alias}={d.name}" for d in stored.datasets),
        "objective": stored.objective.column,
    }
    asked = {
        "method": entry.card.name,
        "weights": entry.checkpoint.sha256[:12] if entry.checkpoint else "",
        "protocol": f"{protocol.name} {protocol.hash}",
        "data sets": ", ".join(f"{c.alias}={c.card.name}" for c in choices),
        "objective": column,
    }
    differing = [f"{k} {was[k] or 'none'}, not {asked[k] or 'none'}" for k in was if was[k] != asked[k]]
    if differing:
        raise UserError(
            f"{file}: holds the result of another tuning ({'; '.join(differing)}). Give this one a --name of its own."
        )


def make_result(
    name: str,
    entry: Entry,
    protocol: ResolvedProtocol,
    tasks: Sequence[Task],
    chosen: Sequence[Sequence[ItemRef]],
    objective: Objective,
    space: Space,
    fixed: Mapping[str, Any],
    seed: int,
    conditions: Conditions,
    trials: Sequence[TrialRecord],
    winner: int | None,
) -> TunedResult:
    """The result of a tuning.

    Parameters
    ----------
    protocol : as runs follow it; ``tasks`` follow it on validation subjects. chosen : the items, by task.
    """
    items = [i for part in chosen for i in part]
    return TunedResult(
        name=name,
        mrbench=mrbench.__version__,
        created=now(),
        method=TunedMethod(
            name=entry.card.name,
            version=entry.card.version,
            plugin=entry.plugin,
            checkpoint=entry.checkpoint.name if entry.checkpoint else "",
            checkpoint_sha256=entry.checkpoint.sha256 if entry.checkpoint else "",
            checkpoint_reference=entry.reference,
        ),
        protocol=TunedProtocol(name=protocol.name, hash=protocol.hash, validation_hash=tasks[0].protocol.hash),
        datasets=[_data(task, part) for task, part in zip(tasks, chosen, strict=True)],
        subjects=sorted({subject_hash(i.subject) for i in items}),
        items=sorted({i.item_hash for i in items}),
        objective=objective.info,
        space={key: dimension.document() for key, dimension in space.items()},
        fixed=dict(fixed),
        seed=seed,
        device=device_name(conditions.device),
        precision=conditions.precision,
        trials=list(trials),
        winner=winner,
    )


def _data(task: Task, chosen: Sequence[ItemRef]) -> TunedData:
    card = task.choice.card
    options = {
        k: Path(str(v)).name if k in card.path_options and v else v
        for k, v in absolute_options(task.choice).items()
        if v is not None
    }
    return TunedData(
        alias=task.choice.alias,
        name=card.name,
        version=card.version,
        options=options,
        licence=card.licence,
        items=len(chosen),
        subjects=len({i.subject for i in chosen}),
    )
