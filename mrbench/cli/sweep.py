"""``mrbench sweep``."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import (
    AddressOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    JsonOption,
    OutOption,
    PluginOption,
    ThreadsOption,
    WorkersOption,
    engine_options,
    out_place,
    plugin_warnings,
    print_json,
    registry,
    stderr,
    stdout,
    warn,
)

if TYPE_CHECKING:
    from mrbench.engine.sweep import Planned
    from mrbench.engine.sweep_run import Bench
    from mrbench.engine.sweep_times import Estimate

REFUSED, FAILED = 2, 1


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="What to run, written as above.")],
    out: OutOption = "runs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with time estimates and run nothing.")] = False,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Only the I-th of N shares of the combinations (I from 1 on).")
    ] = "1/1",
    batch: Annotated[
        int | None, typer.Option("--batch", "-b", min=1, help="Items per batch (a stored plan wins when resuming).")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run all combinations of a file: methods x checkpoints x options on data sets x protocols.

    \b
      methods:
        - bicubic                            # [LABEL=]NAME[@CHECKPOINT]
        - {name: dps, options: {zeta: [0.3, 1]}}
        - {name: edsr, checkpoints: [default, runs/mine]}
      datasets:
        - sample
        - {name: folder, alias: mine, options: {path: DIR}}
      scales: [2, 4]                         # and/or protocols: [NAME, FILE.yaml]
      exclude: [{method: dps, scale: 2}]     # include: only what matches
      metrics: [psnr, ssim]                  # also metric_options, draws, subset, limit,
      precision: fp32                        # images, allow_leak: as in mrbench run
      skip: false                            # true: leave out what cannot be run

    All combinations are checked before any work. Runs that are finished are not run again, and the same command goes on where
    it stopped. Exit code 1: some combinations failed; 2: something was asked for wrongly, or cannot be run.

    A Slurm array needs nothing else: every task takes its own share of the same plan.

    \b
      #!/bin/bash
      #SBATCH --array=1-8 --gpus=1 --cpus-per-task=8 --requeue
      srun mrbench sweep sweep.yaml --out runs --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
    """
    from mrbench.errors import UserError

    reg = registry(plugin)
    from mrbench.engine.sweep import Share, plan
    from mrbench.engine.sweep_file import read_sweep

    cluster = engine_options(engine, address, workers, gpus_per_worker, device)
    share = Share.parse(shard)
    spec = read_sweep(file)
    try:
        everything = plan(spec, reg)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    folder, mirror = out_place(out)
    planned = share.take(everything)
    if not dry_run and not spec.skip:
        _refuse(everything, file)

    from mrbench.cli.progress import ProgressPlugin
    from mrbench.engine.environment import choose_device
    from mrbench.engine.sweep_run import Bench
    from mrbench.engine.sweep_times import estimate
    from mrbench.engine.threads import use_threads

    if mirror is not None:
        mirror.pull(images=False)
    here = choose_device(device if cluster is None else "cpu")  # with Ray, only workers need the device
    bench = Bench(spec, reg, folder, here, use_threads(threads), batch, mirror=mirror)
    with ProgressPlugin(stderr()) as bar:
        bench.preparing = bar.preparing
        bench.open(planned)
    if not dry_run and not spec.skip:
        _refuse(planned, file)
    estimates = estimate(planned, folder)
    if not dry_run:
        with ExitStack() as stack:
            if cluster is not None and any(p.open for p in planned):
                from mrbench.engine.ray_pool import ray_engine

                bench.executor = ray = stack.enter_context(ray_engine(cluster, bench.threads, reg.files))
                warn(ray.notes)
            _run(planned, bench, estimates)

    scorers = bench.scorers.values()
    warn(
        [
            *plugin_warnings(reg),
            *(f"metric {name} is n/a: {reason}" for s in scorers for name, reason in s.unavailable.items()),
            *(w for s in scorers for w in s.warnings),
            *(n for p in planned for n in [*(p.entry.notes if p.entry and p.state != "same" else ()), *p.notes]),
        ]
    )
    if as_json:
        print_json(_document(file, folder, shard, planned, estimates))
    else:
        _print(planned, estimates, folder, dry_run)
    failed = [p for p in planned if p.state == "failed"]
    if failed:
        typer.echo(f"failed: {len(failed)} of {len(planned)}: " + "; ".join(f"{p}: {p.reason}" for p in failed), err=True)
        raise typer.Exit(FAILED)
    if any(p.state == "refused" for p in planned) and not spec.skip:  # of a dry run
        raise typer.Exit(REFUSED)
    if everything and all(p.state == "refused" for p in everything):
        typer.echo(f"error: {file}: no combination can be run.", err=True)
        raise typer.Exit(REFUSED)


