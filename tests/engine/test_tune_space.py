"""What may be tuned: declarations on option models, and spaces that users name."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydantic import Field, PositiveInt

from mrbench.cards import NoOptions, Options
from mrbench.errors import PluginError, UserError
from mrbench.plugins import discover
from mrbench.tuning_space import Choices, Range, parse_space, tunable


class Sampler(Options):
    zeta: float = Field(default=0.3, gt=0, json_schema_extra={"tune": {"low": 0.1, "high": 1.0, "log": True}})
    steps: PositiveInt | None = Field(default=None, json_schema_extra={"tune": {"low": 10, "high": 50}})
    kernel: Literal["a", "b"] = Field(default="a", json_schema_extra={"tune": {"choices": ["a", "b"]}})
    ensemble: bool = False
    text: str = ""


DECLARED = {"zeta": Range(0.1, 1.0, log=True), "steps": Range(10, 50, integer=True), "kernel": Choices(("a", "b"))}


def test_declared_options_in_the_order_of_the_fields() -> None:
    assert tunable(Sampler) == DECLARED
    assert list(tunable(Sampler)) == ["zeta", "steps", "kernel"]
    assert tunable(NoOptions) == {}
    assert parse_space("auto", Sampler, "dps") == DECLARED


def test_what_the_built_in_methods_declare_is_sound() -> None:
    methods = discover(environ={}).methods
    found = {name: tunable(methods.card(name).options) for name in methods.names()}
    assert {"dps", "diffpir", "scale_cascaded", "multigrid_pnp"} <= {name for name, space in found.items() if space}
    assert found["diffpir"]["start"] == Range(200, 999, integer=True)


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"low": 1.0, "high": 0.5}, "from a lower to a higher"),
        ({"low": 0.0, "high": 0.5, "log": True}, "greater than 0"),
        ({"low": 0.1}, "expected {low, high, log}"),
        ({"low": 0.1, "high": 1.0, "log": "yes"}, "true or false"),
        ({"choices": [0.1]}, "two or more different"),
        ({"choices": [0.1, -3.0]}, "greater than 0"),
    ],
)
def test_bad_declarations_are_the_plugin_s_fault(declared, reason: str) -> None:
    class Bad(Options):
        zeta: float = Field(default=0.3, gt=0, json_schema_extra={"tune": declared})

    with pytest.raises(PluginError, match=f"Bad.zeta.*{reason}"):
        tunable(Bad)


def test_spaces_on_the_command_line(tmp_path: Path) -> None:
    space = parse_space("zeta=1e-3:2:log, steps=auto,ensemble=true|false,text=x|y", Sampler, "dps")
    assert space == {
        "zeta": Range(0.001, 2.0, log=True),
        "steps": DECLARED["steps"],
        "ensemble": Choices((True, False)),
        "text": Choices(("x", "y")),
    }
    written = tmp_path / "space.yaml"
    written.write_text("zeta: {low: 0.001, high: 2, log: true}\nsteps: auto\nensemble: [true, false]\ntext: x|y\n")
    assert parse_space(str(written), Sampler, "dps") == space
    assert parse_space(",".join(f"{k}={v}" for k, v in DECLARED.items()), Sampler, "dps") == DECLARED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zet=0.1:1", r"no option 'zet'. Did you mean 'zeta'.*Known options: zeta, steps, kernel.*tunable: zeta=0.1:1:log"),
        ("zeta=-1:1", r"greater than 0 \(got -1\). Declared: zeta=0.1:1:log"),
        ("zeta=1:1", "from a lower to a higher"),
        ("zeta=nan:1", "got nan"),
        ("zeta=5", "expected LOW:HIGH.*--set METHOD.zeta=VALUE"),
        ("zeta=1:2:lin", "expected LOW:HIGH"),
        ("zeta", "is not KEY=LOW:HIGH"),
        ("", "is not KEY=LOW:HIGH"),
        ("zeta=0.1:1,zeta=0.1:2", "given twice"),
        ("kernel=a|c", "should be 'a' or 'b'"),
        ("kernel=1:2", "it is no number: give choices"),
        ("ensemble=0:1", "it is no number"),
        ("steps=1.5:9", "valid integer"),
        ("text=auto", "declares no range for it. Declared: zeta"),
        ("nowhere.yaml", "no such file. Expected auto"),
    ],
)
def test_spaces_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_space(text, Sampler, "dps")


def test_files_that_are_no_spaces(tmp_path: Path) -> None:
    for number, text in enumerate(["- zeta\n", "", "zeta: [0.1\n", "zeta: {low: 1}\n", "zeta: 4\n"]):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match="--space"):
            parse_space(str(path), Sampler, "dps")


def test_nothing_to_tune_says_what_there_is() -> None:
    class Plain(Options):
        window: int = 3

    with pytest.raises(UserError, match=r"declares no tunable options.*Its options: window"):
        parse_space("auto", Plain, "plain")
    assert parse_space("window=1:9", Plain, "plain") == {"window": Range(1, 9, integer=True)}
    with pytest.raises(UserError, match="has no options, so there is nothing to tune"):
        parse_space("auto", NoOptions, "bicubic")


def test_values_cover_their_range_evenly() -> None:
    positions = np.linspace(0, 1, 5000, endpoint=False)
    whole = Counter(Range(3, 7, integer=True).at(u) for u in positions)
    assert set(whole) == {3, 4, 5, 6, 7}
    assert max(whole.values()) - min(whole.values()) <= 1
    assert all(type(v) is int for v in whole)
    logs = [Range(0.1, 10, log=True).at(u) for u in positions]
    assert min(logs) == 0.1
    assert max(logs) <= 10
    assert abs(np.median(logs) - 1) < 0.01
    assert all(float(f"{v:.4g}") == v for v in logs)
    many = {Range(1, 200, log=True, integer=True).at(u) for u in positions}
    assert {1, 2, 3, 200} <= many
    assert Counter(Choices(("a", "b")).at(u) for u in positions) == {"a": 2500, "b": 2500}
    assert Range(3, 7, integer=True).size == 5


def test_the_module_is_light() -> None:
    code = (
        "import sys, mrbench.tuning_space; print([m for m in ('torch', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
