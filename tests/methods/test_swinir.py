"""SwinIR: the network against another implementation, the method, and its recipe. What it shares with EDSR is tested there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrbench_methods.swinir
import pytest
import torch
from mrbench_methods.networks.swinir import SwinIR, extended
from mrbench_methods.networks.swinir_options import SwinIRConfig
from mrbench_methods.swinir.recipe import SwinIRRecipe
from network_support import conformance, loaded, measured, restored, train_tiny, write_checkpoint, write_images
from pydantic import ValidationError
from tests_support import Done

from mrbench.degradation.measurement import upsample
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry
from mrbench.train.presets import read_options

(CARD,) = mrbench_methods.swinir.mrbench_methods()
TINY: dict[str, Any] = {"embed_dim": 8, "depths": (2, 2), "num_heads": 2, "window_size": 4}


def network(scale: int, **changes: Any) -> SwinIR:
    """Random weights, also in the last layer and the tables."""
    torch.manual_seed(0)
    made = SwinIR(SwinIRConfig(**{**TINY, **changes, "scale": scale}))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    staged = made.config.upsampler == "staged"
    last = made.conv_last if staged else made.upsample[0]
    torch.nn.init.normal_(last.weight, std=1e-4 if staged else 5e-3)  # so that images keep to [0, 1], about
    return made.eval()


def checkpoint(folder: Path, scale: int, **changes: Any) -> LocalCheckpoint:
    made = network(scale, **changes)
    form = made.config.model_dump(mode="json")
    return write_checkpoint(folder, "swinir", made.state_dict(), {"network": form}, {}, scale=scale)


# -- the network ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(16, 16), (21, 13), (4, 9)])
@pytest.mark.parametrize(("upsampler", "published"), [("direct", "pixelshuffledirect"), ("staged", "pixelshuffle")])
def test_it_is_the_published_network(upsampler: str, published: str, size: tuple[int, int]) -> None:
    """With the same weights, spandrel's implementation gives the same image."""
    pytest.importorskip("spandrel", reason="spandrel is not installed: pip install 'mrbench[spandrel]'")
    from spandrel.architectures.SwinIR import SwinIR as Described

    ours = network(4, upsampler=upsampler, depths=(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.meshgrid without indexing
        theirs = Described(
            img_size=32, in_chans=1, embed_dim=8, depths=[2, 3], num_heads=[2, 2], window_size=4, mlp_ratio=2, upscale=4,
            upsampler=published, resi_connection="1conv",
        ).eval()  # fmt: skip
        missing, left = theirs.load_state_dict(ours.state_dict(), strict=False)
        assert not left
        assert all(key.endswith("attn_mask") for key in missing)
        y = torch.rand(2, 1, *size)
        with torch.no_grad():
            expected = theirs(y)
            torch.testing.assert_close(ours(y), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_it_begins_at_zero_and_has_the_published_form() -> None:
    made = SwinIR(SwinIRConfig(channels=3, scale=4))
    assert not bool(made(torch.rand(1, 3, 8, 8)).any())
    assert sum(p.numel() for p in made.parameters()) == 929_628
    with pytest.raises(UserError, match="upsampler: direct"):
        SwinIR(SwinIRConfig(scale=5, upsampler="staged"))
    with pytest.raises(ValidationError, match="no multiple of num_heads"):
        SwinIRConfig(scale=4, embed_dim=60, num_heads=7)


def test_images_are_mirrored_to_whole_windows() -> None:
    y = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert extended(y, 8)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert extended(y, 8).shape == (1, 1, 8, 8)
    assert torch.equal(extended(y, 8)[0, 0], extended(y, 8)[0, 0, :1].expand(8, 8))
    assert extended(torch.rand(1, 1, 8, 16), 8).shape == (1, 1, 8, 16)


def test_shifted_windows_join_neighbours() -> None:
    """One block sees its own window; with a second, shifted one, neighbouring windows too, and no more."""
    y = torch.rand(1, 1, 16, 16)
    other = y.clone()
    other[..., 15, 15] += 1
    for depths, reach in (((1,), 4), ((2,), 6)):
        made = network(2, depths=depths, mlp_ratio=1)
        with torch.no_grad():
            moved = (made(y) - made(other)).abs().amax(dim=(0, 1)) > 1e-6
        rows = moved.any(dim=1).nonzero().min()
        # three convolutions around the attention reach three pixels further, the first of them before it
        assert 32 - 2 * (reach + 4 + 3) <= int(rows) < 32 - 2 * reach


# -- the method ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{}, {"channels": 3, "upsampler": "staged"}])
def test_conformance(changes: dict[str, Any], tmp_path: Path) -> None:
    assert not conformance(CARD, checkpoint(tmp_path / "c", 4, **changes), (4,))


def test_the_method_is_its_equation(tmp_path: Path, registry: Registry) -> None:
    method = loaded(CARD, checkpoint(tmp_path / "c", 4))
    m = measured(registry, (48, 64))
    with torch.no_grad():
        expected = upsample(m) + network(4)(m.y)
    images = restored(method, m, 3)
    torch.testing.assert_close(images[:, 0], expected)
    assert torch.equal(images[:, 0], images[:, 2])


def test_what_does_not_fit(tmp_path: Path, registry: Registry) -> None:
    method = loaded(CARD, checkpoint(tmp_path / "c", 4))
    with pytest.raises(UserError, match=r"enlarges images 4 times, these need 2 x 2.*--scale 4"):
        method.restore(measured(registry, (32, 32), 2), 1)
    with pytest.raises(UserError, match="swinir needs weights"):
        loaded(CARD, None)
    bare = write_checkpoint(tmp_path / "bare", "swinir", network(4).state_dict(), {}, {})
    with pytest.raises(UserError, match=r"(?s)without a config.json.*spandrel@FILE"):
        loaded(CARD, bare)


# -- the recipe ----------------------------------------------------------------------------------------------------
def test_the_recipe_makes_weights_that_the_method_takes(mrbench: Callable[..., Done], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    changes = {
        "network.embed_dim": 8, "network.depths": [2], "network.num_heads": 2, "network.window_size": 4,
        "stages.main.optimisers.main.schedule.warmup": 0,
    }  # fmt: skip
    done = train_tiny(mrbench, "swinir", images, tmp_path / "out", changes, steps=12)
    assert done.code == 0, done.err
    found = read_folder(tmp_path / "out", "swinir")
    assert found.config["architecture"]["network"] == {
        "embed_dim": 8, "depths": [2], "num_heads": 2, "window_size": 4, "mlp_ratio": 2.0, "upsampler": "direct", "channels": 1, "scale": 2,
    }  # fmt: skip
    assert bool(found.tensors()["upsample.0.weight"].any())  # it moved


def test_presets() -> None:
    counts = {}
    for preset in ("demo", "small", "matched"):
        options = read_options(SwinIRRecipe, "swinir", preset, {})
        with torch.device("meta"):
            made = SwinIR(SwinIRConfig(**options.network.model_dump(), scale=4))
        counts[preset] = sum(p.numel() for p in made.parameters())
    assert counts["demo"] == counts["small"] == 329_056
