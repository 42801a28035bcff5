"""What all commands share: options, consoles, and errors that end with exit code 2 instead of a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mrbench.plugins import Registry

PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.py", help="Load a plugin from a Python file (repeatable)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else there.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TARGET.KEY=VALUE",
        help="Option of a method (its label), data set (its alias) or metric.NAME (repeatable).",
    ),
]
MetricsOption = Annotated[
    str | None, typer.Option("--metrics", metavar="A,B", help="Compute only these metrics (default: those of the protocol).")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads (default: what PyTorch chooses here).")
]


def registry(files: Sequence[Path] | None) -> Registry:
    """All plugins, with those in ``files``."""
    from mrbench.plugins import discover

    return discover(files or ())


def stderr() -> Console:
    """The console for messages and progress; stdout is for results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    """The console for results. Piped output is as wide as it needs to be, not 80 columns."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=120)


def print_json(document: Any) -> None:
    """One JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def split_names(text: str | None) -> list[str] | None:
    """``"a, b"`` -> ``["a", "b"]``; ``None`` stays ``None``."""
    from mrbench.errors import UserError

    if text is None:
        return None
    names = [n.strip() for n in text.split(",") if n.strip()]
    if not names:
        raise UserError("--metrics is empty. Name metrics as in --metrics psnr,ssim (`mrbench metrics` lists them).")
    return list(dict.fromkeys(names))


def warn(lines: Iterable[str]) -> None:
    """Print warnings to stderr, each once, as plain text."""
    from rich.text import Text

    console = stderr()
    for line in dict.fromkeys(lines):
        console.print(Text(f"warning: {line}", style="yellow"), soft_wrap=True)


def plugin_warnings(reg: Registry) -> list[str]:
    """Broken plugins and hooks that raised."""
    return [f"plugin {p.name} is broken: {p.reason}" for p in reg.plugins if p.status != "ok"] + reg.warnings
