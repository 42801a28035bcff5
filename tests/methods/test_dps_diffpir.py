"""DPS and DiffPIR as methods, with small random priors in checkpoint folders."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrbench_methods.diffpir
import mrbench_methods.dps
import pytest
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from safetensors.torch import save_file
from torch import Tensor

from mrbench.cards import MethodCard
from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.conformance import check_method, conforms
from mrbench.engine.probe import phantom
from mrbench.engine.restorer import Restorer
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry

CPU = torch.device("cpu")
CARDS: dict[str, MethodCard] = {
    card.name: card for module in (mrbench_methods.dps, mrbench_methods.diffpir) for card in module.mrbench_methods()
}
NETWORK: dict[str, Any] = {
    "in_channels": 1, "out_channels": 1, "model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "groups": 4, "num_heads": 1,
}  # fmt: skip
PRIORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grey": (NETWORK, {"steps": 1000, "prediction": "v"}),
    "colour": ({**NETWORK, "in_channels": 3, "out_channels": 6}, {"steps": 1000, "prediction": "eps", "learn_sigma": True}),
}
FEW = {"dps": {"steps": 4}, "diffpir": {"steps": 4}}


def write(folder: Path, network: dict[str, Any], diffusion: dict[str, Any], **config: Any) -> LocalCheckpoint:
    """A checkpoint folder with random weights, of which every layer matters."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    unet = ADMUNet(ADMConfig(**network))
    for p in unet.parameters():
        if p.ndim > 1 and not p.any():
            torch.nn.init.normal_(p, std=0.02)
    save_file({key: value.contiguous() for key, value in unet.state_dict().items()}, folder / "model.safetensors")
    document = {
        "format": 1, "method": "diffpir", "name": folder.name, "tier": "demo", "kind": "prior", "scale": None, "degradation": "",
        "channels": network["in_channels"], "method_options": {},
        "architecture": {"family": "adm", "network": network, "diffusion": diffusion}, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalCheckpoint]:
    root = tmp_path_factory.mktemp("priors")
    return {name: write(root / name, *parts) for name, parts in PRIORS.items()}


def load(name: str, checkpoint: LocalCheckpoint | None, **options: Any) -> Any:
    card = CARDS[name]
    method = card.load()(card.parse({**FEW[name], **options}))
    method.load(checkpoint, CPU)
    return method


