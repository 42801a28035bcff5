"""``mrbench predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from mrbench.cli.common import (
    DeviceOption,
    JsonOption,
    PluginOption,
    SetOption,
    ThreadsOption,
    plugin_warnings,
    print_json,
    registry,
    stderr,
    stdout,
    warn,
)
from mrbench.settings import Plane

if TYPE_CHECKING:
    from mrbench.engine.entries import Settings
    from mrbench.engine.predict import LowResolution, Prediction
    from mrbench.protocol import Protocol

DEFAULT_SCALE = 4
DEGRADATION = "degradation"  # target of --set
CPU_BATCH, GPU_BATCH = 4, 16
NAME_WIDTH = 32  # of inputs beside the bar
Precision = Literal["fp32", "bf16", "fp16"]


def predict(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="An LR picture, array, NIfTI volume, DICOM series (its folder) or .h5 file, or a folder of them.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Where the restored image goes (a folder for a folder).", show_default=False)
    ],
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", metavar="[LABEL=]NAME[@CHECKPOINT]", help="The method.")
    ] = None,
    scale: Annotated[int | None, typer.Option("--scale", "-s", help="2, 4 or 8: the rules of uniform-xS (default: 4).")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol or a YAML file, instead of --scale.")
    ] = None,
    degradation: Annotated[
        str | None,
        typer.Option("--degradation", metavar="NAME", help="How the image was made coarse (default: as the protocol says)."),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option("--sigma", min=0, help="Noise level in units of the [0, 1] range (default: unknown)."),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", "-k", min=1, max=1000, help="Posterior samples; from 2 on, _mean and _sd are written too.")
    ] = 1,
    all_draws: Annotated[bool, typer.Option("--all-draws", help="Write draws 2 to K as well, as _draw2 ...")] = False,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range", metavar="LO,HI", help="Input values that become 0 and 1 (default: 0 and the volume's own percentile)."
        ),
    ] = None,
    plane: Annotated[
        str | None, typer.Option("--plane", help="Cut volumes in this plane: native, axial, coronal or sagittal.")
    ] = None,
    volume_index: Annotated[
        int | None, typer.Option("--volume-index", min=0, help="Which volume of 4-D NIfTI or HDF5 files, from 0.")
    ] = None,
    assume_axcodes: Annotated[
        str | None,
        typer.Option("--assume-axcodes", metavar="LAS", help="Where stored axes run to, for NIfTI headers that do not say."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Name of the array in .npz and HDF5 files that hold several.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite outputs (never the input).")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out inputs whose outputs are all there: goes on where it stopped.")
    ] = False,
    settings: SetOption = None,
    batch: Annotated[int | None, typer.Option("--batch", "-b", min=1, help="Slices at a time.")] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16.")] = "fp32",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Apply a method to your own LR images: OUTPUT has the input's units, type of values and place in space.

    Intensities are scaled by the volume's own percentile. The same input gives the same image. Exit code 1: some inputs failed;
    2: something was asked for wrongly.
    """
    from mrbench.errors import DataError, UserError

    reg = registry(plugin)
    from mrbench.engine.entries import parse_entries, parse_settings
    from mrbench.protocol import find_protocol, resolve, uniform_name

    if scale is not None and protocol is not None:
        raise UserError("--scale and --protocol exclude each other: --scale S means --protocol uniform-xS.")
    if precision not in get_args(Precision):
        raise UserError(f"--precision {precision}: unknown. Known: {', '.join(get_args(Precision))}.")
    if len(method or []) > 1:
        raise UserError("--method is given twice. One call applies one method; call again for another.")
    if force and skip_existing:
        raise UserError("--force and --skip-existing exclude each other.")
    if all_draws and draws == 1:
        raise UserError("--all-draws: there is one draw. Ask for several with --draws K.")
    given = parse_settings(settings or [])
    rules = find_protocol(protocol if protocol is not None else uniform_name(scale if scale is not None else DEFAULT_SCALE))
    rules = _with_degradation(rules, degradation, given)
    if rules.dimensions != 2:
        raise UserError(f"protocol {rules.name} degrades whole volumes; predict works slice by slice. Name a 2-D protocol.")
    resolved = resolve(rules, reg)
    (entry,) = parse_entries(method or [], given, reg, rules.in_plane)
    given.refuse_unused()

    from mrbench.engine.folders import refuse_unfit
    from mrbench.engine.predict_files import done_before, find_jobs, kinds_of, refuse_existing

    declared = None
    if value_range is not None:
        from mrbench.engine.pairs import parse_range

        declared = parse_range(value_range)
    refuse_unfit([entry], rules)
    draws_made = 1 if entry.card.deterministic else draws
    kinds = kinds_of(draws_made, all_draws)
    found = find_jobs(source, target)
    jobs = [job for job in found.jobs if not (skip_existing and done_before(job, kinds))]
    refuse_existing(jobs, kinds, force or skip_existing)

    from mrbench.hub import resolve as get_weights

    if entry.checkpoint is not None:  # downloaded and checked before any work
        get_weights(entry.checkpoint, entry.card.name)

    from mrbench.engine.environment import choose_device
    from mrbench.engine.predict import PredictionFailed, Predictor, Reading, load_method, open_input
    from mrbench.engine.threads import use_threads

    chosen = choose_device(device)
    use_threads(threads)
    reading = Reading(_plane(plane, rules), volume_index, assume_axcodes, key, declared)
    single = open_input(found.jobs[0], reading, rules) if jobs and found.single else None
    size = batch or (GPU_BATCH if chosen.type == "cuda" else CPU_BATCH)
    predictor = Predictor(entry, resolved, load_method(entry, chosen, precision), draws_made, kinds, sigma, size)
    if single is not None:
        predictor.refuse_channels(single.shown.shape[0], source)
    done: list[Prediction] = []
    failed: list[tuple[str, str]] = []
    notes = [*found.notes, *plugin_warnings(reg), *entry.notes]
    if draws_made < draws:
        notes.append(f"{entry.label} is deterministic: one image, without mean and sd")
    with _Bar(len(jobs)) as bar:
        for job in jobs:
            try:
                opened = single or open_input(job, reading, rules)
                done.append(predictor.predict(opened, bar.begin(job.name, opened.shown.shape[1])))
                notes += [*predictor.warnings(opened.shown.shape[0]), *(f"{job.name}: {n}" for n in done[-1].notes)]
            except (DataError, UserError) as error:
                if single is not None:
                    raise
                failed.append((job.name, str(error)))
            except PredictionFailed as error:
                failed.append((job.name, str(error)))
            bar.end()

    notes += [_clipping(p) for p in done if p.clipped]
    warn(notes)
    if as_json:
        print_json(_document(entry, resolved, draws_made, done, failed, len(found.jobs) - len(jobs)))
    else:
        for one in done:
            _print(one)
        if len(jobs) < len(found.jobs):
            typer.echo(f"{len(found.jobs) - len(jobs)} of {len(found.jobs)} were there before")
    if failed:
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        head = f"{len(failed)} of {len(jobs)} inputs: " if len(jobs) > 1 else ""
        typer.echo(f"failed: {head}" + "; ".join(error for _, error in failed[:3]) + more, err=True)
        raise typer.Exit(1)


