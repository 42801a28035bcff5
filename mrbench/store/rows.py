"""The row: what one item leaves. Its columns are the public format of mrbench's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import pyarrow as pa

FORMAT_VERSION = 1
SIGNATURE = "mrbench.signature."  # begins the metadata keys of a part's schema

Status = Literal["ok", "failed", "skipped", "oom"]


class Row(TypedDict):
    """One item under one entry. Metric columns (float64, ``psnr``, ``psnr@mean``, ``psnr_fg`` ...) stand beside these."""

    run: str  # name of the run folder, "<label>-<key>"
    method: str  # the method's registered name
    label: str  # the entry's label, unique in a run command
    tier: str  # where the weights come from: none | demo | retrained | official | author | files
    checkpoint: str  # name or hash of the weights, "" if none
    dataset: str  # the data set's alias
    protocol: str  # protocol name
    protocol_hash: str  # protocol hash
    subject: str  # subject key
    volume: str  # volume key
    item_id: str  # data set/subject/volume/slice
    item_hash: str  # hash of source bytes, slice and preparation
    status: str  # ok | failed | skipped | oom
    error: str  # why not ok
    warning: str  # what a reader of this number should know
    draws: int  # posterior samples drawn
    seconds: float  # method time per item (batch time / batch size), warm-up, loading and metrics excluded
    nfe: int | None  # network calls for this item; null: no network
    peak_memory: float | None  # bytes of device memory during the batch; null on the CPU
    device: str  # e.g. "cpu" or "cuda:0 (card name)"
    precision: str  # fp32 | bf16 | fp16
    threads: int  # CPU threads of the engine
    batch: int  # items in the method's batch
    shard: int  # number of the shard (and of its Parquet part)


_TYPES: dict[str, pa.DataType] = {
    **{name: pa.string() for name in Row.__annotations__},
    "draws": pa.int32(),
    "seconds": pa.float64(),
    "nfe": pa.int64(),
    "peak_memory": pa.float64(),
    "threads": pa.int32(),
    "batch": pa.int32(),
    "shard": pa.int32(),
}

FIXED_COLUMNS: tuple[str, ...] = tuple(_TYPES)
MEASURED_COLUMNS = ("seconds", "peak_memory", "device", "threads", "batch")  # may differ between equal runs


def metric_columns(names: Iterable[str]) -> list[str]:
    """The columns that are not fixed ones, in their order."""
    return [n for n in names if n not in _TYPES]


def signatures_of(table: pa.Table) -> dict[str, str]:
    """The signatures that travel with a part, by metric column."""
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return {k.removeprefix(SIGNATURE): v for k, v in metadata.items() if k.startswith(SIGNATURE)}


def to_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], signatures: Mapping[str, str]) -> pa.Table:
    """Rows as an Arrow table: fixed columns first, then ``metrics`` as float64 (absent values are null).

    The signatures of the metric columns travel in the schema's metadata under ``mrbench.signature.<column>``.
    """
    fields = [pa.field(name, kind) for name, kind in _TYPES.items()]
    fields += [pa.field(name, pa.float64()) for name in metrics]
    metadata = {"mrbench.format": str(FORMAT_VERSION)}
    metadata |= {SIGNATURE + name: signatures[name] for name in metrics if name in signatures}
    schema = pa.schema(fields, metadata=metadata)
    columns = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)
