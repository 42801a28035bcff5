"""Which slices are trained and validated on: data sets opened with the protocol's preparation, train and val subjects only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mrbench.data.items import ItemList, ItemRef, Progress
from mrbench.data.leaks import dataset_subjects, subject_hash
from mrbench.data.records import VolumeRef
from mrbench.data.selection import subset
from mrbench.data.splits import SPLITS
from mrbench.engine.entries import DatasetChoice
from mrbench.engine.task import Task, absolute_options, open_task
from mrbench.errors import UserError
from mrbench.plugins import Registry, did_you_mean
from mrbench.protocol import Protocol, SplitSpec

SUBSET_SEED = 0  # --max-slices: the same slices whatever is trained, with whatever seed


@dataclass(frozen=True)
class Source:
    """One data set of a training.

    train, val : its slices by split. task : the validation slices as a task of the protocol, ``None`` without any.
    """

    choice: DatasetChoice
    train: tuple[ItemRef, ...]
    val: tuple[ItemRef, ...]
    task: Task | None
    options: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def alias(self) -> str:
        """The name that the data set goes by in this training."""
        return self.choice.alias

    def record(self) -> dict[str, Any]:
        """The data set as ``training.json`` describes it; places on disk by their last part only."""
        card = self.choice.card
        options = {
            k: Path(str(v)).name if k in card.path_options and v else v for k, v in self.options.items() if v is not None
        }
        return {
            "alias": self.alias,
            "name": card.name,
            "version": card.version,
            "options": options,
            "licence": self.options.get("licence") or card.licence,
            "redistribution": card.redistribution,
            "train": {"subjects": len({i.subject for i in self.train}), "slices": len(self.train)},
            "val": {"subjects": len({i.subject for i in self.val}), "slices": len(self.val)},
        }


def open_sources(
    choices: Sequence[DatasetChoice],
    protocol: Protocol,
    registry: Registry,
    exclude: Sequence[str] = (),
    max_slices: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> list[Source]:
    """Prepare the train and val volumes of the data sets (cached) and list their slices. Test volumes are not read.

    Parameters
    ----------
    exclude : subjects that are left out, wherever they are.
    max_slices : at most so many training slices, by alias or for every data set (``""``): a seeded choice spread over subjects.

    Raises
    ------
    UserError : a data set without train and val subjects, an excluded subject that nobody has, a protocol that trains nothing.
    """
    if protocol.dimensions != 2:
        raise UserError(
            f"protocol {protocol.name} degrades whole volumes; patches are trained with 2-D protocols. Name another with --protocol."
        )
    limits = dict(max_slices or {})
    stray = sorted(set(limits) - {"", *(c.alias for c in choices)})
    if stray:
        raise UserError(f"--max-slices {stray[0]}=...: no data set of that name. Given: {', '.join(c.alias for c in choices)}.")
    seen: dict[str, tuple[str, str]] = {}  # subject -> (alias, split)
    warnings: list[str] = []
    sources = []
    for choice in choices:
        splits = _splits(choice)
        for subject, split in splits.items():
            alias, other = seen.setdefault(subject, (choice.alias, split))
            if other != split:
                warnings.append(
                    f"subject {subject!r} is {other} in {alias} and {split} in {choice.alias}; if they are one person, leave them "
                    f"out: --exclude {subject}"
                )
        sources.append(_open(choice, splits, protocol, registry, set(exclude), limits, progress))
    strange = sorted(set(exclude) - set(seen))
    if strange:
        raise UserError(f"--exclude {strange[0]}: no data set here has that subject.{did_you_mean(strange[0], seen)}")
    if warnings:
        sources[0] = replace(sources[0], warnings=(*sources[0].warnings, *dict.fromkeys(warnings)))
    if not any(s.train for s in sources):
        raise UserError("no training slices are left. Exclude fewer subjects, or name more data sets.")
    return sources


def _splits(choice: DatasetChoice) -> dict[str, str]:
    dataset = choice.card.load()(choice.card.parse(absolute_options(choice), choice.alias))
    found = {ref.subject: ref.split for ref in dataset.refs() if isinstance(ref, VolumeRef)}
    if found and not set(found.values()) & {"train", "val"}:
        counts = ", ".join(f"{s}: {sum(v == s for v in found.values())}" for s in SPLITS)
        hint = ""
        if "split" in choice.card.options.model_fields:
            hint = f" Split it by a hash of the subject: --set {choice.alias}.split=hash, or give its manifest.csv a column 'split'."
        raise UserError(
            f"data set {choice.alias} has no train and val subjects ({counts}), and training sees no others. "
            f"Its rule: {choice.card.split_rule or 'not stated'}.{hint}"
        )
    return found


def _open(
    choice: DatasetChoice,
    splits: Mapping[str, str],
    protocol: Protocol,
    registry: Registry,
    exclude: set[str],
    limits: Mapping[str, int],
    progress: Progress | None,
) -> Source:
    tasks: dict[str, Task] = {}
    warnings: list[str] = []
    for part in ("train", "val"):
        if any(split == part for split in splits.values()):
            task = open_task(choice, protocol.model_copy(update={"split": SplitSpec(part=part)}), registry, progress)
            warnings += [f"{choice.alias}: {w}" for w in task.listing.warnings]
            warnings += [f"{choice.alias}: {s.file}: {s.reason}" for s in task.listing.skipped]
            tasks[part] = _without(task, exclude)
    if not splits:  # only unusable files: the task says why
        open_task(choice, protocol.model_copy(update={"split": SplitSpec(part="train")}), registry, progress)
    train = list(tasks["train"].items) if "train" in tasks else []
    most = limits.get(choice.alias, limits.get(""))
    if most is not None and most < len(train):
        train = subset(train, most, SUBSET_SEED)
    validation = tasks.get("val")
    val = tuple(validation.items) if validation else ()
    if not train:
        warnings.append(f"{choice.alias}: none of its subjects are train; it is used for validation only")
    return Source(
        choice, tuple(train), val, validation if val else None, absolute_options(choice), tuple(dict.fromkeys(warnings))
    )


def _without(task: Task, exclude: set[str]) -> Task:
    listing = task.listing
    kept = ItemList([i for i in listing.items if i.subject not in exclude], listing.skipped, listing.dropped, listing.warnings)
    return Task(task.choice, task.protocol, kept, task.options)


def subjects_of(sources: Sequence[Source], parts: Sequence[str] = ("train", "val")) -> list[str]:
    """Subjects whose slices are used, sorted."""
    return sorted({item.subject for s in sources for part in parts for item in getattr(s, part)})


def hashes_of(sources: Sequence[Source], parts: Sequence[str] = ("train", "val")) -> tuple[list[str], list[str]]:
    """Hashes of the subjects and content hashes of the items, each sorted and without repeats."""
    subjects = sorted({subject_hash(s) for s in subjects_of(sources, parts)})
    items = sorted({item.item_hash for s in sources for part in parts for item in getattr(s, part)})
    return subjects, items


def refuse_held_out(sources: Sequence[Source], held_out: Sequence[DatasetChoice]) -> None:
    """Refuse a training that sees a subject of a data set which is kept for testing.

    Raises
    ------
    UserError : names the subjects that are in both.
    """
    used = set(subjects_of(sources))
    for choice in held_out:
        dataset = choice.card.load()(choice.card.parse(absolute_options(choice), choice.alias))
        both = sorted(used & set(dataset_subjects(dataset)))
        if both:
            flags = " ".join(f"--exclude {s}" for s in both)
            raise UserError(
                f"data set {choice.alias} is held out, but {len(both)} of its subjects are among those that training would see: "
                f"{', '.join(both)}. Leave them out: {flags}."
            )
