"""The result of a tuning: ``tuned/NAME.json``, which ``mrbench run --set LABEL.tuned=FILE`` takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mrbench.errors import UserError
from mrbench.store.files import write_json
from mrbench.store.manifest import Record

TUNED_FORMAT = 1
AGGREGATION = "mean over subjects of their means over slices"


class TunedMethod(Record):
    """What was tuned: method and weights."""

    name: str
    version: str = "1"
    plugin: str = ""
    checkpoint: str = ""
    checkpoint_sha256: str = ""
    checkpoint_reference: str = ""


class TunedProtocol(Record):
    """The rules. ``hash`` is the protocol's own, which runs have; ``validation_hash`` that of the trials, on val subjects."""

    name: str
    hash: str
    validation_hash: str


class TunedData(Record):
    """A data set that was tuned on, and how many of its validation slices and subjects were used."""

    alias: str
    name: str
    version: str = "1"
    options: dict[str, Any] = Field(default_factory=dict)  # places on disk by their last part only
    licence: str = ""
    items: int
    subjects: int


class ObjectiveInfo(Record):
    """What was made as good as possible."""

    column: str
    metric: str
    signature: str
    higher_is_better: bool
    draws: int = 1
    aggregation: str = AGGREGATION


class TrialRecord(Record):
    """One trial. ``values``: what was searched; ``options``: all options; ``runs``: its run folders, relative to the file's."""

    trial: int
    values: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    status: str = "ok"  # ok | failed
    score: float | None = None
    error: str = ""
    items: int = 0  # with a value
    seconds_per_item: float | None = None
    runs: list[str] = Field(default_factory=list)


class TunedResult(Record):
    """A whole tuning. ``subjects``: SHA-256 of the ids of those tuned on; ``items``: content hashes of the slices."""

    format: int = TUNED_FORMAT
    name: str
    mrbench: str = ""
    created: str = ""
    method: TunedMethod
    protocol: TunedProtocol
    datasets: list[TunedData]
    subjects: list[str]
    items: list[str] = Field(default_factory=list)
    objective: ObjectiveInfo
    space: dict[str, dict[str, Any]]
    fixed: dict[str, Any] = Field(default_factory=dict)  # options given by hand, equal in all trials
    seed: int = 0
    device: str = ""
    precision: str = "fp32"
    trials: list[TrialRecord]
    winner: int | None = None  # number of the best trial; none: all failed

    @property
    def best(self) -> TrialRecord | None:
        """The winning trial."""
        return next((t for t in self.trials if t.trial == self.winner), None)

    @property
    def track(self) -> str:
        """What boards call it: ``tuned(N)``, after the number of trials."""
        return f"tuned({len(self.trials)})"


def read_tuned(path: Path) -> TunedResult:
    """Read and validate a tuning's result.

    Raises
    ------
    UserError : missing, no result of a tuning, or of a newer format than this version reads.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        result = TunedResult.model_validate(document)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. `mrbench tune METHOD --dataset D --space auto --trials N` writes one."
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{path}: is no result of `mrbench tune` ({str(error).splitlines()[0]}).") from None
    if result.format > TUNED_FORMAT:
        raise UserError(f"{path}: format {result.format} is newer than this mrbench reads ({TUNED_FORMAT}). Update mrbench.")
    return result


def write_tuned(path: Path, result: TunedResult) -> None:
    """Store the result, atomically."""
    write_json(path, result.model_dump(mode="json"))
