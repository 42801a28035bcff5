"""``mrbench verify``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import DeviceOption, JsonOption, PluginOption, ThreadsOption, print_json, registry, stderr, stdout, warn


def verify(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    items: Annotated[int, typer.Option("--items", "-n", min=1, help="How many items to recompute.")] = 5,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute some items of a run, each alone, and compare pixels and metrics. Exit code 1: they differ."""
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from mrbench.store.manifest import read_manifest

    manifest = read_manifest(run)
    files = [*(plugin or []), *(Path(f) for f in manifest.plugin_files if not plugin and Path(f).is_file())]
    reg = registry(files)

    from mrbench.engine.environment import choose_device
    from mrbench.engine.threads import use_threads
    from mrbench.engine.verify import verify as recompute

    use_threads(threads)
    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("recomputing", total=items)
        checks = recompute(
            run, items, reg, choose_device(device), lambda done, total: bar.update(task, completed=done, total=total)
        )
    if manifest.method.training in ("unknown", "overlap"):
        warn(n for n in manifest.notes if n.startswith(f"{manifest.method.label}: "))
    agrees = all(c.agrees for c in checks)
    if as_json:
        print_json({"run": manifest.run, "agrees": agrees, "items": [dataclasses.asdict(c) for c in checks]})
    else:
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
        stdout().print(f"{sum(c.agrees for c in checks)} of {len(checks)} recomputed items agree")
    if not agrees:
        raise typer.Exit(1)
