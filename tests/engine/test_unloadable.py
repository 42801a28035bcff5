"""Options that a method's weights do not take are refused before any work, with the label and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("method", "option", "reason"),
    [
        ("mine=diffpir", "mine.steps=5000", "mine: steps 5000: between start 599 and 0 there is no room"),
        ("dps", "dps.steps=2000", "dps: steps 2000: between 1 and 1000 of 1000"),
        ("scale_cascaded", "scale_cascaded.steps=1", "scale_cascaded: steps 1: every one of the 3 levels needs at least one"),
        ("i2sb", "i2sb.nfe=5000", "i2sb: nfe 5000"),
    ],
)
def test_impossible_options_end_the_command_before_any_row(
    mrbench, tmp_path: Path, method: str, option: str, reason: str
) -> None:
    done = mrbench(
        "run", "-m", "nearest", "-m", method, "--set", option, "-d", "sample", "--subset", 2, "--out", tmp_path / "runs"
    )
    assert done.code == 2
    assert reason in " ".join(done.err.split())
    assert not list(tmp_path.rglob("*.parquet"))
