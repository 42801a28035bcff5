"""One stage: its steps, averages and validations. Everything a step does is a function of the weights and the step's number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrbench.engine.restorer import Restorer
from mrbench.errors import MrbenchError, PluginError, UserError
from mrbench.seeds import derive_seed
from mrbench.train.checkpoint import write_weights
from mrbench.train.devices import Devices
from mrbench.train.ema import Ema
from mrbench.train.optimisers import StageOptimiser, build_optimisers, only, set_modes, trained_networks
from mrbench.train.patches import PatchSource, to_device
from mrbench.train.recipe import Recipe, Step, TrainBatch
from mrbench.train.settings import Stage
from mrbench.train.validation import LOSS, Validator
from mrbench.train.weights import snapshot

MakeRestorer = Callable[[Mapping[str, Tensor]], Restorer | None]


class NotFinite(MrbenchError):
    """A loss or gradient is not a finite number. ``clean``: nothing was stepped in this step, so the weights are good."""

    def __init__(self, message: str, clean: bool) -> None:
        self.clean = clean
        super().__init__(message)


class StageRunner:
    """Carries out one stage.

    Parameters
    ----------
    before : steps of the stages before.
    patches, val_patches : training patches, and validation patches if a loss is to be validated.
    best_file : where the best weights are kept.
    """

    def __init__(
        self,
        recipe: Recipe[Any],
        networks: Mapping[str, nn.Module],
        stage: Stage,
        before: int,
        patches: PatchSource,
        val_patches: PatchSource | None,
        validator: Validator,
        make_restorer: MakeRestorer,
        devices: Devices,
        seed: int,
        best_file: Path,
    ) -> None:
        self.stage, self.before = stage, before
        self.done = 0
        self.best: float | None = None
        self.best_step: int | None = None
        self._scored: dict[str, tuple[int, dict[str, float]]] = {}  # "best" and "last" -> step and scores
        self.problems: list[str] = []
        self._recipe, self._networks, self._devices, self._seed = recipe, networks, devices, seed
        self._patches, self._val_patches = patches, val_patches
        self._validator, self._make_restorer, self._best_file = validator, make_restorer, best_file
        set_modes(stage, networks)
        self._optimisers = build_optimisers(stage, networks)
        self.begin_averages()
        self._sums: dict[str, tuple[float, int]] = {}
        share = devices.count * stage.accumulate
        if stage.batch % share:
            raise UserError(
                f"stage {stage.name}: batch {stage.batch} cannot be shared out to {devices.count} processes with "
                f"{stage.accumulate} micro-batches each."
            )
        self._micro = stage.batch // share
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="patches") if devices.device.type != "cpu" else None
        self._ahead: tuple[int, Future[list[TrainBatch]]] | None = None

    def begin_averages(self) -> None:
        """Averages of the networks as they are now: called again where a recipe changes weights as the stage begins."""
        trained = {n: self._networks[n] for n in trained_networks(self.stage, self._networks)}
        self._emas = [Ema(spec, trained) for spec in self.stage.ema]

    # -- steps ---------------------------------------------------------------------------------------------------
    def batches(self, count: int) -> Iterator[TrainBatch]:
        """``count`` micro-batches of the stage's data, apart from those of its steps; the same in every process."""
        for number in range(count):
            batch = self._patches.batch(-1 - number, 0, self._micro)
            yield to_device(batch, self._devices.device)

    def step(self) -> dict[str, float]:
        """One step of every optimiser, then the averages. Returns the terms of the losses.

        Raises
        ------
        NotFinite : a loss or gradient is not finite; the optimiser at fault has not stepped.
        PluginError : the recipe returned something that is no loss.
        """
        stage, index = self.stage, self.done
        info = Step(stage, index, self.before + index)
        torch.manual_seed(self._derived("global"))
        batches = self._load(index)
        found: dict[str, float] = {}
        clean = True
        for optimiser in self._optimisers:
            rate = optimiser.set_rate(index, stage.steps)
            only(optimiser, self._optimisers, self._networks)
            terms = self._backward(optimiser, batches, info, clean)
            if not terms:
                continue
            gradients = optimiser.gradients()
            if not gradients:
                raise PluginError(
                    f"{type(self._recipe).__name__}: the losses of optimiser {optimiser.name} ({', '.join(terms)}) do not depend "
                    f"on any of its parameters."
                )
            self._devices.average(gradients)
            norm = self._devices.clip(optimiser.parameters, optimiser.spec.clip)
            if not math.isfinite(norm):
                raise NotFinite(f"{self._where()}: the gradient of optimiser {optimiser.name} is not finite", clean)
            optimiser.torch.step()
            clean = False
            self._note({f"lr/{optimiser.name}": rate, f"gradient/{optimiser.name}": norm})
            for name, value in terms.items():
                found[name] = found.get(name, 0.0) + value
        self._recipe.after_step(self._networks, info)
        for ema in self._emas:
            ema.update()
        self.done += 1
        self._note({"loss": sum(found.values()), **{f"loss/{k}": v for k, v in found.items()}})
        return found

    def _backward(self, optimiser: StageOptimiser, batches: Sequence[TrainBatch], info: Step, clean: bool) -> dict[str, float]:
        """Accumulate the gradients of one optimiser over the micro-batches; means of its terms over all of them."""
        sums: dict[str, float] = {}
        for micro, batch in enumerate(batches):
            generator = torch.Generator(self._devices.device).manual_seed(self._derived("loss", optimiser.name, micro))
            with self._devices.precision(self.stage.precision):
                terms = self._recipe.losses(self._networks, batch, generator, info, optimiser.name)
            if not terms:
                continue
            total = self._total(terms)
            values = torch.stack([t.detach().float() for t in terms.values()])
            self._devices.average([values])
            for name, value in zip(terms, values.tolist(), strict=True):
                if not math.isfinite(value):
                    raise NotFinite(f"{self._where()}: the loss {name!r} of optimiser {optimiser.name} is {value}", clean)
                sums[name] = sums.get(name, 0.0) + value / len(batches)
            if total.requires_grad:
                self._devices.backward(total / len(batches))
        return sums

    def _total(self, terms: Mapping[str, Tensor]) -> Tensor:
        for name, value in terms.items():
            if not isinstance(value, Tensor) or value.ndim:
                shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise PluginError(f"{type(self._recipe).__name__}: the loss {name!r} is no scalar tensor but {shape}.")
        return torch.stack([t.float() for t in terms.values()]).sum()

    def _load(self, index: int) -> list[TrainBatch]:
        """The micro-batches of this process, on the device; with an accelerator the next step's are made meanwhile."""
        if self._pool is None:
            cut = self._cut(index)
        else:
            ahead = self._ahead
            cut = ahead[1].result() if ahead is not None and ahead[0] == index else self._cut(index)
            if index + 1 < self.stage.steps:
                self._ahead = (index + 1, self._pool.submit(self._cut, index + 1))
        return [to_device(b, self._devices.device) for b in cut]

    def _cut(self, index: int) -> list[TrainBatch]:
        first = self._devices.rank * self.stage.accumulate * self._micro
        return [self._patches.batch(index, first + m * self._micro, self._micro) for m in range(self.stage.accumulate)]

    def _derived(self, *parts: str | int) -> int:
        return derive_seed("train", self._seed, self.stage.name, self.done, self._devices.rank, *parts)

    def _where(self) -> str:
        return f"stage {self.stage.name}, step {self.done + 1}"

    # -- log -----------------------------------------------------------------------------------------------------
    def _note(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def take_means(self) -> dict[str, float]:
        """Means of the logged quantities since the last call."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    # -- weights and validation ----------------------------------------------------------------------------------
    @contextmanager
    def averaged(self, number: int = 0) -> Iterator[None]:
        """The networks with the weights of an average (the first), or with their own if the stage keeps none."""
        with self._emas[number].swapped() if self._emas else nullcontext():
            yield

    def weights(self, number: int = 0) -> dict[str, Tensor]:
        """What the recipe ships of the (averaged) networks: copies on the CPU."""
        with self.averaged(number):
            return snapshot(self._recipe.state_dict(self._networks))

    @property
    def chooses(self) -> bool:
        """Whether validations choose the best weights."""
        spec = self.stage.validation
        if not spec.select:
            return False
        return self._val_patches is not None if spec.select == LOSS else self._validator.restores

    def due(self) -> bool:
        """Whether a validation belongs after the step that was just done."""
        every = self.stage.validation.every
        if not (self._validator.restores or self._val_patches is not None):
            return False
        return self.done == self.stage.steps or bool(every and self.done % every == 0)

    def validate(self) -> dict[str, float]:
        """Score the present weights, and keep them if they are the best so far.

        Raises
        ------
        UserError : the selecting metric needs a method, and the recipe makes none of these weights.
        """
        spec = self.stage.validation
        tensors = self.weights()
        scores = self.scores(tensors)
        if self._val_patches is not None:
            scores[LOSS] = self._validation_loss()
        score = scores.get(spec.select, math.nan)
        self._scored["last"] = (self.done, dict(scores))
        if self.chooses and self._validator.better(score, self.best):
            self.best, self.best_step = score, self.done
            self._scored["best"] = self._scored["last"]
            write_weights(self._best_file, tensors)
        set_modes(self.stage, self._networks)
        return scores

    def known_scores(self, best: bool) -> dict[str, float] | None:
        """Scores of the best weights, or of the present ones if they have just been validated."""
        step, scores = self._scored.get("best" if best else "last", (-1, {}))
        return scores if (best and step > 0) or step == self.done else None

    def scores(self, tensors: Mapping[str, Tensor]) -> dict[str, float]:
        """Metric columns of weights on the validation slices; empty if none are restored."""
        if not self._validator.restores:
            return {}
        restorer = self._make_restorer(tensors)
        if restorer is None:
            if self.stage.validation.select not in ("", LOSS):
                raise UserError(
                    f"stage {self.stage.name}: its weights alone restore nothing, so they cannot be selected by "
                    f"{self.stage.validation.select!r}. Set validation.select to {LOSS!r}."
                )
            return {}
        found = self._validator.scores(restorer)
        self.problems = list(self._validator.problems)
        return found

    def _validation_loss(self) -> float:
        """The first optimiser's loss on fixed patches with fixed noise, in eval mode."""
        assert self._val_patches is not None
        spec = self.stage.validation
        info = Step(self.stage, max(0, self.done - 1), self.before + max(0, self.done - 1), training=False)
        name = self._optimisers[0].name
        losses, weights = [], []
        for network in self._networks.values():
            network.eval()
        with self.averaged(), torch.no_grad():
            for first in range(0, spec.items, spec.batch):
                count = min(spec.batch, spec.items - first)
                batch = to_device(self._val_patches.batch(0, first, count), self._devices.device)
                seed = derive_seed("validation", self._seed, self.stage.name, first)
                torch.manual_seed(seed)
                generator = torch.Generator(self._devices.device).manual_seed(seed)
                terms = self._recipe.losses(self._networks, batch, generator, info, name)
                losses.append(float(self._total(terms)) if terms else math.nan)
                weights.append(count)
        return sum(v * n for v, n in zip(losses, weights, strict=True)) / sum(weights)

    # -- state ---------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on exactly."""
        return {
            "done": self.done,
            "best": self.best,
            "best_step": self.best_step,
            "optimisers": {o.name: o.torch.state_dict() for o in self._optimisers},
            "emas": [e.state_dict() for e in self._emas],
            "sums": {k: list(v) for k, v in self._sums.items()},
            "scored": {k: [step, dict(scores)] for k, (step, scores) in self._scored.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state (the networks are restored by the caller)."""
        self.done, self.best, self.best_step = int(state["done"]), state["best"], state["best_step"]
        for optimiser in self._optimisers:
            optimiser.torch.load_state_dict(state["optimisers"][optimiser.name])
        for ema, stored in zip(self._emas, state["emas"], strict=True):
            ema.load_state_dict(stored)
        self._sums = {k: (float(v[0]), int(v[1])) for k, v in state["sums"].items()}
        self._scored = {k: (int(v[0]), dict(v[1])) for k, v in state["scored"].items()}

    def close(self) -> None:
        """Stop making patches ahead."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
