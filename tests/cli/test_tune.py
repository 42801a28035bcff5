"""`mrbench tune`, and runs with what it found."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests_support import Done, rows_of, write_plugin

from mrbench.data.leaks import subject_hash
from mrbench.store.manifest import read_manifest
from mrbench.store.runs import find_runs, load_run

VALLEY = """
    import math
    import os
    from typing import Literal

    from pydantic import Field, model_validator

    import mrbench


    class ValleyOptions(mrbench.Options):
        zeta: float = Field(default=0.3, gt=0, json_schema_extra={"tune": {"low": 0.1, "high": 10.0, "log": True}})
        idle: Literal["a", "b"] = "a"
        gain: float = 1.0

        @model_validator(mode="after")
        def _apart(self):
            if self.idle == "b" and self.gain == 0.9:
                raise ValueError("idle b and gain 0.9 exclude each other")
            return self


    class Valley:  # the best zeta is 2, whatever the image
        def __init__(self, options):
            self.options = options

        def restore(self, measurement, draws):
            zeta = self.options.zeta
            if os.environ.get("VALLEY_STOPS") and zeta > 1:
                raise KeyboardInterrupt
            if zeta > 8 or self.options.gain < 0:
                raise RuntimeError("diverged")
            up = measurement.operator.upsample(measurement.y, kernel="bicubic")
            sign = measurement.noise(draws).normal((1, *measurement.size)).sign()
            return self.options.gain * up[:, None] + 0.05 * math.log(zeta / 2) * sign


    @mrbench.hookimpl
    def mrbench_methods():
        return [
            mrbench.MethodCard("valley", Valley, "a known optimum", ValleyOptions, deterministic=False, notes="a test"),
            mrbench.MethodCard("plain", Valley, "declares nothing", Plain, notes="a test"),
        ]


    class Plain(mrbench.Options):
        window: int = 3
