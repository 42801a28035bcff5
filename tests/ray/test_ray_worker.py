"""A worker without Ray around it: what it makes of tickets, other machines' caches, other versions, full disks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from tests_support import rows_of, write_plugin

import mrbench
from mrbench.engine.entries import Entry, parse_dataset, parse_entries, parse_settings
from mrbench.engine.folders import Conditions
from mrbench.engine.ray_job import Job, Outcome, Place, PluginFile, Setup, Ticket
from mrbench.engine.ray_worker import Worker, _plugin_file
from mrbench.engine.run import Runner, RunOptions, RunReport, ShardWork, group_by_size
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import open_task
from mrbench.plugins import discover
from mrbench.protocol import find_protocol

NOISY = """
    import mrbench
    class Noisy:
        def __init__(self, options):
            self.on_step = None
        def restore(self, m, draws):
            if self.on_step is not None:
                self.on_step(1, 2)
                seen.append(worker and worker.steps())
            x = mrbench.upsample(m)
            return x[:, None] + 0.03 * m.noise(draws).normal(x.shape[1:])
    seen, worker = [], None
    @mrbench.hookimpl
    def mrbench_methods():
        return [mrbench.MethodCard("noisy", Noisy, deterministic=False)]
"""


@dataclass
class Desk:
    """A driver's side: a runner, its entry, and tickets for all shards."""

    runner: Runner
    entry: Entry
    work: ShardWork
    setup: Setup

    def tickets(self) -> list[Ticket]:
        control = self.entry.card.control
        found = []
        for shard in self.work.folder.shards():
            items = tuple(self.work.items[i] for i in shard.items)
            found.append(Ticket(shard, items, {i.item_id: self.runner.task.other(i) for i in items} if control else {}))
        return found

    def worker(self) -> Worker:
        worker = Worker(self.setup)
        ready = worker.load(Job.of(1, self.runner, self.entry))
        assert ready.problem == ""
        return worker

    def compute(self, worker: Worker, ticket: Ticket) -> Outcome:
        return worker.compute(1, Place.of(self.work), ticket)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Desk]:
    monkeypatch.setattr("mrbench.engine.ray_worker._node", lambda: "here")
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "cache"))

    def make(method: str = "noisy", out: str = "ray") -> Desk:
        plugin = write_plugin(tmp_path, "methods", NOISY)
        registry = discover([plugin])
        settings = parse_settings([])
        (entry,) = parse_entries([method], settings, registry, 4)
        task = open_task(parse_dataset("sample", settings, registry), find_protocol("uniform-x4"), registry)
        conditions = Conditions(torch.device("cpu"), draws=2, threads=torch.get_num_threads())
        scorer = Scorer.load(registry, ["psnr"], {}, conditions.device)
        options = RunOptions(tmp_path / out, images="none")
        runner = Runner(task, task.choose(6, None), scorer, conditions, options, registry)
        runner.check([entry])
        folder = runner._folder(entry)
        manifest = runner._manifest(folder, entry)
        folder.write_manifest(manifest)
        folder.plan_items(2, lambda: group_by_size(runner.chosen))
        work = ShardWork(runner, folder, manifest, entry, None, "", RunReport(folder.path, entry, [], 0))
        files = (PluginFile(str(plugin), plugin.read_bytes()),)
        setup = Setup(mrbench.__version__, "cpu", torch.get_num_threads(), False, files, os.getcwd())
        return Desk(runner, entry, work, setup)

    return make


def expected(desk: Desk, tmp_path: Path) -> pd.DataFrame:
    local = Runner(
        desk.runner.task, desk.runner.chosen, desk.runner.scorer, desk.runner.conditions,
        RunOptions(tmp_path / "local", 2, "none"), desk.runner.registry,
    )  # fmt: skip
    local.run([desk.entry])
    rows = rows_of(tmp_path / "local")
    assert set(rows["status"]) == {"ok"}
    return rows


@pytest.mark.parametrize("method", ["noisy", "impostor"])
def test_rows_are_those_of_the_local_engine(desk, tmp_path: Path, method: str) -> None:
    here = desk(method)
    worker = here.worker()
    for ticket in here.tickets()[::-1]:
        outcome = here.compute(worker, ticket)
        assert outcome.kind == "done", outcome.text
        assert [r["item_id"] for r in outcome.rows] == [i.item_id for i in ticket.items]
    pd.testing.assert_frame_equal(rows_of(tmp_path / "ray"), expected(here, tmp_path), check_exact=True)


