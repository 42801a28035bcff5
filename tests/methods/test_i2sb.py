"""I2SB as a method, with small random networks in checkpoint folders and in published files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mrbench_methods.i2sb
import mrbench_methods.i2sb.method
import network_support
import pytest
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.bridge import Bridge
from mrbench_methods.networks.bridge_options import BridgeConfig
from network_support import restored_image as restored
from safetensors.torch import save_file
from torch import Tensor

from mrbench.cards import Checkpoint
from mrbench.degradation.measurement import Measurement, upsample
from mrbench.engine.conformance import check_method, conforms
from mrbench.engine.restorer import Restorer
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry

CPU = torch.device("cpu")
(CARD,) = mrbench_methods.i2sb.mrbench_methods()
GREY: dict[str, Any] = {
    "in_channels": 1, "out_channels": 1, "unshuffle": 2, "model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1,
    "num_head_channels": 32, "resblock_updown": True,
}  # fmt: skip
COLOUR = {**GREY, "in_channels": 3, "out_channels": 3, "unshuffle": 1}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grey": ({"unet": GREY}, {"nfe": 4, "preupsample": "bicubic"}),
    "colour": ({"unet": COLOUR}, {"nfe": 3}),
    "conditioned": ({"unet": {**GREY, "in_channels": 2}, "bridge": {"cond_x1": True}}, {"nfe": 3, "final": "x0"}),
    "line": ({"unet": GREY, "bridge": {"ot_ode": True, "beta_max": 1.0}}, {"nfe": 4, "clip": True}),
}
SLOW_START = 0.02  # of the last layers: estimates differ from the LR image, and stay images


def network(unet: dict[str, Any], seed: int = 0) -> ADMUNet:
    """Random weights; layers that start at zero are filled a little."""
    torch.manual_seed(seed)
    made = ADMUNet(ADMConfig(**unet))
    for parameter in made.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=SLOW_START)
    return made.eval()


def write(folder: Path, parts: dict[str, Any], options: dict[str, Any], **config: Any) -> LocalCheckpoint:
    """A checkpoint folder with random weights."""
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in network(parts["unet"]).state_dict().items()}, folder / "model.safetensors")
    document = {
        "format": 1, "method": "i2sb", "name": folder.name, "tier": "demo", "kind": "network", "scale": None, "degradation": "",
        "channels": 1, "architecture": parts, "method_options": options, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalCheckpoint]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write(root / name, *case) for name, case in CASES.items()}


def load(checkpoint: LocalCheckpoint | None, **options: Any) -> Any:
    method = CARD.load()(CARD.parse(options))
    method.load(checkpoint, CPU)
    return method


@pytest.fixture(scope="module")
def measured(registry: Registry) -> Callable[..., Measurement]:
    return partial(network_support.measured, registry)


def assert_same(a: Tensor, b: Tensor) -> None:
    """Equal but for rounding."""
    assert float((a - b).abs().max()) <= 2e-5


def test_the_card_is_complete_and_light() -> None:
    assert (CARD.name, CARD.deterministic, CARD.needs_operator, CARD.channels) == ("i2sb", False, False, (1, 3))
    assert CARD.nfe == mrbench_methods.i2sb.NFE
    assert CARD.licence.startswith("Apache-2.0 (this implementation). Official weights:")
    assert CARD.paper
    assert all(info.description for info in CARD.options.model_fields.values())
    readme = Path(mrbench_methods.i2sb.__file__ or "").with_name("README.md").read_text()
    assert "## Demonstration weights" in readme
    code = (
        "import sys, mrbench_methods.i2sb; heavy = {'torch', 'pandas', 'scipy', 'skimage'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("case", ["grey", "colour", "conditioned"])
def test_conformance(case: str, checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    base: Any = CARD.load()

    class Loaded(base):  # type: ignore[misc]
        def load(self, checkpoint: object, device: torch.device) -> None:
            super().load(checkpoints[case], device)

    results = check_method(replace(CARD, implementation=Loaded, checkpoints=()), registry)
    assert conforms(results), [r for r in results if r.status not in ("pass", "skip")]


@pytest.mark.parametrize("case", list(CASES))
def test_items_draws_and_chunks(case: str, checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    m = measured((45, 37), items=3)
    method = load(checkpoints[case])
    assert method.nfe == CASES[case][1]["nfe"]
    several = restored(method, m, 3)
    assert torch.equal(several, restored(method, m, 3))
    for i in range(3):
        assert_same(restored(method, m.select([i]), 3)[0], several[i])
    assert_same(restored(method, m)[:, 0], several[:, 0])
    assert_same(restored(load(checkpoints[case], max_batch=4), m, 3), several)
    other = restored(method, replace(m, seed_key="other"))
    moved = [float((a - several[:, 0]).abs().max()) for a in (several[:, 1], other[:, 0])]
    if case == "line":
        assert moved == [0, 0]
    else:
        assert min(moved) > 1e-3


@pytest.mark.parametrize(
    ("case", "options"),
    [("grey", {}), ("grey", {"sampling": "ot_ode", "nfe": 2}), ("grey", {"final": "x0", "clip": True}), ("conditioned", {})],
)
def test_the_method_is_its_equations(
    case: str, options: dict[str, Any], checkpoints: dict[str, LocalCheckpoint], measured: Any
) -> None:
    """Upsample, to [-1, 1], the chain, back to [0, 1]: with the same noise, the same image."""
    parts, saved = CASES[case]
    asked = {"preupsample": "nearest", "final": "official", "clip": False, **saved, **options}
    bridge, unet = Bridge(BridgeConfig(**parts.get("bridge", {}))), network(parts["unet"])
    m = measured((48, 64))
    source = m.noise([1, 2])
    x1 = (2 * upsample(m, asked["preupsample"]) - 1).repeat_interleave(2, 0)
    noiseless = asked.get("sampling") == "ot_ode"

    def told(x: Tensor, times: Tensor) -> Tensor:
        out: Tensor = unet(torch.cat([x, x1], 1) if bridge.config.cond_x1 else x, times)
        return out

    with torch.inference_mode():
        x = bridge.sample(
            told, x1, lambda: source.normal((1, 48, 64)).flatten(0, 1), asked["nfe"],
            ot_ode=noiseless, clip=asked["clip"], final=asked["final"],
        )  # fmt: skip
    expected = ((x.clamp(-1, 1) + 1) / 2).reshape(2, 2, 1, 48, 64)
    found = restored(load(checkpoints[case], **options), m, 2)
    assert_same(found, expected)
    assert (float((found[:, 0] - found[:, 1]).abs().max()) == 0) == noiseless


def test_one_call_has_no_noise(checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    method = load(checkpoints["grey"], nfe=1)
    assert method.nfe == 1
    images = restored(method, measured((32, 32)), 3)
    assert torch.equal(images[:, 0], images[:, 2])


def test_options_of_user_checkpoint_and_method(tmp_path: Path, measured: Any) -> None:
    """The user's word first, then the checkpoint's, then the published one."""
    bare = write(tmp_path / "bare", {"unet": GREY}, {})
    method = load(bare)
    assert method.nfe == 10
    m = measured((32, 32))
    base = restored(method, m)
    assert torch.equal(base, restored(load(bare, preupsample="nearest", clip=False, final="official", sampling="ddpm"), m))
    changes: list[dict[str, Any]] = [{"preupsample": "bspline"}, {"final": "x0"}, {"sampling": "ot_ode"}, {"nfe": 9}]
    for change in changes:
        other = restored(load(bare, **change), m)
        assert not torch.equal(base, other), change
        saying = write(tmp_path / f"saying_{next(iter(change))}", {"unet": GREY}, change)
        assert torch.equal(restored(load(saying), m), other)
    line = write(tmp_path / "line", {"unet": GREY, "bridge": {"ot_ode": True}}, {})
    assert torch.equal(restored(load(line), m), restored(load(bare, sampling="ot_ode"), m))
    assert torch.equal(restored(load(line, sampling="ddpm"), m), base)


def test_any_size_scale_and_missing_operator(checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    for case in ("grey", "conditioned"):
        method = load(checkpoints[case])
        for scale in (2, 3, 4, 8):
            restored(method, measured((61, 83), scale, items=1))
        restored(method, replace(measured((48, 40), items=1), operator=None))


def test_tiles(checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    m = measured((61, 83), items=1)
    for case in ("grey", "conditioned"):
        whole = restored(load(checkpoints[case]), m, 2)
        assert torch.equal(restored(load(checkpoints[case], tile=256), m, 2), whole)
        tiled = restored(load(checkpoints[case], tile=40, overlap=16), m, 2)
        assert float((tiled - whole).abs().max()) > 1e-5
        assert float((tiled - whole).abs().mean()) < 0.05  # tiles see the noise of the canvas
        assert torch.equal(restored(load(checkpoints[case], tile=40, overlap=16), m, 2), tiled)
    unrelated = restored(load(checkpoints["grey"]), replace(m, seed_key="other"), 2)
    near, far = (float((a - restored(load(checkpoints["grey"]), m, 2)).abs().mean()) for a in (
        restored(load(checkpoints["grey"], tile=40, overlap=16), m, 2), unrelated))  # fmt: skip
    assert near < 0.2 * far


def test_grey_through_colour_and_colour_through_grey(checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    grey, colour = measured((32, 48)), measured((32, 48), channels=3)
    images = restored(load(checkpoints["grey"]), colour, 2)
    assert float((images[:, :, 0] - images[:, :, 1]).abs().max()) > 1e-3  # every colour has noise of its own
    restored(load(checkpoints["colour"]), colour, 2)
    found = restored(load(checkpoints["colour"], sampling="ot_ode"), grey)
    three = replace(grey, y=grey.y.expand(-1, 3, -1, -1).contiguous())
    assert_same(found, restored(load(checkpoints["colour"], sampling="ot_ode"), three).mean(2, keepdim=True))
    for case, known in (("grey", 1), ("colour", 3)):
        with pytest.raises(UserError, match=rf"take images of {known} channel\(s\), the measurement has 2"):
            load(checkpoints[case]).restore(measured((32, 48), channels=2), 1)


def test_reduced_precision_is_close(checkpoints: dict[str, LocalCheckpoint], measured: Any) -> None:
    m, images = measured((48, 40)), {}
    for precision in ("fp32", "bf16"):
        outcomes = Restorer(CARD, CARD.parse({}), CPU, precision, checkpoints["grey"]).restore(m, 2)
        assert [o.status for o in outcomes] == ["ok", "ok"]
        images[precision] = torch.stack([o.estimate for o in outcomes if o.estimate is not None])
    assert 0 < float((images["bf16"] - images["fp32"]).abs().mean()) < 0.02


def published(file: Path, unet: dict[str, Any]) -> LocalCheckpoint:
    """A file as the published code writes it: last weights that differ from the averaged ones."""
    last, averaged = network(unet, seed=1), network(unet)
    shadow = [p.detach() for p in averaged.parameters()]
    content = {
        "net": {f"diffusion_model.{key}": value for key, value in last.state_dict().items()},
        "ema": {"decay": 0.99, "num_updates": 5, "shadow_params": shadow, "collected_params": None},
        "optimizer": torch.optim.AdamW(last.parameters(), 5e-5).state_dict(),
        "sched": {"step_size": 1000, "gamma": 0.99, "last_epoch": 5, "_last_lr": [5e-5]},
    }
    torch.save(content, file)
    file.with_name("options.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # would run code
    return LocalCheckpoint(Checkpoint("official", file.name, "0" * 64, "official", scale=4), file)


def test_published_files(
    tmp_path: Path, checkpoints: dict[str, LocalCheckpoint], measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The averaged weights of a latest.pt give what the same weights in a folder give."""
    local = published(tmp_path / "latest.pt", COLOUR)
    with pytest.raises(UserError, match="another network than the published I2SB weights"):
        load(local)  # too small to be it
    seen: list[str] = []

    def recognise(tensors: Any, what: str) -> tuple[ADMConfig, BridgeConfig]:
        seen.append(what)
        return ADMConfig(**COLOUR), BridgeConfig()

    monkeypatch.setattr(mrbench_methods.i2sb.method, "published_config", recognise)
    m = measured((32, 32))
    found = restored(load(local, nfe=3), m)
    assert torch.equal(found, restored(load(checkpoints["colour"]), m))
    assert seen == [str(local.file)]
    assert not torch.equal(restored(load(local, nfe=3, beta_max=1.0), m), found)
    assert load(local).nfe == 10
    assert load(local, nfe=999).nfe == 999


