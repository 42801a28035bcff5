"""Verifications: records that somebody recomputed items of a run and found its rows true.

They lie in ``RUN/verifications/*.json``. A record counts only for exactly the rows and claims that it was made for: it holds a
digest of both, and a changed row, label or signature makes it void. It is as trustworthy as whoever keeps the folder: it is not
signed, and ``mrbench verify`` takes none from the package that it looks at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from mrbench.errors import UserError
from mrbench.protocol import canonical
from mrbench.store.files import write_json
from mrbench.store.manifest import Manifest, Record
from mrbench.store.runs import CorruptPart, RunFolder

VERIFICATIONS = "verifications"
VERIFICATION_FORMAT = 1
NOT_DIGESTED = ("error",)  # texts that may name places on the disk of whoever ran


class RecomputedItem(Record):
    """One item that was recomputed. ``differences``: column -> |recomputed - stored|."""

    item_id: str
    item_hash: str
    pixel_difference: float | None = None
    differences: dict[str, float] = Field(default_factory=dict)


class Verification(Record):
    """One verification: of what, by whom, when, how, with which result. Only agreeing ones are ever written."""

    format: int = VERIFICATION_FORMAT
    run: str
    rows: str  # rows_digest
    claims: str  # claims_digest
    package: str = ""  # SHA-256 of the package file
    recomputed: list[RecomputedItem] = Field(min_length=1)
    rescored: int = 0  # restored images that came with the package, whose metrics were computed again
    of: int  # ok rows
    columns: list[str]  # metric columns that were compared
    unchecked: dict[str, str] = Field(default_factory=dict)  # metric columns that could not be computed there -> why
    tolerance: dict[str, float] = Field(default_factory=dict)
    seed: int = 0  # of the choice of items
    by: str = ""
    at: str = ""  # UTC, ISO 8601
    mrbench: str = ""
    device: str = ""
    environment: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """What the verifications on file are worth for a run. ``valid``: the newest that is of these very rows; ``void``: others."""

    valid: Verification | None = None
    void: int = 0


def rows_digest(folder: RunFolder) -> str:
    """SHA-256 over all stored rows, whatever the order and the parts that they are stored in.

    All columns count but error texts (they may name places on a disk); columns without any value do not.

    Raises
    ------
    UserError : damaged rows.
    """
    return tables_digest([_table(p) for p in folder.parts()])


def tables_digest(tables: Sequence[pa.Table]) -> str:
    """:func:`rows_digest` of rows in memory."""
    found = hashlib.sha256()
    if not tables:
        return found.hexdigest()
    table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables], promote_options="permissive")
    table = table.take(pc.sort_indices(table, sort_keys=[("item_id", "ascending"), ("error", "ascending")]))
    for name in sorted(set(table.column_names) - set(NOT_DIGESTED)):
        column = table.column(name)
        if column.null_count == len(column):
            continue
        found.update(f"\n{name}:".encode())
        if pa.types.is_floating(column.type):
            values = column.to_numpy().astype("<f8")  # null and NaN both become NaN
            values[np.isnan(values)] = np.nan  # of one bit pattern
            found.update(values.tobytes())
        else:
            found.update(pc.is_null(column).to_numpy().astype("u1").tobytes())
            texts = pc.fill_null(column.cast(pa.string()), "").to_pylist()
            found.update(np.array([len(t.encode()) for t in texts], "<i8").tobytes())
            found.update("".join(texts).encode())
    return found.hexdigest()


def _table(path: Path) -> pa.Table:
    try:
        with path.open("rb") as stream:
            return pq.ParquetFile(stream).read()
    except (pa.ArrowException, OSError) as error:
        raise CorruptPart(path, str(error).splitlines()[0]) from None


def claims_of(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says that tables print or compare by; everything else in it may change without touching a result."""
    m, d = manifest.method, manifest.dataset
    return {
        "run": manifest.run,
        "method": {
            **{k: getattr(m, k) for k in ("name", "label", "version", "tier", "control", "options", "checkpoint")},
            **{k: getattr(m, k) for k in ("checkpoint_sha256", "track", "tuning", "training", "parameters")},
        },
        "dataset": {"name": d.name, "alias": d.alias, "version": d.version},
        "protocol": [manifest.protocol.name, manifest.protocol.hash],
        "task": manifest.task_hash,
        "draws": manifest.draws,
        "precision": manifest.precision,
        "items": manifest.items,
        "subjects": manifest.subjects,
        "partial": manifest.partial,
        "columns": {k: c.model_dump(mode="json", exclude={"digits", "title"}) for k, c in manifest.columns.items()},
    }


def claims_digest(manifest: Manifest) -> str:
    """SHA-256 of :func:`claims_of`."""
    return hashlib.sha256(canonical(claims_of(manifest)).encode()).hexdigest()


def write_verification(folder: Path, record: Verification) -> Path:
    """Put a record on file for the run in ``folder``; its name is that of the rows and the time."""
    stamp = "".join(c for c in record.at if c.isalnum())[:15] or "undated"
    path = folder / VERIFICATIONS / f"{record.rows[:16]}-{stamp}.json"
    write_json(path, record.model_dump(mode="json"))
    return path


def read_verification(path: Path) -> Verification:
    """Read one record.

    Raises
    ------
    UserError : not a verification, or of a newer format.
    """
    try:
        record = Verification.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{path}: cannot be read as a verification ({str(error).splitlines()[0]}).") from None
    if record.format > VERIFICATION_FORMAT:
        raise UserError(
            f"{path}: format {record.format} is newer than this mrbench reads ({VERIFICATION_FORMAT}). Update mrbench."
        )
    return record


def standing_of(folder: Path, manifest: Manifest) -> Standing:
    """What is on file for the run in ``folder``: looked up again every time, against its rows as they are now.

    Records that cannot be read count as void, and so do all of a run whose rows are damaged.
    """
    files = sorted((folder / VERIFICATIONS).glob("*.json")) if (folder / VERIFICATIONS).is_dir() else []
    if not files:
        return Standing()
    records = []
    try:
        rows, claims = rows_digest(RunFolder(folder)), claims_digest(manifest)
    except UserError:
        return Standing(void=len(files))
    for path in files:
        try:
            record = read_verification(path)
        except UserError:
            continue
        if (record.rows, record.claims, record.run) == (rows, claims, manifest.run):
            records.append(record)
    return Standing(max(records, key=lambda r: r.at, default=None), len(files) - len(records))
