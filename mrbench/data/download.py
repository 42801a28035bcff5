"""Downloading a file so that it can be broken off at any moment, goes on where it stopped, and is what it should be."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from functools import partial
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

import mrbench
from mrbench.data.unpacking import unpack
from mrbench.errors import DataError, UserError

__all__ = ["Report", "download", "refuse_offline", "unpack"]

#: Called as ``report(bytes so far, bytes in all)``; the second is ``None`` where the server does not say.
Report = Callable[[int, int | None], None]

OFFLINE_VARIABLES = ("MRBENCH_OFFLINE", "HF_HUB_OFFLINE")
STALL_SECONDS = 30.0  # without any data
TRIES = 5  # in a row that bring no new byte
WAIT_SECONDS = 1.0  # before the second try; doubled for each further one
ROOM = 64 << 20  # bytes that stay free on the disk

_BLOCK = 1 << 20
_ON = ("1", "true", "yes", "on")
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass(frozen=True)
class _Source:
    """What a partial file is a part of; ``validator``: strong ETag or date of change (empty: none was given)."""

    url: str
    validator: str = ""
    total: int | None = None


class _Broken(Exception):
    """The connection broke; what came is kept. ``wait``: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        self.wait = wait
        super().__init__(reason)


class _Restart(Exception):
    """What was kept does not belong to what the server has now: start from the first byte."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    report: Report | None = None,
) -> Path:
    """Download ``url`` to the file ``target``, which appears only when it is complete and checked.

    Until then the bytes are in ``target`` + ``.part``; the same call goes on from there if the server still has the same
    file (HTTP Range with If-Range). Broken connections are tried again as long as they bring anything. A target that exists
    and fits is kept without asking the server.

    Parameters
    ----------
    url : https (http for loopback addresses only; the same holds for redirections).
    target : the file to write; its folder is made.
    sha256, md5 : hex digests that the file must have. size : its bytes.
    report : called with the bytes so far and in all, after each block.

    Returns
    -------
    ``target``.

    Raises
    ------
    UserError : no such address, no connection, downloads are forbidden (``MRBENCH_OFFLINE``), no room on the disk, or
        another process is at it.
    DataError : the file is not the expected one (size or digest), or ``target`` exists and is not.
    """
    _check_url(url)
    check = _Check(sha256.lower() if sha256 else None, md5.lower() if md5 else None, size)
    if target.exists():
        return _kept(target, check, report)
    _refuse_offline(url, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            if not target.exists():
                _Transfer(url, target, check, report).run()
    except Timeout:
        raise UserError(f"{target}: another process is downloading it. Wait for that one, or stop it.") from None
    with contextlib.suppress(OSError):
        lock.unlink()
    return target


@dataclass(frozen=True)
class _Check:
    """What the complete file must be."""

    sha256: str | None
    md5: str | None
    size: int | None

    def fault(self, file: Path) -> str:
        """What is wrong with a complete file, or the empty string."""
        have = file.stat().st_size
        if self.size is not None and have != self.size:
            return f"it has {have} bytes, expected {self.size}."
        for name, wanted in (("sha256", self.sha256), ("md5", self.md5)):
            if wanted is None:
                continue
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
            if found != wanted:
                return f"its {name.upper()} is {found}, expected {wanted}."
        return ""


def _kept(target: Path, check: _Check, report: Report | None) -> Path:
    if not target.is_file():
        raise UserError(f"{target}: is a folder. Name the file to write.")
    fault = check.fault(target)
    if fault:
        raise DataError(target, f"it is there already, and is not the expected file: {fault}", "Move it away and start again.")
    if report is not None:
        report(target.stat().st_size, target.stat().st_size)
    return target


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_url(url: str, origin: str | None = None) -> None:
    """Refuse what is not https; http and loopback addresses only where the first address (``origin``) is such."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UserError(f"{url}: not an address ({error}).") from None
    local = _is_loopback(host)
    allowed = parts.scheme == "https" or (parts.scheme == "http" and local)
    if origin is not None and local and not _is_loopback(urllib.parse.urlsplit(origin).hostname):
        allowed = False
    if not host or not allowed:
        hop = f" (redirected from {origin})" if origin else ""
        raise UserError(f"{url}{hop}: files are downloaded over https only.")


