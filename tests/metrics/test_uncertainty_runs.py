"""Metrics of several draws through `mrbench run`, `score` and `leaderboard`."""

from __future__ import annotations

import pytest
from tests_support import rows_of, write_plugin

from mrbench.store.images import read_images, read_truth, truth_file
from mrbench.store.runs import load_runs

PLUGIN = """
import torch
import mrbench
from torch.nn import functional as F

class Noisy:
    def __init__(self, options): ...
    def restore(self, measurement, draws):
        x = mrbench.upsample(measurement, kernel="bicubic")
        edges = (x - F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)).abs()
        return x[:, None] + (0.01 + edges)[:, None] * measurement.noise(draws).normal(x.shape[1:])

@mrbench.hookimpl
def mrbench_methods():
    return [mrbench.MethodCard("noisy", Noisy, deterministic=False)]
"""
METRICS = "psnr,crps,nll,coverage,spread_skill,ause"
COLUMNS = ["crps", "nll", "nll_miss", "coverage50", "coverage80", "coverage90", "spread_skill", "ause"]


@pytest.fixture
def plugin(tmp_path):
    return write_plugin(tmp_path, "noisy_method", PLUGIN)


def start(mrbench, plugin, out, *more, metrics=METRICS, draws=4):
    arguments = ["--plugin", plugin, "--out", out, "--dataset", "sample", "--subset", 2, "--no-pictures", "--metrics", metrics]
    return mrbench("run", "--method", "noisy", *more, "--draws", draws, *arguments)


def test_a_run_with_several_draws(mrbench, plugin, tmp_path):
    from mrbench.metrics.uncertainty import Ensemble
    from mrbench.metrics.uncertainty_scores import ensemble_crps

    done = start(mrbench, plugin, tmp_path / "runs", "--method", "bicubic")
    assert done.code == 0, done.err
    noisy, bicubic = sorted(load_runs([tmp_path / "runs"]), key=lambda r: r.label, reverse=True)
    expected = ["psnr", "psnr_fg", *(c + s for c in COLUMNS for s in ("", "_fg")), "psnr@mean", "psnr@best"]
    assert sorted(noisy.manifest.columns) == sorted([*expected, "psnr_fg@mean", "psnr_fg@best"])
    for column in COLUMNS:
        info = noisy.manifest.columns[column]
        assert "|K:4" in info.signature
        assert info.ranked == (column in ("crps", "ause"))
        assert noisy.rows[[column, f"{column}_fg"]].notna().all(axis=None)
    assert noisy.manifest.unavailable == {}

    import torch

    row = noisy.rows.iloc[0]
    draws = read_images(noisy.folder, int(row["shard"]))[row["item_id"]]
    hr, _, mask = read_truth(truth_file(noisy.folder, noisy.manifest.protocol.hash, row["item_hash"]))
    e = Ensemble.of(*(torch.from_numpy(a)[None] for a in (draws, hr, mask)))
    crps = e.averaged(ensemble_crps(e))
    assert row["crps"] == crps[""].item()
    assert row["crps_fg"] == crps["_fg"].item()

    # a deterministic method: no column, and the reason
    assert list(bicubic.manifest.columns) == ["psnr", "psnr_fg"]
    assert set(bicubic.manifest.unavailable) >= {"crps", "nll", "nll_miss", "coverage", "coverage50", "ause"}
    assert "needs two or more draws" in bicubic.manifest.unavailable["coverage50"]
    board = mrbench("leaderboard", tmp_path / "runs", "--format", "markdown")
    assert board.code == 0, board.err
    assert "n/a in" in board.out
    assert "needs two or more draws per slice" in board.out
    assert "K:4|calibrated:0.5" in board.out


def test_one_draw_of_a_stochastic_method(mrbench, plugin, tmp_path):
    done = start(mrbench, plugin, tmp_path / "runs", draws=1)
    assert done.code == 0, done.err
    (run,) = load_runs([tmp_path / "runs"])
    assert list(run.manifest.columns) == ["psnr", "psnr_fg"]
    assert "needs two or more draws" in run.manifest.unavailable["crps"]
    shown = mrbench("show", tmp_path / "runs", "--json").json["runs"][0]
    assert "needs two or more draws" in shown["unavailable"]["spread_skill"]


