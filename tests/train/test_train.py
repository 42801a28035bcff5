"""``mrbench train`` on a toy method: what it leaves, and that it works."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from mrbench.engine.restorer import Restorer
from mrbench.hub.checkpoint import read_folder
from mrbench.plugins import discover
from mrbench.train.checkpoint import read_weights


def log_of(folder: Path, quantity: str) -> list[float]:
    with (folder / "log.csv").open() as file:
        return [float(r["value"]) for r in csv.DictReader(file) if r["quantity"] == quantity]


@pytest.fixture
def trained(train, tmp_path: Path) -> Path:
    done = train("--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)["checkpoints"][0]
    assert document["checkpoint"] == str(tmp_path / "out")
    assert "toy demo-x2 (seed 0)" in done.err
    assert "ETA" in done.err
    assert "validation psnr" in done.err
    return tmp_path / "out"


def test_the_loss_falls_and_the_result_beats_interpolation(trained: Path) -> None:
    losses = log_of(trained, "loss")
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    training = json.loads((trained / "training.json").read_text())
    selection = training["selection"]
    assert selection["scores"]["psnr"] > selection["reference"]["bicubic"]["psnr"] + 0.2
    assert selection["scores"]["ssim"] > selection["reference"]["bicubic"]["ssim"]
    assert max(log_of(trained, "val/psnr")) == pytest.approx(selection["scores"]["psnr"], abs=0.01)  # stored as float16
    assert selection["reason"] == "best of the validations, averaged (0.95)"
    assert [p["step"] for p in training["loss_curve"]] == [10, 20, 30, 40, 50, 60]


def test_the_checkpoint_keeps_its_contract(trained: Path, images: Path) -> None:
    checkpoint = read_folder(trained, "toy")
    assert checkpoint.config == {
        "format": 1, "method": "toy", "name": "demo-x2", "tier": "demo", "kind": "network", "scale": 2,
        "degradation": "bicubic_aa", "channels": 1, "method_options": {}, "architecture": {"width": 8},
    }  # fmt: skip
    training = checkpoint.training
    assert training is not None
    assert {"seed", "steps", "preset", "subjects", "items", "loss_curve", "versions", "optimised_for", "probe"} <= set(training)
    assert (training["seed"], training["steps"], training["preset"]) == (0, 60, "demo")
    assert (len(training["subjects"]), len(training["items"]), len(training["val_items"])) == (4, 12, 3)
    assert training["optimised_for"] == ["psnr"]
    assert training["data"][0]["options"]["path"] == images.name
    assert str(images) not in (trained / "training.json").read_text()
    assert checkpoint.record.sha256 == training["sha256"]
    tensors = checkpoint.tensors()
    assert tensors["first.weight"].dtype == torch.float16
    assert tensors["tiny"].dtype == torch.float32  # buffers are stored exactly
    assert tensors["tiny"][0] == torch.tensor(1e-9)
    assert set(read_weights(trained / "ema-power-0.1.safetensors")) == set(tensors)
    assert not (trained / "resume").exists()
    card = (trained / "README.md").read_text()
    for text in (
        "Demonstration weights",
        "| faces (folder) | 9 slices of 3 subjects | 3 slices of 1 subject |",
        "PSNR (dB) (trained for it)",
    ):
        assert text in card


def test_the_result_loads_and_restores_as_it_did_in_validation(trained: Path, toy: Path, images: Path) -> None:
    from mrbench.engine.entries import DatasetChoice
    from mrbench.engine.scoring import Scorer
    from mrbench.protocol import find_protocol
    from mrbench.train.sources import open_sources

    registry = discover([toy])
    checkpoint = read_folder(trained, "toy")
    card = registry.methods.get("toy")
    restorer = Restorer(card, card.parse({}), torch.device("cpu"), "fp32", checkpoint)
    folder = registry.datasets.get("folder")
    choice = DatasetChoice("faces", folder, folder.parse({"path": str(images)}))
    source = open_sources([choice], find_protocol("uniform-x2"), registry)[0]
    assert source.task is not None
    batch = source.task.load(source.val)
    estimate = torch.stack([o.estimate for o in restorer.restore(batch.measurement, 1)])
    scores = Scorer.load(registry, ["psnr"], {}, torch.device("cpu")).score(estimate, batch.hr, batch.mask, batch.measurement)
    assert checkpoint.training is not None
    assert sum(scores["psnr"]) / 3 == pytest.approx(checkpoint.training["selection"]["scores"]["psnr"], abs=1e-4)


def test_the_result_runs(mrbench, trained: Path, toy: Path, tmp_path: Path) -> None:
    done = mrbench(
        "run", "--plugin", toy, "--method", f"toy@{trained}", "--method", "bicubic", "--dataset", "sample", "--scale", 2,
        "--subset", 2, "--metrics", "psnr", "--no-pictures", "--out", tmp_path / "runs", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    toy_run, bicubic = done.json["runs"]
    assert (toy_run["tier"], toy_run["ok"]) == ("demo", 2)
    assert toy_run["metrics"]["psnr"]["mean"] != bicubic["metrics"]["psnr"]["mean"]


def test_a_probe_is_stored_with_the_weights_and_can_be_checked(train, mrbench, toy: Path, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", "--steps", 3, "--probe", "sample", "--probe-subset", 2, "--json")
    assert done.code == 0, done.err
    probe = json.loads(done.out)["checkpoints"][0]["probe"]
    assert (probe["name"], probe["subset"], probe["items"]) == ("sample/uniform-x2", 2, 2)
    assert probe["scores"]["psnr"] > 20
    assert "## Probe: 2 items of sample/uniform-x2" in (tmp_path / "out" / "README.md").read_text()
    checked = mrbench("checkpoints", "verify", f"toy@{tmp_path / 'out'}", "--plugin", toy, "--device", "cpu", "--json")
    assert checked.code == 0, checked.err
    outcome = checked.json["checkpoints"][0]
    assert outcome["agrees"] is True
    assert {s["column"] for s in outcome["scores"]} == set(probe["scores"])
    done = train("--out", tmp_path / "other", "--steps", 3, "--probe", "faces=folder")
    assert (done.code, "others do not have these files" in done.err) == (2, True)


def test_equal_seeds_give_equal_weights_and_others_do_not(train, trained: Path, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "more", "--seeds", 2, "--json")
    assert done.code == 0, done.err
    folders = [Path(c["checkpoint"]) for c in json.loads(done.out)["checkpoints"]]
    assert [f.name for f in folders] == ["seed-0", "seed-1"]
    files = [(f / "model.safetensors").read_bytes() for f in (trained, *folders)]
    assert files[0] == files[1] != files[2]
    assert json.loads((folders[1] / "config.json").read_text())["name"] == "demo-x2-seed-1"


def test_an_interrupt_that_comes_too_late_for_one_training_stops_the_next(train, toy: Path, tmp_path: Path) -> None:
    original = toy.read_text()
    toy.write_text(original.replace("    def optimised_for(self):", """
    def state_dict(self, networks):
        import os, signal
        self.calls = getattr(self, "calls", 0) + (self.seen >= 3)
        if self.context.seed == 0 and self.calls == 2:  # after the last step's validation
            os.kill(os.getpid(), signal.SIGINT)
        return super().state_dict(networks)

    def optimised_for(self):""", 1))  # fmt: skip
    several = ("--out", tmp_path, "--steps", 3, "--seeds", 3)
    done = train(*several)
    assert done.code == 130
    assert "stopped after 1 of 3 trainings" in done.err
    assert [(tmp_path / f"seed-{k}").exists() for k in range(3)] == [True, False, False]
    toy.write_text(original)
    done = train(*several, "--resume")
    assert done.code == 0, done.err
    assert all((tmp_path / f"seed-{k}" / "training.json").exists() for k in range(3))


def test_ablations_are_trained_beside_the_recipe_as_it_is(train, tmp_path: Path) -> None:
    done = train("--out", tmp_path, "--ablation", "all", "--steps", 3, "--json")
    assert done.code == 0, done.err
    folders = [Path(c["checkpoint"]) for c in json.loads(done.out)["checkpoints"]]
    assert [f.name for f in folders] == ["full", "narrow", "silent"]
    widths = [json.loads((f / "config.json").read_text())["architecture"]["width"] for f in folders]
    assert widths == [8, 4, 8]
    assert json.loads((folders[2] / "training.json").read_text())["options"]["noise"] == 0


def test_fine_tuning_begins_from_given_weights(train, trained: Path, tmp_path: Path) -> None:
    done = train(
        "--out", tmp_path / "fine", "--init", trained, "--max-slices", 4, "--steps", 2,
        "--set", "toy.stages.main.optimisers.main.lr=1e-12", "--set", "toy.stages.main.optimisers.main.schedule.kind=constant",
        "--set", "toy.stages.main.keep=last",
    )  # fmt: skip
    assert done.code == 2  # a constant schedule ends nowhere
    assert "a schedule of kind 'constant' has no final" in done.err
    done = train(
        "--out", tmp_path / "fine", "--init", trained, "--max-slices", 4, "--steps", 2,
        "--set", "toy.stages.main.optimisers.main.lr=1e-12", "--set", "toy.stages.main.optimisers.main.schedule.final=1e-12",
    )  # fmt: skip
    assert done.code == 0, done.err
    before, after = (read_weights(f / "model.safetensors") for f in (trained, tmp_path / "fine"))
    assert all(torch.allclose(before[k].float(), after[k].float(), atol=1e-6) for k in before)
    training = json.loads((tmp_path / "fine" / "training.json").read_text())
    (origin,) = training["drawn_on"]
    assert (origin["part"], origin["name"], origin["subjects_known"]) == ("init", "demo-x2", True)
    assert training["data"][0]["train"] == {"subjects": 3, "slices": 4}
    done = train("--out", tmp_path / "other", "--init", trained, "--set", "toy.width=6", "--steps", 2)
    assert done.code == 2
    assert (
        "these weights belong to another network: other shapes: first.weight [8, 1, 3, 3] instead of [6, 1, 3, 3]" in done.err
    )


def test_bf16_micro_batches_and_selection_by_loss(train, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", preset="paper")
    assert done.code == 0, done.err
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert training["stages"][0]["precision"] == "bf16"
    assert training["selection"]["metric"] == "loss"
    assert training["selection"]["scores"]["loss"] == pytest.approx(log_of(tmp_path / "out", "val/loss")[-1])
    assert read_weights(tmp_path / "out" / "model.safetensors")["first.weight"].dtype == torch.float32


def test_micro_batches_give_the_gradient_of_the_whole_batch(train, tmp_path: Path) -> None:
    """Without noise and dropout (a wide-open comparison in float32: sums in another order)."""
    weights = []
    for k in (1, 2, 4):
        out = tmp_path / str(k)
        done = train("--out", out, "--steps", 4, "--set", "toy.noise=0.0", "--set", f"toy.stages.main.accumulate={k}",
                     "--set", "toy.weights=fp32", "--set", "toy.dropout=0.0")  # fmt: skip
        assert done.code == 0, done.err
        weights.append(read_weights(out / "model.safetensors"))
    for other in weights[1:]:
        assert all(torch.allclose(weights[0][k], other[k], atol=2e-6) for k in other)
    assert any(not torch.equal(weights[0][k], torch.zeros_like(weights[0][k])) for k in ("last.weight",))


def test_without_validation_subjects_the_last_weights_are_kept_and_that_is_said(train, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", "--exclude", "dua", "--steps", 3)
    assert done.code == 0, done.err
    assert "no validation subjects, so nothing is selected by psnr: the last weights are kept" in done.err
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert training["selection"]["scores"] == {}
    assert training["selection"]["reason"] == "last step, averaged (0.95)"
    assert training["val_subjects"] == []


def test_a_loss_that_is_not_finite_stops_after_saving(train, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", "--set", "toy.nan_after=25")
    assert done.code == 1
    assert "failed: stage main, step 26: the loss 'mse' of optimiser main is nan" in done.err
    assert "Lower the learning rate" in done.err
    best = tmp_path / "out" / "resume" / "best.safetensors"
    assert f"--init {best}" in done.err
    state = torch.load(tmp_path / "out" / "resume" / "state.pt", weights_only=True)
    assert state["runner"]["done"] == 25
    assert all(torch.isfinite(v).all() for v in state["networks"]["net"].values())
    assert not (tmp_path / "out" / "model.safetensors").exists()
    again = train("--out", tmp_path / "again", "--init", best, "--steps", 2)
    assert again.code == 0, again.err


def test_finished_and_unfinished_folders_are_not_overwritten(train, trained: Path, tmp_path: Path) -> None:
    done = train("--out", trained)
    assert done.code == 2
    assert "holds a finished checkpoint" in done.err
    before = (trained / "model.safetensors").stat().st_mtime_ns
    done = train("--out", trained, "--resume", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["checkpoints"][0]["steps"] == 60
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    done = train("--out", trained, "--resume", "--set", "toy.width=9")
    assert done.code == 2
    assert "trained with other settings" in done.err


def test_a_method_that_fails_in_validation_is_reported_and_never_the_best(train, toy: Path, tmp_path: Path) -> None:
    text = toy.read_text().replace("return self.net(mrbench.upsample", "return 300 * self.net(mrbench.upsample")
    toy.write_text(text)
    done = train("--out", tmp_path / "out", "--steps", 4)
    assert done.code == 0, done.err
    assert "estimates are expected on the [0, 1] range" in done.err
    selection = json.loads((tmp_path / "out" / "training.json").read_text())["selection"]
    assert selection["scores"]["psnr"] is None
    assert selection["reason"].startswith("last step")


def test_a_loss_that_is_none_is_refused(train, toy: Path, tmp_path: Path) -> None:
    good = toy.read_text()
    for text, message in (
        ('{"mse": (estimate - batch.hr).square()}', "the loss 'mse' is no scalar tensor but [4, 1, 32, 32]"),
        ('{"mse": (start - batch.hr).square().mean()}', "do not depend on any of its parameters"),
    ):
        toy.write_text(good.replace('{"mse": (estimate - batch.hr).square().mean()}', text))
        done = train("--out", tmp_path / "out", "--steps", 2)
        assert done.code == 2
        assert message in done.err


def test_a_state_of_other_settings_or_a_damaged_one_is_refused(train, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train("--out", out, "--set", "toy.nan_after=5").code == 1
    done = train("--out", out, "--set", "toy.nan_after=5")
    assert (done.code, "Go on with --resume" in done.err) == (2, True)
    done = train("--out", out, "--resume", "--seed", 3)
    assert done.code == 2
    assert "seed: 0 then, 3 now; options.nan_after: 5 then, -1 now" in done.err
    (out / "resume" / "state.pt").write_bytes(b"not a state")
    done = train("--out", out, "--resume", "--set", "toy.nan_after=5")
    assert done.code == 2
    assert "is no training state" in done.err


def test_gradient_norms_are_clipped_and_logged(train, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", "--steps", 10)
    assert done.code == 0, done.err
    norms, rates = log_of(tmp_path / "out", "gradient/main"), log_of(tmp_path / "out", "lr/main")
    assert all(math.isfinite(n) and n > 0 for n in norms)
    assert rates[0] == pytest.approx(sum(_cosine(k) for k in range(10)) / 10, rel=1e-5)


def _cosine(step: int) -> float:
    """The demo preset's rate when it is cut to 10 of its 60 steps: 1 step of warm-up."""
    return 3e-3 if step == 0 else 1e-4 + (3e-3 - 1e-4) * (1 + math.cos(math.pi * (step - 1) / 9)) / 2
