"""What is prepared once for every operator, such as factorised level operators or step sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from mrbench.degradation.base import KEPT_OPERATORS
from mrbench.degradation.operators import Operator

T = TypeVar("T")


class OperatorCache(Generic[T]):
    """One value for each of the operators that were used last; as many as degradations keep themselves."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: OrderedDict[tuple[int, int], tuple[Operator, T]] = OrderedDict()

    def get(self, operator: Operator, channels: int, build: Callable[[], T]) -> T:
        """The value for this operator object on images of ``channels`` channels, made by ``build`` the first time."""
        key = (id(operator), channels)  # the operator is kept with its value, so no other one takes its id
        if key not in self._kept:
            self._kept[key] = operator, build()
            if len(self._kept) > KEPT_OPERATORS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][1]
