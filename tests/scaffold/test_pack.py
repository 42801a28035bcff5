"""`mrbench checkpoints pack`: weights from elsewhere become a checkpoint folder, or are refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import Done, rows_of, write_plugin
from typer.testing import CliRunner

import mrbench as package
from mrbench.cli import checkpoints
from mrbench.data.leaks import subject_hash
from mrbench.errors import UserError
from mrbench.hub import Hub, plan_push, read_folder, source_of
from mrbench.plugins import discover
from mrbench.train.packing import parse_config, read_tensors

ROOT = Path(__file__).resolve().parents[2]
TOY = """
import torch
import mrbench
from mrbench.errors import UserError


class Toy:
    def __init__(self, options):
        pass

    def load(self, checkpoint, device):
        if checkpoint is None:
            raise UserError("toy needs weights")
        width = checkpoint.config["architecture"]["width"]
        self.net = torch.nn.Conv2d(1, width, 3, padding=1)
        state = checkpoint.tensors("cpu")
        missing = set(self.net.state_dict()) ^ set(state)
        if missing:
            raise UserError(f"{checkpoint.file} does not fit: {sorted(missing)}")
        self.net.load_state_dict(state)

    def restore(self, measurement, draws):
        x = mrbench.upsample(measurement)
        return (x + 0 * self.net(x).mean(1, keepdim=True))[:, None].repeat(1, draws, 1, 1, 1)


@mrbench.hookimpl
def mrbench_methods():
    card = dict(summary="a toy", tier="author", licence="MIT", notes="toy", scales=(2, 4), channels=(1,))
    return [mrbench.MethodCard("toy", Toy, **card), mrbench.MethodCard("plain", lambda m: mrbench.upsample(m), "s", notes="n")]
"""
SAID = ("--trained-on", "T2 of 7 people", "--licence", "MIT", "--name", "w1")


def weights(width: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"weight": torch.randn(width, 1, 3, 3, generator=generator), "bias": torch.randn(width, generator=generator)}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_plugin(tmp_path, "toy_plugin", TOY)


@pytest.fixture
def pack(tmp_path: Path, toy: Path) -> Callable[..., Any]:
    """Pack into ``tmp_path/out`` with what all need; more arguments come before."""

    def call(
        file: Path, *more: object, said: tuple[str, ...] = SAID, config: tuple[str, ...] = ("architecture.width=4",)
    ) -> Any:
        given = [x for c in config for x in ("--config", c)]
        line = ["pack", file, "--method", "toy", "--plugin", toy, "--out", tmp_path / "out", *said, *given, *more]
        return CliRunner().invoke(checkpoints.app, list(map(str, line)))

    return call


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    save_file(weights(), tmp_path / "given.safetensors")
    return tmp_path / "given.safetensors"


def refused(done: Any, tmp_path: Path) -> str:
    """The reason; nothing was left behind."""
    assert isinstance(done.exception, UserError), done.output + repr(done.exception)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))
    return str(done.exception)


# -- what is made ----------------------------------------------------------------------------------------------------
def test_the_folder(pack: Callable[..., Any], safe: Path, tmp_path: Path) -> None:
    (tmp_path / "people.txt").write_text("anna\n\nbert\r\nanna\n")
    (tmp_path / "net.json").write_text('{"architecture": {"width": 3, "depth": 1}, "scale": 2, "degradation": "bicubic_aa"}')
    done = pack(
        safe, "--subjects", tmp_path / "people.txt", "--optimised-for", "psnr,ssim", "--tier", "official",
        config=(str(tmp_path / "net.json"), "architecture.width=4", "scale=4"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output + repr(done.exception)
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors", "training.json"]
    config = json.loads((folder / "config.json").read_text())
    assert config == {
        "format": 1, "method": "toy", "name": "w1", "tier": "official", "licence": "MIT", "kind": "network", "scale": 4,
        "degradation": "bicubic_aa", "channels": 1, "method_options": {}, "architecture": {"width": 4, "depth": 1},
    }  # fmt: skip
    training = json.loads((folder / "training.json").read_text())
    assert training["subjects"] == sorted(map(subject_hash, ("anna", "bert")))
    assert training["packed_from"]["file"] == "given.safetensors"
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(stored[k], v) for k, v in weights().items())
    record = read_folder(folder, "toy").record
    assert (record.name, record.tier, record.scale, record.licence) == ("w1", "official", 4, "MIT")
    assert (record.trained_on, record.optimised_for) == ("T2 of 7 people", ("psnr", "ssim"))
    text = (folder / "README.md").read_text()
    for words in (
        "T2 of 7 people",
        "hashes of the 2 subjects",
        "not trained with mrbench",
        "--scale 4",
        "Trained for: psnr, ssim",
        "MIT",
    ):
        assert words in text
    # the printed record is the record
    printed = done.stdout[done.stdout.index("mrbench.Checkpoint(") :]
    assert eval(printed, {"mrbench": package}) == record
    assert f"--method toy@{folder}" in done.stdout
    assert f"mrbench push {folder} ORG/REPO" in done.stdout


def test_it_runs_and_can_be_pushed(
    pack: Callable[..., Any],
    safe: Path,
    toy: Path,
    tmp_path: Path,
    mrbench: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = pack(safe, "--json", config=("architecture.width=4", "scale=2"))
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["record"]["name"] == "w1"
    assert "nobody says whom" in document["notes"][0]
    ran = mrbench(
        "run", "--plugin", toy, "--method", f"toy@{tmp_path / 'out'}", "--dataset", "sample", "--scale", 2, "--subset", 2,
        "--metrics", "psnr", "--images", "none", "--out", tmp_path / "runs",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "training subjects unknown" in ran.err
    assert set(rows_of(tmp_path / "runs")["tier"]) == {"author"}
    plan = plan_push(tmp_path / "out", "group/toy-x2", Hub.from_environment())
    assert plan.warnings == ("training.json holds no probe scores: nobody can check the weights",)
    _push_prints_the_record(plan, monkeypatch)


def _push_prints_the_record(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the upload, with the commit in it: ready to be pasted into the method's card."""
    import dataclasses

    from typer import Typer

    from mrbench.hub.pushing import Pushed

    record = dataclasses.replace(plan.checkpoint.record, file="model.safetensors", repo_id=plan.repo_id, revision="a" * 40)
    pushed = Pushed("a" * 40, "https://example.org", record, f"hf://{plan.repo_id}@{'a' * 40}/model.safetensors")
    monkeypatch.setattr("mrbench.hub.push", lambda *_: pushed)
    app = Typer()
    app.command()(checkpoints.push)
    done = CliRunner().invoke(app, [str(plan.folder), plan.repo_id, "--yes"])
    assert done.exit_code == 0, done.output
    assert eval(done.stdout[done.stdout.index("mrbench.Checkpoint(") :], {"mrbench": package}) == record
    assert source_of(record) == "hub"


