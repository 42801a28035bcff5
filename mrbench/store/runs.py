"""Run folders: ``OUT/<data set>/<protocol>/<label>-<key>/``.

Layout of a run folder::

    manifest.json           what was run (mrbench.store.manifest)
    plan.json               the stored batch plan: shards of item ids
    rows/shard-00000.parquet    the rows of one shard (mrbench.store.rows)
    rows/skipped.parquet        rows of sources that could not be used
    images/shard-00000.npz      restored images of that shard, if stored (mrbench.store.images)
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from mrbench.errors import UserError
from mrbench.store.files import TEMPORARY, remove_leftovers, write_atomic, write_json
from mrbench.store.images import image_file, truth_file
from mrbench.store.manifest import MANIFEST, Manifest, read_manifest
from mrbench.store.plan import PLAN as PLAN
from mrbench.store.plan import covers, cut, read_batch, read_shards, unplanned, write_plan
from mrbench.store.rows import to_table

if TYPE_CHECKING:
    import pandas as pd

    from mrbench.store.remote import Mirror

ROWS = "rows"
SKIPPED = "skipped.parquet"
LOCKS = ".locks"
LEFTOVER_AGE = 24 * 3600.0


@dataclass(frozen=True)
class Shard:
    """A fixed group of items that is computed and stored together, ``batch`` at a time."""

    number: int
    items: tuple[str, ...]


class CorruptPart(UserError):
    """A Parquet part that cannot be read."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path}: damaged rows ({reason}). Call the same `mrbench run` again: it recomputes this shard.")


