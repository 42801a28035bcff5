"""The server: what it answers, and what it refuses."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from study_support import make_study, write_runs

from mrbench.errors import UserError
from mrbench.study import server as module
from mrbench.study.order import reading_order
from mrbench.study.records import KEY, Study, read_key, read_study
from mrbench.study.server import StudyServer, is_loopback, is_wildcard, make_server
from mrbench.study.store import rating_path, read_ratings, reader_key


class Client:
    """Speaks HTTP to a server as a browser would, or as badly as a test wants."""

    def __init__(self, server: StudyServer) -> None:
        self.server = server
        self.host = f"127.0.0.1:{server.port}"
        self.prefix = f"/{server.token}" if server.token else ""

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": self.host, **(headers or {})}
            if body is not None and "Content-Length" not in sent:
                sent["Content-Length"] = str(len(body))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def post(self, path: str, document: Any, **headers: str) -> tuple[int, Any]:
        sent = {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
        sent |= {k.replace("_", "-"): v for k, v in headers.items()}
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        status, _, answer = self.ask("POST", f"{self.prefix}/{path}", body, {k: v for k, v in sent.items() if v})
        return status, json.loads(answer)


def running(server: StudyServer) -> Iterator[Client]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Client(server)
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def client(study: Path) -> Iterator[Client]:
    yield from running(make_server(study, port=0))


@pytest.fixture
def record(study: Path) -> Study:
    return read_study(study)


def started(client: Client, name: str = "Anna") -> dict[str, Any]:
    status, answer = client.post("api/start", {"reader": name, "create": True})
    assert status == 200
    return dict(answer)


# -- the work ----------------------------------------------------------------------------------------------------------
def test_a_reader_begins_rates_and_goes_on(client: Client, record: Study, study: Path) -> None:
    assert client.post("api/start", {"reader": "Anna"}) == (200, {"known": False, "reader": "Anna"})
    assert not list((study / "ratings").iterdir())  # asking makes no file
    answer = started(client)
    order = reading_order(record, reader_key("Anna"))
    assert [t["id"] for t in answer["trials"]] == [t.id for t in order]
    assert answer["ratings"] == {}
    rating = {"reader": "Anna", "trial": order[0].id, "image": order[0].images[0], "criterion": "contrast", "value": 5}
    assert client.post("api/rate", rating) == (200, {"saved": True})
    assert read_ratings(rating_path(study, "Anna"), record).latest[order[0].images[0], "contrast"].value == 5
    again = client.post("api/start", {"reader": "anna"})[1]
    assert again["known"]
    assert again["ratings"] == {order[0].images[0]: {"contrast": 5}}
    assert client.post("api/start", {"reader": "Ben", "create": True})[1]["ratings"] == {}  # not Anna's


def test_pages_and_images(client: Client, record: Study, study: Path) -> None:
    status, headers, page = client.ask("GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>Reader study</title>" in page
    for name in ("study.js", "view.js", "study.css"):
        assert client.ask("GET", f"/{name}")[0] == 200
    code = next(iter(record.images))
    status, headers, data = client.ask("GET", f"/images/{code}")
    assert (status, len(data)) == (200, record.images[code].bytes)
    assert data == (study / "images" / f"{code}.u16").read_bytes()
    assert {n: headers[n] for n in ("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cache-Control")} == {
        "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }  # fmt: skip
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert client.ask("HEAD", f"/images/{code}")[2] == b""


def test_nothing_that_is_served_names_a_method_or_item(client: Client, record: Study, study: Path) -> None:
    key = read_key(study / KEY, record)
    hidden = {m.label for m in key.methods} | {s.item for s in key.images.values()} | {"repeat_of"}
    served = [client.ask("GET", p) for p in ("/", "/study.js", "/view.js", "/study.css", f"/images/{next(iter(key.images))}")]
    texts = [str(h) + b.decode("latin1") for _, h, b in served] + [json.dumps(started(client))]
    texts.append(
        json.dumps(client.post("api/rate", {"reader": "Anna", "trial": "x", "image": "y", "criterion": "z", "value": 1}))
    )
    assert all(name not in text for name in hidden for text in texts)


# -- what it refuses ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        "/key.json", "/study.json", "/images/", "/images/../key.json", "/images/..%2fkey.json", "/../key.json",
        "/images/%2e%2e/key", "/ratings/", "//study.json", "/pages/index.html", "/favicon.ico", "/images/x.u16",
        "/images/\\..\\key.json", "/images/nothing",
    ],
)  # fmt: skip
def test_no_other_path_leads_anywhere(client: Client, path: str) -> None:
    assert client.ask("GET", path)[0] == 404


def test_foreign_names_of_this_address_are_refused(client: Client) -> None:
    """DNS rebinding: a page of another name that was pointed at the loopback address."""
    port = client.server.port
    for host in (f"evil.example:{port}", "evil.example", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1.evil.example:{port}",
                 "", f"localhost:{port}@evil.example", f"localhost:{'9' * 5000}"):  # fmt: skip
        assert client.ask("GET", "/", headers={"Host": host})[0] == 421
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"LOCALHOST:{port}"):
        assert client.ask("GET", "/", headers={"Host": host})[0] == 200


def test_two_host_headers_are_refused(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.server.port), 10) as line:
        line.sendall(f"GET / HTTP/1.1\r\nHost: {client.host}\r\nHost: evil.example\r\n\r\n".encode())
        assert b" 421 " in line.recv(100)


def test_other_sites_cannot_write(client: Client, record: Study, study: Path) -> None:
    started(client)
    trial = record.trials[0]
    rating = {"reader": "Anna", "trial": trial.id, "image": trial.images[0], "criterion": "contrast", "value": 5}
    for headers, status in (
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": f"https://{client.host}"}, 403),
        ({"Origin": f"http://localhost:{client.server.port}"}, 403),  # not the name that it was asked by
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
    ):
        assert client.post("api/rate", rating, **headers)[0] == status
    assert read_ratings(rating_path(study, "Anna"), record).latest == {}
    assert client.post("api/rate", rating, Sec_Fetch_Site="same-origin")[0] == 200


def test_other_sites_cannot_read(client: Client, record: Study) -> None:
    code = next(iter(record.images))
    status, headers, _ = client.ask("GET", f"/images/{code}", headers={"Sec-Fetch-Site": "cross-site"})
    assert status == 403
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers
    assert client.ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link may lead here


def test_sizes_are_limited(client: Client) -> None:
    assert client.post("api/start", {"reader": "x" * 5000})[0] == 413
    assert client.post("api/start", {"reader": "A"}, Content_Length="99999999999")[0] == 413
    assert client.post("api/start", {"reader": "A"}, Content_Length="-5")[0] == 411
    assert client.post("api/start", {"reader": "A"}, Transfer_Encoding="chunked")[0] == 411
    assert client.ask("GET", "/" + "x" * 600)[0] == 414
    assert client.ask("GET", "/" + "x" * 70_000)[0] == 414


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 4000, b'"text"', b"null"])
def test_requests_that_are_no_objects(client: Client, body: bytes) -> None:
    assert client.post("api/start", body)[0] == 400


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "reader: a text is needed"),
        ({"reader": 5}, "reader: a text is needed"),
        ({"reader": "  "}, "Give your name"),
        ({"reader": "x" * 61}, "at most 60"),
        ({"reader": "a\u0000b"}, "do not print"),
    ],
)
def test_bad_names_get_a_sentence(client: Client, document: dict[str, Any], message: str) -> None:
    status, answer = client.post("api/start", document)
    assert status == 400
    assert message in answer["error"]


def test_bad_ratings_get_a_sentence(client: Client, record: Study) -> None:
    started(client)
    trial = record.trials[0]
    good = {"reader": "Anna", "trial": trial.id, "image": trial.images[0], "criterion": "contrast", "value": 5}
    for change, message in (
        ({"value": 9}, "from 1 to 5"),
        ({"value": "5"}, "a whole number"),
        ({"value": True}, "a whole number"),
        ({"image": "nothing"}, "no image"),
        ({"criterion": "<script>"}, "no criterion"),
        ({"reader": "Ben"}, "has not begun"),
    ):
        status, answer = client.post("api/rate", {**good, **change})
        assert status == 400
        assert message in answer["error"]


def test_names_with_markup_are_data(client: Client) -> None:
    name = "<script>alert(1)</script>"
    status, answer = client.post("api/start", {"reader": name, "create": True})
    assert (status, answer["reader"]) == (200, name)
    script = "".join((Path(module.__file__).parent / "pages" / f).read_text() for f in ("study.js", "view.js"))
    assert all(word not in script for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("))


def test_pages_ask_no_other_host() -> None:
    for path in (Path(module.__file__).parent / "pages").iterdir():
        assert not any(word in path.read_text() for word in ("http:", "https:", "//cdn", "@import", "url("))


def test_a_full_disk_reaches_the_reader(client: Client, record: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    started(client)
    trial = record.trials[0]

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mrbench.study.store.os.write", full)
    rating = {"reader": "Anna", "trial": trial.id, "image": trial.images[0], "criterion": "contrast", "value": 5}
    assert client.post("api/rate", rating) == (507, {"error": "It cannot be saved: No space left on device."})


def test_connections_are_limited(client: Client) -> None:
    held = []
    try:
        for _ in range(module.MOST_CONNECTIONS):
            line = socket.create_connection(("127.0.0.1", client.server.port), 10)
            line.sendall(b"GET / HTTP/1.1\r\n")  # and never ends
            held.append(line)
        one_more = socket.create_connection(("127.0.0.1", client.server.port), 10)
        held.append(one_more)
        one_more.sendall(f"GET / HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionResetError):  # which is as good
            assert one_more.recv(10) == b""
    finally:
        for line in held:
            line.close()


# -- addresses ---------------------------------------------------------------------------------------------------------
def test_addresses() -> None:
    assert all(is_loopback(h) for h in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"))
    assert not any(is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", ""))
    assert all(is_wildcard(h) for h in ("0.0.0.0", "::", ""))


def test_other_addresses_need_the_token(study: Path) -> None:
    for client in running(make_server(study, "0.0.0.0", 0)):
        server = client.server
        assert len(server.token) == 48
        assert f"/{server.token}/" in server.url
        for path in ("/", "/study.js", f"/{server.token[:-1]}x/", f"/{server.token}", f"/?token={server.token}"):
            assert client.ask("GET", path)[0] == 403
        assert client.ask("GET", f"/{server.token}/")[0] == 200
        assert client.post("api/start", {"reader": "Anna"})[0] == 200
        client.prefix = ""
        assert client.post("api/start", {"reader": "Anna"})[0] == 403
        assert client.ask("GET", f"/{server.token}/", headers={"Host": f"evil.example:{server.port}"})[0] == 421
        token = server.token
    assert (study / "token.txt").stat().st_mode & 0o077 == 0
    again = make_server(study, "0.0.0.0", 0)
    assert again.token == token  # pages that are open go on
    again.server_close()


def test_data_that_may_not_be_passed_on_stays_on_this_machine(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", {"a": 0.0}, {"s1": 2}, redistribution="none")
    folder = make_study(tmp_path / "runs", tmp_path / "x", images=2)
    with pytest.raises(UserError, match=r"does not allow its images to be passed on.*ssh -L"):
        make_server(folder, "0.0.0.0", 0)
    assert not (folder / "token.txt").exists()
    make_server(folder, port=0).server_close()


def test_one_server_for_one_study(client: Client, study: Path) -> None:
    with pytest.raises(UserError, match="another process serves this study"):
        make_server(study, port=0)


def test_a_port_in_use(study: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="--port"):
            make_server(study, port=taken.getsockname()[1])
    make_server(study, port=0).server_close()


def test_a_study_without_its_images(study: Path) -> None:
    next((study / "images").iterdir()).unlink()
    with pytest.raises(UserError, match="1 images are not there"):
        make_server(study, port=0)
