"""Two processes train what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mrbench.train.checkpoint import read_weights

WATCHED = """
import pathlib
import torch
try:
    main.main()
finally:
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    pathlib.Path({folder!r}, f"count-{{rank}}").write_text(str(count))
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo backend")
@pytest.mark.parametrize("method", ["toy", "toy_stages"])
def test_two_processes_on_the_cpu(
    train, toy: Path, images: Path, train_command, main_text: str, tmp_path: Path, method: str
) -> None:
    """The same patches, averaged gradients: the same weights but for the order of sums (no dropout, no noise)."""
    quiet = ("--steps", 12, "--set", f"{method}.noise=0.0", "--set", f"{method}.dropout=0.0", "--set", f"{method}.weights=fp32")
    script = tmp_path / "main.py"
    arguments = train_command(toy, images, "--out", tmp_path / "two", *quiet, method=method)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               str(script), "train", *map(str, arguments)]  # fmt: skip
    script.write_text(main_text.replace("main.main()", WATCHED.format(folder=str(tmp_path))))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(f.read_text() for f in tmp_path.glob("count-*")) == ["2", "2"]
    assert done.stdout.count("use it:") == 1  # one process reports
    assert train("--out", tmp_path / "one", *quiet, method=method).code == 0
    one, two = (read_weights(tmp_path / f / "model.safetensors") for f in ("one", "two"))
    assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)
    assert any(v.abs().max() > 1e-3 for k, v in two.items() if "last" in k)