class RunFolder:
    """One run folder on disk. Several processes may work in it at once: shards are claimed with file locks.

    mirror : the remote place that gets everything which is written here (``path`` then lies in its staging folder).
    """

    def __init__(self, path: Path, mirror: Mirror | None = None) -> None:
        self.path = path
        self.mirror = mirror

    def _pushed(self, path: Path) -> None:
        if self.mirror is not None:
            self.mirror.push(path)

    # -- manifest ----------------------------------------------------------------------------------------------
    def manifest(self) -> Manifest:
        """Read the manifest (``UserError`` if this is not a run folder)."""
        return read_manifest(self.path)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest atomically."""
        write_json(self.path / MANIFEST, manifest.model_dump(mode="json"))
        self._pushed(self.path / MANIFEST)

    # -- plan --------------------------------------------------------------------------------------------------
    def plan(self) -> tuple[int, list[Shard]]:
        """The stored batch size and shards; ``(0, [])`` where there is no plan yet (``UserError`` for a damaged one)."""
        return read_batch(self.path / PLAN), list(self.shards())

    def shards(self) -> Iterator[Shard]:
        """The stored shards in order, one in memory at a time."""
        for number, ids in enumerate(read_shards(self.path / PLAN)):
            yield Shard(number, ids)

    def extend_plan(self, batch: int, groups: Iterable[Iterable[str]]) -> tuple[int, list[Shard]]:
        """Plan items that no stored shard holds: each group (items of one size) is cut into shards of ``batch``.

        The stored batch size wins over ``batch`` once there is a plan, so that a resumed run forms the same batches.
        """
        again = [list(group) for group in groups]
        return self.plan_items(batch, lambda: again), list(self.shards())

    def plan_items(self, batch: int, groups: Callable[[], Iterable[Iterable[str]]]) -> int:
        """The same in constant memory, for any number of items; returns the batch size. :meth:`shards` reads the plan.

        Parameters
        ----------
        groups : gives the groups of item ids; may be called twice.
        """
        path = self.path / PLAN
        with self._lock("plan", timeout=60):
            stored = read_batch(path)
            size = stored or batch
            if not stored or not covers(path, groups()):
                fresh = unplanned(path, groups()) if stored else groups()
                write_plan(path, size, chain(read_shards(path), (s for group in fresh for s in cut(group, size))))
        self._pushed(path)
        return size

    # -- rows --------------------------------------------------------------------------------------------------
    def part(self, shard: int) -> Path:
        """Path of a shard's Parquet part."""
        return self.path / ROWS / f"shard-{shard:05d}.parquet"

    def write_part(
        self, shard: int, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], signatures: Mapping[str, str]
    ) -> None:
        """Store the rows of a shard atomically, replacing earlier ones of the same shard."""
        table = to_table(rows, metrics, signatures)
        write_atomic(self.part(shard), lambda stream: pq.write_table(table, stream))
        if self.mirror is not None:
            self._push_part(self.mirror, shard, rows)

    def _push_part(self, mirror: Mirror, shard: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Images first, rows last: rows that are there have their images."""
        truths = {truth_file(self.path, r["protocol_hash"], r["item_hash"]) for r in rows if r.get("item_hash")}
        for path in (*sorted(truths), image_file(self.path, shard), self.part(shard)):
            if path.is_file():
                mirror.push(path)

    def write_skipped(self, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], signatures: Mapping[str, str]) -> None:
        """Store the rows of sources that could not be used (none: remove them)."""
        path = self.path / ROWS / SKIPPED
        if rows:
            table = to_table(rows, metrics, signatures)
            write_atomic(path, lambda stream: pq.write_table(table, stream))
            self._pushed(path)
        else:
            path.unlink(missing_ok=True)
            if self.mirror is not None:
                self.mirror.forget(path)

    def read_part(self, shard: int) -> pa.Table | None:
        """The stored rows of a shard, or ``None``. Raises ``CorruptPart`` for a damaged file."""
        return _read(self.part(shard))

    def statuses(self) -> Iterator[tuple[str, str, str]]:
        """``(item id, status, error)`` of every stored row, one part in memory at a time."""
        for path in self.parts():
            table = _read(path, ["item_id", "status", "error"])
            if table is not None:
                yield from zip(*(table.column(c).to_pylist() for c in ("item_id", "status", "error")), strict=True)

    def set_aside(self, part: Path) -> Path:
        """Rename a damaged part, so that its shard is computed again and nothing is lost."""
        stem, number = f"{part.name}.damaged-{int(time.time())}", 0
        while (target := part.with_name(f"{stem}-{number}" if number else stem)).exists():  # clocks may go back
            number += 1
        os.replace(part, target)
        return target

    def parts(self) -> list[Path]:
        """All parts, by shard number."""
        skipped = self.path / ROWS / SKIPPED
        return sorted((self.path / ROWS).glob("shard-*.parquet")) + ([skipped] if skipped.is_file() else [])

    def rows(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """All stored rows in shard order. Raises ``CorruptPart`` for a damaged file."""
        wanted = list(columns) if columns is not None else None
        tables = [t for p in self.parts() if (t := _read(p, wanted)) is not None]
        if not tables:
            import pandas as pd

            return pd.DataFrame(columns=wanted)
        frame: pd.DataFrame = pa.concat_tables(tables, promote_options="default").to_pandas()
        return frame

    # -- several processes -------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def claim(self, shard: int) -> Iterator[bool]:
        """Try to claim a shard; yields whether this process has it. A claim ends with the process that holds it."""
        lock = self._lock(f"shard-{shard:05d}", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextlib.contextmanager
    def committing(self, shard: int, timeout: float) -> Iterator[None]:
        """Hold a shard's rows while looking whether they are there and writing them.

        Raises
        ------
        filelock.Timeout : another process held them for more than ``timeout`` seconds.
        """
        with self._lock(f"commit-{shard:05d}", timeout=timeout):
            yield

    def clean(self) -> None:
        """Remove temporary files of processes that were killed more than a day ago."""
        for folder in (self.path, self.path / ROWS, self.path / "images"):
            if folder.is_dir():
                remove_leftovers(folder, time.time() - LEFTOVER_AGE)

    def _lock(self, name: str, timeout: float) -> FileLock:
        folder = self.path / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock", timeout=timeout)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    try:
        with path.open("rb") as stream:
            file = pq.ParquetFile(stream)
            present = [c for c in columns if c in file.schema_arrow.names] if columns is not None else None
            return file.read(columns=present)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        raise CorruptPart(path, str(error).splitlines()[0]) from None


@dataclass
class RunData:
    """A run as reports read it: folder, manifest and rows."""

    folder: Path
    manifest: Manifest
    rows: pd.DataFrame

    @property
    def label(self) -> str:
        """The entry's label."""
        return self.manifest.method.label


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders among ``paths`` and below them, each once, in a stable order.

    Raises
    ------
    UserError : a path does not exist, or there is no run folder in it.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder. Give run folders, or a folder that holds some (default: runs/).")
        if (path / MANIFEST).is_file():
            below = [path]
        else:
            below = sorted(m.parent for m in path.rglob(MANIFEST) if not any(p.startswith(TEMPORARY) for p in m.parts))
        if not below:
            raise UserError(
                f"{path}: holds no run folder. Make one with `mrbench run --method bicubic --dataset sample --scale 4`."
            )
        found += [b for b in below if b.resolve() not in {f.resolve() for f in found}]
    return found


def load_run(folder: Path, fixed: Sequence[str] | None = None) -> RunData:
    """Read one run folder. ``fixed``: of the columns that all rows have only these, which is faster; metric columns come all."""
    run = RunFolder(folder)
    manifest = run.manifest()
    return RunData(folder, manifest, run.rows(None if fixed is None else [*fixed, *manifest.columns]))


def load_runs(paths: Iterable[Path], fixed: Sequence[str] | None = None) -> list[RunData]:
    """Read all run folders among ``paths`` and below them (see :func:`load_run`)."""
    return [load_run(folder, fixed) for folder in find_runs(paths)]
