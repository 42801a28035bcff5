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

    from mrbench.engine.ray_cluster import RayOptions
    from mrbench.plugins import Registry
    from mrbench.store.remote import Mirror

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
OutOption = Annotated[
    str,
    typer.Option("--out", "-o", metavar="FOLDER|URL", help="Folder of the run folders, or a URL such as s3://BUCKET/runs."),
]
EngineOption = Annotated[
    str, typer.Option("--engine", metavar="local|ray", help="Compute in this process, or on workers of Ray (mrbench[ray]).")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="auto|HOST:PORT|ray://HOST:PORT|local", help="Ray cluster (default: start Ray here)."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Ray workers (default: as many as there is room for).")
]
GpusOption = Annotated[
    float | None, typer.Option("--gpus-per-worker", metavar="F", help="GPUs of each Ray worker, such as 1 or 0.5 (default: 1).")
]
RunsArgument = Annotated[
    list[str],
    typer.Argument(metavar="RUNS...", help="Run folders, folders that hold some, or URLs such as s3://BUCKET/runs."),
]


def engine_options(
    engine: str, address: str | None, workers: int | None, gpus_per_worker: float | None, device: str
) -> RayOptions | None:
    """What ``--engine ray`` asks for; ``None``: compute in this process (``UserError`` for what does not go together)."""
    from mrbench.errors import UserError

    if engine not in ("local", "ray"):
        raise UserError(f"--engine {engine}: unknown. Known: local, ray.")
    if engine == "local":
        given = {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker}
        for flag, value in given.items():
            if value is not None:
                raise UserError(f"{flag} goes with --engine ray. Add it, or leave {flag} out.")
        return None
    from mrbench.engine.ray_cluster import RayOptions, import_ray

    options = RayOptions(address, workers, gpus_per_worker, device)
    options.check()
    import_ray()
    return options


def out_place(text: str) -> tuple[Path, Mirror | None]:
    """``--out``: the folder to work in, and the remote place that mirrors it if a URL is given (``UserError``: a file is in the way)."""
    from mrbench.errors import UserError
    from mrbench.store.remote import Mirror, is_url

    if is_url(text):
        mirror = Mirror(text)
        return mirror.local, mirror
    folder = Path(text)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file. Name a folder.")
    return folder, None


def local_runs(texts: Iterable[str], images: bool = False) -> list[Path]:
    """Paths as they are; for URLs the folder of the cache that they are brought into (with restored images if ``images``)."""
    from mrbench.errors import UserError
    from mrbench.store.manifest import MANIFEST
    from mrbench.store.remote import Mirror, is_url

    paths = []
    for text in texts:
        if is_url(text):
            mirror = Mirror(text)
            mirror.local.mkdir(parents=True, exist_ok=True)
            warn(mirror.pull(images=images))
            if not any(mirror.local.rglob(MANIFEST)):
                raise UserError(f"{text}: holds no run folder. Make one with `mrbench run ... --out {text}`.")
            paths.append(mirror.local)
        else:
            paths.append(Path(text))
    return paths


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
