"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math

from mrbench.train.settings import ScheduleSpec


def learning_rate(spec: ScheduleSpec, base: float, step: int, steps: int) -> float:
    """The learning rate of ``step`` (from 0) of a stage of ``steps`` steps, with the peak ``base``.

    With W = ``warmup``: ``base (step + 1) / W`` during the warm-up, or with ``warmup_after_step`` the rule of the ResShift code,
    where the rate is set after each step: ``base`` at step 0, then ``base step / W`` up to step W. Afterwards, with n = step - W
    of N = steps - W:

    - ``cosine``: ``final + (base - final) (1 + cos(pi n / N)) / 2`` (Loshchilov 2017, eq. 5, one period);
    - ``linear``: ``base`` until n = start N, then down to ``final``, which step N would have;
    - ``step``: ``base gamma^k`` with k = floor(step / every) or the number of milestones reached;
    - ``inverse_sqrt``: ``base / sqrt(max(step / decay, 1))``, during the warm-up too (Karras 2024, eq. 15).

    Raises
    ------
    ValueError : a step outside of the stage.
    """
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is not one of the {steps} steps from 0")
    return base * _warm_up(spec, step) * _decay(spec, base, step, steps)


def _warm_up(spec: ScheduleSpec, step: int) -> float:
    if not spec.warmup:
        return 1.0
    if spec.kind == "inverse_sqrt":
        return min(step / spec.warmup, 1.0)
    if spec.warmup_after_step:
        return 1.0 if step == 0 else min(step / spec.warmup, 1.0)
    return min((step + 1) / spec.warmup, 1.0)


def _decay(spec: ScheduleSpec, base: float, step: int, steps: int) -> float:
    position, length = step - spec.warmup, steps - spec.warmup
    low = spec.final / base
    if spec.kind == "cosine" and position > 0:
        return low + (1 - low) * (1 + math.cos(math.pi * position / length)) / 2
    if spec.kind == "linear" and position > spec.start * length:
        begin = spec.start * length
        return low + (1 - low) * (length - position) / (length - begin)
    if spec.kind == "step":
        reached = step // spec.every if spec.every else sum(step >= m for m in spec.milestones)
        return spec.gamma**reached
    if spec.kind == "inverse_sqrt":
        return 1 / math.sqrt(max(step / spec.decay, 1))
    return 1.0
