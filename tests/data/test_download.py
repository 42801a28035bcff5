"""Downloads: broken off, resumed, checked, refused. All from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import mrbench.data.download as module
from mrbench.data.download import download
from mrbench.errors import DataError, UserError

CONTENT = bytes(range(256)) * 800  # 204,800 bytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Shop:
    """What the server sends, and what it was asked for."""

    port: int = 0
    content: bytes = CONTENT
    etag: str = '"one"'
    modified: str = ""
    ranges: bool = True
    lengths: bool = True  # says how long the file is
    break_after: list[int] = field(default_factory=list)  # bytes sent before the connection breaks, one a request
    status: list[int] = field(default_factory=list)  # answered instead, one a request
    kind: str = "application/octet-stream"
    location: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/file.bin"

    @property
    def starts(self) -> list[str]:
        return [a.get("Range", "whole") for a in self.asked]


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            shop.asked.append(dict(self.headers.items()))
            if shop.location and self.path == "/file.bin":
                self.send_response(302)
                self.send_header("Location", shop.location)
                self.end_headers()
                return
            if shop.status:
                self.send_response(shop.status.pop(0))
                self.end_headers()
                return
            start = 0
            wanted = self.headers.get("Range")
            if wanted and shop.ranges and self.headers.get("If-Range") in (None, shop.etag, shop.modified):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(shop.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(shop.content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(shop.content) - 1}/{len(shop.content)}")
            else:
                self.send_response(200)
            if shop.etag:
                self.send_header("ETag", shop.etag)
            if shop.modified:
                self.send_header("Last-Modified", shop.modified)
            self.send_header("Content-Type", shop.kind)
            if shop.lengths:
                self.send_header("Content-Length", str(len(shop.content) - start))
            self.end_headers()
            body = shop.content[start:]
            self.wfile.write(body[: shop.break_after.pop(0)] if shop.break_after else body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shop.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield shop
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_download_is_checked_reported_and_kept(shop: Shop, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "file.bin"
    got = download(shop.url, target, sha256=SHA256.upper(), md5=MD5, size=len(CONTENT), report=lambda *a: seen.append(a))
    assert got == target
    assert target.read_bytes() == CONTENT
    assert left_behind(target.parent) == ["file.bin"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [a for a, _ in seen] == sorted(a for a, _ in seen)
    assert shop.asked[0]["Accept-Encoding"] == "identity"
    download(shop.url, target, sha256=SHA256)  # there, and right: nobody is asked
    assert len(shop.asked) == 1


def test_broken_connections_go_on_where_they_stopped(shop: Shop, tmp_path: Path) -> None:
    shop.break_after = [70_000, 1, 90_000]
    download(shop.url, tmp_path / "f", sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert shop.starts == ["whole", "bytes=70000-", "bytes=70001-", "bytes=160001-"]
    assert all(a["If-Range"] == '"one"' for a in shop.asked[1:])


def test_a_later_call_goes_on_and_the_date_of_change_will_do(shop: Shop, tmp_path: Path) -> None:
    shop.etag, shop.modified = 'W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT"
    shop.break_after = [50_000, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"the connection broke\. 50000 bytes are kept: the same command goes on"):
        download(shop.url, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    shop.break_after = []
    download(shop.url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert shop.asked[-1]["Range"] == "bytes=50000-"
    assert shop.asked[-1]["If-Range"] == shop.modified


@pytest.mark.parametrize("checked", [True, False])
def test_without_a_validator_only_a_checksum_allows_to_go_on(shop: Shop, tmp_path: Path, checked: bool) -> None:
    shop.etag = ""
    shop.break_after = [50_000]
    download(shop.url, tmp_path / "f", sha256=SHA256 if checked else None)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert shop.starts[1] == ("bytes=50000-" if checked else "whole")


def test_a_server_that_knows_no_ranges_starts_over(shop: Shop, tmp_path: Path) -> None:
    shop.ranges = False
    shop.break_after = [70_000]
    download(shop.url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert shop.starts == ["whole", "bytes=70000-"]


def test_parts_of_two_files_are_not_mixed(shop: Shop, tmp_path: Path) -> None:
    shop.break_after = [70_000, *[0] * 5]
    with pytest.raises(UserError, match="cannot be downloaded"):
        download(shop.url, tmp_path / "f")
    shop.content, shop.etag, shop.break_after = CONTENT[::-1], '"two"', []
    download(shop.url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]
    (tmp_path / "g.part").write_bytes(b"something of another address")
    (tmp_path / "g.part.json").write_text(json.dumps({"url": "https://else.where/f", "validator": '"two"', "total": None}))
    download(shop.url, tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == CONTENT[::-1]
    assert shop.starts[-1] == "whole"


def test_a_download_killed_after_the_last_byte_is_finished_without_asking(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    (tmp_path / "f.part.json").write_text(json.dumps({"url": shop.url, "validator": '"one"', "total": len(CONTENT)}))
    download(shop.url, tmp_path / "f", sha256=SHA256)
    assert shop.asked == []
    assert left_behind(tmp_path) == ["f"]


def test_a_file_of_unknown_length(shop: Shop, tmp_path: Path) -> None:
    shop.lengths = False
    seen: list[int | None] = []
    download(shop.url, tmp_path / "f", sha256=SHA256, report=lambda _, total: seen.append(total))
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert set(seen) == {None}
    with pytest.raises(DataError, match="more than the expected 1000 bytes"):
        download(shop.url, tmp_path / "g", size=1000)


@pytest.mark.parametrize("wanted", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_a_wrong_checksum_leaves_nothing(shop: Shop, tmp_path: Path, wanted: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"is not the expected file: its (SHA256|MD5) is [0-9a-f]+, expected 0+") as error:
        download(shop.url, tmp_path / "f", **wanted)  # type: ignore[arg-type]
    assert "thrown away" in str(error.value)
    assert [n for n in left_behind(tmp_path) if not n.endswith(".lock")] == []


def test_a_wrong_size_is_refused_before_anything_is_fetched(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"a file of {len(CONTENT)} bytes, expected 7"):
        download(shop.url, tmp_path / "f", size=7)
    assert not (tmp_path / "f.part").exists()


def test_what_is_there_and_is_something_else_is_not_overwritten(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(DataError, match="there already, and is not the expected file"):
        download(shop.url, tmp_path / "f", size=5)
    assert (tmp_path / "f").read_bytes() == b"mine"
    with pytest.raises(UserError, match="is a folder"):
        download(shop.url, tmp_path, size=5)


def test_busy_servers_are_asked_again_and_refusals_are_told(shop: Shop, tmp_path: Path) -> None:
    shop.status = [503, 429]
    download(shop.url, tmp_path / "f", sha256=SHA256)
    shop.status = [404]
    with pytest.raises(UserError, match=r"answers 404 Not Found\. The file may have moved"):
        download(shop.url, tmp_path / "g")
    shop.status = [403]
    with pytest.raises(UserError, match=r"answers 403 Forbidden\. It may want a login"):
        download(shop.url, tmp_path / "g")
    shop.status = [500] * 20
    with pytest.raises(UserError, match="the server answers 500 Internal Server Error"):
        download(shop.url, tmp_path / "g")
    assert len(shop.status) == 20 - module.TRIES


def test_a_login_page_is_no_archive(shop: Shop, tmp_path: Path) -> None:
    shop.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="sends a web page instead of the file"):
        download(shop.url, tmp_path / "f.tar")


def test_redirections_keep_the_range_and_the_rule(shop: Shop, tmp_path: Path) -> None:
    shop.location = "/elsewhere"
    shop.break_after = [70_000]
    download(shop.url, tmp_path / "f", sha256=SHA256)
    assert shop.starts == ["whole", "whole", "bytes=70000-", "bytes=70000-"]
    for bad in ("http://example.org/f", "file:///etc/hostname", "ftp://127.0.0.1/f"):
        shop.location = bad
        with pytest.raises(UserError, match=r"downloaded over https only|answers 302"):
            download(shop.url, tmp_path / "g")


@pytest.mark.parametrize(
    "url", ["http://example.org/f", "ftp://example.org/f", "file:///etc/hostname", "https:///f", "f.tar", "https://[::1"]
)
def test_only_https(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"https only|not an address"):
        download(url, tmp_path / "f")


def test_offline_means_no_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRBENCH_OFFLINE", "1")
    with pytest.raises(UserError, match=r"MRBENCH_OFFLINE is set.*put the file at"):
        download("https://example.invalid/f", tmp_path / "f")
    assert left_behind(tmp_path) == []


def test_nobody_there(shop: Shop, tmp_path: Path) -> None:
    url = shop.url.replace(str(shop.port), "9")  # the discard port: nothing listens
    with pytest.raises(UserError, match=r"cannot be downloaded: .*refused"):
        download(url, tmp_path / "f")


def test_a_full_disk_is_seen_before(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 1 << 62)
    with pytest.raises(UserError, match=r"the disk is full \(0\.00 GB are needed"):
        download(shop.url, tmp_path / "f")


def test_two_at_once_are_refused(shop: Shop, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".f.lock"), pytest.raises(UserError, match="another process is downloading it"):
        download(shop.url, tmp_path / "f")
