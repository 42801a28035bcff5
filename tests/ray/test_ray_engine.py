"""The Ray engine gives the rows of the local one; mistakes end before any work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from tests_support import rows_of, write_plugin

from mrbench.errors import UserError
from mrbench.store.runs import RunFolder, find_runs, load_runs

pytestmark = pytest.mark.timeout(180)

COMMON = ("--dataset", "sample", "--threads", 1, "--no-pictures", "--metrics", "psnr,ssim", "--device", "cpu")
TWO = ("--engine", "ray", "--workers", 2)

METHODS = """
    import os, pathlib, signal, time
    import mrbench

    class Noisy:
        def __init__(self, options):
            self.on_step = None
        def restore(self, m, draws):
            for i in range(3):
                if self.on_step is not None:
                    self.on_step(i + 1, 3)
            x = mrbench.upsample(m)
            return x[:, None] + 0.03 * m.noise(draws).normal(x.shape[1:]) * x.std()

    def picky(m):
        if any(i.endswith("/086") for i in m.ids):
            raise ValueError("not this one")
        return mrbench.upsample(m)

    def deadly(m):
        if any(i.endswith(os.environ["MRBENCH_TEST_DEADLY"]) for i in m.ids):
            os.kill(os.getpid(), signal.SIGKILL)
        return mrbench.upsample(m)

    def stubborn(m):
        flag = pathlib.Path(os.environ["MRBENCH_TEST_FLAG"])
        item = m.ids[0].replace("/", "-")
        first = not list(flag.parent.glob(f"{item}-*"))
        (flag.parent / f"{item}-{time.monotonic_ns()}").touch()
        if first and m.ids[0].endswith(os.environ["MRBENCH_TEST_DEADLY"]):
            time.sleep(170)
        return mrbench.upsample(m)

    class Doomed:
        def __init__(self, options):
            if os.getpid() != int(os.environ["MRBENCH_TEST_DRIVER"]):
                os.kill(os.getpid(), signal.SIGKILL)
        def restore(self, m, draws):
            return mrbench.upsample(m)[:, None]

    class Threads:
        def __init__(self, options):
            pass
        def restore(self, m, draws):
            import torch
            return mrbench.upsample(m)[:, None] * 0 + torch.get_num_threads() / 10

    @mrbench.hookimpl
    def mrbench_methods():
        return [
            mrbench.MethodCard("noisy", Noisy, deterministic=False),
            mrbench.MethodCard("picky", picky),
            mrbench.MethodCard("deadly", deadly),
            mrbench.MethodCard("stubborn", stubborn),
            mrbench.MethodCard("threads", Threads),
            mrbench.MethodCard("doomed", Doomed),
        ]

    @mrbench.hookimpl
    def mrbench_item_done(row):
        log = os.environ.get("MRBENCH_TEST_LOG")
        if log:
            with open(log, "a") as stream:
                stream.write(f"{os.getpid()} {row['item_id']}\\n")
