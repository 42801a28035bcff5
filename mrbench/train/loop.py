"""The training loop: stages in order, state on disk, resuming, and the checkpoint at the end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import mrbench
from mrbench.engine.restorer import Restorer
from mrbench.errors import MrbenchError, PluginError, UserError
from mrbench.hub.places import TRAINING
from mrbench.plugins import Registry
from mrbench.seeds import derive_seed
from mrbench.train.checkpoint import live_checkpoint, open_checkpoint, read_weights, write_checkpoint, write_weights
from mrbench.train.devices import Devices
from mrbench.train.documents import checkpoint_config, model_card, training_document
from mrbench.train.job import Job, Trained, fingerprint
from mrbench.train.log import CsvLog, Observer, tell
from mrbench.train.optimisers import build_optimisers
from mrbench.train.patches import PatchSource, fitting_slices
from mrbench.train.presets import choose_stages
from mrbench.train.recipe import Context
from mrbench.train.settings import Stage
from mrbench.train.sources import Source
from mrbench.train.stage import NotFinite, StageRunner
from mrbench.train.state import best_file, forget, load_state, refuse_other, save_state
from mrbench.train.validation import LOSS, Validator, selection_record
from mrbench.train.weights import buffer_keys, stored_as

INTERRUPTED = {int(signal.SIGINT): 130, int(signal.SIGTERM): 143}  # exit codes
STAGES = "stages"  # folder of the checkpoints of all stages but the last


class Stopped(MrbenchError):
    """A training was stopped by a signal; its state is stored."""

    def __init__(self, number: int, where: str) -> None:
        self.signal = number
        super().__init__(f"{where}. Go on with the same command and --resume.")


class Failed(MrbenchError):
    """A training cannot go on (a loss that is not finite); what could be kept is stored."""


class Interrupts:
    """Notes SIGINT and SIGTERM instead of dying of them; a second one kills at once. Does nothing outside the main thread."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.__exit__()
            raise KeyboardInterrupt
        self.received = number


