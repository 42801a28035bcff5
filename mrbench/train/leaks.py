"""Who was trained on: hashes of subjects, and whether a data set holds one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

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
    known = set(training.get("subjects", ()))
    return sorted(s for s in set(subjects) if subject_hash(s) in known)
