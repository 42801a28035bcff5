"""Subsets, limits, splits."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from mrbench.data.selection import limit, subset
from mrbench.data.splits import hash_split
from mrbench.errors import UserError


@dataclass(frozen=True)
class Item:
    item_id: str
    subject: str


ITEMS = [Item(f"d/s{s}/v/{k:03d}", f"s{s}") for s, count in enumerate((20, 3, 7)) for k in range(count)]


def test_a_subset_is_spread_as_evenly_as_possible():
    for n in range(1, len(ITEMS) + 1):
        chosen = subset(ITEMS, n, seed=3)
        assert len(set(chosen)) == n
        counts = Counter(item.subject for item in chosen)
        for subject, available in (("s0", 20), ("s1", 3), ("s2", 7)):
            assert counts[subject] >= min(available, max(counts.values()) - 1)


def test_a_subset_keeps_the_order_and_ignores_it():
    chosen = subset(ITEMS, 9, seed=1)
    assert chosen == [item for item in ITEMS if item in set(chosen)]
    shuffled = random.Random(0).sample(ITEMS, len(ITEMS))
    assert set(subset(shuffled, 9, seed=1)) == set(chosen)
    assert set(subset(ITEMS, 5, seed=1)) < set(chosen)


def test_subsets_are_pinned_and_differ_by_seed():
    assert [item.item_id for item in subset(ITEMS, 4, seed=0)] == PINNED
    assert len({tuple(subset(ITEMS, 6, seed=s)) for s in range(20)}) == 20


PINNED = ["d/s0/v/019", "d/s1/v/002", "d/s2/v/002", "d/s2/v/003"]


@pytest.mark.parametrize("n", [0, -1, 31])
def test_impossible_subsets(n):
    with pytest.raises(UserError, match="1 to 30"):
        subset(ITEMS, n)


def test_a_limit_takes_the_first_ones_in_turn():
    assert [item.item_id[2:] for item in limit(ITEMS, 5)] == ["s0/v/000", "s0/v/001", "s1/v/000", "s1/v/001", "s2/v/000"]
    assert Counter(item.subject for item in limit(ITEMS, 12)) == {"s0": 5, "s1": 3, "s2": 4}
    assert limit(ITEMS, 99) == ITEMS
    with pytest.raises(UserError, match="at least 1"):
        limit(ITEMS, 0)


def test_hash_split_fractions_and_stability():
    counts = Counter(hash_split(f"subject-{k}") for k in range(10_000))
    assert counts["train"] == pytest.approx(7000, abs=150)
    assert counts["val"] == pytest.approx(1500, abs=120)
    assert [hash_split(f"sub-{k:02d}") for k in range(8)] == PINNED_SPLITS
    assert any(hash_split(f"s{k}") != hash_split(f"s{k}", seed=1) for k in range(20))
    assert {hash_split(f"s{k}", fractions=(0, 0, 1)) for k in range(50)} == {"test"}
    with pytest.raises(ValueError, match="sum to 1"):
        hash_split("a", fractions=(0.5, 0.1, 0.1))


PINNED_SPLITS = ["train", "train", "train", "train", "train", "test", "train", "train"]