def test_a_machine_with_another_cache_prepares_the_data_itself(desk, tmp_path: Path, monkeypatch) -> None:
    here = desk("impostor")
    rows = expected(here, tmp_path)
    worker, tickets = here.worker(), here.tickets()
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "another"))
    for ticket in tickets:
        outcome = here.compute(worker, ticket)
        assert outcome.kind == "done", outcome.text
    pd.testing.assert_frame_equal(rows_of(tmp_path / "ray"), rows, check_exact=True)


def test_a_machine_with_other_data_says_so(desk, tmp_path: Path, monkeypatch) -> None:
    here = desk()
    worker, ticket = here.worker(), here.tickets()[0]
    elsewhere = tuple(replace(i, item_hash="0" * 16, folder=tmp_path / "nowhere") for i in ticket.items)
    outcome = here.compute(worker, replace(ticket, items=elsewhere))
    assert outcome.kind == "user"
    assert "are not those of the command" in outcome.text


def test_whoever_is_first_stores_the_shard(desk) -> None:
    here = desk()
    ticket = here.tickets()[0]
    slow, fast = here.worker(), here.worker()
    part = here.work.folder.part(0)
    compute, before = ShardWork.compute, []

    def overtaken(work: ShardWork, shard, todo):
        if not before:
            before.append(0)
            assert here.compute(fast, replace(ticket, redundant=True)).kind == "done"
            before.append(part.stat().st_mtime_ns)
        return compute(work, shard, todo)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardWork, "compute", overtaken)
        assert here.compute(slow, ticket).kind == "done"
    assert part.stat().st_mtime_ns == before[1]


def test_shards_in_other_hands_are_left_to_them(desk) -> None:
    here = desk()
    worker, ticket = here.worker(), here.tickets()[0]
    with here.work.folder.claim(0):
        assert here.compute(worker, ticket).kind == "held"
        assert here.compute(worker, replace(ticket, redundant=True)).kind == "done"
    again = here.compute(worker, ticket)  # as after a worker that died when it had stored its shard
    assert (again.kind, len(again.rows)) == ("done", 2)


def test_errors_come_back_as_values(desk, monkeypatch) -> None:
    here = desk()
    worker, ticket = here.worker(), here.tickets()[0]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/out/part")

    with monkeypatch.context() as patch:
        patch.setattr("mrbench.store.runs.write_atomic", full)
        outcome = here.compute(worker, ticket)
    assert (outcome.kind, outcome.errno, outcome.file) == ("storage", 28, "/out/part")
    with monkeypatch.context() as patch:
        patch.setattr("mrbench.store.runs.to_table", lambda *_: 1 / 0)
        outcome = here.compute(worker, ticket)
    assert outcome.kind == "bug"
    assert "ZeroDivisionError" in outcome.text
    assert not here.work.folder.part(0).exists()
    assert worker.compute(2, Place.of(here.work), ticket).kind == "bug"
    shutil.rmtree(here.work.folder.path)
    outcome = here.compute(worker, ticket)
    assert outcome.kind == "user"
    assert "does not see the folder" in outcome.text


def test_other_versions_and_plugins_are_refused(desk, tmp_path: Path) -> None:
    here = desk()
    job = Job.of(1, here.runner, here.entry)
    assert "Install the same everywhere" in Worker(replace(here.setup, version="0")).load(job).problem
    assert "no method named 'noisy'" in Worker(replace(here.setup, plugins=())).load(job).problem
    other = PluginFile(here.setup.plugins[0].path, here.setup.plugins[0].code + b"\n# changed\n")
    assert "Install the same everywhere" in Worker(replace(here.setup, plugins=(other,))).load(job).problem
    assert "protocol uniform-x4 has the hash" in Worker(here.setup).load(replace(job, protocol_hash="0")).problem
    assert "metric psnr is not the same" in Worker(here.setup).load(replace(job, columns={"psnr": "PSNR"})).problem


def test_plugin_files_travel(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_bytes(b"x = 1\n")
    assert _plugin_file(PluginFile(str(path), b"x = 1\n")) == path
    for elsewhere in (PluginFile(str(tmp_path / "absent" / "own.py"), b"x = 2\n"), PluginFile(str(path), b"x = 2\n")):
        copy = _plugin_file(elsewhere)
        assert copy.name == "own.py"
        assert copy.read_bytes() == b"x = 2\n"
        shutil.rmtree(copy.parent)


def test_steps_are_told_while_a_shard_is_computed(desk) -> None:
    import sys

    here = desk()
    worker = here.worker()
    plugin = sys.modules["mrbench_plugin_file_methods"]
    plugin.worker = worker
    assert here.compute(worker, here.tickets()[0]).kind == "done"
    assert {(s.done, s.total, s.items) for s in plugin.seen if s and not s.warm_up} == {
        (1, 2, tuple(i.item_id for i in here.tickets()[0].items))
    }
    assert worker.steps() is None
