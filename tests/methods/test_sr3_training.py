"""The recipes of SR3 and MSP-SR, through the command, with networks so small that nothing is learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mrbench_methods.msp_sr.recipe import MSPSRRecipe, MSPSRRecipeOptions
from mrbench_methods.networks.controlnet import ControlBranch
from mrbench_methods.networks.sr3 import SR3UNet, initialise
from mrbench_methods.networks.sr3_options import SR3Config
from mrbench_methods.sr3.recipe import SR3Recipe
from network_support import write_images
from safetensors.torch import load_file, save_file
from tests_support import Done, write_plugin
from torch import Tensor

from mrbench.errors import UserError
from mrbench.hub import read_folder
from mrbench.plugins import discover
from mrbench.train.presets import read_options

UNET: dict[str, Any] = {"inner_channel": 8, "norm_groups": 4, "channel_mults": [1, 2]}
STAGE: dict[str, Any] = {"steps": 2, "batch": 2, "patch": 16, "min_foreground": 0.0, "precision": "fp32"}
STAGES = {"sr3": ("main",), "msp_sr": ("ood", "id", "td")}
Train = Callable[..., Done]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects, two of them to train on."""
    return write_images(tmp_path_factory.mktemp("images"), (24, 28))


@pytest.fixture
def train(mrbench: Callable[..., Done], images: Path, tmp_path: Path) -> Train:
    """``mrbench train METHOD --preset demo`` at 2x with a tiny network and two steps in each stage."""
    known = discover().methods.names()

    def call(method: str, out: Path, *arguments: object, aliases: tuple[str, ...] = ()) -> Done:
        given: list[object] = []
        if method not in known:
            text = f"from mrbench_methods.{method} import mrbench_methods"
            given += ["--plugin", write_plugin(tmp_path, f"{method}_plugin", text)]
        changes: dict[str, Any] = {f"unet.{k}": json.dumps(v) for k, v in UNET.items()} | {
            "sampling_steps": 2,
            "weights": "fp32",
        }
        for stage in STAGES[method]:
            changes |= {f"stages.{stage}.{k}": v for k, v in STAGE.items()}
            changes |= {f"stages.{stage}.validation.every": 0, f"stages.{stage}.validation.items": 1}
            changes |= {f"stages.{stage}.optimisers.main.schedule.warmup": 0}
        for alias in aliases or STAGES[method]:
            given += ["--dataset", f"{alias}=folder", "--set", f"{alias}.path={images}"]
        given += [part for k, v in changes.items() for part in ("--set", f"{method}.{k}={v}")]
        return mrbench(
            "train",
            method,
            "--preset",
            "demo",
            "--scale",
            2,
            "--device",
            "cpu",
            "--threads",
            1,
            "--out",
            out,
            *given,
            *arguments,
        )

    return call


def part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def moved(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a.keys() == b.keys()
    return any(not torch.equal(a[key], b[key]) for key in a)


def test_three_stages(train: Train, tmp_path: Path) -> None:
    """The U-Net, then the branch beside it, which begins as its copy; the U-Net's weights stay bit for bit."""
    done = train("msp_sr", tmp_path / "out", "--set", "msp_sr.stages.ood.optimisers.main.lr=0.02")
    assert done.code == 0, done.err
    folders = [tmp_path / "out" / "stages" / "1-ood", tmp_path / "out" / "stages" / "2-id", tmp_path / "out"]
    ood, in_domain, target = (load_file(folder / "model.safetensors") for folder in folders)
    branch = ControlBranch(SR3Config(**{**read_folder(folders[0]).config["architecture"]["unet"]}))
    branch.load_state_dict(part(ood, "control"))
    assert branch.silent
    assert not moved(part(ood, "unet"), part(in_domain, "unet"))
    assert not moved(part(ood, "unet"), part(target, "unet"))
    assert moved(part(in_domain, "control"), part(target, "control"))
    branch.load_state_dict(part(in_domain, "control"))
    assert not branch.silent
    # two small steps from a copy of what two large steps made of the U-Net
    copied = [key for key in part(ood, "unet") if key.startswith(("downs", "mid", "noise_level_mlp"))]
    before = {key: float((ood[f"control.{key}"] - ood[f"unet.{key}"]).abs().max()) for key in copied}
    after = {key: float((in_domain[f"control.{key}"] - in_domain[f"unet.{key}"]).abs().max()) for key in copied}
    assert min(before.values()) > 5e-3
    assert max(after.values()) < 2e-3
    for folder in folders:
        checkpoint = read_folder(folder, "msp_sr")
        assert checkpoint.config["architecture"]["control"] is True
        assert checkpoint.config["method_options"] == {"steps": 2, "variance": "posterior"}
        assert json.loads((folder / "training.json").read_text())["selection"]["scores"]["psnr"] > 0  # restored by the method


def test_a_later_stage_from_earlier_weights(train: Train, tmp_path: Path) -> None:
    """``--stages td --init`` goes on with the branch as it is."""
    assert train("msp_sr", tmp_path / "first", "--stages", "ood,id").code == 0
    slow = ("--set", "msp_sr.stages.td.optimisers.main.lr=1e-9", "--set", "msp_sr.stages.td.optimisers.main.schedule.final=0")
    done = train("msp_sr", tmp_path / "then", "--stages", "td", "--init", tmp_path / "first", *slow)
    assert done.code == 0, done.err
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "then"))
    assert max(float((before[key] - after[key]).abs().max()) for key in before) < 1e-6
    done = train("msp_sr", tmp_path / "bare", "--init", tmp_path / "first", "--set", "msp_sr.control=false")
    assert done.code == 2
    assert "have a branch, and this training has none" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("ablation", "stages", "branch", "frozen"),
    [
        ("no_id", ["ood", "td"], True, True),
        ("no_ood", ["id", "td"], True, True),
        ("td_only", ["td"], False, False),
        ("no_control", ["ood", "id", "td"], False, False),
    ],
)
def test_ablations_of_stages(
    ablation: str, stages: list[str], branch: bool, frozen: bool, train: Train, tmp_path: Path
) -> None:
    done = train("msp_sr", tmp_path / "out", "--ablation", ablation)
    assert done.code == 0, done.err
    (final,) = (f.parent for f in tmp_path.rglob("training.json") if "stages" not in f.parts)
    said = json.loads((final / "training.json").read_text())
    assert said["options"]["skip"] == [s for s in ("ood", "id", "td") if s not in stages]
    tensors = load_file(final / "model.safetensors")
    assert bool(part(tensors, "control")) == branch
    assert read_folder(final).config["architecture"]["control"] == branch
    earlier = sorted(final.glob("stages/*"))
    assert [folder.name for folder in earlier] == [f"{n}-{stage}" for n, stage in enumerate(stages[:-1], start=1)]
    if earlier:
        first = part(load_file(earlier[0] / "model.safetensors"), "unet")
        assert moved(first, part(tensors, "unet")) != frozen


