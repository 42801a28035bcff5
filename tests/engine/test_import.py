"""`mrbench import`: images made from a pack, in any format, become a run like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tests_support import rows_of

from mrbench.engine.draw_files import draws_in, read_draws
from mrbench.engine.imagefiles import ImageFile
from mrbench.engine.packs import Pack, read_pack
from mrbench.errors import DataError
from mrbench.store.images import read_images
from mrbench.store.runs import RunFolder, find_runs, load_runs

Picture = NDArray[np.float32]
QUICK = ("--metrics", "psnr,data_consistency")
ITEMS = 4


@pytest.fixture
def mrbench(mrbench: Any) -> Any:
    """The command, with those that this file is about."""
    from mrbench.cli import export, import_, main

    known = {c.name for c in main.app.registered_commands}
    for name, command in (("export", export.export), ("import", import_.import_)):
        if name not in known:
            main.app.command(name)(command)
    return mrbench


@pytest.fixture(scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def made(mrbench: Any, _place: Path) -> tuple[Path, dict[str, Picture]]:
    """A pack of four items, and what bicubic makes of them (``[H, W]``), whose run lies beside it."""
    if not any(_place.iterdir()):
        done = mrbench("export", "-d", "sample", "--scale", 4, "--limit", ITEMS, "--out", _place / "pack")
        assert done.code == 0, done.err
        run = ("run", "-m", "bicubic", "-d", "sample", "--scale", 4, "--limit", ITEMS, "--no-pictures", *QUICK)
        assert mrbench(*run, "--out", _place / "runs").code == 0
    folder = RunFolder(find_runs([_place / "runs"])[0])
    images = {i: x[0, 0] for shard in folder.plan()[1] for i, x in read_images(folder.path, shard.number).items()}
    return _place, images


def save(folder: Path, images: dict[str, Any]) -> Path:
    for name, image in images.items():
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, image)
    return folder


def test_images_of_bicubic_score_as_bicubic(mrbench: Any, made: tuple[Path, dict[str, Picture]], tmp_path: Path) -> None:
    place, images = made
    folder = save(tmp_path / "p", {i: x[None] for i, x in images.items()})  # names and shapes as items.csv asks for
    arguments = ("import", place / "pack", folder, "--label", "theirs", *QUICK, "--out", tmp_path / "runs")
    done = mrbench(*arguments, "--json")
    assert done.code == 0, done.err
    (run,) = done.json["runs"]
    assert (run["label"], run["method"], run["tier"], run["items"], run["ok"]) == ("theirs", "files", "files", ITEMS, ITEMS)
    ours, theirs = (rows_of(o).set_index("item_id") for o in (tmp_path / "runs", place / "runs"))
    columns = ["psnr", "psnr_fg", "data_consistency", "item_hash", "protocol_hash", "subject", "volume"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_exact=True)
    manifest = load_runs([tmp_path / "runs"])[0].manifest
    assert manifest.partial  # four of sixteen items
    assert manifest.task_hash == read_pack(place / "pack").task_hash
    assert any(n.startswith("made from the pack ") for n in manifest.notes)
    board = mrbench("leaderboard", tmp_path / "runs", place / "runs", "--format", "json")
    assert board.code == 0, board.err
    assert {r["method"]: r["tier"] for r in board.json["rows"]} == {"theirs": "files", "bicubic": "none"}
    again = mrbench(*arguments)
    assert again.code == 0
    assert len(find_runs([tmp_path / "runs"])) == 1


def test_draws_as_numbered_files_or_as_an_axis(mrbench: Any, made: tuple[Path, dict[str, Picture]], tmp_path: Path) -> None:
    place, images = made
    draws = {i: np.stack([x, x * 0.9, x * 1.1]) for i, x in images.items()}
    numbered = save(tmp_path / "a", {f"{i}_{k + 1}": d[k] for i, d in draws.items() for k in range(3)})
    stacked = save(tmp_path / "b", {i.replace("/", "__"): d[:, None] for i, d in draws.items()})
    found = []
    for folder in (numbered, stacked):
        out = tmp_path / f"runs-{folder.name}"
        done = mrbench("import", place / "pack", folder, "-l", "x", "--metrics", "psnr,crps", "--out", out)
        assert done.code == 0, done.err
        found.append(rows_of(out).set_index("item_id").drop(columns="run"))
    pd.testing.assert_frame_equal(*found, check_exact=True)
    single = rows_of(place / "runs").set_index("item_id")
    np.testing.assert_array_equal(found[0]["psnr"], single["psnr"])  # draw 1
    assert (found[0]["draws"] == 3).all()
    assert {"psnr@mean", "psnr@best", "crps"} <= set(found[0].columns)
    np.testing.assert_allclose(found[0]["psnr@mean"], single["psnr"], atol=0.01)
    wrong = mrbench("import", place / "pack", stacked, "-l", "x", *QUICK, "--draws", 2, "--out", tmp_path / "two")
    assert wrong.code == 1
    assert "the item has 3 draws, expected 2" in wrong.err
    first = next(iter(images))
    (numbered / f"{first}_2.npy").rename(numbered / f"{first}_7.npy")
    gap = mrbench("import", place / "pack", numbered, "-l", "x", *QUICK, "--out", tmp_path / "gap")
    assert (gap.code, "its draws are numbered 1, 3, 7" in gap.err) == (2, True)


def test_usual_metrics_of_several_draws_are_computed(
    mrbench: Any, made: tuple[Path, dict[str, Picture]], tmp_path: Path
) -> None:
    place, images = made
    folder = save(tmp_path / "p", {f"{i}_{k}": x * (1 + 0.05 * k) for i, x in images.items() for k in (1, 2)})
    done = mrbench("import", place / "pack", folder, "-l", "x", "--out", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    metrics = done.json["runs"][0]["metrics"]
    assert {"psnr", "ssim", "psnr@mean", "crps", "coverage50"} <= set(metrics)


def test_what_does_not_fit_is_named(mrbench: Any, made: tuple[Path, dict[str, Picture]], tmp_path: Path) -> None:
    place, images = made
    items = sorted(images)
    given: dict[str, Any] = {items[1]: images[items[1]].T, items[2]: images[items[2]], items[3]: images[items[3]][:-1]}
    folder = save(tmp_path / "p", {**given, "sample/nobody/x/001": images[items[0]]})
    done = mrbench("import", place / "pack", folder, "-l", "x", *QUICK, "--out", tmp_path / "runs", "--json")
    assert done.code == 1
    rows = rows_of(tmp_path / "runs").set_index("item_id")
    assert rows.loc[items, "status"].tolist() == ["skipped", "failed", "ok", "failed"]
    assert "Rows and columns look exchanged" in rows.loc[items[1], "error"]
    height, width = images[items[3]].shape
    assert (
        f"its shape is {height - 1}x{width}, expected channels, rows and columns 1x{height}x{width}"
        in rows.loc[items[3], "error"]
    )
    for text in ("sample/nobody/x/001.npy", f"are skipped: {items[0]}", f"failed: {items[1]}: {items[1]}.npy", items[3]):
        assert text in done.err
    assert done.err.strip().splitlines()[-1].startswith("incomplete: 2 of 4 items failed")
    empty = tmp_path / "empty"
    empty.mkdir()
    for where, message in ((empty, "holds no image"), (tmp_path / "nowhere", "no such folder")):
        done = mrbench("import", place / "pack", where, "-l", "x", "--out", tmp_path / "runs2")
        assert (done.code, message in done.err) == (2, True)
    done = mrbench("import", tmp_path, folder, "-l", "x", "--out", tmp_path / "runs2")
    assert (done.code, "it has no pack.json" in done.err) == (2, True)
    done = mrbench("import", place / "pack", folder, "-l", "a/b", "--out", tmp_path / "runs2")
    assert (done.code, "bad label" in done.err) == (2, True)


def _resigned(pack: Pack, folder: Path) -> Path:
    folder.mkdir()
    (folder / "pack.json").write_text(json.dumps(pack.signed().model_dump(mode="json")))
    return folder


def test_items_are_checked_against_the_data_at_hand(
    mrbench: Any, made: tuple[Path, dict[str, Picture]], tmp_path: Path
) -> None:
    place, images = made
    folder, pack = save(tmp_path / "p", dict(images)), read_pack(place / "pack")
    first = pack.items[0]
    others = {
        "have another content here": first.model_copy(update={"item_hash": "0" * 16}),
        "does not hold 1 of the pack's 4 items": first.model_copy(update={"item_id": "sample/nobody/x/001"}),
    }
    for number, (message, item) in enumerate(others.items()):
        forged = _resigned(pack.model_copy(update={"items": [item, *pack.items[1:]]}), tmp_path / f"forged{number}")
        done = mrbench("import", forged, folder, "-l", "x", *QUICK, "--out", tmp_path / "runs")
        assert (done.code, message in done.err) == (2, True)
        assert item.item_id in done.err
    rules = pack.protocol.model_copy(update={"hash": "f" * 16})
    forged = _resigned(pack.model_copy(update={"protocol": rules}), tmp_path / "rules")
    done = mrbench("import", forged, folder, "-l", "x", *QUICK, "--out", tmp_path / "runs")
    assert (done.code, "had the hash ffffffffffffffff" in done.err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_the_data_set_must_be_at_hand(mrbench: Any, tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    (lab / "s1").mkdir(parents=True)
    image = np.zeros((32, 40), np.float32)
    image[4:28, 6:34] = 100 + 50 * np.random.default_rng(1).random((24, 28), dtype=np.float32)
    np.save(lab / "s1" / "scan.npy", image)
    pack = tmp_path / "pack"
    done = mrbench("export", "-d", "study=folder", "--set", f"study.path={lab}", "--scale", 2, "--local", "--out", pack)
    assert done.code == 0, done.err
    item = read_pack(pack).items[0]
    folder = save(tmp_path / "p", {item.item_id: np.full(item.size, 0.5, np.float32)})
    arguments = ("import", pack, folder, "-l", "flat", *QUICK, "--out", tmp_path / "runs")
    done = mrbench(*arguments)
    assert done.code == 2
    assert "which must be at hand (name its folder with --set study.path=DIR" in done.err
    lab.rename(tmp_path / "moved")
    done = mrbench(*arguments, "--set", f"study.path={tmp_path / 'moved'}")
    assert done.code == 0, done.err
    done = mrbench(*arguments, "--set", "folder.path=x")
    assert (done.code, "there is no 'folder' here" in done.err) == (2, True)


# -- formats -------------------------------------------------------------------------------------------------------
def _npy(path: Path, image: Picture) -> Path:
    np.save(path.with_suffix(".npy"), image)
    return path.with_suffix(".npy")


def _npz(path: Path, image: Picture) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), image)
    return path.with_suffix(".npz")


def _nii(path: Path, image: Picture) -> Path:
    draws_last = np.moveaxis(image.reshape(-1, *image.shape[-2:]), 0, -1)
    nibabel.save(nibabel.Nifti1Image(draws_last, np.diag([-2.0, 3, 4, 1])), path.with_suffix(".nii.gz"))
    return path.with_suffix(".nii.gz")


@pytest.mark.parametrize("write", [_npy, _npz, _nii])
@pytest.mark.parametrize("shape", [(12, 10), (1, 12, 10), (3, 12, 10), (3, 1, 12, 10)])
def test_arrays_and_volumes_are_taken_as_they_are(
    tmp_path: Path, write: Callable[[Path, Picture], Path], shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    path = write(tmp_path / "x", image)
    files, draws = [ImageFile(path, path.name, "x")], 3 if 3 in shape else 1
    assert draws_in(files, (1, 12, 10)) == draws
    assert torch.equal(read_draws(files, (draws, 1, 12, 10)), torch.from_numpy(image.reshape(draws, 1, 12, 10)))


def test_pictures_complex_and_integer_values(tmp_path: Path) -> None:
    values = np.arange(120).reshape(12, 10)
    Image.fromarray(values.astype(np.uint16) * 500).save(tmp_path / "a.png")
    found = read_draws([ImageFile(tmp_path / "a.png", "a.png", "a")], (1, 1, 12, 10))
    np.testing.assert_allclose(found[0, 0], values * 500 / 65535, rtol=1e-6)
    found = read_draws([ImageFile(tmp_path / "a.png", "a.png", "a")], (1, 1, 12, 10), (0.0, 60000.0))
    np.testing.assert_allclose(found[0, 0], values * 500 / 60000, rtol=1e-6)
    np.save(tmp_path / "c.npy", (values + 1j).astype(np.complex64))
    found = read_draws([ImageFile(tmp_path / "c.npy", "c.npy", "c")], (1, 2, 12, 10))
    np.testing.assert_array_equal(found[0, 1], np.ones((12, 10)))
    np.save(tmp_path / "r.npy", np.stack([values, values + 1]).astype(np.float32))
    assert read_draws([ImageFile(tmp_path / "r.npy", "r.npy", "r")], (1, 2, 12, 10)).shape == (1, 2, 12, 10)
    np.save(tmp_path / "i.npy", values)
    with pytest.raises(DataError, match="Declare it: --range"):
        read_draws([ImageFile(tmp_path / "i.npy", "i.npy", "i")], (1, 1, 12, 10))


def test_files_that_are_no_images_of_the_item(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_draws([ImageFile(path, path.name, "x")], (1, 1, 12, 10))

    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path / "o.npy", "never opened")
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117)
        + b"\n"
    )
    (tmp_path / "big.npy").write_bytes(header)
    refused(tmp_path / "big.npy", "its shape is 1000000x1000000")  # by its header alone
    np.save(tmp_path / "t.npy", np.zeros((12, 10), np.float32))
    (tmp_path / "t.npy").write_bytes((tmp_path / "t.npy").read_bytes()[:-40])
    refused(tmp_path / "t.npy", "damaged or truncated")
    np.savez(tmp_path / "two.npz", np.zeros((12, 10)), np.zeros((12, 10)))
    refused(tmp_path / "two.npz", "it holds 2 arrays")
    nibabel.save(nibabel.Nifti1Image(np.zeros((12, 10, 2, 2), np.float32), np.eye(4)), tmp_path / "v.nii")
    refused(tmp_path / "v.nii", "Expected .rows, columns.")
    (tmp_path / "x.txt").write_text("hello")
    refused(tmp_path / "x.txt", "not recognised")
    np.save(tmp_path / "s.npy", np.float32(3))
    refused(tmp_path / "s.npy", "a single number")
