"""``mrbench verify``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import (
    DeviceOption,
    JsonOption,
    PluginOption,
    SetOption,
    ThreadsOption,
    print_json,
    registry,
    stderr,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from mrbench.engine.package_check import PackageReport
    from mrbench.engine.verify import ItemCheck


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN|PACKAGE.zip", help="A run folder, or a package of `mrbench submit`.")],
    items: Annotated[int, typer.Option("--items", "-n", min=1, help="How many items to recompute.")] = 5,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Packages: a verified one becomes a run folder below this one, with its record.")
    ] = Path("runs"),
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Packages: who verifies (default: the login name).")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Packages: of the choice of items (default: a new one, which is recorded)."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="PATH", help="Where the weights are here (they must be the same ones).")
    ] = "",
    settings: SetOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute some items of a run, each alone, and compare pixels and metrics. Exit code 1: they differ.

    A package is also checked against its own hashes, the data set, and its claims about method and weights; if all agrees, it is put
    on file as verified, and leaderboards say so.
    """
    if run.is_file():
        _package(run, items, out, by, seed, checkpoint, settings, device, threads, plugin, as_json)
        return
    from rich.progress import Progress

    from mrbench.store.manifest import read_manifest

    manifest = read_manifest(run)
    files = [*(plugin or []), *(Path(f) for f in manifest.plugin_files if not plugin and Path(f).is_file())]
    reg = registry(files)

    from mrbench.engine.entries import parse_settings
    from mrbench.engine.environment import choose_device
    from mrbench.engine.threads import use_threads
    from mrbench.engine.verify import verify as recompute

    given = parse_settings(settings or [])
    data = given.take(manifest.dataset.alias)
    given.refuse_unused()
    use_threads(threads)
    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("recomputing", total=items)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        checks = recompute(run, items, reg, choose_device(device), progress, checkpoint, data)
    if manifest.method.training in ("unknown", "overlap"):
        warn(n for n in manifest.notes if n.startswith(f"{manifest.method.label}: "))
    agrees = all(c.agrees for c in checks)
    if as_json:
        print_json({"run": manifest.run, "agrees": agrees, "items": [dataclasses.asdict(c) for c in checks]})
    else:
        _print(checks)
        stdout().print(f"{sum(c.agrees for c in checks)} of {len(checks)} recomputed items agree")
    if not agrees:
        raise typer.Exit(1)


def _print(checks: Sequence[ItemCheck]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("item", "agrees", "pixels differ by", "metrics differ by", "", box=None, pad_edge=False)
    for c in checks:
        worst = max(c.differences.items(), key=lambda kv: kv[1], default=None)
        pixels = "-" if c.pixel_difference is None else f"{c.pixel_difference:.1e}"
        table.add_row(
            Text(c.item_id),
            "yes" if c.agrees else "NO",
            pixels,
            f"{worst[1]:.1e} ({worst[0]})" if worst else "-",
            Text(c.reason),
        )
    stdout().print(table)


# -- packages ------------------------------------------------------------------------------------------------------
def _package(
    package: Path,
    items: int,
    out: Path,
    by: str | None,
    seed: int | None,
    checkpoint: str,
    settings: list[str] | None,
    device: str,
    threads: int | None,
    plugin: list[Path] | None,
    as_json: bool,
) -> None:
    import secrets
    import tempfile

    from rich.progress import Progress

    from mrbench.errors import UserError

    reg = registry(plugin)  # plugin files that a package names are never loaded
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")

    from mrbench.engine.entries import parse_settings
    from mrbench.engine.environment import choose_device
    from mrbench.engine.package_check import check_package, file_run, verification_of
    from mrbench.engine.threads import use_threads

    given = parse_settings(settings or [])
    chosen = seed if seed is not None else secrets.randbits(32)
    use_threads(threads)
    with tempfile.TemporaryDirectory(prefix="mrbench-verify-") as folder, Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("recomputing", total=items)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        unpacked = Path(folder)
        report = check_package(package, unpacked, items, reg, choose_device(device), chosen, checkpoint, given, progress)
        filed = None
        if report.agrees:
            filed = file_run(unpacked, verification_of(report, _login() if by is None else by), report.manifest, out)
    warn(report.notes)
    if as_json:
        print_json(_document(report, filed))
    else:
        _print_package(report, filed)
    if not report.agrees:
        raise typer.Exit(1)


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without users
        return ""


def _document(report: PackageReport, filed: Path | None) -> dict[str, object]:
    return {
        "package": str(report.package),
        "sha256": report.sha256,
        "run": report.manifest.run,
        "agrees": report.agrees,
        "problems": report.problems,
        "items": [_finite(dataclasses.asdict(c)) for c in report.recomputed],
        "of": report.of,
        "enclosed": [_finite(dataclasses.asdict(c)) for c in report.rescored],
        "bit_equal": report.equal,
        "columns": report.columns,
        "unchecked": report.unchecked,
        "seed": report.seed,
        "filed": str(filed) if filed is not None else None,
    }


def _finite(check: dict[str, object]) -> dict[str, object]:
    """JSON knows no infinities."""
    import math

    def number(value: object) -> object:
        return value if not isinstance(value, float) or math.isfinite(value) else str(value)

    differences = check["differences"]
    assert isinstance(differences, dict)
    return {k: number(v) for k, v in check.items()} | {"differences": {k: number(v) for k, v in differences.items()}}


def _print_package(report: PackageReport, filed: Path | None) -> None:
    from rich.text import Text

    console = stdout()

    def say(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    say(f"{report.manifest.run}: {report.submission.ok} ok rows; the package's hashes fit")
    if report.recomputed:
        _print(report.recomputed)
    for c in report.rescored:
        if not c.agrees:
            say(f"enclosed image of {c.item_id}: {c.reason}")
    for problem in report.problems:
        say(f"wrong: {problem}")
    for column, reason in report.unchecked.items():
        say(f"not checked: {column} ({reason})")
    agree, images = sum(c.agrees for c in report.recomputed), sum(c.agrees for c in report.rescored)
    if report.recomputed:
        say(f"{agree} of {len(report.recomputed)} recomputed items agree (of {report.of}; seed {report.seed})")
        say(f"if one row in ten were wrong, such a choice would meet one with a chance of {report.chance:.0%} or more")
    if report.rescored:
        say(f"metrics of {images} of {len(report.rescored)} enclosed images agree")
    if filed is not None:
        say(f"verified; on file in {filed}")
    else:
        say("NOT verified: nothing is put on file")
