"""``mrbench cite``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import JsonOption, PluginOption, plugin_warnings, print_json, registry, warn
from mrbench.cli.stats import PresetName

FILES = ("references.bib", "methods.tex", "methods.txt")


def cite(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or folders that hold some.")],
    preset: Annotated[
        PresetName, typer.Option("--preset", help="Of the statistics in the text (see `mrbench stats`).")
    ] = PresetName.default,
    control: Annotated[
        str | None, typer.Option("--control", metavar="NAME", help="Of the statistics in the text (see `mrbench stats`).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write references.bib, methods.tex and methods.txt there."),
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what to cite for these runs (BibTeX) and how they were made (a methods section).

    The text follows from manifests and rows: data and protocol, methods and weights, metrics with their signatures, statistics,
    versions. Bibliographic data hold what cards state; complete them where a journal wants more.
    """
    from mrbench.errors import UserError
    from mrbench.report.citations import cite_runs
    from mrbench.stats.presets import Plan
    from mrbench.store.files import write_text
    from mrbench.store.runs import load_runs

    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    reg = registry(plugin)
    found = cite_runs(load_runs(runs), reg, Plan(preset=preset.value, control=control or ""))
    warn([*plugin_warnings(reg), *found.notes])
    if out is not None:
        for name, text in zip(FILES, (found.bibtex(), found.latex(), found.text()), strict=True):
            write_text(out / name, text)
        typer.echo(f"written to {out}: {', '.join(FILES)}", err=True)
    if as_json:
        print_json(
            {
                "text": found.text(),
                "latex": found.latex(),
                "references": [{"key": r.key, "kind": r.kind, **r.fields} for r in found.references],
                "notes": list(found.notes),
            }
        )
    elif out is None:
        typer.echo(f"{found.text()}\n{found.bibtex()}", nl=False)
