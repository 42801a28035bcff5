"""The recipe of I2SB, through the command, with a network so small that nothing is learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mrbench_methods.i2sb.recipe import I2SBRecipe
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.bridge_weights import PUBLISHED
from network_support import write_images
from safetensors.torch import load_file
from tests_support import Done, write_plugin

from mrbench.errors import UserError
from mrbench.hub import read_folder
from mrbench.plugins import discover
from mrbench.train.presets import read_options

UNET: dict[str, Any] = {
    "model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "attention_rates": [2], "num_head_channels": 32,
}  # fmt: skip
STAGE: dict[str, Any] = {"steps": 3, "batch": 2, "patch": 32, "min_foreground": 0.0}
Train = Callable[..., Done]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects, two of them to train on."""
    return write_images(tmp_path_factory.mktemp("images"), (48, 56))


@pytest.fixture
def train(mrbench: Callable[..., Done], images: Path, tmp_path: Path) -> Train:
    """``mrbench train i2sb`` at 2x with a tiny network and three steps."""
    plugins: list[object] = []
    if "i2sb" not in discover().methods.names():
        plugins = ["--plugin", write_plugin(tmp_path, "i2sb_plugin", "from mrbench_methods.i2sb import mrbench_methods")]

    def call(out: Path, *arguments: object, preset: str = "demo") -> Done:
        changes = {f"i2sb.stages.main.{k}": v for k, v in STAGE.items()}
        changes |= {"i2sb.stages.main.validation.every": 0, "i2sb.stages.main.validation.items": 1, "i2sb.nfe": 2}
        changes |= {f"i2sb.unet.{k}": json.dumps(v) for k, v in UNET.items()}
        if preset != "paper":
            changes |= {"i2sb.stages.main.optimisers.main.schedule.warmup": 0}
        given = [part for k, v in changes.items() for part in ("--set", f"{k}={v}")]
        return mrbench(
            "train", "i2sb", "--preset", preset, "--scale", 2, "--device", "cpu", "--threads", 1, "--dataset", "faces=folder",
            "--set", f"faces.path={images}", "--out", out, *plugins, *given, *arguments,
        )  # fmt: skip

    return call


def test_the_demo_recipe_makes_weights_that_the_method_takes(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "out")
    assert done.code == 0, done.err
    checkpoint = read_folder(tmp_path / "out", "i2sb")
    config = checkpoint.config
    assert config["architecture"]["bridge"]["beta_max"] == 0.3
    assert config["method_options"] == {"nfe": 2, "clip": False, "final": "official", "preupsample": "bicubic"}
    assert (config["tier"], config["scale"], config["channels"]) == ("demo", 2, 1)
    assert all(value.dtype == torch.float16 for value in checkpoint.tensors().values())
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert training["selection"]["scores"]["psnr"] > 0  # restored by the method itself
    assert training["optimised_for"] == []
    # weights to begin from, by the same road
    done = train(tmp_path / "again", "--init", tmp_path / "out", "--set", "i2sb.stages.main.optimisers.main.lr=1e-9")
    assert done.code == 0, done.err
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert max(float((before[key].float() - after[key].float()).abs().max()) for key in before) < 1e-3


def test_without_noise_and_with_the_lr_image(train: Train, tmp_path: Path) -> None:
    conditioned = ("--set", "i2sb.bridge.cond_x1=true", "--set", "i2sb.unet.in_channels=2")
    done = train(tmp_path / "out", "--ablation", "ot_ode", *conditioned)
    assert done.code == 0, done.err
    bridge = read_folder(tmp_path / "out", "i2sb").config["architecture"]["bridge"]
    assert (bridge["ot_ode"], bridge["cond_x1"]) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--set", "i2sb.bridge.cond_x1=false", "--set", "i2sb.unet.in_channels=1", "--set", "i2sb.unet.out_channels=2"),
            "takes 1 channel(s) and returns 2",
        ),
        (("--set", "i2sb.unet.in_channels=1"), "shows it the state and the LR image"),
        (("--set", "i2sb.bridge.interval=2"), "greater than or equal to 4"),
        (("--set", "i2sb.bridge.beta_max=0.01"), "must exceed beta_min"),
        (("--set", "i2sb.bridge.interval=11"), "interval 11 is odd"),
        (("--set", "i2sb.channels=3"), "the network of this preset takes images of 1 channel(s), the training images have 3"),
    ],
)
def test_mistakes_are_named_before_training(arguments: tuple[str, ...], message: str, train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "out", *arguments)
    assert done.code == 2, done.err
    assert message in " ".join(done.err.split())


def test_more_calls_than_steps() -> None:
    with pytest.raises(UserError, match="nfe 8: a bridge of 8 steps has up to 7"):
        read_options(I2SBRecipe, "i2sb", "demo", {"bridge.interval": 8, "bridge.beta_max": 0.1, "nfe": 8})


def test_presets() -> None:
    found = {name: read_options(I2SBRecipe, "i2sb", name, {}) for name in I2SBRecipe.presets()}
    assert set(found) == {"demo", "small", "matched", "paper"}
    sizes = {}
    for name, options in found.items():
        with torch.device("meta"):
            sizes[name] = sum(p.numel() for p in ADMUNet(options.unet).parameters())
    assert 2 * sizes["demo"] <= 12e6  # bytes in float16
    assert sizes["paper"] == 552_807_171
    assert found["paper"].unet == ADMConfig(in_channels=3, **PUBLISHED)
    assert found["paper"].preupsample == "nearest"
    assert found["paper"].stages[0].ema[0].kind == "warmup"
    for preset in ("small", "matched"):
        assert found[preset].channels == 1
