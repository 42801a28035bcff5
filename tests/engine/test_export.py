"""`mrbench export`: packs hold exactly what methods see, and nothing that their terms or the task forbid."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrbench.degradation.kspace import KspaceCrop
from mrbench.engine.entries import parse_dataset, parse_settings
from mrbench.engine.export import axis_matrices
from mrbench.engine.packs import read_pack
from mrbench.engine.task import Task, open_task
from mrbench.plugins import discover
from mrbench.protocol import Protocol, find_protocol

NOISY = """
name: noisy
scale: 2
noise: {kind: gaussian, sigma: 0.02}
metrics: [psnr]
draws: 3
"""


@pytest.fixture
def mrbench(mrbench: Any) -> Any:
    """The command, with those that this file is about."""
    from mrbench.cli import export, main

    if "export" not in {c.name for c in main.app.registered_commands}:
        main.app.command("export")(export.export)
    return mrbench


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A private folder of two subjects with one image each."""
    folder = tmp_path / "my lab"
    for subject in ("s1", "s2"):
        (folder / subject).mkdir(parents=True)
        rng = np.random.default_rng(ord(subject[-1]))
        image = np.zeros((48, 40), np.float32)
        image[8:40, 6:34] = 100 + 50 * rng.random((32, 28), dtype=np.float32)
        np.save(folder / subject / "scan.npy", image)
    return folder


def task_of(rules: Protocol, *settings: str, dataset: str = "sample") -> Task:
    registry = discover()
    return open_task(parse_dataset(dataset, parse_settings(settings), registry), rules, registry)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_pack_holds_what_methods_see_and_no_ground_truth(mrbench: Any, tmp_path: Path) -> None:
    done = mrbench("export", "-d", "sample", "--scale", 4, "--out", tmp_path / "pack", "--json")
    assert done.code == 0, done.err
    pack, task = read_pack(tmp_path / "pack"), task_of(find_protocol("uniform-x4"))
    assert done.json == {
        "pack": str(tmp_path / "pack"), "items": 16, "written": 16, "kept": 0, "protocol_hash": task.protocol.hash, "task_hash": task.hash,
        "digest": pack.digest, "with_hr": False, "local": False,
    }  # fmt: skip
    assert [(i.item_id, i.item_hash) for i in pack.items] == [(i.item_id, i.item_hash) for i in task.items]
    table = list(csv.DictReader((tmp_path / "pack" / "items.csv").read_text().splitlines()))
    for item, record, line in zip(task.items, pack.items, table, strict=True):
        batch = task.load([item])
        stored = np.load(tmp_path / "pack" / record.lr)
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, batch.measurement.y[0].numpy())
        operator = pack.operators[record.operator]
        rows, columns = (np.load(tmp_path / "pack" / f) for f in (operator.rows, operator.columns))
        np.testing.assert_allclose(rows @ batch.hr[0].numpy() @ columns.T, stored, atol=2e-6)
        assert [(g.n_hr, g.n_lr, g.step, g.offset) for g in operator.grid] == [
            (g.n_hr, g.n_lr, g.step, g.offset) for g in batch.measurement.grid
        ]
        assert (line["lr"], line["return_as"]) == (record.lr, f"{item.item_id}.npy")
        assert [int(line[k]) for k in ("channels", "rows", "columns")] == list(item.shape)
        assert record.size == tuple(item.shape[1:])
    assert pack.degradation == {"name": "bicubic_aa", "version": 1, "options": {"a": -0.5, "border": "renorm"}}
    text = (tmp_path / "pack" / "README.md").read_text()
    for part in ("bicubic_aa", "a = -0.5", f"{task.items[0].item_id}.npy", "[1, 216, 176]", "ITEM_1.npy", task.hash):
        assert part in text
    assert not (tmp_path / "pack" / "hr").exists()


def test_equal_calls_give_equal_bytes_and_a_killed_one_goes_on(mrbench: Any, tmp_path: Path) -> None:
    arguments = ("export", "-d", "sample", "--scale", 4, "--limit", 4, "--with-hr")
    for name in ("a", "b"):
        done = mrbench(*arguments, "--out", tmp_path / name)
        assert done.code == 0, done.err
    whole = bytes_of(tmp_path / "a")
    assert bytes_of(tmp_path / "b") == whole
    hr = sorted(n for n in whole if n.startswith("hr/"))
    assert len(hr) == 4
    again = mrbench(*arguments, "--out", tmp_path / "b", "--json")
    assert (again.json["written"], again.json["kept"]) == (0, 8)
    pack = read_pack(tmp_path / "b")
    (tmp_path / "b" / pack.items[0].lr).write_bytes(b"damaged")  # a finished pack is checked by its hashes
    (tmp_path / "b" / pack.items[1].lr).unlink()
    again = mrbench(*arguments, "--out", tmp_path / "b", "--json")
    assert (again.json["written"], again.json["kept"]) == (2, 6)
    assert bytes_of(tmp_path / "b") == whole
    (tmp_path / "b" / "pack.json").unlink()  # as a kill leaves it
    (tmp_path / "b" / ".begun").write_text(pack.identity + "\n")
    (tmp_path / "b" / pack.items[2].lr).unlink()
    (tmp_path / "b" / "lr" / ".tmp-left").write_bytes(b"half")
    again = mrbench(*arguments, "--out", tmp_path / "b", "--json")
    assert (again.json["written"], again.json["kept"]) == (1, 7)
    assert bytes_of(tmp_path / "b") == whole
    (tmp_path / "b" / "pack.json").unlink()
    (tmp_path / "b" / ".begun").write_text("another\n")
    other = mrbench(*arguments, "--out", tmp_path / "b")
    assert other.code == 2
    assert "the beginning of a pack of other items" in other.err


