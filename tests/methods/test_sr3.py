"""SR3 and MSP-SR as methods, with small random networks in checkpoint folders and in published files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mrbench_methods.msp_sr
import mrbench_methods.networks.sr3_model
import mrbench_methods.sr3
import network_support
import pytest
import torch
from mrbench_methods.networks.controlnet import ControlBranch, controlled
from mrbench_methods.networks.sr3 import SR3UNet, initialise
from mrbench_methods.networks.sr3_diffusion import SR3Diffusion
from mrbench_methods.networks.sr3_options import SR3Config, SR3DiffusionConfig
from mrbench_methods.networks.sr3_weights import PUBLISHED, published_config
from network_support import restored_image as restored
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from mrbench.cards import Checkpoint, MethodCard
from mrbench.degradation.measurement import Measurement, upsample
from mrbench.engine.conformance import check_method, conforms
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry

CPU = torch.device("cpu")
(SR3,) = mrbench_methods.sr3.mrbench_methods()
(MSP,) = mrbench_methods.msp_sr.mrbench_methods()
CARDS: dict[str, MethodCard] = {"sr3": SR3, "msp_sr": MSP}
GREY: dict[str, Any] = {
    "in_channel": 2, "out_channel": 1, "unshuffle": 2, "inner_channel": 8, "norm_groups": 4, "channel_mults": [1, 2], "res_blocks": 1,
    "image_size": 16,
}  # fmt: skip
COLOUR = {**GREY, "in_channel": 6, "out_channel": 3, "unshuffle": 1, "attn_res": [8], "downsample": "asym"}
# method, architecture, options of the checkpoint
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "grey": ("sr3", {"unet": GREY}, {"steps": 4}),
    "colour": ("sr3", {"unet": COLOUR, "diffusion": {"steps": 50}}, {"steps": 3, "variance": "beta"}),
    "branch": ("msp_sr", {"unet": GREY, "control": True, "diffusion": {"prediction": "residual"}}, {"steps": 3}),
    "bare": ("msp_sr", {"unet": GREY, "control": False}, {"steps": 3}),
}


def networks(unet: dict[str, Any], loud: bool = True) -> tuple[SR3UNet, ControlBranch]:
    """Random weights; ``loud``: the zero convolutions are filled a little."""
    torch.manual_seed(0)
    config = SR3Config(**unet)
    network, branch = SR3UNet(config), ControlBranch(config)
    initialise(network)
    if loud:
        for layer in (*branch.zero_convs, branch.mid_out):
            torch.nn.init.normal_(layer.weight, std=0.2)
    return network.eval(), branch.eval()


def write(folder: Path, case: tuple[str, dict[str, Any], dict[str, Any]], loud: bool = True, **config: Any) -> LocalCheckpoint:
    """A checkpoint folder with random weights."""
    method, parts, options = case
    folder.mkdir(parents=True)
    network, branch = networks(parts["unet"], loud)
    tensors = dict(network.state_dict())
    if method == "msp_sr":
        tensors = {f"unet.{key}": value for key, value in tensors.items()}
        tensors |= {f"control.{key}": value for key, value in branch.state_dict().items() if parts["control"]}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
    document = {
        "format": 1, "method": method, "name": folder.name, "tier": "demo", "kind": "network", "scale": None, "degradation": "",
        "channels": 1, "architecture": parts, "method_options": options, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalCheckpoint]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write(root / name, case) for name, case in CASES.items()}


def load(method: str, checkpoint: LocalCheckpoint | None, **options: Any) -> Any:
    card = CARDS[method]
    made = card.load()(card.parse(options))
    made.load(checkpoint, CPU)
    return made


@pytest.fixture(scope="module")
def measured(registry: Registry) -> Callable[..., Measurement]:
    return partial(network_support.measured, registry)


def assert_same(a: Tensor, b: Tensor) -> None:
    """Equal but for rounding, which estimates of x_0 from little signal enlarge."""
    assert float((a - b).abs().max()) <= 5e-4


# -- networks ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("downsample", ["sr3", "asym"])
def test_parameters_of_the_published_networks(downsample: str) -> None:
    with torch.device("meta"):
        small, large = (
            SR3Config(in_channel=6, out_channel=3, downsample=downsample, **settings) for settings in PUBLISHED.values()
        )
        unet, branch = SR3UNet(small), ControlBranch(small)
        wide = SR3UNet(large)
    count = [sum(p.numel() for p in network.parameters()) for network in (unet, branch, wide)]
    assert count == [97_807_491, 38_474_432, 155_334_339]
    assert count[0] + count[1] == 136_281_923
    assert len(unet.state_dict()) == 362
    assert len(wide.state_dict()) == 229
    assert len(unet.state_dict()) + len(branch.state_dict()) == 549
    assert len(branch.zero_convs) == 15


@pytest.mark.parametrize("unet", [GREY, COLOUR])
@torch.inference_mode()
def test_a_new_branch_changes_no_bit(unet: dict[str, Any]) -> None:
    network, branch = networks(unet, loud=False)
    assert branch.silent
    branch.copy_encoder(network)
    for name in ("noise_level_mlp.1.weight", "downs.1.res_block.block1.block.3.weight", "mid.0.attn.qkv.weight"):
        assert torch.equal(branch.get_parameter(name), network.get_parameter(name))
    x, g = torch.randn(2, unet["in_channel"], 16, 24), torch.rand(2)
    alone = network(x, g)
    assert torch.equal(controlled(network, branch, x, g), alone)
    torch.nn.init.constant_(branch.mid_out.bias, 0.1)
    assert not branch.silent
    assert not torch.equal(controlled(network, branch, x, g), alone)


def test_gradients_reach_the_branch_alone() -> None:
    network, branch = networks(GREY, loud=False)
    network.requires_grad_(False)
    controlled(network, branch, torch.randn(1, 2, 16, 16), torch.rand(1)).square().mean().backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(bool(layer.weight.grad.any()) for layer in (*branch.zero_convs, branch.mid_out))


@torch.inference_mode()
def test_paddings_of_strides_differ() -> None:
    network, _ = networks({**COLOUR, "downsample": "sr3"})
    other, _ = networks(COLOUR)
    other.load_state_dict(network.state_dict())
    x, g = torch.randn(1, 6, 16, 16), torch.rand(1)
    assert float((network(x, g) - other(x, g)).abs().max()) > 1e-3


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="multiples of 4, got 16x18"):
        networks(GREY)[0](torch.zeros(1, 2, 16, 18), torch.ones(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channel": 3}, "have 1 channel"),
        ({"inner_channel": 9}, "is odd"),
        ({"norm_groups": 3}, "no multiples of 3"),
        ({"attn_res": [4]}, "the levels have the sizes"),
    ],
)
def test_networks_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SR3Config(**{**GREY, **change})


# -- the diffusion -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "residual"])
def test_targets_and_estimates_belong_together(prediction: Any) -> None:
    diffusion = SR3Diffusion(SR3DiffusionConfig(prediction=prediction))
    generator = torch.Generator().manual_seed(0)
    g = diffusion.draw(64, generator)
    assert float(g.min()) > diffusion.levels[-1]
    assert float(g.max()) < 1
    x0, noise = torch.rand(64, 1, 4, 4) * 2 - 1, torch.randn(64, 1, 4, 4)
    x, lr = diffusion.noisy(x0, g, noise), x0 + 0.1 * torch.randn(x0.shape)
    estimate = diffusion.estimate(x, g, diffusion.target(x0, g, noise, lr), lr)
    assert float(((estimate - x0) * g.reshape(-1, 1, 1, 1)).abs().max()) < 1e-5
    # the sampler ends at the image that a perfect network knows
    told = iter(range(5))

    def perfect(state: Tensor, level: Tensor) -> Tensor:
        next(told)
        signal = level.reshape(-1, 1, 1, 1)
        out: Tensor = diffusion.target(x0, level, (state - signal * x0) / (1 - signal.square()).sqrt(), lr)
        return out

    last = diffusion.sample(perfect, lr, lambda: torch.randn(x0.shape, generator=generator), 5)
    assert next(told, None) is None
    assert float((last - x0).abs().max()) < 2e-3


def test_levels_of_a_batch() -> None:
    diffusion = SR3Diffusion(SR3DiffusionConfig(steps=10, linear_start=1e-4, linear_end=0.35))
    steps = {"one": 0, "each": 0}
    for seed in range(20):
        for name in steps:
            g = diffusion.draw(8, torch.Generator().manual_seed(seed), name == "one").double().numpy()
            steps[name] += len({int((diffusion.levels >= value).sum()) for value in g})
    assert steps["one"] == 20
    assert steps["each"] > 60


# -- methods -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["sr3", "msp_sr"])
def test_the_cards_are_complete_and_light(name: str) -> None:
    card = CARDS[name]
    assert (card.name, card.deterministic, card.needs_operator, card.channels) == (name, False, False, (1, 3))
    assert card.nfe == mrbench_methods.networks.sr3_model.DEFAULT_STEPS
    assert card.paper
    assert all(info.description for info in card.options.model_fields.values())
    code = (
        f"import sys, mrbench_methods.{name}; heavy = {{'torch', 'pandas', 'scipy', 'skimage'}} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("case", ["grey", "colour", "branch"])
def test_conformance(case: str, checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    card = CARDS[CASES[case][0]]
    base: Any = card.load()

    class Loaded(base):  # type: ignore[misc]
        def load(self, checkpoint: object, device: torch.device) -> None:
            super().load(checkpoints[case], device)

    results = check_method(replace(card, implementation=Loaded, checkpoints=()), registry)
    assert conforms(results), [r for r in results if r.status not in ("pass", "skip")]


@pytest.mark.parametrize("case", ["grey", "branch"])
def test_the_methods_are_their_equations(case: str, checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    """Upsample, to [-1, 1], the chain, back to [0, 1]: with the same noise, the same image."""
    method, parts, options = CASES[case]
    network, branch = networks(parts["unet"])
    diffusion = SR3Diffusion(SR3DiffusionConfig(**parts.get("diffusion", {})))
    m = measured((32, 48))
    source = m.noise([1, 2])
    condition = (2 * upsample(m) - 1).repeat_interleave(2, 0)

    def told(x: Tensor, g: Tensor) -> Tensor:
        out: Tensor = controlled(network, branch if method == "msp_sr" else None, torch.cat([condition, x], 1), g)
        return out

    with torch.inference_mode():
        x = diffusion.sample(told, condition, lambda: source.normal((1, 32, 48)).flatten(0, 1), options["steps"])
    expected = ((x.clamp(-1, 1) + 1) / 2).reshape(2, 2, 1, 32, 48)
    made = load(method, checkpoints[case])
    assert made.nfe == options["steps"]
    assert_same(restored(made, m, 2), expected)


@pytest.mark.parametrize("case", list(CASES))
def test_items_draws_sizes_and_tiles(case: str, checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    method, m = CASES[case][0], measured((45, 37), items=2)
    whole = restored(load(method, checkpoints[case]), m, 3)
    assert float((whole[:, 0] - whole[:, 1]).abs().max()) > 1e-3
    one = load(method, checkpoints[case], max_batch=2)
    assert_same(restored(one, m.select([1]), 3)[0], whole[1])
    assert torch.equal(restored(load(method, checkpoints[case], tile=64), m, 3), whole)
    tiled = restored(load(method, checkpoints[case], tile=24, overlap=8), m, 3)
    assert float((tiled - whole).abs().max()) > 1e-5
    for scale in (2, 8):
        restored(one, replace(measured((33, 50), scale, items=1), operator=None))


def test_steps_are_told(checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    heard: list[tuple[int, int]] = []
    made = load("sr3", checkpoints["grey"], max_batch=2)
    made.on_step = lambda done, total: heard.append((done, total))
    restored(made, measured((16, 16)), 2)
    assert heard == [(n, 8) for n in range(1, 9)]


def test_options_of_user_checkpoint_and_method(tmp_path: Path, checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    m = measured((16, 16))
    grey = checkpoints["grey"]
    base = restored(load("sr3", grey), m)
    assert load("sr3", write(tmp_path / "open", ("sr3", {"unet": GREY}, {}))).nfe == 100
    assert not torch.equal(base, restored(load("sr3", grey, steps=7), m))
    assert not torch.equal(base, restored(load("sr3", grey, variance="beta"), m))
    assert torch.equal(base, restored(load("sr3", grey, steps=4, variance="posterior"), m))
    with pytest.raises(UserError, match=r"steps 51: .* was trained with 50 step\(s\), so between 1 and 50"):
        load("sr3", checkpoints["colour"], steps=51)


def test_a_silent_branch_is_not_computed(tmp_path: Path, checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    m = measured((16, 16))
    case = ("msp_sr", {"unet": GREY, "control": True}, {"steps": 3})
    silent = load("msp_sr", write(tmp_path / "silent", case, loud=False))
    assert silent._branch is None
    assert torch.equal(restored(silent, m), restored(load("msp_sr", checkpoints["bare"]), m))


def test_grey_through_colour_and_colour_through_grey(checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    grey, colour = measured((16, 24)), measured((16, 24), channels=3)
    restored(load("sr3", checkpoints["colour"]), grey, 2)
    restored(load("msp_sr", checkpoints["branch"]), colour, 2)
    with pytest.raises(UserError, match=r"take images of 3 channel\(s\), the measurement has 2"):
        load("sr3", checkpoints["colour"]).restore(measured((16, 24), channels=2), 1)


def test_published_files(tmp_path: Path, measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys under ``denoise_fn.``, and a schedule beside them, which counts."""
    network, _ = networks(COLOUR)
    diffusion = SR3Diffusion(SR3DiffusionConfig(steps=40, linear_end=0.3))
    process = diffusion.process()
    content = {f"denoise_fn.{key}": value for key, value in network.state_dict().items()}
    content |= {name: torch.from_numpy(getattr(process, name)).float() for name in ("betas", "alphas_cumprod")}
    torch.save(content, tmp_path / "I640000_E37_gen.pth")
    record = Checkpoint("official", "I640000_E37_gen.pth", "0" * 64, "official")
    local = LocalCheckpoint(record, tmp_path / record.file)
    with pytest.raises(UserError, match="another network than the published SR3 weights"):
        load("sr3", local)  # too small to be it
    monkeypatch.setattr(mrbench_methods.networks.sr3_model, "published_config", lambda tensors, what: SR3Config(**COLOUR))
    made = load("sr3", local, steps=5)
    settings = {"unet": COLOUR, "diffusion": {"steps": 40, "linear_end": 0.3}}
    same = load("sr3", write(tmp_path / "same", ("sr3", settings, {"steps": 5})))
    m = measured((16, 16))
    assert_same(restored(made, m), restored(same, m))
    with pytest.raises(UserError, match="between 1 and 40"):
        load("sr3", local, steps=41)


