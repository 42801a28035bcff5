"""Several optimisers, several stages, frozen weights, and recipes with a state of their own."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest
import torch

from mrbench.hub.checkpoint import read_folder
from mrbench.train.checkpoint import read_weights


def stop_at(toy: Path, step: int) -> None:
    """Make the recipes send SIGINT to their own process in one step."""
    text = toy.read_text().replace(
        "    def losses(self, networks, batch, generator, step, optimiser):\n",
        "    def losses(self, networks, batch, generator, step, optimiser):\n"
        f"        if step.number == {step} and step.training and optimiser != 'judge':\n"
        "            import os, signal\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n",
    )
    assert "signal.SIGINT" in text
    toy.write_text(text)


def files_of(folder: Path) -> dict[str, bytes]:
    """Weights and log of a training, by relative path."""
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.suffix in (".safetensors", ".csv") and f.parent.name != "resume"
    }


def state_of(out: Path):
    return torch.load(out / "resume" / "state.pt", weights_only=True)


def test_both_optimisers_of_an_adversarial_recipe_step(train, toy: Path, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "whole", method="toy_gan")
    assert done.code == 0, done.err
    assert set(read_folder(tmp_path / "whole", "toy_gan").tensors()) == {
        "first.weight", "first.bias", "second.weight", "second.bias", "last.weight", "last.bias", "tiny",
    }  # fmt: skip
    with (tmp_path / "whole" / "log.csv").open() as file:
        quantities = {r["quantity"] for r in csv.DictReader(file)}
    assert {"lr/generator", "lr/judge", "loss/pixel", "loss/adversarial", "loss/real", "loss/fake"} <= quantities
    original = toy.read_text()
    states = []
    for step in (0, 6):
        stop_at(toy, step)
        done = train("--out", tmp_path / f"cut{step}", method="toy_gan")
        toy.write_text(original)
        assert done.code == 130, done.err
        states.append(state_of(tmp_path / f"cut{step}"))
    early, late = (s["networks"] for s in states)
    for network in ("generator", "judge"):
        assert any(not torch.equal(early[network][k], late[network][k]) for k in early[network])
    counts = {n: {int(s["step"]) for s in o["state"].values()} for n, o in states[1]["runner"]["optimisers"].items()}
    assert counts == {"generator": {7}, "judge": {7}}
    assert len(states[1]["recipe"]["pool"]) == 4


@pytest.mark.parametrize("step", [0, 5, 11])
def test_an_adversarial_training_that_was_stopped_gives_the_same_weights(train, toy: Path, tmp_path: Path, step: int) -> None:
    """With batch norm in the discriminator, an average, and a pool of old images."""
    assert train("--out", tmp_path / "whole", method="toy_gan").code == 0
    original = toy.read_text()
    stop_at(toy, step)
    done = train("--out", tmp_path / "cut", method="toy_gan")
    assert done.code == 130
    assert f"stopped after step {step + 1} of 12" in done.err
    assert "--resume" in done.err
    toy.write_text(original)
    assert train("--out", tmp_path / "cut", "--resume", method="toy_gan").code == 0
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_frozen_weights_stay_as_they_are(train, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", method="toy_stages")
    assert done.code == 0, done.err
    first = read_weights(tmp_path / "out" / "stages" / "1-trunk" / "model.safetensors")
    last = read_weights(tmp_path / "out" / "model.safetensors")
    assert set(first) == set(last)
    for key in first:
        if key.startswith("trunk."):
            assert torch.equal(first[key], last[key]), key
    assert first["gain"] == 0
    assert last["gain"] != 0
    assert any(not torch.equal(last[k], last[k.replace("branch.", "trunk.")]) for k in last if k.startswith("branch."))
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert training["steps"] == 20
    assert [s["stage"] for s in (*training["stage_selections"], training["selection"])] == ["trunk", "branch"]
    assert {p["stage"] for p in training["loss_curve"]} == {"trunk", "branch"}
    assert json.loads((tmp_path / "out" / "stages" / "1-trunk" / "training.json").read_text())["steps"] == 12


@pytest.mark.parametrize("step", [4, 11, 12, 16])
def test_stages_that_were_stopped_give_the_same_weights(train, toy: Path, tmp_path: Path, step: int) -> None:
    """In the first stage, at its last step, at the first one of the second stage, and later."""
    assert train("--out", tmp_path / "whole", method="toy_stages").code == 0
    original = toy.read_text()
    stop_at(toy, step)
    assert train("--out", tmp_path / "cut", method="toy_stages").code == 130
    toy.write_text(original)
    assert train("--out", tmp_path / "cut", "--resume", method="toy_stages").code == 0
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_one_stage_alone_from_the_weights_of_another(train, tmp_path: Path) -> None:
    """As if the first stage had been trained elsewhere: the result is the same."""
    assert train("--out", tmp_path / "whole", method="toy_stages").code == 0
    first = tmp_path / "whole" / "stages" / "1-trunk"
    done = train("--out", tmp_path / "second", "--stages", "branch", "--init", first, method="toy_stages")
    assert done.code == 0, done.err
    whole, alone = (read_weights(tmp_path / f / "model.safetensors") for f in ("whole", "second"))
    assert all(torch.equal(whole[k], alone[k]) for k in whole)


def test_a_data_set_that_no_stage_uses_is_mentioned(train, images: Path, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", "--steps", 2, "--dataset", "more=folder", "--set", f"more.path={images}",
                 "--set", "toy.stages.main.data=[faces]")  # fmt: skip
    assert done.code == 0, done.err
    assert "data set more is given, but no stage of this training uses it" in done.err
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert [d["alias"] for d in training["data"]] == ["faces"]


def test_steps_are_shared_out_to_the_stages(train, tmp_path: Path) -> None:
    done = train("--out", tmp_path / "out", "--steps", 5, method="toy_stages")
    assert done.code == 0, done.err
    stages = json.loads((tmp_path / "out" / "training.json").read_text())["stages"]
    assert [(s["name"], s["steps"]) for s in stages] == [("trunk", 3), ("branch", 2)]


def test_a_parameter_of_two_optimisers_is_refused(train, toy: Path, tmp_path: Path) -> None:
    preset = toy.parent / "presets_gan" / "demo.yaml"
    preset.write_text(preset.read_text().replace("networks: [judge]", "networks: [judge, generator]"))
    done = train("--out", tmp_path / "out", method="toy_gan")
    assert done.code == 2
    assert "the optimisers generator and judge both step generator.first.weight" in done.err


def test_a_second_interrupt_kills_at_once(train, toy: Path, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    stop_at(toy, 3)
    toy.write_text(
        toy.read_text().replace("os.kill(os.getpid(), signal.SIGINT)", "[os.kill(os.getpid(), signal.SIGINT) for _ in '12']")
    )
    done = train("--out", tmp_path / "out", method="toy_gan")
    assert done.code == 130
    assert not (tmp_path / "out" / "resume" / "state.pt").exists()
    assert signal.getsignal(signal.SIGINT) is handler
