"""SPSR: the network, its losses, the method with random weights and published files, and its recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrbench_methods.spsr
import pytest
import torch
from mrbench_methods.networks.spsr import SPSR, VGGDiscriminator, gradient_map, init_small
from mrbench_methods.networks.spsr_options import SPSRConfig, SPSRShape, VGGDiscriminatorConfig
from mrbench_methods.networks.spsr_weights import from_trunk
from mrbench_methods.networks.vgg_loss import VGGLoss
from mrbench_methods.spsr.recipe import SPSRRecipe
from network_support import CPU, conformance, loaded, measured, restored, train_tiny, write_checkpoint, write_images
from pydantic import ValidationError
from tests_support import Done

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry, discover
from mrbench.train.presets import read_options

(CARD,) = mrbench_methods.spsr.mrbench_methods()
TINY: dict[str, Any] = {"width": 4, "blocks": 20, "growth": 2}


def network(scale: int = 4, channels: int = 1, seed: int = 0) -> SPSR:
    torch.manual_seed(seed)
    made = SPSR(SPSRConfig(**TINY, channels=channels, scale=scale))
    init_small(made, 0.5)
    return made.eval()


def checkpoint(folder: Path, scale: int = 4, channels: int = 1) -> LocalCheckpoint:
    made = network(scale, channels)
    return write_checkpoint(folder, "spsr", made.state_dict(), {"generator": made.config.model_dump()}, {}, scale=scale)


def published(file: Path, made: SPSR) -> LocalCheckpoint:
    torch.save(made.state_dict(), file)
    return LocalCheckpoint(Checkpoint("official", file.name, "0" * 64, "official", scale=4), file)


# -- the network ---------------------------------------------------------------------------------------------------
def test_sizes_of_the_published_networks() -> None:
    with torch.device("meta"):
        made = SPSR(SPSRConfig(channels=3, scale=4))
        judge = VGGDiscriminator(3, VGGDiscriminatorConfig())
    assert sum(p.numel() for p in made.parameters()) == 24_796_248 - 18  # the kernels are constants here
    assert sum(p.numel() for p in judge.parameters()) == 14_502_281
    assert made.model[8] is made.HR_conv0_new[0]


def test_gradients_of_a_ramp() -> None:
    ramp = (2.0 * torch.arange(8.0)[:, None] + 3.0 * torch.arange(9.0)[None, :])[None, None]
    assert gradient_map(ramp).shape == (1, 1, 8, 9)
    assert gradient_map(ramp, 2).shape == (1, 1, 10, 11)
    torch.testing.assert_close(gradient_map(ramp)[..., 1:-1, 1:-1], torch.full((1, 1, 6, 7), 52.0**0.5))
    torch.testing.assert_close(gradient_map(ramp, 2)[..., 1:-1, 1:-1], gradient_map(ramp))


def test_fewer_blocks_or_odd_scales_cannot_be_built() -> None:
    with pytest.raises(ValidationError, match="20"):
        SPSRConfig(blocks=19, scale=4)
    with pytest.raises(ValidationError, match="power of 2"):
        SPSRConfig(scale=3)


@pytest.mark.parametrize("extra", [0, 2])
def test_discriminators_take_patches_and_their_gradient_maps(extra: int) -> None:
    judge = VGGDiscriminator(1, VGGDiscriminatorConfig(width=2, size=64))
    assert judge(torch.rand(2, 1, 64 + extra, 64 + extra)).shape == (2, 1)


# -- the method ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3])
def test_conformance(channels: int, tmp_path: Path) -> None:
    assert not conformance(CARD, checkpoint(tmp_path / "c", 4, channels), (4,))


def test_the_method_is_the_second_output(tmp_path: Path, registry: Registry) -> None:
    m = measured(registry, (48, 64))
    with torch.no_grad():
        expected = network()(m.y)[1].clamp(0, 1)
    found = restored(loaded(CARD, checkpoint(tmp_path / "c")), m, 2)
    torch.testing.assert_close(found[:, 0], expected, atol=2e-5, rtol=0)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(restored(loaded(CARD, published(tmp_path / "spsr.pth", network())), m)[:, 0], found[:, 0])


def test_any_size_and_scale(tmp_path: Path, registry: Registry) -> None:
    for scale in (2, 8):
        method = loaded(CARD, published(tmp_path / f"x{scale}.pth", network(scale)))
        restored(method, measured(registry, (61, 83), scale, items=1))
    with pytest.raises(UserError, match="enlarges images 8 times"):
        method.restore(measured(registry, (32, 32), 4), 1)


def test_files_of_something_else(tmp_path: Path) -> None:
    trunk = {k: v for k, v in network().state_dict().items() if k.startswith("model.")}
    torch.save(trunk, tmp_path / "rrdb.pth")
    local = LocalCheckpoint(Checkpoint("o", "rrdb.pth", "0" * 64, "official", scale=4), tmp_path / "rrdb.pth")
    with pytest.raises(UserError, match=r"the trunk alone.*--init"):
        loaded(CARD, local)
    with pytest.raises(UserError, match="spsr needs weights"):
        loaded(CARD, None)
    made = network()
    wrong = made.state_dict()
    del wrong["b_concat_3.0.bias"]
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"1 missing \(b_concat_3.0.bias\)"):
        loaded(CARD, LocalCheckpoint(Checkpoint("o", "wrong.pth", "0" * 64, "official", scale=4), tmp_path / "wrong.pth"))


# -- the recipe ----------------------------------------------------------------------------------------------------
SMALL = {
    "generator.width": 4, "generator.growth": 2, "discriminator.width": 2, "discriminator.size": 32,
    "stages.main.optimisers.generator.schedule.warmup": 0,
}  # fmt: skip


def test_the_demo_recipe_makes_weights_that_the_method_takes(mrbench: Callable[..., Done], tmp_path: Path) -> None:
    done = train_tiny(mrbench, "spsr", write_images(tmp_path / "images"), tmp_path / "out", SMALL)
    assert done.code == 0, done.err
    found = read_folder(tmp_path / "out", "spsr")
    assert found.config["architecture"]["generator"] == {**TINY, "channels": 1, "scale": 2}
    tensors = found.tensors()
    assert torch.equal(tensors["HR_conv0_new.0.weight"], tensors["model.5.weight"])
    assert tensors["get_g_nopadding.weight_h"].flatten().tolist() == [0, 0, 0, -1, 0, 1, 0, 0, 0]
    assert json.loads((tmp_path / "out" / "training.json").read_text())["selection"]["scores"]["psnr"] > 0


def test_losses_are_their_equations() -> None:
    options = read_options(SPSRRecipe, "spsr", "demo", {"discriminator": {"width": 2, "size": 96}})
    context: Any = type("C", (), {"channels": 1, "scale": 4, "device": CPU, "card": CARD})()
    form = options.generator.model_copy(update=TINY)
    recipe = SPSRRecipe(options.model_copy(update={"generator": form}), context)
    torch.manual_seed(0)
    networks = recipe.build()
    m = measured(discover(), (96, 96), 4, items=2)
    batch: Any = type("B", (), {"hr": torch.rand(2, 1, 96, 96), "measurement": m})()
    step: Any = None
    terms = recipe.losses(networks, batch, torch.Generator(), step, "generator")
    assert set(terms) == {"pixel", "gradient", "branch", "gan", "gradient_gan"}
    made = networks["generator"](m.y)
    torch.testing.assert_close(terms["pixel"], (made.image - batch.hr).abs().mean())
    torch.testing.assert_close(terms["branch"], 0.5 * (made.gradient - gradient_map(batch.hr)).abs().mean())
    error = (gradient_map(made.image, 2) - gradient_map(batch.hr, 2)).square().mean()
    torch.testing.assert_close(terms["gradient"], error)
    judged = recipe.losses(networks, batch, torch.Generator(), step, "discriminators")
    for network_ in networks.values():
        network_.zero_grad()
    torch.stack(list(judged.values())).sum().backward()
    assert all(p.grad is None for p in networks["generator"].parameters())


def test_trainings_begin_from_a_trunk() -> None:
    source, fresh = network(seed=1).state_dict(), network(seed=2).state_dict()
    trunk = {k: v for k, v in source.items() if k.startswith("model.")}
    trunk |= {"model.10.weight": torch.zeros(1, 4, 3, 3), "model.10.bias": torch.zeros(1)}
    begun = from_trunk(trunk, fresh)
    assert set(begun) == set(fresh)
    for key, value in begun.items():
        own = source if key.startswith(("model.", "HR_conv0_new")) else fresh
        assert torch.equal(value, own[key]), key
    assert from_trunk(source, fresh) == source


def test_vgg_features(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision.models import vgg19

    with torch.device("meta"):
        shapes = {f"features.{k}": v.shape for k, v in vgg19(weights=None).features.state_dict().items()}
    assert {"features.34.weight", "features.34.bias"} <= set(shapes)
    save_file({k: 0.02 * torch.randn(s) for k, s in shapes.items() if int(k.split(".")[1]) < 5}, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match="missing"):
        VGGLoss(str(tmp_path / "part.safetensors"))
    with pytest.raises(UserError, match="nowhere"):
        VGGLoss(str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"discriminator.size": 64}, {}, "judge 64 pixels"),
        ({"vgg": "nowhere.pth"}, {}, "nowhere.pth"),
    ],
)
def test_options_that_make_no_sense(
    changes: dict[str, Any], arguments: dict[str, Any], message: str, mrbench: Callable[..., Done], tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", (96, 96))
    done = train_tiny(mrbench, "spsr", images, tmp_path / "out", {**SMALL, **changes}, **arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split()), done.err


def test_presets() -> None:
    made = {preset: read_options(SPSRRecipe, "spsr", preset, {}) for preset in ("demo", "matched", "paper")}
    with torch.device("meta"):
        demo = SPSR(SPSRConfig(**made["demo"].generator.model_dump(), scale=4))
    assert 2 * sum(p.numel() for p in demo.parameters()) < 12e6
    assert made["paper"].generator == SPSRShape()


def test_scales_that_are_no_powers_of_two() -> None:
    options = read_options(SPSRRecipe, "spsr", "demo", {})
    for scale in (3, 2.5):
        context: Any = type("C", (), {"channels": 1, "scale": scale, "device": CPU, "card": CARD})()
        with pytest.raises(UserError, match=f"powers of 2, not {scale:g} times"):
            SPSRRecipe(options, context)
