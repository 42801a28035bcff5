"""DICOM series from the Imaging Data Commons (IDC), which holds the public TCIA collections, through the package idc-index.

idc-index brings the list of all series with it, so choosing needs no network; the files come from public buckets without an
account (``IDCClient.sql_query`` and ``download_from_selection``; https://idc-index.readthedocs.io). A failed transfer only shows
in its log, so what has arrived is counted and weighed here, series by series.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from mrbench.data.download import ROOM, Report, refuse_offline
from mrbench.errors import UserError

TRIES = 3  # in a row that complete no series
LOCK = ".idc.lock"
TABLE = "series.csv"

_AT_ONCE = 32  # series of one call, which come in parallel; every call looks through the whole list of the IDC for seconds
_EXACT = 5_000  # bytes by which a series may differ from the list, whose sizes are megabytes with a few decimals
_TEMPLATE = "%PatientID/%SeriesInstanceUID"


class Client(Protocol):
    """What is used of ``idc_index.IDCClient``."""

    def sql_query(self, sql_query: str) -> Any:
        """A pandas table: the answer to DuckDB SQL over the table ``index`` (one row a series)."""

    def download_from_selection(
        self, downloadDir: str, *, seriesInstanceUID: list[str], dirTemplate: str, quiet: bool, show_progress_bar: bool
    ) -> None:
        """Download series below a folder."""


@dataclass(frozen=True)
class RemoteSeries:
    """A series of a collection: whose it is, number of files and their bytes, licence, and DOI of the source."""

    subject: str
    uid: str
    description: str
    files: int
    size: int
    licence: str
    source: str

    def size_below(self, target: Path) -> tuple[int, int]:
        """Number of its files below ``target``, and their bytes."""
        try:
            sizes = [entry.stat().st_size for entry in os.scandir(target / self.subject / self.uid) if entry.is_file()]
        except FileNotFoundError:  # not yet begun, or renamed this very moment
            return 0, 0
        return len(sizes), sum(sizes)

    def complete(self, target: Path) -> bool:
        """Whether all its files lie below ``target``, by number and size."""
        files, size = self.size_below(target)
        return files == self.files and abs(size - self.size) <= _EXACT


def installed() -> bool:
    """Whether the extra ``mrbench[idc]`` is there."""
    return importlib.util.find_spec("idc_index") is not None


def open_client() -> Client:
    """idc-index's client with its list of all series (some seconds; needs the extra ``mrbench[idc]``)."""
    client: Client = importlib.import_module("idc_index").IDCClient.client()
    return client


def list_series(client: Client, collection: str, modality: str) -> list[RemoteSeries]:
    """The original series (no results of others' analyses) of a collection and modality, by subject and UID.

    Raises
    ------
    UserError : there are none, so the collection has another name now.
    """
    table = client.sql_query(
        "SELECT PatientID, SeriesInstanceUID, COALESCE(SeriesDescription, '') AS description, instanceCount, series_size_MB, "
        "license_short_name, source_DOI FROM index "
        f"WHERE collection_id = '{collection}' AND Modality = '{modality}' AND analysis_result_id IS NULL "
        "ORDER BY PatientID, SeriesInstanceUID"
    )
    found = [
        RemoteSeries(
            str(row["PatientID"]), str(row["SeriesInstanceUID"]), str(row["description"]), int(row["instanceCount"]),
            round(float(row["series_size_MB"]) * 1e6), str(row["license_short_name"]), str(row["source_DOI"]),
        )
        for row in table.to_dict("records")
    ]  # fmt: skip
    odd = [s for s in found if any(Path(name).name != name for name in (s.subject, s.uid))]
    if odd:
        raise UserError(f"idc-index lists {odd[0].subject!r} in {collection}, which cannot be the name of a folder.")
    if not found:
        raise UserError(f"idc-index lists no {modality} series of the collection {collection}. It may have another name now.")
    return found


def download_series(client: Client, series: Sequence[RemoteSeries], target: Path, report: Report) -> None:
    """Download series to ``target/<PatientID>/<SeriesInstanceUID>/``, and list them in ``target/series.csv``.

    Series that are there in full are kept; one that was broken off comes anew. Calling it again goes on from there.

    Parameters
    ----------
    report : called with the bytes of complete series so far and in all.

    Raises
    ------
    UserError : downloads are forbidden (``MRBENCH_OFFLINE``), no room on the disk, another process is at it, or series that
        did not arrive (the others stay).
    """
    made = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target / LOCK, timeout=0):
            missing = [s for s in series if not s.complete(target)]
            if missing:
                refuse_offline(str(target), "put the series there yourself")
            _room(target, sum(s.size for s in missing))
            _write_table(target / TABLE, series)
            _fetch(client, missing, target, sum(s.size for s in series), report)
    except Timeout:
        raise UserError(f"{target}: another process is downloading to it. Wait for that one, or stop it.") from None
    except UserError:
        if made and [p.name for p in target.iterdir()] == [LOCK]:  # nothing came
            shutil.rmtree(target)
        raise


def _fetch(client: Client, missing: list[RemoteSeries], target: Path, total: int, report: Report) -> None:
    done = total - sum(s.size for s in missing)
    report(done, total)
    queue, barren, reason = list(missing), 0, ""
    while queue and barren < TRIES:
        batch, queue = queue[:_AT_ONCE], queue[_AT_ONCE:]
        for one in batch:  # files of a broken series may be cut off
            shutil.rmtree(target / one.subject / one.uid, ignore_errors=True)
        try:
            with _errors() as logged, _watched(batch, target, partial(_report_more, report, done, total)):
                client.download_from_selection(
                    str(target),
                    seriesInstanceUID=[s.uid for s in batch],
                    dirTemplate=_TEMPLATE,
                    quiet=True,
                    show_progress_bar=False,
                )
            reason = f" ({logged[0]})" if logged else reason
        except Exception as error:  # the package raises many kinds of errors
            reason = f" ({type(error).__name__}: {error})"
        complete = [s for s in batch if s.complete(target)]
        queue += [s for s in batch if s not in complete]  # again, after the others
        barren = 0 if complete else barren + 1
        done += sum(s.size for s in complete)
        report(done, total)
    if queue:
        first = queue[0]
        raise UserError(
            f"{len(queue)} series did not arrive in full{reason}, such as {first.uid} of {first.subject} "
            f"({first.files} files, {first.size / 1e6:.1f} MB). The others are kept: the same command goes on from there."
        )


def _report_more(report: Report, done: int, total: int, more: int) -> None:
    report(done + more, total)


@contextmanager
def _watched(batch: Sequence[RemoteSeries], target: Path, tell: Callable[[int], None]) -> Iterator[None]:
    """While the block runs, say every second how many bytes of the series have come."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            tell(sum(s.size_below(target)[1] for s in batch))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _errors() -> Iterator[list[str]]:
    """Keep the package's log from the terminal while the block runs; its errors, in one line each."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
            found.append(lines[1] if len(lines) > 1 else lines[0] if lines else "")  # the first one is only a heading

    logger, handler = logging.getLogger("idc_index"), Keep(logging.ERROR)
    spreads, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = spreads


def _room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed and free < needed + ROOM:
        raise UserError(
            f"{target}: {needed / 1e9:.1f} GB are to come, and {free / 1e9:.1f} GB are free. Make room, or choose another folder."
        )


def _write_table(file: Path, series: Sequence[RemoteSeries]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f.name for f in fields(RemoteSeries)])
    writer.writerows(astuple(s) for s in series)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, file)


__all__ = ["Client", "RemoteSeries", "download_series", "installed", "list_series", "open_client"]
