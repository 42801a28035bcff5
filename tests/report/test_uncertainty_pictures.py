"""Pictures of uncertainty and the numbers behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import write_plugin

from mrbench.cli.uncertainty import uncertainty
from mrbench.errors import UserError
from mrbench.metrics import uncertainty_calibration, uncertainty_spread
from mrbench.metrics.uncertainty import Ensemble
from mrbench.report.uncertainty_numbers import (
    Segment,
    area_between,
    calibration_of,
    item_draws,
    parse_segment,
    probability_map,
    rank_histogram,
    sparsification,
    usual_segment,
)
from mrbench.store.runs import load_run, load_runs

PLUGIN = """
import mrbench
from torch.nn import functional as F

class Edges:
    def __init__(self, options): ...
    def restore(self, measurement, draws):
        x = mrbench.upsample(measurement, kernel="bicubic")
        edges = (x - F.avg_pool2d(x, 7, 1, 3, count_include_pad=False)).abs()
        return x[:, None] + edges[:, None] * measurement.noise(draws).normal(x.shape[1:])

@mrbench.hookimpl
def mrbench_methods():
    return [mrbench.MethodCard("edges", Edges, deterministic=False)]
"""


@pytest.fixture
def runs(mrbench, tmp_path):
    plugin = write_plugin(tmp_path, "edges_method", PLUGIN)
    what = ["--method", "edges", "--method", "bicubic", "--dataset", "sample", "--subset", 2, "--draws", 10, "--no-pictures"]
    metrics = "psnr,crps,nll,coverage,spread_skill,ause,rank_histogram,calibration_error"
    done = mrbench("run", "--plugin", plugin, *what, "--out", tmp_path / "runs", "--metrics", metrics)
    assert done.code == 0, done.err
    return tmp_path / "runs"


def of_label(runs, label):
    return next(r for r in load_runs([runs]) if r.label == label)


def test_pictures_and_numbers_of_a_run(runs, tmp_path, capfd):
    out = tmp_path / "out"
    uncertainty([runs], out, segment="60,40,80,120", as_json=True)
    printed = json.loads(capfd.readouterr().out)
    stored = json.loads((out / "calibration.json").read_text())
    assert {k: v for k, v in printed.items() if k != "files"} == stored
    assert sorted(Path(f).name for f in printed["files"]) == sorted(p.name for p in out.iterdir() if p.suffix != ".json")
    assert len(printed["files"]) == 6
    assert all(Path(f).stat().st_size > 10_000 for f in printed["files"])
    assert stored["segment"] == [60, 40, 80, 120]
    assert stored["draws"] == 10
    run = of_label(runs, "edges")
    outside = stored["rank_histogram"][0] + stored["rank_histogram"][-1]
    assert outside == pytest.approx(run.rows["rank_histogram_outside_fg"].mean(), abs=1e-9)
    gaps = np.abs(np.subtract(stored["reliability"]["observed"], stored["reliability"]["nominal"]))
    assert gaps.mean() <= run.rows["calibration_error_fg"].mean() + 1e-9  # of the mean curve
    area = area_between(*(np.array(stored["sparsification"][k]) for k in ("by_deviation", "oracle")))
    assert area == pytest.approx(run.rows["ause_fg"].mean(), abs=1e-6)


def test_a_named_item(runs, tmp_path, capfd):
    run = of_label(runs, "edges")
    item = sorted(run.rows["item_id"])[0]
    uncertainty([run.folder], tmp_path / "out", item=item)
    name = "-".join(item.split("/")[1:])
    assert {f"maps-{name}.png", f"segment-{name}.pdf", "calibration.png"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert f"maps-{name}.png" in capfd.readouterr().out.replace("\n", "")


def test_mistakes(runs, tmp_path):
    edges, bicubic = (of_label(runs, label).folder for label in ("edges", "bicubic"))
    with pytest.raises(UserError, match=r"one restored image per slice \(a deterministic method\)"):
        uncertainty([bicubic], tmp_path / "out")
    with pytest.raises(UserError, match="has no item 'nothing'"):
        uncertainty([edges], tmp_path / "out", item="nothing")
    with pytest.raises(UserError, match=r"\(0, 9999\) is outside of the image"):
        uncertainty([edges], tmp_path / "out", segment="0,0,0,9999")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        uncertainty([edges], tmp_path / "file")
    for part in (edges / "images").iterdir():
        part.unlink()
    with pytest.raises(UserError, match="not all draws were stored"):
        uncertainty([edges], tmp_path / "out")
    with pytest.raises(UserError, match="were not stored"):
        item_draws(load_run(edges), load_run(edges).rows["item_id"].iloc[0])
    assert not (tmp_path / "out").exists()


def test_pictures_never_load_torch(make_run, tmp_path):
    generator = np.random.default_rng(0)
    truth = np.zeros((3, 32, 24), np.float32)
    truth[:, 4:28, 4:20] = generator.uniform(0.2, 0.8, (3, 24, 16))
    draws = (truth + 0.1 * generator.standard_normal((5, 3, 32, 24))).astype(np.float32)  # colour
    kept = (truth, truth[:, ::2, ::2], truth[0] > 0)
    empty = (truth, truth[:, ::2, ::2], np.zeros((32, 24), bool))
    make_run("a", {"psnr": [30.0, 31.0]}, subjects={"s1": 2}, draws=5, images=[draws] * 2, truth=[kept, empty])
    code = f"""
