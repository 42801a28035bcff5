"""Steps within an item: reported by samplers, passed on by the engine, shown by the bar, and without any effect on results."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import mrbench_methods.diffpir
import mrbench_methods.dps
import mrbench_methods.i2sb
import mrbench_methods.scale_cascaded
import pytest
import torch
from mrbench_methods.networks.adm import ADMUNet
from mrbench_methods.networks.adm_options import ADMConfig
from mrbench_methods.networks.band_prior import BandPrior
from mrbench_methods.networks.cascade_options import CascadeConfig
from rich.console import Console
from safetensors.torch import save_file
from tests_support import rows_of, write_plugin

from mrbench.cards import MethodCard
from mrbench.cli.progress import PATIENCE, ProgressPlugin
from mrbench.degradation.measurement import Measurement, degrade, upsample
from mrbench.engine.entries import parse_entries, parse_settings
from mrbench.engine.predict import load_method
from mrbench.engine.probe import phantom
from mrbench.engine.restorer import Restorer, Steps
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.plugins import Registry
from mrbench.train.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ADM: dict[str, Any] = {
    "in_channels": 1, "out_channels": 1, "model_channels": 8, "channel_mult": [1, 2], "num_res_blocks": 1, "groups": 4, "num_heads": 1,
}  # fmt: skip
PRIOR = {"family": "adm", "network": ADM, "diffusion": {"steps": 1000, "prediction": "v"}}
COARSE: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [],
    "middle_attention": False, "logvar_channels": 8,
}  # fmt: skip
BAND = {**COARSE, "cond_channels": 1}
CASCADE = {"pyramid": "bicubic", "level1": {**BAND, "unshuffle": 2}, "level2": BAND, "level3": COARSE}
SAMPLERS: dict[str, tuple[Any, dict[str, Any], dict[str, Any], int]] = {  # module, architecture, options, steps
    "dps": (mrbench_methods.dps, PRIOR, {"steps": 4}, 4),
    "diffpir": (mrbench_methods.diffpir, PRIOR, {"steps": 5}, 5),
    "i2sb": (mrbench_methods.i2sb, {"unet": ADM}, {"nfe": 3}, 3),
    "scale_cascaded": (mrbench_methods.scale_cascaded, CASCADE, {"steps": 6}, 4),  # 4x: one of three levels is known
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalCheckpoint]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write(root / name, name, parts) for name, (_, parts, _, _) in SAMPLERS.items()}


def write(folder: Path, name: str, architecture: dict[str, Any]) -> LocalCheckpoint:
    """A checkpoint folder with small random weights."""
    folder.mkdir()
    torch.manual_seed(0)
    tensors = {}
    if name == "scale_cascaded":
        for level, config in CascadeConfig(**architecture).networks.items():
            network = BandPrior(config)
            network.unit.fill_(0.1 if config.cond_channels else 0.5)
            network.cond_unit.fill_(0.5)
            tensors |= {f"{level}.{key}": value.contiguous() for key, value in network.state_dict().items()}
    else:
        unet = ADMUNet(ADMConfig(**ADM))
        for p in unet.parameters():
            if p.ndim > 1 and not p.any():
                torch.nn.init.normal_(p, std=0.02)
        tensors = {key: value.contiguous() for key, value in unet.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    document = {
        "format": 1, "method": name, "name": name, "tier": "demo", "kind": "prior" if "family" in architecture else "network",
        "scale": None, "degradation": "", "channels": 1, "architecture": architecture, "method_options": {},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))
    return read_folder(folder)


def card_of(name: str) -> MethodCard:
    (card,) = SAMPLERS[name][0].mrbench_methods()
    return card


def measured(registry: Registry, size: tuple[int, int] = (32, 24), items: int = 2) -> Measurement:
    card = registry.degradations.get("bicubic_aa")
    hr = torch.stack([phantom("ab"[i % 2], i // 2, size, 1) for i in range(items)])
    return degrade(hr, [f"d/{i}/v/0" for i in range(items)], card.load()(card.parse({})), (4, 4), seed_key="test")


def estimates(restorer: Restorer, m: Measurement, draws: int) -> torch.Tensor:
    outcomes = restorer.restore(m, draws)
    assert [o.status for o in outcomes] == ["ok"] * len(m.ids), outcomes[0].error
    return torch.stack([o.estimate for o in outcomes if o.estimate is not None])


# -- samplers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_report_every_step_and_results_stay_equal(
    name: str, checkpoints: dict[str, LocalCheckpoint], registry: Registry
) -> None:
    _, _, options, count = SAMPLERS[name]
    card, m = card_of(name), measured(registry)
    plain = Restorer(card, card.parse({**options, "max_batch": 2}), CPU, checkpoint=checkpoints[name], warm_up=False)
    expected = estimates(plain, m, 2)
    seen: list[Steps] = []
    heard = Restorer(card, plain.options, CPU, checkpoint=checkpoints[name], warm_up=False, on_step=seen.append)
    assert torch.equal(estimates(heard, m, 2), expected)
    assert [(s.done, s.total) for s in seen] == [(k + 1, 2 * count) for k in range(2 * count)]  # two draws, one after the other
    assert all(s.items == m.ids and not s.warm_up for s in seen)
    assert [s.seconds for s in seen] == sorted(s.seconds for s in seen)
    assert heard.implementation.on_step is None
    assert heard.nfe == count


def test_steps_count_on_over_tiles(checkpoints: dict[str, LocalCheckpoint], registry: Registry) -> None:
    card = card_of("i2sb")
    seen: list[Steps] = []
    options = card.parse({"nfe": 2, "tile": 16, "overlap": 8})
    restorer = Restorer(card, options, CPU, checkpoint=checkpoints["i2sb"], warm_up=False, on_step=seen.append)
    estimates(restorer, measured(registry, (24, 24), 1), 1)
    assert [(s.done, s.total) for s in seen] == [(k + 1, 8) for k in range(8)]  # four tiles


# -- the contract --------------------------------------------------------------------------------------------------
class Slow:
    """Four steps that interpolate; the fourth fails if asked to."""

    on_step: Any = None
    fails = False

    def __init__(self, options: object) -> None:
        self.calls = 0

    def restore(self, measurement: Measurement, draws: int) -> torch.Tensor:
        self.calls += 1
        for k in range(4):
            if k == 3 and self.fails:
                raise ValueError("no fourth step")
            if self.on_step is not None:
                self.on_step(k + 1, 4)
        return upsample(measurement)[:, None].repeat(1, draws, 1, 1, 1)


class Foreign(Slow):
    """Its ``on_step`` is its own business."""

    def on_step(self, done: int, total: int) -> None:
        self.own = (done, total)


def test_warm_up_is_marked_and_can_be_left_out(registry: Registry) -> None:
    m, seen = measured(registry), []
    restorer = Restorer(MethodCard("slow", Slow), MethodCard("slow", Slow).parse({}), CPU, on_step=seen.append)
    first = estimates(restorer, m, 1)
    assert [(s.items, s.warm_up) for s in seen] == [(m.ids[:1], True)] * 4 + [(m.ids, False)] * 4
    assert restorer.implementation.calls == 2
    cold = Restorer(restorer.card, restorer.options, CPU, warm_up=False)
    assert torch.equal(estimates(cold, m, 1), first)
    assert cold.implementation.calls == 1


def test_a_method_that_fails_or_has_its_own_on_step_is_left_as_it_was(registry: Registry) -> None:
    class Failing(Slow):
        fails = True

    m, seen = measured(registry, items=1), []
    card = MethodCard("failing", Failing)
    restorer = Restorer(card, card.parse({}), CPU, warm_up=False, on_step=seen.append)
    assert restorer.restore(m, 1)[0].error == "ValueError: no fourth step"
    assert len(seen) == 3
    assert restorer.implementation.on_step is None
    card = MethodCard("foreign", Foreign)
    restorer = Restorer(card, card.parse({}), CPU, warm_up=False, on_step=seen.append)
    estimates(restorer, m, 1)
    assert len(seen) == 3
    assert restorer.implementation.own == (4, 4)


STEPPING = """
    import mrbench
    heard = []
    class Stepping:
        on_step = None
        def __init__(self, options): pass
        def restore(self, m, draws):
            for k in range(3):
                if self.on_step: self.on_step(k + 1, 3)
            return mrbench.upsample(m)[:, None].repeat(1, draws, 1, 1, 1)
    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("stepping", Stepping)]
