"""The probe of a checkpoint: its scores on a small public set, so that others can check what they downloaded."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from mrbench.cards import MethodCard
from mrbench.data.leaks import leaked_subjects
from mrbench.engine.entries import DatasetChoice, Entry
from mrbench.engine.folders import Conditions
from mrbench.engine.run import Runner, RunOptions
from mrbench.engine.scoring import Scorer
from mrbench.engine.task import Task, open_task
from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint, read_folder, read_json
from mrbench.hub.places import CARD, TRAINING
from mrbench.plugins import Registry
from mrbench.protocol import Protocol, named_protocols
from mrbench.store.files import write_json, write_text
from mrbench.store.runs import load_run
from mrbench.train.documents import model_card
from mrbench.train.job import LoopSettings, Trained


def open_probe(choice: DatasetChoice, protocol: Protocol, registry: Registry) -> Task:
    """The task of a probe.

    Raises
    ------
    UserError : a data set or protocol that others do not have.
    """
    if choice.card.path_options:
        raise UserError(
            f"--probe {choice.alias}: others do not have these files, and a probe is for them. Name a data set that comes with "
            "the package, e.g. --probe sample."
        )
    if protocol.name not in named_protocols():
        raise UserError(
            f"--probe: the protocol {protocol.name} is a file of yours. Probes need one that comes with the package."
        )
    return open_task(choice, protocol, registry)


def with_probe(
    trained: Trained, card: MethodCard, task: Task, registry: Registry, settings: LoopSettings, subset: int | None, draws: int
) -> Trained:
    """Run a finished checkpoint on the probe, and store the mean scores in its ``training.json``.

    The probe has ``name``, ``dataset``, ``protocol``, ``subset``, ``draws``, ``items`` and ``scores`` by metric column.

    Parameters
    ----------
    subset : a seeded choice of that many items; ``None``: all. draws : posterior samples, of stochastic methods.

    Raises
    ------
    UserError : the weights were trained on a subject of the probe, or the method fails on it.
    """
    folder = trained.out
    local = read_folder(folder, card.name)
    training = read_json(folder / TRAINING) or {}
    leaked = leaked_subjects(training, {i.subject for i in task.items})
    if leaked:
        raise UserError(f"--probe {task.choice.alias}: the weights in {folder} were trained on {', '.join(leaked)}.")
    scores, count = _scores(local, card, task, registry, settings, subset, draws)
    probe = {
        "name": f"{task.choice.card.name}/{task.protocol.name}",
        "dataset": task.choice.card.name,
        "protocol": task.protocol.name,
        "subset": subset,
        "draws": draws,
        "options": {},
        "dataset_options": {},
        "items": count,
        "scores": scores,
    }
    document = {**training, "probe": probe}
    write_text(folder / CARD, model_card(card, local.config, document, local.tensors()))
    write_json(folder / TRAINING, document)
    return Trained(folder, document)


def _scores(
    local: LocalCheckpoint,
    card: MethodCard,
    task: Task,
    registry: Registry,
    settings: LoopSettings,
    subset: int | None,
    draws: int,
) -> tuple[dict[str, float], int]:
    entry = Entry(card.name, card, card.parse({}), local.record, registry.methods.owner(card.name))
    scorer = Scorer.load(registry, task.protocol.protocol.metrics, {}, settings.device)
    conditions = Conditions(settings.device, threads=settings.threads, draws=draws)
    with TemporaryDirectory(prefix="mrbench-probe-") as out:
        runner = Runner(task, task.choose(subset, None), scorer, conditions, RunOptions(Path(out), images="none"), registry)
        (report,) = runner.run([entry])
        if report.failed:
            item, error = next(iter(report.failed.items()))
            raise UserError(
                f"--probe: the method fails on {len(report.failed)} of {len(report.requested)} items ({item}: {error})."
            )
        rows = load_run(report.folder).rows
    rows = rows[rows["status"] == "ok"]
    columns = [c for c in scorer.columns(conditions.draws_of(entry)) if c in rows and rows[c].notna().all()]
    return {c: float(rows[c].mean()) for c in columns}, len(rows)