def test_subjects_are_kept_apart(
    pack: Callable[..., Any], safe: Path, toy: Path, tmp_path: Path, mrbench: Callable[..., Done]
) -> None:
    (tmp_path / "people.txt").write_text("colin27\n")
    assert pack(safe, "--subjects", tmp_path / "people.txt").exit_code == 0
    asked = ("--dataset", "sample", "--subset", 2, "--metrics", "psnr", "--images", "none", "--out", tmp_path / "runs")
    ran = mrbench("run", "--plugin", toy, "--method", f"toy@{tmp_path / 'out'}", *asked)
    assert ran.code == 2
    assert "trained or validated on 1 of the 2 subjects" in ran.err


def test_shipped_weights_through_a_published_file(tmp_path: Path) -> None:
    """Through a .pth and back, with the configuration that lies beside the shipped ones: the same tensors, loaded strictly."""
    (shipped,) = discover(environ={"MRBENCH_PLUGINS": ""}).methods.get("edsr").checkpoints
    folder = ROOT / "methods" / "edsr" / Path(shipped.file.partition(":")[2]).parent
    tensors = load_file(folder / "model.safetensors")
    torch.save({"step": 3, "state_dict": tensors}, tmp_path / "edsr.pth")
    line = [
        "pack",
        tmp_path / "edsr.pth",
        "--method",
        "edsr",
        "--config",
        folder / "config.json",
        "--trained-on",
        "IXI",
        "--out",
        tmp_path / "out",
    ]
    done = CliRunner().invoke(checkpoints.app, list(map(str, line)))
    assert done.exit_code == 0, done.output + repr(done.exception)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[k], v) for k, v in tensors.items())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["name"], config["tier"], config["scale"]) == ("x4", "demo", 4)
    assert "CC BY-SA" in config["licence"]