def test_the_folder_of_something_else_is_refused(mrbench: Any, tmp_path: Path) -> None:
    arguments = ("export", "-d", "sample", "--scale", 4, "--limit", 1)
    assert mrbench(*arguments, "--out", tmp_path / "pack").code == 0
    done = mrbench("export", "-d", "sample", "--scale", 4, "--limit", 2, "--out", tmp_path / "pack")
    assert (done.code, "holds a pack of other items or rules" in done.err) == (2, True)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("x")
    done = mrbench(*arguments, "--out", tmp_path / "own")
    assert (done.code, "is not empty, and no pack" in done.err) == (2, True)
    done = mrbench(*arguments, "--out", tmp_path / "own" / "thesis.tex")
    assert (done.code, "is a file" in done.err) == (2, True)
    for wrong in ((), ("--scale", 4, "--protocol", "uniform-x4")):
        done = mrbench("export", "-d", "sample", *wrong, "--out", tmp_path / "x")
        assert (done.code, "either --scale S or --protocol P" in done.err) == (2, True)


def test_images_that_may_not_be_passed_on_stay_on_this_machine(mrbench: Any, tmp_path: Path, lab: Path) -> None:
    arguments = ("export", "-d", "folder", "--set", f"folder.path={lab}", "--scale", 2, "--out", tmp_path / "pack")
    done = mrbench(*arguments)
    assert done.code == 2
    assert "redistribution: none" in done.err
    assert "--local" in done.err
    assert not (tmp_path / "pack").exists()
    done = mrbench(*arguments, "--local")
    assert done.code == 0, done.err
    assert "do not allow its images to be passed on" in done.err
    assert "do not allow its images to be passed on" in (tmp_path / "pack" / "README.md").read_text()
    pack = read_pack(tmp_path / "pack")
    assert pack.local
    assert pack.dataset.options["path"] == ""
    for name, content in bytes_of(tmp_path / "pack").items():
        assert str(tmp_path).encode() not in content, name


def test_another_part_of_the_split_is_another_protocol(mrbench: Any, tmp_path: Path, lab: Path) -> None:
    done = mrbench(
        "export", "-d", "folder", "--set", f"folder.path={lab}", "--set", "folder.split=all_train", "--scale", 2, "--split", "train",
        "--local", "--with-hr", "--out", tmp_path / "pack",
    )  # fmt: skip
    assert done.code == 0, done.err
    pack = read_pack(tmp_path / "pack")
    assert (pack.part, len(pack.items), pack.protocol.name) == ("train", 2, "uniform-x2")
    assert pack.protocol.hash != task_of(find_protocol("uniform-x2")).protocol.hash
    assert np.load(tmp_path / "pack" / pack.items[0].hr).shape == (1, 48, 40)


def test_noise_and_draws_of_the_protocol(mrbench: Any, tmp_path: Path) -> None:
    (tmp_path / "noisy.yaml").write_text(NOISY)
    done = mrbench("export", "-d", "sample", "-p", tmp_path / "noisy.yaml", "--limit", 2, "--out", tmp_path / "pack")
    assert done.code == 0, done.err
    pack, task = read_pack(tmp_path / "pack"), task_of(find_protocol(str(tmp_path / "noisy.yaml")))
    assert (pack.noise, pack.draws) == ({"kind": "gaussian", "sigma": 0.02}, 3)
    item = next(i for i in task.items if i.item_id == pack.items[1].item_id)
    np.testing.assert_array_equal(np.load(tmp_path / "pack" / pack.items[1].lr), task.load([item]).measurement.y[0].numpy())
    text = (tmp_path / "pack" / "README.md").read_text()
    assert "gaussian, sigma 0.02" in text
    assert "asks for 3" in text


def test_slices_of_a_volume_that_was_degraded_as_a_whole_have_no_matrices(mrbench: Any, tmp_path: Path) -> None:
    done = mrbench("export", "-d", "sample", "-p", "uniform-thick-x4", "--limit", 2, "--out", tmp_path / "pack")
    assert done.code == 0, done.err
    pack = read_pack(tmp_path / "pack")
    assert not any(o.rows for o in pack.operators.values())
    assert "whole volumes are degraded" in (tmp_path / "pack" / "README.md").read_text()
    shape = np.load(tmp_path / "pack" / pack.items[0].lr).shape
    assert shape[1:] == pack.operators[pack.items[0].operator].lr_size


def test_only_separable_linear_operators_have_matrices() -> None:
    from mrbench.degradation.cards import BicubicAAOptions, KspaceCropOptions
    from mrbench.degradation.image_space import BicubicAA

    made = axis_matrices(BicubicAA(BicubicAAOptions()).bind((40, 24), (4, 2)))
    assert made is not None
    assert (made[0].shape, made[1].shape) == ((10, 40), (12, 24))
    np.testing.assert_allclose(made[0].sum(1), 1, atol=1e-12)
    assert axis_matrices(KspaceCrop(KspaceCropOptions(domain="magnitude")).bind((24, 24), (2, 2))) is None
    assert axis_matrices(KspaceCrop(KspaceCropOptions(domain="complex")).bind((24, 24), (2, 2))) is None


def test_a_changed_pack_is_noticed(mrbench: Any, tmp_path: Path) -> None:
    assert mrbench("export", "-d", "sample", "--scale", 4, "--limit", 1, "--out", tmp_path / "pack").code == 0
    file = tmp_path / "pack" / "pack.json"
    document = json.loads(file.read_text())
    document["items"][0]["item_hash"] = "0" * 16
    file.write_text(json.dumps(document))
    done = mrbench("export", "-d", "sample", "--scale", 4, "--limit", 1, "--out", tmp_path / "pack")
    assert (done.code, "was changed after the pack was made" in done.err) == (2, True)
