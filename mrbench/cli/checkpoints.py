"""``mrbench pull``, ``mrbench push`` and ``mrbench checkpoints``: weights, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mrbench.cli.common import DeviceOption, JsonOption, PluginOption, ThreadsOption, print_json, registry, stderr, stdout, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mrbench.cards import Checkpoint, MethodCard
    from mrbench.hub import Listed, LocalCheckpoint, Probe, ProbeCheck
    from mrbench.plugins import Registry

MethodArgument = Annotated[str | None, typer.Argument(metavar="[METHOD]", help="Only those of this method.")]


class _ListByDefault(TyperGroup):
    """``mrbench checkpoints [METHOD]`` means ``mrbench checkpoints list [METHOD]``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["list", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


app = typer.Typer(
    cls=_ListByDefault, help="List, register, pack and verify checkpoints.", add_completion=False, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """List, register, pack and verify checkpoints. `mrbench checkpoints [METHOD]` lists them."""


# -- pull and push -------------------------------------------------------------------------------------------------
def pull(
    method: Annotated[str, typer.Argument(metavar="METHOD[@NAME]", help="NAME may be hf://org/repo@REVISION/FILE.")],
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a method's checkpoints from the Hub and check them. Without @NAME: all of them that are there."""
    from mrbench.hub import Hub, RegisteredFiles, find, resolve, source_of
    from mrbench.hub.finding import existing

    reg = registry(plugin)
    name, at, text = method.partition("@")
    card = reg.methods.get(name)
    hub, registered = Hub.from_environment(), RegisteredFiles.from_environment()
    if at:
        found = find(card, text, hub=hub, registered=registered)
        records = [] if found is None else [found.record]
        warn(found.notes if found is not None else ())
    else:
        records = [r for r in card.checkpoints if source_of(r) == "hub"]
    got = [resolve(r, card.name, hub, registered) for r in records]
    if as_json:
        print_json({"method": card.name, "checkpoints": [_pulled(local) for local in got]})
    else:
        for local in got:
            typer.echo(f"{card.name}@{local.record.name}: {local.file}\n  SHA-256 {local.record.sha256}")
        if not got:
            typer.echo(
                f"{card.name}: nothing to pull, none of its checkpoints is on the Hub. {existing(card, registered.of(name))}"
            )


def _pulled(local: LocalCheckpoint) -> dict[str, Any]:
    from mrbench.hub import source_of

    r = local.record
    return {
        "name": r.name,
        "source": source_of(r),
        "file": str(local.file),
        "sha256": r.sha256,
        "repo_id": r.repo_id,
        "revision": r.revision,
    }


def push(
    folder: Annotated[Path, typer.Argument(metavar="CHECKPOINT_DIR", help="As `mrbench train --out` writes it.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/REPO", help="The repository; made if it does not exist.")],
    yes: Annotated[bool, typer.Option("--yes", help="Upload. Without it, only show what would be uploaded.")] = False,
    path_in_repo: Annotated[str, typer.Option("--path-in-repo", help="Folder inside the repository.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str, typer.Option("--message", help="Of the commit (default: method and name).")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show what publishing a checkpoint on the Hub would upload; with --yes, upload it."""
    from dataclasses import asdict

    from mrbench.hub import Hub, plan_push
    from mrbench.hub import push as upload
    from mrbench.hub.pushing import record_source

    hub = Hub.from_environment()
    plan = plan_push(folder, repo, hub, path_in_repo=path_in_repo, private=private)
    warn(plan.warnings)
    done = upload(plan, hub, message) if yes else None
    if as_json:
        result = None if done is None else {**asdict(done), "record": asdict(done.record)}
        print_json({**plan.document(), "uploaded": done is not None, "result": result})
        return
    typer.echo(f"{'uploaded' if yes else 'would upload'} to {plan.endpoint}/{plan.repo_id}{' (private)' if private else ''}:")
    for f in plan.files:
        typer.echo(f"  {f.path}  {f.size} bytes  SHA-256 {f.sha256}")
    if plan.left_out:
        typer.echo(f"  stays here: {', '.join(plan.left_out)}")
    if done is None:
        typer.echo("Nothing was uploaded. Add --yes to upload.")
        return
    method = plan.checkpoint.config["method"]
    typer.echo(f"commit {done.commit} ({done.url})\nUse it: --method {method}@{done.reference}\nFor the method's card:")
    typer.echo(record_source(done.record))


# -- the group -----------------------------------------------------------------------------------------------------
@app.command("list")
def list_(method: MethodArgument = None, plugin: PluginOption = None, as_json: JsonOption = False) -> None:
    """List the checkpoints: tier, scale, where they are, what they are said to score."""
    from rich.table import Table
    from rich.text import Text

    from mrbench.hub import listing

    reg = registry(plugin)
    found = listing(_cards(reg, method))
    if as_json:
        print_json([c.document() for c in found])
        return
    if not found:
        typer.echo(f"{method} takes no weights." if method else "No method here takes weights.")
        return
    table = Table("method", "checkpoint", "tier", "scale", "state", "where", "scores", box=None, pad_edge=False)
    for c in found:
        table.add_row(*(Text(cell) for cell in _cells(c)))
    stdout().print(table)


def _cells(listed: Listed) -> tuple[str, ...]:
    record = listed.record
    if record is None:
        return listed.method, "-", "", "", "", listed.where, ""
    scale = "any" if record.scale is None else f"{record.scale}x"
    scores = "  ".join(f"{k} {v:.4g}" for k, v in record.probe_scores.items())
    return listed.method, record.name, record.tier, scale, listed.state, listed.where, scores or "-"


@app.command("add")
def add(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method that the weights are for.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A weights file, or a checkpoint folder.")],
    name: Annotated[str, typer.Option("--name", help="What to write after @ (default: its own name).")] = "",
    tier: Annotated[str, typer.Option("--tier", help="official, author, retrained or demo, where nothing else says it.")] = "",
    scale: Annotated[int | None, typer.Option("--scale", min=1, help="The scale that it works at, likewise.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Likewise.")] = "",
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a weights file that you have, so that --method METHOD@NAME finds it. The file stays where it is."""
    from dataclasses import asdict

    from mrbench.hub import RegisteredFiles
    from mrbench.hub.adding import record_to_add

    reg = registry(plugin)
    card = reg.methods.get(method)
    registered = RegisteredFiles.from_environment()
    record, notes = record_to_add(card, file, registered, name=name, tier=tier, scale=scale, licence=licence)
    registered.add(card.name, record)
    warn(notes)
    if as_json:
        print_json({"method": card.name, "registered_in": str(registered.file), **asdict(record)})
    else:
        typer.echo(f"{card.name}@{record.name}: {record.file}\n  SHA-256 {record.sha256}, tier {record.tier}")


@app.command("pack")
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Weights: safetensors, or an official .pt, .pth or .ckpt.")],
    method: Annotated[str, typer.Option("--method", "-m", metavar="M", help="The method that the weights are for.")],
    trained_on: Annotated[str, typer.Option("--trained-on", metavar="TEXT", help="In words: data, number of subjects.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The checkpoint folder to make.")],
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            metavar="FILE.json|KEY=VALUE",
            help="What config.json says (repeatable): scale=4, degradation=bicubic_aa, channels=1, kind=network, "
            "architecture.KEY=VALUE, method_options.KEY=VALUE.",
        ),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option("--subjects", metavar="FILE", help="Ids of the training subjects, one a line; stored as hashes."),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", metavar="TEXT", help="Of the weights.")] = "",
    name: Annotated[str, typer.Option("--name", metavar="N", help="What to write after @.")] = "",
    tier: Annotated[str, typer.Option("--tier", help="official, author, retrained or demo (default: author).")] = "",
    optimised_for: Annotated[
        str, typer.Option("--optimised-for", metavar="A,B", help="Metrics that were the training loss: boards mark them.")
    ] = "",
    unwrap: Annotated[
        list[str] | None,
        typer.Option("--unwrap", metavar="KEY", help="The key that the file wraps its tensors in (repeatable)."),
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint folder of weights that mrbench did not train, after loading them into the method.

    Nothing in a pickled file is executed, and nothing is overwritten.
    """
    from dataclasses import asdict

    from mrbench.hub.pushing import record_source
    from mrbench.train.packing import Said, parse_config, read_subjects
    from mrbench.train.packing import pack as pack_folder

    reg = registry(plugin)
    card = reg.methods.get(method)
    people = None if subjects is None else read_subjects(subjects)
    goals = tuple(dict.fromkeys(g.strip() for g in optimised_for.split(",") if g.strip()))
    for goal in goals:
        reg.metrics.get(goal)
    said = Said(name, licence, trained_on, people, tier, goals)
    packed = pack_folder(card, file, parse_config(config or []), said, out, unwrap or ())
    warn(packed.notes)
    record = packed.checkpoint.record
    if as_json:
        print_json({"method": card.name, "folder": str(packed.folder), "record": asdict(record), "notes": list(packed.notes)})
        return
    typer.echo(f"{packed.folder}: {card.name}@{record.name}, SHA-256 {record.sha256}")
    typer.echo(f"Use it: --method {card.name}@{packed.folder}\nPublish it: mrbench push {packed.folder} ORG/REPO")
    typer.echo(f"Its record, for the method's card, where the file stays here:\n{record_source(record)}")


@app.command("remove")
def remove(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that it was registered under.")],
) -> None:
    """Forget a registered file. The file itself stays."""
    from mrbench.hub import RegisteredFiles

    record = RegisteredFiles.from_environment().remove(method, name)
    typer.echo(f"{method}@{name} is no longer registered; the file stays at {record.file}")


@app.command("verify")
def verify(
    method: Annotated[
        str | None, typer.Argument(metavar="[METHOD[@NAME]]", help="Only these (default: all that are here).")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check hashes and run each checkpoint's probe again. Exit code 1: a score is not what was stored, or a file is wrong."""
    from mrbench.errors import MrbenchError
    from mrbench.hub import Hub, RegisteredFiles, check_probe, find, listing, resolve
    from mrbench.hub.probing import ProbeCheck

    reg = registry(plugin)
    name, at, text = (method or "").partition("@")
    hub, registered = Hub.from_environment(), RegisteredFiles.from_environment()
    wanted: list[tuple[MethodCard, Checkpoint]] = []
    skipped: list[str] = []
    if at:
        card = reg.methods.get(name)
        found = find(card, text, hub=hub, registered=registered)
        wanted += [(card, found.record)] if found is not None else []
    else:
        for listed in listing(_cards(reg, name or None), hub, registered):
            if listed.record is None:
                continue
            if listed.state == "here" or (listed.state == "missing"):
                wanted.append((reg.methods.get(listed.method), listed.record))
            else:
                skipped.append(f"{listed.method}@{listed.record.name} is not here ({listed.state}: {listed.where})")
    results: list[tuple[str, str, ProbeCheck]] = []
    for card, record in wanted:
        with stderr().status(f"probing {card.name}@{record.name}"):
            try:
                local = resolve(record, card.name, hub, registered)
                owner = str(local.config.get("method") or card.name)
                if record.kind == "prior" and owner != card.name:
                    outcome = ProbeCheck(None, f"a shared prior: its scores are those of {owner}")
                else:
                    outcome = check_probe(local, _score_with_engine(card, reg, device, threads))
            except MrbenchError as error:
                outcome = ProbeCheck(False, str(error))
        results.append((card.name, record.name, outcome))
    warn(skipped)
    if as_json:
        print_json(
            {"checkpoints": [{"method": m, "checkpoint": c, **o.document()} for m, c, o in results], "not_here": skipped}
        )
    else:
        _print_checks(results)
    if any(o.agrees is False for _, _, o in results):
        raise typer.Exit(1)


def _print_checks(results: list[tuple[str, str, ProbeCheck]]) -> None:
    from rich.table import Table
    from rich.text import Text

    words = {True: "yes", False: "NO", None: "not checked"}
    table = Table("checkpoint", "probe", "agrees", "stored → measured", "", box=None, pad_edge=False)
    for method, name, outcome in results:
        pairs = [
            f"{c.column} {c.stored:.4g} → {'n/a' if c.measured is None else format(c.measured, '.4g')}" for c in outcome.scores
        ]
        probe = outcome.probe.name if outcome.probe is not None else "-"
        cells = (f"{method}@{name}", probe, words[outcome.agrees], "  ".join(pairs), outcome.reason)
        table.add_row(*map(Text, cells))
    if results:
        stdout().print(table)
    agreeing = sum(o.agrees is True for _, _, o in results)
    typer.echo(f"{agreeing} of {len(results)} checkpoints score what was stored")


def _cards(reg: Registry, method: str | None) -> list[MethodCard]:
    if method is not None:
        return [reg.methods.get(method)]
    return [reg.methods.get(n) for n in reg.methods.names() if not reg.methods.conflict(n)]


def _score_with_engine(
    card: MethodCard, reg: Registry, device: str, threads: int | None
) -> Callable[[LocalCheckpoint, Probe], Mapping[str, float | None]]:
    """Score by a run of the engine on the probe's data set and protocol, in a temporary folder."""

    def score(local: LocalCheckpoint, probe: Probe) -> Mapping[str, float | None]:
        from tempfile import TemporaryDirectory

        from mrbench.engine.entries import DatasetChoice, Entry, parse_given
        from mrbench.engine.environment import choose_device
        from mrbench.engine.folders import Conditions
        from mrbench.engine.run import Runner, RunOptions
        from mrbench.engine.scoring import Scorer
        from mrbench.engine.task import open_task
        from mrbench.engine.threads import use_threads
        from mrbench.errors import UserError
        from mrbench.protocol import find_protocol
        from mrbench.store.runs import load_run

        data = reg.datasets.get(probe.dataset)
        choice = DatasetChoice(data.name, data, parse_given(data, probe.dataset_options, data.name))
        options = parse_given(card, probe.options, card.name)
        entry = Entry(card.name, card, options, local.record, reg.methods.owner(card.name))
        task = open_task(choice, find_protocol(probe.protocol), reg)
        chosen_device = choose_device(device)
        scorer = Scorer.load(reg, _metrics(reg, probe), {}, chosen_device)
        conditions = Conditions(chosen_device, threads=use_threads(threads), draws=probe.draws)
        with TemporaryDirectory(prefix="mrbench-probe-") as out:
            runner = Runner(
                task, task.choose(probe.subset, None), scorer, conditions, RunOptions(Path(out), images="none"), reg
            )
            (report,) = runner.run([entry])
            if report.failed:
                item, error = next(iter(report.failed.items()))
                raise UserError(f"the probe failed on {len(report.failed)} of {len(report.requested)} items ({item}: {error})")
            rows = load_run(report.folder).rows
        rows = rows[rows["status"] == "ok"]
        return {c: float(rows[c].mean()) for c in probe.scores if c in rows and rows[c].notna().any()}

    return score


def _metrics(reg: Registry, probe: Probe) -> list[str]:
    """The metrics that give the probe's columns (``psnr_fg@mean`` -> ``psnr``), as far as this installation knows them."""
    known = set(reg.metrics.names())
    found = dict.fromkeys(c.partition("@")[0] for c in probe.scores)
    names = [n if n in known else n.removesuffix("_fg") for n in found]
    return [n for n in dict.fromkeys(names) if n in known]
