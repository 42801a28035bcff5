"""Errors in the units of the data set: numbers by hand, units and scales through runs and scoring afterwards."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from tests_support import rows_of

from mrbench.engine.scoring import Scorer
from mrbench.plugins import discover

NAMES = ("mae_native", "bias_native")


@pytest.fixture
def scorer():
    return Scorer.load(discover(environ={"MRBENCH_PLUGINS": ""}), NAMES, {}, torch.device("cpu"))


def test_means_over_the_foreground_times_the_scale(scorer):
    truth = torch.full((2, 1, 16, 16), 0.5)
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, 4:8, 4:8] = True  # 16 pixels
    estimate = truth.clone()
    estimate[:, :, 4, 4] += 0.25
    estimate[:, :, 4, 5] -= 0.125
    estimate[:, :, 0, 0] = 0.9  # outside
    values = scorer.score(estimate[:, None], truth, mask, None, [4000.0, 100.0])
    assert values["mae_native"] == pytest.approx([4000 * 0.375 / 16, 100 * 0.375 / 16])
    assert values["bias_native"] == pytest.approx([4000 * 0.125 / 16, 100 * 0.125 / 16])


def test_draws_of_a_signed_metric(scorer):
    truth = torch.full((1, 1, 16, 16), 0.5)
    mask = torch.ones(1, 16, 16, dtype=torch.bool)
    draws = torch.stack([truth - 0.2, truth + 0.1, truth + 0.4], dim=1)
    values = scorer.score(draws, truth, mask, None, [1000.0])
    assert values["bias_native"] == pytest.approx([-200])
    assert values["bias_native@mean"] == pytest.approx([100])
    assert values["bias_native@best"] == pytest.approx([100])  # nearest to zero, not lowest
    assert values["mae_native@best"] == pytest.approx([100])
    columns = scorer.columns(3, "ms")
    assert {c.unit for c in columns.values()} == {"ms"}
    assert not any(columns[c].ranked for c in columns if c.startswith("bias"))
    assert columns["mae_native"].ranked
    assert "mask:fg" in columns["mae_native"].signature


@pytest.mark.parametrize("units", ["", "arbitrary"])
def test_no_columns_without_units(scorer, units):
    assert scorer.columns(1, units) == {}
    assert set(scorer.unavailable) == set(NAMES)
    assert "no physical unit" in scorer.unavailable["mae_native"]
    assert set(scorer.columns(1, "ms")) == set(NAMES)
    assert not scorer.unavailable


def test_without_scales_nothing_is_computed(scorer):
    truth = torch.rand(1, 1, 16, 16)
    assert scorer.score(truth[:, None], truth, torch.ones(1, 16, 16, dtype=torch.bool), None) == {}


def test_an_empty_mask_has_no_value(scorer):
    truth = torch.rand(1, 1, 16, 16)
    values = scorer.score(truth[:, None], truth, torch.zeros(1, 16, 16, dtype=torch.bool), None, [1.0])
    assert np.isnan(values["mae_native"]).all()


def _tree(folder):
    """Two subjects with T1 maps in seconds, and their brain masks."""
    rng = np.random.default_rng(3)
    for number in (1, 2):
        values = np.zeros((40, 40, 4), np.float32)
        values[8:32, 8:32] = rng.uniform(0.5, 4.0, (24, 24, 4))
        for place, name, data in (
            (folder, "T1map", values),
            (folder / "derivatives/seg", "desc-brain_mask", (values > 0).astype(np.uint8)),
        ):
            path = place / f"sub-{number}" / "anat" / f"sub-{number}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(data, np.diag([1.0, 1.0, 3.0, 1.0]))
            image.set_sform(image.affine, 1)
            nib.save(image, path)
    (folder / "T1map.json").write_text(json.dumps({"Units": "s"}))
    return folder


def test_a_run_on_t1_maps_and_scoring_it_again(tmp_path, mrbench):
    tree = _tree(tmp_path / "data")
    common = ("--dataset", "bids", "--set", f"bids.path={tree}", "--set", "bids.suffix=T1map", "--set", "bids.split=all_test")
    done = mrbench(
        "run", "--method", "bicubic", *common, "--scale", "2", "--out", tmp_path / "runs",
        "--metrics", "psnr,mae_native,bias_native", "--images", "all", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "runs")
    assert len(rows) == 8
    manifest = json.loads(next((tmp_path / "runs").rglob("manifest.json")).read_text())
    assert manifest["columns"]["mae_native"]["unit"] == "ms"
    assert rows["mae_native"].between(200, 1500).all()  # noise of 0.5 to 4 s
    assert (rows["bias_native"].abs() < rows["mae_native"]).all()
    before = rows[["mae_native", "bias_native"]].to_numpy()
    again = mrbench("score", tmp_path / "runs", "--metrics", "mae_native,bias_native")
    assert again.code == 0, again.err
    np.testing.assert_array_equal(rows_of(tmp_path / "runs")[["mae_native", "bias_native"]].to_numpy(), before)


def test_arbitrary_values_have_no_native_error(tmp_path, mrbench):
    done = mrbench(
        "run", "--method", "bicubic", "--dataset", "sample", "--scale", "4", "--limit", "2", "--out", tmp_path,
        "--metrics", "psnr,mae_native", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = json.loads(next(tmp_path.rglob("manifest.json")).read_text())
    assert "mae_native" not in manifest["columns"]
    assert "no physical unit" in manifest["unavailable"]["mae_native"]
