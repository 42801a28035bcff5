"""``mrbench submit``: pack a run for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import JsonOption, PluginOption, print_json, registry, warn


def submit(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PACKAGE.zip", help="The package to write.")],
    images: Annotated[
        int,
        typer.Option("--images", min=0, help="Restored images to hash, and to enclose where the data set's terms allow it."),
    ] = 8,
    weights_at: Annotated[
        str, typer.Option("--weights-at", metavar="URL", help="Where others find weights that are not public elsewhere.")
    ] = "",
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pack a run: all rows, the manifest without places on this disk, signatures, and a sample of its restored images.

    `mrbench verify PACKAGE.zip` recomputes some of it elsewhere, and puts it on file as verified.
    """
    from mrbench.errors import UserError
    from mrbench.store.runs import find_runs

    if out.suffix.lower() != ".zip":
        raise UserError(f"--out {out}: the package is a zip. Name a file that ends in .zip.")
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder. Name a file.")
    folders = find_runs([run])
    if len(folders) > 1:
        raise UserError(f"{run}: holds {len(folders)} runs, and a package is of one. Name one, such as {folders[0]}.")
    from mrbench.engine.submission import submit as pack
    from mrbench.report.text import count

    done = pack(folders[0], out, registry(plugin), images, weights_at)
    warn(done.warnings)
    record = done.submission
    if as_json:
        print_json({"package": str(out), "sha256": done.sha256, **record.model_dump(mode="json")})
        return
    what = f"{count(len(record.sample), 'image')} {'enclosed' if record.images else 'as hashes alone'}"
    typer.echo(f"{out}: {record.ok} of {count(record.items, 'row')} ok, {what if record.sample else 'no images'}")
    typer.echo(f"sha256 {done.sha256}")
