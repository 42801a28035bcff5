"""Storage that is full, read-only or damaged, and clocks that jump: named, nothing half written, and the same command goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests_support import rows_of, write_plugin

from mrbench.store.files import TEMPORARY, remove_leftovers, write_atomic

pytestmark = pytest.mark.timeout(300)

ENGINES = [pytest.param((), id="local"), pytest.param(("--engine", "ray", "--workers", 2), id="ray")]


@pytest.fixture
def ray_if_asked(request: pytest.FixtureRequest) -> None:
    if "--engine" in request.getfixturevalue("engine"):
        request.getfixturevalue("ray_here")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts something at a new folder; skips where that is not permitted."""
    mounted: list[Path] = []

    def at(name: str, *how: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(["mount", *how, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    try:
        yield at
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def call(out: Path, *more: object) -> tuple[object, ...]:
    return (
        "run", "-m", "bicubic", "-d", "sample", "--batch", 1, "--metrics", "psnr", "--threads", 1, "--no-pictures", "--images", "none",
        "--out", out, *more,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_disk(mrbench, mount, ray_if_asked, tmp_path: Path, engine: tuple[object, ...]) -> None:
    assert mrbench(*call(tmp_path / "whole")).code == 0
    out = mount("full", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    used = sum(p.stat().st_size for p in (tmp_path / "whole").rglob("*") if p.is_file())
    ballast = out / "ballast"
    ballast.write_bytes(bytes((1 << 20) - used * 3 // 4))
    done = mrbench(*call(out, *engine))
    assert done.code == 2
    assert "No space left on device" in done.err
    assert "the same command goes on" in done.err
    parts = list(out.rglob("shard-*.parquet"))
    assert 0 < len(parts) < 16
    for part in parts:
        assert pq.read_table(part).num_rows == 1
    assert not list(out.rglob(f"{TEMPORARY}*"))
    ballast.unlink()
    again = mrbench(*call(out, *engine))
    assert again.code == 0, again.err
    assert f"{len(parts)} were stored before" in again.out
    pd.testing.assert_frame_equal(rows_of(out), rows_of(tmp_path / "whole"), check_exact=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_read_only_folder(mrbench, mount, ray_if_asked, tmp_path: Path, engine: tuple[object, ...]) -> None:
    if os.geteuid() == 0:  # permissions do not hold root back
        out, reason = mount("forbidden", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"), "Read-only file system"
    else:
        out, reason = tmp_path / "forbidden", "Permission denied"
        out.mkdir(mode=0o555)
    done = mrbench(*call(out, *engine))
    assert done.code == 2
    assert f"{reason}: '{out}" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_damaged_rows_are_set_aside_and_computed_again(
    mrbench, ray_if_asked, tmp_path: Path, engine: tuple[object, ...]
) -> None:
    assert mrbench(*call(tmp_path / "out", *engine)).code == 0
    expected = rows_of(tmp_path / "out")
    part = next((tmp_path / "out").rglob("shard-00003.parquet"))
    part.write_bytes(part.read_bytes()[:-50])
    done = mrbench(*call(tmp_path / "out", *engine))
    assert done.code == 0
    assert "damaged rows set aside as shard-00003.parquet.damaged-" in done.err
    assert "15 were stored before" in done.out
    pd.testing.assert_frame_equal(rows_of(tmp_path / "out"), expected, check_exact=True)


JUMPING = """
    import time
    import mrbench
    real, seen = time.time, []
    @mrbench.hookimpl
    def mrbench_item_done(row):
        seen.append(row["item_id"])
        time.time = lambda: real() + (86400 if len(seen) % 2 else -86400) * 1.5
    @mrbench.hookimpl
    def mrbench_run_finished(run):
        time.time = real
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_clock_that_jumps(mrbench, ray_if_asked, tmp_path: Path, monkeypatch, engine: tuple[object, ...]) -> None:
    """Forth and back by a day and a half after every item; then a second call a day and a half ago."""
    monkeypatch.setattr(time, "time", time.time)  # put back whatever the plugin leaves
    plugin = write_plugin(tmp_path, "jumping", JUMPING)
    assert mrbench(*call(tmp_path / "whole")).code == 0
    assert mrbench(*call(tmp_path / "out", "--subset", 9, "--plugin", plugin, *engine)).code == 0
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 1.5 * 86400)
    done = mrbench(*call(tmp_path / "out", *engine))
    assert done.code == 0
    assert "9 were stored before" in done.out
    found, expected = (rows_of(tmp_path / n).drop(columns="shard") for n in ("out", "whole"))  # nine first: other shards
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


WRITER = """
import sys
from pathlib import Path
from mrbench.store.files import write_atomic
def write(stream):
    stream.write(b"half")
    print("ready", flush=True)
    sys.stdin.readline()
    stream.write(b" and half")
write_atomic(Path(sys.argv[1]), write)
"""


def test_files_in_the_making_are_not_cleaned_away_when_the_clock_jumps(tmp_path: Path) -> None:
    target = tmp_path / "part"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    (tmp_path / f"{TEMPORARY}abandoned").touch()
    remove_leftovers(tmp_path, time.time() + 10 * 86400)  # as if ten days had passed
    assert len(list(tmp_path.glob(f"{TEMPORARY}*"))) == 1  # the writer's
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert target.read_bytes() == b"half and half"


def test_two_damaged_parts_of_one_second_are_both_kept(tmp_path: Path, monkeypatch) -> None:
    from mrbench.store.runs import RunFolder

    run = RunFolder(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    for content in (b"one", b"two"):
        write_atomic(run.part(0), lambda stream, content=content: stream.write(content))
        run.set_aside(run.part(0))
    assert sorted(p.read_bytes() for p in (tmp_path / "rows").iterdir()) == [b"one", b"two"]
