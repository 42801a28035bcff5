"""What clusters do: workers, machines and drivers die at random moments; nothing is lost, and the rows stay the same."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from tests_support import rows_of, spawn, write_plugin

pytest.importorskip("ray", reason="Ray is not installed: pip install 'mrbench[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS = 30

SLOW = """
    import time
    import mrbench
    class Slow:
        def __init__(self, options):
            pass
        def restore(self, m, draws):
            time.sleep(0.4 * len(m.ids))
            x = mrbench.upsample(m)
            return x[:, None] + 0.03 * m.noise(draws).normal(x.shape[1:]) * x.std()
    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("slow", Slow, deterministic=False)]
"""


def command(plugin: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "run", "--method", "slow", "--method", "bicubic", "--plugin", plugin, "--dataset", "sample", "--draws", 2, "--batch", 2,
        "--metrics", "psnr,ssim", "--out", out, "--no-pictures", "--threads", 1, "--device", "cpu", *more,
    )  # fmt: skip


def family(process) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(process) -> list[psutil.Process]:
    found = []
    for child in family(process):
        try:
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::Worker"):
                found.append(child)
        except psutil.Error:
            continue
    return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def left(processes: list[psutil.Process], agents: bool = False) -> list[psutil.Process]:
    """Those that have not ended after a while. Ray's own agents look only once a minute whether they are alone."""
    if not agents:
        processes = [p for p in alive(processes) if "Agent" not in p.name()]
    end = time.monotonic() + (150 if agents else 30)
    while alive(processes) and time.monotonic() < end:
        time.sleep(0.2)
    return alive(processes)


def test_sigkill_of_workers_and_drivers(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "slow", SLOW)
    assert mrbench(*command(plugin, tmp_path / "whole")).code == 0
    expected = rows_of(tmp_path / "whole")
    rng = random.Random(11)
    kills = {"driver": 0, "worker": 0}
    agents: list[psutil.Process] = []
    rounds, out = 0, tmp_path / "round0"
    while sum(kills.values()) < KILLS:
        process = spawn(*command(plugin, out, "--engine", "ray", "--workers", 2))
        in_this_call = 0
        while process.poll() is None and sum(kills.values()) < KILLS:
            if not workers(process):
                time.sleep(0.2)
                continue
            time.sleep(rng.uniform(0.2, 3.0))
            if process.poll() is not None:
                break
            if in_this_call == 4:  # then the driver
                everyone = family(process)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills["driver"] += 1
                assert left(everyone) == []  # workers whose driver died end
                agents += everyone
                break
            victims = workers(process)
            if victims:
                try:
                    rng.choice(victims).send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
                kills["worker"] += 1
                in_this_call += 1
        if sum(kills.values()) >= KILLS and process.poll() is None:
            everyone = family(process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills["driver"] += 1
            assert left(everyone) == []
            agents += everyone
        elif process.poll() == 0:
            process.communicate()
            pd.testing.assert_frame_equal(rows_of(out), expected, check_exact=True)
            rounds += 1
            out = tmp_path / f"round{rounds}"
        else:
            process.communicate()
    done = spawn(*command(plugin, out, "--engine", "ray", "--workers", 2))
    _, err = done.communicate()
    assert done.returncode == 0, err
    pd.testing.assert_frame_equal(rows_of(out), expected, check_exact=True)
    assert kills["driver"] >= 3, kills
    assert kills["worker"] >= 15, kills
    assert not list(out.rglob("*.damaged-*"))
    assert left(agents, agents=True) == []


def test_a_machine_is_lost_and_another_joins(mrbench, tmp_path: Path) -> None:
    """A cluster of one head without CPUs and two machines; one is killed in the middle, and one more comes later."""
    from ray.cluster_utils import Cluster

    plugin = write_plugin(tmp_path, "slow", SLOW)
    assert mrbench(*command(plugin, tmp_path / "whole")).code == 0
    small = {"object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        lost = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        call = command(plugin, tmp_path / "ray", "--engine", "ray", "--workers", 2, "--address", cluster.address)
        process = spawn(*call)
        while not list((tmp_path / "ray").rglob("shard-*.parquet")) and process.poll() is None:
            time.sleep(0.1)
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        _, err = process.communicate()
        assert process.returncode == 0, err
    finally:
        cluster.shutdown()
    pd.testing.assert_frame_equal(rows_of(tmp_path / "ray"), rows_of(tmp_path / "whole"), check_exact=True)


def test_ctrl_c_ends_with_one_message(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "slow", SLOW)
    assert mrbench(*command(plugin, tmp_path / "whole")).code == 0
    process = spawn(*command(plugin, tmp_path / "cut", "--engine", "ray", "--workers", 2))
    while not list((tmp_path / "cut").rglob("shard-*.parquet")) and process.poll() is None:
        time.sleep(0.05)
    everyone = family(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith("stopped. What was finished is stored")
    assert "Traceback" not in err
    assert left(everyone) == []
    assert mrbench(*command(plugin, tmp_path / "cut")).code == 0  # and the local engine goes on from there
    pd.testing.assert_frame_equal(rows_of(tmp_path / "cut"), rows_of(tmp_path / "whole"), check_exact=True)


def test_nothing_but_results_on_standard_output(mrbench, tmp_path: Path) -> None:
    """Ray reports lost workers on standard output by itself, which would spoil --json. Its folder goes with it."""
    plugin = write_plugin(tmp_path, "slow", SLOW)
    before = {p for p in os.listdir("/tmp") if p.startswith("mrbench-ray-")}
    process = spawn(*command(plugin, tmp_path / "ray", "--engine", "ray", "--workers", 2, "--json"), cwd=tmp_path)
    while not list((tmp_path / "ray").rglob("shard-*.parquet")) and process.poll() is None:
        time.sleep(0.1)
    workers(process)[0].send_signal(signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(json.loads(out)["runs"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ray", "slow.py"]
    assert {p for p in os.listdir("/tmp") if p.startswith("mrbench-ray-")} <= before


def test_files_of_killed_commands_are_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrbench.engine import ray_cluster

    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_cluster, "LONGEST_TEMPORARY", 1000)
    used, owner = ray_cluster._temporary()
    killed, lost = ray_cluster._temporary()
    lost.release()
    new, third = ray_cluster._temporary()
    assert used.is_dir()
    assert not killed.exists()
    owner.release()
    third.release()
    assert new.is_dir()