"""
LISTENING = """
    import json, os, mrbench
    @mrbench.hookimpl
    def mrbench_step_done(step):
        with open(os.environ["HEARD"], "a") as stream:
            stream.write(json.dumps(dict(step)) + chr(10))
        if step["done"] == 2:
            raise OSError("the listener broke")
"""


def test_a_run_passes_steps_to_plugins(mrbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that raises becomes one warning; rows are the same with and without one."""
    monkeypatch.setenv("HEARD", str(tmp_path / "heard.jsonl"))
    method, listener = write_plugin(tmp_path, "stepping", STEPPING), write_plugin(tmp_path, "listening", LISTENING)
    common = ("run", "-m", "stepping", "-d", "sample", "--limit", 2, "--batch", 2, "--metrics", "psnr", "--no-pictures")
    done = mrbench(*common, "--out", tmp_path / "a", "--plugin", method, "--plugin", listener)
    assert done.code == 0, done.err
    assert done.err.count("mrbench_step_done raised OSError: the listener broke") == 1
    heard = [json.loads(line) for line in (tmp_path / "heard.jsonl").read_text().splitlines()]
    assert {h["label"] for h in heard} == {"stepping"}
    timed = [h for h in heard if not h["warm_up"]]
    assert [h["done"] for h in timed[:3]] == [1, 2, 3]
    assert all(h["total"] == 3 and h["seconds"] >= 0 for h in heard)
    assert {i for h in timed for i in h["items"]} == set(rows_of(tmp_path / "a")["item_id"])
    assert mrbench(*common, "--out", tmp_path / "b", "--plugin", method).code == 0
    assert rows_of(tmp_path / "a").equals(rows_of(tmp_path / "b"))


