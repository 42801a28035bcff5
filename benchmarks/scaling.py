"""What more workers bring, what Ray costs, and what a driver's memory does as items grow.

    python benchmarks/scaling.py [--method edsr] [--slices 800] [--rounds 1] [--items 200 2000] [--plan 10000000] [--json FILE]

Throughput: one compute-bound method on synthetic slices of 256x256, by the local engine, by Ray with one worker and by Ray with two,
one thread each, one after the other. `whole` is the wall time of the whole command, start-up included; `work` that from the run's begin to
its end. Order alternates between rounds, and the best of the rounds counts: other programs only ever make things slower. They make
method and harness slower alike, so `busy`, the method's time over the work time of all workers, says on a machine with other
programs, too, how much of the time the engine leaves workers idle or does something else (loading, metrics, storing, warm-up).

Memory: peak resident memory of the command (the driver alone, with Ray) at few and at many items; the difference over the items is what
the list of items costs. The batch plan alone is written, compared and read again for --plan simulated items.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pyarrow.parquet as pq
from overhead import make_data

HOOKS = """
    import json, os, resource, time
    import mrbench

    begin = []

    @mrbench.hookimpl
    def mrbench_run_started(run):
        begin.append(time.monotonic())

    @mrbench.hookimpl
    def mrbench_run_finished(run):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with open(os.environ["MRBENCH_SCALING"], "w") as stream:
            json.dump({"begin": begin[0], "end": time.monotonic(), "peak": peak}, stream)
"""

PLAN = """
    import json, resource, sys, time
    from pathlib import Path
    from mrbench.store.runs import RunFolder

    run, items = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
    def groups():
        yield (f"data/subject{i // 1000:06d}/volume{i // 100 % 10}/{i % 100:03d}" for i in range(items))
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start, found = peak(), {}
    for name in ("write", "resume"):
        begin = time.perf_counter()
        run.plan_items(16, groups)
        found[name] = time.perf_counter() - begin
    begin = time.perf_counter()
    count = sum(len(s.items) for s in run.shards())
    found["read"] = time.perf_counter() - begin
    assert count == items
    found |= {"items": items, "start": start, "peak": peak(), "bytes": (run.path / "plan.json").stat().st_size}
    print(json.dumps(found))
