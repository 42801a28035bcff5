"""Multi-Grid PnP: transfers, steps, corrections, and the method with a tiny prior."""

from __future__ import annotations

import json
from typing import Any

import mrbench_methods.multigrid_pnp
import numpy as np
import pytest
import torch
from mrbench_methods.networks.edm2 import EDM2Precond
from mrbench_methods.networks.edm2_options import EDM2Config
from mrbench_methods.networks.multigrid import (
    MultiGrid,
    MultiGridSettings,
    adjoint,
    forward,
    grids,
    sinc_transfer,
    squared_norm,
    windowed_sinc,
)
from safetensors.torch import save_file

from mrbench.degradation.measurement import Measurement, degrade
from mrbench.degradation.operators import Operator
from mrbench.engine.conformance import check_method, conforms
from mrbench.engine.probe import phantom
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry

(CARD,) = mrbench_methods.multigrid_pnp.mrbench_methods()
NETWORK: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [],
    "middle_attention": False, "logvar_channels": 8,
}  # fmt: skip
SIZE = (48, 40)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LocalCheckpoint:
    """A prior that returns nearly what the preconditioning makes of its input."""
    folder = tmp_path_factory.mktemp("priors") / "edm2"
    folder.mkdir()
    torch.manual_seed(0)
    save_file(EDM2Precond(EDM2Config(**NETWORK)).state_dict(), folder / "model.safetensors")
    document = {
        "format": 1, "method": "diffpir", "name": "edm2", "tier": "demo", "kind": "prior", "scale": None, "degradation": "",
        "channels": 1, "architecture": {"family": "edm2", "network": NETWORK}, "method_options": {},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


def operator(registry: Registry, name: str = "bicubic_aa", scale: int = 2, size: tuple[int, int] = SIZE) -> Operator:
    card = registry.degradations.get(name)
    bound: Operator = card.load()(card.parse({})).bind(size, (scale, scale))
    return bound


def measure(registry: Registry, scale: int = 2) -> tuple[torch.Tensor, Measurement]:
    card = registry.degradations.get("bicubic_aa")
    hr = torch.stack([phantom(s, 0, SIZE, 1) for s in "ab"])
    return hr, degrade(hr, ["a", "b"], card.load()(card.parse({})), (scale, scale), seed_key="k")


def load(checkpoint: LocalCheckpoint | None, **options: Any) -> Any:
    method = CARD.load()(CARD.parse(options))
    method.load(checkpoint, "cpu")
    return method


def test_transfers_keep_constants_and_halve_the_band() -> None:
    weights = windowed_sinc()
    assert len(weights) == 11
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(weights, weights[::-1])
    response = np.abs(np.fft.rfft(weights, 256))
    assert response[64] == pytest.approx(0.5, abs=0.02)  # at half of the band
    assert response[:32].min() > 0.95
    assert response[100:].max() < 0.05
    transfer = sinc_transfer((16, 12))
    ones = torch.ones(1, 1, 16, 12, dtype=torch.float64)
    assert torch.allclose(transfer.down(ones), torch.ones((), dtype=torch.float64))
    x, y = torch.randn(1, 1, 16, 12, dtype=torch.float64), torch.randn(1, 1, 8, 6, dtype=torch.float64)
    assert float((transfer.up(y) * x).sum()) == pytest.approx(4 * float((y * transfer.down(x)).sum()))  # P = 4 R^T
    with pytest.raises(ValueError, match="cannot be halved"):
        sinc_transfer((15, 12))


@pytest.mark.parametrize("name", ["bicubic_aa", "area", "kspace_crop"])
def test_steps_come_from_the_norm_of_the_coarse_operators(registry: Registry, name: str) -> None:
    h = operator(registry, name, 4)
    transfers = [sinc_transfer(SIZE), sinc_transfer((24, 20))]
    for level in range(3):
        size = (SIZE[0] >> level, SIZE[1] >> level)
        basis = torch.eye(size[0] * size[1], dtype=torch.float64).reshape(-1, 1, *size)
        matrix = forward(h, transfers[:level], basis).flatten(1).T
        exact = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
        assert squared_norm(h, transfers[:level], 1) == pytest.approx(exact, rel=0.02)
        transposed = adjoint(h, transfers[:level], torch.eye(matrix.shape[0], dtype=torch.float64).reshape(-1, 1, *h.lr_size))
        assert torch.allclose(transposed.flatten(1), matrix, atol=1e-12)
    steps = [grid.step for grid in grids(h, 3, 0.9, 1)]
    assert steps[0] == pytest.approx(0.9 / squared_norm(h, [], 1))


def settings(**changes: int) -> MultiGridSettings:
    return MultiGridSettings(**{"levels": 3, "iterations": 3, "cycles": 2, "coarse_steps": 3, "start_steps": 0, **changes})


def test_a_solution_stays_where_it_is(registry: Registry) -> None:
    """Without a prior (D = 1), gradients vanish at x: tilts and corrections do so too, on every level."""
    h = operator(registry)
    hr = phantom("a", 0, SIZE, 1)[None].double()
    y = h.forward(hr)
    solver = MultiGrid(grids(h, 3, 0.9, 1), lambda x: x, settings())
    assert torch.allclose(solver.solve(hr, y), hr, atol=1e-12)


def test_coarse_corrections_descend_faster(registry: Registry) -> None:
    """Least squares from zero: with the same fine steps, two cycles come nearer to the data than none."""
    h = operator(registry, scale=4)
    hr = phantom("a", 0, SIZE, 1)[None].double()
    y, start = h.forward(hr), torch.zeros_like(hr)

    def misfit(cycles: int, start_steps: int = 0) -> float:
        solver = MultiGrid(grids(h, 3, 0.9, 1), lambda x: x, settings(iterations=2, cycles=cycles, start_steps=start_steps))
        return float((h.forward(solver.solve(start, y)) - y).norm())

    plain = misfit(0)
    assert misfit(2) < 0.9 * plain
    assert misfit(0, start_steps=5) < 0.9 * plain


def test_calls_are_counted(registry: Registry) -> None:
    h, calls = operator(registry), []
    for changes in ({}, {"levels": 1}, {"cycles": 9}, {"start_steps": 5, "coarse_steps": 1}):
        s = settings(**changes)
        calls.clear()

        def denoise(x: torch.Tensor) -> torch.Tensor:
            calls.append(x.shape)
            return x

        MultiGrid(grids(h, s.levels, 0.9, 1), denoise, s).solve(torch.zeros(1, 1, *SIZE), torch.zeros(1, 1, *h.lr_size))
        assert len(calls) == s.calls


def test_it_keeps_the_contract_of_methods(registry: Registry, checkpoint: LocalCheckpoint) -> None:
    options = CARD.parse({"iterations": 3, "start_steps": 1, "coarse_steps": 1, "cycles": 1})
    results = check_method(CARD, registry, options, checkpoint.record)
    assert conforms(results), [r for r in results if r.status not in ("pass", "skip")]
    assert {r.name: r.status for r in results}["other_seed"] == "pass"


def test_the_denoiser_works_in_the_units_of_the_prior(registry: Registry, checkpoint: LocalCheckpoint) -> None:
    method = load(checkpoint, denoise=0.1, iterations=2)
    assert method.nfe == 2 + 2 * (5 + 2 * 5)
    x = torch.rand(1, 1, 8, 8)
    denoised = method._denoiser(method._prior)(x)
    shrunk = (0.25 / (0.25 + 0.2**2) * (2 * x - 1) + 1) / 2  # the network's gain is 0: c_skip alone
    assert torch.allclose(denoised, shrunk, atol=1e-6)
    _, m = measure(registry)
    out = method.restore(m, 2)
    assert torch.equal(out[:, 0], out[:, 1])


def test_mistakes(registry: Registry, checkpoint: LocalCheckpoint) -> None:
    with pytest.raises(UserError, match="needs weights"):
        load(None)
    with pytest.raises(UserError, match=r"denoise 60: this prior knows noise between 0.001 and 40"):
        load(checkpoint, denoise=60.0)
    _, m = measure(registry)
    volume = Measurement(m.y, m.size, m.scale, None, m.grid, 0.0, m.ids, "k")
    with pytest.raises(UserError, match="needs the degradation's 2-D operator"):
        load(checkpoint).restore(volume, 1)
