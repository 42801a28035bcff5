"""`mrbench sweep`: plans, refusals, estimates, resuming, shares."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests_support import Done, rows_of, spawn, write_plugin

from mrbench.cli.sweep_table import SweepTable, duration
from mrbench.engine.sweep import plan
from mrbench.engine.sweep_file import SweepFile
from mrbench.engine.sweep_times import Estimate
from mrbench.plugins import discover
from mrbench.store.manifest import MANIFEST
from mrbench.store.runs import find_runs

PEOPLE = (("ann", 2), ("bob", 1), ("cem", 2))
SLICES = sum(n for _, n in PEOPLE)

PLUGIN = """
    import os
    import time

    import mrbench
    from mrbench.errors import UserError


    class Gain(mrbench.Options):
        gain: float = 1.0


    class Scaled:  # fails on request, and takes its time on request
        def __init__(self, options):
            self.options = options

        def restore(self, measurement, draws):
            if self.options.gain < 0:
                raise RuntimeError("negative gain")
            time.sleep(float(os.environ.get("SCALED_SLEEP", "0")) * len(measurement.ids))
            return self.options.gain * mrbench.upsample(measurement)[:, None]


    class Picky:
        def __init__(self, options):
            if options.gain > 1:
                raise UserError("gain may be 1 at most")

        def restore(self, measurement, draws):
            return mrbench.upsample(measurement)[:, None]


    @mrbench.hookimpl
    def mrbench_methods():
        return [
            mrbench.MethodCard("scaled", Scaled, "a test", Gain, notes="a test"),
            mrbench.MethodCard("picky", Picky, "a test", Gain, notes="a test"),
        ]
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small slices of three people."""
    folder = tmp_path_factory.mktemp("people") / "images"
    folder.mkdir()
    v, u = np.mgrid[:40, :32]
    head = ((v - 20) / 18) ** 2 + ((u - 16) / 14) ** 2 < 1
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "volume", "slice_index", "split"])
        for number, (subject, slices) in enumerate(PEOPLE):
            for k in range(slices):
                image = np.where(head, 130 + (30 + 20 * number) * np.sin(v / 4 + u / 7 + 2 * number + k), 0)
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{subject}{k}.png")
                writer.writerow([f"{subject}{k}.png", subject, f"{subject}_v", k, "test"])
    return folder


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return write_plugin(tmp_path, "toys", PLUGIN)


@pytest.fixture
def sweep(mrbench, plugin: Path, people: Path, tmp_path: Path) -> Callable[..., Done]:
    """Write a file (JSON is YAML) and call the command on it; ``--out`` is ``tmp_path / "runs"``."""

    def call(*arguments: object, **fields: Any) -> Done:
        return mrbench("sweep", write(tmp_path, people, **fields), *options(plugin, tmp_path), *arguments)

    return call


def write(folder: Path, people: Path, **fields: Any) -> Path:
    faces = {"name": "folder", "alias": "faces", "options": {"path": str(people)}}
    document = {"methods": ["bicubic"], "datasets": [faces], "scales": [4], "metrics": ["psnr"], **fields}
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(document))
    return path


def options(plugin: Path, folder: Path) -> tuple[object, ...]:
    return ("--out", folder / "runs", "--plugin", plugin, "--threads", 1, "--device", "cpu")


def states(done: Done) -> dict[str, str]:
    return {f"{e['label']} {e['protocol']}": e["state"] for e in done.json["entries"]}


def test_all_combinations_are_run_and_none_twice(sweep: Callable[..., Done], tmp_path: Path) -> None:
    fields = {"methods": ["bicubic", {"name": "scaled", "options": {"gain": [0.9, 1]}}], "scales": [2, 4]}
    first = sweep("--json", **fields)
    assert first.code == 0, first.err
    assert set(states(first).values()) == {"done"}
    assert set(states(first)) == {f"{m} uniform-x{s}" for m in ("bicubic", "scaled-gain0.9", "scaled-gain1") for s in (2, 4)}
    assert {(e["done"], e["total"]) for e in first.json["entries"]} == {(SLICES, SLICES)}
    before = rows_of(tmp_path / "runs", measured=True)
    written = {f: f.stat().st_mtime_ns for f in (tmp_path / "runs").rglob("*.parquet")}
    again = sweep("--json", **fields)
    assert set(states(again).values()) == {"finished"}
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "runs").rglob("*.parquet")} == written
    assert rows_of(tmp_path / "runs", measured=True).equals(before)
    more = sweep(**{**fields, "methods": [*fields["methods"], "nearest"], "scales": [4]})
    assert "4 combinations: 3 finished, 1 done" in more.out
    assert f"compare: mrbench leaderboard {tmp_path / 'runs' / 'faces' / 'uniform-x4'}" in more.out
    assert str(next(f for f in find_runs([tmp_path / "runs"]) if f.name.startswith("nearest-"))) in more.out


def test_the_rows_are_those_of_a_run(mrbench, sweep: Callable[..., Done], people: Path, plugin: Path, tmp_path: Path) -> None:
    """A run that exists is taken up under its own label, for its key is the same; what it lacks is added."""
    run = (
        "run",
        "--dataset",
        "faces=folder",
        "--set",
        f"faces.path={people}",
        "--scale",
        4,
        "--metrics",
        "psnr",
        "--no-pictures",
    )
    done = mrbench(*run, "--method", "mine=scaled", "--set", "mine.gain=0.9", "--limit", 2, *options(plugin, tmp_path))
    assert done.code == 0, done.err
    methods = [{"name": "scaled", "options": {"gain": [0.9]}}]
    (entry,) = sweep("--dry-run", "--json", methods=methods).json["entries"]
    assert (entry["label"], entry["state"], entry["done"], entry["total"]) == ("mine", "started", 2, SLICES)
    assert entry["reason"] == "stored as mine"
    (entry,) = sweep("--json", methods=methods).json["entries"]
    assert (entry["label"], entry["state"], entry["done"]) == ("mine", "done", SLICES)
    assert len(find_runs([tmp_path / "runs"])) == 1
    assert (
        mrbench(*run, "--method", "mine=scaled", "--set", "mine.gain=0.9", "--out", tmp_path / "whole", "--plugin", plugin).code
        == 0
    )
    columns = ["item_id", "item_hash", "psnr", "status"]
    assert rows_of(tmp_path / "runs")[columns].equals(rows_of(tmp_path / "whole")[columns])
    (entry,) = sweep("--dry-run", "--json", methods=methods, metrics=["psnr", "ssim"]).json["entries"]
    assert (entry["state"], entry["done"]) == ("started", 0)  # a column is missing


def test_a_dry_run_writes_nothing_and_estimates(sweep: Callable[..., Done], tmp_path: Path) -> None:
    methods = ["bicubic", {"name": "scaled", "options": {"gain": [0.9, 1]}}]
    empty = sweep("--dry-run", methods=methods)
    assert empty.code == 0
    assert empty.out.count("unknown") >= 3
    assert "3 of unknown length" in empty.out
    assert not (tmp_path / "runs").exists()
    assert (
        sweep(methods=["bicubic", {"name": "scaled", "label": "scaled-gain0.9", "options": {"gain": 0.9}}], subset=2).code == 0
    )
    rows = rows_of(tmp_path / "runs", "scaled-gain0.9", measured=True)
    planned = {e["label"]: e for e in sweep("--dry-run", "--json", methods=[*methods, "nearest"]).json["entries"]}
    same = planned["scaled-gain0.9"]["estimate"]
    assert same["basis"] == "2 slices of the same"
    assert same["seconds"] == pytest.approx((SLICES - 2) * rows["seconds"].mean())
    other = planned["scaled-gain1"]["estimate"]
    assert other["basis"] == "2 slices of scaled with other options, scaled by pixels"
    assert other["seconds"] == pytest.approx(SLICES * rows["seconds"].mean())  # all slices have one size
    assert planned["nearest"]["estimate"] is None
    assert "1 of unknown length" in sweep("--dry-run", methods=[*methods, "nearest"]).out
    elsewhere = [{"name": "sample", "alias": "sample"}]  # larger slices: more time, by their pixels
    (far,) = sweep("--dry-run", "--json", methods=["bicubic"], datasets=elsewhere, subset=3).json["entries"]
    assert far["estimate"]["basis"] == "2 slices of bicubic, scaled by pixels"


def test_timings_of_other_hardware_do_not_count(sweep: Callable[..., Done], tmp_path: Path) -> None:
    assert sweep(subset=2).code == 0
    (folder,) = find_runs([tmp_path / "runs"])
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["environment"]["processor"] = "another one"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (entry,) = sweep("--dry-run", "--json").json["entries"]
    assert entry["estimate"] is None


def test_what_cannot_be_run_ends_the_command_before_any_work(sweep: Callable[..., Done], tmp_path: Path) -> None:
    fields = {"methods": ["bicubic", "bicubc", "edsr"], "scales": [4, 8]}
    done = sweep(**fields)
    assert done.code == 2
    assert "3 of 6 combinations cannot be run, so none was" in done.err
    assert "bicubc on faces under uniform-x4 and 1 more: methods[1]: " in done.err
    assert "edsr on faces under uniform-x8: methods[2]: method edsr: no weights ship with it for 8x" in done.err
    assert not (tmp_path / "runs").exists()
    listed = sweep("--dry-run", "--json", **fields)
    assert listed.code == 2
    assert sorted(states(listed).values()) == ["new"] * 3 + ["refused"] * 3
    fields["methods"] = ["bicubic", "bicubc"]
    skipped = sweep("--json", skip=True, **fields)
    assert skipped.code == 0, skipped.err
    assert sorted(states(skipped).values()) == ["done", "done", "refused", "refused"]
    assert sweep(skip=True, methods=["bicubc"]).code == 2


def test_what_only_data_or_loading_shows_is_refused_before_any_work(
    sweep: Callable[..., Done], people: Path, tmp_path: Path
) -> None:
    done = sweep(methods=["bicubic", {"name": "picky", "options": {"gain": [1, 2]}}])
    assert done.code == 2
    assert "1 of 3 combinations cannot be run" in done.err
    assert "picky-gain2 on faces under uniform-x4: methods[1]: picky-gain2: gain may be 1 at most" in done.err
    gone = {"name": "folder", "alias": "gone", "options": {"path": str(tmp_path / "nowhere")}}
    done = sweep(datasets=["sample", gone])
    assert done.code == 2
    assert "bicubic on gone under uniform-x4: datasets[1]: " in done.err
    assert sweep(subset=99).code == 2
    assert not (tmp_path / "runs").exists()


def test_a_failing_entry_does_not_stop_the_others(sweep: Callable[..., Done], tmp_path: Path) -> None:
    fields = {"methods": [{"name": "scaled", "options": {"gain": [-1, 0.9]}}, "bicubic"]}
    done = sweep("--json", **fields)
    assert done.code == 1
    assert states(done) == {
        "scaled-gain-1 uniform-x4": "failed",
        "scaled-gain0.9 uniform-x4": "done",
        "bicubic uniform-x4": "done",
    }
    assert "failed: 1 of 3: scaled-gain-1 on faces under uniform-x4: 5 of 5 items" in done.err
    assert "negative gain" in done.json["entries"][0]["reason"]
    assert set(rows_of(tmp_path / "runs", "scaled-gain-1")["status"]) == {"failed"}
    again = sweep(**fields)  # the failed one is tried again
    assert again.code == 1
    assert "3/3 scaled-gain-1 on faces under uniform-x4: failed, 0/5 items" in again.err
    assert "3 combinations: 1 failed, 2 finished" in again.out


def test_shares_together_are_the_whole(sweep: Callable[..., Done], tmp_path: Path) -> None:
    fields = {"methods": ["bicubic", "nearest", "bilinear"], "scales": [2, 4]}
    parts = [sweep("--json", "--shard", f"{i}/4", **fields) for i in (1, 2, 3, 4)]
    assert [len(p.json["entries"]) for p in parts] == [2, 2, 1, 1]
    assert all(set(states(p).values()) == {"done"} for p in parts)
    assert set(states(sweep("--json", **fields)).values()) == {"finished"}
    assert "expected I/N" in sweep("--shard", "5/4", **fields).err


def test_mistakes_name_the_file(mrbench, sweep: Callable[..., Done], tmp_path: Path) -> None:
    done = sweep(scals=[4])
    assert (done.code, "scals: unknown field. Did you mean 'scales'" in done.err) == (2, True)
    assert "sweep.yaml: exclude[0]: matches no combination" in sweep(exclude=[{"method": "x"}]).err
    assert mrbench("sweep", tmp_path / "none.yaml").code == 2


def test_the_live_table_shows_what_is_going_on() -> None:
    spec = SweepFile.model_validate({"methods": [f"m{i}=bicubic" for i in range(20)], "datasets": ["sample"]})
    planned = [replace(p, state="new", total=8) for p in plan(spec, discover(()))]
    for one in planned[:10]:
        one.state, one.done = "done", 8
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=12, color_system=None)
    estimates = {p.number: Estimate(90.0, "a test") for p in planned[:15]}
    table = SweepTable(console, planned, estimates)
    table.begin(planned[10])
    table.mrbench_run_started({"requested": 8, "todo": 6})
    table.mrbench_item_done({})
    console.print(table.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    (running,) = [line for line in text.splitlines() if line.startswith("m10 ")]
    assert "running" in running
    assert "3/8" in running
    assert "< 1 s" in running  # its own pace, not the estimate
    assert "m11 " in text
    assert "1:30 min" in text
    assert "m0 " not in text  # ended, and scrolled out
    assert len(text.splitlines()) <= 12
    assert "10 done, 1 running, 9 waiting; 6:00 min to go, and 5 of unknown length" in " ".join(text.split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "< 1 s"), (45, "45 s"), (59.7, "1:00 min"), (200, "3:20 min"), (7500, "2:05 h"), (268000, "3.1 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_sweep_goes_on(
    sweep: Callable[..., Done], people: Path, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"methods": ["bicubic", {"name": "scaled", "options": {"gain": [0.9, 1]}}], "scales": [4]}
    file, out = write(tmp_path, people, **fields), tmp_path / "runs"
    monkeypatch.setenv("SCALED_SLEEP", "2")
    process = spawn("sweep", file, *options(plugin, tmp_path), "--batch", 1)
    try:
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(out.glob("faces/*/scaled-gain0.9-*/rows/*.parquet"))) >= 2:
                break
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    monkeypatch.setenv("SCALED_SLEEP", "0")
    found = {e["label"]: e for e in sweep("--dry-run", "--json", **fields).json["entries"]}
    assert [found[k]["state"] for k in ("bicubic", "scaled-gain0.9", "scaled-gain1")] == ["finished", "started", "new"]
    assert 2 <= found["scaled-gain0.9"]["done"] < SLICES
    assert sweep("--batch", 1, **fields).code == 0
    assert set(states(sweep("--json", **fields)).values()) == {"finished"}
    interrupted = rows_of(out)
    out.rename(tmp_path / "interrupted")
    assert sweep("--batch", 1, **fields).code == 0
    assert rows_of(out).equals(interrupted)