def test_score_adds_them_to_stored_draws(mrbench, plugin, tmp_path):
    runs = tmp_path / "runs"
    assert start(mrbench, plugin, runs, "--method", "bicubic", metrics="psnr").code == 0
    done = mrbench("score", runs, "--plugin", plugin, "--metrics", "crps,coverage", "--set", "metric.crps.estimator=ecdf")
    noisy, bicubic = sorted(load_runs([runs]), key=lambda r: r.label, reverse=True)
    assert "estimator:ecdf" in noisy.manifest.columns["crps"].signature
    assert noisy.rows[["crps", "coverage90_fg"]].notna().all(axis=None)
    assert "crps" not in bicubic.manifest.columns
    assert "needs two or more draws" in bicubic.manifest.unavailable["crps"]
    assert "needs two or more draws" in done.out + done.err
    verified = mrbench("verify", noisy.folder, "--plugin", plugin, "--items", 1)
    assert verified.code == 0, verified.out + verified.err


def test_rows_do_not_depend_on_the_batch(mrbench, plugin, tmp_path):
    every = METRICS + ",energy_score,nll_kde,nll_gauss,interval_score,calibration_error,rank_histogram,spread,error_correlation"
    for batch in (1, 2):
        assert start(mrbench, plugin, tmp_path / str(batch), "--batch", batch, metrics=every).code == 0
    one, two = (rows_of(tmp_path / str(batch)) for batch in (1, 2))
    columns = [c for c in one.columns if one[c].dtype == float and c != "peak_memory"]
    assert len(columns) > 40
    assert (one[columns] - two[columns]).abs().max().max() < 1e-6


def test_undefined_values_come_with_their_reason(mrbench, tmp_path):
    equal = write_plugin(tmp_path, "equal_method", PLUGIN.replace("(0.01 + edges)[:, None]", "0"))
    done = start(mrbench, equal, tmp_path / "runs", metrics="crps,ause")
    assert done.code == 0, done.err
    (run,) = load_runs([tmp_path / "runs"])
    assert run.rows["ause"].isna().all()
    assert "the draws are equal in all pixels" in run.manifest.unavailable["ause"]
    assert (run.rows["crps"] > 0).all()


def test_a_failing_metric_of_draws_leaves_the_others_alone(mrbench, tmp_path):
    bad = PLUGIN + (
        "\nfrom mrbench.metrics.uncertainty import Part\n"
        "class Bad:\n"
        "    def __init__(self, options): ...\n"
        "    def prepare(self, device, compile=False): ...\n"
        "    def __call__(self, ensemble): raise RuntimeError('no idea')\n"
        "class Largest(Bad):\n"
        "    parts = (Part('_draw', 'max', ranked=False),)\n"
        "    def __call__(self, ensemble): return ensemble.averaged(ensemble.draws.amax(0), '_draw')\n"
        "@mrbench.hookimpl\n"
        "def mrbench_metrics():\n"
        "    return [mrbench.MetricCard('bad', Bad, kind='draws'), mrbench.MetricCard('largest', Largest, kind='draws', foreground=True)]\n"
    )
    done = start(mrbench, write_plugin(tmp_path, "bad_metric", bad), tmp_path / "runs", metrics="bad,crps,largest")
    assert done.code == 0, done.err
    (run,) = load_runs([tmp_path / "runs"])
    assert run.rows["crps"].notna().all()
    assert run.rows["largest_draw_fg"].notna().all()
    assert run.manifest.columns["largest_draw"].signature == "largest|mrbench:1|max|K:4"
    assert "RuntimeError: no idea" in run.manifest.unavailable["bad"]


def test_the_commands_list_them(mrbench):
    listed = {m["name"]: m for m in mrbench("metrics", "--json").json}
    assert {"crps", "nll", "coverage", "ause"} <= set(listed)
    assert listed["crps"]["kind"] == "draws"
    assert "CRPS|estimator:fair|" in mrbench("metrics", "crps").out
