"""Run folders in object stores: a local staging folder, and the remote place that mirrors it (any fsspec URL).

Object stores cannot rename, and a program may die between any two requests. So a file is stored as two objects: first its
bytes, under a name that holds their hash (``shard-00000-<hash>.parquet``), then a small JSON marker (``shard-00000.parquet.commit``)
that names the first one with its size and SHA-256. What has no marker, or a marker that does not fit, is not there. Replacing
a file writes a new object and then replaces the marker: at every moment the marker names bytes that are whole.

The work itself is done in the staging folder. ``push`` is called for every file that is finished; ``pull`` brings what others
stored, which is how a run goes on upon another machine. Beside every file the staging folder remembers the marker that it was
last equal to, so that ``pull`` tells what changed there from what is not stored there yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from mrbench.errors import UserError
from mrbench.store.files import write_atomic, write_text

MARKER = ".commit"
SEEN = ".mirrored"  # folder of the markers that the staging folder's files were last equal to
CACHE_VARIABLE = "MRBENCH_CACHE"
PENDING = "pending"
SUFFIXES = (".json", ".parquet", ".npz")
PICTURES = ".npz"
ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second attempt; doubles
AT_ONCE = 128  # markers per request
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:*?\[\]]")  # control characters, other systems' separators, patterns

T = TypeVar("T")


class RemoteError(UserError):
    """A remote place that cannot be reached, read or written."""


@dataclass(frozen=True)
class Mark:
    """The contents of a commit marker: the object beside it that holds the file's bytes, their number and SHA-256."""

    name: str
    size: int
    sha256: str

    def text(self) -> str:
        """As JSON."""
        return json.dumps({"name": self.name, "size": self.size, "sha256": self.sha256})

    @classmethod
    def parse(cls, text: bytes | str) -> Mark | None:
        """The marker, or ``None`` for one that is damaged, or that names anything but a plain file beside it."""
        try:
            document = json.loads(text)
            mark = cls(str(document["name"]), int(document["size"]), str(document["sha256"]))
        except (ValueError, KeyError, TypeError):
            return None
        return mark if _safe(mark.name) and "/" not in mark.name else None

    def fits(self, data: bytes) -> bool:
        """Whether these are the bytes that were stored."""
        return len(data) == self.size and hashlib.sha256(data).hexdigest() == self.sha256


def is_url(text: str) -> bool:
    """Whether a place is given as URL (``s3://bucket/runs``), not as a path."""
    return bool(_URL.match(text))


def staging_folder(url: str) -> Path:
    """Where the runs of a URL are mirrored on this machine: in the folder ``remote`` of the cache (``$MRBENCH_CACHE``)."""
    root = os.environ.get(CACHE_VARIABLE)
    if root:
        cache = Path(root).expanduser().resolve()
    else:
        from platformdirs import user_cache_path

        cache = user_cache_path("mrbench", appauthor=False)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-40:]
    return cache / "remote" / f"{slug}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