@pytest.mark.parametrize("which", list(PUBLISHED))
def test_published_networks_are_recognised(which: str) -> None:
    config = SR3Config(in_channel=6, out_channel=3, **PUBLISHED[which])
    with torch.device("meta"):
        assert published_config(SR3UNet(config).state_dict(), "file") == config


@pytest.mark.parametrize(
    ("method", "parts", "config", "message"),
    [
        ("sr3", {"unet": GREY}, {"method": "i2sb"}, "holds weights of i2sb, not of sr3"),
        ("sr3", {"unet": GREY, "control": True}, {}, "unknown parts control. Known: unet, diffusion"),
        ("sr3", {"diffusion": {}}, {}, "no part unet"),
        ("sr3", {"unet": {**GREY, "depth": 2}}, {}, "has no option 'depth'"),
        ("sr3", {"unet": {**GREY, "res_blocks": 2}}, {}, "do not fit the network SR3UNet"),
        ("msp_sr", {"unet": GREY, "control": 1}, {}, "is 1, expected true or false"),
    ],
)
def test_checkpoints_that_do_not_fit(
    method: str, parts: dict[str, Any], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "bad", (method, {"unet": GREY, "control": True}, {}), architecture=parts, **config)
    with pytest.raises(UserError, match=message):
        load(method, read_folder(tmp_path / "bad"))


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sr3 needs weights.*mrbench train"):
        load("sr3", None)
    write(tmp_path / "bare", CASES["bare"], architecture={"unet": GREY, "control": True})
    with pytest.raises(UserError, match="promises a branch"):
        load("msp_sr", read_folder(tmp_path / "bare"))
