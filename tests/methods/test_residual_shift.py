"""Res-SRDiff, ResShift and SinSR as methods, with small random networks in checkpoint folders."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrbench_methods.res_srdiff
import mrbench_methods.resshift
import mrbench_methods.sinsr
import pytest
import torch
from mrbench_methods.networks.conditioning import resample
from mrbench_methods.networks.residual_shift import ResidualShift
from mrbench_methods.networks.swin_unet import SwinUNet
from mrbench_methods.networks.swin_unet_options import SwinUNetConfig
from mrbench_methods.networks.vq import VQAutoencoder
from mrbench_methods.networks.vq_options import VQConfig
from network_support import measured
from network_support import restored_image as restored
from safetensors.torch import save_file
from torch import Tensor

from mrbench.cards import Checkpoint, MethodCard
from mrbench.degradation.measurement import upsample
from mrbench.engine.conformance import check_method, conforms
from mrbench.engine.restorer import Restorer
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry

CPU = torch.device("cpu")
CARDS: dict[str, MethodCard] = {
    card.name: card
    for module in (mrbench_methods.res_srdiff, mrbench_methods.resshift, mrbench_methods.sinsr)
    for card in module.mrbench_methods()
}
UNET: dict[str, Any] = {
    "image_size": 16, "in_channels": 1, "out_channels": 1, "lq_channels": 1, "model_channels": 32, "channel_mult": (1, 1),
    "num_res_blocks": (1, 1), "attention_resolutions": (16,), "swin_embed_dim": 32, "num_heads": 2, "window_size": 4,
    "mlp_ratio": 2.0,
}  # fmt: skip
RGB = {**UNET, "in_channels": 3, "out_channels": 3, "lq_channels": 3}
VQ: dict[str, Any] = {
    "embed_dim": 3,
    "n_embed": 64,
    "z_channels": 3,
    "ch": 32,
    "ch_mult": (1, 1, 1),
    "num_res_blocks": (1, 1, 1),
}

# name of a case: method, networks, options of the checkpoint
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "res_srdiff repo": ("res_srdiff", {"unet": UNET}, {"variant": "repo"}),
    "res_srdiff paper": ("res_srdiff", {"unet": UNET}, {"variant": "paper"}),
    "resshift pixels": ("resshift", {"unet": UNET}, {"variant": "journal"}),
    "resshift latents": ("resshift", {"unet": RGB, "autoencoder": VQ}, {"variant": "conference", "steps": 4}),
    "sinsr pixels": ("sinsr", {"unet": UNET}, {}),
    "sinsr latents": ("sinsr", {"unet": RGB, "autoencoder": VQ}, {}),
}


def networks(parts: dict[str, Any], published: bool = False) -> dict[str, torch.nn.Module]:
    """Random networks whose outputs look like images: within [-1, 1], and different for different inputs."""
    torch.manual_seed(0)
    made: dict[str, torch.nn.Module] = {}
    if "unet" in parts:
        unet = made["unet"] = SwinUNet(SwinUNetConfig(**parts["unet"]), published_buffers=published)
        for name, p in unet.named_parameters():
            if "out_layers.3" in name or "bias_table" in name:
                torch.nn.init.normal_(p, std=0.5 if "table" in name else 0.02)
    if "autoencoder" in parts:
        made["autoencoder"] = VQAutoencoder(VQConfig(**parts["autoencoder"]))
    return made


def flat(made: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    if len(made) == 1:
        return {key: value.contiguous() for key, value in next(iter(made.values())).state_dict().items()}
    return {f"{name}.{key}": value.contiguous() for name, net in made.items() for key, value in net.state_dict().items()}


def write(folder: Path, method: str, parts: dict[str, Any], options: dict[str, Any], **config: Any) -> LocalCheckpoint:
    """A checkpoint folder with random weights."""
    folder.mkdir(parents=True)
    save_file(flat(networks({k: v for k, v in parts.items() if k != "diffusion"})), folder / "model.safetensors")
    document = {
        "format": 1, "method": method, "name": folder.name, "tier": "demo", "kind": "network", "scale": None, "degradation": "",
        "channels": 1, "architecture": parts, "method_options": options, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalCheckpoint]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write(root / name.replace(" ", "_"), *case) for name, case in CASES.items()}


def load(checkpoint: LocalCheckpoint, name: str = "", **options: Any) -> Any:
    card = CARDS[name or checkpoint.config["method"]]
    method = card.load()(card.parse(options))
    method.load(checkpoint, CPU)
    return method


def assert_same(a: Tensor, b: Tensor) -> None:
    """Equal but for rounding, of up to 1e-5 per network call, in up to 15 calls."""
    gap = (a - b).abs()
    assert float(gap.mean()) <= 5e-6
    assert float(gap.max()) <= 5e-5


def test_cards_are_complete_and_light() -> None:
    for name, card in CARDS.items():
        assert (card.name, card.deterministic, card.needs_operator) == (name, False, False)
        assert card.licence.startswith("Apache-2.0 (this implementation). Official weights:")
        assert card.paper
        assert card.notes
        assert card.nfe == (1 if name == "sinsr" else 4)
        assert all(info.description for info in card.options.model_fields.values())
        card.parse({})
        readme = Path(sys.modules[f"mrbench_methods.{name}"].__file__ or "").with_name("README.md").read_text()
        assert "## Demonstration weights" in readme
    code = (
        "import sys, mrbench_methods.res_srdiff, mrbench_methods.resshift, mrbench_methods.sinsr, mrbench_methods.networks;"
        "import mrbench_methods.networks.settings;"
        "heavy = {'torch', 'pandas', 'scipy', 'skimage'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", list(CARDS))
def test_without_weights(name: str) -> None:
    card = CARDS[name]
    with pytest.raises(UserError, match=f"{name} needs weights.*--method {name}@PATH.*mrbench pull {name}@NAME.*mrbench train"):
        card.load()(card.parse({})).load(None, CPU)


@pytest.mark.parametrize("case", [case for case in CASES if case != "res_srdiff paper"])
def test_conformance(case: str, checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    """The whole suite, with the weights put in by hand."""
    card = CARDS[CASES[case][0]]
    base: Any = card.load()

    class Loaded(base):  # type: ignore[misc]
        def load(self, checkpoint: object, device: torch.device) -> None:
            super().load(checkpoints[case], device)

    results = check_method(replace(card, implementation=Loaded, checkpoints=()), registry)
    assert conforms(results), [r for r in results if r.status not in ("pass", "skip")]


@pytest.mark.parametrize("case", list(CASES))
def test_items_draws_and_chunks(case: str, checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    m = measured(registry, (45, 37), items=3)
    method = load(checkpoints[case])
    assert method.nfe == (1 if "sinsr" in case else 4)
    several = restored(method, m, 3)
    assert torch.equal(several, restored(method, m, 3))
    for i in range(3):
        assert_same(restored(method, m.select([i]), 3)[0], several[i])
    assert_same(restored(method, m)[:, 0], several[:, 0])
    assert_same(restored(load(checkpoints[case], max_batch=4), m, 3), several)
    assert float((several[:, 0] - several[:, 1]).abs().max()) > 1e-3
    other = restored(method, replace(m, seed_key="other"))
    assert float((other[:, 0] - several[:, 0]).abs().max()) > 1e-3


@pytest.mark.parametrize("kernel", ["nearest", "bicubic", "bspline"])
def test_res_srdiff_is_its_equations(kernel: str, checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    """Upsample, to [-1, 1], sample in four of fifteen steps, back to [0, 1]: with the same noise, the same image."""
    method = load(checkpoints["res_srdiff paper"], preupsample=kernel)
    m = measured(registry, (48, 64))
    unet = networks({"unet": UNET})["unet"].eval()
    process = ResidualShift(mrbench_methods.res_srdiff.DIFFUSIONS["paper"], 4)
    source = m.noise([1, 2])
    y = (2 * upsample(m, kernel) - 1).repeat_interleave(2, 0)  # type: ignore[arg-type]
    with torch.inference_mode():
        x = process.sample(lambda x, t: unet(x, t, y), y, lambda: source.normal((1, 48, 64)).flatten(0, 1), clip=True)
    expected = ((x + 1) / 2).reshape(2, 2, 1, 48, 64)
    assert_same(restored(method, m, 2), expected)


def test_sinsr_on_latents_is_its_equations(checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    m = measured(registry, (64, 96))
    parts: dict[str, Any] = {name: net.eval() for name, net in networks(CASES["sinsr latents"][1]).items()}
    vq, unet = parts["autoencoder"], parts["unet"]
    lq, up = ((2 * part - 1).expand(-1, 3, -1, -1) for part in (m.y, resample(m)))
    with torch.inference_mode():
        z_y = vq.encode(up)
        x = z_y + 2 * 0.99 * m.noise().normal((3, 16, 24))[:, 0]
        z = unet(x / (0.99**2 * 4 + 1) ** 0.5, torch.full((2,), 14), lq)
        expected = (vq.decode(z).clamp(-1, 1).mean(1, keepdim=True) + 1) / 2
    found = restored(load(checkpoints["sinsr latents"]), m)[:, 0]
    assert float(((found - expected).abs() > 1e-4).float().mean()) < 0.01  # a code may flip where two are equally near


def test_padding_changes_nothing_that_is_already_whole(checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    """Odd sizes are extended to whole windows, and what comes back has the size that was asked for, at any scale."""
    for case in ("res_srdiff repo", "sinsr latents"):
        method = load(checkpoints[case])
        for scale in (2, 3, 4, 8):
            restored(method, measured(registry, (61, 83), scale, items=1))
        restored(method, measured(registry, (45, 37), 4, items=1, degradation="sitk_resample"))
        restored(method, replace(measured(registry, (48, 40), 4, items=1), operator=None))


def test_tiles(checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    m = measured(registry, (61, 83), items=1)
    for case in ("res_srdiff repo", "resshift latents"):
        whole = restored(load(checkpoints[case]), m)
        assert torch.equal(restored(load(checkpoints[case], tile=256), m), whole)
        tiled = restored(load(checkpoints[case], tile=40, overlap=16), m)
        assert float((tiled - whole).abs().max()) > 1e-4
        assert torch.equal(restored(load(checkpoints[case], tile=40, overlap=16), m), tiled)
    with pytest.raises(UserError, match="overlap 40 leaves nothing of tiles of 40"):
        CARDS["sinsr"].parse({"tile": 40, "overlap": 40})


def test_colour_and_grey(checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    colour = measured(registry, (32, 48), channels=3)
    restored(load(checkpoints["resshift latents"]), colour, 2)
    alone = load(checkpoints["sinsr pixels"])
    images = restored(alone, colour, 2)
    source = colour.noise(2).normal((3, 1, 32, 48))  # every colour has numbers of its own
    assert source.shape == (2, 2, 3, 1, 32, 48)
    assert float((images[:, :, 0] - images[:, :, 1]).abs().max()) > 1e-3
    with pytest.raises(UserError, match="take images of 1 channel"):
        alone.restore(measured(registry, (32, 48), channels=2), 1)


def test_reduced_precision_is_close(checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    m = measured(registry, (48, 40))
    for case in ("res_srdiff repo", "sinsr pixels"):
        card = CARDS[CASES[case][0]]
        images = {}
        for precision in ("fp32", "bf16"):
            restorer = Restorer(card, card.parse({}), CPU, precision, checkpoints[case])
            outcomes = restorer.restore(m, 2)
            assert [o.status for o in outcomes] == ["ok", "ok"]
            images[precision] = torch.stack([o.estimate for o in outcomes if o.estimate is not None])
        gap = (images["bf16"] - images["fp32"]).abs()
        assert 0 < float(gap.mean()) < 0.02


def test_options_that_contradict_the_weights(checkpoints: dict[str, LocalCheckpoint]) -> None:
    with pytest.raises(UserError, match="trained with the diffusion repo, not with variant 'paper'"):
        load(checkpoints["res_srdiff repo"], variant="paper")
    with pytest.raises(UserError, match=r"trained with 4 step\(s\)"):
        load(checkpoints["res_srdiff repo"], steps=15)
    with pytest.raises(UserError, match="works on pixels"):
        load(checkpoints["sinsr pixels"], autoencoder="vq.pth")
    assert load(checkpoints["res_srdiff paper"], steps=15).nfe == 15
    assert load(checkpoints["resshift latents"], variant="conference").nfe == 4
    assert load(checkpoints["resshift latents"], steps=15).nfe == 15


def test_own_diffusion_settings(tmp_path: Path, registry: Registry) -> None:
    settings = {"steps": 6, "min_noise_level": 0.1, "kappa": 1.0, "scaling": "pixel"}
    local = write(tmp_path / "own", "resshift", {"unet": UNET, "diffusion": settings}, {})
    method = load(local)
    assert method.nfe == 6
    restored(method, measured(registry, (32, 32)))
    with pytest.raises(UserError, match="trained with the diffusion"):
        load(local, variant="journal")


@pytest.mark.parametrize(
    ("method", "parts", "options", "config", "message"),
    [
        ("sinsr", {"unet": UNET}, {}, {"method": "resshift"}, "holds weights of resshift, not of sinsr"),
        ("sinsr", {"unet": UNET, "vae": {}}, {}, {}, "unknown parts vae. Known: unet, autoencoder, diffusion"),
        ("sinsr", {"unet": {**UNET, "depth": 2}}, {}, {}, "has no option 'depth'"),
        ("sinsr", {"unet": UNET}, {"variant": "journal"}, {}, '"method_options" of config.json has no option'),
        (
            "sinsr",
            {"unet": {**UNET, "mlp_ratio": 3.0}},
            {},
            {},
            r"do not fit the network SwinUNet.*fc1\.weight is \[64, 32, 1, 1\]",
        ),
        ("sinsr", {"unet": {**UNET, "swin": False}}, {}, {}, r"not part of the network \(input_blocks\.1\.1\."),
        ("sinsr", {"unet": UNET, "autoencoder": VQ}, {}, {}, "holds no autoencoder"),
        ("resshift", {"unet": UNET}, {}, {}, "does not say which diffusion.*journal, conference, conference_bicubic"),
        ("res_srdiff", {"unet": RGB, "autoencoder": VQ}, {}, {}, "works on latents, and res_srdiff on pixels"),
    ],
)
def test_wrong_checkpoints_are_refused(
    method: str, parts: dict[str, Any], options: dict[str, Any], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The weights are those of :data:`UNET`; what is said about them is wrong."""
    save_file(flat(networks({"unet": UNET})), tmp_path / "model.safetensors")
    document = {"method": method, "architecture": parts, "method_options": options, **config}
    record = Checkpoint("wrong", str(tmp_path), "0" * 64, "demo")
    with pytest.raises(UserError, match=message):
        load(LocalCheckpoint(record, tmp_path / "model.safetensors", document), method)


