"""Steps of a sampler, counted for whoever waits for its result (``on_step`` of a method, see ``mrbench.hookspecs``)."""

from __future__ import annotations

from collections.abc import Callable

OnStep = Callable[[int, int], None]  # steps done, steps in all


def of_part(on_step: OnStep | None, part: int, parts: int) -> OnStep | None:
    """What counts the steps of part ``part`` (from 0) of ``parts`` alike as steps of the whole."""
    if on_step is None or parts == 1:
        return on_step
    return lambda done, total: on_step(part * total + done, parts * total)


def after(on_step: OnStep | None, before: int, total: int) -> OnStep | None:
    """What counts the steps of a part that ``before`` steps precede, of ``total`` in the whole."""
    if on_step is None:
        return None
    return lambda done, _: on_step(before + done, total)
