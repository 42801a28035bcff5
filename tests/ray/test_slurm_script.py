"""The Slurm script of the documentation, carried out with a Slurm of three small scripts that knows one machine twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from tests_support import rows_of

pytest.importorskip("ray", reason="Ray is not installed: pip install 'mrbench[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
TOOLS = {
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
    "scontrol": "printf 'one\\ntwo\\n'",
}
CALL = re.compile(r"mrbench run --method edsr --method res_srdiff --dataset ixi --scale 4 --draws 10 --out runs ")


def test_the_script_starts_ray_and_runs(mrbench, tmp_path: Path) -> None:
    text = next(
        b for b in re.findall(r"^```bash[^\n]*\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE) if "ray start" in b
    )
    options = "--method bicubic --dataset sample --metrics psnr --threads 1 --no-pictures --batch 2"
    script, count = CALL.subn(f"mrbench run {options} --out runs ", text)
    assert count == 1
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in TOOLS.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text(f'export PATH="{tools}:{Path(sys.executable).parent}:$PATH"\n')
    (tmp_path / "job.sh").write_text(script)
    slurm = {"JOB_NODELIST": "one,two", "JOB_ID": str(os.getpid()), "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "1"}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "RAY_"))}
    env |= {f"SLURM_{k}": v for k, v in slurm.items()}
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True)
        everything: dict[int, psutil.Process] = {}
        try:
            while job.poll() is None:
                everything |= {p.pid: p for p in psutil.Process(job.pid).children(recursive=True)}
                try:
                    job.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
        finally:  # as Slurm does when a job ends
            for process in everything.values():
                if process.is_running():
                    process.kill()
            psutil.wait_procs(list(everything.values()), 20)
            shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)
    assert job.returncode == 0, (tmp_path / "log").read_text()
    assert mrbench("run", *options.split(), "--out", tmp_path / "local").code == 0
    pd.testing.assert_frame_equal(rows_of(tmp_path / "runs"), rows_of(tmp_path / "local"), check_exact=True)
