"""Slices a second from NIfTI files to degraded slices, cold and warm, of mrbench beside TorchIO and MONAI; and peak memory.

    python benchmarks/data.py [--path DIR] [--volumes 40] [--repeats 5] [--threads 1] [--json FILE]

Without `--path`: the folder `brain_t1_ixi_2mm_nifti` of `$MRBENCH_SHARED_DATA` (default: `../shared/data` beside the repository).
The pipelines are in `data_pipelines.py`: the same work and the same slices in each, checked by the mean of the results. TorchIO and
MONAI are optional (`pip install torchio monai`).

Every measurement is a process of its own, and the pipelines take turns, `--repeats` rounds; ratios are medians over rounds.
Importing and one warm-up volume lie outside the clock. cold: the cache folder is empty and the files are advised out of the page
cache (`posix_fadvise`); warm: the second pass in the same process. Memory is the growth of the process's peak over what it held
before the first pass.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

FOLDER = "brain_t1_ixi_2mm_nifti"
ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-3  # of the mean over all pixels, between pipelines that do the same
PASSES = ("cold", "warm")
LIBRARIES = ("mrbench", "torchio", "monai", "torch", "nibabel", "numpy")


def default_path() -> Path:
    """Where the volumes are, unless told."""
    return Path(os.environ.get("MRBENCH_SHARED_DATA", ROOT.parent / "shared" / "data")) / FOLDER


def volumes(folder: Path, most: int) -> list[Path]:
    """The first NIfTI files of a folder, by name."""
    found = sorted(f for f in folder.rglob("*") if f.name.endswith((".nii", ".nii.gz")))[:most]
    if not found:
        raise SystemExit(f"{folder}: no NIfTI files. Name a folder that holds some: --path DIR.")
    return found


def drop_pages(files: list[Path]) -> None:
    """Advise the kernel to forget the files' pages (they are clean, so it can)."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def peak_mib(reset: bool = False) -> float:
    """Peak resident memory of this process; ``reset``: from now on."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def measure(name: str, files: list[Path], cache: Path, threads: int) -> dict[str, float]:
    """A cold and a warm pass in this process."""
    import torch
    from data_pipelines import pipeline

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    run = pipeline(name)
    if "torchio" in sys.modules:
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    for _ in run(files[:1], cache / "warm-up"):
        pass
    drop_pages(files)
    result: dict[str, float] = {}
    before = peak_mib(reset=True)
    for temperature in PASSES:
        slices, pixels, total = 0, 0, 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        for lr in run(files, cache / "measured"):
            slices, pixels, total = slices + len(lr), pixels + lr.numel(), total + float(lr.sum(dtype=torch.float64))
        result[f"{temperature}_wall"] = time.perf_counter() - wall
        result[f"{temperature}_cpu"] = time.process_time() - cpu
        result[f"{temperature}_peak_mib"] = peak_mib() - before
        result |= {"slices": slices, "mean": total / pixels, "pixels": pixels}
    return result


def rounds(names: list[str], arguments: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Measurements by pipeline; each round begins with another one."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(arguments.repeats):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, "--path", str(arguments.path), "--volumes", str(arguments.volumes)]
                command += ["--threads", str(arguments.threads), "--inside", name, cache]
                threads = {k: str(arguments.threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
                done = subprocess.run(command, env={**os.environ, **threads}, check=True, stdout=subprocess.PIPE, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def check_same(found: dict[str, list[dict[str, float]]]) -> None:
    """Pipelines that should give the same slices do (``SystemExit`` otherwise)."""
    from data_pipelines import SAME

    first = found["mrbench"][0]
    for name, results in found.items():
        for key in ("slices", "pixels"):
            if results[0][key] != first[key]:
                raise SystemExit(f"{name} gives {results[0][key]:g} {key}, mrbench {first[key]:g}: not the same work")
        if name in SAME and abs(results[0]["mean"] - first["mean"]) > TOLERANCE:
            raise SystemExit(f"{name}: mean {results[0]['mean']:.5f}, mrbench {first['mean']:.5f}: not the same images")


def median(results: list[dict[str, float]], key: str) -> float:
    """Median over rounds."""
    return statistics.median(r[key] for r in results)


def table(found: dict[str, list[dict[str, float]]], missing: dict[str, str]) -> str:
    """What was measured, a line a pipeline."""
    from data_pipelines import NOTES

    columns = (
        "slices/s cold",
        "warm",
        "CPU ms/slice cold",
        "warm",
        "peak MiB cold",
        "warm",
        "mrbench faster: wall cold",
        "warm",
    )
    columns += ("CPU cold", "warm")
    widths = [max(8, len(c) + 2) for c in columns]
    lines = [" " * 18 + "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))]
    base = found["mrbench"]
    for name in NOTES:
        if name in missing:
            lines.append(f"{name:18}  {missing[name]}")
            continue
        results = found[name]
        slices = results[0]["slices"]
        texts = [f"{slices / median(results, f'{t}_wall'):.0f}" for t in PASSES]
        texts += [f"{1e3 * median(results, f'{t}_cpu') / slices:.3f}" for t in PASSES]
        texts += [f"{median(results, f'{t}_peak_mib'):.0f}" for t in PASSES]
        for clock in ("wall", "cpu"):
            for t in PASSES:
                ratios = [r[f"{t}_{clock}"] / b[f"{t}_{clock}"] for r, b in zip(results, base, strict=True)]
                texts.append(f"{statistics.median(ratios):.2f}x")
        lines.append(f"{name:18}" + "".join(f"{c:>{w}}" for c, w in zip(texts, widths, strict=True)))
    return "\n".join([*lines, "", *(f"{name}: {note}" for name, note in NOTES.items())])


def versions() -> dict[str, str]:
    """Of what is measured."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measure in turns, check that the work is the same, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=default_path())
    parser.add_argument("--volumes", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", nargs=2, metavar=("NAME", "CACHE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    files = volumes(args.path, args.volumes)
    if args.inside:
        print(json.dumps(measure(args.inside[0], files, Path(args.inside[1]), args.threads)))
        return
    from data_pipelines import NOTES

    missing = {}
    for name in NOTES:
        library = name.partition(",")[0]
        if importlib.util.find_spec(library) is None:
            missing[name] = f"not measured: {library} is not installed (pip install {library})"
    found = rounds([n for n in NOTES if n not in missing], args)
    check_same(found)
    count = int(found["mrbench"][0]["slices"])
    print(f"{len(files)} volumes of {args.path.name}, {count} axial slices; {args.threads} thread(s), median of {args.repeats}")
    print(", ".join(f"{k} {v}" for k, v in versions().items()), platform.python_version())
    print(table(found, missing))
    if args.json:
        document: dict[str, Any] = {"slices": count, "versions": versions(), "rounds": found, "missing": missing}
        args.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
