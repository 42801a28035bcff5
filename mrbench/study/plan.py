"""What a study shows: which items, in which trials, under which codes. Pixels come later (``mrbench.study.create``)."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mrbench.errors import UserError
from mrbench.seeds import derive_seed
from mrbench.study.records import Mode, Shown, Trial

MOST_CRITERIA = 8
_ALPHABET = "bcdfghjkmnpqrstvwxz23456789"  # no vowels, so that no code spells a word
_CODE = 10


@dataclass(frozen=True)
class Candidate:
    """An item that every method restored."""

    item_id: str
    subject: str


@dataclass
class Layout:
    """Trials in an order that says nothing, what each code stands for, and the codes of the references."""

    trials: list[Trial] = field(default_factory=list)
    images: dict[str, Shown] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)


def lay_out(
    items: Sequence[Candidate], methods: Sequence[str], mode: Mode, *, reference: bool, repeats: int, seed: int
) -> Layout:
    """Trials for every item and method.

    ``single``: one image a trial. ``pair``: two methods of one item side by side, each rated; who stands with whom is chosen
    anew for every item, and the odd one out stands alone. ``repeats`` trials, spread over methods and items, come twice.
    Choices follow ``seed``; codes do not, or whoever knows the seed could tell the methods.

    Raises
    ------
    UserError : a pair of one method, or more repeats than trials.
    """
    if mode == "pair" and len(methods) < 2:
        raise UserError("--mode pair shows two methods side by side, and there is one. Give more runs, or use --mode single.")
    codes = _codes()
    layout = Layout()
    reference_of = {i.item_id: next(codes) for i in items} if reference else {}
    layout.references = {code: item for item, code in reference_of.items()}
    for item in items:
        for group in _groups(methods, mode, seed, item.item_id):
            shown = {next(codes): Shown(method=m, item=item.item_id, subject=item.subject) for m in group}
            layout.images.update(shown)
            layout.trials.append(Trial(id=next(codes), images=tuple(shown), reference=reference_of.get(item.item_id, "")))
    if repeats > len(layout.trials):
        raise UserError(f"--repeats {repeats}: there are {len(layout.trials)} trials to repeat. Ask for fewer.")
    for trial in _repeated(layout, repeats, seed):
        again = {next(codes): layout.images[c].model_copy(update={"repeat_of": c}) for c in trial.images}
        layout.images.update(again)
        layout.trials.append(Trial(id=next(codes), images=tuple(again), reference=trial.reference, repeat_of=trial.id))
    layout.trials.sort(key=lambda t: t.id)  # ids are random
    layout.images = dict(sorted(layout.images.items()))
    return layout


def parse_scale(text: str) -> tuple[int, int]:
    """``"1..5"`` -> ``(1, 5)``. Each rating is one key, so that 0 to 9 are possible (``UserError`` for others)."""
    found = re.fullmatch(r"\s*(\d)\s*(?:\.\.|-)\s*(\d)\s*", text)
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(f"--scale {text}: write LOWEST..HIGHEST with two digits from 0 to 9, for example 1..5.")
    return int(found[1]), int(found[2])


def parse_criteria(text: str) -> tuple[str, ...]:
    """``"contrast, sharpness"`` -> names, each once (``UserError`` for none, too many, or names that do not print)."""
    names = tuple(dict.fromkeys(" ".join(n.split()) for n in text.split(",") if n.strip()))
    if not names:
        raise UserError("--criteria is empty. Name what readers judge, for example contrast,sharpness,anatomy.")
    if len(names) > MOST_CRITERIA:
        raise UserError(f"--criteria: {len(names)} are more than a reader can keep apart. Give at most {MOST_CRITERIA}.")
    for name in names:
        if len(name) > 60 or not name.isprintable():
            raise UserError(f"--criteria {name[:60]!r}: give a printable name of at most 60 characters.")
    return names


def parse_anchors(text: str) -> tuple[str, str]:
    """``"poor,excellent"`` -> what the lowest and the highest rating mean (``UserError`` for anything but two)."""
    parts = [" ".join(p.split()) for p in text.split(",")]
    if len(parts) != 2 or not all(p and len(p) <= 60 and p.isprintable() for p in parts):
        raise UserError(f"--anchors {text}: name the lowest and the highest rating, for example poor,excellent.")
    return parts[0], parts[1]


def _codes() -> Iterator[str]:
    """Random names, each once."""
    given: set[str] = set()
    while True:
        code = "".join(secrets.choice(_ALPHABET) for _ in range(_CODE))
        if code not in given:
            given.add(code)
            yield code


def _groups(methods: Sequence[str], mode: Mode, seed: int, item: str) -> list[tuple[str, ...]]:
    if mode == "single":
        return [(m,) for m in methods]
    mixed = sorted(methods, key=lambda m: derive_seed("pair", seed, item, m))
    return [tuple(mixed[i : i + 2]) for i in range(0, len(mixed), 2)]


def _repeated(layout: Layout, n: int, seed: int) -> list[Trial]:
    """``n`` trials: each time one whose methods, and then whose item, were taken least often so far."""

    def key_of(trial: Trial) -> tuple[str, ...]:
        return (layout.images[trial.images[0]].item, *(layout.images[c].method for c in trial.images))

    left = sorted(layout.trials, key=lambda t: derive_seed("repeat", seed, *key_of(t)))
    methods: Counter[str] = Counter()
    items: Counter[str] = Counter()
    chosen = []
    for _ in range(n):
        best = min(left, key=lambda t: (max(methods[m] for m in key_of(t)[1:]), items[key_of(t)[0]]))
        left.remove(best)
        item, *shown = key_of(best)
        methods.update(shown)
        items[item] += 1
        chosen.append(best)
    return chosen