def _refuse_offline(url: str, target: Path) -> None:
    if not _is_loopback(urllib.parse.urlsplit(url).hostname):
        refuse_offline(url, f"put the file at {target} yourself")


def refuse_offline(what: str, instead: str) -> None:
    """Refuse to download where an environment variable forbids it (``UserError``). ``instead``: what else can be done."""
    for variable in OFFLINE_VARIABLES:
        if os.environ.get(variable, "").strip().lower() in _ON:
            raise UserError(f"{what}: {variable} is set, so nothing is downloaded. Unset it, or {instead}.")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirections under the same rule as the first address."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follow, if allowed, with the headers of the first request (Range among them)."""
        _check_url(newurl, self.origin)
        return urllib.request.Request(newurl, headers=dict(req.headers), method="GET")


class _Transfer:
    """One file on its way."""

    def __init__(self, url: str, target: Path, check: _Check, report: Report | None) -> None:
        self.url, self.target, self.check, self.report = url, target, check, report
        self.part = target.with_name(f"{target.name}.part")
        self.notes = target.with_name(f"{target.name}.part.json")  # what the part is a part of
        handlers: list[urllib.request.BaseHandler] = [_Redirects(url)]
        if _is_loopback(urllib.parse.urlsplit(url).hostname):
            handlers.append(urllib.request.ProxyHandler({}))
        self.opener = urllib.request.build_opener(*handlers)

    def run(self) -> None:
        """Try until the file is complete; then check it and put it into place."""
        fruitless = 0
        while True:
            before = self._have()
            try:
                self._go_on()
                break
            except _Restart:
                self._forget()
                fruitless += 1
                reason, wait = "the file on the server changes all the time", 0.0
            except _Broken as error:
                fruitless = 0 if self._have() > before else fruitless + 1
                reason, wait = str(error), error.wait
            if fruitless >= TRIES:
                kept = f" {self._have()} bytes are kept: the same command goes on from there." if self._have() else ""
                raise UserError(f"{self.url}: cannot be downloaded: {reason}.{kept}")
            if fruitless:
                time.sleep(max(wait, WAIT_SECONDS * 2 ** (fruitless - 1)))
        fault = self.check.fault(self.part)
        if fault:
            self._forget()
            raise DataError(
                self.url, f"what came is not the expected file: {fault}",
                "It was thrown away. Start again; if this stays so, the file on the server has changed.",
            )  # fmt: skip
        os.replace(self.part, self.target)
        self.notes.unlink(missing_ok=True)

    # -- what is there -------------------------------------------------------------------------------------------
    def _have(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _source(self) -> _Source | None:
        """What the partial file is a part of; ``None`` where nothing is known or it is another file."""
        try:
            found = _Source(**json.loads(self.notes.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.url == self.url else None

    # -- one connection ------------------------------------------------------------------------------------------
    def _go_on(self) -> None:
        """Fetch what is missing over one connection."""
        known = self._source()
        have = self._have()
        if known is None or not (known.validator or self.check.sha256 or self.check.md5):
            self._forget()  # parts of different files would be mixed unnoticed
            known, have = None, 0
        if have and known is not None and have == known.total:
            return
        headers = {"User-Agent": f"mrbench/{mrbench.__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}
        if have and known is not None:
            headers["Range"] = f"bytes={have}-"
            if known.validator:
                headers["If-Range"] = known.validator
        try:
            with self.opener.open(urllib.request.Request(self.url, headers=headers), timeout=STALL_SECONDS) as answer:
                self._receive(answer, have, known)
        except urllib.error.HTTPError as error:
            error.close()
            self._refused(error, have)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise UserError(f"{self.url}: its certificate cannot be trusted: {error.reason.verify_message}.") from error
            raise _Broken(_reason(error.reason)) from error
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise _Broken(_reason(error)) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EFBIG):
                raise
            raise _Broken(_reason(error)) from error

    def _refused(self, error: urllib.error.HTTPError, have: int) -> None:
        """Make sense of an answer that is none of 200 and 206."""
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            total = _content_range(error.headers)[2]
            if total == have:  # broken off after the last byte: the checks say whether it is the file
                return
            raise _Restart from None
        if error.code in _BUSY:
            text = error.headers.get("Retry-After", "")
            wait = min(float(text), 60.0) if text.isdigit() else 0.0
            raise _Broken(f"the server answers {error.code} {error.reason}", wait) from None
        raise UserError(
            f"{self.url}: the server answers {error.code} {error.reason}. "
            + (
                "The file may have moved: look at the page of the data set."
                if error.code in (404, 410)
                else "It may want a login or have other terms: look at the page of the data set."
            )
        ) from None

    def _receive(self, answer: Any, have: int, known: _Source | None) -> None:
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise UserError(f"{self.url}: the server sends it as {encoding}, which was not asked for.")
        if answer.headers.get_content_type() == "text/html" and self.target.suffix.lower() not in (".html", ".htm"):
            raise UserError(
                f"{self.url}: the server sends a web page instead of the file. It may want a login or the acceptance of its terms: "
                "look at the page of the data set."
            )
        length = answer.headers.get("Content-Length", "")
        left = int(length) if length.isdigit() else None
        if answer.status == http.client.PARTIAL_CONTENT:
            start, _, total = _content_range(answer.headers)
            if start != have or (known is not None and known.total not in (None, total)):
                raise _Restart
        elif answer.status == http.client.OK:  # the server has another file now, or knows no ranges
            have, total = 0, left
        else:
            raise UserError(f"{self.url}: the server answers {answer.status}, expected a file.")
        if self.check.size is not None and total not in (None, self.check.size):
            raise DataError(
                self.url, f"the server has a file of {total} bytes, expected {self.check.size}.", "It has changed there."
            )
        self._room(None if total is None else total - have)
        if have == 0:
            self._forget()
            validator = _validator(answer.headers)
            self.notes.write_text(json.dumps(asdict(_Source(self.url, validator, total))), encoding="utf-8")
        with self.part.open("ab" if have else "wb") as stream:
            self._copy(answer, stream, have, total)
        if total is None and left is not None and self._have() != have + left:
            raise _Broken("the connection broke")
        if total is not None and self._have() != total:
            raise _Restart if self._have() > total else _Broken("the connection broke")

    def _copy(self, answer: Any, stream: IO[bytes], have: int, total: int | None) -> None:
        try:
            if self.report is not None:
                self.report(have, total)
            while block := answer.read1(_BLOCK):
                stream.write(block)
                have += len(block)
                if self.check.size is not None and have > self.check.size:
                    raise DataError(
                        self.url, f"it has more than the expected {self.check.size} bytes.", "It has changed there."
                    )
                if total is None:
                    self._room(None)
                if self.report is not None:
                    self.report(have, total)
        finally:
            stream.flush()
            os.fsync(stream.fileno())

    def _room(self, needed: int | None) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if free < (needed or 0) + ROOM:
            wanted = "" if needed is None else f"{needed / 1e9:.2f} GB are needed, "
            raise UserError(
                f"{self.target.parent}: the disk is full ({wanted}{free / 1e9:.2f} GB are free). Make room, or choose another folder."
            )


def _content_range(headers: Message) -> tuple[int | None, int | None, int | None]:
    """First byte, last byte and total of ``Content-Range``."""
    found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None:
        return None, None, None
    first, last, total = (int(g) if g and g.isdigit() else None for g in found.groups())
    return first, last, total


def _validator(headers: Message) -> str:
    """What names exactly this content: a strong ETag, else the date of the last change (RFC 9110, section 13.1.5)."""
    etag = str(headers.get("ETag", "")).strip()
    return etag if etag.startswith('"') else str(headers.get("Last-Modified", "")).strip()


def _reason(error: object) -> str:
    text = str(error).strip() or type(error).__name__
    return text[:1].lower() + text[1:] if text[:1].isupper() and not text[:2].isupper() else text