"""
PICTURES = {"ann": 0, "bob": 1, "cem": 2, "dua": 3, "eve": 4, "zoe": 0}  # zoe is ann under another name
PEOPLE = (("ann", "val", 3), ("bob", "val", 1), ("cem", "test", 2), ("dua", "train", 1))


def write_people(folder: Path, people=PEOPLE) -> Path:
    """Small slices of some people, each another picture."""
    folder.mkdir(parents=True)
    v, u = np.mgrid[:48, :40]
    head = ((v - 24) / 22) ** 2 + ((u - 20) / 18) ** 2 < 1
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "volume", "slice_index", "split"])
        for subject, split, slices in people:
            number = PICTURES[subject]
            for k in range(slices):
                image = np.where(head, 130 + (30 + 20 * number) * np.sin(v / 4 + u / 7 + 2 * number + k), 0)
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{subject}{k}.png")
                writer.writerow([f"{subject}{k}.png", subject, f"{subject}_v", k, split])
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "images")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return write_plugin(tmp_path, "valley", VALLEY)


@pytest.fixture
def tune(mrbench, plugin: Path, people: Path, tmp_path: Path) -> Callable[..., Done]:
    """Tune the toy method on the toy people; ``--out`` is ``tmp_path / "tuned"``."""

    def call(*arguments: object, method: str = "valley", picture: bool = False) -> Done:
        more = () if picture else ("--no-picture",)
        return mrbench(
            "tune", method, "--plugin", plugin, "--dataset", "faces=folder", "--set", f"faces.path={people}",
            "--out", tmp_path / "tuned", *more, *arguments,
        )  # fmt: skip

    return call


@pytest.fixture
def run(mrbench, plugin: Path, people: Path, tmp_path: Path) -> Callable[..., Done]:
    def call(*arguments: object, path: Path | None = None) -> Done:
        return mrbench(
            "run", "--plugin", plugin, "--dataset", "faces=folder", "--set", f"faces.path={path or people}",
            "--out", tmp_path / "runs", "--no-pictures", "--metrics", "psnr", *arguments,
        )  # fmt: skip

    return call


def result(tmp_path: Path, name: str = "valley-x4-psnr") -> dict:
    return json.loads((tmp_path / "tuned" / f"{name}.json").read_text())


# -- searching ---------------------------------------------------------------------------------------------------
def test_the_known_optimum_is_found(tune, tmp_path: Path) -> None:
    done = tune("--trials", 8, "--json", picture=True)
    assert done.code == 0, done.err
    document = done.json
    assert [t["trial"] for t in document["trials"]] == list(range(8))
    assert document["trials"][0]["values"] == {}
    assert document["trials"][0]["options"] == {"zeta": 0.3, "idle": "a", "gain": 1.0}
    tried = {t["trial"]: t["options"]["zeta"] for t in document["trials"] if t["status"] == "ok"}
    assert document["winner"] == min(tried, key=lambda t: abs(math.log(tried[t] / 2)))
    assert document["winner"] != 0
    assert document["subjects"] == sorted(subject_hash(s) for s in ("ann", "bob"))
    assert len(document["items"]) == 4
    assert document["datasets"][0]["options"]["path"] == "images"  # no places on disk
    assert document["objective"]["signature"].startswith("PSNR|")
    assert {k: v for k, v in document.items() if k not in ("file", "pictures")} == result(tmp_path)
    assert (tmp_path / "tuned" / "valley-x4-psnr.png").stat().st_size > 10_000
    assert document["protocol"]["hash"] != document["protocol"]["validation_hash"]


def test_every_trial_is_a_stored_run_on_validation_subjects_alone(tune, tmp_path: Path) -> None:
    assert tune("--trials", 3).code == 0
    document = result(tmp_path)
    assert len(find_runs([tmp_path / "tuned"])) == 3
    for trial in document["trials"]:
        (folder,) = (tmp_path / "tuned" / r for r in trial["runs"])
        data = load_run(folder)
        assert set(data.rows["subject"]) == {"ann", "bob"}
        assert data.manifest.method.options == trial["options"]
        assert data.manifest.protocol.hash == document["protocol"]["validation_hash"]
        subjects = data.rows.groupby("subject")["psnr"].mean()  # ann has three slices, bob one
        assert trial["score"] == pytest.approx(subjects.mean(), abs=1e-12)
        assert trial["score"] != pytest.approx(data.rows["psnr"].mean(), abs=1e-3)
    assert [load_run(tmp_path / "tuned" / t["runs"][0]).manifest.method.track for t in document["trials"]] == [
        "default",
        "set",
        "set",
    ]


def test_more_trials_repeat_none_of_those_stored(tune, tmp_path: Path) -> None:
    assert tune("--trials", 3).code == 0
    first = result(tmp_path)["trials"]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}
    assert tune("--trials", 5).code == 0
    assert result(tmp_path)["trials"][:3] == first
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(list(tmp_path.rglob("manifest.json"))) == 5


def test_an_interrupted_search_goes_on(tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALLEY_STOPS", "1")
    assert tune("--trials", 6).code == 130
    assert not (tmp_path / "tuned" / "valley-x4-psnr.json").exists()
    stored = rows_of(tmp_path / "tuned")
    monkeypatch.delenv("VALLEY_STOPS")
    assert tune("--trials", 6).code == 0
    after = rows_of(tmp_path / "tuned")
    pd.testing.assert_frame_equal(after[after["run"].isin(stored["run"])].reset_index(drop=True), stored)
    assert len(result(tmp_path)["trials"]) == 6


def test_failed_trials_are_recorded_and_never_win(tune, tmp_path: Path) -> None:
    done = tune("--trials", 4, "--space", "zeta=1:20,gain=1|-1")
    assert done.code == 0
    document = result(tmp_path)
    failed = [t for t in document["trials"] if t["status"] == "failed"]
    assert failed
    assert all("RuntimeError: diverged" in t["error"] and t["score"] is None for t in failed)
    assert f"{len(failed)} of 4 trials failed" in done.err
    assert document["trials"][document["winner"]]["status"] == "ok"


def test_a_search_without_a_winner(tune, run, tmp_path: Path) -> None:
    done = tune("--trials", 3, "--set", "valley.gain=-1")
    assert done.code == 1
    assert "failed: every trial" in done.err
    assert result(tmp_path)["winner"] is None
    refused = run("--method", "valley", "--set", f"valley.tuned={tmp_path / 'tuned' / 'valley-x4-psnr.json'}")
    assert refused.code == 2
    assert "all its trials failed" in refused.err


def test_options_that_exclude_each_other_fail_their_trial_only(tune, tmp_path: Path) -> None:
    assert tune("--trials", 4, "--space", "idle=a|b", "--set", "valley.gain=0.9").code == 0
    ok, bad = result(tmp_path)["trials"]
    assert ok["status"] == "ok"
    assert bad["status"] == "failed"
    assert "exclude each other" in bad["error"]
    assert bad["runs"] == []


def test_ties_go_to_the_earlier_trial_and_small_spaces_are_said(tune, tmp_path: Path) -> None:
    done = tune("--trials", 9, "--space", "idle=a|b")
    assert done.code == 0
    assert "no more than 2 different settings" in done.err
    assert "no trial beat the default options" in done.err
    document = result(tmp_path)
    assert document["trials"][0]["score"] == document["trials"][1]["score"]
    assert document["winner"] == 0


def test_directions_and_draws(tune, tmp_path: Path) -> None:
    assert tune("--trials", 4, "--objective", "min:psnr@mean", "--draws", 2, "--subset", 2).code == 0
    document = result(tmp_path, "valley-x4-psnr-mean")
    scores = {t["trial"]: t["score"] for t in document["trials"] if t["score"] is not None}
    assert document["winner"] == min(scores, key=lambda t: scores[t])
    assert document["objective"]["draws"] == 2
    assert document["datasets"][0]["items"] == 2


# -- mistakes ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("bicubic", [], "method bicubic has no options, so there is nothing to tune"),
        ("plain", [], "declares no tunable options. Name a space of your own: --space KEY=LOW:HIGH. Its options: window"),
        ("gt", [], "is a control"),
        ("x=valley", [], "without a label"),
        ("valey", [], "Did you mean 'valley'"),
        ("valley@nowhere", [], "nowhere"),
        ("valley", ["--space", "zet=1:2"], "no option 'zet'. Did you mean 'zeta'"),
        ("valley", ["--set", "valley.zeta=1"], "--set valley.zeta: is searched as well"),
        ("valley", ["--set", "valley.zet=1"], "no option 'zet'"),
        ("valley", ["--set", "valey.zeta=1"], "there is no 'valey' here"),
        ("valley", ["--objective", "psnrr"], "no metric named 'psnrr'. Did you mean 'psnr'"),
        ("valley", ["--objective", "psnr@best"], "draw 1 (psnr) or on the mean of draws (psnr@mean)"),
        ("valley", ["--objective", "psnr@mean"], "ask for more with --draws K"),
        ("valley", ["--objective", "lpips_alex"], "metric lpips_alex is not available"),
        ("valley", ["--dataset", "sample"], "data set sample has no validation subjects (train: 0, val: 0, test: 2)"),
        ("valley", ["--dataset", "valley=sample"], "that is the name of the method"),
        ("valley", ["--dataset", "faces=folder"], "two data sets are called 'faces'"),
        ("valley", ["--scale", 4, "--protocol", "uniform-x4"], "exclude each other"),
        ("valley", ["--subset", 0], "--subset 0"),
        ("valley", ["--name", "../a"], "--name ../a"),
        ("valley", ["--trials", 1], "--trials"),
        ("valley", ["--precision", "fp8"], "--precision fp8: unknown"),
    ],
)
def test_mistakes_end_with_code_2_and_nothing_on_disk(tune, tmp_path: Path, method: str, arguments: list, message: str) -> None:
    done = tune(*arguments, method=method)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "tuned").exists()


def test_test_subjects_are_refused_and_the_way_out_is_named(mrbench, plugin: Path, tmp_path: Path) -> None:
    images = write_people(tmp_path / "all", [("ann", "", 1), ("bob", "", 1)])
    ask = (
        "tune",
        "valley",
        "--plugin",
        plugin,
        "--dataset",
        "folder",
        "--set",
        f"folder.path={images}",
        "--out",
        tmp_path / "o",
    )
    done = mrbench(*ask)
    assert done.code == 2
    assert "no validation subjects (train: 0, val: 0, test: 2)" in done.err
    assert "--set folder.split=hash" in done.err
    assert not (tmp_path / "o").exists()


def test_another_question_does_not_replace_a_result(tune, tmp_path: Path) -> None:
    assert tune("--trials", 2, "--name", "mine").code == 0
    before = (tmp_path / "tuned" / "mine.json").read_bytes()
    done = tune("--trials", 2, "--name", "mine", "--objective", "ssim", "--scale", 2)
    assert done.code == 2
    assert "protocol uniform-x4" in done.err
    assert "objective psnr, not ssim" in done.err
    assert (tmp_path / "tuned" / "mine.json").read_bytes() == before
    (tmp_path / "tuned" / "mine.json").write_text("{}")
    assert "is no result of `mrbench tune`" in tune("--trials", 2, "--name", "mine").err


# -- runs with tuned options -------------------------------------------------------------------------------------
@pytest.fixture
def tuned(tune, tmp_path: Path) -> Path:
    assert tune("--trials", 5).code == 0
    return tmp_path / "tuned" / "valley-x4-psnr.json"


def test_a_run_takes_the_winner_s_options_and_boards_show_the_track(
    mrbench, run, tuned: Path, plugin: Path, tmp_path: Path
) -> None:
    done = run("--method", "valley", "--method", "t=valley", "--method", "bicubic", "--method", "h=valley",
               "--set", f"t.tuned={tuned}", "--set", "h.zeta=1")  # fmt: skip
    assert done.code == 0, done.err
    document = json.loads(tuned.read_text())
    best = document["trials"][document["winner"]]
    tracks = {}
    for folder in find_runs([tmp_path / "runs"]):
        method = read_manifest(folder).method
        tracks[method.label] = method.track
        if method.label == "t":
            assert method.options == best["options"]
            assert method.tuning is not None
            assert method.tuning["objective"] == "psnr"
            assert method.tuning["file"] == tuned.name
            assert mrbench("verify", folder, "--items", 1, "--plugin", plugin).code == 0
            assert "tuned(5)" in mrbench("show", folder).out
    assert tracks == {"valley": "default", "t": "tuned(5)", "bicubic": "default", "h": "set"}
    for form in ("terminal", "markdown", "latex", "html", "csv", "json"):
        text = mrbench("leaderboard", tmp_path / "runs", "--format", form).out
        assert "track" in text, form
        assert "tuned(5)" in text, form
    rows = mrbench("leaderboard", tmp_path / "runs", "--format", "json").json["rows"]
    assert {r["method"]: r["track"] for r in rows} == tracks
    assert "t: tuned(5) by psnr on faces (2 subjects)." in done.out


def test_boards_without_tuned_entries_have_no_track(mrbench, run, tmp_path: Path) -> None:
    assert run("--method", "valley", "--method", "h=valley", "--set", "h.zeta=1").code == 0
    for form in ("terminal", "markdown", "latex", "html", "csv", "json"):
        assert "track" not in mrbench("leaderboard", tmp_path / "runs", "--format", form).out, form


def test_tuned_runs_have_a_folder_of_their_own(run, tune, tmp_path: Path) -> None:
    """Even where the default options won: the track is part of what a run is."""
    assert tune("--trials", 2, "--space", "idle=a|b").code == 0
    assert run("--method", "valley").code == 0
    assert run("--method", "valley", "--set", f"valley.tuned={tmp_path / 'tuned' / 'valley-x4-psnr.json'}").code == 0
    assert {read_manifest(f).method.track for f in find_runs([tmp_path / "runs"])} == {"default", "tuned(2)"}


def test_tuned_options_that_do_not_fit_are_refused(run, tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("[]")
    later = json.loads(tuned.read_text()) | {"format": 99}
    (tmp_path / "later.json").write_text(json.dumps(later))
    gone = json.loads(tuned.read_text())
    for trial in gone["trials"]:
        trial["options"]["old"] = 1
    (tmp_path / "gone.json").write_text(json.dumps(gone))
    for arguments, message in (
        (["bicubic", "--set", f"bicubic.tuned={tuned}"], "is a tuning of method valley, not of bicubic"),
        (["valley", "--set", f"valley.tuned={tuned}", "--set", "valley.gain=1"], "valley.gain exclude each other"),
        (["valley", "--set", "valley.tuned=nowhere.json"], "no such file. `mrbench tune METHOD"),
        (["valley", "--set", f"valley.tuned={tmp_path / 'no.json'}"], "is no result of `mrbench tune`"),
        (["valley", "--set", f"valley.tuned={tmp_path / 'later.json'}"], "format 99 is newer"),
        (["valley", "--set", f"valley.tuned={tmp_path / 'gone.json'}"], "has no option 'old'"),
    ):
        done = run("--method", *arguments)
        assert done.code == 2
        assert message in done.err
    assert not (tmp_path / "runs").exists()


def test_tuned_options_are_no_start_of_a_tuning(tune, tuned: Path) -> None:
    done = tune("--set", f"valley.tuned={tuned}")
    assert done.code == 2
    assert "no start of a tuning" in done.err


def test_testing_on_those_tuned_on_is_refused(run, tuned: Path, tmp_path: Path) -> None:
    same = write_people(tmp_path / "same", [("ann", "test", 1), ("eve", "test", 1)])
    arguments = ("--method", "valley", "--set", f"valley.tuned={tuned}")
    done = run(*arguments, path=same)
    assert done.code == 2
    assert "were tuned on 1 of the 2 subjects of this run" in done.err
    assert not list(tmp_path.glob("runs/**/*.parquet"))
    allowed = run(*arguments, "--allow-leak", path=same)
    assert allowed.code == 0
    warnings = rows_of(tmp_path / "runs").set_index("subject")["warning"]
    assert "tuned on this subject" in warnings["ann"]
    assert not warnings["eve"]
    (folder,) = find_runs([tmp_path / "runs"])
    assert any("--allow-leak" in n for n in read_manifest(folder).notes)
    assert run("--method", "valley", path=same).code == 0  # its default options were tuned on nobody


def test_the_content_of_a_slice_gives_a_renamed_subject_away(run, tuned: Path, tmp_path: Path) -> None:
    other = write_people(tmp_path / "other", [("zoe", "test", 3), ("eve", "test", 3)])
    done = run("--method", "valley", "--set", f"valley.tuned={tuned}", path=other)
    assert done.code == 2
    assert "were tuned on 1 of the 2 subjects of this run (3 of 6 slices)" in done.err


def test_another_protocol_is_noted_in_the_rows(run, tuned: Path, tmp_path: Path) -> None:
    done = run("--method", "valley", "--set", f"valley.tuned={tuned}", "--scale", 2)
    assert done.code == 0
    assert "tuned under protocol uniform-x4" in done.err
    assert rows_of(tmp_path / "runs")["warning"].str.contains("tuned under protocol uniform-x4").all()
