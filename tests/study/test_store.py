"""Ratings survive kills: what was acknowledged is on the disk, what was torn is named, what is damaged is refused."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mrbench.errors import UserError
from mrbench.study import store
from mrbench.study.records import Study, read_study
from mrbench.study.store import RatingLog, StudyFull, rating_path, read_ratings, reader_key, reader_name


@pytest.fixture
def record(study: Path) -> Study:
    return read_study(study)


def begin(study: Path, name: str = "Anna") -> RatingLog:
    log = RatingLog(study, read_study(study), name)
    log.begin()
    return log


def test_every_rating_is_a_line_that_was_flushed(study: Path, record: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    log = begin(study)
    trial = record.trials[0]
    sizes = []
    path = rating_path(study, "Anna")
    monkeypatch.setattr("os.fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    log.add(trial.id, trial.images[0], "contrast", 4)
    assert sizes == [path.stat().st_size]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["reader"] == "Anna"
    assert {k: lines[1][k] for k in ("trial", "image", "criterion", "value")} == {
        "trial": trial.id, "image": trial.images[0], "criterion": "contrast", "value": 4,
    }  # fmt: skip


def test_the_last_rating_counts_and_changes_are_counted(study: Path, record: Study) -> None:
    log = begin(study)
    trial = record.trials[0]
    for value in (4, 4, 2):
        log.add(trial.id, trial.images[0], "contrast", value)
    found = read_ratings(rating_path(study, "Anna"), record)
    assert found.latest[trial.images[0], "contrast"].value == 2
    assert (found.changed, found.lines) == (1, 4)
    assert RatingLog(study, record, " ANNA ").ratings() == {(trial.images[0], "contrast"): 2}


def test_an_unfinished_last_line_is_named_and_does_not_count(study: Path, record: Study) -> None:
    log = begin(study)
    one, two, three = record.trials[:3]
    log.add(one.id, one.images[0], "contrast", 4)
    log.add(two.id, two.images[0], "contrast", 5)
    path = rating_path(study, "Anna")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])  # killed while it wrote
    found = read_ratings(path, record)
    assert list(found.latest) == [(one.images[0], "contrast")]
    assert found.torn == [3]
    assert "line 3 was not finished" in found.warnings[0]
    # the next process goes on behind it, and what was torn stays named
    again = RatingLog(study, record, "Anna")
    again.add(three.id, three.images[0], "contrast", 1)
    found = read_ratings(path, record)
    assert set(found.latest) == {(one.images[0], "contrast"), (three.images[0], "contrast")}
    assert found.torn == [3]
    assert path.read_bytes().startswith(whole[:-20] + b"\n")  # nothing was rewritten
    path.write_bytes(path.read_bytes()[:-5])  # and killed once more
    RatingLog(study, record, "Anna").add(two.id, two.images[0], "contrast", 2)
    found = read_ratings(path, record)
    assert found.torn == [3, 5]
    assert found.latest[two.images[0], "contrast"].value == 2


def test_a_line_without_its_end_does_not_count_even_if_it_reads(study: Path, record: Study) -> None:
    log = begin(study)
    trial = record.trials[0]
    log.add(trial.id, trial.images[0], "contrast", 4)
    path = rating_path(study, "Anna")
    path.write_bytes(path.read_bytes()[:-1])  # nobody was told that it is saved
    assert read_ratings(path, record).torn == [2]
    RatingLog(study, record, "Anna").add(trial.id, trial.images[0], "contrast", 3)
    found = read_ratings(path, record)
    assert (found.torn, found.latest[trial.images[0], "contrast"].value, found.changed) == ([2], 3, 0)


def test_other_damage_is_refused(study: Path, record: Study) -> None:
    log = begin(study)
    for trial in record.trials[:3]:
        log.add(trial.id, trial.images[0], "contrast", 4)
    path = rating_path(study, "Anna")
    lines = path.read_bytes().splitlines(keepends=True)
    for bad, message in (
        ([lines[0], lines[1][:30] + b"\n", *lines[2:]], "line 2 is damaged, and not by an interrupted write"),
        ([lines[0], lines[1].replace(b'"value": 4', b'"value": 9'), *lines[2:]], "line 2: 9 is no rating"),
        ([lines[0], lines[1].replace(b'"value": 4', b'"value": true'), *lines[2:]], "True is no rating"),
        ([lines[0], lines[1].replace(b"contrast", b"colour"), *lines[2:]], "no criterion 'colour'"),
        ([lines[0], lines[1].replace(record.trials[0].images[0].encode(), b"nothing"), *lines[2:]], "no image 'nothing'"),
        ([lines[0].replace(record.id.encode(), b"other"), *lines[1:]], "not a file of ratings of this study"),
        ([b""], "not a file of ratings"),
    ):
        path.write_bytes(b"".join(bad))
        with pytest.raises(UserError, match=message):
            read_ratings(path, record)


def test_a_full_disk_is_an_error_and_the_rating_does_not_count(
    study: Path, record: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = begin(study)
    trial = record.trials[0]
    real = os.write

    def half(handle: int, data: bytes) -> int:
        if len(data) > 60:
            return real(handle, data[:25])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        log.add(trial.id, trial.images[0], "contrast", 4)
    assert log.ratings() == {}
    monkeypatch.setattr(store.os, "write", real)
    log.add(trial.id, trial.images[0], "contrast", 3)  # in the same process, after the torn line
    found = read_ratings(rating_path(study, "Anna"), record)
    assert (found.torn, found.latest[trial.images[0], "contrast"].value) == ([2], 3)


def test_ratings_that_do_not_belong_are_refused(study: Path, record: Study) -> None:
    log = begin(study)
    one, two = record.trials[:2]
    for trial, image, criterion, value, message in (
        (one.id, two.images[0], "contrast", 4, "no image"),
        (one.id, one.images[0], "colour", 4, "no criterion"),
        (one.id, one.images[0], "contrast", 0, "from 1 to 5"),
        (one.id, one.images[0], "contrast", 6, "from 1 to 5"),
        (one.id, one.images[0], "contrast", True, "no rating"),
    ):
        with pytest.raises(UserError, match=message):
            log.add(trial, image, criterion, value)
    assert len(rating_path(study, "Anna").read_text().splitlines()) == 1
    with pytest.raises(UserError, match="has not begun"):
        RatingLog(study, record, "Ben").add(one.id, one.images[0], "contrast", 4)


def test_many_threads_write_whole_lines(study: Path, record: Study) -> None:
    log = begin(study)

    def work(number: int) -> None:
        for trial in record.trials:
            for image in trial.images:
                log.add(trial.id, image, "contrast", number % 5 + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = read_ratings(rating_path(study, "Anna"), record)
    assert found.lines == 1 + 8 * record.rated
    assert len(found.latest) == record.rated


def test_limits(study: Path, record: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    log = begin(study)
    monkeypatch.setattr(store, "MOST_READERS", 1)
    with pytest.raises(StudyFull, match="takes no more"):
        begin(study, "Ben")
    monkeypatch.setattr(store, "MOST_CHANGES", 0)
    trial = record.trials[0]
    for _ in range(100):
        log.add(trial.id, trial.images[0], "contrast", 4)
    with pytest.raises(StudyFull, match="changed too often"):
        log.add(trial.id, trial.images[0], "contrast", 4)
    assert len(rating_path(study, "Anna").read_text().splitlines()) == 101


def test_names() -> None:
    assert reader_name("  Anna   B. ") == "Anna B."
    assert reader_key("ANNA b.") == reader_key(" Anna  B. ")
    assert reader_key("Ann\u0061 \u00e9") == reader_key("Anna e\u0301")  # one letter, two spellings
    assert rating_path(Path("x"), "../../etc/passwd").parent == Path("x/ratings")
    for bad in ("", "   ", "x" * 61, "a\x00b", "a\u202eb"):
        with pytest.raises(UserError, match="name"):
            reader_name(bad)
