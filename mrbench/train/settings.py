"""What a recipe declares, as typed records (no torch here): stages, optimisers, schedules, averages, validation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mrbench.cards import Options

ScheduleKind = Literal["constant", "cosine", "linear", "step", "inverse_sqrt"]

_SCHEDULE_FIELDS: dict[ScheduleKind, frozenset[str]] = {
    "constant": frozenset(),
    "cosine": frozenset({"final"}),
    "linear": frozenset({"final", "start"}),
    "step": frozenset({"gamma", "every", "milestones"}),
    "inverse_sqrt": frozenset({"decay"}),
}


class ScheduleSpec(Options):
    """The learning rate over the steps of a stage; :func:`mrbench.train.schedules.learning_rate` has the formulas.

    kind : ``constant``; ``cosine`` to ``final``; ``linear`` to ``final`` from the fraction ``start`` of the steps on; ``step``:
        times ``gamma`` every ``every`` steps or at each of ``milestones``; ``inverse_sqrt``: ``1 / sqrt(max(step / decay, 1))``.
    warmup : steps of linear warm-up, before all kinds.
    warmup_after_step : the rate is set *after* each step, as in the ResShift code: the first step runs at the full rate, step
        k + 1 of the warm-up at k / warmup of it.
    final : the last learning rate (``cosine``, ``linear``), absolute.
    """

    kind: ScheduleKind = "constant"
    warmup: int = Field(default=0, ge=0)
    warmup_after_step: bool = False
    final: float = Field(default=0.0, ge=0)
    start: float = Field(default=0.0, ge=0, lt=1)
    gamma: float = Field(default=0.5, gt=0, le=1)
    every: int = Field(default=0, ge=0)
    milestones: tuple[int, ...] = ()
    decay: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        special = frozenset[str]().union(*_SCHEDULE_FIELDS.values())
        stray = sorted((self.model_fields_set & special) - _SCHEDULE_FIELDS[self.kind])
        if stray:
            raise ValueError(f"a schedule of kind {self.kind!r} has no {', '.join(stray)}")
        if self.kind == "step" and bool(self.every) == bool(self.milestones):
            raise ValueError("kind 'step' needs every or milestones, one of them")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError("milestones are increasing step numbers from 1")
        if self.kind == "inverse_sqrt" and not self.decay:
            raise ValueError("kind 'inverse_sqrt' needs decay, a number of steps")
        return self

    def scaled(self, factor: float) -> ScheduleSpec:
        """The same schedule for ``factor`` times as many steps."""
        changes: dict[str, Any] = {"warmup": round(self.warmup * factor)} if self.warmup else {}
        if self.every:
            changes["every"] = max(1, round(self.every * factor))
        if self.milestones:
            changes["milestones"] = tuple(dict.fromkeys(max(1, round(m * factor)) for m in self.milestones))
        if self.decay:
            changes["decay"] = max(1, round(self.decay * factor))
        return self.model_copy(update=changes)


class OptimiserSpec(Options):
    """One optimiser of a stage and the parameters that it steps.

    networks : names from ``Recipe.build()``; empty: all of them. Networks that no optimiser of the stage names are frozen.
    parameters : regular expression searched in ``network.parameter``; only matching parameters are trained; empty: all. The rest
        of these networks keeps its weights, but is in train mode (dropout, batch norm); frozen networks are in eval mode.
    clip : gradients are scaled down to this global L2 norm; ``None``: not clipped.
    """

    kind: Literal["adam", "adamw", "radam"] = "adamw"
    lr: float = Field(gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    schedule: ScheduleSpec = ScheduleSpec()
    networks: tuple[str, ...] = ()
    parameters: str = ""


class EmaSpec(Options):
    """An exponential moving average of the trained networks; :func:`mrbench.train.ema.ema_rate` has the formulas.

    kind : ``constant`` rate; ``warmup``: ``min(rate, (1 + n) / (10 + n))``; ``power``: power-function average of relative width
        ``std`` (Karras 2024).
    """

    kind: Literal["constant", "warmup", "power"] = "constant"
    rate: float = Field(default=0.999, ge=0, lt=1)
    std: float = Field(default=0.05, gt=0, lt=0.28)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        stray = "rate" if self.kind == "power" else "std"
        if stray in self.model_fields_set:
            raise ValueError(f"an average of kind {self.kind!r} has no {stray}")
        return self

    @property
    def label(self) -> str:
        """``0.999`` or ``power-0.05``: part of file names."""
        return f"power-{self.std:g}" if self.kind == "power" else f"{self.rate:g}"


class ValidationSpec(Options):
    """How the weights are judged while they are trained.

    every : steps between validations; 0: at the end of the stage only.
    select : the metric that chooses the best weights: a metric's column (``psnr``, ``psnr_fg``, ``psnr@mean`` with draws > 1,
        ``lpips_squeeze``) or ``loss``, the recipe's loss on fixed validation patches; empty: no choice, the last weights stay.
    metrics : metrics that are computed and logged besides.
    items : number of validation slices, a seeded choice spread over subjects (with ``loss``: of patches).
    draws : posterior samples per slice, of stochastic methods.
    """

    every: int = Field(default=0, ge=0)
    select: str = "psnr"
    metrics: tuple[str, ...] = ()
    items: int = Field(default=16, ge=1)
    draws: int = Field(default=1, ge=1)
    batch: int = Field(default=4, ge=1)


class Stage(Options):
    """One stage of training.

    data : aliases of the data sets (``--dataset ALIAS=NAME``) whose slices are used; empty: all that are given.
    batch : patches per step, over all devices and ``accumulate`` micro-batches.
    patch : side of the square HR patches, a multiple of the scale.
    small : what becomes of slices smaller than a patch: ``drop`` them, or ``pad`` them with zeros.
    augment : random flips, or flips and quarter turns (the 8 symmetries of the square).
    balance : patches are drawn evenly over ``slices``, ``subjects`` or ``datasets``.
    min_foreground : a patch with a smaller fraction of foreground is drawn again, up to 8 times.
    optimisers : stepped in this order. At least one.
    ema : averages of the trained networks; the first one is what is validated and kept.
    keep : which weights leave the stage, to the next one or into the checkpoint: the ``best`` of the validations or the ``last``.
    """

    name: str = Field(default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    accumulate: int = Field(default=1, ge=1)
    patch: int = Field(ge=8)
    data: tuple[str, ...] = ()
    small: Literal["drop", "pad"] = "drop"
    augment: Literal["none", "flips", "flips_rotations"] = "flips_rotations"
    balance: Literal["slices", "subjects", "datasets"] = "slices"
    min_foreground: float = Field(default=0.1, ge=0, le=1)
    optimisers: dict[str, OptimiserSpec] = Field(min_length=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: tuple[EmaSpec, ...] = ()
    validation: ValidationSpec = ValidationSpec()
    keep: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} is not a multiple of accumulate {self.accumulate}")
        if len({e.label for e in self.ema}) < len(self.ema):
            raise ValueError("two averages of one stage are the same")
        for name, optimiser in self.optimisers.items():
            if optimiser.schedule.warmup > self.steps:
                raise ValueError(f"optimiser {name}: {optimiser.schedule.warmup} warm-up steps in a stage of {self.steps}")
        return self

    def with_steps(self, steps: int) -> Stage:
        """The same stage with another number of steps; schedules and validation shrink or grow with it."""
        factor = steps / self.steps
        optimisers = {name: o.model_copy(update={"schedule": o.schedule.scaled(factor)}) for name, o in self.optimisers.items()}
        every = max(1, round(self.validation.every * factor)) if self.validation.every else 0
        validation = self.validation.model_copy(update={"every": every})
        return self.model_copy(update={"steps": steps, "optimisers": optimisers, "validation": validation})


class RecipeOptions(Options):
    """What every recipe's options begin with; a recipe adds its own fields (architecture, loss weights ...).

    summary : one line for listings.
    tier : of the checkpoint: ``demo`` weights rank nothing.
    channels : images are converted to that many channels (colour to grey by luminance, complex to magnitude, grey to three equal
        ones); ``None``: they are taken as they are, and all must have the same number.
    weights : how floating-point weights are stored in the checkpoint.
    path_options : names of options that hold files; of those the checkpoint tells the last part only.
    """

    path_options: ClassVar[tuple[str, ...]] = ()

    summary: str = ""
    tier: Literal["demo", "retrained"] = "retrained"
    stages: tuple[Stage, ...] = Field(min_length=1)
    channels: Literal[1, 2, 3] | None = None
    weights: Literal["fp32", "fp16"] = "fp32"

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [s.name for s in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages are called {max(names, key=names.count)!r}")
        return self
