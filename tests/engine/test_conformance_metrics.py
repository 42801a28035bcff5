"""The conformance suite for metrics: built-in ones pass it, and every defect is caught by the check that is named after it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest
from pydantic import Field
from typer.testing import CliRunner

from mrbench.cards import Options
from mrbench.cli import check
from mrbench.engine.conformance_base import CheckResult, conforms
from mrbench.engine.conformance_metrics import CHECKS, check_metric
from mrbench.engine.metric_trial import variants
from mrbench.errors import UserError
from mrbench.plugins import discover

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[2]
SQUEEZE = Path(os.environ.get("MRBENCH_SHARED_DATA", ROOT.parent / "shared" / "data")) / "weights" / "lpips_squeeze_v01.npz"
BUILT_IN = discover(environ={"MRBENCH_PLUGINS": ""})
NAMES = [c.name for c in CHECKS]


def statuses(results: list[CheckResult], *wanted: str) -> dict[str, str]:
    return {r.name: r.detail for r in results if r.status in wanted}


# -- built-in metrics ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", BUILT_IN.metrics.names())
def test_built_in_metrics_conform(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "lpips_squeeze" and SQUEEZE.is_file():
        monkeypatch.setenv("MRBENCH_LPIPS_SQUEEZE", str(SQUEEZE))
    results = check_metric(BUILT_IN.metrics.get(name), BUILT_IN)
    assert [r.name for r in results] == NAMES
    assert not statuses(results, "fail", "unexpected_pass")
    skipped = statuses(results, "skip")
    if "prepare" in skipped:  # no weights here
        assert name.startswith("lpips_")
        assert set(NAMES) - set(skipped) == {"card", "options", "unknown_option", "signature", "load"}
    elif BUILT_IN.metrics.get(name).kind == "image":
        assert set(skipped) <= {"empty_mask", "foreground", "direction"}
        assert (name == "bias_native") == ("direction" in skipped)


def test_options_of_the_card_reach_the_metric() -> None:
    card = BUILT_IN.metrics.get("psnr")
    results = check_metric(card, BUILT_IN, card.parse({"epsilon": 1e-8}))
    assert conforms(results)
    assert statuses(results, "pass")["perfect"].endswith("psnr 80")  # 10 log10(1 / 1e-8)
    assert "eps:1e-08" in statuses(results, "pass")["signature"]


# -- defects ---------------------------------------------------------------------------------------------------------
BODY = '''
import torch
from pydantic import Field

import mrbench
from mrbench import errors


class Options(mrbench.Options):
    """Options of ``tested``.

    power : of the absolute error.
    """

    power: float = 1.0
    gain: float = Field(1.0, gt=0, description="factor")


class Metric:
    def __init__(self, options):
        self.options, self.calls = options, 0

    def prepare(self, device, compile=False):
        {prepare}

    def reference(self, truth, mask):
        {reference}
        return truth, mask

    def __call__(self, estimate, reference):
        truth, mask = reference
        self.calls += 1
        error = (estimate - truth).abs().double().mean(1) ** self.options.power * self.options.gain
        {call}
        found = {{"": error.flatten(1).mean(1)}}
        if mask is not None:
            found["_fg"] = (error * mask).flatten(1).sum(1) / mask.flatten(1).sum(1)
        {result}
        return found


CARD = dict(
    implementation=Metric, summary="mean absolute error", options=Options, title="MAE", higher_is_better=False, foreground=True,
    signature=lambda o: f"power:{{o.power:g}}|gain:{{o.gain:g}}|mask:none", paper="standard", licence="Apache-2.0",
)


@mrbench.hookimpl
def mrbench_metrics():
    return [mrbench.MetricCard(**{{"name": "tested", **CARD, {card}}})]
'''

# name: (where the line goes, the line, the check that catches it, words of its detail)
DEFECTS = {
    "no summary": ("card", "'summary': ''", "card", "summary is empty"),
    "no source": ("card", "'paper': ''", "card", "neither paper nor notes"),
    "no licence": ("card", "'licence': ''", "card", "licence is empty"),
    "min_side": ("card", "'min_side': 0", "card", "min_side 0"),
    "version": ("card", "'version': '2'", "card", "version '2'"),
    "silent option": ("card", "'signature': lambda o: f'power:{o.power:g}|mask:none'", "signature", "gain change nothing"),
    "no convention": ("card", "'signature': lambda o: ''", "signature", "does not state the convention"),
    "address": ("card", "'signature': lambda o: f'{o.power}{o.gain}|{object()}|mask:none'", "signature", "does not state"),
    "random signature": ("card", "'signature': lambda o: f'{o.power}{o.gain}|{torch.rand(())}'", "signature", "two signatures"),
    "function": ("card", "'implementation': lambda options: 1", "load", "no class"),
    "parts": ("card", "'implementation': type('M', (Metric,), {'parts': ()})", "load", "expected columns"),
    "no prepare": ("card", "'implementation': type('M', (Metric,), {'prepare': None})", "load", "no method prepare"),
    "broken prepare": ("prepare", "raise RuntimeError('out of order')", "prepare", "out of order"),
    "list": ("result", "found = [found['']]", "values", "gave list"),
    "no foreground": ("result", "found.pop('_fg', None)", "values", "expected ['', '_fg']"),
    "unasked foreground": ("result", "found.setdefault('_fg', found[''])", "values", "without a mask"),
    "one number": ("result", "found = {k: v.mean() for k, v in found.items()}", "values", "expected torch.float64 [3]"),
    "float32": ("result", "found = {k: v.float() for k, v in found.items()}", "values", "torch.float32"),
    "infinite": ("result", "found = {k: v / 0 for k, v in found.items()}", "finite", "inf"),
    "wrong way": ("card", "'higher_is_better': True", "direction", "higher is better, but"),
    "loves noise": ("call", "error = (error - 0.01).abs()", "perfect", "no better than"),
    "loves white": ("call", "error = error * ~(estimate == 1).all(1) - (estimate == 1).all(1) * 1.0", "range", "white"),
    "not finite at extremes": ("call", "error = error / (estimate.flatten(1).amax(1).double() > 0)[:, None, None]", "range", "black"),
    "random": ("call", "error = error + 1e-3 * torch.rand(())", "repeats", "nothing in a metric is random"),
    "batch": ("call", "error = error * (1 + 0.01 * len(error))", "batch_size", "in a batch and alone"),
    "order": (
        "call", "error = error * (1 + 0.01 * torch.arange(len(error)).flip(0)[:, None, None] * (len(error) > 1) + 0.02 * (len(error) == 1))",
        "batch_size", "in a batch and alone",
    ),
    "in place": ("call", "estimate.clone(); truth.mul_(0.5)", "inputs", "the ground truth"),
    "float64 only": ("call", "error = error * (2 if estimate.dtype == torch.float64 else 1)", "dtype", "float32 and float64"),
    "even sizes": ("reference", "assert truth.shape[-1] % 2 == 0, 'even sizes only'", "sizes", "even sizes only"),
    "min_side of the card": (
        "reference", "if min(truth.shape[-2:]) < 8: raise errors.MetricUnavailable('too small')", "sizes", "min_side is 1",
    ),
    "grey only": ("reference", "assert truth.shape[1] == 1, 'grey only'", "channels", "grey only"),
    "one value a channel": (
        "call", "error = error * (float('nan') if estimate.shape[1] == 3 else 1)", "channels", "nan",
    ),
    "foreground is the frame": ("result", "found |= {'_fg': found['']} if '_fg' in found else {}", "foreground", "far outside"),
    "foreground is blind": (
        "result", "found |= {'_fg': mask.flatten(1).double().mean(1)} if '_fg' in found else {}", "foreground", "does not change",
    ),
    "foreground in other units": ("result", "found |= {'_fg': 2 * found['_fg']} if '_fg' in found else {}", "foreground", "all of it"),
    "empty is 0": ("result", "found = {k: v.nan_to_num() for k, v in found.items()}", "empty_mask", "expected NaN"),
    "NaN hidden": ("call", "error = error.nan_to_num()", "nan", "hides it"),
    "NaN spreads": ("call", "error = error + 0 * estimate.double().mean()", "nan", "beside a sound"),
}  # fmt: skip
ALSO = {  # checks that the same defect cannot but fail as well
    "empty is 0": {"nan"},
    "foreground is the frame": {"empty_mask"},
    "foreground is blind": {"empty_mask", "nan"},
}


def write_plugin(folder: Path, where: str = "", line: str = "") -> Path:
    holes = dict.fromkeys(("prepare", "reference", "call", "result"), "pass") | {"card": ""}
    file = folder / "tested_plugin.py"
    file.write_text(dedent(BODY).format(**{**holes, where: line} if where else holes))
    return file


def run(file: Path) -> list[CheckResult]:
    registry = discover([file])
    assert not [p.reason for p in registry.plugins if p.status != "ok"]
    return check_metric(registry.metrics.get("tested"), registry)


def test_a_good_metric_conforms(tmp_path: Path) -> None:
    results = run(write_plugin(tmp_path))
    assert list(statuses(results, "pass")) == NAMES, statuses(results, "fail", "skip")


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_caught_by_its_own_check(tmp_path: Path, defect: str) -> None:
    where, line, expected, words = DEFECTS[defect]
    results = run(write_plugin(tmp_path, where, line))
    found = statuses(results, "fail")
    assert set(found) == {expected} | ALSO.get(defect, set()), found
    assert words in found[expected]
    assert not conforms(results)


def test_every_check_can_fail() -> None:
    caught = {check for _, _, check, _ in DEFECTS.values()} | set().union(*ALSO.values())
    assert set(NAMES) - caught == {"options", "unknown_option", "item_order", "device"}  # see below; device needs another one


def test_order_of_items(tmp_path: Path) -> None:
    """Values that depend on which of the items comes first, but not on how many there are."""
    first = "error = error * (1.0 + (truth.flatten(1).sum(1)[0] < truth.flatten(1).sum(1)[-1]))"
    assert set(statuses(run(write_plugin(tmp_path, "call", first)), "fail")) == {"item_order"}


def test_options_are_documented_and_closed(tmp_path: Path) -> None:
    file = write_plugin(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("    power : of the absolute error.\n", ""))
    assert statuses(run(file), "fail") == {"options": "options without a description: power"}
    file.write_text(text.replace("    power: float = 1.0", '    model_config = {"extra": "ignore"}\n    power: float = 1.0'))
    assert set(statuses(run(file), "fail")) == {"unknown_option"}


@pytest.mark.parametrize(
    ("name", "words"), [("psnr_fg", "foreground column"), ("seconds", "every result"), ("a,b", "--metrics")]
)
def test_names_that_columns_use(tmp_path: Path, name: str, words: str) -> None:
    registry = discover([write_plugin(tmp_path)])
    card = dataclasses.replace(registry.metrics.get("tested"), name=name)
    assert words in statuses(check_metric(card, registry), "fail")["card"]


def test_what_is_not_available_is_not_judged(tmp_path: Path) -> None:
    results = run(write_plugin(tmp_path, "prepare", "raise errors.MetricUnavailable('no weights')"))
    assert conforms(results)
    assert statuses(results, "skip")["prepare"] == "it is not available here: no weights"
    assert statuses(results, "skip")["perfect"] == "not judged: it builds on prepare"


def test_expected_failures_of_cards(tmp_path: Path) -> None:
    registry = discover([write_plugin(tmp_path, "call", "error = error.nan_to_num()")])
    plain = registry.metrics.get("tested")
    results = check_metric(dataclasses.replace(plain, expected_failures={"nan": "NaN counts as 0"}), registry)
    assert conforms(results)
    assert statuses(results, "expected")["nan"].startswith("NaN counts as 0 (")
    wrong = check_metric(dataclasses.replace(plain, expected_failures={"finite": "never", "gone": "?"}), registry)
    assert set(statuses(wrong, "unexpected_pass")) == {"finite"}
    assert "unknown checks: gone" in statuses(wrong, "fail")["card"]


def test_other_values_of_options() -> None:
    class Several(Options):
        flag: bool = True
        count: int = Field(1, ge=1, le=2)
        size: float | Literal["auto"] = 1.0
        kind: Literal["a", "b"] = "a"
        text: str = ""
        fixed: Literal[1] = 1

    found = {name: [getattr(o, name) for o in variants(Several(), name)] for name in Several.model_fields}
    assert found["flag"] == [False]
    assert set(found["count"]) == {2}
    assert "auto" in found["size"]
    assert found["kind"] == ["b"]
    assert found["text"] == ["x"]
    assert found["fixed"] == []


# -- the command -----------------------------------------------------------------------------------------------------
def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(check.app, list(map(str, arguments)))


def test_command(tmp_path: Path) -> None:
    done = invoke("metric", "psnr")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().splitlines()[-1] == f"psnr: {len(CHECKS)} passed. Conforming."
    plugin = write_plugin(tmp_path, "call", "error = error.nan_to_num() * (1 if self.options.gain < 2 else float('inf'))")
    done = invoke("metric", "tested", "--plugin", plugin, "--set", "metric.tested.gain=1.5", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert (document["metric"], document["passed"]) == ("tested", False)
    assert [c["name"] for c in document["checks"]] == NAMES
    assert {c["name"] for c in document["checks"] if c["status"] == "fail"} == {"nan"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pnsr",), "Did you mean 'psnr'"),
        (("psnr", "--set", "psnr.epsilon=1"), "there is no 'psnr' here"),
        (("psnr", "--set", "metric.psnr.eps=1"), "has no option 'eps'"),
        (("psnr", "--device", "abacus"), "--device abacus"),
    ],
)
def test_mistakes_are_user_errors(arguments: tuple[str, ...], words: str) -> None:
    done = invoke("metric", *arguments)
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
