"""The three controls: ``restore(measurement, draws, truth)`` gives ``[B, K, C, H, W]``, the same image K times.

``truth.hr [B, C, H, W]`` is the ground truth, ``truth.others`` holds for every item a slice of another subject, or is ``None``.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from mrbench.cards import Options
from mrbench.degradation.measurement import Measurement
from mrbench.degradation.operators import Operator
from mrbench.errors import UserError


class Truth(Protocol):
    """What controls see beside the measurement, in [0, 1] (complex images: a magnitude in [0, 1])."""

    hr: Tensor
    others: Tensor | None


class GroundTruth:
    """The ground truth itself."""

    def __init__(self, options: Options) -> None:
        """Take no options."""

    def restore(self, measurement: Measurement, draws: int, truth: Truth) -> Tensor:
        """``x = x_true``."""
        return _repeat(truth.hr.to(measurement.y), draws)


class PseudoInverse:
    """The least-norm image that explains the measurement (Penrose 1955)."""

    def __init__(self, options: Options) -> None:
        """Take no options."""

    def restore(self, measurement: Measurement, draws: int, truth: Truth) -> Tensor:
        """``x = A+ y``; for a non-linear degradation ``A`` is its linear part.

        Raises
        ------
        UserError : there is no 2-D operator.
        """
        return _repeat(_operator(measurement, "pinv").pinv(measurement.y), draws)


class Impostor:
    """Another subject's slice, moved by the least change that makes it explain the measurement."""

    def __init__(self, options: Options) -> None:
        """Take no options."""

    def restore(self, measurement: Measurement, draws: int, truth: Truth) -> Tensor:
        """``x = z + A+ (y - A z)``: the projection of ``z`` onto the solutions of ``A x = y``.

        Raises
        ------
        UserError : there is no 2-D operator, it is not linear, or there is no other subject.
        """
        operator = _operator(measurement, "impostor")
        if not operator.linear:
            raise UserError(
                f"impostor projects onto the solutions of H x = y, which needs a linear degradation; {operator.name} is not "
                "linear with these options. Leave the control out, or choose a protocol with a linear degradation."
            )
        if truth.others is None:
            raise UserError(
                "impostor needs a slice of another subject, and for these items there is none: the data set has one subject "
                "alone, or no other one with as many channels. Leave the control out, or use a data set with more subjects."
            )
        z = truth.others.to(measurement.y)
        return _repeat(z + operator.pinv(measurement.y - operator.forward(z)), draws)


def _operator(measurement: Measurement, name: str) -> Operator:
    if measurement.operator is None:
        raise UserError(
            f"{name} needs the degradation's 2-D operator, and these slices were cut from a volume degraded in 3-D. "
            "Leave the control out, or choose a 2-D protocol."
        )
    return measurement.operator


def _repeat(image: Tensor, draws: int) -> Tensor:
    return image[:, None].repeat(1, draws, 1, 1, 1)
