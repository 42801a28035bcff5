"""Run folders: atomic, resumable, shared by processes, and readable in years."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mrbench.errors import UserError
from mrbench.store.files import remove_leftovers, write_atomic, write_json
from mrbench.store.images import read_images, read_truth, truth_file, write_images, write_truth
from mrbench.store.manifest import Manifest, read_manifest
from mrbench.store.rows import FIXED_COLUMNS, Row, metric_columns, to_table
from mrbench.store.runs import CorruptPart, RunFolder, find_runs, load_run

FIXTURES = Path(__file__).parent / "fixtures"


def a_row(item: str, **more: object) -> dict[str, object]:
    return {"item_id": item, "status": "ok", "subject": "s", "seconds": 0.5, "psnr": 30.0, **more}


def test_columns_are_documented() -> None:
    assert set(FIXED_COLUMNS) == set(Row.__annotations__)


def test_table_keeps_types_and_signatures() -> None:
    table = to_table([a_row("a"), {"item_id": "b", "status": "failed"}], ["psnr"], {"psnr": "PSNR|L:1"})
    assert table.schema.metadata[b"mrbench.signature.psnr"] == b"PSNR|L:1"
    assert table.column("psnr").to_pylist() == [30.0, None]
    assert metric_columns(table.column_names) == ["psnr"]


def test_atomic_write_leaves_old_content_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, lambda s: s.write(b"old") and None)

    def fails(stream: object) -> None:
        stream.write(b"new")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomic(path, fails)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_killed_processes_are_removed_when_old(tmp_path: Path) -> None:
    old, new, other = tmp_path / ".tmp-old", tmp_path / ".tmp-new", tmp_path / "shard"
    for p in (old, new, other):
        p.touch()
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    remove_leftovers(tmp_path, 1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-new", "shard"]


def test_plan_is_kept_and_extended(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    size, shards = run.extend_plan(2, [["a", "b", "c"], ["d"]])
    assert size == 2
    assert [s.items for s in shards] == [("a", "b"), ("c",), ("d",)]
    size, shards = run.extend_plan(5, [["a", "b", "c", "e", "f", "g"]])
    assert size == 2
    assert [s.items for s in shards] == [("a", "b"), ("c",), ("d",), ("e", "f"), ("g",)]
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match="damaged batch plan"):
        run.plan()


def test_rows_come_back_in_shard_order_with_new_columns(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_part(1, [a_row("b", ssim=0.5)], ["psnr", "ssim"], {})
    run.write_part(0, [a_row("a")], ["psnr"], {})
    run.write_skipped([{"item_id": "z", "status": "skipped"}], [], {})
    rows = run.rows()
    assert rows["item_id"].tolist() == ["a", "b", "z"]
    assert np.isnan(rows["ssim"][0])
    assert rows["ssim"][1] == 0.5
    run.write_skipped([], [], {})
    assert len(run.rows(["item_id"])) == 2


def test_damaged_parts_are_named_and_set_aside(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_part(0, [a_row("a")], ["psnr"], {})
    part = run.part(0)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(CorruptPart, match=r"shard-00000.parquet: damaged rows .* recomputes this shard"):
        run.rows()
    aside = run.set_aside(part)
    assert run.read_part(0) is None
    assert aside.is_file()
    assert not len(run.rows())


HOLD = """
import sys, time
from pathlib import Path
from mrbench.store.runs import RunFolder
with RunFolder(Path(sys.argv[1])).claim(0) as mine:
    print("claimed" if mine else "held by another", flush=True)
    time.sleep(60)
"""


def test_a_shard_is_claimed_by_one_process_and_freed_by_its_end(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    run = RunFolder(tmp_path)
    with run.claim(0) as mine:
        assert not mine
    with run.claim(1) as mine:
        assert mine
    process.kill()
    process.communicate()
    with run.claim(0) as mine:
        assert mine


def test_images_round_trip_exactly(tmp_path: Path) -> None:
    images = {
        "d/s/v/1": np.random.default_rng(0).random((2, 1, 5, 7), np.float32) * 3 - 1,
        "d/s/v/2": np.zeros((2, 1, 5, 7), np.float32),
    }
    write_images(tmp_path, 3, images)
    back = read_images(tmp_path, 3)
    assert list(back) == list(images)
    for key in images:
        np.testing.assert_array_equal(back[key], images[key])
    assert list(read_images(tmp_path, 3, {"d/s/v/2"})) == ["d/s/v/2"]
    assert read_images(tmp_path, 4) == {}
    (tmp_path / "images" / "shard-00003.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="damaged images"):
        read_images(tmp_path, 3)


def test_truth_is_written_once(tmp_path: Path) -> None:
    path = truth_file(tmp_path / "run", "abc", "def")
    assert read_truth(path) is None
    hr, y, mask = np.ones((1, 4, 4), np.float32), np.ones((1, 2, 2), np.float32), np.eye(4, dtype=bool)
    write_truth(path, hr, y, mask)
    write_truth(path, hr * 0, y, mask)
    back = read_truth(path)
    np.testing.assert_array_equal(back[0], hr)
    assert back[2].dtype == bool


def test_find_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        find_runs([tmp_path / "x"])
    with pytest.raises(UserError, match="holds no run folder"):
        find_runs([tmp_path])
    for name in ("b", "a"):
        write_json(tmp_path / "d" / name / "manifest.json", {})
    assert [p.name for p in find_runs([tmp_path, tmp_path / "d" / "a"])] == ["a", "b"]
    with pytest.raises(UserError, match="cannot be read as a manifest"):
        read_manifest(tmp_path / "d" / "a")


def test_manifest_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    document = json.loads((FIXTURES / "run-format1" / "manifest.json").read_text())
    write_json(tmp_path / "manifest.json", {**document, "format": 99})
    with pytest.raises(UserError, match="format 99 is newer"):
        read_manifest(tmp_path)
    write_json(tmp_path / "manifest.json", {**document, "field_of_tomorrow": 1})
    assert read_manifest(tmp_path).model_extra == {"field_of_tomorrow": 1}


def test_old_result_files_still_load() -> None:
    run = load_run(FIXTURES / "run-format1")
    assert isinstance(run.manifest, Manifest)
    assert len(run.rows) == 4
    assert run.rows["status"].tolist() == ["ok"] * 4
    assert run.manifest.columns["psnr"].signature.startswith("PSNR|")
    assert 20 < run.rows["psnr"].mean() < 40
    assert pq.ParquetFile(next((FIXTURES / "run-format1" / "rows").glob("*.parquet"))).metadata.num_rows


def test_manifest_write_is_replaced_whole(tmp_path: Path) -> None:
    manifest = read_manifest(FIXTURES / "run-format1")
    run = RunFolder(tmp_path)
    run.write_manifest(manifest)
    assert run.manifest() == manifest
