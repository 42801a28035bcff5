"""What a large comparison costs: leaderboard and statistics of 10 methods x 1,000 subjects x 100 slices.

The board is that of ``mrbench leaderboard --significance --ci``: means, marks, letters, tests of all pairs of methods in every metric,
and bootstrap intervals with 10,000 resamples of subjects, rendered as Markdown.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SECONDS, MIB = 10.0, 1536.0  # the most that 1,000,000 rows may take


def write_runs(folder: Path, rows: int, methods: int = 10, slices: int = 100, part: int = 10_000) -> None:
    """``methods`` run folders of ``rows / methods`` rows each, in parts of ``part`` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mrbench.store.manifest import ColumnInfo, DatasetInfo, Manifest, MethodInfo, ProtocolInfo
    from mrbench.store.rows import to_table
    from mrbench.store.runs import RunFolder

    rng = np.random.default_rng(0)
    items = rows // methods
    subjects = items // slices
    names = [f"subject{i:05d}" for i in range(subjects)]
    subject = np.repeat(np.array(names, dtype=object), slices)
    ids = [f"large/{s}/volume/{i:03d}" for s in names for i in range(slices)]
    hashes = [f"{i:016x}" for i in range(items)]
    titles = {
        "psnr": ("PSNR", True, 2, "dB"),
        "ssim": ("SSIM", True, 4, ""),
        "gmsd": ("GMSD", False, 4, ""),
        "nmse": ("NMSE", False, 4, ""),
    }
    infos = {
        n: ColumnInfo(metric=n, signature=f"{t}|L:1", higher_is_better=up, digits=digits, title=t, unit=unit)
        for n, (t, up, digits, unit) in titles.items()
    }
    schema = to_table([], list(titles), {n: i.signature for n, i in infos.items()}).schema
    base = rng.normal(28, 2, items)
    for m in range(methods):
        path = folder / "large" / "uniform-x4" / f"method{m}-key"
        run = RunFolder(path)
        psnr = base + 0.05 * m + np.repeat(rng.normal(0, 0.2, subjects), slices) + rng.normal(0, 0.3, items)
        scores = {
            "psnr": psnr,
            "ssim": 1 / (1 + np.exp(-(psnr - 20) / 5)),
            "gmsd": 0.4 - psnr / 100,
            "nmse": 10 ** (-psnr / 10),
        }
        constant = {
            "run": path.name, "method": f"method{m}", "label": f"method{m}", "tier": "none", "checkpoint": "", "dataset": "large",
            "protocol": "uniform-x4", "protocol_hash": "f" * 16, "volume": "volume", "status": "ok", "error": "", "warning": "",
            "draws": 1, "seconds": 0.01, "nfe": None, "peak_memory": None, "device": "cpu", "precision": "fp32", "threads": 1,
            "batch": 16,
        }  # fmt: skip
        for shard, start in enumerate(range(0, items, part)):
            chosen = slice(start, min(start + part, items))
            count = chosen.stop - start
            own = {
                "subject": subject[chosen],
                "item_id": ids[chosen],
                "item_hash": hashes[chosen],
                **{n: v[chosen] for n, v in scores.items()},
            }
            columns = [
                pa.array(own[f.name] if f.name in own else [constant.get(f.name, shard)] * count, type=f.type) for f in schema
            ]
            run.part(shard).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_arrays(columns, schema=schema), run.part(shard))
        run.write_manifest(
            Manifest(
                run=path.name, key="key", mrbench="0", task_hash="t", items=items, subjects=subjects, columns=infos,
                method=MethodInfo(name=f"method{m}", label=f"method{m}"), dataset=DatasetInfo(name="large", alias="large"),
                protocol=ProtocolInfo(name="uniform-x4", hash="f" * 16),
            )
        )  # fmt: skip


def measure(folder: Path) -> dict[str, float]:
    """Seconds and peak memory of a leaderboard with its statistics, in this process, imports included."""
    begin = time.perf_counter()
    from mrbench.report.leaderboard import ROW_COLUMNS, build_boards
    from mrbench.report.render import render
    from mrbench.report.view import View
    from mrbench.stats.presets import Plan
    from mrbench.store.runs import load_runs

    imported = time.perf_counter()
    runs = load_runs([folder], ROW_COLUMNS)
    loaded = time.perf_counter()
    plain = render(build_boards(runs), "markdown")
    boarded = time.perf_counter()
    (board,) = build_boards(runs, view=View(plan=Plan(), level=0.95))
    text = render([board], "markdown")
    done = time.perf_counter()
    assert "method9" in plain
    assert "method9" in text
    assert board.significance is not None
    assert all(len(r.pairs) == 45 and r.omnibus is not None for r in board.significance.results)
    assert all(cell.interval is not None for row in board.rows for cell in row.cells.values())
    return {
        "rows": sum(len(r.rows) for r in runs),
        "metrics": len(board.columns),
        "imports_s": imported - begin,
        "load_s": loaded - imported,
        "leaderboard_s": boarded - loaded,
        "leaderboard_with_statistics_s": done - boarded,
        "total_s": done - begin - (boarded - loaded),
        "cpu_s": time.process_time(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(rows: int, part: int) -> dict[str, float]:
    """Make the runs, measure in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        write_runs(Path(scratch), rows, part=part)
        done = subprocess.run(
            [sys.executable, __file__, scratch], check=True, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def print_costs(measured: dict[str, float]) -> None:
    """The numbers, one a line. ``total_s`` is without the plain leaderboard, which is measured beside it."""
    print("\nleaderboard with significance and intervals, and what it takes")
    for name, value in measured.items():
        print(f"{name:30}{value:>14.2f}" if name not in ("rows", "metrics") else f"{name:30}{value:>14.0f}")


def beyond(measured: dict[str, float]) -> list[str]:
    """Which limits are not kept, stated for 1,000,000 rows and less."""
    found = [f"{measured['total_s']:.1f} s, allowed: {SECONDS:g} s"] if measured["total_s"] > SECONDS else []
    return found + ([f"{measured['peak_mib']:.0f} MiB, allowed: {MIB:g} MiB"] if measured["peak_mib"] > MIB else [])


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