def measured(
    registry: Registry,
    size: tuple[int, int] = (45, 37),
    items: int = 2,
    channels: int = 1,
    name: str = "bicubic_aa",
    noise: float = 0.0,
    **options: Any,
) -> Measurement:
    card = registry.degradations.get(name)
    options = {"domain": "complex"} if channels == 2 else options
    hr = torch.stack([phantom("ab"[i % 2], i // 2, size, channels) for i in range(items)])
    degradation = card.load()(card.parse(options))
    ids = [f"d/{i}/v/0" for i in range(items)]
    return degrade(hr, ids, degradation, (4, 4), noise_kind="gaussian" if noise else "none", sigma=noise, seed_key="test")


@torch.inference_mode()
def restored(method: Any, measurement: Measurement, draws: int = 1) -> Tensor:
    images: Tensor = method.restore(measurement, draws)
    assert images.shape == (len(measurement.ids), draws, measurement.y.shape[1], *measurement.size)
    assert bool(torch.isfinite(images).all())
    return images


def assert_same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_cards_are_complete_and_light() -> None:
    for name, card in CARDS.items():
        assert (card.name, card.deterministic, card.needs_operator, card.channels) == (name, False, True, (1, 2, 3))
        assert card.recipe == "mrbench_methods.networks.prior_recipe:PriorRecipe"
        assert card.licence.startswith("Apache-2.0 (this implementation).")
        assert all(info.description for info in card.options.model_fields.values())
        assert card.nfe == (100 if name == "dps" else 20)
        readme = Path(sys.modules[f"mrbench_methods.{name}"].__file__ or "").with_name("README.md").read_text()
        assert "arXiv" in readme
    code = (
        "import sys, mrbench_methods.dps, mrbench_methods.diffpir;"
        "heavy = {'torch', 'pandas', 'scipy', 'skimage', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("prior", list(PRIORS))
@pytest.mark.parametrize("name", list(CARDS))
def test_conformance(name: str, prior: str, priors: dict[str, LocalCheckpoint], registry: Registry) -> None:
    """The whole suite, with the weights put in by hand. A prior of colours says nothing about complex images."""
    base: Any = CARDS[name].load()

    class Loaded(base):  # type: ignore[misc]
        def load(self, checkpoint: object, device: torch.device) -> None:
            super().load(priors[prior], device)

    card = replace(CARDS[name], implementation=Loaded, checkpoints=(), channels=(1, 2, 3) if prior == "grey" else (1, 3))
    results = check_method(card, registry, card.parse({"steps": 2}))
    assert conforms(results), [r for r in results if r.status not in ("pass", "skip")]


@pytest.mark.parametrize("prior", list(PRIORS))
@pytest.mark.parametrize("name", list(CARDS))
def test_draws_batches_and_chunks(name: str, prior: str, priors: dict[str, LocalCheckpoint], registry: Registry) -> None:
    m = measured(registry, (29, 21), items=3, noise=0.02)
    method = load(name, priors[prior])
    assert method.nfe == 4
    several = restored(method, m, 3)
    assert torch.equal(several, restored(method, m, 3))
    for i in range(3):
        assert_same(restored(method, m.select([i]), 3)[0], several[i])
    assert_same(restored(method, m)[:, 0], several[:, 0])
    assert_same(restored(load(name, priors[prior], max_batch=4), m, 3), several)
    assert float((several[:, 0] - several[:, 1]).abs().max()) > 1e-3


def test_inside_the_restorer(priors: dict[str, LocalCheckpoint], registry: Registry) -> None:
    """The harness calls methods in inference mode: gradients flow all the same, and guide."""
    m = measured(registry, (32, 24))
    images = {}
    for zeta in (0.0, 200.0):
        card = CARDS["dps"]
        restorer = Restorer(card, card.parse({"steps": 8, "zeta": zeta}), CPU, checkpoint=priors["grey"])
        outcome = restorer.restore(m, 2)
        assert [r.status for r in outcome] == ["ok", "ok"], outcome[0].error
        assert restorer.nfe == 8
        images[zeta] = torch.stack([r.estimate for r in outcome if r.estimate is not None])
    assert m.operator is not None
    operator, y = m.operator, m.y.repeat_interleave(2, 0)
    misfit = {z: float((operator.forward(x.flatten(0, 1)) - y).square().mean().sqrt()) for z, x in images.items()}
    assert misfit[200.0] < 0.8 * misfit[0.0]


@pytest.mark.parametrize("name", list(CARDS))
def test_every_degradation_and_precision(name: str, priors: dict[str, LocalCheckpoint], registry: Registry) -> None:
    card = CARDS[name]
    for precision in ("fp32", "bf16"):
        restorer = Restorer(card, card.parse({"steps": 2}), CPU, precision, checkpoint=priors["grey"])
        names = registry.degradations.names() if precision == "fp32" else ["kspace_crop"]
        for degradation in names:
            more = {"in_plane": "area"} if degradation == "slab" else {}
            outcomes = [restorer.restore(measured(registry, (24, 20), name=degradation, **more), 1)]
            if degradation == "kspace_crop":
                outcomes.append(restorer.restore(measured(registry, (24, 20), name=degradation, domain="magnitude"), 1))
            for outcome in outcomes:
                assert [r.status for r in outcome] == ["ok", "ok"], (degradation, precision, outcome[0].error)


def test_diffpir_meets_noise_free_measurements(priors: dict[str, LocalCheckpoint], registry: Registry) -> None:
    for prior, channels, name in (("grey", 1, "bicubic_aa"), ("colour", 3, "area"), ("grey", 2, "kspace_crop")):
        m = measured(registry, channels=channels, name=name)
        x = restored(load("diffpir", priors[prior]), m)[:, 0]
        assert m.operator is not None
        assert float((m.operator.forward(x) - m.y).square().mean().sqrt()) < 1e-3
    noisy = measured(registry, noise=0.1)
    assert noisy.operator is not None
    method = load("diffpir", priors["grey"])
    misfit = (noisy.operator.forward(restored(method, noisy)[:, 0]) - noisy.y).square().mean().sqrt()
    assert float(misfit) > 0.02
    told = load("diffpir", priors["grey"], sigma=0.0)
    assert_same(restored(told, noisy), restored(told, replace(noisy, sigma=None)))


def test_numbers_of_network_calls(priors: dict[str, LocalCheckpoint]) -> None:
    grey = priors["grey"]
    assert load("dps", grey, steps="ddim25").nfe == 25
    assert load("dps", grey, variant="official", steps="1000").nfe == 1000
    assert load("diffpir", grey, variant="official").nfe == 3
    assert load("diffpir", grey, variant="official", skip="uniform").nfe == 4
    assert load("diffpir", grey, final="official").nfe == 3


@pytest.mark.parametrize("name", list(CARDS))
def test_the_prior_as_an_option(name: str, tmp_path: Path, priors: dict[str, LocalCheckpoint], registry: Registry) -> None:
    grey = priors["grey"]
    m = measured(registry, items=1)
    expected = restored(load(name, grey), m)
    folder = str(grey.file.parent)
    for checkpoint, prior in ((None, folder), (None, str(grey.file)), (grey, folder), (grey, "grey")):
        assert torch.equal(restored(load(name, checkpoint, prior=prior), m), expected)
    with pytest.raises(UserError, match="two priors are named"):
        load(name, grey, prior=str(priors["colour"].file))
    with pytest.raises(UserError, match="no such file"):
        load(name, None, prior=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=f"{name} needs weights"):
        load(name, None)


@pytest.mark.parametrize("name", list(CARDS))
def test_what_cannot_be_restored_is_refused_at_once(
    name: str, priors: dict[str, LocalCheckpoint], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = load(name, priors["grey"])
    colour = load(name, priors["colour"])

    def forward(*_: object) -> Tensor:
        raise AssertionError("the network was called")

    monkeypatch.setattr(ADMUNet, "forward", forward)
    m = measured(registry)
    with pytest.raises(UserError, match=f"{name} needs to know how the LR image was measured"):
        restored(method, replace(m, operator=None))
    with pytest.raises(UserError, match="images of 8x1 are smaller than one block of the prior's network"):
        restored(method, thin(registry))
    with pytest.raises(UserError, match="trained on colour images and says nothing about complex ones"):
        restored(colour, measured(registry, channels=2, name="kspace_crop"))
    if name == "diffpir":
        with pytest.raises(UserError, match=r"does not say how strong that is.*option sigma"):
            restored(method, replace(m, sigma=None))
    else:
        with pytest.raises(AssertionError, match="the network was called"):
            restored(method, replace(m, sigma=None))


def thin(registry: Registry) -> Measurement:
    card = registry.degradations.get("area")
    return degrade(torch.zeros(1, 1, 8, 1), ["x"], card.load()(card.parse({})), (4, 1), seed_key="test")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dps", {"steps": 1001}, "between 1 and 1000"),
        ("dps", {"steps": "ddim7.5"}, "expected a number"),
        ("diffpir", {"steps": 700}, "no room for so many"),
        ("diffpir", {"start": 1000}, "has the steps 0 to 999"),
        ("dps", {"label": 3}, "takes no label"),
    ],
)
def test_impossible_options_are_refused_at_loading(
    name: str, options: dict[str, Any], message: str, priors: dict[str, LocalCheckpoint]
) -> None:
    with pytest.raises(UserError, match=message):
        load(name, priors["grey"], **options)


@pytest.mark.parametrize("name", list(CARDS))
def test_other_weights_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a diffusion prior but a network that restores images"):
        load(name, write(tmp_path / "a", *PRIORS["grey"], kind="network"))
    with pytest.raises(UserError, match=r"a conditional prior: it wants a second image of 1 channel"):
        load(name, write(tmp_path / "b", {**NETWORK, "low_res_channels": 1}, {}))
