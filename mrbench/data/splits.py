"""Train, validation and test by subject."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def hash_split(subject: str, seed: int = 0, fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> Split:
    """The split of a subject, from a seeded hash of its id alone.

    It does not depend on which other subjects exist, on their order, or on the machine; so a data set can grow and nobody
    changes sides. The fractions hold in expectation only.

    Parameters
    ----------
    subject : subject id.
    seed : another seed gives another, independent split.
    fractions : of train, val and test; not negative, with sum 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"split fractions must be >= 0 and sum to 1, got {fractions}")
    digest = hashlib.sha256(f"{seed}\x00{subject}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    if position < fractions[0]:
        return "train"
    return "val" if position < fractions[0] + fractions[1] else "test"
