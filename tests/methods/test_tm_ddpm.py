"""TM-DDPM: the U-Net with Swin blocks, the method with random weights, and its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrbench_methods.tm_ddpm
import pytest
import torch
from mrbench_methods.networks.gaussian_diffusion import GaussianDiffusion
from mrbench_methods.networks.gaussian_diffusion_options import GaussianConfig
from mrbench_methods.networks.swin_ddpm import SwinBlock, SwinDDPM, shift_mask
from mrbench_methods.networks.swin_ddpm_options import SwinDDPMConfig
from mrbench_methods.networks.swin_ddpm_sampling import published_config, sample, times_of
from mrbench_methods.tm_ddpm.recipe import TMDDPMRecipe
from network_support import conformance, loaded, measured, restored, train_tiny, write_checkpoint, write_images
from pydantic import ValidationError
from tests_support import Done
from torch import Tensor

from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry, discover
from mrbench.train.presets import read_options

(CARD,) = mrbench_methods.tm_ddpm.mrbench_methods()
UNET: dict[str, Any] = {
    "image_size": 16, "unshuffle": 2, "model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": [1, 1],
    "attention_resolutions": [8], "num_heads": [2, 2], "window_size": [4, 4],
}  # fmt: skip
DIFFUSION = {"steps": 100, "learn_sigma": True, "prediction": "v"}


def network(**changes: Any) -> SwinDDPM:
    """Random weights; layers that begin at zero are filled a little."""
    torch.manual_seed(0)
    made = SwinDDPM(SwinDDPMConfig(**{**UNET, **changes}))
    for parameter in made.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.02)
    return made.eval()


def checkpoint(folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> LocalCheckpoint:
    made = network(**changes)
    parts = {"unet": made.config.model_dump(mode="json"), "diffusion": DIFFUSION}
    return write_checkpoint(folder, "tm_ddpm", made.state_dict(), parts, {"steps": 3} if options is None else options)


# -- the network ---------------------------------------------------------------------------------------------------
def test_size_of_the_published_networks() -> None:
    with torch.device("meta"):
        for channels, expected in ((1, 116_042_570), (2, 116_043_722)):
            made = SwinDDPM(SwinDDPMConfig(in_channels=channels))
            assert sum(p.numel() for p in made.parameters()) == expected
        tensors = made.state_dict()
    assert len(tensors) == 666
    assert published_config(tensors, "here") == SwinDDPMConfig()
    del tensors["out.2.bias"]
    with pytest.raises(UserError, match="another network than the published one"):
        published_config(tensors, "here")


def test_shifted_windows_do_not_see_across_the_border() -> None:
    """A token of the first column moves only tokens that are its neighbours in the image."""
    torch.manual_seed(0)
    block = SwinBlock(8, 2, 4, 2)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[0, 0, 0] = torch.randn(8)
    with torch.no_grad():
        moved = (block(changed) - block(x)).abs().amax(-1)[0]
    assert bool((moved[:2, :2] > 1e-6).all())
    moved[:2, :2] = 0
    assert float(moved.max()) < 1e-6
    assert shift_mask((8, 8), (4, 4), (2, 2), torch.device("cpu")).unique().tolist() == [-100.0, 0.0]
    assert not bool(shift_mask((4, 8), (4, 4), (0, 2), torch.device("cpu"))[0].any())


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (6, 10), (2, 3)])
def test_windows_that_do_not_fit(size: tuple[int, int]) -> None:
    for shift in (0, 2):
        assert SwinBlock(8, 2, 4, shift)(torch.randn(2, *size, 8)).shape == (2, *size, 8)


def test_configurations_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="one entry per level"):
        SwinDDPMConfig(**{**UNET, "num_heads": [2]})
    with pytest.raises(ValidationError, match="32 channels cannot be shared out to 3 heads"):
        SwinDDPMConfig(**{**UNET, "num_heads": [2, 3]})


# -- the method ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{}, {"in_channels": 6, "out_channels": 6, "unshuffle": 1}])
def test_conformance(changes: dict[str, Any], tmp_path: Path) -> None:
    assert not conformance(CARD, checkpoint(tmp_path / "c", {"steps": 2}, **changes))


def test_the_method_is_its_equations(tmp_path: Path, registry: Registry) -> None:
    m, unet = measured(registry, (32, 48)), network()
    config = GaussianConfig(**DIFFUSION)
    diffusion = GaussianDiffusion.of(config, 3)
    source = m.noise([1, 2])
    condition = (2 * upsample(m, "nearest") - 1).repeat_interleave(2, 0)

    def noise() -> Tensor:
        return source.normal((1, 32, 48)).flatten(0, 1)

    with torch.inference_mode():
        x = sample(diffusion, config, lambda s, t: unet(torch.cat([s, condition], 1), t), noise(), noise)
    method = loaded(CARD, checkpoint(tmp_path / "c", {"steps": 3, "preupsample": "nearest"}))
    assert method.nfe == 3
    found = restored(method, m, 2)
    torch.testing.assert_close(found, ((x.clamp(-1, 1) + 1) / 2).reshape(2, 2, 1, 32, 48), atol=2e-5, rtol=0)
    assert float((found[:, 0] - found[:, 1]).abs().max()) > 1e-3


def test_the_network_is_told_training_steps() -> None:
    diffusion = GaussianDiffusion.of(GaussianConfig(steps=500), 5)
    told = [float(times_of(diffusion, i, 1, torch.device("cpu"))) for i in range(5)]
    assert told == [2.0 * t for t in diffusion.timestep_map.tolist()]
    assert told[-1] == 998.0


def test_any_size_steps_and_tiles(tmp_path: Path, registry: Registry) -> None:
    local, m = checkpoint(tmp_path / "c"), measured(registry, (45, 61), items=1)
    heard: list[tuple[int, int]] = []
    method = loaded(CARD, local, steps=2)
    method.on_step = lambda done, total: heard.append((done, total))
    whole = restored(method, m)
    assert heard == [(1, 2), (2, 2)]
    tiled = restored(loaded(CARD, local, steps=2, tile=32, overlap=8), m)
    assert float((tiled - whole).abs().mean()) > 0
    assert not torch.equal(restored(loaded(CARD, local), m), whole)
    restored(loaded(CARD, local), replace(m, operator=None))
    with pytest.raises(UserError, match=r"steps 101: .* trained with 100 step"):
        loaded(CARD, local, steps=101)


def test_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tm_ddpm needs weights"):
        loaded(CARD, None)
    with pytest.raises(UserError, match="An unconditional network cannot be used"):
        loaded(CARD, checkpoint(tmp_path / "one", in_channels=1))


# -- the recipe ----------------------------------------------------------------------------------------------------
def test_the_demo_recipe_makes_weights_that_the_method_takes(mrbench: Callable[..., Done], tmp_path: Path) -> None:
    changes = {f"unet.{k}": v for k, v in UNET.items()}
    changes |= {"sampling_steps": 2, "stages.main.optimisers.main.schedule.warmup": 0}
    done = train_tiny(mrbench, "tm_ddpm", write_images(tmp_path / "images"), tmp_path / "out", changes)
    assert done.code == 0, done.err
    found = read_folder(tmp_path / "out", "tm_ddpm")
    assert found.config["method_options"] == {"steps": 2, "preupsample": "bicubic"}
    assert found.config["architecture"]["diffusion"]["prediction"] == "v"
    restored(loaded(CARD, found), measured(discover(), (45, 52), 2))


def test_only_the_kept_steps_are_trained_if_so_wanted() -> None:
    options = read_options(TMDDPMRecipe, "tm_ddpm", "paper", {})
    context: Any = type("C", (), {"channels": 1, "card": CARD})()
    assert TMDDPMRecipe(options, context)._diffusion.num_steps == 50
    assert TMDDPMRecipe(options.model_copy(update={"train_on_kept": False}), context)._diffusion.num_steps == 1000
    context.channels = 3
    with pytest.raises(UserError, match=r"images of 1 channel\(s\), the training images have 3"):
        TMDDPMRecipe(options, context)


def test_presets() -> None:
    made = {preset: read_options(TMDDPMRecipe, "tm_ddpm", preset, {}) for preset in ("demo", "matched", "paper")}
    with torch.device("meta"):
        demo = SwinDDPM(made["demo"].unet)
    assert 2 * sum(p.numel() for p in demo.parameters()) < 12e6
    assert made["paper"].unet == SwinDDPMConfig()
