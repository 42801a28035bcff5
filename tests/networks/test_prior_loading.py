"""From files to priors, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mrbench_methods.networks import prior_loading
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.prior import Prior
from mrbench_methods.networks.prior_loading import PUBLISHED, load_prior
from safetensors.torch import save_file
from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint, notes_beside, record_from_files

TINY: dict[str, Any] = {
    "in_channels": 3, "out_channels": 6, "model_channels": 8, "channel_mult": [1, 2], "num_res_blocks": 1, "groups": 4,
    "num_head_channels": 8,
}  # fmt: skip
DIFFUSION = {"steps": 100, "schedule": "cosine", "prediction": "v", "learn_sigma": True}


def network(**changes: Any) -> ADMUNet:
    torch.manual_seed(0)
    found = ADMUNet(ADMConfig(**{**TINY, **changes})).eval()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return found


def stored(file: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> LocalCheckpoint:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".pt":
        torch.save(dict(tensors), file)
    else:
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)
    if config is not None:
        (file.parent / "config.json").write_text(json.dumps(config))
    found, _ = notes_beside(file)
    record, _ = record_from_files(file, found, None)
    return LocalCheckpoint(record, file, found)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1, "method": "dps", "name": "small", "tier": "demo", "kind": "prior", "scale": None, "degradation": "", "channels": 3,
        "architecture": {"family": "adm", "network": TINY, "diffusion": DIFFUSION}, **changes,
    }  # fmt: skip


def test_what_was_trained_comes_back(tmp_path: Path) -> None:
    own = network()
    halves = {k: v.half() for k, v in own.state_dict().items()}
    prior = load_prior(stored(tmp_path / "model.safetensors", halves, document()), "cpu")
    assert (prior.channels, prior.condition_channels, prior.multiple) == (3, 0, 2)
    assert prior.alphas_cumprod is not None
    assert len(prior.alphas_cumprod) == 100
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 77])
    own.load_state_dict(halves)
    said = prior.predict(x, t)
    assert torch.allclose(said.log_variance, own(x, t)[:, 3:], atol=1e-5)
    assert not said.x0.requires_grad


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (document(kind="network"), "not a diffusion prior .* --method dps@"),
        (document(architecture={"unet": {}}), "not a diffusion prior"),
        (document(architecture={"family": "dit", "network": {}}), "family 'dit' .* none of adm, edm2"),
        (document(architecture={"family": "adm"}), "no part 'network'"),
        (document(architecture={"family": "adm", "network": TINY, "autoencoder": {}}), "unknown parts autoencoder"),
        (document(architecture={"family": "adm", "network": {**TINY, "width": 3}}), "no option 'width'"),
        (document(architecture={"family": "adm", "network": TINY}), "6 output channels"),
        (
            document(architecture={"family": "adm", "network": {**TINY, "num_res_blocks": 2}, "diffusion": DIFFUSION}),
            "small do not fit the network ADMUNet: .* missing",
        ),
    ],
)
def test_what_is_no_such_prior_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    checkpoint = stored(tmp_path / "model.safetensors", network().state_dict(), config)
    with pytest.raises(UserError, match=message):
        load_prior(checkpoint, "cpu")


def test_labels(tmp_path: Path) -> None:
    config = document(architecture={"family": "adm", "network": {**TINY, "num_classes": 3}, "diffusion": DIFFUSION})
    checkpoint = stored(tmp_path / "a" / "model.safetensors", network(num_classes=3).state_dict(), config)
    with pytest.raises(UserError, match="the prior of dogs is a class-conditional prior: it needs a label from 0 to 2"):
        load_prior(checkpoint, "cpu", "the prior of dogs")
    x, sigma = torch.randn(1, 3, 8, 8), torch.tensor([0.5])
    first, second = (load_prior(checkpoint, "cpu", label=k).denoise(x, sigma) for k in (0, 1))
    assert not torch.allclose(first, second)
    with pytest.raises(UserError, match="takes no label"):
        load_prior(stored(tmp_path / "b" / "model.safetensors", network().state_dict(), document()), "cpu", label=1)


def test_priors_of_the_other_family_are_built_by_their_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, list[str], str]] = []

    class Continuous(Prior):
        channels, sigma_range = 1, (0.002, 80.0)

        def __init__(self) -> None:
            self.network = nn.Dropout(0.5)

        def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
            found: Tensor = self.network(x)
            return found

    def edm2_prior(config: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str) -> Prior:
        asked.append((config, list(tensors), what))
        return Continuous()

    module = ModuleType("prior_edm2")
    module.edm2_prior = edm2_prior  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mrbench_methods.networks.prior_edm2", module)
    architecture = {"family": "edm2", "network": {"width": 4}}
    checkpoint = stored(tmp_path / "model.safetensors", {"w": torch.zeros(2)}, document(architecture=architecture))
    prior = load_prior(checkpoint, "cpu")
    assert asked == [(architecture, ["w"], "the prior small")]
    x = torch.randn(1, 1, 4, 4)
    assert torch.equal(prior.denoise(x, torch.ones(1)), x)  # in eval mode
    with pytest.raises(TypeError, match="no steps"):
        prior.predict(x, torch.tensor([3]))
    with pytest.raises(UserError, match="takes no label"):
        load_prior(checkpoint, "cpu", label=1)


@pytest.mark.parametrize("classes", [None, 4])
def test_published_files_are_recognised(tmp_path: Path, classes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"plain": ADMConfig(**TINY), "with classes": ADMConfig(**TINY, num_classes=4)}
    monkeypatch.setattr(prior_loading, "PUBLISHED", small)
    own = network(num_classes=classes)
    label = None if classes is None else 2
    prior = load_prior(stored(tmp_path / "official.pt", own.state_dict()), "cpu", label=label)
    assert prior.sigma_range == pytest.approx((0.01, 157.4), rel=1e-3)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([500])
    output = own(x, t, None if label is None else torch.tensor([label]))
    assert torch.allclose(prior.predict(x, t).eps, output[:, :3], atol=1e-5)


def test_other_files_without_a_configuration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prior official .* holds an ADM network of width 8, without classes"):
        load_prior(stored(tmp_path / "official.pt", network().state_dict()), "cpu")
    with pytest.raises(UserError, match=r"holds no ADM network .* begin with 'conv.weight'"):
        load_prior(stored(tmp_path / "other.pt", {"conv.weight": torch.zeros(1)}), "cpu")


class Expanded(LocalCheckpoint):
    """A network's shapes without its memory."""

    def tensors(self, device: Any = "cpu", unwrap: Any = ()) -> dict[str, Tensor]:
        with torch.device("meta"):
            shapes = ADMUNet(PUBLISHED["FFHQ 256x256 of DPS (ffhq_10m)"]).state_dict()
        return {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}


