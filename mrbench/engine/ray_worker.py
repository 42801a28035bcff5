"""The worker of the Ray engine: holds a loaded method on its device, computes one shard at a time, stores it by itself."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from filelock import Timeout

import mrbench
from mrbench.data.items import ItemList, ItemRef
from mrbench.engine.entries import DatasetChoice, Entry
from mrbench.engine.environment import describe, device_name
from mrbench.engine.folders import Conditions
from mrbench.engine.loading import Loaded, load_method, parameters_of
from mrbench.engine.ray_job import EntryFacts, Job, Outcome, Place, PluginFile, Ready, Setup, Ticket
from mrbench.engine.restorer import Restorer, Steps
from mrbench.engine.run import Runner, RunOptions, RunReport, ShardWork
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Task, open_task
from mrbench.engine.threads import use_threads
from mrbench.errors import MrbenchError, UserError
from mrbench.plugins import Registry, discover
from mrbench.protocol import Protocol, resolve
from mrbench.store.images import image_file
from mrbench.store.runs import RunFolder, Shard

COMMIT_SECONDS = 60.0  # a worker that stopped while it stored a shard does not hold the others up for longer


@dataclass
class RemoteTask(Task):
    """A task that knows only the items of the shard at hand."""

    known_units: str = ""
    others: Mapping[str, ItemRef | None] = field(default_factory=dict)

    @property
    def units(self) -> str:
        """As the driver found them over all items."""
        return self.known_units

    def other(self, item: ItemRef) -> ItemRef | None:
        """As the driver chose it among all items."""
        return self.others.get(item.item_id)


@dataclass
class RemoteWork(ShardWork):
    """The work of one entry as a worker sees it: items come with each ticket."""

    expected: Mapping[str, str] = field(default_factory=dict)
    images: bool = False

    def __post_init__(self) -> None:
        self.items: Mapping[str, ItemRef] = {}
        self.columns = dict(self.expected)
        self.stores_images = self.images

    def store(self, shard: Shard, rows: Sequence[dict[str, Any]], stored: pa.Table | None) -> None:
        """Write the part, unless another worker was first: rows are the same, and the first ones count."""
        with suppress(Timeout), self.folder.committing(shard.number, COMMIT_SECONDS):
            if self.todo(shard):
                super().store(shard, rows, stored)
            return
        super().store(shard, rows, stored)


class Worker:
    """Lives in a Ray actor. ``load`` and ``compute`` are called one at a time; ``steps`` may be called meanwhile."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        with suppress(OSError):
            os.chdir(setup.folder)
        use_threads(setup.threads)
        self._job: Job | None = None
        self._restorer: Restorer | None = None
        self._steps: Steps | None = None
        self._registry: Registry | None = None
        with suppress(MrbenchError):  # `load` tells of it
            self._registry = discover([_plugin_file(p) for p in setup.plugins])
        self._scorers: dict[str, Scorer] = {}
        self._own: dict[str, ItemRef] | None = None  # items of this machine's own cache, if the driver's is not seen

    # -- a job -------------------------------------------------------------------------------------------------
    def load(self, job: Job) -> Ready:
        """Load a job's method and metrics; an unloadable method is left to its rows, as without Ray."""
        node, host = _node(), platform.node()
        try:
            use_threads(self.setup.threads)
            return Ready(node, host, self._load(job))
        except MrbenchError as error:
            return Ready(node, host, problem=f"on the machine {host}: {error}")
        except Exception:
            return Ready(node, host, problem=f"on the machine {host}: a worker could not start.\n{traceback.format_exc()}")

    def _load(self, job: Job) -> Loaded:
        self._job = self._restorer = None  # memory of the job before
        if mrbench.__version__ != self.setup.version:
            raise UserError(
                f"mrbench {mrbench.__version__} is installed, and the command runs {self.setup.version}. Install the same everywhere."
            )
        self._registry = self._registry or discover([_plugin_file(p) for p in self.setup.plugins])
        entry = _entry(job.entry, self._registry)
        self._task = _task(job, self._registry)
        device = torch.device(self.setup.device)
        self._scorer = self._metrics(job, device)
        self._conditions = Conditions(device, job.precision, self.setup.threads, job.draws)
        restorer, self._broken = load_method(entry, self._conditions)
        if restorer is not None:
            restorer.on_step = self._on_step
        self._entry, self._restorer, self._own = entry, restorer, None
        self._job = job
        return Loaded(
            restorer.nfe if restorer else entry.card.nfe,
            parameters_of(restorer),
            device.type,
            device_name(device),
            describe(device, self.setup.threads, job.precision),
        )

    def _metrics(self, job: Job, device: torch.device) -> Scorer:
        key = repr((job.metrics, job.draws, job.units))
        if key not in self._scorers:
            names = [name for name, _ in job.metrics]
            self._scorers[key] = Scorer.load(self._plugins, names, dict(job.metrics), device, self.setup.compile)
        scorer = self._scorers[key]
        scorer.notes.clear()
        draws = 1 if self._plugins.methods.get(job.entry.method).deterministic else job.draws
        found = {name: c.signature for name, c in scorer.columns(draws, job.units).items()}
        if found != dict(job.columns):
            name = next(n for n in {**job.columns, **found} if found.get(n) != job.columns.get(n))
            why = scorer.unavailable.get(name, f"{found.get(name)} here, {job.columns.get(name)} where the command runs")
            raise UserError(f"metric {name} is not the same everywhere: {why}. Install the same everywhere.")
        return scorer

    @property
    def _plugins(self) -> Registry:
        if self._registry is None:
            raise ValueError("no job is loaded")
        return self._registry

    def _runner(self, images: str) -> Runner:
        how = RunOptions(Path(), images=images)
        return Runner(self._task, (), self._scorer, self._conditions, how, self._plugins)

    # -- shards ------------------------------------------------------------------------------------------------
    def compute(self, number: int, place: Place, ticket: Ticket) -> Outcome:
        """Compute and store one shard of job ``number``; errors come back as values."""
        self._steps = None
        try:
            use_threads(self.setup.threads)  # OpenMP keeps the number per thread, and actors have several
            if self._job is None or self._job.number != number:
                raise ValueError(f"job {number} is not loaded")
            return self._compute(self._job, place, ticket)
        except MrbenchError as error:
            return Outcome("user", text=str(error))
        except OSError as error:
            if error.errno is None:
                return Outcome("bug", text=traceback.format_exc())
            return Outcome(
                "storage", text=error.strerror or str(error), errno=error.errno, file=str(error.filename or place.folder)
            )
        except Exception:
            return Outcome("bug", text=traceback.format_exc())
        finally:
            self._steps = None

    def _compute(self, job: Job, place: Place, ticket: Ticket) -> Outcome:
        work, shard = self._work(job, place), ticket.shard
        work.items = {i.item_id: i for i in self._here(ticket.items)}
        self._task.others = {k: None if i is None else self._here([i])[0] for k, i in ticket.others.items()}
        with work.folder.claim(shard.number) as mine:
            if not mine and not ticket.redundant:
                return Outcome("held")
            if place.mirror is not None:
                place.mirror.pull_files([work.folder.part(shard.number), image_file(place.folder, shard.number)])
            todo = work.todo(shard, repair=True)
            if todo:
                rows = work.compute(shard, todo)
            else:  # a worker that died had stored it, or another process
                stored = work.folder.read_part(shard.number)
                rows = [r for r in (stored.to_pylist() if stored is not None else []) if r["item_id"] in work.items]
        return Outcome("done", tuple(rows), tuple(work.report.notes), dict(self._scorer.notes))

    def _work(self, job: Job, place: Place) -> RemoteWork:
        runner = self._runner(place.images)
        runner.seen, runner.tuned = {job.entry.label: job.seen}, {job.entry.label: job.tuned}
        if place.mirror is None and not place.folder.is_dir():
            raise UserError(
                f"the machine {platform.node()} does not see the folder {place.folder}. Workers write their rows themselves: give an --out "
                "that all machines share, or a URL such as s3://bucket/runs."
            )
        folder = RunFolder(place.folder, place.mirror)
        report = RunReport(place.folder, self._entry, [], 0)
        return RemoteWork(
            runner, folder, place.manifest, self._entry, self._restorer, self._broken, report, job.columns, place.stores_images
        )

    def _here(self, items: Sequence[ItemRef]) -> list[ItemRef]:
        """The items as this machine sees them."""
        if self._own is None and all((i.folder / "hr.npy").is_file() for i in items):
            return list(items)
        if self._own is None:
            p = self._task.protocol.protocol
            own = open_task(self._task.choice, p, self._plugins)
            self._own = {i.item_id: i for i in own.items}
        found = [self._own.get(i.item_id) for i in items]
        for wanted, have in zip(items, found, strict=True):
            if have is None or have.item_hash != wanted.item_hash:
                raise UserError(
                    f"{wanted.item_id}: the data on the machine {platform.node()} are not those of the command. Give all machines the same "
                    "files under the same path."
                )
        return [i for i in found if i is not None]

    # -- progress ----------------------------------------------------------------------------------------------
    def _on_step(self, steps: Steps) -> None:
        self._steps = steps

    def steps(self) -> Steps | None:
        """How far the method is within the items at hand, if it says."""
        return self._steps


