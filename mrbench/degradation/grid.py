"""Where low-resolution samples sit among high-resolution ones, per axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrbench.errors import UserError


def lr_size(n_hr: int, scale: float) -> int:
    """``round(n_hr / scale)``, halves rounded up: ``floor(n_hr / scale + 1/2)``.

    Raises
    ------
    UserError : ``scale`` is below 1, or nothing would be left of the axis.
    """
    if not 1 <= scale < math.inf:
        raise UserError(f"scale {scale} is not possible: degradations shrink, give a factor of 1 or more.")
    n_lr = math.floor(n_hr / scale + 0.5)
    if n_lr < 1:
        raise UserError(f"an axis of {n_hr} samples cannot be reduced by {scale:g}: nothing would be left of it.")
    return n_lr


@dataclass(frozen=True, slots=True)
class AxisGrid:
    """One axis: LR sample ``i`` sits at HR coordinate ``offset + step * i`` (HR sample ``j`` at coordinate ``j``).

    Centre-aligned (cells of ``step`` HR pixels, pixel-area convention): ``offset = (step - 1) / 2``. Corner-aligned
    (first samples coincide): ``offset = 0``.
    """

    n_hr: int
    n_lr: int
    step: float
    offset: float

    @classmethod
    def centre(cls, n_hr: int, scale: float) -> AxisGrid:
        """The centre-aligned grid of :func:`lr_size` samples with the effective step ``n_hr / n_lr``."""
        n_lr = lr_size(n_hr, scale)
        step = n_hr / n_lr
        return cls(n_hr, n_lr, step, (step - 1) / 2)

    @classmethod
    def corner(cls, n_hr: int, scale: float) -> AxisGrid:
        """The corner-aligned grid of :func:`lr_size` samples with the effective step ``n_hr / n_lr``."""
        n_lr = lr_size(n_hr, scale)
        return cls(n_hr, n_lr, n_hr / n_lr, 0.0)

    @classmethod
    def identity(cls, n: int) -> AxisGrid:
        """An axis that is left as it is."""
        return cls(n, n, 1.0, 0.0)

    @property
    def is_identity(self) -> bool:
        """Whether LR and HR samples coincide one to one."""
        return self.n_hr == self.n_lr and self.step == 1 and self.offset == 0

    def positions(self) -> NDArray[np.float64]:
        """``[n_lr]``: HR coordinate of every LR sample."""
        return self.offset + self.step * np.arange(self.n_lr, dtype=np.float64)

    def coordinates(self) -> NDArray[np.float64]:
        """``[n_hr]``: LR coordinate ``(j - offset) / step`` of every HR sample."""
        return (np.arange(self.n_hr, dtype=np.float64) - self.offset) / self.step

    def blind(self) -> AxisGrid:
        """The centre-aligned grid of the same sizes: what software assumes that is not told the grid."""
        step = self.n_hr / self.n_lr
        return AxisGrid(self.n_hr, self.n_lr, step, (step - 1) / 2)

    def extended(self, n_hr: int) -> AxisGrid:
        """The same step and offset on a longer axis of ``n_hr`` samples."""
        if n_hr < self.n_hr:
            raise ValueError(f"cannot extend {self.n_hr} samples to {n_hr}")
        if n_hr == self.n_hr:
            return self
        return AxisGrid(n_hr, max(self.n_lr, math.floor(n_hr / self.step + 0.5)), self.step, self.offset)
