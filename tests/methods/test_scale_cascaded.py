"""Scale-cascaded DiffPIR as a method, with tiny random networks in checkpoint folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mrbench_methods.scale_cascaded
import pytest
import torch
from mrbench_methods.networks.band_prior import BandPrior
from mrbench_methods.networks.cascade_options import CascadeConfig
from safetensors.torch import save_file

from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.conformance import check_method, conforms
from mrbench.engine.probe import phantom
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry

(CARD,) = mrbench_methods.scale_cascaded.mrbench_methods()
COARSE: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [],
    "middle_attention": False, "logvar_channels": 8,
}  # fmt: skip
FINE = {**COARSE, "cond_channels": 1, "unshuffle": 2}
CASCADE = {"pyramid": "bicubic", "level1": FINE, "level2": {**COARSE, "cond_channels": 1}, "level3": COARSE}
SINGLE = {"pyramid": "pool", "level1": COARSE}


def write(folder: Path, architecture: dict[str, Any], **config: Any) -> LocalCheckpoint:
    """A checkpoint folder of networks that do little: images stay near what they are given."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    parsed = CascadeConfig(**architecture)
    tensors = {}
    for name, level in parsed.networks.items():
        network = BandPrior(level)
        network.unit.fill_(0.1 if level.cond_channels else 0.5)
        network.cond_unit.fill_(0.5)
        for key, value in network.state_dict().items():
            filled = torch.full_like(value, 0.1) if key.endswith("gain") else value
            tensors[key if len(parsed.networks) == 1 else f"{name}.{key}"] = filled.contiguous()
    save_file(tensors, folder / "model.safetensors")
    document = {
        "format": 1, "method": "scale_cascaded", "name": folder.name, "tier": "demo", "kind": "network", "scale": 4,
        "degradation": "bicubic_aa", "channels": 1, "architecture": architecture, "method_options": {"steps": 6, "sigma_max": 10.0},
        **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LocalCheckpoint:
    return write(tmp_path_factory.mktemp("checkpoints") / "cascade", CASCADE)


def load(checkpoint: LocalCheckpoint | None, **options: Any) -> Any:
    method = CARD.load()(CARD.parse(options))
    method.load(checkpoint, "cpu")
    return method


def measure(registry: Registry, scale: int = 4, size: tuple[int, int] = (48, 40), sigma: float = 0.0) -> Measurement:
    card = registry.degradations.get("bicubic_aa")
    hr = torch.stack([phantom(s, 0, size, 1) for s in "ab"])
    kind = "gaussian" if sigma else "none"
    return degrade(hr, ["a", "b"], card.load()(card.parse({})), (scale, scale), noise_kind=kind, sigma=sigma, seed_key="k")


def test_the_card_is_light() -> None:
    code = (
        "import sys, mrbench_methods.scale_cascaded as a, mrbench_methods.multigrid_pnp as b;"
        "a.mrbench_methods(), b.mrbench_methods(); print(sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_keeps_the_contract_of_methods(registry: Registry, checkpoint: LocalCheckpoint) -> None:
    results = check_method(CARD, registry, checkpoint=checkpoint.record)
    assert conforms(results), [r for r in results if r.status not in ("pass", "skip")]
    status = {r.name: r.status for r in results}
    assert {status[n] for n in ("shapes", "odd_sizes", "channels", "degradations", "draws", "batch_size", "range")} == {"pass"}


def test_options_fill_what_the_checkpoint_leaves_open(checkpoint: LocalCheckpoint) -> None:
    own = load(checkpoint)._chain
    assert (own.steps, own.sigma_max, own.sigma_min, own.lam, own.zeta, own.levels) == (6, 10.0, 0.002, 1.0, 1.0, 3)
    asked = load(checkpoint, steps=9, lam=2.0, levels=2, target="cascade")._chain
    assert (asked.steps, asked.sigma_max, asked.lam, asked.levels, asked.target) == (9, 10.0, 2.0, 2, "cascade")


def test_calls_are_known_before_and_after_sampling(registry: Registry, checkpoint: LocalCheckpoint) -> None:
    method = load(checkpoint)
    assert method.nfe == 4  # 4x, noise-free: two of three levels, two steps each
    assert [c.calls for c in method.cost((48, 40), 4)] == [2, 2, 0]
    method.restore(measure(registry, sigma=0.05), 1)
    assert method.nfe == 6
    method.restore(measure(registry, 2), 1)
    assert method.nfe == 2


def test_noise_free_results_explain_the_measurement(registry: Registry, checkpoint: LocalCheckpoint) -> None:
    for scale in (2, 4, 8):
        m = measure(registry, scale)
        out = load(checkpoint).restore(m, 2)
        assert m.operator is not None
        for k in range(2):
            assert float((m.operator.forward(out[:, k]) - m.y).square().mean().sqrt()) < 1e-3


def test_a_single_level_is_plain_diffpir(registry: Registry, tmp_path: Path) -> None:
    method = load(write(tmp_path / "single", SINGLE))
    assert method.nfe == 6
    m = measure(registry)
    out = method.restore(m, 1)
    assert m.operator is not None
    assert float((m.operator.forward(out[:, 0]) - m.y).square().mean().sqrt()) < 1e-3


def test_unknown_noise_is_asked_for(registry: Registry, checkpoint: LocalCheckpoint) -> None:
    m = measure(registry)
    unknown = Measurement(m.y, m.size, m.scale, m.operator, m.grid, None, m.ids, m.seed_key)
    with pytest.raises(UserError, match="Set the option sigma"):
        load(checkpoint).restore(unknown, 1)
    told = load(checkpoint, sigma=0.0).restore(unknown, 1)
    assert torch.equal(told, load(checkpoint).restore(m, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 2}, "steps 2: every one of the 3 levels needs at least one step"),
        ({"sigma_min": 11.0}, "sigma_min 11 is larger than sigma_max 10"),
    ],
)
def test_options_that_cannot_be(checkpoint: LocalCheckpoint, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(checkpoint, **options)


def test_weights_that_do_not_fit(checkpoint: LocalCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs weights, and none were found"):
        load(None)
    with pytest.raises(UserError, match=r"levels 2: .* has 1 level\(s\)"):
        load(write(tmp_path / "single", SINGLE), levels=2)
    folder = tmp_path / "other"
    write(folder, CASCADE)

    def changed(**config: Any) -> LocalCheckpoint:
        return LocalCheckpoint(checkpoint.record, folder / "model.safetensors", {**checkpoint.config, **config})

    with pytest.raises(UserError, match="holds weights of diffpir"):
        load(changed(method="diffpir"))
    with pytest.raises(UserError, match=r'needs a config\.json with an "architecture"'):
        load(changed(architecture={}))
    with pytest.raises(UserError, match=r"level1.* do not fit"):
        load(changed(architecture={**CASCADE, "level1": {**FINE, "model_channels": 16}}))
    with pytest.raises(UserError, match="belong to no level"):
        load(changed(architecture={"pyramid": "pool", "level1": FINE, "level2": COARSE}))
    with pytest.raises(UserError, match="the coarsest level has no condition"):
        load(changed(architecture={**CASCADE, "level3": FINE}))