def stage_of(options: MSPSRRecipeOptions) -> Any:
    recipe = MSPSRRecipe.__new__(MSPSRRecipe)
    recipe.options = options
    return recipe.stages()


def test_ablations_of_losses() -> None:
    found: dict[str, Any] = {
        name: read_options(MSPSRRecipe, "msp_sr", "demo", MSPSRRecipe.ablations.get(name, {}))
        for name in ("full", "no_consistency", "paper_consistency")
    }
    assert [o.consistency for o in found.values()] == ["clamped", "off", "paper"]
    assert {s.optimisers["main"].clip for s in stage_of(found["full"])} == {1.0}
    assert {s.optimisers["main"].clip for s in stage_of(found["paper_consistency"])} == {None}
    assert set(MSPSRRecipe.ablations) == {"no_id", "no_control", "no_ood", "td_only", "no_consistency", "paper_consistency"}


@pytest.mark.parametrize("consistency", ["off", "clamped", "weighted", "paper"])
def test_losses_are_the_equations(consistency: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network whose output is known: l_CON = ((1 - a) / a) mean (A (n - eps))^2 / 4, before clamps and weights."""
    from types import SimpleNamespace

    from mrbench.degradation.measurement import degrade, upsample

    torch.manual_seed(0)
    registry = discover()
    card = registry.degradations.get("bicubic_aa")
    hr = torch.rand(2, 1, 16, 16)
    measurement = degrade(hr, ["a", "b"], card.load()(card.parse({})), (2, 2), seed_key="test")
    changes = {
        "unet.inner_channel": 8,
        "unet.norm_groups": 4,
        "consistency": consistency,
        "diffusion.prediction": "eps",
        "gamma": 0.25,
    }
    options: Any = read_options(MSPSRRecipe, "msp_sr", "demo", changes)
    context: Any = SimpleNamespace(channels=1, card=SimpleNamespace(name="msp_sr"), device=torch.device("cpu"))
    recipe = MSPSRRecipe(options, context)
    g, eps = torch.tensor([0.3, 0.9]), torch.randn(2, 1, 16, 16)
    seen: dict[str, Tensor] = {}

    def predict(networks: Any, x: Tensor, level: Tensor) -> Tensor:
        seen["x"] = x
        return eps

    monkeypatch.setattr(recipe, "predict", predict)
    monkeypatch.setattr(recipe._diffusion, "draw", lambda *_: g)
    info: Any = None
    batch: Any = SimpleNamespace(hr=hr, measurement=measurement)
    terms = recipe.losses({}, batch, torch.Generator().manual_seed(3), info, "main")
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(3))
    signal, rest = g.reshape(-1, 1, 1, 1), (1 - g.square()).sqrt().reshape(-1, 1, 1, 1)
    assert torch.equal(seen["x"][:, :1], 2 * upsample(measurement) - 1)  # the LR image first
    assert torch.allclose(seen["x"][:, 1:], signal * (2 * hr - 1) + rest * noise, atol=1e-6)
    error = (eps - noise).square().mean()
    if consistency == "off":
        assert terms.keys() == {"l2"}
        assert torch.allclose(terms["l2"], error)
        return
    assert torch.allclose(terms["l2"], 0.25 * error)
    operator = measurement.operator
    assert operator is not None
    gap = operator.forward(rest / signal * (noise - eps)).square().flatten(1).mean(1) / 4
    if consistency == "clamped":
        x0 = (2 * hr - 1 + rest / signal * (noise - eps)).clamp(-1, 1)
        gap = (operator.forward((x0 + 1) / 2) - measurement.y).square().flatten(1).mean(1)
    if consistency == "weighted":
        gap = g.square() * gap
    assert torch.allclose(terms["consistency"], 0.75 * gap.mean(), rtol=1e-3)


def test_sr3_makes_weights_that_the_method_takes(train: Train, tmp_path: Path) -> None:
    done = train("sr3", tmp_path / "out")
    assert done.code == 0, done.err
    checkpoint = read_folder(tmp_path / "out", "sr3")
    assert checkpoint.config["architecture"]["unet"]["inner_channel"] == 8
    assert checkpoint.config["method_options"] == {"steps": 2, "variance": "posterior"}
    assert json.loads((tmp_path / "out" / "training.json").read_text())["selection"]["scores"]["psnr"] > 0
    # published files to begin from
    torch.manual_seed(1)
    network = SR3UNet(SR3Config(**checkpoint.config["architecture"]["unet"]))
    initialise(network)
    content = {f"denoise_fn.{key}": value.contiguous() for key, value in network.state_dict().items()}
    save_file(content | {"betas": torch.zeros(3)}, tmp_path / "gen.safetensors")
    for method, stage, prefix in (("sr3", "main", ""), ("msp_sr", "id", "unet.")):
        slow: tuple[str, ...] = ("--set", f"{method}.stages.{stage}.optimisers.main.lr=1e-9")
        stages = ("--stages", "id") if method == "msp_sr" else ()
        slow += ("--set", f"{method}.stages.{stage}.optimisers.main.schedule.final=0")
        done = train(method, tmp_path / method, "--init", tmp_path / "gen.safetensors", *slow, *stages)
        assert done.code == 0, done.err
        stored = load_file(tmp_path / method / "model.safetensors")
        gaps = [float((stored[f"{prefix}{key}"] - value).abs().max()) for key, value in network.state_dict().items()]
        assert max(gaps) < 1e-6


def test_a_stage_without_its_data(train: Train, tmp_path: Path) -> None:
    done = train("msp_sr", tmp_path / "out", aliases=("ood", "td"))
    assert done.code == 2
    assert "stage id trains on the data set(s) id" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skip": ["od"]}, "skip: no stage od"),
        ({"skip": ["ood", "id", "td"]}, "skip leaves no stage"),
        ({"stages.id.optimisers.main.networks": []}, r"trains networks: \[unet\] or networks: \[control\]"),
        ({"sampling_steps": 2001}, "sampling_steps 2001: the diffusion has 2000"),
        ({"gamma": 0}, "greater than 0"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_options(MSPSRRecipe, "msp_sr", "demo", changes)


def test_channels_of_network_and_images(train: Train, tmp_path: Path) -> None:
    done = train("sr3", tmp_path / "out", "--set", "sr3.channels=3")
    assert done.code == 2
    assert "takes images of 1 channel(s), the training images have 3" in " ".join(done.err.split())


def test_presets() -> None:
    recipes: dict[str, Any] = {"sr3": SR3Recipe, "msp_sr": MSPSRRecipe}
    for name, recipe in recipes.items():
        found: dict[str, Any] = {preset: read_options(recipe, name, preset, {}) for preset in recipe.presets()}
        assert set(found) == {"demo", "small", "paper"}
        sizes = {}
        for preset, options in found.items():
            config = options.unet
            with torch.device("meta"):
                parts = [SR3UNet(config)] + ([ControlBranch(config)] if name == "msp_sr" else [])
            sizes[preset] = sum(p.numel() for network in parts for p in network.parameters())
            if preset != "paper":
                assert min(config.widths) // config.norm_groups >= 4  # channels of a group
        assert 2 * sizes["demo"] <= 12e6  # bytes in float16
        assert sizes["paper"] == {"sr3": 97_807_491, "msp_sr": 136_281_923}[name]
        if name == "msp_sr":
            for options in found.values():
                assert [(s.name, s.data) for s in options.stages] == [("ood", ("ood",)), ("id", ("id",)), ("td", ("td",))]


def test_sinsr_in_three_stages() -> None:
    from mrbench_methods.sinsr.recipe import SinSRRecipe

    options = read_options(SinSRRecipe, "sinsr", "three_stage", {})
    assert [(s.name, s.data) for s in options.stages] == [("ood", ("ood",)), ("id", ("id",)), ("td", ("td",))]
