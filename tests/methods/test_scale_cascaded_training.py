"""``mrbench train scale_cascaded`` through the real loop, with tiny networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mrbench_methods.networks.band_prior import BandPrior
from mrbench_methods.scale_cascaded import mrbench_methods
from mrbench_methods.scale_cascaded.recipe import ScaleCascadedRecipe
from PIL import Image

from mrbench.errors import UserError
from mrbench.hub.checkpoint import read_folder
from mrbench.plugins import discover
from mrbench.train.checkpoint import read_weights
from mrbench.train.presets import read_options

NAME = "scale_cascaded"
PLUGIN = "from mrbench_methods.scale_cascaded import mrbench_methods\n"


@pytest.fixture
def plugin(tmp_path: Path) -> list[object]:
    """The arguments that make the method known, where the installation does not yet."""
    if NAME in discover().methods.names():
        return []
    file = tmp_path / "cascaded_plugin.py"
    file.write_text(PLUGIN)
    return ["--plugin", file]


def images(folder: Path) -> Path:
    """Smooth and sharp shapes of three people."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,subject,volume,slice_index,split"]
    y, x = np.mgrid[:64, :72]
    for subject, split in (("ann", "train"), ("bob", "train"), ("dua", "val")):
        for k in range(2):
            image = np.zeros((64, 72))
            for _ in range(8):
                cy, cx, r = rng.uniform(10, 55, 3)
                image = np.where((y - cy) ** 2 + (x - cx) ** 2 < (r / 3) ** 2, rng.uniform(30, 250), image + 3)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{subject}_{k}.png")
            lines.append(f"{subject}_{k}.png,{subject},{subject}_v,{k},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


TINY = {"model_channels": 8, "channel_mult": "[1, 1]", "img_resolution": 8}
SMALLER = [
    argument
    for level in (1, 2, 3)
    for key, value in TINY.items()
    for argument in ("--set", f"{NAME}.cascade.level{level}.{key}={value}")
]


@pytest.fixture
def train(mrbench: Callable[..., Any], plugin: list[object], tmp_path: Path) -> Callable[..., Any]:
    """Train the demo preset with tiny networks for a few steps."""
    data = images(tmp_path / "images")

    def call(*arguments: object) -> Any:
        small = [
            argument
            for level in (1, 2, 3)
            for key in ("batch=2", *(["patch=32"] if f"stages.level{level}.patch" not in str(arguments) else []))
            for argument in ("--set", f"{NAME}.stages.level{level}.{key}")
        ]
        return mrbench(
            "train", NAME, *plugin, "--preset", "demo", "--scale", 4, "--dataset", "faces=folder", "--set", f"faces.path={data}",
            "--device", "cpu", "--threads", 1, "--steps", 9, *SMALLER, *small, *arguments,
        )  # fmt: skip

    return call


def test_three_stages_leave_one_checkpoint_that_restores(train, mrbench, plugin, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = train("--out", out, "--json")
    assert done.code == 0, done.err
    checkpoint = read_folder(out, NAME)
    assert set(checkpoint.config["architecture"]) == {"pyramid", "level1", "level2", "level3"}
    tensors = checkpoint.tensors()
    assert {k.partition(".")[0] for k in tensors} == {"level1", "level2", "level3"}
    for level in (1, 2, 3):
        assert tensors[f"level{level}.unit"].dtype == torch.float32  # measured numbers are stored exactly
        assert tensors[f"level{level}.unit"] > 0
    spread = {level: 0.5 * float(tensors[f"level{level}.unit"]) for level in (1, 2, 3)}
    assert spread[1] < spread[2] < spread[3]
    assert tensors["level1.unet.out_conv.weight"].dtype == torch.float16
    document = json.loads((out / "training.json").read_text())
    assert [s["stage"] for s in document["stage_selections"]] == ["level3", "level2"]
    assert document["selection"]["stage"] == "level1"
    first, second = (read_weights(out / "stages" / f / "model.safetensors") for f in ("1-level3", "2-level2"))
    changed = {k.partition(".")[0] for k in first if not torch.equal(first[k], second[k])}
    assert changed == {"level2"}  # a stage trains its level alone
    assert first["level2.unit"] == 0  # measured when its stage begins
    weights = second["level2.unet.out_conv.weight"]
    assert float(weights.square().mean()) == pytest.approx(1, abs=0.05)  # forced weight normalisation, averaged
    ran = mrbench(
        "run", *plugin, "--method", f"{NAME}@{out}", "--dataset", "sample", "--scale", 4, "--subset", 1, "--metrics",
        "data_consistency", "--set", f"{NAME}.steps=6", "--no-pictures", "--out", tmp_path / "runs", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (run,) = ran.json["runs"]
    assert (run["tier"], run["ok"]) == ("demo", 1)


@pytest.mark.slow
def test_an_interrupted_training_gives_the_same_weights(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train("--out", tmp_path / "whole").code == 0
    original, calls = ScaleCascadedRecipe.losses, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(ScaleCascadedRecipe, "losses", interrupted)
    assert train("--out", tmp_path / "parts").code == 130
    monkeypatch.undo()
    assert train("--out", tmp_path / "parts", "--resume").code == 0
    whole, parts = (read_weights(tmp_path / n / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_mistakes_are_found_before_the_first_step(train, tmp_path: Path) -> None:
    for number, (change, message) in enumerate(
        {
            "stages.level3.patch=20": "stage level3: patch 20 is not a multiple of 8, which level3 needs",
            "cascade.level3.cond_channels=1": "the coarsest level has no condition",
        }.items()
    ):
        done = train("--out", tmp_path / str(number), "--set", f"{NAME}.{change}")
        assert (done.code, message in done.err) == (2, True), done.err


def test_networks_of_other_channels_than_the_data() -> None:
    options = read_options(ScaleCascadedRecipe, NAME, "demo", {})
    context: Any = SimpleNamespace(card=mrbench_methods()[0], channels=2)
    with pytest.raises(UserError, match=r"take images of 1 channel\(s\), the data has 2"):
        ScaleCascadedRecipe(options, context)


def test_the_demonstration_is_as_small_as_it_says() -> None:
    assert set(ScaleCascadedRecipe.presets()) == {"demo", "paper"}
    assert read_options(ScaleCascadedRecipe, NAME, "paper", {}).cascade.count == 3
    options = read_options(ScaleCascadedRecipe, NAME, "demo", {})
    with torch.device("meta"):
        networks = [BandPrior(c) for c in options.cascade.networks.values()]
    assert 2 * sum(p.numel() for n in networks for p in n.parameters()) < 12e6  # bytes, float16
