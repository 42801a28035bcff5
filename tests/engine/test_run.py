"""`mrbench run`: what is asked for, what is stored, what is said."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests_support import Done, rows_of, write_plugin

FAST = ("--metrics", "psnr,ssim", "--no-pictures")


def test_two_methods_sixteen_items_and_json(mrbench, tmp_path: Path) -> None:
    done: Done = mrbench(
        "run",
        "--method",
        "bicubic",
        "--method",
        "lanczos",
        "--dataset",
        "sample",
        "--scale",
        "4",
        "--json",
        "--out",
        tmp_path,
        "--no-pictures",
    )
    assert done.code == 0, done.err
    runs = done.json["runs"]
    assert [r["method"] for r in runs] == ["bicubic", "lanczos"]
    for r in runs:
        assert set(r) >= {
            "run",
            "label",
            "method",
            "tier",
            "dataset",
            "protocol",
            "protocol_hash",
            "items",
            "ok",
            "failed",
            "skipped",
            "n_subjects",
            "metrics",
            "seconds_per_item",
            "nfe",
            "unavailable",
        }
        assert (r["items"], r["ok"], r["failed"], r["skipped"], r["n_subjects"]) == (16, 16, 0, 0, 2)
        assert r["protocol"] == "uniform-x4"
        assert set(r["metrics"]) >= {
            "psnr",
            "psnr_fg",
            "ssim",
            "ssim_fg",
            "ms_ssim",
            "gmsd",
            "nmse",
            "haarpsi",
            "data_consistency",
        }
        assert r["metrics"]["psnr"]["n"] == 16
        assert 24 < r["metrics"]["psnr"]["mean"] < 36
        assert set(r["unavailable"]) == {"lpips_alex", "lpips_vgg", "lpips_squeeze"}
        assert all("psnr@" not in name for name in r["metrics"])


@pytest.mark.parametrize("batch", [1, 7])
def test_rows_do_not_depend_on_the_batch(mrbench, tmp_path: Path, batch: int) -> None:
    for size in (4, batch):
        done = mrbench(
            "run",
            "--method",
            "bicubic",
            "--method",
            "zero_filled",
            "--dataset",
            "sample",
            "--out",
            tmp_path / str(size),
            "--batch",
            size,
            "--no-pictures",
        )
        assert done.code == 0, done.err
    one, other = (rows_of(tmp_path / str(s)).drop(columns="shard") for s in (4, batch))
    pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=0, atol=1e-6)


def test_second_call_computes_nothing_and_new_metrics_come_from_stored_images(mrbench, tmp_path: Path) -> None:
    command = ("run", "--method", "bicubic", "--dataset", "sample", "--out", tmp_path, "--no-pictures")
    assert mrbench(*command, "--metrics", "psnr").code == 0
    part = next(tmp_path.rglob("shard-00000.parquet"))
    before = part.stat().st_mtime_ns
    assert "16 were stored before" in mrbench(*command, "--metrics", "psnr").out
    assert part.stat().st_mtime_ns == before
    first = rows_of(tmp_path, measured=True)
    assert mrbench(*command, "--metrics", "ssim").code == 0
    second = rows_of(tmp_path, measured=True)
    assert second["ssim"].notna().all()
    pd.testing.assert_series_equal(first["psnr"], second["psnr"])
    pd.testing.assert_series_equal(first["seconds"], second["seconds"])  # nothing was restored again
    assert (
        mrbench(
            "run",
            "--method",
            "bicubic",
            "--dataset",
            "sample",
            "--out",
            tmp_path / "fresh",
            "--no-pictures",
            "--metrics",
            "psnr,ssim",
        ).code
        == 0
    )
    pd.testing.assert_series_equal(second["ssim"], rows_of(tmp_path / "fresh")["ssim"])


def test_subset_limit_and_partial(mrbench, tmp_path: Path) -> None:
    from mrbench.store.runs import load_runs

    done = mrbench("run", "--method", "bicubic", "--dataset", "sample", "--subset", 4, "--out", tmp_path, "--json", *FAST)
    assert done.json["runs"][0]["items"] == 4
    assert done.json["runs"][0]["n_subjects"] == 2
    run = load_runs([tmp_path])[0]
    assert run.manifest.partial
    assert len(run.rows) == 4
    assert mrbench("run", "--method", "bicubic", "--dataset", "sample", "--out", tmp_path, *FAST).code == 0
    run = load_runs([tmp_path])[0]
    assert not run.manifest.partial
    assert len(run.rows) == 16
    done = mrbench("run", "--method", "bicubic", "--dataset", "sample", "--limit", 2, "--out", tmp_path / "b", "--json", *FAST)
    assert (done.json["runs"][0]["items"], done.json["runs"][0]["n_subjects"]) == (2, 2)
    assert mrbench("run", "--method", "bicubic", "--dataset", "sample", "--subset", 99, "--out", tmp_path, *FAST).code == 2


STOCHASTIC = """
    import mrbench
    class Noisy:
        nfe = 3
        def __init__(self, options):
            pass
        def restore(self, m, draws):
            x = mrbench.upsample(m)
            return x[:, None] + 0.05 * m.noise(draws).normal(x.shape[1:])
    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("noisy", Noisy, deterministic=False)]
