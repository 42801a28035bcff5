"""The adapter to spandrel: against a stand-in with its interface, and against the library itself where it is installed."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mrbench_methods.spandrel
import pytest
import torch
import torch.nn.functional as F
from mrbench_methods.networks.spsr import SPSR, act, init_small
from mrbench_methods.networks.spsr_options import SPSRConfig
from network_support import conformance, loaded, measured, restored
from safetensors.torch import save_file
from torch import Tensor

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint
from mrbench.plugins import Registry

INSTALLED = importlib.util.find_spec("spandrel") is not None
(CARD,) = mrbench_methods.spandrel.mrbench_methods()


class Descriptor:
    """What spandrel returns: nearest neighbours, tinted as the weights say."""

    def __init__(self, gains: Tensor, scale: int, purpose: str) -> None:
        self.gains, self.scale, self.purpose = gains, scale, purpose
        self.input_channels = self.output_channels = len(gains)
        self.architecture = SimpleNamespace(id="Fake", name="Fake")

    def eval(self) -> Descriptor:
        return self

    def __call__(self, image: Tensor) -> Tensor:
        assert image.shape[:2] == (1, self.input_channels)
        assert float(image.min()) >= 0
        enlarged = F.interpolate(image, scale_factor=self.scale, mode="nearest")
        return (self.gains[:, None, None] * enlarged).clamp(0, 1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module named spandrel that knows files with a tensor ``gains`` and one entry ``scale``."""
    module: Any = ModuleType("spandrel")
    module.ImageModelDescriptor = Descriptor
    module.UnsupportedModelError = type("UnsupportedModelError", (Exception,), {})

    class ModelLoader:
        def __init__(self, device: torch.device) -> None:
            assert isinstance(device, torch.device)

        def load_from_state_dict(self, tensors: dict[str, Tensor]) -> Descriptor:
            if "gains" not in tensors:
                raise module.UnsupportedModelError
            return Descriptor(tensors["gains"], int(tensors["scale"]), "SR" if "clean" not in tensors else "Restoration")

    module.ModelLoader = ModelLoader
    monkeypatch.setitem(sys.modules, "spandrel", module)


def weights(file: Path, gains: list[float], scale: int = 4, **more: Tensor) -> LocalCheckpoint:
    tensors = {"gains": torch.tensor(gains), "scale": torch.tensor(scale), **more}
    if file.suffix == ".pth":
        torch.save({"params_ema": {f"module.{k}": v for k, v in tensors.items()}, "iter": 3}, file)
    else:
        save_file(tensors, file)
    return LocalCheckpoint(Checkpoint("own", file.name, "0" * 64, "author", scale=scale), file)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError, match=r"pip install 'mrbench\[spandrel\]'"):
        loaded(CARD, weights(tmp_path / "a.safetensors", [1.0]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (absent,) = mrbench_methods.spandrel.mrbench_methods()
    assert absent.summary.endswith("(not usable: pip install 'mrbench[spandrel]')")
    assert len(absent.summary) <= 120
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    (present,) = mrbench_methods.spandrel.mrbench_methods()
    assert "not usable" not in present.summary


@pytest.mark.usefixtures("fake")
class TestAdapter:
    """With the stand-in."""

    @pytest.mark.parametrize("gains", [[1.0], [1.0, 0.9, 0.8]])
    def test_conformance(self, gains: list[float], tmp_path: Path) -> None:
        assert not conformance(CARD, weights(tmp_path / "a.safetensors", gains), (4,))

    def test_grey_images_are_averaged_and_their_spread_is_told(
        self, tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
    ) -> None:
        m = measured(registry, (32, 48))
        method = loaded(CARD, weights(tmp_path / "a.pth", [1.0, 0.9, 0.8]))  # wrapped, with prefixes
        with caplog.at_level(logging.WARNING):
            found = restored(method, m, 2)
        plain = F.interpolate(m.y.clamp(0, 1), scale_factor=4, mode="nearest")
        torch.testing.assert_close(found[:, 0], 0.9 * plain)
        assert torch.equal(found[:, 0], found[:, 1])
        assert list(method.channel_spread) == list(m.ids)
        for item, image in zip(m.ids, plain, strict=True):
            assert method.channel_spread[item] == pytest.approx(0.2 * float(image.max()), rel=1e-5)
        assert caplog.text.count("channels of a grey image differ") == 2
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            grey = loaded(CARD, weights(tmp_path / "b.safetensors", [1.0]))
            restored(grey, m)
            restored(grey, measured(registry, (32, 48), channels=3))
        assert grey.channel_spread == {}
        assert not caplog.text

    def test_any_size_but_one_scale(self, tmp_path: Path, registry: Registry) -> None:
        method = loaded(CARD, weights(tmp_path / "a.safetensors", [1.0, 1.0, 1.0]))
        restored(method, measured(registry, (45, 61)))
        with pytest.raises(UserError, match="enlarges images 4 times, these need 2 x 2"):
            method.restore(measured(registry, (32, 32), 2), 1)

    @pytest.mark.parametrize(
        ("gains", "more", "message"),
        [
            ([1.0, 1.0], {}, r"takes images of 2 and returns 2"),
            ([1.0], {"clean": torch.zeros(1)}, r"architecture Fake, which does not enlarge.*SwinIR"),
        ],
    )
    def test_networks_of_another_kind(self, gains: list[float], more: dict[str, Tensor], message: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=message):
            loaded(CARD, weights(tmp_path / "a.safetensors", gains, **more))

    def test_an_unknown_architecture_lists_what_is_supported(self, tmp_path: Path) -> None:
        save_file({"layer": torch.zeros(2)}, tmp_path / "a.safetensors")
        unknown = LocalCheckpoint(Checkpoint("own", "a", "0" * 64, "author"), tmp_path / "a.safetensors")
        with pytest.raises(UserError, match=r"no network that spandrel recognises. Supported: ATD, .*ESRGAN.*SwinIR"):
            loaded(CARD, unknown)
        with pytest.raises(UserError, match="spandrel needs weights"):
            loaded(CARD, None)


@pytest.mark.skipif(not INSTALLED, reason="spandrel is not installed (pip install 'mrbench[spandrel]')")
def test_the_library_itself_runs_an_esrgan_file(tmp_path: Path, registry: Registry) -> None:
    """The trunk of SPSR has the keys of ESRGAN's old files, but for the last convolution."""
    torch.manual_seed(0)
    trunk: Any = init_small(SPSR(SPSRConfig(width=16, blocks=20, growth=32, channels=3, scale=4)), 0.5)  # 32: fixed there
    last = torch.nn.Conv2d(16, 3, 3, padding=1)
    tensors = {k: v.clone() for k, v in trunk.state_dict().items() if k.startswith("model.")}
    tensors |= {"model.10.weight": last.weight.detach(), "model.10.bias": last.bias.detach()}
    save_file(tensors, tmp_path / "esrgan.safetensors")
    local = LocalCheckpoint(Checkpoint("own", "esrgan", "0" * 64, "author", scale=4), tmp_path / "esrgan.safetensors")
    m = measured(registry, (32, 48))
    with torch.no_grad():
        h, _ = trunk.model[1](trunk.model[0](m.y.clamp(0, 1).expand(-1, 3, -1, -1)))
        for layer in trunk.model[2:]:
            h = layer(h)
        expected = last(act(h)).clamp(0, 1).mean(1, keepdim=True)
    torch.testing.assert_close(restored(loaded(CARD, local), m)[:, 0], expected, atol=1e-4, rtol=0)