"""


def same(left: Path, right: Path) -> None:
    a, b = rows_of(left), rows_of(right)
    assert len(a) > 0
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_rows_are_those_of_the_local_engine(ray_here, mrbench, tmp_path: Path, monkeypatch) -> None:
    """Two draws of noise, a learned method with its weights, a control that needs the other subjects, and hooks in the driver."""
    plugin = write_plugin(tmp_path, "methods", METHODS)
    call = ("run", "-m", "noisy", "-m", "edsr", "-m", "impostor", "--plugin", plugin, "--draws", 2, "--batch", 3, *COMMON)
    call += ("--subset", 7)
    assert mrbench(*call, "--out", tmp_path / "local").code == 0
    monkeypatch.setenv("MRBENCH_TEST_LOG", str(tmp_path / "log"))
    done = mrbench(*call, *TWO, "--out", tmp_path / "ray", "--images", "all")
    assert done.code == 0, done.err
    same(tmp_path / "local", tmp_path / "ray")
    assert set(rows_of(tmp_path / "ray")["status"]) == {"ok"}
    log = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len({pid for pid, _ in log}) == 1  # hooks are called in the driver alone
    assert len(log) == 21
    local, ray = (load_runs([tmp_path / n]) for n in ("local", "ray"))
    for a, b in zip(local, ray, strict=True):
        one, two = a.manifest.model_dump(), b.manifest.model_dump()
        assert {k for k in one if one[k] != two[k]} <= {"created", "updated"}
        assert RunFolder(a.folder).plan() == RunFolder(b.folder).plan()
    again = mrbench(*call, *TWO, "--out", tmp_path / "ray")
    assert "7 were stored before" in again.out


def test_a_failing_item_fails_alone(ray_here, mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "methods", METHODS)
    call = ("run", "-m", "picky", "--plugin", plugin, "--batch", 4, *COMMON)
    local = mrbench(*call, "--out", tmp_path / "local")
    done = mrbench(*call, *TWO, "--out", tmp_path / "ray")
    assert (local.code, done.code) == (1, 1)
    same(tmp_path / "local", tmp_path / "ray")
    statuses = rows_of(tmp_path / "ray")["status"]
    assert set(statuses) == {"ok", "failed"}
    assert done.err.splitlines()[-1] == local.err.splitlines()[-1]


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_becomes_failed_rows(ray_here, mrbench, tmp_path: Path, monkeypatch) -> None:
    plugin = write_plugin(tmp_path, "methods", METHODS)
    call = ("run", "-m", "deadly", "--plugin", plugin, "--batch", 2, *COMMON, "--subset", 6)
    monkeypatch.setenv("MRBENCH_TEST_DEADLY", "nothing")
    assert mrbench(*call, "--out", tmp_path / "local").code == 0
    expected = rows_of(tmp_path / "local")
    victim = expected["item_id"][2]
    monkeypatch.setenv("MRBENCH_TEST_DEADLY", victim)
    done = mrbench(*call, *TWO, "--out", tmp_path / "ray")
    assert done.code == 1
    assert "3 workers died on this shard" in done.err
    rows = rows_of(tmp_path / "ray")
    failed = rows[rows["status"] == "failed"]
    assert victim in set(failed["item_id"])
    assert set(failed["shard"]) == set(expected.loc[expected["item_id"] == victim, "shard"])
    kept = rows["status"] == "ok"
    pd.testing.assert_frame_equal(rows[kept], expected[kept], check_exact=True)
    monkeypatch.setenv("MRBENCH_TEST_DEADLY", "nothing")
    assert mrbench(*call, *TWO, "--out", tmp_path / "ray").code == 0  # failures are tried again
    same(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
def test_a_method_that_kills_whoever_loads_it(ray_here, mrbench, tmp_path: Path, monkeypatch) -> None:
    plugin = write_plugin(tmp_path, "methods", METHODS)
    monkeypatch.setenv("MRBENCH_TEST_DRIVER", str(os.getpid()))
    call = ("run", "-m", "doomed", "-m", "bicubic", "--plugin", plugin, *COMMON, "--subset", 2)
    done = mrbench(*call, *TWO, "--out", tmp_path / "ray")
    assert done.code == 1
    assert "workers died while they loaded the method" in done.err
    rows = rows_of(tmp_path / "ray")
    assert set(rows.loc[rows["method"] == "doomed", "status"]) == {"failed"}
    assert set(rows.loc[rows["method"] == "bicubic", "status"]) == {"ok"}  # the run goes on


@pytest.mark.slow
def test_stragglers_do_not_block(ray_here, mrbench, tmp_path: Path, monkeypatch) -> None:
    """A worker that hangs for longer than this test may take: the shard is computed again by the other one."""
    plugin = write_plugin(tmp_path, "methods", METHODS)
    call = ("run", "-m", "stubborn", "--plugin", plugin, "--batch", 2, *COMMON, "--subset", 6)
    monkeypatch.setenv("MRBENCH_TEST_DEADLY", "nothing")
    monkeypatch.setenv("MRBENCH_TEST_FLAG", str(tmp_path / "local-flags" / "x"))
    (tmp_path / "local-flags").mkdir()
    assert mrbench(*call, "--out", tmp_path / "local").code == 0
    victim = rows_of(tmp_path / "local")["item_id"][0]
    monkeypatch.setenv("MRBENCH_TEST_DEADLY", victim)
    monkeypatch.setenv("MRBENCH_TEST_FLAG", str(tmp_path / "ray-flags" / "x"))
    (tmp_path / "ray-flags").mkdir()
    assert mrbench(*call, *TWO, "--out", tmp_path / "ray").code == 0
    same(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
def test_threads_are_those_of_the_command(ray_here, mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "methods", METHODS)
    call = (
        "run",
        "-m",
        "threads",
        "--plugin",
        plugin,
        "--dataset",
        "sample",
        "--subset",
        2,
        "--metrics",
        "psnr",
        "--no-pictures",
    )
    call += ("--threads", 2, "--device", "cpu")
    for name, how in (("local", ()), ("ray", ("--engine", "ray", "--workers", 1))):
        assert mrbench(*call, *how, "--out", tmp_path / name).code == 0
    same(tmp_path / "local", tmp_path / "ray")
    assert set(rows_of(tmp_path / "ray", measured=True)["threads"]) == {2}


@pytest.mark.slow
def test_sweeps_run_on_ray(ray_here, mrbench, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("methods: [bicubic, edsr]\ndatasets: [sample]\nscales: [4]\nmetrics: [psnr]\nsubset: 4\nimages: none\n")
    call = ("sweep", file, "--threads", 1, "--device", "cpu")
    assert mrbench(*call, "--out", tmp_path / "local").code == 0
    done = mrbench(*call, *TWO, "--out", tmp_path / "ray", "--json")
    assert done.code == 0, done.err
    assert [e["state"] for e in json.loads(done.out)["entries"]] == ["done", "done"]
    same(tmp_path / "local", tmp_path / "ray")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--workers", 2), "--workers goes with --engine ray"),
        (("--address", "auto"), "--address goes with --engine ray"),
        (("--gpus-per-worker", 1), "--gpus-per-worker goes with --engine ray"),
        (("--engine", "slurm"), "--engine slurm: unknown. Known: local, ray."),
        ((*TWO[:2], "--workers", 0), "--workers 0: expected a number of workers"),
        ((*TWO, "--gpus-per-worker", 0), "--gpus-per-worker 0: expected a share above 0"),
        ((*TWO, "--gpus-per-worker", 1.5), "Ray takes whole GPUs"),
        ((*TWO, "--gpus-per-worker", 1), "--gpus-per-worker and --device cpu exclude each other"),
        ((*TWO, "--address", "here"), "expected auto, local, HOST:PORT or ray://HOST:PORT"),
        ((*TWO, "--address", "ray://10.0.0.1"), "expected auto, local, HOST:PORT or ray://HOST:PORT"),
    ],
)
def test_mistakes(mrbench, tmp_path: Path, extra: tuple[object, ...], message: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mrbench[ray]'")
    done = mrbench("run", "-m", "bicubic", *COMMON, "--out", tmp_path / "out", *extra)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_devices_are_dealt_out_by_ray(mrbench, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mrbench[ray]'")
    done = mrbench("run", "-m", "bicubic", "-d", "sample", "--device", "cuda:1", "--out", tmp_path / "out", *TWO)
    assert done.code == 2
    assert "Use auto, cpu or cuda" in done.err


def test_an_address_where_nothing_answers() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mrbench[ray]'")
    from mrbench.engine.ray_cluster import RayOptions, _join

    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        RayOptions(address).check()
        with pytest.raises(UserError, match=r"nothing answers at 127\.0\.0\.1:1"):
            _join(None, address, {})


def test_a_cluster_without_what_is_asked_for(ray_here, mrbench, tmp_path: Path) -> None:
    call = ("run", "-m", "bicubic", "-d", "sample", "--out", tmp_path / "out", *TWO, "--metrics", "psnr")
    done = mrbench(*call, "--device", "cuda")
    assert (done.code, "the Ray cluster has no GPU" in done.err) == (2, True)
    done = mrbench(*call, "--gpus-per-worker", 0.5)
    assert (done.code, "the Ray cluster has no GPU" in done.err) == (2, True)
    done = mrbench(*call, "--threads", 64)
    assert (done.code, "no machine of the Ray cluster has 64 CPUs for a worker (the largest has 2 CPUs)" in done.err) == (
        2,
        True,
    )
    assert not (tmp_path / "out").exists()


def test_without_ray_the_command_says_how_to_get_it(mrbench, tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    done = mrbench("run", "-m", "bicubic", *COMMON, "--out", tmp_path / "out", *TWO)
    assert done.code == 2
    assert "pip install 'mrbench[ray]'" in done.err


@pytest.mark.slow
def test_results_go_to_a_url(ray_here, mrbench, tmp_path: Path, monkeypatch) -> None:
    """Workers store their own parts; another machine (an empty cache) reads and resumes them."""
    plugin = write_plugin(tmp_path, "methods", METHODS)
    url = f"file://{tmp_path}/bucket"
    call = ("run", "-m", "noisy", "--plugin", plugin, "--draws", 2, "--batch", 3, *COMMON, "--subset", 7)
    assert mrbench(*call, "--out", tmp_path / "local").code == 0
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "one"))
    done = mrbench(*call, *TWO, "--out", url)
    assert done.code == 0, done.err
    assert len(list((tmp_path / "bucket").rglob("shard-*.parquet"))) == 3
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "two"))
    again = mrbench(*call, *TWO, "--out", url)
    assert "7 were stored before" in again.out
    (staging,) = find_runs([tmp_path / "two" / "remote"])
    same(tmp_path / "local", staging)
