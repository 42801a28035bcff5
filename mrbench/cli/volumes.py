"""``mrbench volumes``."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import JsonOption, PluginOption, print_json, registry, stderr, stdout, warn

if TYPE_CHECKING:
    from mrbench.engine.task import Task
    from mrbench.engine.volume_files import VolumeWriter
    from mrbench.engine.volumes import StoredVolume, VolumeTable
    from mrbench.store.runs import RunData

SHOWN = {
    "gradient_ratio": "gradient ratio",
    "gradient_ratio_fg": "fg",
    "ssim_rows_fg": "SSIM rows fg",
    "ssim_columns_fg": "columns fg",
    "psnr": "PSNR (dB)",
}


def volumes(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or folders that hold some.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write every volume as .nii.gz into DIR/RUN.")
    ] = None,
    truth: Annotated[bool, typer.Option("--truth", help="With --out: write the ground truth too.")] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Take volumes with missing slices too (NaN in files, left out of numbers).")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put restored slices back together: inter-slice consistency per volume, and NIfTI files in native units.

    Every run folder gets a table, volumes.csv: one line per volume, and one more for the mean of several draws.
    """
    from mrbench.errors import UserError
    from mrbench.store.runs import find_runs, load_run

    if truth and out is None:
        raise UserError("--truth writes files: name their folder with --out DIR.")
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    found = [load_run(folder) for folder in find_runs(runs)]
    named = [Path(f) for r in found for f in r.manifest.plugin_files if Path(f).is_file()]
    reg = registry(list(dict.fromkeys([*(plugin or []), *([] if plugin else named)])))

    from rich.progress import Progress

    from mrbench.engine.threads import use_threads
    from mrbench.engine.verify import reopen
    from mrbench.engine.volume_files import VolumeWriter
    from mrbench.engine.volumes import VolumeTable, reassemble, refuse_incomplete, stored_volumes

    use_threads(None)
    tables: list[VolumeTable] = []
    written: list[Path] = []
    notes: list[str] = []
    with Progress(console=stderr(), transient=True) as bar:
        plans: list[tuple[RunData, Task, list[StoredVolume], VolumeWriter | None]] = []
        for run in found:
            task = reopen(run.manifest, reg)
            try:
                stored = stored_volumes(task, run)
            except UserError as error:
                if run is found[-1] and not plans:
                    raise
                notes.append(str(error))
                continue
            if not incomplete:
                refuse_incomplete(run, stored)
            writer = VolumeWriter(task, out, run.manifest.run, truth) if out is not None else None
            if writer is not None and not force:
                writer.refuse_existing(stored, run.manifest.draws)
            plans.append((run, task, stored, writer))
        step = bar.add_task("volumes", total=sum(len(stored) for _, _, stored, _ in plans))
        for run, task, stored, writer in plans:
            table = VolumeTable(run)
            for volume in stored:
                whole = reassemble(task, run, volume)
                table.add(whole)
                if writer is not None:
                    written += writer.write(whole)
                bar.advance(step)
            _store(table)
            tables.append(table)
            notes += writer.notes if writer is not None else []
    warn(notes)
    if as_json:
        print_json({"runs": [_document(t) for t in tables], "files": [str(f) for f in written]})
        return
    _print(tables)
    if written:
        typer.echo(f"{len(written)} files in {out}", err=True)


def _store(table: VolumeTable) -> None:
    from mrbench.engine.volumes import table_file
    from mrbench.store.files import write_text

    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(table.lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.lines)
    write_text(table_file(table.run.folder), stream.getvalue())


def _document(table: VolumeTable) -> dict[str, Any]:
    return {"run": table.run.manifest.run, "folder": str(table.run.folder), "volumes": [_finite(line) for line in table.lines]}


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in line.items()}


def _print(tables: list[VolumeTable]) -> None:
    """One line per run and kind of image, by data set and protocol: mean ± sd over its volumes."""
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    groups: dict[str, list[VolumeTable]] = {}
    for table in tables:
        m = table.run.manifest
        groups.setdefault(f"{m.dataset.alias}, {m.protocol.name}", []).append(table)
    for title, members in groups.items():
        view = Table("run", "image", "volumes", *(SHOWN[name] for name in SHOWN), box=None, pad_edge=False)
        for column in view.columns[2:]:
            column.justify = "right"
        for table in members:
            for of in dict.fromkeys(line["of"] for line in table.lines):
                lines = [line for line in table.lines if line["of"] == of]
                values = [_mean([line[name] for line in lines], 2 if name == "psnr" else 3) for name in SHOWN]
                view.add_row(Text(table.run.manifest.run), of, str(len(lines)), *values)
        console.print(Text(f"{title}: mean ± sd over volumes", style="bold"))
        console.print(view)
        console.print()
    for line in (
        "gradient ratio: energy of differences between neighbouring slices over that of the ground truth (1 is right; less: slices "
        "alike, more: flicker)",
        "SSIM: of the volume cut across its slices, along rows and along columns; n/a below 11 slices or with gaps",
        f"fg: inside the foreground. PSNR: of the whole volume. {tables[0].lines[0]['signature']}",
        "a line per volume, with all columns: volumes.csv in the run folders",
    ):
        console.print(Text(line), soft_wrap=True)


def _mean(values: list[float], digits: int) -> str:
    known = [v for v in values if v == v]
    if not known:
        return "n/a"
    if any(v == float("inf") for v in known):
        return "inf"
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{spread}"
