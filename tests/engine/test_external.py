"""Images made elsewhere for the items of a task, and the arguments of `mrbench score`."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrbench_datasets
import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests_support import rows_of

from mrbench.engine.external import item_names
from mrbench.store.images import read_images, read_truth, truth_file
from mrbench.store.runs import RunFolder, find_runs, load_runs

SAMPLE = Path(mrbench_datasets.__file__).parent / "sample" / "data"
Picture = NDArray[np.float32]


def save(folder: Path, images: dict[str, Any], ending: str = ".npy") -> Path:
    for name, image in images.items():
        path = folder / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".npy":
            np.save(path, image)
        else:
            Image.fromarray(image).save(path)
    return folder


# -- a folder for a task -------------------------------------------------------------------------------------------
@dataclass
class Truths:
    """What bicubic gave for four items, and their ground truth."""

    out: Path
    estimates: dict[str, Picture]
    truth: dict[str, Picture]


@pytest.fixture(scope="module")
def _bicubic_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bicubic")


@pytest.fixture
def bicubic(mrbench, _bicubic_out: Path) -> Truths:
    if not any(_bicubic_out.iterdir()):
        done = mrbench(
            "run", "-m", "bicubic", "-d", "sample", "--scale", 4, "--out", _bicubic_out, "--no-pictures", "--metrics", QUICK
        )
        assert done.code == 0, done.err
    folder = RunFolder(find_runs([_bicubic_out])[0])
    rows = folder.rows().set_index("item_id")
    estimates: dict[str, Picture] = {}
    truth: dict[str, Picture] = {}
    for shard in folder.plan()[1]:
        for item, image in read_images(folder.path, shard.number).items():
            estimates[item] = image[0, 0]
            stored = read_truth(truth_file(folder.path, rows.protocol_hash[item], rows.item_hash[item]))
            assert stored is not None
            truth[item] = stored[0][0]
    return Truths(_bicubic_out, estimates, truth)


QUICK = "psnr,data_consistency"
TASK = ("--dataset", "sample", "--scale", "4", "--label", "mine", "--metrics", QUICK)

NAMES: dict[str, Callable[[str], str]] = {
    "id": lambda i: i,
    "without data set": lambda i: i.partition("/")[2],
    "double underscore": lambda i: i.replace("/", "__"),
    "short, dashes": lambda i: i.partition("/")[2].replace("/", "-"),
}


@pytest.mark.parametrize("naming", NAMES)
def test_bicubic_from_files_scores_as_bicubic(mrbench, bicubic: Truths, tmp_path: Path, naming: str) -> None:
    folder = save(tmp_path / "images", {NAMES[naming](i): e for i, e in bicubic.estimates.items()})
    done = mrbench("score", folder, *TASK, "--out", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    (run,) = done.json["runs"]
    assert (run["label"], run["method"], run["tier"], run["items"], run["ok"]) == ("mine", "files", "files", 16, 16)
    assert run["seconds_per_item"] is None
    ours, theirs = (rows_of(o).set_index("item_id") for o in (tmp_path / "runs", bicubic.out))
    columns = ["psnr", "psnr_fg", "data_consistency", "item_hash", "protocol_hash", "subject", "volume", "shard"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_exact=True)
    stored = load_runs([tmp_path / "runs"])[0]
    assert stored.folder.parent == tmp_path / "runs" / "sample" / "uniform-x4"
    assert stored.manifest.images
    assert not stored.manifest.partial
    assert f"images made elsewhere, read from {folder}" in stored.manifest.notes
    assert "values: float32 values were taken as they are" in stored.manifest.notes


def test_other_commands_read_such_a_run(mrbench, bicubic: Truths, tmp_path: Path) -> None:
    folder = save(tmp_path / "images", {i.replace("/", "__"): e for i, e in bicubic.estimates.items()})
    done = mrbench("score", folder, *TASK, "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    assert "mine: 16 items; rows in" in done.out
    board = mrbench("leaderboard", tmp_path / "runs", bicubic.out, "--format", "csv")
    assert board.code == 0, board.err
    lines = list(csv.DictReader(board.out.splitlines()))
    assert {line["method"]: line["tier"] for line in lines} == {"mine": "files", "bicubic": "none"}
    run = find_runs([tmp_path / "runs"])[0]
    assert "images made elsewhere" in mrbench("show", run).out
    verified = mrbench("verify", run)
    assert verified.code == 2
    assert "images made elsewhere" in verified.err
    part = next(run.rglob("shard-00000.parquet"))
    before = part.stat().st_mtime_ns
    again = mrbench("score", folder, *TASK, "--out", tmp_path / "runs")
    assert again.code == 0
    assert part.stat().st_mtime_ns == before  # the same files: the same run, nothing to do
    assert len(find_runs([tmp_path / "runs"])) == 1
    rescored = mrbench("score", run, "--metrics", "nmse", "--json")
    assert rescored.code == 0, rescored.err
    assert rescored.json["runs"][0]["metrics"]["nmse"]["n"] == 16
    item = next(iter(bicubic.estimates))
    np.save(folder / f"{item.replace('/', '__')}.npy", bicubic.estimates[item] * 0.5)
    assert mrbench("score", folder, *TASK, "--out", tmp_path / "runs").code == 0
    assert len(find_runs([tmp_path / "runs"])) == 2  # other contents: another key


def test_integers_are_divided_by_their_range_or_the_declared_one(mrbench, bicubic: Truths, tmp_path: Path) -> None:
    clipped = {i.replace("/", "__"): np.clip(e, 0, 1) for i, e in bicubic.estimates.items()}
    fine = save(tmp_path / "16", {k: np.rint(v * 65535).astype(np.uint16) for k, v in clipped.items()}, ".png")
    coarse = save(tmp_path / "8", {k: np.rint(v * 255).astype(np.uint8) for k, v in clipped.items()}, ".tif")
    scanner = save(tmp_path / "4095", {k: np.rint(v * 4095).astype(np.int32) for k, v in clipped.items()})
    reference = rows_of(bicubic.out).set_index("item_id")["psnr"]
    for folder, declared, tolerance in ((fine, (), 1e-3), (coarse, (), 0.02), (scanner, ("--range", "0,4095"), 5e-3)):
        out = tmp_path / f"runs-{folder.name}"
        done = mrbench("score", folder, *TASK, *declared, "--out", out)
        assert done.code == 0, done.err
        pd.testing.assert_series_equal(
            rows_of(out).set_index("item_id")["psnr"], reference, check_exact=False, rtol=0, atol=tolerance
        )
        note = load_runs([out])[0].manifest.notes[1]
        assert {"16": "divided by 65535", "8": "divided by 255", "4095": "0..4095 (declared) became 0..1"}[folder.name] in note
    done = mrbench("score", scanner, *TASK, "--out", tmp_path / "wide")
    assert done.code == 1
    assert "Declare it: --range LO,HI" in done.err


def test_missing_wrong_and_superfluous_files(mrbench, bicubic: Truths, tmp_path: Path) -> None:
    items = sorted(bicubic.estimates)
    images = {i.replace("/", "__"): bicubic.estimates[i] for i in items[1:]}
    names = list(images)
    images[names[0]] = images[names[0]][:-1]
    images[names[1]] = np.where(images[names[1]] > 0.5, np.nan, images[names[1]])
    images[names[2]] = images[names[2]] * 255
    images[names[3]] = np.stack([images[names[3]]] * 2)
    images["sample__nobody__x__000"] = images[names[4]]
    folder = save(tmp_path / "images", images)
    done = mrbench("score", folder, *TASK, "--out", tmp_path / "runs", "--json")
    assert done.code == 1
    (run,) = done.json["runs"]
    assert (run["items"], run["ok"], run["failed"], run["skipped"]) == (16, 11, 4, 1)
    rows = rows_of(tmp_path / "runs").set_index("item_id")
    assert rows.loc[items[0], ["status", "error"]].tolist() == ["skipped", "there is no file for this item"]
    errors = rows.loc[items[1:5], "error"].tolist()
    for text, error in zip(
        ("channels, rows and columns are 1x", "NaN or infinite values", "[0, 1] range", "holds 2 images"), errors, strict=True
    ):
        assert text in error
    assert rows.loc[items[5:], "status"].eq("ok").all()
    assert "failed: 4 of 16 items" in done.err
    assert "1 of 16 items have no file and are skipped" in done.err
    assert "sample__nobody__x__000.npy" in done.err


def test_list_of_predictions(mrbench, bicubic: Truths, tmp_path: Path) -> None:
    items = sorted(bicubic.estimates)
    folder = save(tmp_path / "images", {f"im{k}": bicubic.estimates[i] for k, i in enumerate(items)})
    table = folder / "predictions.csv"

    def write(lines: list[tuple[str, str]], head: str = "file,item_id") -> None:
        table.write_text("\n".join([head, *(f"{a},{b}" for a, b in lines)]) + "\n")

    write([(f"im{k}.npy", i if k % 2 else i.partition("/")[2]) for k, i in enumerate(items)])
    done = mrbench("score", folder, *TASK, "--out", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    assert done.json["runs"][0]["ok"] == 16
    for lines, head, message in (
        ([("im0.npy", items[0])], "a,b", "its columns are a, b; expected file and item_id"),
        ([("im0.npy", items[0]), ("im1.npy", items[0])], "file,item_id", "two files for item"),
        ([("im0.npy", items[0] + "9")], "file,item_id", "line 2: this task has no item"),
        ([("none.npy", items[0])], "file,item_id", "there is no file 'none.npy'"),
        ([], "file,item_id", "lists no file"),
    ):
        write(lines, head)
        done = mrbench("score", folder, *TASK, "--out", tmp_path / "runs2")
        assert done.code == 2
        assert message in done.err


def test_ambiguous_and_foreign_files(mrbench, bicubic: Truths, tmp_path: Path) -> None:
    item = sorted(bicubic.estimates)[0]
    folder = save(tmp_path / "a", {item: bicubic.estimates[item], item.replace("/", "__"): bicubic.estimates[item]})
    done = mrbench("score", folder, *TASK, "--out", tmp_path / "runs")
    assert done.code == 2
    assert f"two files for item {item}" in done.err
    assert f"{item}.npy" in done.err
    assert f"{item.replace('/', '__')}.npy" in done.err
    done = mrbench("score", save(tmp_path / "b", {"x": bicubic.estimates[item]}), *TASK, "--out", tmp_path / "runs")
    assert done.code == 2
    assert "x.npy" in done.err
    assert item in done.err
    volume = tmp_path / "c"
    volume.mkdir()
    name = item.replace("/", "__")
    nibabel.save(nibabel.Nifti1Image(bicubic.estimates[item][..., None], np.eye(4)), volume / f"{name}.nii")
    done = mrbench("score", volume, *TASK, "--out", tmp_path / "runs")
    assert done.code == 1
    assert "Save every slice as .npy, PNG or TIFF" in done.err
    assert not (tmp_path / "runs" / "x").exists()


def test_names_of_items_with_encoded_parts() -> None:
    names = item_names("sample/patient%201/v/003")
    assert {"sample/patient%201/v/003", "patient%201__v__003", "patient 1/v/003", "patient 1-v-003"} <= set(names)


# -- the command ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to score"),
        (("--pred", "a"), "--target missing"),
        (("--target", "a"), "--pred missing"),
        (("x", "--pred", "a", "--target", "b"), "the folder x not part of this form"),
        (("--pred", "a", "--target", "b", "--dataset", "sample"), "--dataset not part of this form"),
        (("x", "--match", "y"), "--match not part of this form"),
        (("x", "--label", "y", "--out", "z"), "--label and --out not part of this form"),
        (("x", "--dataset", "sample", "--scale", "4"), "--label missing"),
        (("--dataset", "sample", "--scale", "4", "--label", "x"), "needs one folder of images, got 0"),
        (("x", "y", "--dataset", "sample", "--scale", "4", "--label", "x"), "needs one folder of images, got 2"),
    ],
)
def test_mixed_and_missing_arguments_explain_the_three_forms(mrbench, arguments: tuple[str, ...], message: str) -> None:
    done = mrbench("score", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("mrbench score ") >= 3
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "--dataset", "sample", "--label", "a"), "either --scale S or --protocol P"),
        (
            ("x", "--dataset", "sample", "--label", "a", "--scale", "4", "--protocol", "uniform-x4"),
            "either --scale S or --protocol P",
        ),
        (("x", "--dataset", "sample", "--label", "a", "--scale", "3"), "no uniform protocol for scale 3"),
        (("x", "--dataset", "sampel", "--label", "a", "--scale", "4"), "Did you mean 'sample'"),
        (("x", "--dataset", "sample", "--label", "a/b", "--scale", "4"), "bad label"),
        (("x", "--dataset", "sample", "--label", "a", "--scale", "4", "--set", "nobody.x=1"), "there is no 'nobody' here"),
        (("nowhere", "--dataset", "sample", "--label", "a", "--scale", "4"), "no such folder"),
        (("--pred", "nowhere", "--target", "b"), "no such folder"),
        (("--pred", "nowhere", "--target", "b", "--metrics", "psnrr"), "Did you mean 'psnr'"),
        (
            ("--pred", "a", "--target", "b", "--metrics", "psnr", "--set", "metric.ssim.window=uniform7"),
            "there is no 'metric.ssim'",
        ),
        (("--pred", "a", "--target", "b", "--range", "5"), "expected LO,HI"),
    ],
)
def test_mistakes_end_with_exit_code_2(mrbench, monkeypatch, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = mrbench("score", *arguments)
    assert done.code == 2
    assert message in done.err


def test_the_command_is_light_to_import() -> None:
    code = "import sys, mrbench.cli.score; print(sorted({'torch', 'pandas', 'scipy', 'skimage', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