"""


def test_draws_are_never_mixed(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "noisy", STOCHASTIC)
    for draws in (1, 4):
        done = mrbench(
            "run",
            "--method",
            "noisy",
            "--method",
            "bicubic",
            "--plugin",
            plugin,
            "--dataset",
            "sample",
            "--subset",
            4,
            "--draws",
            draws,
            "--out",
            tmp_path / str(draws),
            "--batch",
            5 - draws,
            "--json",
            *FAST,
        )
        assert done.code == 0, done.err
    one, four = (rows_of(tmp_path / k, "noisy").set_index("item_id") for k in ("1", "4"))
    pd.testing.assert_series_equal(one["psnr"], four["psnr"], rtol=1e-6)  # draw 1 is draw 1, whatever K and batch
    assert (four["psnr@mean"] > four["psnr"]).all()
    assert (four["psnr@best"] >= four["psnr"]).all()
    assert "psnr@mean" not in one
    assert (four["nfe"] == 3).all()
    bicubic = rows_of(tmp_path / "4", "bicubic")
    assert (bicubic["draws"] == 1).all()  # deterministic: one draw is stored
    assert "psnr@mean" not in bicubic


def test_own_folder_with_bad_files(mrbench, tmp_path: Path) -> None:
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[-1:1:64j, -1:1:64j]
    for subject in ("anna", "bert"):
        (data / subject).mkdir(parents=True)
        head = ((xx / 0.8) ** 2 + (yy / 0.9) ** 2 < 1) * (0.5 + 0.4 * np.sin(9 * xx) * np.cos(7 * yy))
        Image.fromarray((4000 * head + 20 * rng.random((64, 64))).astype(np.uint16)).save(data / subject / "scan.png")
    (data / "anna" / "cut.png").write_bytes((data / "anna" / "scan.png").read_bytes()[:300])
    np.save(data / "bert" / "nan.npy", np.full((64, 64), np.nan, np.float32))
    done = mrbench(
        "run",
        "--method",
        "bicubic",
        "--dataset",
        "mine=folder",
        "--set",
        f"mine.path={data}",
        "--out",
        tmp_path / "runs",
        "--json",
        *FAST,
    )
    assert done.code == 0, done.err
    run = done.json["runs"][0]
    assert (run["items"], run["ok"], run["skipped"], run["n_subjects"], run["dataset"]) == (4, 2, 2, 2, "mine")
    rows = rows_of(tmp_path / "runs")
    assert set(rows.loc[rows["status"] == "skipped", "subject"]) == {"anna", "bert"}
    assert "cut.png" in done.err
    assert 20 < run["metrics"]["psnr"]["mean"] < 60


def test_signature_change_is_refused_in_a_stored_run(mrbench, tmp_path: Path) -> None:
    command = ("run", "--method", "bicubic", "--dataset", "sample", "--out", tmp_path, "--metrics", "ssim", "--no-pictures")
    assert mrbench(*command).code == 0
    done = mrbench(*command, "--set", "metric.ssim.window=uniform7")
    assert done.code == 2
    assert "column ssim is stored as SSIM|gauss11" in done.err
    assert "mrbench score" in done.err


def test_noisy_protocol_gives_every_method_the_same_measurement(mrbench, tmp_path: Path) -> None:
    (tmp_path / "noisy.yaml").write_text("name: noisy\nscale: 2\nmetrics: [psnr]\nnoise: {kind: gaussian, sigma: 0.05}\n")
    for number, order in enumerate((["bicubic", "pinv"], ["pinv", "bicubic"])):
        methods = [a for m in order for a in ("--method", m)]
        done = mrbench(
            "run",
            *methods,
            "--dataset",
            "sample",
            "--protocol",
            tmp_path / "noisy.yaml",
            "--subset",
            4,
            "--batch",
            1 + number,
            "--out",
            tmp_path / str(number),
            "--no-pictures",
        )
        assert done.code == 0, done.err
    one, two = (rows_of(tmp_path / k).drop(columns="shard") for k in "01")
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6)


def test_three_dimensional_protocol(mrbench, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    z, y, x = np.mgrid[-1:1:24j, -1:1:48j, -1:1:40j]
    head = ((x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.2) ** 2 < 1) * (0.6 + 0.3 * np.sin(12 * x) * np.cos(9 * y + 5 * z))
    np.save(data / "volume.npy", head.astype(np.float32))
    (tmp_path / "p.yaml").write_text(
        "name: p\ndimensions: 3\nscale: [2, 3, 3]\nmetrics: [psnr, data_consistency]\ndegradation: {name: area}\n"
    )
    done = mrbench(
        "run",
        "--method",
        "bicubic",
        "--method",
        "nearest",
        "--dataset",
        "folder",
        "--set",
        f"folder.path={data}",
        "--protocol",
        tmp_path / "p.yaml",
        "--out",
        tmp_path / "runs",
        "--json",
        "--no-pictures",
    )
    assert done.code == 0, done.err
    for run in done.json["runs"]:
        assert run["ok"] == run["items"] > 10
        assert run["metrics"]["psnr"]["mean"] > 15
        assert "data_consistency" not in run["metrics"]  # no 2-D operator exists
    done = mrbench(
        "run",
        "--method",
        "pinv",
        "--dataset",
        "folder",
        "--set",
        f"folder.path={data}",
        "--protocol",
        tmp_path / "p.yaml",
        "--out",
        tmp_path / "runs",
    )
    assert done.code == 2
    assert "needs a 2-D degradation operator" in done.err


def test_life_cycle_hooks_of_a_plugin_file(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(
        tmp_path,
        "logger",
        f"""
        import csv, mrbench
        @mrbench.hookimpl
        def mrbench_item_done(row):
            with open({str(tmp_path / "log.csv")!r}, "a", newline="") as stream:
                csv.writer(stream).writerow([row["item_id"], row["psnr"]])
        @mrbench.hookimpl
        def mrbench_run_finished(run):
            raise OSError("mail server is down")
    """,
    )
    done = mrbench(
        "run", "--method", "bicubic", "--plugin", plugin, "--dataset", "sample", "--limit", 4, "--out", tmp_path / "runs", *FAST
    )
    assert done.code == 0
    assert "plugin logger: mrbench_run_finished raised OSError: mail server is down" in done.err
    with (tmp_path / "log.csv").open() as stream:
        assert len(list(csv.reader(stream))) == 4


def test_controls_are_perfect_consistent_and_never_ranked(mrbench, tmp_path: Path) -> None:
    done = mrbench(
        "run",
        "--method",
        "gt",
        "--method",
        "pinv",
        "--method",
        "impostor",
        "--method",
        "bicubic",
        "--dataset",
        "sample",
        "--out",
        tmp_path,
        "--metrics",
        "psnr,ssim,data_consistency",
        "--no-pictures",
    )
    assert done.code == 0, done.err
    rows = rows_of(tmp_path).groupby("label")
    assert np.isinf(rows.get_group("gt")["psnr"]).all()
    np.testing.assert_allclose(rows.get_group("gt")["ssim"], 1, atol=1e-6)
    assert (rows.get_group("pinv")["data_consistency"] < 1e-5).all()
    assert (rows.get_group("impostor")["data_consistency"] < 1e-5).all()
    assert rows.get_group("impostor")["psnr"].mean() < rows.get_group("pinv")["psnr"].mean()
    board = mrbench("leaderboard", tmp_path, "--format", "json").json
    assert [r["method"] for r in board["rows"] if r["control"]] == ["gt", "pinv", "impostor"] or {
        r["method"] for r in board["rows"] if r["control"]
    } == {"gt", "pinv", "impostor"}


def test_images_all_on_a_finished_run_stores_the_images(mrbench, tmp_path: Path) -> None:
    command = ("run", "--method", "bicubic", "--dataset", "sample", "--limit", 4, "--out", tmp_path, *FAST)
    assert mrbench(*command, "--images", "none").code == 0
    assert not list(tmp_path.rglob("images"))
    before = rows_of(tmp_path)
    assert mrbench("score", tmp_path, "--metrics", "nmse").code == 2
    assert mrbench(*command, "--images", "all").code == 0
    assert list(tmp_path.rglob("images/shard-*.npz"))
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)
    assert mrbench("score", tmp_path, "--metrics", "nmse").code == 0
    assert mrbench(*command, "--metrics", "psnr").code == 0
    assert rows_of(tmp_path)["nmse"].notna().all()  # what score added stays


def test_parts_with_another_signature_are_computed_again(mrbench, tmp_path: Path) -> None:
    """As `mrbench score` would leave them if it were killed while a definition changes."""
    import pyarrow.parquet as pq

    command = ("run", "--method", "bicubic", "--dataset", "sample", "--out", tmp_path, *FAST)
    assert mrbench(*command).code == 0
    expected = rows_of(tmp_path)
    part = next(tmp_path.rglob("shard-00001.parquet"))
    table = pq.read_table(part)
    metadata = {**table.schema.metadata, b"mrbench.signature.ssim": b"SSIM|another"}
    position = table.column_names.index("ssim")
    changed = table.set_column(position, "ssim", table.column("ssim").combine_chunks().cast("float64").fill_null(0))
    changed = changed.set_column(position, "ssim", [[0.5] * table.num_rows]).replace_schema_metadata(metadata)
    pq.write_table(changed, part)
    assert mrbench(*command).code == 0
    pd.testing.assert_frame_equal(rows_of(tmp_path), expected)


def test_changed_plugin_code_is_another_run(mrbench, tmp_path: Path) -> None:
    text = """
        import mrbench
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("mine", lambda m: mrbench.upsample(m, kernel="nearest"))]
    """
    command = (
        "run",
        "--method",
        "mine",
        "--plugin",
        tmp_path / "mine.py",
        "--dataset",
        "sample",
        "--limit",
        2,
        "--out",
        tmp_path / "runs",
        "--json",
        *FAST,
    )
    write_plugin(tmp_path, "mine", text)
    first = mrbench(*command)
    assert mrbench(*command).json["runs"] == first.json["runs"]
    write_plugin(tmp_path, "mine", text.replace("nearest", "bicubic"))
    second = mrbench(*command)
    assert second.json["runs"][0]["metrics"]["psnr"]["mean"] > first.json["runs"][0]["metrics"]["psnr"]["mean"]
    assert f"a new run folder is begun for mine: {first.json['runs'][0]['run']} had other" in second.err
