"""What a driver sends to its Ray workers and gets back: plain records, no pixels and no network weights.

A worker gets the references of the items of one shard at a time (about 1 kB each), never the list of all items. So its memory does
not depend on the number of items, nor does the traffic per shard, and no worker needs to walk over the data set before its
first shard. References point into the cache of prepared volumes; a worker that does not see that folder (another machine without a
shared cache) prepares the data set once for itself and finds the items there by id and content hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mrbench.cards import Checkpoint
from mrbench.data.items import ItemRef
from mrbench.engine.entries import Entry
from mrbench.engine.leaks import Seen
from mrbench.engine.loading import Loaded
from mrbench.engine.run import Runner, ShardWork
from mrbench.engine.tuned import TunedHere, Tuning
from mrbench.store.manifest import DatasetInfo, Manifest
from mrbench.store.remote import Mirror
from mrbench.store.runs import Shard


@dataclass(frozen=True)
class PluginFile:
    """A ``--plugin`` file: where the driver has it, and its bytes for machines that do not."""

    path: str
    code: bytes


@dataclass(frozen=True)
class Setup:
    """What all jobs of a worker share. ``folder``: the driver's working directory, which relative paths start from."""

    version: str
    device: str  # cpu | cuda
    threads: int
    compile: bool
    plugins: tuple[PluginFile, ...]
    folder: str


@dataclass(frozen=True)
class EntryFacts:
    """An entry without its card and options objects: plugins' classes are known by name only until the plugin is loaded."""

    label: str
    method: str
    options: Mapping[str, Any]
    checkpoint: Checkpoint | None
    plugin: str
    code: str
    reference: str
    tuning: Tuning | None

    @classmethod
    def of(cls, entry: Entry) -> EntryFacts:
        """The facts of an entry."""
        options = entry.options.model_dump(mode="json")
        return cls(
            entry.label, entry.card.name, options, entry.checkpoint, entry.plugin, entry.code, entry.reference, entry.tuning
        )


@dataclass(frozen=True)
class Job:
    """One entry on one task: everything that a worker needs before it can take shards.

    dataset : ``(alias, name, options)``. protocol : its source document. units : as :attr:`mrbench.engine.task.Task.units`.
    metrics : ``(name, options)`` of those that the driver could load. columns : column -> signature that these must give.
    """

    number: int
    entry: EntryFacts
    dataset: tuple[str, str, Mapping[str, Any]]
    protocol: Mapping[str, Any]
    protocol_hash: str
    units: str
    metrics: tuple[tuple[str, Mapping[str, Any]], ...]
    columns: Mapping[str, str]
    precision: str
    draws: int
    seen: Seen
    tuned: TunedHere

    @classmethod
    def of(cls, number: int, runner: Runner, entry: Entry) -> Job:
        """The job of an entry of a runner."""
        task, c = runner.task, runner.conditions
        columns = runner.scorer.columns(c.draws_of(entry), task.units)
        return cls(
            number,
            EntryFacts.of(entry),
            (task.choice.alias, task.choice.card.name, dict(task.options)),
            task.protocol.protocol.model_dump(mode="json"),
            task.protocol.hash,
            task.units,
            tuple((m.card.name, m.options.model_dump(mode="json")) for m in runner.scorer.loaded),
            {name: column.signature for name, column in columns.items()},
            c.precision,
            c.draws,
            runner.seen[entry.label],
            runner.tuned[entry.label],
        )


@dataclass(frozen=True)
class Place:
    """Where a job's results go. ``images``: the run's ``--images``; ``stores_images``: what became of it."""

    folder: Path
    manifest: Manifest
    mirror: Mirror | None
    images: str
    stores_images: bool

    @classmethod
    def of(cls, work: ShardWork) -> Place:
        """The place of an entry's work. Lists of the manifest that grow with the data stay at home."""
        info = work.manifest.dataset
        light = work.manifest.model_copy(update={"dataset": DatasetInfo(name=info.name, alias=info.alias)})
        folder = work.folder.path.resolve()
        return cls(folder, light, work.folder.mirror, work.runner.options.images, work.stores_images)


@dataclass(frozen=True)
class Ticket:
    """One shard to compute.

    items : its chosen items. others : for controls, the slice of another subject that is shown beside each item.
    redundant : another worker has the shard in hand, and takes long; whoever is first stores it.
    """

    shard: Shard
    items: tuple[ItemRef, ...]
    others: Mapping[str, ItemRef | None] = field(default_factory=dict)
    redundant: bool = False


@dataclass(frozen=True)
class Ready:
    """A worker loaded a job's method (or could not: ``problem``, a mistake of the user's that concerns all workers)."""

    node: str  # Ray's id of its machine
    host: str
    loaded: Loaded | None = None
    problem: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a ticket.

    kind : ``done``; ``held``: another process has this shard in hand; ``user``: an error that a person reads; ``storage``: an error
    of the file system; ``bug``: any other, with its traceback.
    """

    kind: Literal["done", "held", "user", "storage", "bug"]
    rows: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()  # for the report
    reasons: Mapping[str, str] = field(default_factory=dict)  # column -> why it is n/a for some items
    text: str = ""
    errno: int = 0
    file: str = ""
