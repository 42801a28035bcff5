"""``mrbench check method|dataset|metric``: does a plugin keep its contract?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import (
    DeviceOption,
    JsonOption,
    PluginOption,
    SetOption,
    plugin_warnings,
    print_json,
    registry,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mrbench.engine.conformance_base import Check, CheckResult
    from mrbench.plugins import Registry

app = typer.Typer(
    help="Check that plugins keep their contract.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

STYLES = {"pass": "green", "fail": "bold red", "unexpected_pass": "bold red", "expected": "yellow", "skip": "dim"}
WORDS = {
    "pass": "passed",
    "fail": "failed",
    "unexpected_pass": "passed unexpectedly",
    "expected": "failed as expected",
    "skip": "skipped",
}


@app.callback()
def _group() -> None:
    """Check that plugins keep their contract."""


@app.command("method")
def method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method, as [LABEL=]NAME[@CHECKPOINT].")],
    settings: SetOption = None,
    device: DeviceOption = "cpu",
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite on a method, on a small phantom data set.

    Exit code 0: all checks pass, are skipped, or fail as the card expects; 1: some fail; 2: something was asked for wrongly.
    """
    reg = registry(plugin)
    from mrbench.engine.entries import parse_entries, parse_settings

    given = parse_settings(settings or [])
    (entry,) = parse_entries([name], given, reg)
    given.refuse_unused()

    from mrbench.engine.conformance import CHECKS, check_method
    from mrbench.engine.environment import choose_device

    results = check_method(entry.card, reg, entry.options, entry.checkpoint, choose_device(device))
    _report("method", entry.card.name, CHECKS, results, reg, as_json)


@app.command("dataset")
def dataset(
    name: Annotated[str, typer.Argument(metavar="[ALIAS=]NAME", help="A data set, or the name that it was added under.")],
    settings: SetOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite on a data set: its card, and what it holds if its files are here.

    Exit code 0: all checks pass, are skipped, or fail as the card expects; 1: some fail; 2: something was asked for wrongly.
    `mrbench data check` reads every file instead.
    """
    reg = registry(plugin)
    from mrbench.engine.conformance_datasets import CHECKS, check_dataset
    from mrbench.engine.entries import parse_dataset, parse_settings

    given = parse_settings(settings or [])
    choice = parse_dataset(name, given, reg)
    given.refuse_unused()
    results = check_dataset(choice.card, choice.options, choice.alias)
    _report("dataset", choice.card.name, CHECKS, results, reg, as_json)


@app.command("metric")
def metric(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A metric; its options: --set metric.NAME.KEY=VALUE.")],
    settings: SetOption = None,
    device: DeviceOption = "cpu",
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite on a metric, on small phantoms.

    Exit code 0: all checks pass, are skipped, or fail as the card expects; 1: some fail; 2: something was asked for wrongly.
    """
    reg = registry(plugin)
    from mrbench.engine.entries import metric_settings, parse_given, parse_settings

    card = reg.metrics.get(name)
    given = parse_settings(settings or [])
    options = parse_given(card, metric_settings(given, [name])[name], f"metric.{name}")
    given.refuse_unused()

    from mrbench.engine.conformance_metrics import CHECKS, check_metric
    from mrbench.engine.environment import choose_device

    results = check_metric(card, reg, options, choose_device(device))
    _report("metric", name, CHECKS, results, reg, as_json)


def _report(
    kind: str, name: str, checks: Sequence[Check[Any]], results: list[CheckResult], reg: Registry, as_json: bool
) -> None:
    """Print the results; exit code 1 if the plugin does not conform."""
    from mrbench.engine.conformance_base import conforms

    passed = conforms(results)
    warn(plugin_warnings(reg))
    if as_json:
        asks = {c.name: c.asks for c in checks}
        documents = [{"name": r.name, "asks": asks[r.name], "status": r.status, "detail": r.detail} for r in results]
        print_json({kind: name, "passed": passed, "checks": documents})
    else:
        _print(name, results)
    if not passed:
        raise typer.Exit(1)


def _print(name: str, results: list[CheckResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "status", "detail", box=None, pad_edge=False)
    for r in results:
        table.add_row(Text(r.name), Text(r.status.replace("_", " "), STYLES[r.status]), Text(r.detail))
    console = stdout()
    console.print(table)
    console.print(Text(summary(name, results)), soft_wrap=True)


def summary(name: str, results: list[CheckResult]) -> str:
    """The last line: counts by status, and the checks that failed by name."""
    counts = {s: sum(r.status == s for r in results) for s in STYLES}
    text = f"{name}: " + ", ".join(f"{counts[s]} {word}" for s, word in WORDS.items() if counts[s])
    bad = [r.name for r in results if r.status in ("fail", "unexpected_pass")]
    return f"{text}. Not conforming: {', '.join(bad)}." if bad else f"{text}. Conforming."
