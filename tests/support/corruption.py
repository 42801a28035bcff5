"""Damaged copies of files, for tests that every reader ends in a result or in a DataError."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_HEADER = 512  # most of what breaks a reader stands at the front; half of the damage goes there


def corrupted(data: bytes, rng: random.Random) -> bytes:
    """A copy of ``data`` with one to three kinds of damage.

    Truncation, flipped bits, a run of zeros, a run that occurs twice, a run that is missing, random bytes written over a
    run. The same ``rng`` state gives the same copy. The copy may happen to be the same as ``data`` (a run of zeros zeroed).
    """
    damaged = bytearray(data)
    for damage in rng.sample(_DAMAGES, rng.choice((1, 1, 1, 2, 3))):
        if not damaged:
            break
        damage(damaged, rng)
    return bytes(damaged)


def _place(size: int, rng: random.Random) -> int:
    """An offset below ``size``: half of the time among the first bytes."""
    return rng.randrange(min(size, _HEADER) if rng.random() < 0.5 else size)


def _run(size: int, rng: random.Random) -> slice:
    """A run of 1 byte to a quarter of the file, short runs as likely as long ones."""
    length = min(size, int(2 ** rng.uniform(0, max(1.0, (size // 4).bit_length()))))
    start = min(_place(size, rng), size - length)
    return slice(start, start + length)


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[_place(len(data), rng) :]


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        data[_place(len(data), rng)] ^= 1 << rng.randrange(8)


def _zero(data: bytearray, rng: random.Random) -> None:
    run = _run(len(data), rng)
    data[run] = bytes(run.stop - run.start)


def _duplicate(data: bytearray, rng: random.Random) -> None:
    run = _run(len(data), rng)
    data[run.stop : run.stop] = data[run]


def _delete(data: bytearray, rng: random.Random) -> None:
    del data[_run(len(data), rng)]


def _scramble(data: bytearray, rng: random.Random) -> None:
    run = _run(len(data), rng)
    data[run] = rng.randbytes(run.stop - run.start)


_DAMAGES: Sequence[Callable[[bytearray, random.Random], None]] = (
    _truncate, _flip_bits, _zero, _duplicate, _delete, _scramble,
)  # fmt: skip
