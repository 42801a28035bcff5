"""Synthetic scores as blocks and as run folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrbench.stats.table import Block, Measure, make_block
from mrbench.store.manifest import ColumnInfo, DatasetInfo, Manifest, MethodInfo, ProtocolInfo
from mrbench.store.runs import RunFolder

COLUMNS = {
    "psnr": ("PSNR", True, 2, "dB", True),
    "gmsd": ("GMSD", False, 4, "", True),
    "coverage50": ("coverage", True, 3, "", False),
}
PSNR = Measure("psnr", "PSNR", True, "dB", 2, 100.0, "PSNR|L:1")

MakeBlock = Callable[..., Block]
WriteRun = Callable[..., Path]


@pytest.fixture
def block_from() -> MakeBlock:
    """A block from a matrix ``[slices, methods]`` and the subject of each slice (default: one slice per subject)."""

    def make(scores: Any, subject: Sequence[int] | None = None, measure: Measure = PSNR, names: str = "ABCDEFGHIJ") -> Block:
        table = np.asarray(scores, float)
        codes = np.arange(len(table)) if subject is None else np.asarray(subject)
        people = [f"s{i}" for i in range(codes.max() + 1)]
        return make_block(measure, {names[m]: table[:, m] for m in range(table.shape[1])}, people, codes)

    return make


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write a run folder: ``scores``: column -> values slice by slice, ``people``: subject -> slices."""

    def write(
        label: str,
        scores: Mapping[str, Sequence[float | None]],
        people: Mapping[str, int],
        *,
        tier: str = "none",
        control: bool = False,
        dataset: str = "toy",
        out: Path = tmp_path / "runs",
    ) -> Path:
        path = out / dataset / "uniform-x4" / f"{len(list(out.rglob('manifest.json')))}-key"
        items = [(f"{dataset}/{s}/vol/{i:03d}", s) for s, n in people.items() for i in range(n)]
        infos = {
            c: ColumnInfo(metric=c, signature=f"{COLUMNS[c][0]}|L:1", higher_is_better=COLUMNS[c][1], digits=COLUMNS[c][2],
                          title=COLUMNS[c][0], unit=COLUMNS[c][3], ranked=COLUMNS[c][4])
            for c in scores
        }  # fmt: skip
        rows = [
            {
                "run": path.name, "method": label, "label": label, "tier": tier, "checkpoint": "", "dataset": dataset,
                "protocol": "uniform-x4", "protocol_hash": "a" * 16, "subject": subject, "volume": "vol", "item_id": item,
                "item_hash": f"h{i}", "status": "ok", "error": "", "warning": "", "draws": 1, "seconds": 0.1, "device": "cpu",
                "precision": "fp32", "threads": 1, "batch": 4, "shard": 0, **{c: v[i] for c, v in scores.items()},
            }
            for i, (item, subject) in enumerate(items)
        ]  # fmt: skip
        run = RunFolder(path)
        run.write_part(0, rows, list(scores), {c: x.signature for c, x in infos.items()})
        run.write_manifest(
            Manifest(
                run=path.name,
                key="k",
                mrbench="0.1.0",
                items=len(items),
                subjects=len(people),
                task_hash="t",
                columns=infos,
                method=MethodInfo(name=label, label=label, tier=tier, control=control),
                dataset=DatasetInfo(name=dataset, alias=dataset),
                protocol=ProtocolInfo(name="uniform-x4", hash="a" * 16),
            )
        )
        return path

    return write


@pytest.fixture
def cohort(write_run: WriteRun, tmp_path: Path) -> Path:
    """Six methods on twelve subjects of four slices, each a little better than the one before; a control beside them."""
    rng = np.random.default_rng(7)
    people = {f"patient{i:02d}": 4 for i in range(12)}
    n = 48
    base = np.repeat(rng.normal(28, 2, 12), 4) + rng.normal(0, 1, n)
    for m, name in enumerate(["nearest", "bilinear", "bicubic", "lanczos", "sinsr", "res_srdiff"]):
        own = np.repeat(rng.normal(0, 0.3, 12), 4) + rng.normal(0, 0.2, n)
        gain = (0.0, 0.9, 1.8, 1.9, 2.6, 2.65)[m]
        psnr = base + gain + own
        scores = {"psnr": psnr.tolist(), "gmsd": (0.2 - 0.004 * (psnr - 28)).tolist(), "coverage50": [0.5] * n}
        write_run(name, scores, people)
    write_run("gt", {"psnr": [np.inf] * n, "gmsd": [0.0] * n}, people, control=True)
    return tmp_path / "runs"
