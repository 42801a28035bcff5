"""Metrics of stored runs, computed again from their stored images."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import mrbench_datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from tests_support import Done, rows_of, write_plugin

from mrbench.plugins import discover
from mrbench.protocol import find_protocol
from mrbench.store.images import image_file
from mrbench.store.manifest import read_manifest
from mrbench.store.rows import MEASURED_COLUMNS
from mrbench.store.runs import RunFolder, find_runs, load_run

SAMPLE = Path(mrbench_datasets.__file__).parent / "sample" / "data"
SUBSET = ("--dataset", "sample", "--scale", "4", "--subset", "6", "--batch", "2", "--no-pictures")
LAPLACE = """
    import mrbench, torch

    class Draws:
        def __init__(self, options): pass
        def restore(self, measurement, draws):
            if {fails}: raise RuntimeError("no, thank you")
            up = mrbench.upsample(measurement)[:, None]
            return up + 0.05 * measurement.noise(draws).normal(up.shape[2:])

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("draws", Draws, deterministic=False)]
"""


@pytest.fixture(scope="module")
def _stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@pytest.fixture
def runs(mrbench, _stored: Path, tmp_path: Path) -> Path:
    """A copy of a run of bicubic with psnr and gmsd, six items in shards of two."""
    if not any(_stored.iterdir()):
        done = mrbench("run", "-m", "bicubic", *SUBSET, "--metrics", "psnr,gmsd", "--out", _stored)
        assert done.code == 0, done.err
    return Path(shutil.copytree(_stored, tmp_path / "runs"))


def run_of(out: Path) -> Path:
    (folder,) = find_runs([out])
    return folder


def part_columns(run: Path) -> list[set[str]]:
    return [set(pq.read_schema(p).names) for p in sorted((run / "rows").glob("shard-*.parquet"))]


def test_scores_equal_those_of_a_run_exactly(mrbench, runs: Path, tmp_path: Path) -> None:
    fresh = mrbench("run", "-m", "bicubic", *SUBSET, "--out", tmp_path / "fresh", "--json")
    done = mrbench("score", runs, "--json")
    assert done.code == 0, done.err
    assert fresh.code == 0, fresh.err
    (run,) = done.json["runs"]
    assert set(run) == set(fresh.json["runs"][0])
    assert run["metrics"] == fresh.json["runs"][0]["metrics"]
    assert set(run["metrics"]) >= {"psnr", "ssim_fg", "ms_ssim", "haarpsi", "data_consistency"}
    assert run["unavailable"] == fresh.json["runs"][0]["unavailable"]
    ours, theirs = rows_of(runs), rows_of(tmp_path / "fresh")
    pd.testing.assert_frame_equal(ours[sorted(ours)], theirs[sorted(theirs)], check_exact=True)


def test_other_columns_timings_and_images_stay(mrbench, runs: Path) -> None:
    folder = run_of(runs)
    before, manifest = rows_of(runs, measured=True), read_manifest(folder)
    images = {p: p.read_bytes() for p in folder.rglob("*.npz")}
    done = mrbench("score", folder, "--metrics", "ssim,gmsd", "--json")
    assert done.code == 0, done.err
    after = rows_of(runs, measured=True)
    pd.testing.assert_frame_equal(after[list(before)], before, check_exact=True)
    assert set(MEASURED_COLUMNS) <= set(before)
    assert set(after) - set(before) == {"ssim", "ssim_fg"}
    assert after["ssim"].between(0.5, 1).all()
    assert {p: p.read_bytes() for p in folder.rglob("*.npz")} == images
    new = read_manifest(folder)
    assert list(new.columns) == [*manifest.columns, "ssim", "ssim_fg"]
    assert {k: v for k, v in new.columns.items() if k in manifest.columns} == manifest.columns
    assert [n for n in new.notes if n.startswith("computed from stored images: ssim, ssim_fg, gmsd, gmsd_fg (")] == new.notes
    assert mrbench("score", folder, "--metrics", "ssim,gmsd").code == 0
    assert len(read_manifest(folder).notes) == 1  # the same again replaces its note


def test_a_changed_definition_replaces_the_column(mrbench, runs: Path) -> None:
    folder = run_of(runs)
    old = rows_of(runs)
    done = mrbench("score", runs, "--metrics", "psnr", "--set", "metric.psnr.data_range=2")
    assert done.code == 0, done.err
    assert "PSNR|L:2|" in done.out
    new = rows_of(runs)
    np.testing.assert_allclose(new["psnr"] - old["psnr"], 20 * np.log10(2), atol=1e-9)
    pd.testing.assert_series_equal(new["gmsd"], old["gmsd"])
    manifest = read_manifest(folder)
    assert "|L:2|" in manifest.columns["psnr"].signature
    assert manifest.columns["psnr"].options["data_range"] == 2
    for part in (folder / "rows").glob("*.parquet"):
        metadata = pq.read_schema(part).metadata
        assert metadata[b"mrbench.signature.psnr"].decode() == manifest.columns["psnr"].signature
        assert metadata[b"mrbench.signature.gmsd"].decode() == manifest.columns["gmsd"].signature


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_kill_leaves_no_number_under_a_wrong_definition(
    mrbench, runs: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    folder = run_of(runs)
    old, signature = rows_of(runs), read_manifest(folder).columns["psnr"].signature
    write = RunFolder.write_part

    def killed(self: RunFolder, shard: int, *rest: object) -> None:
        if shard == at:
            raise KeyboardInterrupt
        write(self, shard, *rest)  # type: ignore[arg-type]

    command = ("score", runs, "--metrics", "psnr,ssim", "--set", "metric.psnr.data_range=2")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_part", killed)
        done = mrbench(*command)
    assert done.code == 130
    left = load_run(folder)
    assert set(left.manifest.columns) == {"gmsd", "gmsd_fg"}  # psnr_fg has the new definition as well
    pd.testing.assert_series_equal(left.rows["gmsd"], old["gmsd"])
    assert "psnr" not in mrbench("leaderboard", runs, "--format", "csv").out.splitlines()[0]
    done = mrbench(*command)
    assert done.code == 0, done.err
    assert read_manifest(folder).columns["psnr"].signature != signature
    np.testing.assert_allclose(rows_of(runs)["psnr"] - old["psnr"], 20 * np.log10(2), atol=1e-9)


def test_a_kill_while_adding_a_column_keeps_the_rest(mrbench, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_of(runs)
    before = read_manifest(folder)
    write = RunFolder.write_part

    def killed(self: RunFolder, shard: int, *rest: object) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        write(self, shard, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_part", killed)
        assert mrbench("score", runs, "--metrics", "psnr,nmse").code == 130
    assert [("nmse" in columns) for columns in part_columns(folder)] == [True, False, False, False]
    assert read_manifest(folder).columns == before.columns  # unchanged definitions stay, the new column is not there yet
    assert mrbench("score", runs, "--metrics", "psnr,nmse").code == 0
    assert all("nmse" in columns for columns in part_columns(folder))
    assert rows_of(runs)["nmse"].notna().all()


def test_draws_and_failed_items(mrbench, tmp_path: Path) -> None:
    """K draws give the columns of draw 1, of the mean and of the best; rows that are not ok stay as they are."""
    plugin = write_plugin(
        tmp_path, "laplace", LAPLACE.format(fails="'078' in measurement.ids[0] or '011' in measurement.ids[0]")
    )
    command = (
        "run",
        "-m",
        "draws",
        "-d",
        "sample",
        "--scale",
        4,
        "--draws",
        3,
        "--batch",
        1,
        "--no-pictures",
        "--plugin",
        plugin,
    )
    assert mrbench(*command, "--out", tmp_path / "all", "--metrics", "psnr,ssim,data_consistency").code == 1
    assert mrbench(*command, "--out", tmp_path / "some", "--metrics", "psnr").code == 1
    done = mrbench("score", tmp_path / "some", "--metrics", "ssim,data_consistency", "--json")
    assert done.code == 0, done.err
    assert (done.json["runs"][0]["ok"], done.json["runs"][0]["failed"]) == (14, 2)
    ours, theirs = rows_of(tmp_path / "some"), rows_of(tmp_path / "all")
    assert {"psnr@mean", "ssim@mean", "ssim_fg@best", "data_consistency@best"} <= set(ours)
    pd.testing.assert_frame_equal(ours[sorted(ours)], theirs[sorted(theirs)], check_exact=True)
    failed = ours[ours["status"] == "failed"]
    assert len(failed) == 2
    assert failed["ssim"].isna().all()
    assert failed["error"].str.contains("no, thank you").all()
    assert "K:3" in read_manifest(run_of(tmp_path / "some")).columns["ssim@mean"].signature


def test_runs_without_images_say_how_to_get_them(mrbench, tmp_path: Path, runs: Path) -> None:
    assert mrbench("run", "-m", "lanczos", *SUBSET, "--metrics", "psnr", "--images", "none", "--out", runs).code == 0
    before = {p: p.read_bytes() for p in runs.rglob("*.parquet")}
    done = mrbench("score", runs, "--metrics", "ssim")
    assert done.code == 2
    assert "--images all" in done.err
    assert "lanczos" in done.err
    assert "6 of 6 items" in done.err
    assert {p: p.read_bytes() for p in runs.rglob("*.parquet")} == before  # nothing was begun
    only = next(r for r in find_runs([runs]) if r.name.startswith("bicubic"))
    image_file(only, 1).unlink()
    done = mrbench("score", only, "--metrics", "ssim")
    assert done.code == 2
    assert "1 of 6 items" in done.err


def test_damaged_files_are_named(mrbench, runs: Path) -> None:
    folder = run_of(runs)
    path = image_file(folder, 1)
    path.write_bytes(path.read_bytes()[:-200])
    done = mrbench("score", runs, "--metrics", "ssim")
    assert done.code == 2
    assert path.name in done.err
    part = RunFolder(folder).part(0)
    part.write_bytes(b"PAR1 not really")
    done = mrbench("score", runs, "--metrics", "ssim")
    assert done.code == 2
    assert part.name in done.err


def test_unavailable_metrics_keep_exit_code_0(mrbench, runs: Path) -> None:
    done = mrbench("score", runs, "--metrics", "lpips_alex,ssim,psnr", "--json")
    assert done.code == 0, done.err
    (run,) = done.json["runs"]
    assert "lpips_alex" in run["unavailable"]
    assert "lpips_alex is n/a" in done.err
    assert run["metrics"]["ssim"]["n"] == 6
    assert read_manifest(run_of(runs)).unavailable["lpips_alex"] == run["unavailable"]["lpips_alex"]
    done = mrbench("score", runs, "--metrics", "lpips_vgg", "--json")  # nothing at all can be computed
    assert done.code == 0
    assert done.json["runs"][0]["metrics"] == run["metrics"]


def test_default_metrics_are_those_of_the_protocol(mrbench, tmp_path: Path, runs: Path) -> None:
    rules = tmp_path / "rules.yaml"
    text = find_protocol("uniform-x2").model_dump(mode="json") | {"name": "mine", "metrics": ["psnr", "nmse"]}
    rules.write_text(yaml.safe_dump(text))
    command = ("run", "-m", "bicubic", "-d", "sample", "--protocol", rules, "--subset", 2, "--no-pictures", "--out", runs)
    assert mrbench(*command, "--metrics", "psnr").code == 0
    done = mrbench("score", runs, "--json")
    assert done.code == 0, done.err
    found = {r["protocol"]: set(r["metrics"]) for r in done.json["runs"]}
    assert found["mine"] == {"psnr", "psnr_fg", "nmse", "nmse_fg"}
    assert {"ssim", "data_consistency"} <= found["uniform-x4"]


# -- ground truth --------------------------------------------------------------------------------------------------
def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("070", "078"):
        (folder / f"s{name}").mkdir(parents=True)
        shutil.copy(SAMPLE / f"colin27_t1_ax_{name}.png", folder / f"s{name}" / f"{name}.png")
    return folder


def folder_run(mrbench, folder: Path, out: Path) -> Done:
    return mrbench(
        "run", "-m", "bicubic", "-d", "mine=folder", "--set", f"mine.path={folder}", "--scale", 4, "--metrics", "psnr,data_consistency",
        "--no-pictures", "--out", out,
    )  # fmt: skip


def test_missing_ground_truth_is_made_again(mrbench, tmp_path: Path) -> None:
    folder, out = own_folder(tmp_path), tmp_path / "runs"
    assert folder_run(mrbench, folder, out).code == 0
    before = rows_of(out)
    (truths,) = out.rglob("truth-*")
    kept = {p.name: p.read_bytes() for p in truths.iterdir()}
    shutil.rmtree(truths)
    done = mrbench("score", out, "--metrics", "psnr,data_consistency")
    assert done.code == 0, done.err
    pd.testing.assert_frame_equal(rows_of(out), before, check_exact=True)
    assert {p.name: p.read_bytes() for p in truths.iterdir()} == kept  # and kept for the next time


def test_changed_data_are_refused(mrbench, tmp_path: Path) -> None:
    folder, out = own_folder(tmp_path), tmp_path / "runs"
    assert folder_run(mrbench, folder, out).code == 0
    path = folder / "s078" / "078.png"
    image = np.asarray(Image.open(path)).copy()
    image[100, 100] += 1
    Image.fromarray(image).save(path)
    assert mrbench("score", out, "--metrics", "nmse").code == 0  # the truth that was measured is stored
    (truths,) = out.rglob("truth-*")
    shutil.rmtree(truths)
    manifest, parts = read_manifest(run_of(out)), rows_of(out)
    done = mrbench("score", out, "--metrics", "psnr", "--set", "metric.psnr.data_range=2")
    assert done.code == 2
    assert "1 of 2 items changed" in done.err
    assert "078" in done.err
    assert read_manifest(run_of(out)) == manifest
    pd.testing.assert_frame_equal(rows_of(out), parts)
    shutil.rmtree(folder)
    assert mrbench("score", out, "--metrics", "psnr").code == 2


def test_changed_rules_are_refused(mrbench, runs: Path) -> None:
    folder = run_of(runs)
    (truths,) = runs.rglob("truth-*")
    document = json.loads((folder / "manifest.json").read_text())
    document["protocol"]["source"]["degradation"]["options"] = {"a": -0.75}
    (folder / "manifest.json").write_text(json.dumps(document))
    assert mrbench("score", runs, "--metrics", "ssim").code == 0  # truth and measurement are stored
    shutil.rmtree(truths)
    done = mrbench("score", runs, "--metrics", "ssim")
    assert done.code == 2
    assert document["protocol"]["hash"] in done.err


def test_the_measurement_is_rebuilt_or_the_reason_given(mrbench, runs: Path) -> None:
    folder = run_of(runs)
    assert mrbench("score", runs, "--metrics", "data_consistency").code == 0
    before = rows_of(runs)["data_consistency"]
    assert before.between(1e-4, 0.1).all()
    document = json.loads((folder / "manifest.json").read_text())
    document["protocol"]["rules"]["degradation"]["version"] = 99
    (folder / "manifest.json").write_text(json.dumps(document))
    done = mrbench("score", runs, "--metrics", "data_consistency,psnr", "--json")
    assert done.code == 0
    assert "of version 99 in the run" in done.err
    pd.testing.assert_series_equal(rows_of(runs)["data_consistency"], before)  # what is known stays


def test_volumes_degraded_in_three_dimensions(mrbench, tmp_path: Path) -> None:
    rules = tmp_path / "three.yaml"
    text = find_protocol("uniform-x2").model_dump(mode="json")
    rules.write_text(
        yaml.safe_dump(text | {"name": "three", "dimensions": 3, "scale": [2, 2, 2], "metrics": ["psnr", "data_consistency"]})
    )
    command = ("run", "-m", "bicubic", "-d", "sample", "--protocol", rules, "--limit", 4, "--no-pictures", "--metrics", "psnr")
    assert mrbench(*command, "--out", tmp_path / "runs").code == 0
    before = rows_of(tmp_path / "runs")["psnr"]
    done = mrbench("score", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    pd.testing.assert_series_equal(rows_of(tmp_path / "runs")["psnr"], before)
    assert "operator" in done.json["runs"][0]["unavailable"]["data_consistency"]


# -- several processes ---------------------------------------------------------------------------------------------
def test_held_shards_are_waited_for(mrbench, runs: Path) -> None:
    folder = RunFolder(run_of(runs))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with folder.claim(1) as mine:
            assert mine
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    timer = threading.Timer(0.5, release.set)
    timer.start()
    done = mrbench("score", runs, "--metrics", "ssim")
    assert release.is_set()
    thread.join()
    assert done.code == 0, done.err
    assert rows_of(runs)["ssim"].notna().all()


def test_two_calls_do_not_mix(mrbench, runs: Path) -> None:
    from filelock import FileLock

    folder = run_of(runs)
    with FileLock(folder / ".locks" / "score.lock"):
        done = mrbench("score", runs, "--metrics", "ssim")
    assert done.code == 2
    assert "another `mrbench score` is working" in done.err
    assert mrbench("score", runs, "--metrics", "ssim").code == 0


# -- the command ---------------------------------------------------------------------------------------------------
def test_table_and_threads(mrbench, runs: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        done = mrbench("score", runs, "--metrics", "ssim", "--threads", 1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert done.code == 0, done.err
    assert "bicubic" in done.out
    assert "SSIM" in done.out
    assert "uniform-x4" in done.out


def test_wrong_paths_metrics_and_options(mrbench, runs: Path) -> None:
    for arguments, message in (
        ((runs / "nothing",), "no such file or folder"),
        ((SAMPLE,), "holds no run folder"),
        ((runs, "--metrics", "sim"), "Did you mean 'ssim'"),
        ((runs, "--metrics", "ssim", "--set", "metric.ssim.windo=x"), "has no option 'windo'"),
        ((runs, "--metrics", "ssim", "--set", "bicubic.a=1"), "there is no 'bicubic' here"),
        ((runs, "--metrics", "ssim", "--device", "tpu"), "--device tpu: unknown"),
    ):
        done = mrbench("score", *arguments)
        assert done.code == 2
        assert message in done.err
    assert "psnr" in discover().metrics.names()
    assert os.listdir(run_of(runs) / "rows")


def test_a_run_without_ok_rows_has_nothing_to_score(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "laplace", LAPLACE.format(fails="True"))
    command = (
        "run",
        "-m",
        "draws",
        "-d",
        "sample",
        "--limit",
        2,
        "--scale",
        4,
        "--plugin",
        plugin,
        "--no-pictures",
        "--out",
        tmp_path / "r",
    )
    assert mrbench(*command, "--metrics", "psnr").code == 1
    columns = read_manifest(run_of(tmp_path / "r")).columns
    done = mrbench("score", tmp_path / "r", "--metrics", "ssim")
    assert done.code == 0
    assert "nothing to score" in done.err
    assert read_manifest(run_of(tmp_path / "r")).columns == columns