@pytest.mark.slow
def test_the_published_prior_of_dps(tmp_path: Path) -> None:
    found = stored(tmp_path / "ffhq_10m.pt", {"a": torch.zeros(1)})
    prior = load_prior(Expanded(found.record, found.file, found.config), "cpu")
    assert (prior.channels, prior.multiple) == (3, 32)


# -- diffusers -----------------------------------------------------------------------------------------------------
class UNet2DModel(nn.Module):
    """What the adapter uses of the library's class."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, outputs, 1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> UNet2DModel:
        return cls(config["in_channels"], config["out_channels"])

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = True) -> Any:
        assert not return_dict
        return (self.conv_in(sample) * (1 + timestep[:, None, None, None]),)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("diffusers")
    module.UNet2DModel = UNet2DModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffusers", module)


def pipeline(folder: Path, scheduler: Mapping[str, Any] | None, outputs: int = 1) -> LocalCheckpoint:
    torch.manual_seed(0)
    config = {"_class_name": "UNet2DModel", "in_channels": 1, "out_channels": outputs, "block_out_channels": [32, 64, 64]}
    weights = UNet2DModel(1, outputs).state_dict()
    found = stored(folder / "unet" / "diffusion_pytorch_model.safetensors", weights, config)
    if scheduler is not None:
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return found


@pytest.mark.usefixtures("library")
def test_a_diffusers_pipeline_is_a_prior(tmp_path: Path) -> None:
    scheduler = {"num_train_timesteps": 50, "beta_schedule": "scaled_linear", "beta_start": 0.01, "beta_end": 0.09}
    checkpoint = pipeline(tmp_path, scheduler)
    prior = load_prior(checkpoint, "cpu")
    assert (prior.channels, prior.multiple) == (1, 4)
    assert prior.alphas_cumprod is not None
    first, last = prior.alphas_cumprod[0], prior.alphas_cumprod[-1] / prior.alphas_cumprod[-2]
    assert (1 - first, 1 - last) == pytest.approx((0.01, 0.09))
    x, t = torch.randn(2, 1, 4, 4), torch.tensor([0, 49])
    assert torch.allclose(prior.predict(x, t).eps, UNet2DModel.forward(prior.network, x, t, return_dict=False)[0])  # type: ignore[attr-defined]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("scheduler", "outputs", "message"),
    [
        (None, 1, "noise schedule is missing"),
        ({"beta_schedule": "sigmoid"}, 1, "beta_schedule 'sigmoid' is none of"),
        ({"prediction_type": "flow"}, 1, "prediction_type 'flow' is none of"),
        ({}, 4, "1 channels in and 4 out"),
    ],
)
def test_diffusers_pipelines_that_are_no_priors(tmp_path: Path, scheduler: Any, outputs: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_prior(pipeline(tmp_path, scheduler, outputs), "cpu")


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'mrbench\[diffusers\]'"):
        load_prior(pipeline(tmp_path, {}), "cpu")
