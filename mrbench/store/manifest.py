"""The manifest of a run folder: what was run, under which rules, on what, with which versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mrbench.errors import UserError

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1


class Record(BaseModel):
    """Base of stored records. Unknown fields of newer versions are kept, so that old code still reads new files."""

    model_config = ConfigDict(extra="allow")


class MethodInfo(Record):
    """The entry: method, options, weights."""

    name: str
    label: str
    version: str = "1"
    tier: str = "none"
    control: bool = False
    plugin: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str = ""
    checkpoint_sha256: str = ""
    checkpoint_reference: str = ""  # what after @ finds it again: a name, a path, or hf:// with a commit
    deterministic: bool = True
    paper: str = ""
    nfe: int | None = None  # network calls per slice
    track: str = ""  # how the options came about: default | set (by hand) | tuned(N) by N trials
    tuning: dict[str, Any] | None = None  # of tuned ones: file, objective, trials, data sets
    training: str = ""  # whom the weights were trained on: unknown | apart (nobody here) | overlap (run with --allow-leak)
    parameters: int | None = None  # trained numbers of all its networks; null: no network, or the run does not say
    recipe: dict[str, Any] | None = None  # how mrbench trained the weights: preset, stages, options, factors of ablations


class DatasetInfo(Record):
    """The data set as it was read."""

    name: str
    alias: str
    version: str = "1"
    options: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
    redistribution: str = "none"
    warnings: list[str] = Field(default_factory=list)
    dropped: list[dict[str, Any]] = Field(default_factory=list)  # slices left out by the foreground rule
    skipped: list[dict[str, Any]] = Field(default_factory=list)  # files that could not be used


class ProtocolInfo(Record):
    """The resolved protocol (see ``mrbench.protocol.ResolvedProtocol.document``)."""

    name: str
    version: int = 1
    hash: str
    rules: dict[str, Any] = Field(default_factory=dict)
    assumptions: list[str] = Field(default_factory=list)
    source: dict[str, Any] = Field(default_factory=dict)  # the protocol's text, to compute it again


class ColumnInfo(Record):
    """A metric column: how to print and rank it, and its signature."""

    metric: str
    signature: str
    higher_is_better: bool = True
    digits: int = 4
    title: str = ""
    unit: str = ""
    ranked: bool = True  # False for @best, which is never ranked
    options: dict[str, Any] = Field(default_factory=dict)  # of the metric, to compute it again


class Manifest(Record):
    """``manifest.json`` of a run folder."""

    format: int = MANIFEST_FORMAT
    run: str
    key: str
    mrbench: str
    method: MethodInfo
    dataset: DatasetInfo
    protocol: ProtocolInfo
    task_hash: str
    draws: int = 1
    precision: str = "fp32"
    device: str = ""
    threads: int = 1
    items: int  # items of the task, before --subset and --limit
    subjects: int
    partial: bool = False  # stored rows do not cover all items of the task
    columns: dict[str, ColumnInfo] = Field(default_factory=dict)
    unavailable: dict[str, str] = Field(default_factory=dict)  # column -> why it is n/a
    images: bool = False
    environment: dict[str, Any] = Field(default_factory=dict)
    plugins: list[str] = Field(default_factory=list)
    plugin_files: list[str] = Field(default_factory=list)
    created: str = ""
    updated: str = ""
    notes: list[str] = Field(default_factory=list)


def read_manifest(folder: Path) -> Manifest:
    """Read and validate ``manifest.json``.

    Raises
    ------
    UserError : missing, not JSON, or of a newer format than this version reads.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest.model_validate(document)
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run folder: it has no {MANIFEST}. Run folders are made by `mrbench run`.") from None
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{path}: cannot be read as a manifest ({str(error).splitlines()[0]}).") from None
    if manifest.format > MANIFEST_FORMAT:
        raise UserError(
            f"{path}: format {manifest.format} is newer than this mrbench reads ({MANIFEST_FORMAT}). Update mrbench."
        )
    return manifest
