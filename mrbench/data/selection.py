"""Taking some of the items, fairly over subjects."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from mrbench.errors import UserError


class _HasIds(Protocol):
    @property
    def item_id(self) -> str: ...

    @property
    def subject(self) -> str: ...


T = TypeVar("T", bound=_HasIds)


def subset(items: Sequence[T], n: int, seed: int = 0) -> list[T]:
    """``n`` items by seeded choice, spread over the subjects as evenly as their numbers of slices allow.

    Subjects, and the items of each, are ordered by seeded hashes of their ids; items are then taken round-robin. So the choice
    is the same on every machine and does not depend on the order of ``items``, and a larger ``n`` contains a smaller one.

    Returns
    -------
    The chosen items, in their original order.

    Raises
    ------
    UserError : ``n`` is not between 1 and the number of items.
    """
    if not 1 <= n <= len(items):
        raise UserError(f"a subset of {n} items was asked for, but there are {len(items)}. Ask for 1 to {len(items)}.")
    return _round_robin(items, n, lambda kind, name: hashlib.sha256(f"{seed}\x00{kind}\x00{name}".encode()).hexdigest())


def limit(items: Sequence[T], n: int) -> list[T]:
    """The first ``n`` items, round-robin over subjects in their order (all, if there are fewer), in their original order.

    Raises
    ------
    UserError : ``n`` is less than 1.
    """
    if n < 1:
        raise UserError(f"a limit of {n} items was asked for. Ask for at least 1.")
    return _round_robin(items, n, lambda kind, name: "")  # equal keys: sorting keeps the order


def _round_robin(items: Sequence[T], n: int, order: Callable[[str, str], str]) -> list[T]:
    by_subject: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        by_subject[item.subject].append(position)
    queues = [
        sorted(by_subject[subject], key=lambda position: order("item", items[position].item_id))
        for subject in sorted(by_subject, key=lambda name: order("subject", name))
    ]
    longest = max(map(len, queues), default=0)
    turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return [items[position] for position in sorted(turns[:n])]
