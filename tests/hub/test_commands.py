"""The commands, from the user's side: run with weights, pull, push, list, add, verify."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import rows_of, write_plugin

REPO = "some-org/weights"
RUN = ("--dataset", "sample", "--limit", 2, "--metrics", "psnr", "--no-pictures", "--threads", 1)

METHOD = """
import mrbench

class Toy:
    \"\"\"Linear interpolation times the weight.\"\"\"

    def __init__(self, options):
        pass

    def load(self, checkpoint, device):
        if checkpoint is None:
            raise ValueError("no weights")
        self.gain = float(checkpoint.tensors(device)["gain"])
        assert checkpoint.config["architecture"] == {{"width": 2}}

    def restore(self, measurement, draws):
        return (mrbench.upsample(measurement, kernel="bilinear") * self.gain)[:, None].repeat(1, draws, 1, 1, 1)

@mrbench.hookimpl
def mrbench_methods():
    records = ({records})
    return [mrbench.MethodCard("toy", Toy, "a toy", tier="demo", licence="MIT", notes="toy", checkpoints=records)]
"""


def gain(value: float) -> bytes:
    import torch
    from safetensors.torch import save

    return save({"gain": torch.tensor(value)})


@pytest.fixture
def plugin(tmp_path: Path, make_folder):
    """A plugin file with weights beside it, for 4x; returns the file. Records of other places may be added."""

    def make(*more: str) -> Path:
        content = gain(1.0)
        make_folder(
            "weights/x4", content, name="demo-x4", tier="demo", probe={"name": "sample/uniform-x4", "scores": {"psnr": 0.0}}
        )
        shipped = (
            "mrbench.Checkpoint('demo-x4', f'{__name__}:weights/x4/model.safetensors', "
            f"'{hashlib.sha256(content).hexdigest()}', 'demo', scale=4, degradation='bicubic_aa', licence='MIT', "
            "probe_scores={'psnr': 0.0}), "
        )
        return write_plugin(tmp_path, "toy_plugin", METHOD.format(records=shipped + "".join(f"{m}, " for m in more)))

    return make


@pytest.fixture
def expected(mrbench, tmp_path: Path) -> float:
    """Mean PSNR of the same interpolation without weights."""
    done = mrbench("run", "-m", "bilinear", "--scale", 4, *RUN, "--out", tmp_path / "reference")
    assert done.code == 0, done.err
    return float(rows_of(tmp_path / "reference")["psnr"].mean())


# -- run -----------------------------------------------------------------------------------------------------------
def test_run_takes_the_shipped_weights(mrbench, plugin, tmp_path, expected) -> None:
    done = mrbench("run", "--plugin", plugin(), "-m", "toy", *RUN, "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "runs")
    assert set(rows["checkpoint"]) == {"demo-x4"}
    assert set(rows["tier"]) == {"demo"}
    assert set(rows["warning"]) == {""}
    assert rows["psnr"].mean() == pytest.approx(expected)


def test_run_at_a_scale_without_weights_says_what_there_is(mrbench, plugin, tmp_path) -> None:
    done = mrbench("run", "--plugin", plugin(), "-m", "toy", "--scale", 2, *RUN, "--out", tmp_path / "runs")
    assert done.code == 2
    assert "no weights ship with it for 2x. Its checkpoints: demo-x4 (demo, 4x, shipped)" in done.err
    assert not (tmp_path / "runs").exists()


def test_run_with_a_path_is_another_run_and_can_be_verified(mrbench, plugin, make_folder, tmp_path, expected) -> None:
    file, out = plugin(), tmp_path / "runs"
    folder = make_folder("mine", gain(0.9))
    done = mrbench("run", "--plugin", file, "-m", "toy", "-m", f"t2=toy@{folder}", *RUN, "--out", out)
    assert done.code == 0, done.err
    assert rows_of(out, "t2")["psnr"].mean() != pytest.approx(expected)
    assert set(rows_of(out, "t2")["tier"]) == {"retrained"}
    (run,) = (out / "sample" / "uniform-x4").glob("t2-*")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["method"]["checkpoint_reference"] == str(folder / "model.safetensors")
    assert mrbench("verify", run, "--items", 1).code == 0
    (folder / "model.safetensors").write_bytes(gain(0.8))
    changed = mrbench("verify", run, "--items", 1)
    assert changed.code == 2
    assert "had the SHA-256" in changed.err


def test_run_at_another_scale_by_name_leaves_a_warning_in_the_rows(mrbench, plugin, tmp_path) -> None:
    done = mrbench("run", "--plugin", plugin(), "-m", "toy@demo-x4", "--scale", 2, *RUN, "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    assert set(rows_of(tmp_path / "runs")["warning"]) == {"weights for 4x used at 2x"}


def test_run_with_bad_weights_ends_before_any_work(mrbench, plugin, make_folder, tmp_path, weights) -> None:
    file, out = plugin(), tmp_path / "runs"
    (tmp_path / "weights" / "x4" / "model.safetensors").write_bytes(gain(2.0))
    cases = {
        "toy": "expected SHA-256",
        "toy@none-such": "no checkpoint 'none-such'",
        f"toy@{make_folder('theirs', method='sinsr')}": "a checkpoint of method sinsr, not of toy",
        f"toy@{REPO}": "no such file or folder",
        f"toy@hf://{REPO}/model.safetensors": "no revision",
        f"toy@hf://{REPO}@main/model.safetensors": "MRBENCH_OFFLINE is set",
        "toy@": "nothing stands after the @",
        "bicubic@demo-x4": "This method has no weights",
    }
    for method, text in cases.items():
        done = mrbench("run", "--plugin", file, "-m", method, *RUN, "--out", out)
        assert done.code == 2, done.err
        assert text in done.err
    assert not out.exists()


def test_weights_that_cannot_be_read_end_the_command_before_any_work(mrbench, plugin, make_folder, weights, tmp_path) -> None:
    file, folder = plugin(), make_folder("cut", weights[:-2])
    done = mrbench("run", "--plugin", file, "-m", "bilinear", "-m", f"toy@{folder}", *RUN, "--out", tmp_path / "runs")
    assert done.code == 2
    assert "not a whole safetensors file" in " ".join(done.err.split())
    assert not list(tmp_path.rglob("*.parquet"))


# -- checkpoints ---------------------------------------------------------------------------------------------------
def test_list_add_remove(mrbench, plugin, make_folder, tmp_path) -> None:
    url = "https://example.org/v1/official.safetensors"
    file = plugin(f"mrbench.Checkpoint('official', {url!r}, '', 'official', scale=4, licence='S-Lab')")
    rows = mrbench("checkpoints", "--plugin", file, "--json").json
    mine = [r for r in rows if r["method"] == "toy"]
    assert [(r["name"], r["source"], r["state"], r["tier"]) for r in mine] == [
        ("demo-x4", "shipped", "here", "demo"),
        ("official", "elsewhere", "to download", "official"),
    ]
    text = mrbench("checkpoints", "toy", "--plugin", file).out
    assert "demo-x4" in text
    assert url in text
    assert mrbench("checkpoints", "bicubic").out == "bicubic takes no weights.\n"
    assert mrbench("checkpoints", "toi", "--plugin", file).code == 2
    assert "add" in mrbench("checkpoints", "--help").out

    folder = make_folder("mine", gain(0.5))
    assert mrbench("checkpoints", "add", "toy", folder, "--plugin", file).code == 0
    bare = tmp_path / "official.safetensors"
    bare.write_bytes(gain(0.7))
    done = mrbench("checkpoints", "add", "toy", bare, "--plugin", file, "--json")
    assert (done.json["name"], done.json["tier"], done.json["licence"]) == ("official", "official", "S-Lab")
    assert "no SHA-256 is known" in done.err
    listed = {r["name"]: r for r in mrbench("checkpoints", "list", "toy", "--plugin", file, "--json").json}
    assert {n: (r["state"], r["registered"]) for n, r in listed.items()} == {
        "demo-x4": ("here", False),
        "official": ("here", True),
        "mine": ("here", True),
    }
    done = mrbench("run", "--plugin", file, "-m", "toy@mine", *RUN, "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    assert mrbench("checkpoints", "remove", "toy", "mine").code == 0
    assert mrbench("run", "--plugin", file, "-m", "toy@mine", *RUN, "--out", tmp_path / "r2").code == 2
    assert folder.is_dir()


def test_verify_runs_the_probe_again(mrbench, plugin, tmp_path, make_folder) -> None:
    file = plugin()
    done = mrbench("checkpoints", "verify", "toy", "--plugin", file, "--threads", 1, "--json")
    assert done.code == 1
    (check,) = done.json["checkpoints"]
    (score,) = check["scores"]
    assert (check["agrees"], check["probe"]["name"], score["stored"]) == (False, "sample/uniform-x4", 0.0)
    assert "stored 0, measured" in check["reason"]
    measured = score["measured"]
    assert 20 < measured < 60

    def rewrite(psnr: float, **more) -> None:
        folder = tmp_path / "weights" / "x4"
        text = json.loads((folder / "training.json").read_text())
        text["probe"] = {"name": "sample/uniform-x4", "scores": {"psnr": psnr}, **more}
        (folder / "training.json").write_text(json.dumps(text))

    rewrite(measured + 0.04)
    done = mrbench("checkpoints", "verify", "toy", "--plugin", file, "--threads", 1)
    assert done.code == 0, done.out + done.err
    assert "1 of 1 checkpoints score what was stored" in done.out
    rewrite(measured + 0.06)
    assert mrbench("checkpoints", "verify", "toy@demo-x4", "--plugin", file, "--threads", 1).code == 1
    rewrite(measured, subset=2)  # other items: another mean
    assert mrbench("checkpoints", "verify", "toy", "--plugin", file, "--threads", 1).code == 1
    rewrite(measured, protocol="no-such-protocol")
    done = mrbench("checkpoints", "verify", "toy", "--plugin", file, "--threads", 1, "--json")
    assert done.code == 1
    assert "no protocol named 'no-such-protocol'" in done.json["checkpoints"][0]["reason"]
    (tmp_path / "weights" / "x4" / "model.safetensors").write_bytes(gain(3.0))
    done = mrbench("checkpoints", "verify", "toy", "--plugin", file, "--json")
    assert done.code == 1
    assert "expected SHA-256" in done.json["checkpoints"][0]["reason"]


def test_verify_says_what_is_not_here(mrbench, plugin) -> None:
    file = plugin(
        f"mrbench.Checkpoint('far', 'model.safetensors', '{'0' * 64}', 'official', {REPO!r}, '{'a' * 40}', licence='MIT')"
    )
    done = mrbench("checkpoints", "verify", "toy", "--plugin", file, "--threads", 1, "--json")
    assert done.json["not_here"] == [f"toy@far is not here (to pull: Hub {REPO}@aaaaaaaa)"]


# -- pull and push, as processes of their own: the client reads its environment when it is imported ----------------
def command(loopback, tmp_path: Path, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("MRBENCH_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN")}
    env |= {
        "HF_ENDPOINT": loopback.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "COLUMNS": "200",
    }
    env |= {"HF_HUB_DISABLE_XET": "1", **environ}
    words = [sys.executable, "-m", "mrbench.cli.main", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=env, timeout=120)


def on_the_hub(loopback, texts) -> str:
    """A record, in Python, of weights that lie on the loopback Hub."""
    content = gain(0.95)
    files = {f"x4/{n}": t.encode() for n, t in texts("far", tier="official").items()}
    commit = loopback.repositories[REPO].commit({"x4/model.safetensors": content, **files})
    return f"mrbench.Checkpoint('far', 'x4/model.safetensors', '{hashlib.sha256(content).hexdigest()}', 'official', {REPO!r}, '{commit}', scale=4, licence='MIT')"


@pytest.mark.slow
def test_pull_then_run_offline(loopback, plugin, texts, tmp_path) -> None:
    file = plugin(on_the_hub(loopback, texts))
    out = tmp_path / "runs"
    run = ("run", "--plugin", file, "-m", "toy@far", *RUN, "--out", out)
    refused = command(loopback, tmp_path, *run, HF_HUB_OFFLINE="1")
    assert refused.returncode == 2
    assert "HF_HUB_OFFLINE is set" in refused.stderr
    assert str(tmp_path / "hf" / "hub" / "models--some-org--weights" / "snapshots") in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not loopback.requests
    pulled = command(loopback, tmp_path, "pull", "toy@far", "--plugin", file, "--json")
    assert pulled.returncode == 0, pulled.stderr
    (got,) = json.loads(pulled.stdout)["checkpoints"]
    assert Path(got["file"]).is_file()
    everything = command(loopback, tmp_path, "pull", "toy", "--plugin", file)
    assert everything.returncode == 0
    assert got["sha256"] in everything.stdout
    loopback.requests.clear()
    done = command(loopback, tmp_path, *run, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert set(rows_of(out)["tier"]) == {"official"}
    assert not loopback.requests


@pytest.mark.slow
def test_run_pulls_by_itself(loopback, plugin, texts, tmp_path) -> None:
    file = plugin(on_the_hub(loopback, texts))
    reference = f"hf://{REPO}@main/x4/model.safetensors"
    done = command(
        loopback,
        tmp_path,
        "run",
        "--plugin",
        file,
        "-m",
        "toy@far",
        "-m",
        f"t2=toy@{reference}",
        *RUN,
        "--out",
        tmp_path / "runs",
    )
    assert done.returncode == 0, done.stderr
    assert f"'main' of {REPO} is commit" in done.stderr.replace("\n", " ")
    first, second = (rows_of(tmp_path / "runs", label)["psnr"].tolist() for label in ("toy", "t2"))
    assert first == second


@pytest.mark.slow
def test_push_shows_then_uploads(loopback, make_folder, tmp_path) -> None:
    folder = make_folder("mine", gain(0.5))
    shown = command(loopback, tmp_path, "push", folder, "my-group/toy")
    assert shown.returncode == 0, shown.stderr
    assert "would upload to" in shown.stdout
    assert "Nothing was uploaded. Add --yes to upload." in shown.stdout
    assert not loopback.requests
    refused = command(loopback, tmp_path, "push", folder, "my-group/toy", "--yes")
    assert refused.returncode == 2
    assert "hf auth login" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = command(loopback, tmp_path, "push", folder, "my-group/toy", "--yes", HF_TOKEN=loopback.write_token)
    assert done.returncode == 0, done.stderr
    commit = loopback.repositories["my-group/toy"].branches["main"]
    assert f"--method toy@hf://my-group/toy@{commit}/model.safetensors" in done.stdout
    assert f"revision='{commit}'" in done.stdout


def test_push_dry_run_in_json(mrbench, make_folder) -> None:
    done = mrbench("push", make_folder("mine"), "my-group/toy", "--json")
    assert done.code == 0
    assert done.json["uploaded"] is False
    assert [f["path"] for f in done.json["files"]] == ["model.safetensors", "config.json", "training.json", "README.md"]
    assert mrbench("push", make_folder("other"), "nowhere").code == 2


def test_pull_where_nothing_is_on_the_hub(mrbench, plugin) -> None:
    file = plugin()
    done = mrbench("pull", "toy", "--plugin", file)
    assert done.code == 0
    assert "none of its checkpoints is on the Hub. Its checkpoints: demo-x4 (demo, 4x, shipped)" in done.out
    done = mrbench("pull", "toy@demo-x4", "--plugin", file, "--json")
    assert done.json["checkpoints"][0]["source"] == "shipped"
    assert mrbench("pull", "bicubic").code == 0
    assert mrbench("pull", "toy@none", "--plugin", file).code == 2