def _plugin_file(file: PluginFile) -> Path:
    """The plugin file itself where it is seen, else a copy."""
    path = Path(file.path)
    with suppress(OSError):
        if path.read_bytes() == file.code:
            return path
    name = f"mrbench-plugins-{hashlib.sha256(file.code).hexdigest()[:16]}"
    copy = Path(tempfile.mkdtemp(prefix=f"{name}-")) / path.name
    copy.write_bytes(file.code)
    return copy


def _entry(facts: EntryFacts, registry: Registry) -> Entry:
    card = registry.methods.get(facts.method)
    code = registry.methods.code(facts.method)
    if code != facts.code:
        raise UserError(
            f"method {facts.method} comes from {registry.methods.owner(facts.method)}, and from {facts.plugin} where the command runs. "
            "Install the same everywhere."
        )
    options = card.parse(facts.options, facts.label)
    return Entry(facts.label, card, options, facts.checkpoint, facts.plugin, facts.code, facts.reference, tuning=facts.tuning)


def _task(job: Job, registry: Registry) -> RemoteTask:
    alias, name, options = job.dataset
    card = registry.datasets.get(name)
    resolved = resolve(Protocol.model_validate(job.protocol), registry)
    if resolved.hash != job.protocol_hash:
        raise UserError(
            f"protocol {resolved.name} has the hash {resolved.hash}, and {job.protocol_hash} where the command runs. "
            "Install the same version everywhere."
        )
    choice = DatasetChoice(alias, card, card.parse(options, alias))
    return RemoteTask(choice, resolved, ItemList([]), dict(options), known_units=job.units)


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
