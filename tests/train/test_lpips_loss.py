"""LPIPS as a loss: the metric's numbers, gradients, and what happens without its weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mrbench.errors import UserError
from mrbench.metrics.lpips_network import BACKBONES, LpipsNetwork, blank_layers
from mrbench.train.losses import LpipsLoss, lpips_loss

WEIGHTS = Path(
    os.environ.get("MRBENCH_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
) / "weights"  # fmt: skip


@pytest.fixture(scope="module")
def network() -> LpipsNetwork:
    """The squeeze network with random weights."""
    rng = np.random.default_rng(0)
    shapes = {k: v.shape for k, v in blank_layers("squeeze").state_dict().items()}
    layers = {k: rng.normal(0, (2 / max(1, np.prod(s[1:]))) ** 0.5, s) for k, s in shapes.items()}
    return LpipsNetwork.from_arrays("squeeze", layers, [rng.uniform(0, 1, n) for n in BACKBONES["squeeze"].channels])


def images(channels: int = 1, size: int = 48, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = torch.rand(2, 3, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return a, b


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_metric(network: LpipsNetwork, channels: int) -> None:
    a, b = images(channels)
    assert LpipsLoss(network)(a, b).item() == pytest.approx(network(a, b).mean().item(), rel=1e-5)
    assert LpipsLoss(network)(a, a).item() == 0


def test_complex_images_count_by_their_magnitude(network: LpipsNetwork) -> None:
    a, b = images(2)
    loss = LpipsLoss(network)
    assert torch.allclose(loss(a, b), loss(a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)))


def test_its_gradient_is_the_numerical_one(network: LpipsNetwork) -> None:
    a, b = images(size=32)
    a.requires_grad_()
    loss = LpipsLoss(network)
    loss(a, b).backward()
    assert a.grad is not None
    assert all(p.grad is None for p in network.parameters())
    direction = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    double = LpipsNetwork(network.net, network.layers, network.heads).double()
    with torch.no_grad():
        up, down = (double((a + sign * 1e-5 * direction).double(), b.double()).mean() for sign in (1, -1))
    network.float()
    assert (a.grad * direction).sum().item() == pytest.approx(((up - down) / 2e-5).item(), rel=0.02)


def test_equal_images_have_a_finite_gradient(network: LpipsNetwork) -> None:
    a = torch.zeros(1, 1, 48, 48, requires_grad=True)
    LpipsLoss(network)(a, torch.zeros(1, 1, 48, 48)).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_it_runs_in_float32_under_autocast(network: LpipsNetwork) -> None:
    a, b = images()
    with torch.autocast("cpu", torch.bfloat16):
        inside = LpipsLoss(network)(a, b)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, LpipsLoss(network)(a, b))


def test_small_patches_are_refused(network: LpipsNetwork) -> None:
    a, b = images(size=16)
    with pytest.raises(UserError, match=r"at least 24 pixels, got \[16, 16\]"):
        LpipsLoss(network)(a, b)


def test_without_its_weights_it_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MRBENCH_LPIPS_SQUEEZE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"needs LPIPS \(squeeze\).*not cached.*--set toy\.lpips=off"):
        lpips_loss("squeeze", torch.device("cpu"), "toy.lpips")
    assert lpips_loss("off", torch.device("cpu"), "toy.lpips") is None


@pytest.mark.shared
def test_training_with_it_lowers_it_and_marks_the_score(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(WEIGHTS.glob("*squeeze*.npz"))
    if not files:
        pytest.skip(f"no LPIPS weights in {WEIGHTS}")
    monkeypatch.setenv("MRBENCH_LPIPS_SQUEEZE", str(files[0]))
    done = train("--out", tmp_path / "out", "--steps", 30, "--set", "toy.lpips=squeeze",
                 "--set", "toy.stages.main.validation.metrics=[lpips_squeeze]")  # fmt: skip
    assert done.code == 0, done.err
    from mrbench.hub.checkpoint import read_folder

    training = read_folder(tmp_path / "out", "toy").training
    assert training is not None
    assert training["optimised_for"] == ["psnr", "lpips_squeeze"]
    selection = training["selection"]
    assert selection["scores"]["lpips_squeeze"] < selection["reference"]["bicubic"]["lpips_squeeze"]
    assert "| LPIPS (squeeze) (trained for it) |" in (tmp_path / "out" / "README.md").read_text()