# -- files -----------------------------------------------------------------------------------------------------------
def test_wrapped_tensors(tmp_path: Path) -> None:
    plain, other = weights(), {k: v + 1 for k, v in weights().items()}
    torch.save(plain, tmp_path / "plain.pth")
    assert set(read_tensors(tmp_path / "plain.pth")[0]) == {"weight", "bias"}
    torch.save({"epoch": 3, "params_ema": plain}, tmp_path / "one.pth")
    found, notes = read_tensors(tmp_path / "one.pth")
    assert torch.equal(found["bias"], plain["bias"])
    assert not notes
    torch.save({"params": plain, "params_ema": other}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"'params_ema' and 'params'\. Say which are meant: --unwrap params_ema"):
        read_tensors(tmp_path / "two.pth")
    assert torch.equal(read_tensors(tmp_path / "two.pth", ["params"])[0]["bias"], plain["bias"])
    torch.save({"nets": {"g": {**plain, "step": 1}}}, tmp_path / "deep.pth")
    with pytest.raises(UserError, match=r"no tensors by name\. Its keys: 'nets'\. Name the one"):
        read_tensors(tmp_path / "deep.pth")
    found, notes = read_tensors(tmp_path / "deep.pth", ["nets", "g"])
    assert set(found) == set(plain)
    assert notes == ["left out, as no tensors (1): step"]
    with pytest.raises(UserError, match=r"--unwrap h: .* has no such key\. Its keys: 'g'"):
        read_tensors(tmp_path / "deep.pth", ["nets", "h"])


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_code_in_a_file_is_not_executed(pack: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": weights(), "extra": _Bomb()}, tmp_path / "bomb.pth")
    assert "Loading it could run code, so nothing of it was executed" in refused(pack(tmp_path / "bomb.pth"), tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_files_that_are_no_weights(pack: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00\x00\x00")
    assert "not a whole safetensors file" in refused(pack(tmp_path / "cut.safetensors"), tmp_path)
    (tmp_path / "w.bin").write_bytes(b"1")
    assert "weights are read from .safetensors" in refused(pack(tmp_path / "w.bin"), tmp_path)
    assert "no such file" in refused(pack(tmp_path / "gone.pth"), tmp_path)


# -- statements ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (("architecture.width=5",), "cannot load these weights with this configuration: RuntimeError"),
        ((), "cannot load these weights with this configuration: KeyError"),
        (("architecture.width=4", "scal=4"), "--config scal: unknown. Did you mean 'scale'"),
        (("width=4",), "goes under architecture"),
        (("architecture=4",), "architecture is 4, expected a JSON object"),
        (("scale=3",), "scale 3 is none of the method's (2, 4)"),
        (("scale=four",), "scale 'four' is no whole number"),
        (("channels=3",), "channels 3 are none of the method's (1)"),
        (("kind=net",), "kind 'net' is none of network, prior"),
        (("method=edsr",), "--method toy: the configuration says 'edsr'"),
        (("licence=GPL",), "--licence MIT: the configuration says 'GPL'"),
        (("format=2",), "format 2 is not 1"),
        (("nowhere.json",), "no such file. Expected FILE.json or KEY=VALUE"),
        (("a..b=1",), "expected FILE.json or KEY=VALUE"),
    ],
)
def test_configurations_that_are_refused(
    pack: Callable[..., Any], safe: Path, tmp_path: Path, config: tuple[str, ...], words: str
) -> None:
    assert words in refused(pack(safe, config=config), tmp_path)


def test_tensors_that_do_not_fit(pack: Callable[..., Any], tmp_path: Path) -> None:
    save_file({"weight": weights()["weight"]}, tmp_path / "part.safetensors")
    message = refused(pack(tmp_path / "part.safetensors"), tmp_path)
    assert "method toy refuses these weights" in message
    assert "part.safetensors does not fit: ['bias']" in message


@pytest.mark.parametrize(
    ("said", "more", "words"),
    [
        (("--trained-on", " ", *SAID[2:]), (), "--trained-on is empty"),
        (("--trained-on", "x", "--name", "w"), (), "no licence"),
        (("--trained-on", "x", "--licence", "MIT"), (), "no name"),
        (SAID, ("--tier", "best"), "tier 'best' is none of"),
        (SAID, ("--optimised-for", "psrn"), "Did you mean 'psnr'"),
        (SAID, ("--subjects", "gone.txt"), "--subjects gone.txt: cannot be read"),
        (SAID, ("--method", "plain"), "takes no weights"),
        (SAID, ("--method", "tyo"), "Did you mean 'toy'"),
    ],
)
def test_statements_that_are_refused(
    pack: Callable[..., Any], safe: Path, tmp_path: Path, said: tuple[str, ...], more: tuple[str, ...], words: str
) -> None:
    config = () if more[:1] == ("--method",) and more[1] == "plain" else ("architecture.width=4",)
    assert words in refused(pack(safe, *more, said=said, config=config), tmp_path)


def test_nothing_is_overwritten(pack: Callable[..., Any], safe: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("my work")
    done = pack(safe)
    assert "nothing is overwritten" in str(done.exception)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]
    (tmp_path / "out" / "mine").unlink()
    assert pack(safe).exit_code == 0  # an empty folder is taken


def test_config_texts(tmp_path: Path) -> None:
    (tmp_path / "a=b.json").write_text('{"scale": 2, "architecture": {"x": [1, 2], "y": {"z": 1}}}')
    found = parse_config([str(tmp_path / "a=b.json"), "architecture.y.z=[3]", "degradation=area", "architecture.flag=true"])
    assert found == {"scale": 2, "degradation": "area", "architecture": {"x": [1, 2], "y": {"z": [3]}, "flag": True}}
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="expected a JSON object, got list"):
        parse_config([str(tmp_path / "list.json")])
