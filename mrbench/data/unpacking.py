"""Unpacking archives that nobody has looked at: nothing leaves the folder, nothing but plain files is made, sizes are limited."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mrbench.errors import DataError, UserError

#: Called as ``report(bytes of the archive that are read, its bytes in all)``.
Report = Callable[[int, int | None], None]

MOST_FILES = 1_000_000
ROOM = 64 << 20  # bytes that stay free on the disk

_BLOCK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile)
_OPENERS: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def unpack(archive: Path, folder: Path, limit_bytes: int, report: Report | None = None) -> list[Path]:
    """Unpack a zip or tar archive (plain, .gz, .xz, .bz2; told by its first bytes) into a folder.

    Every file appears when it is complete; files of the same name are replaced. Owners, times and modes are not taken over.

    Parameters
    ----------
    folder : is made if it is not there.
    limit_bytes : what all files together may have at most, as they come out.
    report : called with the bytes of the archive that are read, and its bytes in all.

    Returns
    -------
    The files, in the order of the archive.

    Raises
    ------
    DataError : not such an archive, damaged, encrypted, with names that lead out of the folder or stand twice, with links or
        devices, with more bytes than ``limit_bytes``, or with more than a million entries. Files that came before stay.
    UserError : there is no such archive, or no room on the disk.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: there is no such file to unpack.")
    folder.mkdir(parents=True, exist_ok=True)
    taker = _Taker(archive, folder.resolve(), limit_bytes)
    try:
        with archive.open("rb") as stream:
            head = stream.read(8)
            stream.seek(0)
            members = _zip(stream, taker) if head.startswith(_ZIP) else _tar(stream, head, taker)
            for name, content in members:
                taker.take(name, content)
                if report is not None:
                    report(stream.tell(), archive.stat().st_size)
    except _DAMAGED as error:
        raise DataError(archive, f"the archive is damaged or none: {error}.", "Delete it and get it again.") from error
    if report is not None:
        report(archive.stat().st_size, archive.stat().st_size)
    return taker.files


@dataclass
class _Taker:
    """Writes members into the folder and keeps count."""

    archive: Path
    root: Path  # resolved
    limit: int
    entries: int = 0
    written: int = 0
    files: list[Path] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def refuse(self, name: str, reason: str) -> DataError:
        """The error that names a member."""
        return DataError(self.archive, f"its entry {name!r} {reason}.", "Nothing more is unpacked from it.")

    def count(self) -> None:
        """One more entry."""
        self.entries += 1
        if self.entries > MOST_FILES:
            raise DataError(self.archive, f"it has more than {MOST_FILES} entries.", "Nothing more is unpacked from it.")

    def declared(self, size: int) -> None:
        """Refuse before writing what would be too much, or has no room."""
        self._check(size)
        free = shutil.disk_usage(self.root).free
        if free < size + ROOM:
            raise UserError(
                f"{self.root}: the disk is full ({size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free). Make room, or "
                "choose another folder."
            )

    def _check(self, more: int) -> None:
        if self.written + more > self.limit:
            raise DataError(
                self.archive, f"it holds more than {self.limit} bytes, which is more than expected.",
                "Nothing more is unpacked from it.",
            )  # fmt: skip

    def take(self, name: str, content: IO[bytes]) -> None:
        """Write one member."""
        path = self._place(name)
        temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as out:
                while block := content.read(_BLOCK):
                    self._check(len(block))
                    self.written += len(block)
                    out.write(block)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.files.append(path)

    def _place(self, name: str) -> Path:
        """Where a member goes."""
        relative = PurePosixPath(name)
        parts = relative.parts
        outside = relative.is_absolute() or ".." in parts or "\\" in name or (bool(parts) and ":" in parts[0])
        if outside or not parts or not name.isprintable():
            raise self.refuse(name, "has a name that leads out of the folder, or none")
        if str(relative) in self.seen:
            raise self.refuse(name, "stands there twice")
        self.seen.add(str(relative))
        path = self.root.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise self.refuse(name, "wants a folder where there is a file") from None
        if not path.parent.resolve().is_relative_to(self.root) or path.is_dir():  # through a link that was in the folder before
            raise self.refuse(name, "would be written through a link, or over a folder")
        return path


def _zip(stream: IO[bytes], taker: _Taker) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(stream) as archive:
        taker.declared(sum(info.file_size for info in archive.infolist()))
        for info in archive.infolist():
            taker.count()
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise taker.refuse(info.filename, "is a link or device")
            if info.flag_bits & 1:
                raise taker.refuse(info.filename, "is encrypted")
            try:
                with archive.open(info) as content:
                    yield info.filename, content
            except NotImplementedError as error:
                raise taker.refuse(info.filename, f"is compressed in an unknown way ({error})") from error


def _tar(stream: IO[bytes], head: bytes, taker: _Taker) -> Iterator[tuple[str, IO[bytes]]]:
    with contextlib.ExitStack() as stack:
        opener = next((make for magic, make in _OPENERS if head.startswith(magic)), None)
        if opener is None:
            _check_end(stream)
        plain = stack.enter_context(opener(stream)) if opener is not None else stream
        archive = stack.enter_context(tarfile.open(fileobj=plain, mode="r|"))
        for member in archive:
            taker.count()
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise taker.refuse(member.name, "is a link or device")
            taker.declared(member.size)
            content = archive.extractfile(member)
            if content is None:
                raise taker.refuse(member.name, "is no plain file")
            yield member.name, content


def _check_end(stream: IO[bytes]) -> None:
    """A plain tar ends in blocks of zeros; one cut between two entries is not noticed otherwise."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - tarfile.BLOCKSIZE))
    end = stream.read()
    stream.seek(0)
    if size % tarfile.BLOCKSIZE or any(end):
        raise tarfile.ReadError("it is no zip or tar archive, or it ends early")
