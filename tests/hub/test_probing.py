"""Stored against measured scores."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, Probe, check_probe, probe_of
from mrbench.hub.probing import allowed_difference


def local(probe=None, scores=None, scale: int | None = 4) -> LocalCheckpoint:
    record = Checkpoint("a", "/w/model.safetensors", "0" * 64, "demo", scale=scale, probe_scores=scores or {})
    training = None if probe is None else {"probe": probe}
    return LocalCheckpoint(record, Path("/w/model.safetensors"), {}, training)


def test_probe_from_its_name() -> None:
    assert probe_of(local({"name": "sample/uniform-x4", "scores": {"psnr": 30}})) == Probe(
        "sample/uniform-x4", "sample", "uniform-x4", {"psnr": 30.0}
    )


def test_probe_with_everything() -> None:
    text = {
        "name": "small", "dataset": "folder", "protocol": "uniform-x2", "subset": 4, "draws": 8,
        "options": {"steps": 2}, "dataset_options": {"path": "/d"}, "scores": {"psnr@mean": 31.5},
    }  # fmt: skip
    assert probe_of(local(text)) == Probe(
        "small", "folder", "uniform-x2", {"psnr@mean": 31.5}, 4, 8, {"steps": 2}, {"path": "/d"}
    )


def test_scores_of_a_record_belong_to_the_sample() -> None:
    assert probe_of(local(scores={"psnr": 29.0}, scale=2)) == Probe("sample/uniform-x2", "sample", "uniform-x2", {"psnr": 29.0})
    assert probe_of(local(scores={"psnr": 29.0}, scale=None)).protocol == "uniform-x4"
    assert probe_of(local()) is None
    assert probe_of(local({"name": "x/y", "scores": {}})) is None


@pytest.mark.parametrize(
    "text",
    [
        {"name": "small", "scores": {"psnr": 1}},
        {"name": "a/b/c", "scores": {"psnr": 1}},
        {"dataset": "sample", "scores": {"psnr": 1}},
        {"name": "a/b", "scores": {"psnr": "high"}},
        {"name": "a/b", "scores": {"psnr": 1}, "subset": "some"},
    ],
)
def test_damaged_probes_are_refused(text) -> None:
    with pytest.raises(UserError, match=r"training\.json: the probe"):
        probe_of(local(text))


def test_allowed_differences() -> None:
    for column in ("psnr", "psnr_fg", "psnr@mean", "psnr_fg@best"):
        assert allowed_difference(column, 30.0) == 0.05
    assert allowed_difference("lpips_squeeze@mean", 0.2) == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("measured", "agrees"),
    [
        ({"psnr": 30.04, "ssim": 0.905}, True),
        ({"psnr": 29.96, "ssim": 0.895}, True),
        ({"psnr": 30.06, "ssim": 0.9}, False),
        ({"psnr": 30.0, "ssim": 0.92}, False),
        ({"psnr": 30.0, "ssim": None}, True),
        ({"psnr": 30.0}, True),
        ({"psnr": math.nan, "ssim": 0.9}, False),
        ({"psnr": math.inf, "ssim": 0.9}, False),
        ({}, None),
    ],
)
def test_comparison(measured, agrees) -> None:
    asked = []

    def score(given, probe):
        asked.append((given, probe.name))
        return measured

    checkpoint = local({"name": "sample/uniform-x4", "scores": {"psnr": 30.0, "ssim": 0.9}})
    result = check_probe(checkpoint, score)
    assert asked == [(checkpoint, "sample/uniform-x4")]
    assert result.agrees is agrees
    assert bool(result.reason) is (agrees is not True)
    assert [c.column for c in result.scores] == ["psnr", "ssim"]


def test_reason_names_both_values() -> None:
    result = check_probe(local({"name": "a/b", "scores": {"psnr": 30.0}}), lambda *_: {"psnr": 28.0})
    assert result.reason == "psnr: stored 30, measured 28 (allowed difference 0.05)"


def test_infinite_scores_compare() -> None:
    assert check_probe(local({"name": "a/b", "scores": {"psnr": math.inf}}), lambda *_: {"psnr": math.inf}).agrees


def test_no_scores_are_not_a_failure() -> None:
    result = check_probe(local(), lambda *_: pytest.fail("nothing to score"))
    assert (result.agrees, result.reason) == (None, "it came without scores")
