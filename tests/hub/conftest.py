"""A Hub on this machine: the resolve, preupload, commit and LFS routes that huggingface-hub speaks, served by threads."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from mrbench.cards import Checkpoint, MethodCard
from mrbench.hub import Hub, RegisteredFiles

REPO = "some-org/weights"
METHOD = "toy"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Repository:
    """Commits (hash -> files) and branches of a repository, and how it refuses."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None  # status, X-Error-Code

    def commit(self, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.branches["main"] = name
        return name


@dataclass
class Request:
    method: str
    path: str
    range: str
    authorised: bool


class LoopbackHub:
    """Large files (``.safetensors``, ``.pth``) are redirected to storage on a second port, as the Hub does."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {REPO: Repository()}
        self.requests: list[Request] = []
        self.cut: list[int] = []  # storage sends only so many bytes of its next answers, then hangs up
        self.status: int | None = None  # of every answer
        self.write_token = "hf_may_write"
        self.uploaded: dict[str, bytes] = {}
        self.messages: list[str] = []
        self._servers = [self._serve(_Api), self._serve(_Storage)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)

    def _serve(self, kind: type[_Handler]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (kind,), {"hub": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def asked(self, method: str, text: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and text in r.path]


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def note(self) -> None:
        authorised = self.headers.get("authorization") == f"Bearer {self.hub.write_token}"
        self.hub.requests.append(Request(self.command, self.path, self.headers.get("Range", ""), authorised))

    def answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"", send: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if send is None else content[:send])
        if send is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def refuse(self, status: int, code: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self.answer(status, headers, json.dumps({"error": code}).encode())

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


class _Storage(_Handler):
    """Blobs by SHA-256."""

    def do_GET(self) -> None:
        self.note()
        wanted = self.path.rpartition("/")[2]
        blobs = (c for r in self.hub.repositories.values() for files in r.commits.values() for c in files.values())
        content = next(c for c in blobs if sha256(c) == wanted)
        first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if "Range" in self.headers else 0
        status, headers = 200, {"ETag": f'"{wanted}"', "Accept-Ranges": "bytes"}
        if first:
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.answer(status, headers, content[first:], self.hub.cut.pop(0) if self.hub.cut else None)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.note()
        content = self.body()
        assert sha256(content) == self.path.rpartition("/")[2]
        self.hub.uploaded[sha256(content)] = content
        self.answer(200)


class _Api(_Handler):
    """``/ORG/REPO/resolve/REVISION/FILE`` and ``/api/...``."""

    def do_GET(self) -> None:
        self.note()
        if self.hub.status is not None:
            return self.refuse(self.hub.status)
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api":
            return self.refuse(404)
        repository = self.hub.repositories.get("/".join(parts[:2]))
        if repository is None:
            return self.refuse(401, "RepoNotFound")  # so the Hub answers whoever may not know
        if repository.refusal is not None:
            return self.refuse(*repository.refusal)
        commit = repository.branches.get(parts[3], parts[3])
        if commit not in repository.commits:
            return self.refuse(404, "RevisionNotFound")
        name = "/".join(parts[4:])
        content = repository.commits[commit].get(name)
        common = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if content is None:
            return self.answer(404, {**common, "X-Error-Code": "EntryNotFound"})
        if name.endswith((".safetensors", ".pth")):
            linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            return self.answer(302, {**common, **linked, "Location": f"{self.hub.storage}/blobs/{sha256(content)}"})
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return self.answer(200, {**common, "ETag": f'"{blob}"'}, content)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.note()
        content = self.body()
        path = urlsplit(self.path).path
        if path == "/api/validate-yaml":  # of the model card; open to all
            return self.reply({"errors": [], "warnings": []})
        if not self.hub.requests[-1].authorised:
            return self.refuse(401, "RepoNotFound" if "repos/create" not in path else "")
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                return self.reply({"url": f"{self.hub.endpoint}/{name}"}, 409)
            self.hub.repositories[name] = Repository()
            return self.reply({"url": f"{self.hub.endpoint}/{name}"})
        if "/preupload/" in path:
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(content)["files"]
            ]
            return self.reply({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "authenticated": True, "actions": {"upload": {"href": f"{self.hub.storage}/put/{o['oid']}"}}}
                for o in json.loads(content)["objects"]
            ]
            return self.reply({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            return self.commit("/".join(path.split("/")[3:5]), content)
        return self.refuse(404)

    def commit(self, name: str, content: bytes) -> None:
        files: dict[str, bytes] = {}
        for line in content.decode().splitlines():
            entry = json.loads(line)
            match entry["key"]:
                case "header":
                    self.hub.messages.append(entry["value"]["summary"])
                case "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                case "lfsFile":
                    files[entry["value"]["path"]] = self.hub.uploaded[entry["value"]["oid"]]
        commit = self.hub.repositories[name].commit(files)
        self.reply({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}"})

    def reply(self, document: dict[str, Any], status: int = 200) -> None:
        self.answer(status, {"Content-Type": "application/json"}, json.dumps(document).encode())


@pytest.fixture(autouse=True)
def _only_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no token, no telemetry of the real client, and no data folder of the user's."""
    import huggingface_hub.constants as constants

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setenv("MRBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture
def loopback() -> Iterator[LoopbackHub]:
    server = LoopbackHub()
    yield server
    server.close()


@pytest.fixture
def hub(loopback: LoopbackHub, tmp_path: Path) -> Hub:
    """The real client, pointed at the loopback server, with a cache of its own."""
    return Hub(loopback.endpoint, cache=tmp_path / "cache", seconds=2.0)


@pytest.fixture
def registered(tmp_path: Path) -> RegisteredFiles:
    return RegisteredFiles(tmp_path / "data" / "checkpoints.json")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def weights() -> bytes:
    """A safetensors file with tensors of two dtypes."""
    import torch
    from safetensors.torch import save

    return save({"layer.weight": torch.arange(6.0).reshape(2, 3).half(), "layer.bias": torch.ones(2)})


@pytest.fixture
def make_folder(tmp_path: Path, weights: bytes) -> Callable[..., Path]:
    """A checkpoint folder as training writes it."""

    def make(place: str = "toy-x4", content: bytes = weights, **changes: Any) -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(content)
        for file, document in checkpoint_texts(**{"name": place, **changes}).items():
            (folder / file).write_text(document)
        return folder

    return make


def checkpoint_texts(name: str = "toy-x4", **changes: Any) -> dict[str, str]:
    """config.json, training.json and the model card; keyword arguments replace entries of either JSON file."""
    config: dict[str, Any] = {
        "format": 1,
        "method": METHOD,
        "name": name,
        "tier": "retrained",
        "kind": "network",
        "scale": 4,
        "degradation": "bicubic_aa",
        "channels": 1,
        "licence": "Apache-2.0",
        "architecture": {"width": 2},
        "method_options": {},
    }
    training: dict[str, Any] = {
        "seed": 0,
        "steps": 10,
        "data": ["phantom"],
        "optimised_for": ["psnr"],
        "probe": {"name": "sample/uniform-x4", "scores": {"psnr": 30.0}},
    }
    for key, value in changes.items():
        (training if key in training else config)[key] = value
    return {
        "config.json": json.dumps(config),
        "training.json": json.dumps(training),
        "README.md": "---\nlicense: apache-2.0\n---\n",
    }


@pytest.fixture
def texts() -> Callable[..., dict[str, str]]:
    return checkpoint_texts


@pytest.fixture
def on_hub(loopback: LoopbackHub, weights: bytes) -> Checkpoint:
    """The record of a checkpoint folder that lies on the loopback Hub under ``x4/``."""
    files = {f"x4/{n}": t.encode() for n, t in checkpoint_texts("big-x4", tier="official").items()}
    commit = loopback.repositories[REPO].commit({"x4/model.safetensors": weights, **files})
    return Checkpoint(
        "big-x4", "x4/model.safetensors", sha256(weights), "official", REPO, commit, scale=4, licence="Apache-2.0"
    )


def toy_card(*checkpoints: Checkpoint, tier: Any = "demo", name: str = METHOD) -> MethodCard:
    return MethodCard(name, "nowhere:Nothing", "a toy", tier=tier, checkpoints=checkpoints, licence="Apache-2.0")


@pytest.fixture
def card() -> Callable[..., MethodCard]:
    return toy_card
