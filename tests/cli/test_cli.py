"""Listings, doctor, leaderboard, show, verify, protocols: what they print and how they end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests_support import write_plugin

from mrbench.store.images import read_images, write_images


@pytest.fixture
def runs(mrbench, tmp_path: Path) -> Path:
    done = mrbench(
        "run",
        "--method",
        "bicubic",
        "--method",
        "nearest",
        "--dataset",
        "sample",
        "--out",
        tmp_path / "runs",
        "--metrics",
        "psnr,ssim",
        "--no-pictures",
    )
    assert done.code == 0, done.err
    return tmp_path / "runs"


@pytest.mark.parametrize("kind", ["methods", "datasets", "metrics", "degradations", "protocols", "plugins", "doctor"])
def test_listings_as_json_and_text(mrbench, kind: str) -> None:
    found = mrbench(kind, "--json").json
    assert isinstance(found, list)
    assert found
    assert all({"name", "status"} <= set(f) for f in found)
    text = mrbench(kind)
    assert text.code == 0
    assert found[0]["name"] in text.out


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("methods", "bicubic", "channels"),
        ("datasets", "sample", "BSD"),
        ("datasets", "folder", "path"),
        ("metrics", "ssim", "SSIM|gauss11"),
        ("degradations", "bicubic_aa", "default: -0.5"),
        ("plugins", "sample", "data set sample"),
        ("protocols", "uniform-x4", "assumptions"),
    ],
)
def test_details(mrbench, kind: str, name: str, text: str) -> None:
    done = mrbench(kind, name)
    assert done.code == 0
    assert text in done.out
    assert json.loads(mrbench(kind, name, "--json").out)[0]["name"] == name
    wrong = mrbench(kind, name[:-1])
    assert wrong.code == 2
    assert f"Did you mean '{name[:9]}" in wrong.err


def test_protocols_show_prints_rules_hash_assumptions_and_task(mrbench) -> None:
    done = mrbench("protocols", "show", "uniform-x4", "--dataset", "sample")
    assert done.code == 0, done.err
    for text in ("hash:", "bicubic_aa", "percentile: 99.9", "assumptions:", "items: 16", "subjects: 2"):
        assert text in done.out
    assert mrbench("protocols", "show", "uniform-x4", "--dataset", "sample", "--json").json[0]["task"]["items"] == 16
    assert mrbench("protocols", "show").code == 2
    assert mrbench("protocols", "a", "b").code == 2


def test_broken_plugins_are_listed_with_their_reason(mrbench, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "sad", "raise RuntimeError('out of order')")
    for command in ("plugins", "methods", "doctor"):
        done = mrbench(command, "--plugin", plugin)
        assert done.code == 0
        assert "out of order" in done.out.replace("\n", " ")


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html", "csv", "json"])
def test_leaderboard_formats(mrbench, runs: Path, form: str, tmp_path: Path) -> None:
    done = mrbench("leaderboard", runs, "--format", form)
    assert done.code == 0, done.err
    assert "bicubic" in done.out
    assert "nearest" in done.out
    if form not in ("csv",):
        assert "f43933104ac92863" in done.out or "protocol" in done.out
    if form == "json":
        board = done.json
        assert {"protocol", "protocol_hash", "n_subjects", "rows"} <= set(board)
        assert board["n_subjects"] == 2
        assert set(board["rows"][0]["psnr"]) >= {"mean", "sd", "n"}
    out = tmp_path / "table"
    assert mrbench("leaderboard", runs, "--format", form, "--out", out).code == 0
    assert "bicubic" in out.read_text()


def test_leaderboard_refuses_to_mix_protocols(mrbench, runs: Path) -> None:
    assert (
        mrbench(
            "run",
            "--method",
            "bicubic",
            "--dataset",
            "sample",
            "--scale",
            2,
            "--out",
            runs,
            "--metrics",
            "psnr",
            "--no-pictures",
        ).code
        == 0
    )
    done = mrbench("leaderboard", runs)
    assert done.code == 2
    assert "uniform-x2" in done.err
    assert "uniform-x4" in done.err
    assert mrbench("leaderboard", runs / "sample" / "uniform-x2").code == 0


def test_leaderboard_refuses_unequal_items(mrbench, runs: Path) -> None:
    assert (
        mrbench(
            "run",
            "--method",
            "lanczos",
            "--dataset",
            "sample",
            "--subset",
            4,
            "--out",
            runs,
            "--metrics",
            "psnr",
            "--no-pictures",
        ).code
        == 0
    )
    done = mrbench("leaderboard", runs)
    assert done.code == 2
    assert "--intersect" in done.err
    done = mrbench("leaderboard", runs, "--intersect", "--format", "json")
    assert done.json["n_items"] == 4


def test_show(mrbench, runs: Path) -> None:
    done = mrbench("show", runs)
    assert done.code == 0, done.err
    assert "worst 10 items by psnr" in done.out
    document = mrbench("show", runs, "--json").json
    assert {r["label"] for r in document["runs"]} == {"bicubic", "nearest"}
    assert document["runs"][0]["manifest"]["protocol"]["name"] == "uniform-x4"
    assert mrbench("show", runs / "nowhere").code == 2
    assert mrbench("show", runs, "--metric", "psn").code == 2


def test_verify_agrees_and_catches_tampering(mrbench, runs: Path) -> None:
    run = next((runs / "sample" / "uniform-x4").glob("bicubic-*"))
    done = mrbench("verify", run, "--items", 3, "--json")
    assert done.code == 0, done.err
    assert done.json["agrees"]
    assert len(done.json["items"]) == 3
    assert all(i["pixel_difference"] < 1e-5 for i in done.json["items"])
    for shard in range(4):
        images = read_images(run, shard)
        write_images(run, shard, {k: (v + np.float32(0.01)) for k, v in images.items()})
    done = mrbench("verify", run, "--items", 16)
    assert done.code == 1
    assert "pixels differ by" in done.out
    nearest = next((runs / "sample" / "uniform-x4").glob("nearest-*"))
    for part in (nearest / "rows").iterdir():
        shutil.copy(run / "rows" / part.name, part)
    done = mrbench("verify", nearest, "--items", 16)
    assert done.code == 1
    assert mrbench("verify", runs / "nowhere").code == 2


def test_help_of_everything(mrbench) -> None:
    assert mrbench("--version").out.startswith("mrbench 0.")
    for command in (
        "run",
        "score",
        "verify",
        "show",
        "leaderboard",
        "methods",
        "datasets",
        "metrics",
        "degradations",
        "protocols",
        "plugins",
        "doctor",
        "check",
    ):
        assert mrbench(command, "--help").code == 0
    assert mrbench("rnu").code == 2