"""

ENGINES = {
    "local": (),
    "ray, 1 worker": ("--engine", "ray", "--workers", "1"),
    "ray, 2 workers": ("--engine", "ray", "--workers", "2"),
}


def environment(folder: Path, cache: str) -> dict[str, str]:
    """One thread everywhere; a cache of its own, shared by all calls."""
    own = {"OMP_NUM_THREADS": "1", "MRBENCH_CACHE": str(folder / cache), "MRBENCH_SCALING": str(folder / "facts.json")}
    return {**os.environ, **own, "MRBENCH_OFFLINE": "1"}


def call(folder: Path, cache: str, arguments: list[str]) -> dict[str, float]:
    """Run the command with the hooks; its times and its memory."""
    plugin = folder / "hooks.py"
    plugin.write_text(textwrap.dedent(HOOKS))
    facts = folder / "facts.json"
    facts.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mrbench.cli.main", "run", "--plugin", str(plugin), "--threads", "1", "--device", "cpu"]
    begin = time.monotonic()
    done = subprocess.run(
        [*command, "--no-pictures", "--images", "none", *arguments],
        env=environment(folder, cache),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    whole = time.monotonic() - begin
    found = json.loads(facts.read_text())
    return {"whole": whole, "work": found["end"] - found["begin"], "peak": found["peak"]}


def throughput(folder: Path, method: str, slices: int, rounds: int, batch: int) -> dict[str, dict[str, float]]:
    """Best times of every engine over the rounds."""
    data = folder / "slices"
    data.mkdir()
    make_data(data, slices, 256)
    shared = ["--method", method, "--dataset", "folder", "--set", f"folder.path={data}", "--metrics", "psnr"]
    call(folder, "cache", [*shared, "--limit", "1", "--out", str(folder / "warm")])
    best: dict[str, dict[str, float]] = {}
    for number in range(rounds):
        order = list(ENGINES) if number % 2 == 0 else list(ENGINES)[::-1]
        for name in order:
            out = folder / f"{number}-{name.replace(' ', '').replace(',', '')}"
            found = call(folder, "cache", [*shared, "--batch", str(batch), *ENGINES[name], "--out", str(out)])
            parts = out.rglob("shard-*.parquet")
            spent = sum(sum(pq.read_table(p, columns=["seconds"]).column("seconds").to_pylist()) for p in parts)
            found["busy"] = spent / found["work"] / (2 if name.endswith("workers") else 1)
            times = f"whole {found['whole']:7.1f} s, work {found['work']:7.1f} s, busy {found['busy']:.3f}"
            print(f"  round {number}: {name:15} {times}", flush=True)
            if name not in best or found["work"] < best[name]["work"]:
                best[name] = found
    return best


def memory(folder: Path, items: int, size: int) -> dict[str, float]:
    """Peak memory of the command by engine, on synthetic slices with a method that costs nothing."""
    data = folder / f"data{items}"
    data.mkdir()
    make_data(data, items, size)
    shared = [
        "--method",
        "nearest",
        "--dataset",
        "folder",
        "--set",
        f"folder.path={data}",
        "--metrics",
        "psnr",
        "--batch",
        "16",
    ]
    found = {}
    for name in ("local", "ray, 1 worker"):
        out = folder / f"memory-{items}-{name[:3]}"
        found[name] = call(folder, f"cache{items}", [*shared, *ENGINES[name], "--out", str(out)])["peak"]
    return found


def plan(folder: Path, items: int) -> dict[str, float]:
    """Times and memory of a batch plan of so many items, in a process of its own."""
    script = textwrap.dedent(PLAN)
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / f"plan{items}"), str(items)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, print, and optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="edsr")
    parser.add_argument("--slices", type=int, default=800, help="0: no throughput")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--items", type=int, nargs="*", default=[200, 2000])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--plan", type=int, nargs="*", default=[10_000, 10_000_000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    document: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="mrbench-scaling-") as name:
        folder = Path(name)
        if given.slices:
            print(f"{given.method} on {given.slices} slices, one thread each, {os.cpu_count()} cores")
            best = throughput(folder, given.method, given.slices, given.rounds, given.batch)
            one, two, local = (best[n] for n in ("ray, 1 worker", "ray, 2 workers", "local"))
            ratios = {
                k: {"two workers against one": one[k] / two[k], "one worker against local": one[k] / local[k]}
                for k in ("whole", "work")
            }
            ratios["busy"] = {
                "two workers against one": 2 * two["busy"] / one["busy"],
                "one worker against local": local["busy"] / one["busy"],
            }
            for kind, values in ratios.items():
                print(f"{kind}: " + ", ".join(f"{n}: {v:.3f}" for n, v in values.items()))
            document |= {"throughput": best, "ratios": ratios}
        peaks = {n: memory(folder, n, given.size) for n in given.items}
        for items, found in peaks.items():
            print(f"{items} items: " + ", ".join(f"{n} {v / 2**20:.0f} MiB" for n, v in found.items()))
        if len(peaks) > 1:
            few, many = min(peaks), max(peaks)
            for engine in peaks[few]:
                grown = (peaks[many][engine] - peaks[few][engine]) / (many - few)
                print(f"{engine}: {grown / 1024:.1f} KiB of memory per item more")
        plans = [plan(folder, n) for n in given.plan]
        for p in plans:
            print(
                f"plan of {p['items']:.0f} items ({p['bytes'] / 2**20:.1f} MiB): written in {p['write']:.1f} s, compared in {p['resume']:.1f} s, "
                f"read in {p['read']:.1f} s; memory {p['start'] / 2**20:.0f} -> {p['peak'] / 2**20:.0f} MiB"
            )
        document |= {"memory": peaks, "plan": plans}
    if given.json:
        given.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
