"""``plan.json``, the batch plan of a run folder: written and read as a stream, so that its memory does not grow with the items.

The document is ``{"batch": 4, "shards": [["id", ...], ...]}``; the place of a shard in the list is its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import BinaryIO, TextIO

from mrbench.errors import UserError
from mrbench.store.files import write_atomic

PLAN = "plan.json"
CHUNK = 1 << 16  # characters read at once
COMPARED = 1 << 18  # new ids that are held in memory at once while they are compared with a stored plan

_SPACE = " \t\r\n"


def write_plan(path: Path, batch: int, shards: Iterable[Sequence[str]]) -> None:
    """Write a plan atomically, a shard at a time."""

    def write(stream: BinaryIO) -> None:
        stream.write(b'{\n "batch": %d,\n "shards": [' % batch)
        for number, ids in enumerate(shards):
            stream.write(b",\n  " if number else b"\n  ")
            stream.write(json.dumps(list(ids), ensure_ascii=False).encode())
        stream.write(b"\n ]\n}\n")

    write_atomic(path, write)


def read_batch(path: Path) -> int:
    """The batch size of a stored plan, 0 where there is none (``UserError`` for a damaged one)."""
    try:
        with path.open(encoding="utf-8") as stream:
            return _Reader(stream).header()
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def read_shards(path: Path) -> Iterator[tuple[str, ...]]:
    """The shards of a stored plan in order, one in memory at a time; none where there is no plan.

    Raises
    ------
    UserError : a damaged plan, once the damage is reached.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            reader = _Reader(stream)
            reader.header()
            yield from reader.shards()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def unplanned(path: Path, groups: Iterable[Iterable[str]]) -> Iterator[Iterator[str]]:
    """The ids of every group that no stored shard holds, in order.

    Memory stays constant: ids are compared with the stored plan in portions, each in one pass over the file.
    """
    for group in groups:
        yield _fresh(path, group)


def _fresh(path: Path, group: Iterable[str]) -> Iterator[str]:
    ids = iter(group)
    while portion := list(islice(ids, COMPARED)):
        missing = dict.fromkeys(portion)
        for shard in read_shards(path):
            for i in shard:
                missing.pop(i, None)
            if not missing:
                break
        yield from missing


def covers(path: Path, groups: Iterable[Iterable[str]]) -> bool:
    """Whether a stored plan holds exactly these ids in this order: the usual case of a resumed run, told in one pass."""
    planned = (i for shard in read_shards(path) for i in shard)
    wanted = (i for group in groups for i in group)
    return all(a == b for a, b in zip_longest(planned, wanted))


def cut(ids: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """Consecutive runs of ``size`` ids; the last may be shorter."""
    rest = iter(ids)
    while some := tuple(islice(rest, size)):
        yield some


class _Reader:
    """A pull parser for this one kind of document (other white space and more keys after the shards are fine)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def header(self) -> int:
        self._expect("{")
        batch = 0
        while True:
            key = self._value()
            self._expect(":")
            if key == "shards":
                break
            value = self._value()
            if key == "batch":
                batch = int(str(value))
            self._expect(",")
        self._expect("[")
        if batch < 1:
            raise ValueError("it says no batch size")
        return batch

    def shards(self) -> Iterator[tuple[str, ...]]:
        if self._peek() == "]":
            return
        while True:
            ids = self._value()
            if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
                raise ValueError("a shard is no list of item ids")
            yield tuple(ids)
            mark = self._peek()
            self._at += 1
            if mark == "]":
                break
            if mark != ",":
                raise ValueError(f"{mark!r} where a shard ends")
        if self._peek() not in ("}", ","):
            raise ValueError("it ends early")

    def _peek(self) -> str:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                raise ValueError("it ends early")

    def _expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise ValueError(f"{self._peek()!r} where {mark!r} is expected")
        self._at += 1

    def _value(self) -> object:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if end == len(self._text) and self._more():  # a number may go on
                continue
            self._at = end
            return value

    def _more(self) -> bool:
        more = self._stream.read(CHUNK)
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged batch plan ({error}). Delete the run folder, or restore it.")