def test_where_times_are_not_compared_nothing_is_restored_twice(registry: Registry) -> None:
    (entry,) = parse_entries(["bicubic"], parse_settings([]), registry)
    assert not load_method(entry, CPU).warm_up
    validating = Recipe.restorer(object(), entry.card, None, CPU)  # type: ignore[arg-type]
    assert validating is not None
    assert not validating.warm_up


# -- the bar -------------------------------------------------------------------------------------------------------
def step(done: int, seconds: float, items: int = 1, warm_up: bool = False) -> dict[str, Any]:
    ids = tuple(f"sample/colin27/t1/{k:03d}" for k in range(items))
    return {"label": "dps", "items": ids, "done": done, "total": 40, "seconds": seconds, "warm_up": warm_up}


def test_the_bar_shows_the_steps_of_long_items_only() -> None:
    bar = ProgressPlugin(Console(file=io.StringIO(), width=160))
    bar.mrbench_step_done(step(1, 9))  # before any run: nothing to show
    bar.mrbench_run_started({"requested": 4, "todo": 4, "method": {"label": "dps"}})

    def shown() -> str:
        return bar._bar.tasks[-1].description

    bar.mrbench_step_done(step(11, PATIENCE))
    assert shown() == "dps"
    bar.mrbench_step_done(step(12, PATIENCE + 0.1))
    assert shown() == "dps: step 12/40 of item t1/000"
    bar.mrbench_step_done(step(13, 9, items=4))
    assert shown() == "dps: step 13/40 of item t1/000 and 3 more"
    bar.mrbench_step_done(step(13, 9, warm_up=True))
    assert shown() == "dps: warming up, step 13/40 of item t1/000"
    bar.mrbench_step_done(step(40, 30))
    assert shown() == "dps"
    bar.mrbench_step_done(step(39, 29))
    bar.mrbench_item_done({"status": "failed"})
    assert shown() == "dps"
    assert bar._bar.tasks[-1].completed == 1


@pytest.mark.parametrize("width", [80, 100, 140])
def test_counts_and_steps_fit_into_narrow_terminals(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bar = ProgressPlugin(console)
    bar.mrbench_run_started({"requested": 1600, "todo": 1600, "method": {"label": "scale_cascaded"}})
    row = {"status": "ok", "psnr": 31.4159, "ssim": 0.8123}

    def shown() -> str:
        console.print(bar._bar.get_renderable())
        return console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined,no-any-return]

    bar.mrbench_item_done(row)
    assert "psnr 31.42" in shown()
    bar.mrbench_step_done(step(12, 9, items=4))
    assert "scale_cascaded: step 12/40" in shown()
    assert "1/1600" in shown()
    assert ("psnr 31.42" in shown()) == (width >= 120)
    bar.mrbench_item_done(row)
    assert "psnr 31.42" in shown()
    assert "step" not in shown()