class Trainer:
    """Carries out a :class:`Job`.

    Raises
    ------
    UserError : data, stages, networks and options do not fit together (before the first step).
    """

    def __init__(self, job: Job, registry: Registry, observers: Sequence[Observer] = ()) -> None:
        self.job, self.observers = job, observers
        self.warnings: list[str] = []
        self.interrupted: int | None = None  # a signal that came too late to stop anything
        planned_bf16 = "bf16" in (job.precision, *(s.precision for s in job.options.stages))
        self.devices = Devices(job.settings.device, planned_bf16)
        context = Context(
            job.card, job.protocol, job.scale, job.channels, self.devices.device, job.seed,
            lambda text: open_checkpoint(registry, text, job.scale),
        )  # fmt: skip
        self.recipe = job.recipe(job.options, context)
        self.stages = choose_stages(self.recipe.stages(), job.stage_names, job.steps)
        if job.precision is not None:
            self.stages = [s.model_copy(update={"precision": job.precision}) for s in self.stages]
        if not planned_bf16 and any(s.precision == "bf16" for s in self.stages):
            self.devices = Devices(job.settings.device, True)
        self._used = {stage.name: self._sources_of(stage) for stage in self.stages}
        for stage in self.stages:
            fitting_slices(self._used[stage.name], "train", stage, job.protocol)
        idle = [s.alias for s in job.sources if not any(s in used for used in self._used.values())]
        self.warnings += [f"data set {alias} is given, but no stage of this training uses it" for alias in idle]
        self.steps = sum(s.steps for s in self.stages)
        self.log = CsvLog(job.out)
        self._validators = {
            s.name: Validator.prepare(s.validation, self._used[s.name], registry, self.devices.device) for s in self.stages
        }
        self._seconds = 0.0
        self._selections: list[dict[str, Any]] = []
        self.networks: dict[str, nn.Module] = {}

    def _sources_of(self, stage: Stage) -> list[Source]:
        given = {s.alias: s for s in self.job.sources}
        missing = [a for a in stage.data if a not in given]
        if missing:
            raise UserError(
                f"stage {stage.name} trains on the data set(s) {', '.join(stage.data)}; {', '.join(missing)} is not given. "
                f"Name it with --dataset {missing[0]}=NAME. Given: {', '.join(given)}."
            )
        chosen = [given[a] for a in stage.data] or list(given.values())
        if not any(s.train for s in chosen):
            raise UserError(f"stage {stage.name}: its data sets have no train subjects.")
        return chosen

    # -- the whole -----------------------------------------------------------------------------------------------
    def run(self, resume: bool = False) -> Trained:
        """Train, or go on training with ``resume``; a finished one is not repeated.

        Raises
        ------
        Stopped : by SIGINT or SIGTERM, after the state is stored.
        Failed : a loss or gradient is not finite.
        UserError : something is stored already and ``resume`` is not set, or it belongs to other settings.
        """
        stored = self._stored(resume)
        self._build(stored)
        first = int(stored["stage"]) if stored else 0
        if stored:
            self._seconds, self._selections = float(stored["seconds"]), list(stored["selections"])
        done = sum(s.steps for s in self.stages[:first]) + (int(stored["runner"]["done"]) if stored else 0)
        if self.devices.main:
            self.job.out.mkdir(parents=True, exist_ok=True)
            self.log.begin(done)
        self._tell("train_started", {"done": done, "resumed": bool(stored)})
        status, result = "failed", None
        try:
            with Interrupts() as interrupts, fast_denormals(self.devices.device):
                result = self._stages(first, stored, interrupts)
            status = "done"
            self.interrupted = interrupts.received
        except Stopped:
            status = "stopped"
            raise
        finally:
            facts = {"status": status, "selection": result.document.get("selection") if result else None}
            self._tell("train_finished", facts)
        return result

    def _stages(self, first: int, stored: Mapping[str, Any] | None, interrupts: Interrupts) -> Trained:
        for number in range(first, len(self.stages)):
            runner = self._runner(number)
            try:
                if stored is not None and number == first:
                    self.recipe.load_extra_state(dict(stored["recipe"]))
                    runner.load_state_dict(stored["runner"])
                else:
                    torch.manual_seed(derive_seed("train", self.job.seed, runner.stage.name, "start"))
                    self.recipe.start_stage(self.networks, runner.stage, runner.batches)
                    runner.begin_averages()
                    best_file(self.job.out).unlink(missing_ok=True)
                self._steps(number, runner, interrupts)
                result = self._leave(number, runner)
            finally:
                runner.close()
        return result

    def _runner(self, number: int) -> StageRunner:
        job, stage = self.job, self.stages[number]
        sources = self._used[stage.name]
        patches = PatchSource(sources, "train", stage, job.protocol, job.channels, job.seed)
        validator = self._validators[stage.name]
        spec = stage.validation
        wants_loss = LOSS in (spec.select, *spec.metrics) and any(s.val for s in sources)
        val_patches = PatchSource(sources, "val", stage, job.protocol, job.channels, job.seed) if wants_loss else None
        runner = StageRunner(
            self.recipe, self.networks, stage, sum(s.steps for s in self.stages[:number]), patches, val_patches, validator,
            self._restorer, self.devices, job.seed, best_file(job.out),
        )  # fmt: skip
        if spec.select and not runner.chooses:
            self.warnings.append(
                f"stage {stage.name}: no validation subjects, so nothing is selected by {spec.select}: the last weights are kept"
            )
        return runner

    def _steps(self, number: int, runner: StageRunner, interrupts: Interrupts) -> None:
        settings, stage = self.job.settings, runner.stage
        clock = saved = time.monotonic()
        while runner.done < stage.steps:
            try:
                losses = runner.step()
            except NotFinite as error:
                self._fail(number, runner, error)
            done = runner.before + runner.done
            values: dict[str, float] = {}
            if runner.done % settings.log_every == 0 or runner.done == stage.steps:
                values |= runner.take_means()
            if runner.due():
                if self.devices.main:
                    values |= {f"val/{k}": v for k, v in runner.validate().items()}
                    self.warnings += [f"validation after step {done}: {p}" for p in runner.problems[:1]]
                self.devices.wait()
            now = time.monotonic()
            self._seconds, clock = self._seconds + now - clock, now
            if values and self.devices.main:
                self.log.write(done, stage.name, runner.done, values)
            facts = {"stage": stage.name, "number": done, "step": runner.done, "losses": losses, "values": values or None}
            self._tell("train_step", facts)
            stop = self.devices.any(interrupts.received is not None)
            due = now - saved >= 60 * settings.save_minutes
            if settings.save_steps:
                due = due or runner.done % settings.save_steps == 0
            if stop or due:
                self._save(number, runner)
                saved = time.monotonic()
            if stop:
                where = f"stopped after step {done} of {self.steps}; the state is stored in {self.job.out}"
                raise Stopped(interrupts.received or signal.SIGTERM, where)

    def _fail(self, number: int, runner: StageRunner, error: NotFinite) -> None:
        out = self.job.out
        if error.clean:
            self._save(number, runner)
        hint = "Lower the learning rate, clip the gradients (clip), or train with --precision fp32"
        if best_file(out).is_file():
            hint += f"; to begin again from the best weights so far: --init {best_file(out)}"
        kept = f"The state before this step is stored in {out}" if error.clean else "What was stored last is kept"
        raise Failed(f"{error}. {kept}. {hint}.") from error

    # -- weights ---------------------------------------------------------------------------------------------------
    def _build(self, stored: Mapping[str, Any] | None) -> None:
        torch.manual_seed(derive_seed("train", self.job.seed, "build"))
        self.networks = self.recipe.build()
        if not self.networks or not all(isinstance(n, nn.Module) for n in self.networks.values()):
            raise PluginError(f"{type(self.recipe).__name__}.build() returned no networks by name.")
        for stage in self.stages:
            build_optimisers(stage, self.networks)  # mistakes of late stages come out now
        if stored is not None:
            if set(stored["networks"]) != set(self.networks):
                raise UserError(f"{self.job.out}: the stored state belongs to other networks. Train into another --out.")
            for name, network in self.networks.items():
                network.load_state_dict(stored["networks"][name])
        elif self.job.init is not None:
            self.recipe.load_weights(self.networks, self.job.init.tensors)
        for network in self.networks.values():
            network.to(self.devices.device)

    def _config(self) -> dict[str, Any]:
        return checkpoint_config(self.job.card, self.recipe, self.job.name, self.job.options.tier, self.job.licence)

    def _restorer(self, tensors: Mapping[str, Tensor]) -> Restorer | None:
        live = live_checkpoint(self.job.out, self._config(), tensors)
        return self.recipe.restorer(self.job.card, live, self.devices.device)

    def _leave(self, number: int, runner: StageRunner) -> Trained:
        """The weights that leave the stage, written as a checkpoint; they are where the next stage begins."""
        stage, job = runner.stage, self.job
        last = number == len(self.stages) - 1
        chosen = stage.keep == "best" and runner.best_step is not None
        tensors = read_weights(best_file(job.out)) if chosen else runner.weights()  # the first process knows which
        exact = buffer_keys(self.networks, self.recipe.state_dict(self.networks))
        shipped = stored_as(tensors, job.options.weights if last else "fp32", exact)
        validator = self._validators[stage.name]
        result = Trained(job.out, {})
        if self.devices.main:
            rounded = last and job.options.weights != "fp32"
            known = runner.known_scores(chosen)
            scores = runner.scores(shipped) if rounded or known is None else dict(known)
            if known is not None and LOSS in known:
                scores[LOSS] = known[LOSS]
            reference = validator.reference() if validator.restores else {}
            reason = "best of the validations" if chosen else "last step"
            if stage.ema:
                reason += f", averaged ({stage.ema[0].label})"
            step = runner.best_step if chosen else runner.done
            selection = {"stage": stage.name, **selection_record(validator, scores, reference, step, reason)}
            self._selections.append(selection)
            folder = job.out if last else job.out / STAGES / f"{number + 1}-{stage.name}"
            for k, ema in enumerate(stage.ema[1:], start=1):
                extra = stored_as(runner.weights(k), job.options.weights if last else "fp32", exact)
                write_weights(folder / f"ema-{ema.label}.safetensors", extra)
            result = self._write(folder, shipped, number)
        if last:
            if self.devices.main:
                forget(job.out)
        else:
            if self.devices.main:
                self.recipe.load_weights(self.networks, tensors)
            self.devices.send([t for n in self.networks.values() for t in n.state_dict().values()])
        self.devices.wait()
        return result

    def _write(self, folder: Path, tensors: Mapping[str, Tensor], number: int) -> Trained:
        config = self._config()
        done = self.stages[: number + 1]
        document = training_document(
            self.job, self.recipe, done, self.stages, self._used, self._selections, self.log.curve(), self._seconds
        )
        card = model_card(self.job.card, config, document, tensors)
        return Trained(folder, write_checkpoint(folder, tensors, config, document, card))

    # -- state ---------------------------------------------------------------------------------------------------
    def _stored(self, resume: bool) -> dict[str, Any] | None:
        out = self.job.out
        if (out / TRAINING).is_file():
            raise UserError(f"--out {out}: holds a finished checkpoint. Name another folder.")
        state = load_state(out)
        if state is None:
            return None
        if not resume:
            raise UserError(f"--out {out}: holds an unfinished training. Go on with --resume, or name another folder.")
        refuse_other(out, state["fingerprint"], self.fingerprint())
        self.warnings += [
            f"{name} was {state['versions'].get(name)} when this training began and is {version} now: the weights may differ in the "
            "last bits from an uninterrupted training"
            for name, version in self._versions().items()
            if state["versions"].get(name) != version
        ]
        return state

    def _save(self, number: int, runner: StageRunner) -> None:
        if not self.devices.main:
            return
        state = {
            "fingerprint": self.fingerprint(),
            "versions": self._versions(),
            "stage": number,
            "runner": runner.state_dict(),
            "networks": {name: dict(network.state_dict()) for name, network in self.networks.items()},
            "recipe": self.recipe.extra_state(),
            "selections": self._selections,
            "seconds": self._seconds,
        }
        save_state(self.job.out, state)

    def _versions(self) -> dict[str, str]:
        return {"mrbench": mrbench.__version__, "torch": str(torch.__version__), "threads": str(self.job.settings.threads)}

    def fingerprint(self) -> dict[str, Any]:
        """What determines the weights; see :func:`mrbench.train.job.fingerprint`."""
        return fingerprint(self.job, self.stages)

    def _tell(self, event: str, facts: Mapping[str, Any]) -> None:
        if not self.devices.main:
            return
        job = self.job
        whole = {
            "method": job.card.name,
            "preset": job.preset,
            "name": job.name,
            "seed": job.seed,
            "out": str(job.out),
            "steps": self.steps,
            "stages": [s.name for s in self.stages],
        }
        self.warnings += tell(self.observers, event, {**whole, **facts})


@contextmanager
def fast_denormals(device: torch.device) -> Iterator[None]:
    """Denormal numbers count as zero while training on a CPU: they make its arithmetic many times slower."""
    if device.type != "cpu":
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
