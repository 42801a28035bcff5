"""The driver of the Ray engine: deals shards out to workers, replaces lost ones, and does not wait for stragglers.

One shard is with one worker at a time; the worker stores its rows by itself and reports them. A worker that is lost is replaced
and its shard goes back to the queue; one that was lost ``ATTEMPTS`` times with its worker becomes failed rows, and the run goes on.
Workers that find the queue empty compute shards again that take much longer than usual: whichever is first stores them.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrbench
from mrbench.engine.entries import Entry
from mrbench.engine.loading import Loaded
from mrbench.engine.ray_cluster import RayOptions, Shares, connected, worker_environment
from mrbench.engine.ray_job import Job, Outcome, Place, PluginFile, Ready, Setup, Ticket
from mrbench.engine.restorer import Steps
from mrbench.engine.run import WAIT_SECONDS, Runner, ShardWork
from mrbench.errors import UserError
from mrbench.store.runs import Shard

ATTEMPTS = 3  # workers that a shard may cost, and workers that may be lost while they load a method
PATIENCE = 5.0  # seconds that a shard may take at least before it is computed twice
SLOW = 2.0  # times the median of the others, and then it is
LOOK = 0.2  # seconds between looks at the workers
ASK = 1.0  # seconds between questions for steps within items
LONGEST = 300  # characters of a worker's last words

_DETAIL = re.compile(r"Worker exit detail: (.*?)(?: Some common causes|$)", re.DOTALL)


@dataclass
class Slot:
    """The place of one worker. ``ref``: the answer that is waited for; ``ticket``: the shard in hand, none while it loads."""

    actor: Any = None
    ref: Any = None
    ticket: Ticket | None = None
    since: float = 0.0
    job: int = -1  # that it has loaded
    node: str = ""
    asked: Any = None  # the answer to the last question for steps
    last_words: str = ""  # why the worker was lost


@dataclass
class RayEngine:
    """An :class:`mrbench.engine.run.Executor` on Ray actors. Made by :func:`ray_engine`; workers live as long as it does."""

    ray: Any
    shares: Shares
    setup: Setup
    notes: list[str] = field(default_factory=list)
    lost: int = 0  # workers so far
    _slots: list[Slot] = field(default_factory=list)
    _job: Job | None = None
    _hopeless: str = ""  # why no worker can load the job's method
    _loaded: Loaded | None = None
    _loading_lost: int = 0
    _jobs: int = 0

    # -- Executor ----------------------------------------------------------------------------------------------
    def load(self, runner: Runner, entry: Entry) -> Loaded:
        """Let all workers load an entry's method; returns when the first one has, or when none can."""
        self._jobs += 1
        self._job = Job.of(self._jobs, runner, entry)
        self._hopeless, self._loaded, self._loading_lost = "", None, 0
        for slot in self._slots:
            if slot.ref is not None:  # with a shard that another worker finished
                self._drop(slot)
            self._load(slot)
        while self._loaded is None and not self._hopeless:
            for slot in self._answered():
                self._take_ready(slot)
        return self._loaded or Loaded(entry.card.nfe, None, self.shares.device, self.shares.device, {})

    def do(self, work: ShardWork, shards: Sequence[Shard]) -> None:
        """Compute shards on the workers that :meth:`load` readied."""
        if shards:
            _Round(self, work, Place.of(work), shards).run()
        if work.folder.mirror is not None:
            work.folder.mirror.pull(work.folder.path)

    def close(self) -> None:
        """Let the workers go."""
        for slot in self._slots:
            self._drop(slot)

    # -- workers -----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Let the workers start, so that they are ready when the first job is: importing takes seconds."""
        self._slots = [Slot() for _ in range(self.shares.workers)]
        for slot in self._slots:
            self._hire(slot)

    def _load(self, slot: Slot) -> None:
        """Give a slot the current job; with a new worker, if it has none."""
        self._hire(slot)
        slot.ticket, slot.asked, slot.since = None, None, time.monotonic()
        slot.ref = slot.actor.load.remote(self._job)

    def _hire(self, slot: Slot) -> None:
        if slot.actor is None:
            from mrbench.engine.ray_worker import Worker

            slot.actor = (
                self.ray.remote(Worker)
                .options(
                    num_cpus=self.shares.cpus,
                    num_gpus=self.shares.gpus,
                    max_restarts=0,
                    max_task_retries=0,
                    max_concurrency=2,
                    scheduling_strategy="SPREAD",
                    runtime_env={"env_vars": worker_environment(self.setup.threads)},
                )
                .remote(self.setup)
            )

    def _drop(self, slot: Slot) -> None:
        if slot.actor is not None:
            self.ray.kill(slot.actor)
        slot.actor = slot.ref = slot.ticket = slot.asked = None
        slot.job = -1

    def _answered(self) -> list[Slot]:
        """Slots whose worker answered, or was lost; waits a moment for one."""
        waiting = {s.ref: s for s in self._slots if s.ref is not None}
        if not waiting:
            time.sleep(LOOK)
            return []
        ready, _ = self.ray.wait(list(waiting), num_returns=1, timeout=LOOK)
        return [waiting[r] for r in ready]

    def _get(self, slot: Slot) -> Any:
        """The answer of a slot's worker, or ``None`` if it was lost.

        Raises
        ------
        RuntimeError : a worker raised, which it never does by itself.
        """
        errors = self.ray.exceptions
        try:
            answer = self.ray.get(slot.ref)
        except errors.RayTaskError as error:
            raise RuntimeError(f"a Ray worker failed: {error}") from error
        except errors.RayError as error:
            self.lost += 1
            slot.last_words = _last_words(error)
            return None
        slot.ref = None
        return answer

    def _take_ready(self, slot: Slot) -> None:
        """A worker has loaded the job, or was lost while it did."""
        ready: Ready | None = self._get(slot)
        if ready is None:
            self._loading_lost += 1
            self._drop(slot)
            working = any(s.job == self._jobs for s in self._slots)
            if self._loading_lost >= ATTEMPTS and not working:
                self._hopeless = f"{self._loading_lost} workers died while they loaded the method: {slot.last_words}"
            else:
                self._load(slot)
            return
        if ready.loaded is None:
            raise UserError(ready.problem)
        slot.node, slot.job = ready.node, self._jobs
        self._loaded = self._loaded or ready.loaded
        self._loading_lost = 0

    def alive(self, node: str) -> bool:
        """Whether a machine of the cluster is still there."""
        return any(n["NodeID"] == node and n["Alive"] for n in self.ray.nodes())


