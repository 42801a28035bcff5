"""From an entry and a task to its run folder and manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import mrbench
from mrbench.engine.entries import Entry
from mrbench.engine.environment import describe, device_name, now
from mrbench.engine.task import Task
from mrbench.errors import UserError
from mrbench.plugins import Registry
from mrbench.protocol import Protocol, digest
from mrbench.store.manifest import MANIFEST, ColumnInfo, DatasetInfo, Manifest, MethodInfo, ProtocolInfo
from mrbench.store.runs import RunFolder

KEY_DIGITS = 8


@dataclass(frozen=True)
class Conditions:
    """How an entry is run: device, precision, threads, and the draws asked for."""

    device: torch.device
    precision: str = "fp32"
    threads: int = 1
    draws: int = 1

    def draws_of(self, entry: Entry) -> int:
        """Draws that an entry gives: one for a deterministic method, whatever was asked for."""
        return 1 if entry.card.deterministic else self.draws


def run_key(entry: Entry, task: Task, conditions: Conditions) -> str:
    """Hash of everything that makes this run's numbers another run's: see the design, section 3b."""
    return digest(
        {
            "method": entry.card.name,
            "version": entry.card.version,
            "code": entry.code,
            "options": entry.options.model_dump(mode="json"),
            "checkpoint": entry.checkpoint.sha256 if entry.checkpoint else "",
            "protocol": task.protocol.hash,
            "dataset": _data_key(task),
            "draws": conditions.draws_of(entry),
            "precision": conditions.precision,
            **({"track": entry.track} if entry.tuning else {}),
        },
        KEY_DIGITS,
    )


def _data_key(task: Task) -> list[Any]:
    """The data set by what it holds, not by where it is: folders may move, and another folder is another run."""
    card = task.choice.card
    options = {k: v for k, v in task.options.items() if k not in card.path_options}
    content = [digest(sorted(i.item_hash for i in task.items))] if card.path_options else []
    return [card.name, card.version, options, *content]


def run_folder(out: Path, entry: Entry, task: Task, conditions: Conditions) -> RunFolder:
    """``OUT/<data set>/<protocol>/<label>-<key>``."""
    name = f"{entry.label}-{run_key(entry, task, conditions)}"
    return RunFolder(out / task.choice.alias / task.protocol.name / name)


def other_runs(folder: RunFolder, label: str) -> list[str]:
    """Names of run folders beside a new one that have its label: other options, weights, draws, data or plugin code."""
    if folder.path.exists() or not folder.path.parent.is_dir():
        return []
    beside = sorted(p.name for p in folder.path.parent.iterdir() if (p / MANIFEST).is_file())
    return [name for name in beside if name.rpartition("-")[0] == label]


def dataset_info(task: Task) -> DatasetInfo:
    """The data set as manifests record it, with what was left out and why."""
    card = task.choice.card
    return DatasetInfo(
        name=card.name,
        alias=task.choice.alias,
        version=card.version,
        options=task.options,
        licence=card.licence,
        redistribution=card.redistribution,
        warnings=list(task.listing.warnings),
        dropped=[asdict(d) for d in task.listing.dropped],
        skipped=[asdict(s) for s in task.listing.skipped],
    )


def protocol_info(task: Task) -> ProtocolInfo:
    """The resolved protocol as manifests record it; ``source`` rebuilds it."""
    p = task.protocol
    return ProtocolInfo(
        name=p.name,
        version=p.protocol.version,
        hash=p.hash,
        rules=dict(p.rules),
        assumptions=list(p.protocol.assumptions),
        source=p.protocol.model_dump(mode="json"),
    )


def open_manifest(
    folder: RunFolder,
    entry: Entry,
    task: Task,
    conditions: Conditions,
    columns: Mapping[str, ColumnInfo],
    registry: Registry,
    nfe: int | None = None,
) -> Manifest:
    """A new manifest, or the stored one with this call's columns added.

    Raises
    ------
    UserError : a stored column has another signature than this call would give it.
    """
    card = entry.card
    manifest = Manifest(
        run=folder.path.name,
        key=folder.path.name.rpartition("-")[2],
        mrbench=mrbench.__version__,
        method=MethodInfo(
            name=card.name,
            label=entry.label,
            version=card.version,
            tier=entry.tier,
            control=card.control,
            plugin=entry.plugin,
            options=entry.options.model_dump(mode="json"),
            checkpoint=entry.checkpoint.name if entry.checkpoint else "",
            checkpoint_sha256=entry.checkpoint.sha256 if entry.checkpoint else "",
            checkpoint_reference=entry.reference,
            deterministic=card.deterministic,
            paper=card.paper,
            nfe=nfe,
            track=entry.track,
            tuning=entry.tuning.record() if entry.tuning else None,
        ),
        dataset=dataset_info(task),
        protocol=protocol_info(task),
        task_hash=task.hash,
        draws=conditions.draws_of(entry),
        precision=conditions.precision,
        device=device_name(conditions.device),
        threads=conditions.threads,
        items=len(task.items),
        subjects=task.listing.n_subjects,
        columns=dict(columns),
        environment=describe(conditions.device, conditions.threads, conditions.precision),
        plugins=[p.describe() for p in registry.plugins if p.status == "ok"],
        plugin_files=registry.files,
        created=now(),
        updated=now(),
    )
    if (folder.path / MANIFEST).is_file():
        stored = folder.manifest()
        for name, column in columns.items():
            old = stored.columns.get(name)
            if old is not None and old.signature != column.signature:
                raise UserError(
                    f"{folder.path}: column {name} is stored as {old.signature}, this call would give {column.signature}. "
                    f"Recompute it for all rows with `mrbench score {folder.path} --metrics {column.metric}` and the same --set, "
                    "or use another --out."
                )
        manifest.created = stored.created
        manifest.method.training = stored.method.training
        manifest.columns = {**stored.columns, **columns}
        manifest.images = stored.images
        manifest.notes = stored.notes
    return manifest


def refuse_unfit(entries: Sequence[Entry], p: Protocol) -> None:
    """Refuse entries that cannot work under this protocol before anything is computed (``UserError``)."""
    for entry in entries:
        card = entry.card
        if card.scales is not None and any(s not in (*card.scales, 1) for s in p.scales[-2:]):
            have = ", ".join(f"{s}x" for s in card.scales)
            raise UserError(
                f"{entry.label}: method {card.name} works at {have}; protocol {p.name} asks for {'x'.join(f'{s:g}' for s in p.scales)}."
            )
        if card.needs_operator and p.dimensions == 3:
            raise UserError(
                f"{entry.label}: method {card.name} needs a 2-D degradation operator, and protocol {p.name} degrades whole volumes. "
                "Leave it out, or choose a 2-D protocol."
            )


def run_facts(manifest: Manifest) -> dict[str, Any]:
    """The manifest as life-cycle hooks get it."""
    return manifest.model_dump(mode="json")
