"""Remote run folders: a file is there once its marker is, and only then; names cannot lead out of the staging folder."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pandas as pd
import pytest
from fsspec.spec import AbstractFileSystem
from tests_support import rows_of, write_plugin

from mrbench.errors import UserError
from mrbench.store import remote
from mrbench.store.files import write_text
from mrbench.store.images import read_images, truth_file, write_images, write_truth
from mrbench.store.remote import MARKER, Mark, Mirror, RemoteError, is_url, staging_folder
from mrbench.store.runs import RunFolder, find_runs


class BucketFileSystem(AbstractFileSystem):
    """An object store: no folders, no rename. The ``broken``-th write leaves half of its bytes and fails, as do all after it."""

    protocol = "bucket"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    writes: ClassVar[list[str]] = []
    broken: ClassVar[int] = -1

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        self.writes.append(path)
        if 0 <= self.broken < len(self.writes):
            if self.broken == len(self.writes) - 1:
                self.objects[path] = value[: len(value) // 2]
            raise ConnectionError("the connection was lost")
        self.objects[path] = value

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        try:
            return self.objects[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any) -> list[str]:
        root = self._strip_protocol(path)
        return sorted(k for k in self.objects if k.startswith(f"{root}/"))

    def rm_file(self, path: str) -> None:
        del self.objects[self._strip_protocol(path)]

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        raise AssertionError("object stores have no rename")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[BucketFileSystem]]:
    fsspec.register_implementation("bucket", BucketFileSystem, clobber=True)
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    BucketFileSystem.objects.clear()
    BucketFileSystem.writes.clear()
    BucketFileSystem.broken = -1
    yield BucketFileSystem
    BucketFileSystem.objects.clear()


def a_row(item: str, **more: Any) -> dict[str, Any]:
    return {"run": "x", "item_id": item, "item_hash": f"h{item}", "protocol_hash": "p", "status": "ok", "error": "", **more}


def write_run(mirror: Mirror) -> RunFolder:
    """Two shards with images and ground truth, in the order of a run."""
    run = RunFolder(mirror.local / "data" / "rules" / "bicubic-0123", mirror)
    mirror.pull(run.path)
    mirror.push_below(run.path)
    run.extend_plan(1, [["a", "b"]])
    for number, item in enumerate("ab"):
        image = np.full((1, 1, 2, 2), number, np.float32)
        write_truth(truth_file(run.path, "p", f"h{item}"), image[0], image[0], image[0, 0] > 0)
        write_images(run.path, number, {item: image})
        run.write_part(number, [a_row(item, psnr=float(number))], ["psnr"], {})
    return run


def rows(run: RunFolder) -> list[tuple[str, float]]:
    frame = run.rows()
    return list(zip(frame["item_id"], frame["psnr"], strict=True)) if len(frame) else []


def test_places() -> None:
    assert all(map(is_url, ("s3://bucket/runs", "gs://b", "file:///tmp/x", "memory://x")))
    assert not any(map(is_url, ("runs", "/tmp/runs", "C://runs", "./a:b", "a//b")))
    a, b = staging_folder("s3://one/runs"), staging_folder("s3://two/runs")
    assert a != b
    assert a.parent.name == "remote"


def test_another_machine_gets_everything(bucket, tmp_path: Path) -> None:
    one, two = Mirror("bucket://b/runs", tmp_path / "one"), Mirror("bucket://b/runs", tmp_path / "two")
    write_run(one)
    assert two.pull() == []
    run = RunFolder(tmp_path / "two" / "data" / "rules" / "bicubic-0123")
    assert rows(run) == [("a", 0.0), ("b", 1.0)]
    assert run.plan()[0] == 1
    assert read_images(run.path, 1)["b"].item(0) == 1
    assert truth_file(run.path, "p", "ha").is_file()
    writes = len(bucket.writes)
    write_run(two)  # nothing new: nothing is written
    assert len(bucket.writes) == writes


def test_results_alone(bucket, tmp_path: Path) -> None:
    write_run(Mirror("bucket://b/runs", tmp_path / "one"))
    Mirror("bucket://b/runs", tmp_path / "two").pull(images=False)
    assert not list((tmp_path / "two").rglob("*.npz"))
    assert len(list((tmp_path / "two").rglob("shard-*.parquet"))) == 2


def test_the_connection_may_break_at_any_write(bucket, tmp_path: Path, monkeypatch) -> None:
    """Half an object is never taken for one; the same machine or another goes on and ends with everything."""
    monkeypatch.setattr("os.fsync", lambda _: None)  # of the staging folders: nobody cuts the power
    write_run(Mirror("bucket://b/runs", tmp_path / "count"))
    total = len(bucket.writes)
    assert total == 14  # plan, and twice truth, images and part, each with its marker
    for broken in range(total):
        bucket.objects.clear()
        bucket.writes.clear()
        bucket.broken = broken
        first = Mirror("bucket://b/runs", tmp_path / f"first{broken}")
        with pytest.raises(RemoteError, match="could not be written"):
            write_run(first)
        bucket.broken = -1
        reader = Mirror("bucket://b/runs", tmp_path / f"reader{broken}")
        reader.pull()
        seen = RunFolder(reader.local / "data" / "rules" / "bicubic-0123")
        assert rows(seen) in ([], [("a", 0.0)], [("a", 0.0), ("b", 1.0)])
        for shard, _ in enumerate(rows(seen)):
            assert read_images(seen.path, shard)  # rows that are there have their images
        after = reader if broken % 2 else first
        write_run(after)
        last = Mirror("bucket://b/runs", tmp_path / f"last{broken}")
        assert last.pull() == []
        assert rows(RunFolder(last.local / "data" / "rules" / "bicubic-0123")) == [("a", 0.0), ("b", 1.0)]


def test_replacing_keeps_the_old_one_until_the_new_one_is_there(bucket, tmp_path: Path) -> None:
    mirror = Mirror("bucket://b/runs", tmp_path / "one")
    run = write_run(mirror)
    for broken in (0, 1):
        bucket.writes.clear()
        bucket.broken = broken
        with pytest.raises(RemoteError):
            run.write_part(0, [a_row("a", psnr=9.0 + broken)], ["psnr"], {})
        bucket.broken = -1
        other = Mirror("bucket://b/runs", tmp_path / f"other{broken}")
        other.pull()
        found = rows(RunFolder(other.local / "data" / "rules" / "bicubic-0123"))
        assert found == (
            [("a", 0.0), ("b", 1.0)] if broken == 0 else [("b", 1.0)]
        )  # half a marker: its shard is computed again
        run.write_part(0, [a_row("a", psnr=0.0)], ["psnr"], {})
    run.write_part(0, [a_row("a", psnr=3.0)], ["psnr"], {})
    other = Mirror("bucket://b/runs", tmp_path / "last")
    assert other.pull() == []
    assert rows(RunFolder(other.local / "data" / "rules" / "bicubic-0123")) == [("a", 3.0), ("b", 1.0)]


def test_what_was_replaced_is_removed(bucket, tmp_path: Path) -> None:
    run = write_run(Mirror("bucket://b/runs", tmp_path / "one"))
    run.write_part(0, [a_row("a", psnr=3.0)], ["psnr"], {})
    names = [k for k in bucket.objects if "shard-00000-" in k and k.endswith(".parquet")]
    assert len(names) == 1


def test_what_could_not_be_stored_is_not_lost_to_what_is_there(bucket, tmp_path: Path) -> None:
    mirror = Mirror("bucket://b/runs", tmp_path / "one")
    run = write_run(mirror)
    for broken in (0, 1):
        bucket.writes.clear()
        bucket.broken = broken
        with pytest.raises(RemoteError):
            run.write_part(0, [a_row("a", psnr=9.0)], ["psnr"], {})
        bucket.broken = -1
        mirror.pull(run.path)
        assert rows(run) == [("a", 9.0), ("b", 1.0)]
        mirror.push_below(run.path)
        other = Mirror("bucket://b/runs", tmp_path / f"other{broken}")
        other.pull()
        assert rows(RunFolder(other.local / "data" / "rules" / "bicubic-0123")) == [("a", 9.0), ("b", 1.0)]
        run.write_part(0, [a_row("a", psnr=0.0)], ["psnr"], {})


def test_what_changed_elsewhere_wins_and_what_was_not_stored_stays(bucket, tmp_path: Path) -> None:
    one, two = Mirror("bucket://b/runs", tmp_path / "one"), Mirror("bucket://b/runs", tmp_path / "two")
    run = write_run(one)
    two.pull()
    theirs = RunFolder(two.local / "data" / "rules" / "bicubic-0123", two)
    theirs.write_part(0, [a_row("a", psnr=5.0)], ["psnr"], {})
    theirs.write_skipped([a_row("c", status="skipped")], [], {})
    RunFolder(run.path).write_part(2, [a_row("d", psnr=7.0)], ["psnr"], {})  # here alone
    one.pull(run.path)
    assert run.part(2).is_file()
    assert [(i, p) for i, p in rows(run) if i != "c"] == [("a", 5.0), ("b", 1.0), ("d", 7.0)]
    theirs.write_skipped([], [], {})
    one.pull(run.path)
    assert not (run.path / "rows" / "skipped.parquet").exists()


def test_damaged_objects_are_not_there(bucket, tmp_path: Path) -> None:
    write_run(Mirror("bucket://b/runs", tmp_path / "one"))
    part = next(k for k in bucket.objects if "shard-00000-" in k and k.endswith(".parquet"))
    bucket.objects[part] = bucket.objects[part][:-1] + b"!"
    marker = next(k for k in bucket.objects if k.endswith(f"shard-00001.parquet{MARKER}"))
    bucket.objects[marker] = b'{"name"'
    two = Mirror("bucket://b/runs", tmp_path / "two")
    notes = two.pull()
    assert len(notes) == 2
    assert all("taken for absent" in n for n in notes)
    assert rows(RunFolder(two.local / "data" / "rules" / "bicubic-0123")) == []


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "a/../../evil.json",
        "a//b.json",
        "a\\..\\evil.json",
        "C:evil.json",
        "a/evil\x00.json",
        "a/x.py",
        "a/*.json",
    ],
)
def test_names_that_lead_elsewhere(bucket, tmp_path: Path, name: str) -> None:
    mark = Mark("x.json", 2, "0" * 64)
    bucket.objects[f"b/runs/{name}{MARKER}"] = mark.text().encode()
    with pytest.raises(RemoteError, match="no file of a run"):
        Mirror("bucket://b/runs", tmp_path / "here").pull()
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("name", ["../x.json", "/etc/passwd", "a/b.json", "..", "", ".hidden", 3, None])
def test_markers_that_name_something_else(bucket, tmp_path: Path, name: object) -> None:
    bucket.objects[f"b/runs/a.json{MARKER}"] = json.dumps({"name": name, "size": 2, "sha256": "0"}).encode()
    bucket.objects["b/x.json"] = b"{}"
    notes = Mirror("bucket://b/runs", tmp_path / "here").pull()
    assert len(notes) == 1
    assert "taken for absent" in notes[0]
    assert not (tmp_path / "here" / "a.json").exists()


def test_links_in_the_staging_folder_are_not_followed(bucket, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "here" / "a").symlink_to(tmp_path / "outside")
    bucket.objects[f"b/runs/a/x.json{MARKER}"] = Mark("x.json", 2, "0").text().encode()
    with pytest.raises(RemoteError, match="leads out of"):
        Mirror("bucket://b/runs", tmp_path / "here").pull()


def test_hidden_names_and_strangers_are_left_alone(bucket, tmp_path: Path) -> None:
    bucket.objects["b/runs/notes.txt"] = b"x"
    bucket.objects[f"b/runs/.mirrored/a.json{MARKER}"] = b"{}"
    assert Mirror("bucket://b/runs", tmp_path / "here").pull() == []


def test_names_that_could_not_be_read_again_are_not_written(bucket, tmp_path: Path) -> None:
    mirror = Mirror("bucket://b/runs", tmp_path / "here")
    write_text(tmp_path / "here" / "a[1].json", "{}")
    with pytest.raises(RemoteError, match="cannot be stored"):
        mirror.push(tmp_path / "here" / "a[1].json")


def test_mirrors_travel_to_workers(bucket, tmp_path: Path) -> None:
    mirror = Mirror("bucket://b/runs", tmp_path / "one")
    again = pickle.loads(pickle.dumps(mirror))
    assert (again.url, again.local) == (mirror.url, mirror.local)
    write_run(again)


def test_relative_folders_are_told_apart(tmp_path: Path, monkeypatch) -> None:
    found = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found.add((Mirror("file://bucket/runs").url, Mirror("file://bucket/runs").local))
    assert {url for url, _ in found} == {f"file://{tmp_path}/{name}/bucket/runs" for name in "ab"}
    assert len({local for _, local in found}) == 2


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://x/y", "scheme nothing:// is not known"),
        ("zip::s3://x/y", "chained URLs"),
    ],
)
def test_unknown_schemes(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mirror(url, tmp_path)


def test_a_driver_that_is_not_installed(tmp_path: Path, mrbench, monkeypatch) -> None:
    import sys

    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    done = mrbench("run", "-m", "bicubic", "-d", "sample", "--out", "s3://bucket/runs")
    assert done.code == 2
    assert "pip install s3fs" in done.err


@pytest.mark.parametrize("scheme", ["memory", "file", "bucket"])
def test_the_command_writes_and_reads_urls(bucket, mrbench, tmp_path: Path, monkeypatch, scheme: str) -> None:
    """Run, resume from an empty cache, and read with the four reading commands."""
    plugin = write_plugin(
        tmp_path,
        "noisy",
        """
        import mrbench
        class Noisy:
            def __init__(self, options):
                pass
            def restore(self, m, draws):
                x = mrbench.upsample(m)
                return x[:, None] + 0.03 * m.noise(draws).normal(x.shape[1:])
        @mrbench.hookimpl
        def mrbench_methods():
            return [mrbench.MethodCard("noisy", Noisy, deterministic=False)]
        """,
    )
    url = {"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/bucket", "bucket": "bucket://b/runs"}[scheme]
    call = (
        "run",
        "-m",
        "noisy",
        "--plugin",
        plugin,
        "-d",
        "sample",
        "--draws",
        2,
        "--batch",
        2,
        "--metrics",
        "psnr",
        "--threads",
        1,
    )
    call += ("--subset", 4, "--no-pictures")
    assert mrbench(*call, "--out", tmp_path / "plain").code == 0
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "one"))
    done = mrbench(*call, "--out", url)
    assert done.code == 0, done.err
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "two"))
    assert "4 were stored before" in mrbench(*call, "--out", url).out
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "three"))
    for command in (("show", url), ("leaderboard", url), ("stats", url), ("report", url, "--out", tmp_path / "site")):
        done = mrbench(*command)
        assert done.code == 0, (command, done.err)
    (run,) = find_runs([Mirror(url).local])
    pd.testing.assert_frame_equal(rows_of(run), rows_of(tmp_path / "plain"), check_exact=True)
    if scheme == "bucket":
        part = next(k for k in bucket.objects if "shard-00000-" in k and k.endswith(".parquet"))
        bucket.objects[part] = b"PAR1"
        monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "four"))
        done = mrbench(*call, "--out", url)
        assert done.code == 0
        assert "absent or damaged, so the file is taken for absent" in done.err
        assert "2 were stored before" in done.out
        bucket.writes.clear()
        bucket.broken = 0
        more = tuple(6 if a == 4 else a for a in call)
        done = mrbench(*more, "--out", url)
        assert done.code == 2
        assert "could not be written (ConnectionError: the connection was lost)" in done.err
        assert "the same command stores it once this is mended" in done.err
        bucket.broken = -1
        assert mrbench(*more, "--out", url).code == 0
        monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "five"))
        assert "6 were stored before" in mrbench(*more, "--out", url).out
        monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "three"))
    done = mrbench("show", url + "/nothing-here")
    assert done.code == 2
    assert "holds no run folder" in done.err
