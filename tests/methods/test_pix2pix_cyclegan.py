"""Pix2pix and CycleGAN: generators, losses, methods with random weights and published files, and recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrbench_methods.cyclegan
import mrbench_methods.pix2pix
import pytest
import torch
from mrbench_methods.cyclegan.recipe import CycleGANRecipe
from mrbench_methods.networks.gan_losses import ImagePool, gan_loss, relativistic_loss
from mrbench_methods.networks.gan_options import PatchGANConfig, ResnetGeneratorConfig, UNetGeneratorConfig
from mrbench_methods.networks.norms import init_normal
from mrbench_methods.networks.patchgan import PatchGAN
from mrbench_methods.networks.resnet_generator import ResnetGenerator
from mrbench_methods.networks.unet_generator import UNetGenerator
from mrbench_methods.pix2pix.recipe import Pix2PixRecipe
from network_support import CPU, conformance, loaded, measured, restored, train_tiny, write_checkpoint, write_images
from tests_support import Done
from torch import Tensor, nn

from mrbench.cards import Checkpoint, MethodCard
from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry, discover
from mrbench.train.presets import read_options

(PIX2PIX,) = mrbench_methods.pix2pix.mrbench_methods()
(CYCLEGAN,) = mrbench_methods.cyclegan.mrbench_methods()
CARDS = {"pix2pix": PIX2PIX, "cyclegan": CYCLEGAN}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "unet": ("pix2pix", {"num_downs": 5, "width": 4, "norm": "batch"}, {}),
    "unet_running": ("pix2pix", {"num_downs": 5, "width": 4, "norm": "batch"}, {"statistics": "running"}),
    "unet_instance": ("pix2pix", {"num_downs": 5, "width": 4, "norm": "instance", "channels": 3}, {"preupsample": "nearest"}),
    "resnet": ("cyclegan", {"width": 4, "blocks": 1}, {}),
    "resnet_batch": ("cyclegan", {"width": 4, "blocks": 1, "norm": "batch", "channels": 3, "dropout": True}, {"statistics": "running"}),
}  # fmt: skip


def generator(method: str, form: dict[str, Any]) -> nn.Module:
    """Random weights, with running statistics that are not those at the start."""
    torch.manual_seed(0)
    made: nn.Module = (
        UNetGenerator(UNetGeneratorConfig(**form)) if method == "pix2pix" else ResnetGenerator(ResnetGeneratorConfig(**form))
    )
    for name, buffer in made.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return init_normal(made, 0.2).eval()


def checkpoint(folder: Path, case: str) -> LocalCheckpoint:
    method, form, options = CASES[case]
    return write_checkpoint(folder, method, generator(method, form).state_dict(), {"generator": form}, options)


# -- networks ------------------------------------------------------------------------------------------------------
def test_sizes_of_the_published_networks() -> None:
    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        assert count(UNetGenerator(UNetGeneratorConfig(channels=3))) == 54_413_955
        assert count(UNetGenerator(UNetGeneratorConfig())) == 54_407_809
        assert count(UNetGenerator(UNetGeneratorConfig(channels=3, num_downs=7))) == 41_828_995
        assert count(ResnetGenerator(ResnetGeneratorConfig(channels=3))) == 11_378_179
        assert count(ResnetGenerator(ResnetGeneratorConfig(channels=3, blocks=6))) == 7_837_699
        assert count(PatchGAN(6, PatchGANConfig())) == 2_768_705
        assert count(PatchGAN(3, PatchGANConfig(norm="instance"))) == 2_764_737
        assert PatchGAN(6, PatchGANConfig())(torch.empty(1, 6, 256, 256)).shape == (1, 1, 30, 30)


def test_where_dropout_is() -> None:
    with torch.device("meta"):
        for downs, expected in ((8, 3), (6, 1), (5, 0)):
            network = UNetGenerator(UNetGeneratorConfig(num_downs=downs, width=4))
            assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == expected


# -- losses --------------------------------------------------------------------------------------------------------
def test_gan_losses() -> None:
    verdict = torch.tensor([0.0, 2.0])
    assert float(gan_loss("lsgan", verdict, True)) == 1.0
    assert float(gan_loss("lsgan", verdict, False)) == 2.0
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(gan_loss("vanilla", verdict, True), softplus(-verdict).mean())
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    expected = 0.5 * (softplus(-(real - 0.5)).mean() + softplus(fake - 2.0).mean())
    torch.testing.assert_close(relativistic_loss(real, fake, generator=False), expected)
    swapped = 0.5 * (softplus(real - 0.5).mean() + softplus(-(fake - 2.0)).mean())
    torch.testing.assert_close(relativistic_loss(real, fake, generator=True), swapped)


def test_the_pool_gives_back_earlier_images() -> None:
    dice = torch.Generator().manual_seed(0)
    pool = ImagePool(4)
    first = torch.arange(4.0).reshape(4, 1, 1, 1)
    assert torch.equal(pool.query(first, dice), first)  # while it fills
    shown = torch.cat([pool.query(torch.full((2, 1, 1, 1), 10.0 + k), dice) for k in range(50)]).flatten()
    new = torch.tensor([10.0 + k for k in range(50) for _ in range(2)])
    fresh = float((shown == new).float().mean())
    assert 0.3 < fresh < 0.75
    assert bool((shown <= new).all())
    assert len(pool.images) == 4
    other = ImagePool(4)
    other.restore(pool.images)
    assert [float(i) for i in other.images] == [float(i) for i in pool.images]
    x = torch.rand(2, 1, 3, 3, requires_grad=True)
    assert ImagePool(0).query(x, dice) is x


# -- methods -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", list(CASES))
def test_conformance(case: str, tmp_path: Path) -> None:
    assert not conformance(CARDS[CASES[case][0]], checkpoint(tmp_path / "c", case))


@pytest.mark.parametrize("case", ["unet_running", "resnet", "unet_instance"])
def test_the_method_is_its_equation(case: str, tmp_path: Path, registry: Registry) -> None:
    method, form, options = CASES[case]
    m = measured(registry, (64, 96))
    x = 2 * upsample(m, options.get("preupsample", "bicubic")) - 1
    grey = form.get("channels", 1) == 1
    with torch.no_grad():
        y = (generator(method, form)(x if grey else x.expand(-1, 3, -1, -1)) + 1) / 2
    found = restored(loaded(CARDS[method], checkpoint(tmp_path / "c", case)), m, 2)
    torch.testing.assert_close(found[:, 0], y if grey else y.mean(1, keepdim=True), atol=2e-5, rtol=0)
    assert torch.equal(found[:, 0], found[:, 1])


def test_statistics_of_the_image_or_of_the_training(tmp_path: Path, registry: Registry) -> None:
    local, m = checkpoint(tmp_path / "c", "unet"), measured(registry, (64, 64), items=2)
    image, running = restored(loaded(PIX2PIX, local), m), restored(loaded(PIX2PIX, local, statistics="running"), m)
    assert float((image - running).abs().max()) > 1e-3
    assert torch.equal(restored(loaded(PIX2PIX, local, statistics="image"), m), image)
    alone = restored(loaded(PIX2PIX, local), m.select([1]))
    torch.testing.assert_close(alone[0], image[1], atol=2e-5, rtol=0)  # images do not influence each other


def test_any_size_and_tiles(tmp_path: Path, registry: Registry) -> None:
    for case in ("unet_running", "resnet"):
        method = CASES[case][0]
        local = checkpoint(tmp_path / case, case)
        for scale in (2, 3, 4):
            restored(loaded(CARDS[method], local), measured(registry, (61, 83), scale, items=1))
        m = measured(registry, (61, 83), items=1)
        tiled = restored(loaded(CARDS[method], local, tile=64, overlap=16), m)
        assert 0 < float((tiled - restored(loaded(CARDS[method], local), m)).abs().mean()) < 0.2


def published(file: Path, tensors: dict[str, Tensor]) -> LocalCheckpoint:
    torch.save(tensors, file)
    return LocalCheckpoint(Checkpoint("official", file.name, "0" * 64, "official", scale=4), file)


@pytest.mark.parametrize("case", list(CASES))
def test_published_files_are_recognised(case: str, tmp_path: Path, registry: Registry) -> None:
    method, form, options = CASES[case]
    tensors = {key: value for key, value in generator(method, form).state_dict().items() if "num_batches" not in key}
    if form.get("norm", "instance") == "instance":  # what old files hold beside the weights
        key = "model.2" if method == "cyclegan" else "model.model.1.model.2"
        tensors |= {f"{key}.running_mean": torch.zeros(4), f"{key}.running_var": torch.ones(4)}
    m = measured(registry, (32, 64))
    found = restored(loaded(CARDS[method], published(tmp_path / "latest_net_G.pth", tensors), **options), m)
    assert torch.equal(found, restored(loaded(CARDS[method], checkpoint(tmp_path / "c", case)), m))


def test_files_of_something_else(tmp_path: Path) -> None:
    unet, resnet = (generator(*CASES[c][:2]).state_dict() for c in ("unet", "resnet"))
    with pytest.raises(UserError, match="no weights of a CycleGAN generator"):
        loaded(CYCLEGAN, published(tmp_path / "a.pth", unet))
    with pytest.raises(UserError, match="no weights of a pix2pix U-Net"):
        loaded(PIX2PIX, published(tmp_path / "b.pth", resnet))
    del unet["model.model.3.bias"]
    with pytest.raises(UserError, match="1 missing"):
        loaded(PIX2PIX, published(tmp_path / "c.pth", unet))
    for card in (PIX2PIX, CYCLEGAN):
        with pytest.raises(UserError, match="needs weights"):
            loaded(card, None)


def test_channels_that_do_not_fit(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(UserError, match=r"take images of 1 channel\(s\), the measurement has 2"):
        loaded(PIX2PIX, checkpoint(tmp_path / "c", "unet")).restore(measured(registry, (32, 32), channels=2), 1)


# -- recipes -------------------------------------------------------------------------------------------------------
TINY: dict[str, dict[str, Any]] = {
    "pix2pix": {"generator.width": 4, "discriminator.width": 4},
    "cyclegan": {"generator.width": 4, "generator.blocks": 1, "discriminator.width": 4, "discriminator.layers": 2, "pool": 3},
}  # fmt: skip


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_the_demo_recipe_makes_weights_that_the_method_takes(method: str, mrbench: Callable[..., Done], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    done = train_tiny(mrbench, method, images, tmp_path / "out", TINY[method])
    assert done.code == 0, done.err
    found = read_folder(tmp_path / "out", method)
    assert set(found.config["architecture"]) == {"generator"}
    assert found.config["method_options"] == {"preupsample": "bicubic", "statistics": "running"}
    assert all(key.startswith("model.") for key in found.tensors())  # the generator alone
    said = json.loads((tmp_path / "out" / "training.json").read_text())
    assert said["selection"]["scores"]["psnr"] > 0
    restored(loaded(CARDS[method], found), measured(discover(), (45, 52), 2))


def test_the_pools_are_part_of_the_state() -> None:
    recipe = CycleGANRecipe
    options = read_options(recipe, "cyclegan", "demo", {})
    context: Any = type("C", (), {"channels": 1, "device": CPU, "card": CYCLEGAN})()
    one, two = recipe(options, context), recipe(options, context)
    dice = torch.Generator().manual_seed(1)
    one._pools["a"].query(torch.rand(3, 1, 8, 8), dice)
    two.load_extra_state(one.extra_state())
    assert [torch.equal(x, y) for x, y in zip(one._pools["a"].images, two._pools["a"].images, strict=True)] == [True] * 3
    assert two._pools["b"].images == []


def test_images_of_a_step_do_not_belong_together() -> None:
    options = read_options(CycleGANRecipe, "cyclegan", "demo", {})
    context: Any = type("C", (), {"channels": 1, "device": CPU, "card": CYCLEGAN})()
    hr = torch.stack([torch.full((1, 8, 8), v) for v in (0.0, 0.5, 1.0)])
    m = measured(discover(), (8, 8), 2, items=3)
    batch: Any = type("B", (), {"hr": hr, "measurement": m})()
    a, b = CycleGANRecipe(options, context).domains(batch)
    assert torch.equal(a, 2 * upsample(m) - 1)
    assert b[:, 0, 0, 0].tolist() == [1.0, -1.0, 0.0]
    paired = CycleGANRecipe(options.model_copy(update={"unpaired": False}), context)
    assert torch.equal(paired.domains(batch)[1], 2 * hr - 1)


def test_adversarial_losses_reach_the_right_networks() -> None:
    options = read_options(Pix2PixRecipe, "pix2pix", "demo", {})
    form = options.generator.model_copy(update={"width": 4})
    options = options.model_copy(update={"generator": form, "discriminator": PatchGANConfig(width=4)})
    context: Any = type("C", (), {"channels": 1, "device": CPU, "card": PIX2PIX})()
    recipe = Pix2PixRecipe(options, context)
    torch.manual_seed(0)
    networks = recipe.build()
    m = measured(discover(), (32, 32), 2, items=2)
    batch: Any = type("B", (), {"hr": torch.rand(2, 1, 32, 32), "measurement": m})()
    dice, step = torch.Generator(), None  # neither is used
    generator_terms = recipe.losses(networks, batch, dice, step, "generator")  # type: ignore[arg-type]
    assert set(generator_terms) == {"gan", "l1"}
    made = networks["generator"](2 * upsample(m) - 1)
    torch.testing.assert_close(generator_terms["l1"], 100 * (made - (2 * batch.hr - 1)).abs().mean())
    judged = recipe.losses(networks, batch, dice, step, "discriminator")  # type: ignore[arg-type]
    for network in networks.values():
        network.zero_grad()
    torch.stack(list(judged.values())).sum().backward()
    assert all(p.grad is None for p in networks["generator"].parameters())
    assert any(p.grad is not None for p in networks["discriminator"].parameters())


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("pix2pix", {"channels": 3}, r"takes images of 1 channel\(s\), the training images have 3"),
        ("pix2pix", {"stages.main.optimisers.generator.networks": []}, "would step all networks"),
        ("pix2pix", {"stages.main.batch": 0}, "batch"),
        ("cyclegan", {"stages.main.batch": 1}, "micro-batches of 2 or more"),
        ("cyclegan", {"generator.blocks": 0}, "blocks"),
    ],
)
def test_options_that_make_no_sense(
    method: str, changes: dict[str, Any], message: str, mrbench: Callable[..., Done], tmp_path: Path
) -> None:
    import re

    done = train_tiny(mrbench, method, write_images(tmp_path / "images"), tmp_path / "out", changes)
    assert done.code == 2
    assert re.search(message, " ".join(done.err.split())), done.err


@pytest.mark.parametrize(("method", "recipe"), [("pix2pix", Pix2PixRecipe), ("cyclegan", CycleGANRecipe)])
def test_presets(method: str, recipe: Any) -> None:
    made = {preset: read_options(recipe, method, preset, {}) for preset in ("demo", "matched", "paper")}
    paper = made["paper"]
    assert paper.generator == (UNetGeneratorConfig(channels=3) if method == "pix2pix" else ResnetGeneratorConfig(channels=3))
    with torch.device("meta"):
        form: MethodCard | Any = made["demo"].generator
        network = UNetGenerator(form) if method == "pix2pix" else ResnetGenerator(form)
    assert 2 * sum(p.numel() for p in network.parameters()) < 12e6