def _with_degradation(rules: Protocol, name: str | None, given: Settings) -> Protocol:
    from mrbench.protocol import DegradationSpec

    changes = given.take(DEGRADATION)
    if name is None and not changes:
        return rules
    kept = rules.degradation.options if name in (None, rules.degradation.name) else {}
    spec = DegradationSpec(name=name or rules.degradation.name, options={**kept, **changes})
    return rules.model_copy(update={"degradation": spec})


def _plane(given: str | None, rules: Protocol) -> Plane:
    from mrbench.errors import UserError

    if given is None:
        return rules.preparation.plane
    if given not in get_args(Plane):
        raise UserError(f"--plane {given}: unknown. Known: {', '.join(get_args(Plane))}.")
    return cast(Plane, given)


class _Bar:
    """Slices of the input at hand with an ETA, and how many inputs there are."""

    def __init__(self, total: int) -> None:
        from mrbench.bars import progress_bar

        self._total, self._number = total, 0
        self._bar = progress_bar(stderr())
        self._all = self._bar.add_task("inputs", total=total, visible=total > 1, note="")
        self._task = self._bar.add_task("", total=1, visible=False, note="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, name: str, slices: int) -> Any:
        """Start on an input; returns what is to be called with the number of slices done."""
        self._bar.reset(self._task, total=slices, description=name.rpartition("/")[2][-NAME_WIDTH:], visible=True)
        return lambda count: self._bar.update(self._task, advance=count)

    def end(self) -> None:
        """One input more is done."""
        self._bar.update(self._all, advance=1)


def _clipping(p: Prediction) -> str:
    total = p.size[0] * p.size[1] * p.source.shown.shape[1] * (3 if p.source.shown.shape[0] == 3 else 1)
    types = ", ".join(dict.fromkeys(f.stored.dtype.name for f in p.source.forms))
    return f"{p.source.job.name}: {p.clipped} of {total} values lay beyond the range of {types} and were cut to it"


def _document(entry: Any, resolved: Any, draws: int, done: list[Prediction], failed: list[tuple[str, str]], before: int) -> Any:
    record = entry.checkpoint
    return {
        "method": entry.card.name,
        "label": entry.label,
        "tier": entry.tier,
        "checkpoint": record.name if record else "",
        "checkpoint_sha256": record.sha256 if record else "",
        "protocol": resolved.name,
        "protocol_hash": resolved.hash,
        "degradation": resolved.rules["degradation"],
        "draws": draws,
        "images": [
            {
                "input": [str(f) for f in p.source.job.files],
                "outputs": {kind.removeprefix("_") or "image": [str(f) for f in files] for kind, files in p.files.items()},
                "input_sha256": p.source.digest,
                "slices": p.source.shown.shape[1],
                "plane": p.source.display.plane,
                "input_size": list(p.source.shown.shape[2:]),
                "size": list(p.size),
                "type": p.source.forms[0].stored.dtype.name,
                "intensity": {"scale": p.source.intensity.scale, "offset": p.source.intensity.offset},
                "clipped": p.clipped,
                "seconds": round(p.seconds, 3),
            }
            for p in done
        ],
        "failed": [{"input": name, "error": error} for name, error in failed],
        "there_before": before,
    }


def _print(p: Prediction) -> None:
    from rich.text import Text

    shown: LowResolution = p.source
    slices = shown.shown.shape[1]
    plane = f"{shown.display.plane} " if shown.display.plane else ""
    what = f"{slices} {plane}slices, " if slices > 1 else ""
    h, w = shown.shown.shape[2:]
    files = ", ".join(str(f) for kind in p.files for f in p.files[kind][:1])
    more = f" and {len(p.files['']) - 1} more" if len(p.files[""]) > 1 and len(shown.job.outputs) > 1 else ""
    text = f"{shown.job.name}: {what}{h} x {w} -> {p.size[0]} x {p.size[1]}, {p.seconds:.3g} s: {files}{more}"
    stdout().print(Text(text), soft_wrap=True)