class Mirror:
    """A staging folder and the URL that mirrors it. May be pickled: each process opens the file system for itself.

    Parameters
    ----------
    url : of the folder that holds the run folders, in any file system that fsspec knows.
    local : the staging folder (default: :func:`staging_folder`).

    Raises
    ------
    UserError : an unknown scheme, or a file system whose driver package is not installed (with the command that installs it).
    """

    def __init__(self, url: str, local: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._opened: tuple[Any, str] | None = None
        system, root = self._open()
        if "file" in system.protocol:  # relative paths begin in this folder, wherever the next call is made
            self.url = f"file://{root}"
        self.local = staging_folder(self.url) if local is None else local

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "local": self.local, "_opened": None}

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            from fsspec.core import url_to_fs

            scheme = self.url.partition("://")[0]
            if "::" in self.url:
                raise UserError(f"{self.url}: chained URLs are not supported. Give a single one, such as s3://bucket/runs.")
            try:
                system, root = url_to_fs(self.url)
            except ImportError as error:
                package = PACKAGES.get(scheme) or _package(scheme)
                raise UserError(
                    f"{self.url}: {scheme}:// needs the package {package}: pip install {package} ({error})"
                ) from error
            except ValueError as error:
                raise UserError(
                    f"{self.url}: the scheme {scheme}:// is not known ({error}). Known are, for example, s3://, gs://, abfs:// and file://."
                ) from None
            except Exception as error:
                raise RemoteError(f"{self.url}: cannot be opened ({_text(error)}).") from error
            self._opened = system, root.rstrip("/")
        return self._opened

    # -- writing -----------------------------------------------------------------------------------------------
    def push(self, path: Path) -> None:
        """Store a file of the staging folder, unless the very same bytes are stored (as far as this machine knows).

        Raises
        ------
        RemoteError : it could not be written; nothing is half there, and the next run stores it.
        """
        key = self._key(path)
        data = path.read_bytes()
        before = self._seen(key)
        if before is not None and before.fits(data):
            return
        digest = hashlib.sha256(data).hexdigest()
        mark = Mark(f"{path.stem}-{digest[:16]}{path.suffix}", len(data), digest)
        self._write(_beside(key, mark.name), data)
        write_text(self._seen_file(key), PENDING)
        self._write(key + MARKER, mark.text().encode())
        self._remember(key, mark)
        if before is not None and before.name != mark.name:
            self._remove(_beside(key, before.name))

    def push_below(self, folder: Path) -> None:
        """Store whatever below a folder is not stored yet: what an earlier call could not."""
        if folder.is_dir():
            for path in sorted(folder.rglob("*")):
                if path.suffix in SUFFIXES and path.is_file() and not _hidden(path.relative_to(self.local)):
                    self.push(path)

    def forget(self, path: Path) -> None:
        """Remove a file that the staging folder does not have any more. Marker first: without it, the file is not there."""
        key = self._key(path)
        before = self._seen(key)
        if before is None:
            return
        self._remove(key + MARKER)
        self._remove(_beside(key, before.name))
        self._seen_file(key).unlink(missing_ok=True)

    # -- reading -----------------------------------------------------------------------------------------------
    def pull(self, below: Path | None = None, images: bool = True) -> list[str]:
        """Bring the staging folder up to date with what is stored; returns notes on what is damaged there.

        Files that changed there since the last call replace those here, and files that are gone there are removed here. What is
        here and was never stored stays.

        Parameters
        ----------
        below : only this folder of the staging folder. images : also restored images and ground truth.

        Raises
        ------
        RemoteError : the place cannot be read, or names files outside of itself.
        """
        prefix = "" if below is None or below == self.local else self._key(below)
        keys = [k.removesuffix(MARKER) for k in self._list(prefix)]
        notes = self._fetch([k for k in keys if images or not k.endswith(PICTURES)])
        there = set(keys)
        for key in list(self._known(prefix)):
            if key not in there:
                self._place(key).unlink(missing_ok=True)
                self._seen_file(key).unlink(missing_ok=True)
        return notes

    def pull_files(self, paths: Sequence[Path]) -> list[str]:
        """The same for a few files whose names are known, without listing the place. Those that are not stored stay as they are."""
        return self._fetch([self._key(p) for p in paths])

    def _fetch(self, keys: Sequence[str]) -> list[str]:
        notes: list[str] = []
        for key, mark in self._marks(keys):
            path = self._place(key)
            if mark is None:  # was being written when its writer died: what is here, if anything, is stored again
                notes.append(f"{self.url}/{key}{MARKER}: damaged, so the file is taken for absent")
                self._seen_file(key).unlink(missing_ok=True)
                continue
            if path.is_file() and (self._seen(key) == mark or self._pending(key)):
                continue
            data = self._read(_beside(key, mark.name))
            if data is None or not mark.fits(data):
                notes.append(f"{self.url}/{_beside(key, mark.name)}: absent or damaged, so the file is taken for absent")
                self._seen_file(key).unlink(missing_ok=True)
                continue
            _write(path, data)
            self._remember(key, mark)
        return notes

    def _marks(self, keys: Sequence[str]) -> Iterator[tuple[str, Mark | None]]:
        system, root = self._open()
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            paths = {f"{root}/{k}{MARKER}": k for k in some}
            found = self._try(lambda paths=paths: system.cat(list(paths), on_error="return"), "read")  # type: ignore[misc]
            for path, key in paths.items():
                data = found.get(path)
                if isinstance(data, FileNotFoundError):
                    continue
                if isinstance(data, Exception):
                    raise RemoteError(f"{self.url}/{key}{MARKER}: cannot be read ({_text(data)}).") from data
                yield key, Mark.parse(data) if data is not None else None

    def _list(self, prefix: str) -> list[str]:
        """Names of all objects below ``prefix``, relative to the URL; refuses those that lead elsewhere."""
        system, root = self._open()
        start = f"{root}/{prefix}" if prefix else root

        def find() -> list[str]:
            system.invalidate_cache()
            try:
                return list(system.find(start))
            except FileNotFoundError:
                return []

        names = []
        for name in self._try(find, "listed"):
            if not name.startswith(f"{root}/"):
                raise RemoteError(f"{self.url}: lists {name!r}, which is not below it. Nothing was read.")
            key = name[len(root) + 1 :]
            if not key.endswith(MARKER) or _hidden(PurePosixPath(key)):
                continue
            self._place(key.removesuffix(MARKER))
            names.append(key)
        return sorted(names)

    # -- places ------------------------------------------------------------------------------------------------
    def _key(self, path: Path) -> str:
        key = path.relative_to(self.local).as_posix()
        if not all(map(_safe, PurePosixPath(key).parts)):
            raise RemoteError(
                f"{path}: this name cannot be stored at {self.url}: names may not begin with . or hold : * ? [ ] \\."
            )
        return key

    def _place(self, key: str) -> Path:
        """Where a remote name lies in the staging folder (``RemoteError`` if that is outside of it, or no file of a run)."""
        parts = PurePosixPath(key).parts
        if not key or key != "/".join(parts) or not all(map(_safe, parts)) or not key.endswith(SUFFIXES):
            raise RemoteError(f"{self.url}: holds the name {key!r}, which is no file of a run. Nothing was read.")
        path = self.local.joinpath(*parts)
        if not path.parent.resolve().is_relative_to(self.local.resolve()):
            raise RemoteError(f"{self.url}: the name {key!r} leads out of {self.local}. Nothing was read.")
        return path

    def _seen_file(self, key: str) -> Path:
        return self.local / SEEN / f"{key}{MARKER}"

    def _seen(self, key: str) -> Mark | None:
        try:
            return Mark.parse(self._seen_file(key).read_bytes())
        except FileNotFoundError:
            return None

    def _pending(self, key: str) -> bool:
        """Whether the marker was being replaced when something broke: what is here is newer than what is there."""
        try:
            return self._seen_file(key).read_text(encoding="utf-8") == PENDING
        except FileNotFoundError:
            return False

    def _remember(self, key: str, mark: Mark) -> None:
        write_text(self._seen_file(key), mark.text())

    def _known(self, prefix: str) -> Iterator[str]:
        root = self.local / SEEN
        for path in (root / prefix).rglob(f"*{MARKER}") if (root / prefix).is_dir() else ():
            key = path.relative_to(root).as_posix().removesuffix(MARKER)
            if self._seen(key) is not None:
                yield key

    # -- requests ----------------------------------------------------------------------------------------------
    def _write(self, key: str, data: bytes) -> None:
        system, root = self._open()
        path = f"{root}/{key}"

        def write() -> None:
            try:
                system.pipe_file(path, data)
            except FileNotFoundError:  # file systems with real folders
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, data)

        self._try(write, "written", f"What was finished is in {self.local}; the same command stores it once this is mended.")

    def _read(self, key: str) -> bytes | None:
        system, root = self._open()

        def read() -> bytes | None:
            try:
                data: bytes = system.cat_file(f"{root}/{key}")
                return data
            except FileNotFoundError:
                return None

        return self._try(read, "read")

    def _remove(self, key: str) -> None:
        """What cannot be removed only takes room: nothing refers to it."""
        system, root = self._open()
        with contextlib.suppress(Exception):
            system.rm_file(f"{root}/{key}")

    def _try(self, action: Callable[[], T], done: str, hint: str = "") -> T:
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except Exception as error:  # drivers raise errors of their own libraries
                final = isinstance(error, (PermissionError, NotImplementedError)) or attempt == ATTEMPTS - 1
                if final:
                    raise RemoteError(f"{self.url}: could not be {done} ({_text(error)}). {hint}".rstrip()) from error
                time.sleep(PAUSE * 2**attempt)
        raise AssertionError("unreachable")


def _write(path: Path, data: bytes) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(data)

    write_atomic(path, write)


def _beside(key: str, name: str) -> str:
    folder = key.rpartition("/")[0]
    return f"{folder}/{name}" if folder else name


def _safe(part: str) -> bool:
    return bool(part) and not part.startswith(".") and not _UNSAFE.search(part)


def _hidden(path: PurePath) -> bool:
    return any(p.startswith(".") and p not in (".", "..") for p in path.parts)


def _package(scheme: str) -> str:
    """The driver package of a scheme, from fsspec's own list (``s3fs.S3FileSystem``)."""
    from fsspec.registry import known_implementations

    return str(known_implementations.get(scheme, {}).get("class", scheme)).partition(".")[0]


def _text(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
