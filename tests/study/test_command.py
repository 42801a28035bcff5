"""``mrbench study`` from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import typer
from study_support import COMMAND, read_by
from tests_support import heed_interrupts
from typer.testing import CliRunner

from mrbench.cli.study import app
from mrbench.errors import UserError
from mrbench.study.records import read_study


def call(*arguments: object) -> str:
    """Call a command in this process. Errors come out as they are."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_create_then_analyse(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    options = ("--images", 6, "--criteria", "contrast,sharpness", "--truth", "--repeats", 2, "--seed", 1)
    text = call("create", runs, "--out", out, *options)
    assert "6 images x 4 methods, 26 trials, 52 ratings per reader" in text
    assert f"mrbench study serve {out}" in text
    for name in ("Anna", "Ben"):
        read_by(out, name, lambda s, c: 3 + (s.method == "zebranet") + (c == "contrast"))
    text = call("analyse", out, "--resamples", 500, "--out", tmp_path / "tables")
    assert "2 readers, 6 images of 4 subjects, 4 methods" in text
    assert "*5.00 ± 0.00" in text
    names = {p.name for p in (tmp_path / "tables").iterdir()}
    assert names == {
        "study.md", "study.tex", "study.csv", "study.json", "agreement.csv", "pairs.csv", "ratings.csv", "sentences.txt",
        "ratings.png", "ratings.pdf",
    }  # fmt: skip
    document = json.loads(call("analyse", out, "--resamples", 500, "--format", "json"))
    assert document["criteria"][0]["scores"][0]["n"] == 12


def test_create_as_json(runs: Path, tmp_path: Path) -> None:
    document = json.loads(
        call("create", runs, "--out", tmp_path / "s", "--images", 3, "--mode", "pair", "--scale", "0..9", "--json")
    )
    assert document["methods"] == ["quokka_sr", "wombat_up", "zebranet"]
    assert (document["trials"], document["images"], document["ratings_per_reader"]) == (6, 9, 27)
    assert read_study(tmp_path / "s").scale == (0, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", 11), "at most 10"),
        (("--criteria", " , "), "--criteria is empty"),
        (("--scale", "1-x"), r"LOWEST\.\.HIGHEST"),
        (("--methods", ","), "--methods is empty"),
    ],
)
def test_mistakes_say_what_to_do(runs: Path, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call("create", runs, "--out", tmp_path / "s", *arguments)


def test_analyse_mistakes(study: Path, tmp_path: Path) -> None:
    read_by(study, "Anna", lambda s, c: 3)
    for arguments, message in (
        (("--format", "word"), "Known: terminal"),
        (("--alpha", 2), "alpha 2"),
        (("--resamples", 5), "too few"),
        (("--readers", "Zoe"), "no ratings of that name"),
        (("--control", "none"), "no such method"),
        (("--margin", -1), "margin"),
        (("--out", study / "study.json"), "is a file"),
    ):
        with pytest.raises(UserError, match=message):
            call("analyse", study, *arguments)
    with pytest.raises(UserError, match="is no reader study"):
        call("analyse", tmp_path)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_serve_until_it_is_ended(study: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-u", "-c", COMMAND, "serve", str(study), "--port", "0"]
    for _ in range(2):  # a killed server leaves nothing that hinders the next
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ), preexec_fn=heed_interrupts
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        url = next(w for w in line.split() if w.startswith("http"))
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"Reader study" in answer.read()
        process.send_signal(end)
        _, err = process.communicate(timeout=20)
        if end == signal.SIGINT:
            assert process.returncode == 0
            assert "stopped. All ratings are in" in err
    assert isinstance(app, typer.Typer)


def test_help_names_the_commands() -> None:
    text = call("--help")
    assert all(name in text for name in ("create", "serve", "analyse"))
