"""In which order a reader sees the trials: random, but always the same for one reader of one study.

Orders come from hashes, not from a generator, so that a study begun under one version of Python goes on under the next.
"""

from __future__ import annotations

from mrbench.seeds import derive_seed
from mrbench.study.records import Study, Trial

GAP = 10  # trials between an image and its repeat, where there are enough


def reading_order(study: Study, reader: str) -> list[Trial]:
    """All trials in the order of ``reader`` (a key, see ``store.reader_key``), left and right by chance too.

    A repeat stands at least ``GAP`` trials (a quarter of all, if that is less) before or after what it repeats.
    """

    def chance(*parts: str | int) -> int:
        return derive_seed("order", study.id, reader, *parts)

    first = sorted((t for t in study.trials if not t.repeat_of), key=lambda t: chance(t.id))
    again = sorted((t for t in study.trials if t.repeat_of), key=lambda t: chance(t.id))
    order = list(first)
    gap = min(GAP, len(study.trials) // 4)
    for trial in again:
        at = next(i for i, t in enumerate(order) if t.id == trial.repeat_of)
        slots = [i for i in range(len(order) + 1) if i <= at - gap or i > at + gap] or [len(order)]
        order.insert(slots[chance("slot", trial.id) % len(slots)], trial)
    return [_turned(t, chance("side", t.id) % 2 == 1) for t in order]


def _turned(trial: Trial, turn: bool) -> Trial:
    return trial.model_copy(update={"images": trial.images[::-1]}) if turn else trial
