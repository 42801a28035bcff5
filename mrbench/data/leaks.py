"""Who was trained on: hashes of subjects and slices, and which items of a run weights have seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mrbench.data.items import ItemRef
from mrbench.data.records import Dataset, VolumeRef


def subject_hash(subject: str) -> str:
    """SHA-256 of a subject's id in UTF-8, in hex: what ``training.json`` stores instead of the id."""
    return hashlib.sha256(subject.encode()).hexdigest()


def dataset_subjects(dataset: Dataset) -> list[str]:
    """All subjects of a data set, in all its splits, sorted."""
    return sorted({ref.subject for ref in dataset.refs() if isinstance(ref, VolumeRef)})


def leaked_subjects(training: Mapping[str, Any], subjects: Iterable[str]) -> list[str]:
    """Those of ``subjects`` that weights were trained or validated on.

    Ids are compared by hash, so the same person under another id is not found.

    Parameters
    ----------
    training : the contents of a checkpoint's ``training.json``.
    """
    known = set(_texts(training, "subjects"))
    return sorted(s for s in set(subjects) if subject_hash(s) in known)


@dataclass(frozen=True)
class Overlap:
    """Items that weights were trained or validated on.

    subjects : whose id is among the training subjects', sorted. items : ids of the slices of these subjects, and of slices with the
    very content of training slices (under whatever subject).
    """

    subjects: tuple[str, ...] = ()
    items: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.items)


def says_subjects(training: Mapping[str, Any] | None) -> bool:
    """Whether a ``training.json`` tells all subjects that weights were trained on, those of the weights they grew from included."""
    if training is None or not _texts(training, "subjects"):
        return False
    origins = training.get("drawn_on")
    return all(o.get("subjects_known") for o in origins if isinstance(o, Mapping)) if isinstance(origins, list) else True


def overlap(training: Mapping[str, Any] | None, items: Sequence[ItemRef]) -> Overlap:
    """Which of ``items`` weights have seen: by the hash of the subject's id, and by content hash.

    Two people with one id in different data sets count as one; the same person under another id is found only where a slice
    has the same content under the same preparation.

    Parameters
    ----------
    training : the contents of a checkpoint's ``training.json``, ``None`` where there is none.
    """
    if training is None:
        return Overlap()
    subjects = leaked_subjects(training, {i.subject for i in items})
    hashes = set(_texts(training, "items"))
    seen = frozenset(i.item_id for i in items if i.subject in subjects or i.item_hash in hashes)
    return Overlap(tuple(subjects), seen)


def _texts(training: Mapping[str, Any], key: str) -> list[str]:
    """A list of hashes; whatever else stands there counts as nothing."""
    value = training.get(key)
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
