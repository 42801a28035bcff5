"""Loss terms of ResShift, Res-SRDiff and SinSR, as pure functions; one value per item of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .residual_shift import Network, Noise, ResidualShift


def mse(a: Tensor, b: Tensor) -> Tensor:
    """``[B]``: mean squared difference of every item."""
    return (a - b).square().flatten(1).mean(1)


@dataclass(frozen=True)
class DiffusionLoss:
    """``mse [B]``, with the estimate of x_0 (for perceptual terms) and the noisy state that it was made from."""

    mse: Tensor
    x0: Tensor
    state: Tensor


def diffusion_loss(
    process: ResidualShift, network: Network, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor, weighted: bool = False
) -> DiffusionLoss:
    """Squared error of what the network predicts, at step ``t [B]`` (ResShift and the variants of its code).

    ``epsilon_scale`` is divided by ``kappa^2 eta_t``, so that it counts like ``epsilon``. ``weighted`` multiplies by the
    weights of the variational bound (published recipes do not).
    """
    state = process.q_sample(x0, y, t, noise)
    _, output, estimate = process.predict(network, state, y, t)
    loss = mse(process.target(x0, y, t, noise), output)
    schedule = process.schedule
    if process.config.prediction == "epsilon_scale":
        loss = loss / process.at(schedule.kappa**2 * schedule.etas, t).flatten()
    if weighted:
        loss = loss * process.at(schedule.loss_weights(process.config.prediction), t).flatten()
    return DiffusionLoss(loss, estimate, state)


def with_perceptual(squared: Tensor, perceptual: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``[B]``: ``c0 mse + c1 perceptual``; if any perceptual value is not finite, the whole batch counts
    the squared error alone.

    Published coefficients: ResShift (third release) 1, 1; Res-SRDiff's code 4, 1; its paper 10, 1.
    """
    first, second = coefficients
    if not bool(torch.isfinite(perceptual).all()):
        return first * squared
    return first * squared + second * perceptual


@dataclass(frozen=True)
class DistillationLoss:
    """Terms of SinSR's loss, each ``[B]``; those that were not asked for are ``None``."""

    distill: Tensor
    inverse: Tensor | None
    truth: Tensor | None
    total: Tensor
    start: Tensor  # x_T
    teacher: Tensor  # where the teacher's trajectory from x_T ends
    student: Tensor  # what the student makes of x_T


def distillation_loss(
    process: ResidualShift,
    student: Network,
    teacher: Network,
    y: Tensor,
    noise: Tensor,
    truth: Tensor | None = None,
    *,
    learn_inverse: bool = True,
    truth_weight: float = 1.0,
    teacher_noise: Noise | None = None,
) -> DistillationLoss:
    """Losses of SinSR (arXiv:2311.14760), T the last step.

    ``distill``: one step of the student against all steps of the teacher, from the same x_T. ``inverse``: the student, told
    step 0, maps the teacher's end back to x_T. ``truth`` (needs ``truth``, the HR image or its latent): the student maps it to
    an x_T' (told 0, no gradient) and from there back to itself; weighted by ``truth_weight``. The input scaling is that of
    step T in all three.

    Parameters
    ----------
    y, truth : ``[B, C, H, W]`` in the space of the state.
    noise : ``[B, C, H, W]``, of x_T.
    teacher_noise : ``None``: the teacher samples deterministically; else ancestrally with these numbers.
    """
    t = torch.full((len(y),), process.steps - 1, device=y.device)
    zero = torch.zeros_like(t)
    start = process.prior(y, noise)
    with torch.no_grad():
        if teacher_noise is None:
            end = process.sample_deterministic(teacher, y, start)
        else:
            end = process.sample(teacher, y, teacher_noise, start)
    made = process.predict(student, start, y, t)[2]
    distill = mse(made, end)
    total, inverse, anchored = distill, None, None
    if learn_inverse:
        inverse = mse(start, process.predict(student, end, y, t, told=zero)[2])
        total = total + inverse
    if truth is not None and truth_weight:
        with torch.no_grad():
            origin = process.predict(student, truth, y, t, told=zero)[2]
        anchored = mse(truth, process.predict(student, origin, y, t)[2])
        total = total + truth_weight * anchored
    return DistillationLoss(distill, inverse, anchored, total, start, end, made)
