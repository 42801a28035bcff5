"""The batch plan: one document, read and written as a stream, whatever its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mrbench.errors import UserError
from mrbench.store import plan
from mrbench.store.files import write_json
from mrbench.store.plan import covers, read_batch, read_shards, unplanned, write_plan
from mrbench.store.runs import RunFolder

SHARDS = [("a/1", 'quoted "b"', "ü\n"), (), ("c",)]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 16])
def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(plan, "CHUNK", chunk)
    path = tmp_path / "plan.json"
    write_plan(path, 40, iter(SHARDS))
    assert json.loads(path.read_text()) == {"batch": 40, "shards": [list(s) for s in SHARDS]}
    assert (read_batch(path), list(read_shards(path))) == (40, SHARDS)
    write_json(path, {"batch": 12, "shards": [list(s) for s in SHARDS], "more": 1})  # as older versions wrote it
    assert (read_batch(path), list(read_shards(path))) == (12, SHARDS)
    write_plan(path, 3, [])
    assert (read_batch(path), list(read_shards(path))) == (3, [])


def test_no_plan(tmp_path: Path) -> None:
    assert (read_batch(tmp_path / "plan.json"), list(read_shards(tmp_path / "plan.json"))) == (0, [])


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, 4, SHARDS)
    whole = path.read_text().rstrip()
    for length in range(len(whole)):
        path.write_text(whole[:length])
        with pytest.raises(UserError, match="damaged batch plan"):
            RunFolder(tmp_path).plan()


@pytest.mark.parametrize(
    "text",
    ["[]", '{"batch": 0, "shards": []}', '{"shards": []}', '{"batch": 2, "shards": [["a", 1]]}', '{"batch": 2, "shards": {}}'],
)
def test_other_documents_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UserError, match="damaged batch plan"):
        RunFolder(tmp_path).plan()


def test_what_is_not_planned_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "COMPARED", 2)
    path = tmp_path / "plan.json"
    write_plan(path, 2, [("a", "b"), ("d",)])
    fresh = [list(g) for g in unplanned(path, [["x", "a", "y", "d", "z"], ["b"]])]
    assert fresh == [["x", "y", "z"], []]
    assert covers(path, [["a", "b"], ["d"]])
    assert not covers(path, [["a", "b"]])
    assert not covers(path, [["a", "b", "d", "e"]])
    assert not covers(path, [["b", "a", "d"]])


def test_a_long_plan_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """In processes of their own; the long plan's ids alone would be about 20 MB."""
    script = """
import resource, sys
from pathlib import Path
from mrbench.store.runs import RunFolder
run, items = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
groups = lambda: [(f"data/subject{i // 100:06d}/volume/{i % 100:03d}" for i in range(items))]
for _ in range(2):
    assert run.plan_items(4, groups) == 4
assert sum(len(s.items) for s in run.shards()) == items
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = {}
    for items in (1000, 200_000):
        out = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / str(items)), str(items)], capture_output=True, text=True, check=True
        )
        peaks[items] = int(out.stdout) / 1024
    assert peaks[200_000] - peaks[1000] < 8, peaks
