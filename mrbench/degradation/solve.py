"""Preconditioned conjugate gradients, each image on its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mrbench.errors import MrbenchError

MAX_ITERATIONS = 200


def tolerance(dtype: torch.dtype) -> float:
    """Relative residual at which a solve counts as converged: 1e-6 in float32, 1e-12 in float64."""
    return 1e-12 if dtype == torch.float64 else 1e-6


def conjugate_gradients(
    system: Callable[[Tensor], Tensor],
    right: Tensor,
    precondition: Callable[[Tensor], Tensor],
    axes: int,
    what: str,
) -> Tensor:
    """Solve ``system(q) = right`` for a positive definite ``system`` that acts on the last ``axes`` axes.

    Leading axes are independent problems: a converged one is frozen, so its solution does not depend on the batch.

    Raises
    ------
    MrbenchError : not converged to :func:`tolerance` within ``MAX_ITERATIONS``; the problem is too ill-conditioned.
    """
    dims = tuple(range(-axes, 0))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dims, keepdim=True)

    goal = tolerance(right.dtype) ** 2 * dot(right, right)
    q, residual = torch.zeros_like(right), right
    direction = precondition(residual)
    rho = dot(residual, direction)
    for _ in range(MAX_ITERATIONS):
        active = dot(residual, residual) > goal
        if not bool(active.any()):
            return q
        image = system(direction)
        step = torch.where(active, rho / torch.where(active, dot(direction, image), 1.0), 0.0)
        q = q + step * direction
        residual = residual - step * image
        preconditioned = precondition(residual)
        following = dot(residual, preconditioned)
        direction = preconditioned + torch.where(active, following / torch.where(active, rho, 1.0), 0.0) * direction
        rho = torch.where(active, following, rho)
    left = float((dot(residual, residual) / dot(right, right).clamp_min(1e-30)).max().sqrt())
    raise MrbenchError(
        f"{what}: conjugate gradients stopped at a relative residual of {left:.1e} after {MAX_ITERATIONS} iterations. "
        "The operator is too ill-conditioned for this precision: use float64, a larger rho, or a milder window."
    )
