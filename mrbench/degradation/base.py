"""What every degradation class has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrbench.cards import Options
from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.operators import LinearOperator, Operator
from mrbench.errors import UserError

O = TypeVar("O", bound=Options)  # noqa: E741
AxisPart = tuple[AxisGrid, NDArray[Any]]

KEPT_OPERATORS = 16


class Degradation(ABC, Generic[O]):
    """A forward model with its options, not yet bound to an image size."""

    name: ClassVar[str]
    ndim: ClassVar[tuple[int, ...]] = (2, 3)

    def __init__(self, options: O) -> None:
        """Keep the validated ``options``."""
        self.options = options
        self._bound: OrderedDict[tuple[tuple[int, ...], tuple[float, ...]], Operator] = OrderedDict()

    def bind(self, size: Sequence[int], scale: Sequence[float]) -> Operator:
        """The operator for images of ``size`` (``(H, W)`` or ``(D, H, W)``) with one scale per axis; recent ones are kept.

        Raises
        ------
        UserError : dimensions that this degradation does not have, unequal lengths, or an axis too small for its scale.
        """
        key = (tuple(int(n) for n in size), tuple(float(s) for s in scale))
        if len(key[0]) not in self.ndim:
            raise UserError(f"{self.name} works in {' and '.join(f'{d}-D' for d in self.ndim)}, not on size {key[0]}.")
        if len(key[0]) != len(key[1]):
            raise UserError(f"{self.name}: size {key[0]} needs one scale per axis, got {key[1]}.")
        if key not in self._bound:
            self._bound[key] = self._bind(*key)
            if len(self._bound) > KEPT_OPERATORS:
                self._bound.popitem(last=False)
        self._bound.move_to_end(key)
        return self._bound[key]

    @abstractmethod
    def _bind(self, size: tuple[int, ...], scale: tuple[float, ...]) -> Operator: ...


class AxisDegradation(Degradation[O]):
    """A degradation that is one real matrix per axis. Axes that keep their size are left untouched."""

    def _bind(self, size: tuple[int, ...], scale: tuple[float, ...]) -> LinearOperator:
        parts = [self._axis(n, s, axis) for axis, (n, s) in enumerate(zip(size, scale, strict=True))]
        return LinearOperator(self.name, [grid for grid, _ in parts], [matrix for _, matrix in parts])

    def _axis(self, n: int, scale: float, axis: int) -> AxisPart:
        grid = AxisGrid.centre(n, scale)
        return grid, np.eye(n) if grid.is_identity else self._matrix(grid, axis)

    @abstractmethod
    def _matrix(self, grid: AxisGrid, axis: int) -> NDArray[np.float64]: ...
