"""``mrbench check method``: does a plugin keep its contract?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    from mrbench.engine.conformance import CheckResult

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

    from mrbench.engine.conformance import CHECKS, check_method, conforms
    from mrbench.engine.environment import choose_device

    results = check_method(entry.card, reg, entry.options, entry.checkpoint, choose_device(device))
    passed = conforms(results)
    warn(plugin_warnings(reg))
    if as_json:
        asks = {c.name: c.asks for c in CHECKS}
        checks = [{"name": r.name, "asks": asks[r.name], "status": r.status, "detail": r.detail} for r in results]
        print_json({"method": entry.card.name, "passed": passed, "checks": checks})
    else:
        _print(entry.card.name, results)
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
