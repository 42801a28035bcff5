"""The local web server of a study: the standard library's, on the loopback address unless told otherwise.

What it takes for granted: pages of other sites run in the reader's browser and may send requests here (so ``Host``, ``Origin``
and ``Content-Type`` are checked, and nothing rests on cookies); on other addresses than loopback strangers may send anything
(so every path begins with a secret token). It reads ``study.json``, the images and the ratings, never the key.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mrbench.errors import MrbenchError, UserError
from mrbench.study.desk import Desk
from mrbench.study.store import StudyFull

LONGEST_BODY = 4096  # bytes of a request
LONGEST_PATH = 512
MOST_CONNECTIONS = 64
LOCK = ".serve.lock"
TOKEN = "token.txt"
_PAGES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "study.js": ("study.js", "text/javascript; charset=utf-8"),
    "view.js": ("view.js", "text/javascript; charset=utf-8"),
    "study.css": ("study.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


class StudyServer(ThreadingHTTPServer):
    """Serves one study. ``host``: a name or address; ``port`` 0: a free one; ``token``: empty on loopback."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, desk: Desk, host: str, port: int, token: str = "") -> None:
        self.desk, self.host, self.token = desk, host, token
        self._only = FileLock(desk.folder / LOCK, timeout=0)
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.pages = {
            name: ((files("mrbench.study") / "pages" / file).read_bytes(), kind) for name, (file, kind) in _PAGES.items()
        }
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        try:
            self._only.acquire()
        except Timeout:
            self.server_close()
            raise UserError(
                f"{desk.folder}: another process serves this study. Readers can use that one's address; or stop it first."
            ) from None

    def server_close(self) -> None:
        """Free the port, and the study for another server."""
        super().server_close()
        self._only.release()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """What readers open."""
        host = socket.gethostname() if is_wildcard(self.host) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{f'{self.token}/' if self.token else ''}"

    def allows_host(self, header: str) -> bool:
        """Whether a ``Host`` header names this server: else a foreign name was pointed at this address (DNS rebinding)."""
        name, colon, port = header.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit():
            name, port = header, "80"
        if int(port[:6]) != self.port:
            return False
        name = name.strip("[]").lower()
        if is_loopback(self.host):
            return name in ("localhost", "127.0.0.1", "::1", self.host.lower())
        if is_wildcard(self.host):
            return _is_address(name) or name in ("localhost", socket.gethostname().lower(), socket.getfqdn().lower())
        return name == self.host.lower()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse connections beyond ``MOST_CONNECTIONS``."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Count the connection as gone when it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that hang up; show everything else."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(folder: Path, host: str = "127.0.0.1", port: int = 8765) -> StudyServer:
    """A server for a study folder, bound and ready.

    Raises
    ------
    UserError : no study, an address or port that cannot be had, or an address that others can reach for data that may not be
        passed on.
    """
    desk = Desk(folder)
    token = ""
    if not is_loopback(host):
        if desk.study.redistribution != "open":
            raise UserError(
                f"--host {host}: others could reach this address, and the licence of the data ({desk.study.title}) does not allow "
                "its images to be passed on. Serve on the loopback address (the default); a reader with rights to the data can "
                f"reach it through `ssh -L {port}:127.0.0.1:{port} THIS_MACHINE`."
            )
        token = _token(folder)
    try:
        return StudyServer(desk, host, port, token)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot serve on {host}, port {port} ({error}). Choose another with --port N (0: any free one)."
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def is_wildcard(host: str) -> bool:
    """Whether an address means all of this machine's."""
    return not host or (_is_address(host) and ipaddress.ip_address(host).is_unspecified)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _token(folder: Path) -> str:
    """The study's token, kept so that an open page goes on after the server was started again."""
    path = folder / TOKEN
    if path.is_file():
        kept = path.read_text(encoding="ascii").strip()
        if len(kept) >= 32 and kept.isalnum():
            return kept
        raise UserError(f"{path}: holds no token. Delete it; a new one is made (readers then need the new address).")
    token = secrets.token_hex(24)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(token + "\n")
    return token


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mrbench"
    sys_version = ""
    timeout = 60
    server: StudyServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: names of readers and codes belong in no log."""

    def _answer(self, work: Callable[[str], tuple[bytes, str]]) -> None:
        try:
            body, kind = work(self._route())
            status = HTTPStatus.OK
        except _Refused as refused:
            status, (body, kind) = refused.status, _as_json({"error": refused.message})
        except StudyFull as error:
            status, (body, kind) = HTTPStatus.TOO_MANY_REQUESTS, _as_json({"error": str(error)})
        except MrbenchError as error:
            status, (body, kind) = HTTPStatus.BAD_REQUEST, _as_json({"error": str(error)})
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            reason = os.strerror(error.errno) if error.errno else "input/output error"
            status, (body, kind) = HTTPStatus.INSUFFICIENT_STORAGE, _as_json({"error": f"It cannot be saved: {reason}."})
        if status != HTTPStatus.OK:
            self.close_connection = True  # what is left of the request is not read
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _route(self) -> str:
        """The path below the token, after the checks that every request must pass."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.allows_host(hosts[0].strip()):
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "This server does not go by that name.")
        if len(self.path) > LONGEST_PATH:
            raise _Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "The address is too long.")
        if not self.path.startswith("/"):
            raise _Refused(HTTPStatus.BAD_REQUEST, "The address must begin with a slash.")
        path = self.path.partition("?")[0][1:]
        if self.server.token:
            token, slash, path = path.partition("/")
            if not slash or not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
                raise _Refused(HTTPStatus.FORBIDDEN, "The address needs the token that the server printed when it started.")
        if path and self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise _Refused(HTTPStatus.FORBIDDEN, "Pages of other sites have no business here.")
        return path

    def _get(self, path: str) -> tuple[bytes, str]:
        if path in self.server.pages:
            return self.server.pages[path]
        folder, _, code = path.partition("/")
        if folder == "images":
            try:
                return self.server.desk.image_path(code).read_bytes(), "application/octet-stream"
            except KeyError:
                pass
        raise _Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _post(self, path: str) -> tuple[bytes, str]:
        if self.headers.get("Origin", "") != f"http://{self.headers['Host'].strip()}":
            raise _Refused(HTTPStatus.FORBIDDEN, "Only the study's own page may send ratings.")
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "JSON is needed.")
        work = {"api/start": self.server.desk.start, "api/rate": self.server.desk.rate}.get(path)
        if work is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        return _as_json(work(self._document()))

    def _document(self) -> Mapping[str, Any]:
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is needed.")
        if len(length) > 6 or int(length) > LONGEST_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {LONGEST_BODY} bytes are read.")
        try:
            document = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "The request is not a JSON object.")
        return document


def _as_json(document: Mapping[str, Any]) -> tuple[bytes, str]:
    return json.dumps(document, ensure_ascii=True).encode(), "application/json"
