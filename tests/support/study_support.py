"""Runs with stored images for reader studies, simulated readers, and the ``mrbench study`` command without the main one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mrbench.store.images import truth_file, write_images, write_truth
from mrbench.store.manifest import ColumnInfo, DatasetInfo, Manifest, MethodInfo, ProtocolInfo
from mrbench.store.runs import RunFolder, load_runs
from mrbench.study.create import Request, create_study
from mrbench.study.order import reading_order
from mrbench.study.records import KEY, Shown, read_key, read_study
from mrbench.study.store import RatingLog, reader_key

HASH = "a" * 16
SIDE = 24
COMMAND = "from mrbench.cli.study import app; app(prog_name='mrbench study')"


def truth_image(item: int, channels: int = 1) -> np.ndarray:
    """A bright disc that stands elsewhere for every item."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disc = np.hypot(rows - SIDE / 2, columns - SIDE / 2 - item % 5) < 7
    image = (0.1 + 0.8 * disc).astype(np.float32)
    return np.repeat(image[None], channels, 0)


def write_runs(
    out: Path,
    methods: Mapping[str, float],
    people: Mapping[str, int],
    *,
    controls: tuple[str, ...] = (),
    tiers: Mapping[str, str] | None = None,
    redistribution: str = "open",
    images: bool = True,
    channels: int = 1,
    failed: Mapping[str, int] | None = None,
) -> Path:
    """Run folders: ``methods``: label -> what it adds to the truth; ``failed``: label -> how many of its last items failed."""
    items = [(f"toy/{s}/vol/{i:03d}", s) for s, n in people.items() for i in range(n)]
    folder = out / "toy" / "uniform-x4"
    for label, offset in methods.items():
        path = folder / f"{label}-key"
        run = RunFolder(path)
        fine = len(items) - (failed or {}).get(label, 0)
        rows = [
            {
                "run": path.name, "method": label, "label": label, "tier": (tiers or {}).get(label, "none"), "checkpoint": "",
                "dataset": "toy", "protocol": "uniform-x4", "protocol_hash": HASH, "subject": subject, "volume": "vol",
                "item_id": item, "item_hash": f"h{i}", "status": "ok" if i < fine else "failed",
                "error": "" if i < fine else "out of luck", "warning": "", "draws": 1, "seconds": 0.1, "device": "cpu",
                "precision": "fp32", "threads": 1, "batch": 4, "shard": 0, "psnr": 30.0,
            }
            for i, (item, subject) in enumerate(items)
        ]  # fmt: skip
        run.write_part(0, rows, ["psnr"], {"psnr": "PSNR|L:1"})
        run.extend_plan(len(items), [[i for i, _ in items]])
        if images:
            shown = {i: (truth_image(n, channels) + np.float32(offset))[None] for n, (i, _) in enumerate(items[:fine])}
            write_images(path, 0, shown)
        for n in range(len(items)):
            truth = truth_image(n, channels)
            write_truth(truth_file(path, HASH, f"h{n}"), truth, truth[:, ::4, ::4], np.ones((SIDE, SIDE), dtype=bool))
        run.write_manifest(
            Manifest(
                run=path.name,
                key="key",
                mrbench="0.1.0",
                items=len(items),
                subjects=len(people),
                task_hash="t",
                images=images,
                columns={"psnr": ColumnInfo(metric="psnr", signature="PSNR|L:1", digits=2, title="PSNR", unit="dB")},
                method=MethodInfo(name=label, label=label, control=label in controls, tier=(tiers or {}).get(label, "none")),
                dataset=DatasetInfo(name="toy", alias="toy", redistribution=redistribution, licence="CC0"),
                protocol=ProtocolInfo(name="uniform-x4", hash=HASH),
            )
        )
    return out


def make_study(runs: Path, out: Path, **request: object) -> Path:
    """A study folder from all runs below ``runs``."""
    return create_study(load_runs([runs]), Request(**request), out).folder  # type: ignore[arg-type]


def read_by(folder: Path, name: str, rate: Callable[[Shown, str], int], trials: int | None = None) -> None:
    """A reader who rates the first ``trials`` trials of their order (all by default): ``rate(what is shown, criterion)``."""
    study = read_study(folder)
    key = read_key(folder / KEY, study)
    log = RatingLog(folder, study, name)
    log.begin()
    for trial in reading_order(study, reader_key(name))[:trials]:
        for code in trial.images:
            for criterion in study.criteria:
                log.add(trial.id, code, criterion, rate(key.images[code], criterion))


def study_command(*arguments: object, check: bool = False) -> subprocess.CompletedProcess[str]:
    """``mrbench study ...`` in a process of its own."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check)