def _refuse(planned: Sequence[Planned], file: Path) -> None:
    """End the command, before any work, if some combinations cannot be run (``UserError``)."""
    from mrbench.errors import UserError

    reasons: dict[str, list[Planned]] = {}
    for one in planned:
        if one.state == "refused":
            reasons.setdefault(one.reason, []).append(one)
    if not reasons:
        return
    count = sum(map(len, reasons.values()))
    lines = []
    for reason, group in reasons.items():
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        lines.append(f"  {group[0]}{more}: {reason}")
    raise UserError(
        f"{file}: {count} of {len(planned)} combinations cannot be run, so none was:\n"
        + "\n".join(lines)
        + "\nMend or `exclude` them, or leave them out with `skip: true`."
    )


def _run(planned: Sequence[Planned], bench: Bench, estimates: Mapping[int, Estimate]) -> None:
    from mrbench.cli.sweep_table import SweepTable
    from mrbench.plugins import PluginInfo

    with SweepTable(stderr(), planned, estimates) as table:
        bench.registry.register(table, PluginInfo("progress", "mrbench.cli.sweep_table"))
        for one in planned:
            if one.open:
                table.begin(one)
                bench.run(one)
                table.end(one)


def _boards(planned: Sequence[Planned], out: Path) -> list[str]:
    """The commands that compare what there is, one per data set and protocol."""
    tasks = [(p.dataset.name, p.protocol.name) for p in planned if p.state in ("done", "finished", "failed") and p.folder]
    return [f"mrbench leaderboard {shlex.quote(str(out / d / p))}" for d, p in dict.fromkeys(tasks)]


def _print(planned: Sequence[Planned], estimates: Mapping[int, Estimate], out: Path, dry_run: bool) -> None:
    from rich.text import Text

    from mrbench.cli.sweep_table import duration, plan_table

    console = stdout()
    console.print(plan_table(planned, estimates))
    counts = ", ".join(f"{n} {state}" for state, n in Counter(p.state for p in planned).items())
    console.print(Text(f"\n{len(planned)} combinations: {counts}"), soft_wrap=True)
    if dry_run:
        waiting = [p for p in planned if p.open]
        unknown = sum(p.number not in estimates for p in waiting)
        more = f", and {unknown} of unknown length" if unknown else ""
        known = sum(e.seconds for e in estimates.values())
        if waiting:
            text = f"{duration(known)} of method time{more}" if estimates else f"{unknown} of unknown length"
            console.print(Text(f"to do: {text} (loading and metrics come on top)"), soft_wrap=True)
        return
    for one in planned:
        if one.folder is not None and one.state != "same":
            console.print(Text(f"{one}: {one.folder}"), soft_wrap=True)
    for command in _boards(planned, out):
        console.print(Text(f"compare: {command}"), soft_wrap=True)


def _document(
    file: Path, out: Path, shard: str, planned: Sequence[Planned], estimates: Mapping[int, Estimate]
) -> dict[str, Any]:
    entries = []
    for p in planned:
        guess = estimates.get(p.number)
        entries.append(
            {
                "number": p.number,
                "label": p.label,
                "method": p.variant.method,
                "checkpoint": p.variant.checkpoint,
                "options": dict(p.variant.given),
                "dataset": p.dataset.name,
                "protocol": p.protocol.name,
                "state": p.state,
                "reason": p.reason,
                "done": p.done,
                "total": p.total,
                "folder": str(p.folder) if p.folder else None,
                "estimate": {"seconds": guess.seconds, "basis": guess.basis} if guess else None,
            }
        )
    return {
        "sweep": str(file),
        "out": str(out),
        "shard": shard,
        "entries": entries,
        "leaderboards": _boards(planned, out),
    }
