"""Recipes of the residual-shifting family, with networks so small that nothing is learned, through the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.vq import VQAutoencoder
from mrbench_methods.networks.vq_options import VQConfig
from safetensors.torch import load_file, save_file
from tests_support import Done

from mrbench.hub import read_folder

UNET: dict[str, Any] = {
    "image_size": 16, "model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": [1, 1], "attention_resolutions": [8],
    "swin_embed_dim": 32, "num_heads": 1, "window_size": 4, "unshuffle": 1, "mlp_ratio": 1.0,
}  # fmt: skip
STAGE = {"steps": 2, "batch": 2, "patch": 32, "precision": "fp32", "min_foreground": 0.0}


@pytest.fixture
def tiny(mrbench: Callable[..., Done], images: Path) -> Callable[..., Done]:
    """``mrbench train METHOD --preset demo`` at 2x with a tiny network and two steps."""

    def call(method: str, out: Path, *arguments: object, stage: str = "main", unet: bool = True) -> Done:
        changes = {f"{method}.stages.{stage}.{k}": v for k, v in STAGE.items()}
        changes |= {f"{method}.stages.{stage}.validation.{k}": v for k, v in {"every": 0, "items": 1}.items()}
        changes |= {f"{method}.stages.{stage}.optimisers.main.schedule.warmup": 0}
        if unet:
            changes |= {f"{method}.unet.{k}": json.dumps(v) for k, v in UNET.items()}
        given = [part for k, v in changes.items() for part in ("--set", f"{k}={v}")]
        return mrbench(
            "train", method, "--preset", "demo", "--scale", 2, "--device", "cpu", "--threads", 1, "--dataset", "faces=folder",
            "--set", f"faces.path={images}", "--out", out, *given, *arguments,
        )  # fmt: skip

    return call


def training(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return document


@pytest.mark.parametrize("method", ["res_srdiff", "resshift"])
def test_the_demo_recipe_makes_weights_that_the_method_takes(method: str, tiny, tmp_path: Path) -> None:
    done = tiny(method, tmp_path / "out")
    assert done.code == 0, done.err
    checkpoint = read_folder(tmp_path / "out", method)
    assert checkpoint.config["architecture"]["unet"]["model_channels"] == 32
    assert checkpoint.config["scale"] == 2
    assert training(tmp_path / "out")["selection"]["scores"]["psnr"] > 0  # restored by the method itself
    assert training(tmp_path / "out")["drawn_on"] == []


def test_the_ablation_has_no_swin_layers(tiny, tmp_path: Path) -> None:
    done = tiny("resshift", tmp_path / "out", "--ablation", "no_swin")
    assert done.code == 0, done.err
    (folder,) = (p.parent for p in (tmp_path / "out").rglob("training.json"))
    assert not any("attn" in key for key in load_file(folder / "model.safetensors"))


def test_resshift_on_latents(tiny, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VQConfig(embed_dim=3, n_embed=16, z_channels=3, ch=32, ch_mult=(1, 1, 1), num_res_blocks=(1, 1, 1))
    vq = VQAutoencoder(config)
    file = tmp_path / "private" / "vq.safetensors"
    file.parent.mkdir()
    save_file({k: v.contiguous() for k, v in vq.state_dict().items()}, file)
    latent = [
        "--set", "resshift.channels=3", "--set", f"resshift.autoencoder={file}", "--set", "resshift.unet.in_channels=3",
        "--set", "resshift.unet.out_channels=3", "--set", "resshift.unet.lq_channels=3", "--set", "resshift.weights=fp32",
    ]  # fmt: skip
    done = tiny("resshift", tmp_path / "refused", *latent)
    assert done.code == 2
    assert "the autoencoder stays as it is" in done.err
    done = tiny("resshift", tmp_path / "out", *latent, "--set", "resshift.stages.main.optimisers.main.networks=[unet]")
    assert done.code == 0, done.err
    stored = load_file(tmp_path / "out" / "model.safetensors")
    for key, value in vq.state_dict().items():
        assert torch.equal(stored[f"autoencoder.{key}"], value), key  # not trained
    said = training(tmp_path / "out")
    assert said["options"]["autoencoder"] == "vq.safetensors"  # without its folder
    assert "private" not in json.dumps(said)
    assert read_folder(tmp_path / "out").config["architecture"]["autoencoder"]["n_embed"] == 16


def test_sinsr_is_distilled_from_a_teacher(tiny, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    assert tiny("resshift", teacher, "--exclude", "bob").code == 0
    distill = ["--set", f"sinsr.teacher=resshift@{teacher}"]
    done = tiny("sinsr", tmp_path / "out", *distill, "--exclude", "ann", stage="distill", unet=False)
    assert done.code == 0, done.err
    said, taught = training(tmp_path / "out"), training(teacher)
    (origin,) = said["drawn_on"]
    assert (origin["part"], origin["sha256"], origin["subjects_known"]) == ("teacher", taught["sha256"], True)
    own = {d["train"]["subjects"] for d in said["data"]}
    assert own == {2}  # bob and cem
    assert set(taught["subjects"]) < set(said["subjects"])  # whom the teacher saw, the student knows
    assert len(said["subjects"]) == 4
    assert said["options"]["teacher"] == "teacher"
    config = read_folder(tmp_path / "out", "sinsr").config
    assert config["architecture"] == read_folder(teacher).config["architecture"]
    student, before = load_file(tmp_path / "out" / "model.safetensors"), load_file(teacher / "model.safetensors")
    assert list(student) == list(before)
    assert not any(k.startswith("teacher") for k in student)
    moved = max(float((student[k].float() - before[k].float()).abs().max()) for k in student if student[k].is_floating_point())
    assert 0 < moved < 0.01  # began as a copy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "sinsr.teacher=resshift@nowhere"), "no checkpoint 'nowhere'"),
        (("--set", "sinsr.teacher=bicubic"), "method bicubic has no weights"),
        (("--set", "sinsr.teacher=resshif"), "Did you mean 'resshift'"),
    ],
)
def test_teachers_that_are_none(arguments: tuple[str, ...], message: str, tiny, tmp_path: Path) -> None:
    done = tiny("sinsr", tmp_path / "out", *arguments, stage="distill", unet=False)
    assert done.code == 2
    assert message in done.err


def test_only_the_student_is_trained(tiny, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    assert tiny("resshift", teacher).code == 0
    changes = ("--set", f"sinsr.teacher=resshift@{teacher}", "--set", "sinsr.stages.distill.optimisers.main.networks=[]")
    done = tiny("sinsr", tmp_path / "out", *changes, stage="distill", unet=False)
    assert done.code == 2
    assert "only the student is trained" in done.err


def test_published_presets_are_the_published_networks() -> None:
    import mrbench_methods.resshift.recipe
    import mrbench_methods.sinsr.recipe

    from mrbench.train.presets import read_options

    options = read_options(mrbench_methods.resshift.recipe.ResShiftRecipe, "resshift", "paper", {})
    with torch.device("meta"):
        network = SwinUNet(options.unet)
    assert sum(p.numel() for p in network.parameters()) == 118_593_583
    for preset in ("demo", "matched", "paper"):
        assert read_options(mrbench_methods.sinsr.recipe.SinSRRecipe, "sinsr", preset, {}).stages
