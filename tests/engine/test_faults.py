"""Kills at random moments, and several processes on one run folder: the rows stay those of an uninterrupted run."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from tests_support import rows_of, spawn, write_plugin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# A method slow enough to be killed in the middle, with random numbers, so that seeds and batches matter.
SLOW = """
    import time
    import mrbench
    class Slow:
        def __init__(self, options):
            pass
        def restore(self, m, draws):
            time.sleep(0.05 * len(m.ids))
            x = mrbench.upsample(m)
            return x[:, None] + 0.03 * m.noise(draws).normal(x.shape[1:]) * x.std()
    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("slow", Slow, deterministic=False)]
"""


def command(plugin: Path, out: Path) -> tuple[object, ...]:
    return (
        "run",
        "--method",
        "slow",
        "--method",
        "bicubic",
        "--plugin",
        plugin,
        "--dataset",
        "sample",
        "--draws",
        2,
        "--batch",
        3,
        "--metrics",
        "psnr,ssim",
        "--out",
        out,
        "--no-pictures",
        "--threads",
        1,
    )


def test_sigkill_at_random_moments(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "slow", SLOW)
    assert mrbench(*command(plugin, tmp_path / "whole")).code == 0
    expected = rows_of(tmp_path / "whole")
    start = time.monotonic()
    process = spawn(*command(plugin, tmp_path / "timing"))
    process.communicate()
    assert process.returncode == 0
    lifetime = time.monotonic() - start
    rng = random.Random(7)
    kills, rounds = 0, 0
    while kills < 10:
        out = tmp_path / f"round{rounds}"
        rounds += 1
        for _ in range(6):  # several kills in one folder, then let it finish
            process = spawn(*command(plugin, out))
            time.sleep(rng.uniform(0.3, 1.0) * lifetime)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.communicate()
        assert mrbench(*command(plugin, out)).code == 0
        pd.testing.assert_frame_equal(rows_of(out), expected, check_exact=True)
        assert rounds < 10


def test_two_processes_share_a_run_folder(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "slow", SLOW)
    assert mrbench(*command(plugin, tmp_path / "whole")).code == 0
    pair = [spawn(*command(plugin, tmp_path / "shared")) for _ in range(2)]
    outputs = [p.communicate() for p in pair]
    assert [p.returncode for p in pair] == [0, 0], outputs
    pd.testing.assert_frame_equal(rows_of(tmp_path / "shared"), rows_of(tmp_path / "whole"), check_exact=True)


def test_one_of_two_processes_is_killed(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "slow", SLOW)
    assert mrbench(*command(plugin, tmp_path / "whole")).code == 0
    rng = random.Random(3)
    victim, other = (spawn(*command(plugin, tmp_path / "shared")) for _ in range(2))
    while not list((tmp_path / "shared").rglob("shard-*.parquet")) and victim.poll() is None:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.5))
    victim.kill()
    victim.communicate()
    other.communicate()
    assert other.returncode == 0
    pd.testing.assert_frame_equal(rows_of(tmp_path / "shared"), rows_of(tmp_path / "whole"), check_exact=True)


def test_damaged_rows_are_recomputed(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "slow", SLOW)
    assert mrbench(*command(plugin, tmp_path / "a")).code == 0
    expected = rows_of(tmp_path / "a")
    part = next(p for p in tmp_path.rglob("shard-00001.parquet") if "slow" in str(p))
    part.write_bytes(part.read_bytes()[:-100])
    board = mrbench("leaderboard", tmp_path / "a")
    assert board.code == 2
    assert "damaged rows" in board.err
    done = mrbench(*command(plugin, tmp_path / "a"))
    assert done.code == 0
    assert "damaged rows set aside" in done.err
    pd.testing.assert_frame_equal(rows_of(tmp_path / "a"), expected, check_exact=True)


def test_interrupt_ends_with_one_message_and_loses_nothing(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "slow", SLOW.replace("0.05", "0.5"))
    assert mrbench(*command(plugin, tmp_path / "whole")).code == 0
    process = spawn(*command(plugin, tmp_path / "cut"))
    while not list((tmp_path / "cut").rglob("shard-*.parquet")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.strip().splitlines()[-1].startswith("stopped. What was finished is stored")
    assert "Traceback" not in err
    assert mrbench(*command(plugin, tmp_path / "cut")).code == 0
    pd.testing.assert_frame_equal(rows_of(tmp_path / "cut"), rows_of(tmp_path / "whole"), check_exact=True)
