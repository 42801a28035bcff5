"""Ratings on disk: one append-only file per reader, a line per rating, each line flushed to disk before it counts.

A file begins with a header line; then every line is one rating, and the last one of an image and criterion counts. A process
that dies while it writes leaves an unfinished last line. It is named wherever the file is read, never mended: the next line
after it is a ``torn`` line that says which lines are unfinished.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrbench.errors import UserError
from mrbench.store.files import write_text
from mrbench.study.records import FORMAT, RATINGS, Study

LONGEST_NAME = 60
MOST_READERS = 200
MOST_CHANGES = 20  # lines per expected rating, beyond which a file is not a reader's any more


class StudyFull(UserError):
    """No room for another reader, or for more changes of one reader's ratings."""


@dataclass(frozen=True)
class Rating:
    """One line."""

    trial: str
    image: str
    criterion: str
    value: int
    time: str


@dataclass
class RatingFile:
    """What a reader's file says. ``latest``: (image, criterion) -> the rating that counts; ``torn``: unfinished lines."""

    path: Path
    reader: str
    lines: int = 0
    latest: dict[tuple[str, str], Rating] = field(default_factory=dict)
    changed: int = 0
    first: str = ""
    last: str = ""
    torn: list[int] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """Unfinished lines, in words."""
        if not self.torn:
            return []
        where = "line " + ", ".join(map(str, self.torn))
        return [f"{self.path}: {where} was not finished (the server was killed while it wrote) and does not count"]


def reader_name(text: str) -> str:
    """A reader's name as it is kept: one line, spaces collapsed.

    Raises
    ------
    UserError : empty, too long, or with characters that do not print.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise UserError("Give your name, or the initials that you were told to use.")
    if len(name) > LONGEST_NAME:
        raise UserError(f"This name has {len(name)} characters. Give at most {LONGEST_NAME}.")
    if not name.isprintable():
        raise UserError("This name holds characters that do not print. Give another.")
    return name


def reader_key(name: str) -> str:
    """What identifies a reader: the same for names that differ in capitals or spaces alone."""
    return hashlib.sha256(reader_name(name).casefold().encode()).hexdigest()[:16]


def rating_path(folder: Path, name: str) -> Path:
    """The file of a reader in a study folder."""
    return folder / RATINGS / f"{reader_key(name)}.jsonl"


def read_ratings(path: Path, study: Study) -> RatingFile:
    """Read a reader's file.

    Raises
    ------
    UserError : it belongs to another study, or holds a damaged line that no interrupted write explains.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    lines = data.split(b"\n")
    unfinished = lines.pop() != b""  # what stands behind the last line's end
    documents = [_parse(line) for line in lines] + ([None] if unfinished else [])
    header = documents[0] if documents else None
    if header is None or header.get("study") != study.id or not isinstance(header.get("reader"), str):
        raise UserError(
            f"{path}: is not a file of ratings of this study ({study.id}). Move it away, or restore it from a copy."
        )
    found = RatingFile(path, header["reader"], len(documents))
    told = {n for d in documents if d and isinstance(d.get("torn"), list) for n in d["torn"]}
    places = places_of(study)
    for number, document in enumerate(documents[1:], 2):
        if number in told or (unfinished and number == len(documents)):
            found.torn.append(number)
        elif document is None:
            raise UserError(
                f"{path}: line {number} is damaged, and not by an interrupted write. Restore the file from a copy, "
                "or delete the line: its rating is lost."
            )
        elif "torn" not in document:
            _take(found, _rating(document, study, places, f"{path}: line {number}: "))
    return found


def _take(found: RatingFile, rating: Rating) -> None:
    place = (rating.image, rating.criterion)
    before = found.latest.get(place)
    found.changed += before is not None and before.value != rating.value
    found.latest[place] = rating
    found.first = found.first or rating.time
    found.last = rating.time


class RatingLog:
    """The file of one reader, open for ratings. Safe for several threads of one process."""

    def __init__(self, folder: Path, study: Study, name: str) -> None:
        self._path = rating_path(folder, name)
        self._study = study
        self._places = places_of(study)
        self._lock = threading.Lock()
        self._found = read_ratings(self._path, study) if self._path.is_file() else None
        self.reader = self._found.reader if self._found else reader_name(name)

    @property
    def exists(self) -> bool:
        """Whether the reader has begun."""
        return self._found is not None

    def begin(self) -> None:
        """Make the file, if it is not there.

        Raises
        ------
        StudyFull : there are too many readers already.
        """
        with self._lock:
            if self._found is not None:
                return
            if len(list(self._path.parent.glob("*.jsonl"))) >= MOST_READERS:
                raise StudyFull(f"The study has {MOST_READERS} readers already and takes no more.")
            header = {"format": FORMAT, "study": self._study.id, "reader": self.reader, "time": _now()}
            write_text(self._path, json.dumps(header, ensure_ascii=False) + "\n")
            self._found = RatingFile(self._path, self.reader, 1)

    def ratings(self) -> dict[tuple[str, str], int]:
        """(image, criterion) -> the value that counts."""
        with self._lock:
            return {place: r.value for place, r in self._found.latest.items()} if self._found else {}

    def add(self, trial: str, image: str, criterion: str, value: int) -> None:
        """Write one rating, and return when it is on the disk.

        Raises
        ------
        UserError : it does not belong to the study, or the reader has not begun.
        StudyFull : the file has far more lines than a reader makes.
        OSError : the disk is full or gone; the rating does not count.
        """
        document = {"trial": trial, "image": image, "criterion": criterion, "value": value, "time": _now()}
        rating = _rating(document, self._study, self._places)
        with self._lock:
            if self._found is None:
                raise UserError("This reader has not begun. Open the page again and give your name.")
            if self._found.lines > 100 + MOST_CHANGES * self._study.expected:
                raise StudyFull("These ratings were changed too often; nothing more is written.")
            self._mend()
            _append(self._path, json.dumps(document, ensure_ascii=False).encode() + b"\n")
            self._found.lines += 1
            _take(self._found, rating)

    def _mend(self) -> None:
        """Where the file does not end with a line's end: end the line, and say on the next one which are unfinished."""
        assert self._found is not None
        with self._path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            if stream.tell() == 0:
                return
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) == b"\n":
                return
        again = read_ratings(self._path, self._study)
        self._found.torn = again.torn
        note = json.dumps({"torn": again.torn, "time": _now()}).encode()
        _append(self._path, b"\n" + note + b"\n")
        self._found.lines = again.lines + 1


def places_of(study: Study) -> set[tuple[str, str]]:
    """Every (trial, image) of a study."""
    return {(t.id, code) for t in study.trials for code in t.images}


def _append(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _rating(document: Mapping[str, Any], study: Study, places: set[tuple[str, str]], where: str = "") -> Rating:
    """A line as a rating (``UserError`` naming what is wrong)."""
    trial, image, criterion, value = (document.get(k) for k in ("trial", "image", "criterion", "value"))
    if not (isinstance(trial, str) and isinstance(image, str) and (trial, image) in places):
        raise UserError(f"{where}no image {image!r} in a trial {trial!r} of this study.")
    if criterion not in study.criteria:
        raise UserError(f"{where}no criterion {criterion!r}. Criteria: {', '.join(study.criteria)}.")
    low, high = study.scale
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{where}{value!r} is no rating. The scale goes from {low} to {high}.")
    return Rating(str(trial), str(image), str(criterion), value, str(document.get("time", "")))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