@dataclass
class _Round:
    """The shards of one entry on their way."""

    engine: RayEngine
    work: ShardWork
    place: Place
    shards: Sequence[Shard]

    def __post_init__(self) -> None:
        self.queue = deque(self.shards)
        self.held: list[tuple[float, Shard]] = []  # in the hands of another process: when to look again
        self.open = {s.number for s in self.shards}
        self.deaths: Counter[int] = Counter()
        self.durations: list[float] = []
        self.asked = 0.0

    def run(self) -> None:
        """Until every shard is stored."""
        while self.open:
            if self.engine._hopeless:
                for shard in self.shards:
                    if shard.number in self.open:
                        self._give_up(shard, self.engine._hopeless)
                return
            self._deal()
            for slot in self.engine._answered():
                if slot.ticket is None:
                    self.engine._take_ready(slot)
                else:
                    self._take_outcome(slot)
            self._ask_for_steps()

    # -- dealing -----------------------------------------------------------------------------------------------
    def _deal(self) -> None:
        now = time.monotonic()
        self.queue.extend(s for when, s in self.held if when <= now)
        self.held = [(when, s) for when, s in self.held if when > now]
        for slot in self.engine._slots:
            if slot.ref is not None:
                continue
            shard, redundant = (self.queue.popleft(), False) if self.queue else (self._straggler(now), True)
            if shard is None:
                return
            if shard.number in self.open:
                self._give(slot, shard, redundant)

    def _give(self, slot: Slot, shard: Shard, redundant: bool) -> None:
        items = tuple(self.work.items[i] for i in shard.items if i in self.work.items)
        task = self.work.runner.task
        others = {i.item_id: task.other(i) for i in items} if self.work.entry.card.control else {}
        slot.ticket, slot.since, slot.asked = Ticket(shard, items, others, redundant), time.monotonic(), None
        slot.ref = slot.actor.compute.remote(slot.job, self.place, slot.ticket)

    def _straggler(self, now: float) -> Shard | None:
        """The shard that has taken longest, if it takes much longer than others did and only one worker has it."""
        if not self.durations:
            return None
        busy = [s for s in self.engine._slots if s.ticket is not None and s.ref is not None]
        hands = Counter(s.ticket.shard.number for s in busy if s.ticket)
        late = max(PATIENCE, SLOW * statistics.median(self.durations))
        slow = [s for s in busy if s.ticket and hands[s.ticket.shard.number] == 1 and now - s.since > late]
        found = min(slow, key=lambda s: s.since, default=None)
        return found.ticket.shard if found is not None and found.ticket is not None else None

    # -- what came back ----------------------------------------------------------------------------------------
    def _take_outcome(self, slot: Slot) -> None:
        ticket, began = slot.ticket, slot.since
        outcome: Outcome | None = self.engine._get(slot)
        if ticket is None:
            return
        shard = ticket.shard
        if outcome is None:
            self._lost(slot, shard)
            return
        slot.ticket = None
        if outcome.kind == "held":
            if shard.number in self.open:
                self.held.append((time.monotonic() + WAIT_SECONDS, shard))
            return
        if outcome.kind == "storage":
            raise OSError(outcome.errno, outcome.text, outcome.file)
        if outcome.kind == "user":
            raise UserError(outcome.text)
        if outcome.kind == "bug":
            raise RuntimeError(f"a Ray worker raised\n{outcome.text}")
        if shard.number not in self.open:  # the second of two
            return
        self.open.discard(shard.number)
        self.durations.append(time.monotonic() - began)
        self.work.report.notes += outcome.notes
        for column, reason in outcome.reasons.items():
            self.work.runner.scorer.notes.setdefault(column, reason)
        self.work.finished(outcome.rows)

    def _lost(self, slot: Slot, shard: Shard) -> None:
        node = slot.node
        self.engine._drop(slot)
        self.engine._load(slot)
        if shard.number not in self.open:
            return
        if self.engine.alive(node):  # a machine that was lost is not the shard's fault
            self.deaths[shard.number] += 1
        if self.deaths[shard.number] >= ATTEMPTS:
            self._give_up(shard, f"{ATTEMPTS} workers died on this shard: {slot.last_words}")
        elif not any(s.ticket and s.ticket.shard.number == shard.number for s in self.engine._slots):
            self.queue.appendleft(shard)

    def _give_up(self, shard: Shard, reason: str) -> None:
        """Failed rows for what is not stored of a shard."""
        self.open.discard(shard.number)
        folder = self.work.folder
        if folder.mirror is not None:
            folder.mirror.pull_files([folder.part(shard.number)])
        todo = self.work.todo(shard, repair=True)
        device = self.work.manifest.device
        rows = [{**self.work.row(shard, i, "failed", reason), "device": device} for i in todo]
        if rows:
            self.work.store(shard, rows, folder.read_part(shard.number))
            self.work.finished(rows)

    # -- progress ----------------------------------------------------------------------------------------------
    def _ask_for_steps(self) -> None:
        """Pass on how far the longest-running shard is. An answer that is late is waited for by nobody."""
        busy = [s for s in self.engine._slots if s.ticket is not None and s.ref is not None]
        slot = min(busy, key=lambda s: s.since, default=None)
        now = time.monotonic()
        if slot is None or now - self.asked < ASK:
            return
        self.asked = now
        ray = self.engine.ray
        if slot.asked is not None:
            ready, _ = ray.wait([slot.asked], timeout=0)
            if not ready:
                return
            try:
                steps: Steps | None = ray.get(slot.asked)
            except ray.exceptions.RayError:
                steps = None
            if steps is not None:
                self.work.runner.step(self.work.entry, steps)
        slot.asked = slot.actor.steps.remote()


@contextmanager
def ray_engine(
    options: RayOptions, threads: int, plugin_files: Sequence[str | Path] = (), compile: bool = False
) -> Iterator[RayEngine]:
    """The Ray engine for the length of a ``with`` block.

    Parameters
    ----------
    threads : CPU threads of each worker: those of the local engine, so that rows are the same.
    plugin_files : of ``--plugin``. compile : the metrics.

    Raises
    ------
    UserError : see :func:`mrbench.engine.ray_cluster.connected`.
    """
    with connected(options, threads) as (ray, shares):
        files = tuple(PluginFile(str(Path(f).resolve()), Path(f).read_bytes()) for f in plugin_files)
        setup = Setup(mrbench.__version__, shares.device, threads, compile, files, os.getcwd())
        engine = RayEngine(ray, shares, setup, list(shares.notes))
        try:
            engine.start()
            yield engine
        finally:
            if ray.is_initialized():
                engine.close()


def _last_words(error: Exception) -> str:
    """Why a worker was lost, in one line."""
    text = str(error)
    found = _DETAIL.search(text)
    line = " ".join((found.group(1) if found else text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