def test_networks_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"states of 1 and LR images of 1 channel\(s\).*states have 3"):
        load(write(tmp_path / "a", "sinsr", {"unet": UNET, "autoencoder": VQ}, {}))
    with pytest.raises(UserError, match="made for inpainting"):
        load(write(tmp_path / "b", "sinsr", {"unet": {**UNET, "cond_mask": True}}, {}))


def test_published_files(tmp_path: Path, checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    """A U-Net alone in a .pth, wrapped as training leaves it, and its autoencoder beside it: the same as a folder."""
    m = measured(registry, (64, 64), items=1)
    for case, variant in (("resshift latents", {"variant": "conference", "steps": 4}), ("sinsr latents", {})):
        made = networks(CASES[case][1], published=True)
        unet = {f"module._orig_mod.{key}": value for key, value in made["unet"].state_dict().items()}
        torch.save({"iters_start": 7, "state_dict": unet}, tmp_path / "unet.pth")
        torch.save(dict(made["autoencoder"].state_dict()), tmp_path / "vq.pth")
        record = Checkpoint("official", "unet.pth", "0" * 64, "official")
        local = LocalCheckpoint(record, tmp_path / "unet.pth")
        name = CASES[case][0]
        with pytest.raises(UserError, match="name the file of its autoencoder"):
            load(local, name, **variant)
        method = load(local, name, autoencoder=str(tmp_path / "vq.pth"), **variant)
        assert torch.equal(restored(method, m), restored(load(checkpoints[case]), m))
    made = networks({"unet": UNET}, published=True)
    torch.save({"model_state_dict": made["unet"].state_dict(), "epoch": 3}, tmp_path / "content.pth")
    local = LocalCheckpoint(replace(record, file="content.pth"), tmp_path / "content.pth")
    assert torch.equal(restored(load(local, "res_srdiff"), m), restored(load(checkpoints["res_srdiff repo"]), m))