import sys
from pathlib import Path
from mrbench.cli.uncertainty import uncertainty
uncertainty([Path({str(tmp_path / "runs")!r})], Path({str(tmp_path / "out")!r}), as_json=True)
assert not {{"torch", "scipy", "skimage"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["items"], found["items_left_out"]) == (1, 1)
    assert sum(found["rank_histogram"]) == pytest.approx(1)


def test_equal_draws_have_no_order_and_are_still_shown(make_run, tmp_path):
    image = np.linspace(0.1, 0.9, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    truth = (np.flip(image).copy(), image[:, ::2, ::2], np.ones((32, 32), bool))
    run = make_run("a", {"psnr": [30.0]}, subjects={"s1": 1}, draws=3, images=[np.stack([image] * 3)], truth=[truth])
    found = calibration_of(run)
    assert found.curve.size == 0
    assert found.document()["sparsification"]["by_deviation"] == []
    uncertainty([run.folder], tmp_path / "out", as_json=True)
    assert (tmp_path / "out" / "calibration.png").is_file()


def test_numbers_are_those_of_the_metrics():
    generator = np.random.default_rng(1)
    draws = np.round(generator.uniform(size=(7, 400)), 2)  # with ties
    truth = np.round(generator.uniform(size=400), 2)
    e = Ensemble(torch.from_numpy(draws), torch.from_numpy(truth), None, 1)
    assert rank_histogram(draws, truth) == pytest.approx(uncertainty_calibration.rank_histogram(e)[""][0].numpy())
    error, by = np.abs(draws.mean(0) - truth), draws.std(0, ddof=1)
    expected = uncertainty_spread.sparsification(torch.from_numpy(error), torch.from_numpy(by), 20)
    assert sparsification(error, by) == pytest.approx(expected.numpy())
    oracle = sparsification(error, error)
    theirs = uncertainty_spread.area_between(torch.from_numpy(sparsification(error, by)), torch.from_numpy(oracle))
    assert area_between(sparsification(error, by), oracle) == pytest.approx(theirs)


def test_probability_map():
    draws = np.array([[0.0, 0.5, 1.0], [0.0, 0.5, 0.999], [0.0, 0.504, 0.0], [0.002, 0.25, 1.0]])
    found = probability_map(draws)
    assert found.shape == (256, 3)
    assert found.sum(0).tolist() == [1, 1, 1]
    assert found[0].tolist() == [1, 0, 0.25]
    assert found[128, 1] == 0.5
    assert found[129, 1] == 0.25
    assert found[255, 2] == 0.75


def test_segments():
    assert Segment((2, 3), (2, 6)).pixels[1].tolist() == [3, 4, 5, 6]
    rows, columns = Segment((0, 8), (4, 0)).pixels
    assert columns.tolist() == list(range(8, -1, -1))
    assert rows.tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4]
    assert parse_segment("1, 2,3 ,4", (9, 9)) == Segment((1, 2), (3, 4))
    for text, why in (("1,2,3", "four whole"), ("a,b,c,d", "four whole"), ("0,0,9,0", "outside"), ("1,1,1,1", "same pixel")):
        with pytest.raises(UserError, match=why):
            parse_segment(text, (9, 9))
    deviation = np.zeros((100, 90))
    deviation[70, 10:50] = 1
    deviation[20] = 5
    mask = np.ones((100, 90), bool)
    mask[15:25] = False
    found = usual_segment(deviation, mask)
    assert abs(found.start[0] - 70) <= 2
    assert found.start[1] <= 10
    assert found.end[1] - found.start[1] == 63
