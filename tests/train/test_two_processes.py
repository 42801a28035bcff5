"""Of two processes that train together (gloo, on the CPU), the first one alone writes; files and weights are those of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mrbench.train.checkpoint import read_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# What `-m mrbench.cli.main` does; every write to the checkpoint's folder is noted with the rank of its process.
WATCHED = """
import os, pathlib, sys
log, out = pathlib.Path({log!r}), {out!r}
def hook(event, args):
    if event in ("open", "os.rename", "os.mkdir") and isinstance(args[0], str) and args[0].startswith(out):
        writes = event != "open" or any(m in str(args[1]) for m in "wax+") or (isinstance(args[2], int) and args[2] & os.O_CREAT)
        if writes:
            with open(log / os.environ["RANK"], "a") as stream:
                stream.write(args[0] + "\\n")
sys.addaudithook(hook)
from mrbench.cli import main
main.main()
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo backend")
def test_the_first_process_alone_writes(train, toy: Path, images: Path, train_command, tmp_path: Path) -> None:
    quiet = ("--steps", 8, "--set", "toy.noise=0.0", "--set", "toy.dropout=0.0", "--set", "toy.weights=fp32")
    log = tmp_path / "log"
    log.mkdir()
    script = tmp_path / "main.py"
    script.write_text(WATCHED.format(log=str(log), out=str(tmp_path / "two")))
    arguments = train_command(toy, images, "--out", tmp_path / "two", *quiet)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script), "train", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("use it:") == 1
    assert [p.name for p in log.iterdir()] == ["0"]  # nobody else writes
    assert train("--out", tmp_path / "one", *quiet).code == 0
    one, two = (read_weights(tmp_path / f / "model.safetensors") for f in ("one", "two"))
    assert set(one) == set(two)
    assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)
    files = {name: {p.name for p in (tmp_path / name).iterdir()} for name in ("one", "two")}
    assert files["one"] == files["two"]
