"""What the harness costs: time per item beyond method and metrics, and peak memory at few and at many items.

    python benchmarks/overhead.py [--items 100 10000] [--size 64] [--json FILE]

Every number of items runs in its own process on synthetic slices, with a method that upsamples by repetition and PSNR
as the only metric. Overhead = wall time of the run minus the time inside the method and inside the metric. Memory must
not grow with the number of items beyond their list of ids.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def make_data(folder: Path, items: int, size: int) -> None:
    """``items`` slices as volumes of 50 slices, two volumes per subject, with a manifest."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    head = ((xx / 0.8) ** 2 + (yy / 0.9) ** 2 < 1).astype(np.float32)
    lines = ["file,subject,volume"]
    for v in range(0, items, 50):
        count = min(50, items - v)
        noise = rng.random((count, size // 4, size // 4), np.float32).repeat(4, 1).repeat(4, 2)
        name = f"volume{v // 50:05d}.npy"
        np.save(folder / name, head * (0.5 + 0.5 * noise))
        lines.append(f"{name},subject{v // 100:05d},volume{v // 50:05d}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def measure(data: Path, out: Path, batch: int) -> dict[str, float]:
    """Run in this process; seconds and peak resident memory."""
    from mrbench.engine.entries import parse_dataset, parse_entries, parse_settings
    from mrbench.engine.environment import choose_device
    from mrbench.engine.folders import Conditions
    from mrbench.engine.run import Runner, RunOptions
    from mrbench.engine.scoring import Scorer
    from mrbench.engine.task import open_task
    from mrbench.plugins import discover
    from mrbench.protocol import find_protocol
    from mrbench.store.runs import RunFolder

    class Timed(Scorer):
        seconds = 0.0

        def score(self, *args, **kwargs):
            begin = time.perf_counter()
            result = super().score(*args, **kwargs)
            Timed.seconds += time.perf_counter() - begin
            return result

    registry = discover()
    settings = parse_settings([f"folder.path={data}"])
    entries = parse_entries(["nearest"], settings, registry)
    begin = time.perf_counter()
    task = open_task(parse_dataset("folder", settings, registry), find_protocol("uniform-x4"), registry)
    prepared = time.perf_counter() - begin
    device = choose_device("cpu")
    scorer = Timed.load(registry, ["psnr"], {}, device)
    runner = Runner(task, task.choose(None, None), scorer, Conditions(device), RunOptions(out, batch, "none"), registry)
    ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begin = time.perf_counter()
    report = runner.run(entries)[0]
    wall = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows = RunFolder(report.folder).rows(["seconds", "status"])
    if not (rows["status"] == "ok").all():
        raise SystemExit("some items failed")
    method = float(rows["seconds"].sum())
    return {
        "items": len(rows),
        "prepare_ms_per_item": 1e3 * prepared / len(rows),
        "method_ms_per_item": 1e3 * method / len(rows),
        "metric_ms_per_item": 1e3 * Timed.seconds / len(rows),
        "overhead_ms_per_item": 1e3 * (wall - method - Timed.seconds) / len(rows),
        "peak_mib_before_run": ready / 2**20,
        "peak_mib": peak / 2**20,
    }


def main() -> None:
    """Make data, measure each size in a fresh process, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", nargs=2, metavar=("DATA", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(measure(Path(args.inside[0]), Path(args.inside[1]), args.batch)))
        return
    results = []
    for items in args.items:
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch, "data")
            data.mkdir()
            make_data(data, items, args.size)
            environment = {**os.environ, "MRBENCH_CACHE": str(Path(scratch, "cache")), "MRBENCH_OFFLINE": "1"}
            command = [sys.executable, __file__, "--batch", str(args.batch), "--inside", str(data), str(Path(scratch, "runs"))]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    names = list(results[0])
    print(f"slices of {args.size}x{args.size}, batch {args.batch}")
    for name in names:
        print(f"{name:24}" + "".join(f"{r[name]:>14.3f}" if name != "items" else f"{r[name]:>14}" for r in results))
    growth = results[-1]["peak_mib"] - results[0]["peak_mib"]
    extra = results[-1]["items"] - results[0]["items"]
    if extra:
        print(f"memory: {growth:+.1f} MiB for {extra} more items ({1024 * growth / extra:.2f} KiB an item)")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
