"""Presets, the changes that a call makes to them, and how steps are shared out."""

from __future__ import annotations

import pytest

from mrbench.train.presets import share_out
from mrbench.train.settings import EmaSpec, OptimiserSpec, RecipeOptions, Stage


def test_shares_are_exact_and_at_least_one() -> None:
    assert share_out(100, [1]) == [100]
    assert share_out(100, [1_000_000, 1_000_000, 70_000]) == [48, 48, 4]
    assert share_out(3, [1_000_000, 1_000_000, 70_000]) == [1, 1, 1]
    assert sum(share_out(101, [3, 5, 7])) == 101


def test_options_of_a_preset_and_nested_changes(train, tmp_path) -> None:
    done = train(
        "--out", tmp_path / "a", "--steps", 2, "--json",
        "--set", "toy.width=5", "--set", "toy.stages.main.batch=2", "--set", "toy.stages.0.optimisers.main.lr=1e-4",
    )  # fmt: skip
    assert done.code == 0, done.err
    from mrbench.hub.checkpoint import read_folder

    checkpoint = read_folder(tmp_path / "a", "toy")
    stage = checkpoint.training["stages"][0]
    assert (stage["steps"], stage["batch"], stage["optimisers"]["main"]["lr"]) == (2, 2, 1e-4)
    assert checkpoint.config["architecture"] == {"width": 5}
    assert checkpoint.training["preset"] == "demo"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "toy.widht=5"), "unknown option 'widht'. Did you mean 'width'"),
        (("--set", "toy.width=wide"), "width: Input should be a valid integer"),
        (("--set", "toy.stages.second.batch=2"), "there is no 'stages.second'"),
        (("--set", "toy.stages.main.patch=33"), "patch 33 is not a multiple of the scale 2"),
        (("--set", "toy.stages.main.patch=80"), "no train slice is as large as a patch of 80 (sizes: 64x72)"),
        (("--set", "toy.stages.main.optimisers.main.networks=[nett]"), "no network named 'nett'. Did you mean 'net'"),
        (("--set", "toy.stages.main.optimisers.main.parameters=zzz"), "parameters='zzz' matches none of 6"),
        (("--set", "toy.stages.main.data=[others]"), "others is not given. Name it with --dataset others=NAME"),
        (("--set", "toy.stages.main.validation.select=psrn"), "no metric named 'psrn'"),
        (("--set", "toy.stages.main.validation.select=psnr@mean"), "no column 'psnr@mean' with draws = 1"),
        (("--set", "toy.stages.main.validation.select=lpips_alex"), "validation needs the metric lpips_alex"),
        (("--set", "toy.lpips=squeeze"), "--set toy.lpips=off"),
        (("--set", "other.width=5"), "there is no 'other' here"),
        (("--preset", "papre"), "no preset 'papre'. Did you mean 'paper'"),
        (("--stages", "first"), "no stage named 'first'. Stages: main"),
        (("--ablation", "narow"), "Did you mean 'narrow'"),
        (("--max-slices", "0"), "--max-slices 0: expected N"),
        (("--max-slices", "x=3"), "no data set of that name"),
        (("--exclude", "anne"), "no data set here has that subject. Did you mean 'ann'"),
        (("--precision", "fp8"), "Known: fp32, bf16"),
        (("--scale", "2", "--protocol", "uniform-x2"), "exclude each other"),
        (("--log", "paper"), "Known: tensorboard, wandb"),
        (("--init", "nowhere"), "no checkpoint 'nowhere'"),
    ],
)
def test_mistakes_are_named_before_training(train, tmp_path, monkeypatch, arguments, message: str) -> None:
    monkeypatch.delenv("MRBENCH_LPIPS_SQUEEZE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    done = train("--out", tmp_path / "out", *arguments)
    assert done.code == 2, done.out + done.err
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_trained(train, tmp_path) -> None:
    for method, message in (
        ("bicubic", "has no training recipe"),
        ("toy_broken", "cannot load its recipe 'nowhere.at_all:Recipe'"),
        ("toyy", "no method named 'toyy'"),
    ):
        done = train("--out", tmp_path / "out", method=method)
        assert (done.code, message in done.err) == (2, True), done.err


def test_presets_are_listed_where_none_is_named(mrbench, toy, tmp_path) -> None:
    done = mrbench("train", "toy", "--plugin", toy, "--dataset", "sample")
    assert done.code == 2
    assert "Presets of toy: demo: sixty steps; paper: in bfloat16" in done.err


def test_scales_and_channels_that_the_method_does_not_have(train, tmp_path) -> None:
    done = train("--out", tmp_path / "out", method="toy_stages", scale=4)
    assert "method toy_stages works at 2x, not at 4x4" in done.err
    done = train("--out", tmp_path / "out", "--set", "toy.channels=3")
    assert "takes 1 channels, the training images have 3" in done.err


def test_stage_settings_that_contradict_each_other() -> None:
    optimisers = {"main": OptimiserSpec(lr=1e-3)}
    with pytest.raises(ValueError, match="not a multiple of accumulate"):
        Stage(steps=1, batch=3, accumulate=2, patch=8, optimisers=optimisers)
    with pytest.raises(ValueError, match="averages of one stage are the same"):
        Stage(steps=1, batch=3, patch=8, optimisers=optimisers, ema=(EmaSpec(), EmaSpec()))
    stage = Stage(steps=1, batch=3, patch=8, optimisers=optimisers)
    with pytest.raises(ValueError, match="two stages are called 'main'"):
        RecipeOptions(stages=(stage, stage))