def test_without_weights() -> None:
    with pytest.raises(UserError, match=r"i2sb needs weights.*--method i2sb@PATH.*mrbench pull i2sb@NAME.*mrbench train"):
        load(None)


def test_options_that_contradict_the_weights(checkpoints: dict[str, LocalCheckpoint]) -> None:
    with pytest.raises(UserError, match=r"nfe 1000: .* was trained with 1000 steps, so between 1 and 999 calls"):
        load(checkpoints["grey"], nfe=1000)
    with pytest.raises(UserError, match=r"trained with beta_max 0.3, not 1"):
        load(checkpoints["grey"], beta_max=1.0)
    assert load(checkpoints["line"], beta_max=1.0).nfe == 4
    for bad in ({"nfe": 0}, {"sampling": "ddim"}, {"final": "x1"}, {"preupsample": "area"}, {"tile": 16, "overlap": 16}):
        with pytest.raises(UserError, match="bad option value"):
            CARD.parse(bad)


@pytest.mark.parametrize(
    ("parts", "config", "message"),
    [
        ({"unet": GREY}, {"method": "resshift"}, "holds weights of resshift, not of i2sb"),
        ({"unet": GREY, "vae": {}}, {}, "unknown parts vae. Known: unet, bridge"),
        ({"bridge": {}}, {}, "no part unet"),
        ({"unet": {**GREY, "depth": 2}}, {}, "has no option 'depth'"),
        ({"unet": GREY, "bridge": {"interval": 7}}, {}, "interval 7 is odd"),
        ({"unet": GREY}, {"method_options": {"steps": 4}}, '"method_options" of config.json has no option'),
        ({"unet": {**GREY, "channel_mult": [1, 2]}}, {}, "do not fit the network ADMUNet"),
        ({"unet": {**GREY, "out_channels": 2}}, {}, r"takes 1 channel\(s\) and returns 2"),
        ({"unet": GREY, "bridge": {"cond_x1": True}}, {}, "shows it the state and the LR image"),
        ({}, {}, "another network than the published"),
    ],
)
def test_wrong_checkpoints_are_refused(
    parts: dict[str, Any], config: dict[str, Any], message: str, checkpoints: dict[str, LocalCheckpoint]
) -> None:
    """The weights are those of :data:`GREY`; what is said about them is wrong."""
    document = {"method": "i2sb", "architecture": parts, "method_options": {}, **config}
    with pytest.raises(UserError, match=message):
        load(replace(checkpoints["grey"], config=document))
