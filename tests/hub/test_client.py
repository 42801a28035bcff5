"""The real huggingface-hub client against a Hub on this machine: what works, what is refused, what is waited for."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from pathlib import Path

import pytest

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub import Hub, find, resolve

REPO = "some-org/weights"


def fetch_all(hub: Hub, record: Checkpoint):
    return resolve(record, "toy", hub)


# -- what works ----------------------------------------------------------------------------------------------------
def test_pull_brings_weights_and_notes_once(hub, loopback, on_hub, weights) -> None:
    local = fetch_all(hub, on_hub)
    assert local.file.read_bytes() == weights
    assert local.config["name"] == "big-x4"
    assert local.training["probe"]["scores"] == {"psnr": 30.0}
    assert sorted(local.tensors()) == ["layer.bias", "layer.weight"]
    assert loopback.asked("GET", "/blobs/")
    loopback.requests.clear()
    assert fetch_all(hub, on_hub) == local
    assert loopback.requests == []  # a commit in the cache needs no network


def test_cached_copies_serve_offline(hub, loopback, on_hub) -> None:
    local = fetch_all(hub, on_hub)
    loopback.requests.clear()
    offline = dataclasses.replace(hub, offline="HF_HUB_OFFLINE", endpoint="http://127.0.0.1:9")
    assert fetch_all(offline, on_hub) == local
    assert loopback.requests == []


def test_a_file_laid_into_the_cache_by_hand_serves(hub, on_hub, weights, texts) -> None:
    """The path that the error message names is one that works."""
    offline = dataclasses.replace(hub, offline="MRBENCH_OFFLINE")
    with pytest.raises(UserError) as caught:
        fetch_all(offline, on_hub)
    place = offline.snapshot(REPO, on_hub.revision, on_hub.file)
    assert str(place) in str(caught.value)
    place.parent.mkdir(parents=True)
    place.write_bytes(weights)
    for name, text in texts("big-x4").items():
        place.with_name(name).write_text(text)
    assert fetch_all(offline, on_hub).file == place


def test_repository_without_notes(hub, loopback, weights) -> None:
    """A bare weights file: that there is no config.json is remembered, so that it serves offline."""
    commit = loopback.repositories[REPO].commit({"net.safetensors": weights})
    record = Checkpoint("bare", "net.safetensors", hashlib.sha256(weights).hexdigest(), "official", REPO, commit)
    local = fetch_all(hub, record)
    assert (dict(local.config), local.training) == ({}, None)
    assert fetch_all(dataclasses.replace(hub, offline="MRBENCH_OFFLINE"), record) == local


def test_official_pth_asks_for_nothing_else(hub, loopback, tmp_path) -> None:
    import torch

    file = tmp_path / "w.pth"
    torch.save({"params_ema": {"w": torch.ones(3)}}, file)
    commit = loopback.repositories[REPO].commit({"w.pth": file.read_bytes(), "config.json": b"not ours"})
    record = Checkpoint("official", "w.pth", hashlib.sha256(file.read_bytes()).hexdigest(), "official", REPO, commit)
    local = fetch_all(hub, record)
    assert local.tensors(unwrap=("params_ema",))["w"].sum() == 3
    assert not loopback.asked("GET", "config.json")


def test_interrupted_download_goes_on_where_it_stopped(hub, loopback, on_hub, weights, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10)  # the client keeps whole chunks (10 MB)
    loopback.cut = [100, 50]
    for _ in range(3):  # versions of the client before 1.0 go on at the next call
        with contextlib.suppress(UserError):
            local = fetch_all(hub, on_hub)
    assert local.file.read_bytes() == weights
    ranges = [r.range for r in loopback.asked("GET", "/blobs/")]
    assert ranges == ["", "bytes=100-", "bytes=150-"]


def test_a_killed_download_leaves_nothing_that_counts(hub, loopback, on_hub, weights) -> None:
    """What a killed process leaves in the cache is not taken for the file."""
    blobs = hub.snapshot(REPO, "", "").parent / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{on_hub.sha256}.0123abcd.incomplete").write_bytes(weights[:10])
    (blobs / f"{on_hub.sha256}.incomplete").write_bytes(b"other")
    with contextlib.suppress(UserError):  # versions of the client before 1.0 go on from what lies there, and the hash tells
        assert fetch_all(hub, on_hub).file.read_bytes() == weights
    assert fetch_all(hub, on_hub).file.read_bytes() == weights


# -- hf:// ---------------------------------------------------------------------------------------------------------
def test_reference_to_a_commit(hub, on_hub, card, registered) -> None:
    text = f"hf://{REPO}@{on_hub.revision}/x4/model.safetensors"
    found = find(card(), text, 4, hub, registered)
    r = found.record
    assert (found.source, found.reference, found.notes) == ("hub", text, ())
    assert (r.name, r.repo_id, r.revision, r.file) == ("big-x4", REPO, on_hub.revision, "x4/model.safetensors")
    assert (r.tier, r.scale, r.sha256) == ("official", 4, on_hub.sha256)
    offline = dataclasses.replace(hub, offline="MRBENCH_OFFLINE")
    assert find(card(), text, 4, offline, registered) == found
    assert resolve(r, "toy", offline).config["architecture"] == {"width": 2}
    known = dataclasses.replace(on_hub, name="from-the-card")
    assert find(card(known), text, 4, offline, registered).record is known


def test_branch_is_pinned_with_a_note(hub, loopback, on_hub, card, registered, weights) -> None:
    text = f"hf://{REPO}@main/x4/model.safetensors"
    found = find(card(), text, 4, hub, registered)
    assert found.record.revision == on_hub.revision
    assert found.reference == f"hf://{REPO}@{on_hub.revision}/x4/model.safetensors"
    assert f"'main' of {REPO} is commit {on_hub.revision} now" in found.notes[0]
    offline = dataclasses.replace(hub, offline="MRBENCH_OFFLINE")
    again = find(card(), text, 4, offline, registered)
    assert again.record == found.record
    assert f"MRBENCH_OFFLINE is set; 'main' is taken as it was last seen, commit {on_hub.revision}" in again.notes[0]
    files = dict(loopback.repositories[REPO].commits[on_hub.revision])
    newer = loopback.repositories[REPO].commit({**files, "x4/README.md": b"changed"})
    assert find(card(), text, 4, hub, registered).record.revision == newer


def test_reference_to_unstated_weights(hub, loopback, weights, card, registered) -> None:
    commit = loopback.repositories[REPO].commit({"net.safetensors": weights})
    found = find(card(), f"hf://{REPO}@{commit}/net.safetensors", 4, hub, registered)
    assert (found.record.name, found.record.tier) == ("net", "author")
    assert "nothing says where the weights net.safetensors come from" in found.notes[0]


def test_reference_to_another_method(hub, loopback, weights, texts, card, registered) -> None:
    files = {n: t.encode() for n, t in texts("theirs", method="sinsr").items()}
    commit = loopback.repositories[REPO].commit({"model.safetensors": weights, **files})
    with pytest.raises(UserError, match="a checkpoint of method sinsr, not of toy"):
        find(card(), f"hf://{REPO}@{commit}/model.safetensors", 4, hub, registered)
    with pytest.raises(UserError, match=r"weights are read from .* files"):
        find(card(), f"hf://{REPO}@{commit}/weights.pkl", 4, hub, registered)


# -- other bytes ---------------------------------------------------------------------------------------------------
def test_tampered_file_is_refused_and_kept_aside(hub, loopback, on_hub, weights) -> None:
    files = loopback.repositories[REPO].commits[on_hub.revision]
    good = files["x4/model.safetensors"]
    files["x4/model.safetensors"] = good[:-1] + b"!"
    found = hashlib.sha256(good[:-1] + b"!").hexdigest()
    place = hub.snapshot(REPO, on_hub.revision, on_hub.file)
    with pytest.raises(UserError) as caught:
        fetch_all(hub, on_hub)
    message = str(caught.value)
    assert f"expected SHA-256 {on_hub.sha256}" in message
    assert f"found    SHA-256 {found}" in message
    kept = place.with_name("model.safetensors.mismatch")
    assert str(kept) in message
    assert kept.read_bytes() == good[:-1] + b"!"
    assert not kept.is_symlink()
    assert not place.exists()
    assert not place.is_symlink()
    files["x4/model.safetensors"] = good  # mended: the same command works
    assert fetch_all(hub, on_hub).file.read_bytes() == weights


def test_tampered_cache_is_noticed(hub, on_hub, weights) -> None:
    local = fetch_all(hub, on_hub)
    blob = local.file.resolve()
    blob.chmod(0o644)
    blob.write_bytes(weights[:-1] + b"!")
    with pytest.raises(UserError, match="is not the file that it should be"):
        fetch_all(hub, on_hub)
    assert fetch_all(hub, on_hub).file.read_bytes() == weights  # fetched anew


def test_reference_whose_cache_was_tampered_with(hub, on_hub, card, registered, weights) -> None:
    """Without a record, the hash that the Hub itself states is what counts."""
    text = f"hf://{REPO}@{on_hub.revision}/x4/model.safetensors"
    first = find(card(), text, 4, hub, registered)
    blob = hub.snapshot(REPO, on_hub.revision, on_hub.file).resolve()
    blob.chmod(0o644)
    blob.write_bytes(weights[:-1] + b"!")
    with pytest.raises(UserError, match=f"expected SHA-256 {first.record.sha256}"):
        find(card(), text, 4, hub, registered)
    assert find(card(), text, 4, hub, registered) == first


# -- refusals ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        ((401, "RepoNotFound"), r"toy@big-x4: the Hub shows no repository some-org/weights .*hf auth login"),
        ((401, ""), r"the Hub shows no repository some-org/weights"),
        ((404, "RepoNotFound"), r"the Hub shows no repository some-org/weights"),
        ((403, "GatedRepo"), r"some-org/weights is gated.*Accept them at http://127\.0\.0\.1:\d+/some-org/weights"),
        ((401, "GatedRepo"), r"some-org/weights is gated"),
        ((403, ""), r"the Hub forbids some-org/weights to this token"),
        ((418, ""), r"could not be had from the Hub \(http://127\.0\.0\.1:\d+\): HfHubHTTPError"),
    ],
)
def test_refusals_are_explained(hub, loopback, on_hub, refusal, text) -> None:
    loopback.repositories[REPO].refusal = refusal
    with pytest.raises(UserError, match=text):
        fetch_all(hub, on_hub)


def test_unknown_revision_file_and_repository(hub, on_hub) -> None:
    with pytest.raises(UserError, match=r"some-org/weights has no revision 'ffff"):
        fetch_all(hub, dataclasses.replace(on_hub, revision="f" * 40))
    with pytest.raises(UserError, match=r"some-org/weights has no file 'x8/model\.safetensors' in revision"):
        fetch_all(hub, dataclasses.replace(on_hub, file="x8/model.safetensors"))
    with pytest.raises(UserError, match="the Hub shows no repository some-org/other"):
        fetch_all(hub, dataclasses.replace(on_hub, repo_id="some-org/other"))


def test_a_full_or_forbidden_disk_stays_an_os_error(hub, on_hub, monkeypatch) -> None:
    import errno

    import huggingface_hub

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch_all(hub, on_hub)
    assert caught.value.errno == errno.ENOSPC


# -- nobody there --------------------------------------------------------------------------------------------------
def ways_out(message: str, hub: Hub, record: Checkpoint) -> None:
    assert str(hub.snapshot(REPO, record.revision, record.file)) in message
    assert "--method toy@PATH" in message
    assert "HF_ENDPOINT=" in message
    assert "mrbench pull toy@big-x4" in message
    assert "mrbench checkpoints add toy PATH" in message


@pytest.fixture
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client, which waits and tries again, is not even called where nobody answers."""
    import huggingface_hub

    def never(*_: object, **__: object) -> str:
        raise AssertionError("the client was called")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", never)


@pytest.mark.usefixtures("no_client")
def test_refused_connection(hub, closed, on_hub) -> None:
    hub = dataclasses.replace(hub, endpoint=closed)
    with pytest.raises(UserError, match="no connection") as caught:
        fetch_all(hub, on_hub)
    ways_out(str(caught.value), hub, on_hub)


@pytest.mark.usefixtures("no_client")
def test_silent_server(hub, silent, on_hub) -> None:
    hub = dataclasses.replace(hub, endpoint=silent, seconds=0.3)
    with pytest.raises(UserError, match=r"no answer within 0\.3 s") as caught:
        fetch_all(hub, on_hub)
    ways_out(str(caught.value), hub, on_hub)


@pytest.mark.usefixtures("no_client")
def test_name_that_does_not_resolve_in_time(hub, on_hub, monkeypatch) -> None:
    """Name resolution has no time limit of its own."""
    import socket
    import threading

    stop = threading.Event()

    def hang(*_: object, **__: object) -> list:
        stop.wait(10)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(UserError, match=r"no answer within 0\.2 s"):
        fetch_all(dataclasses.replace(hub, endpoint="http://hub.invalid", seconds=0.2), on_hub)
    stop.set()


@pytest.mark.usefixtures("no_client")
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_hub_that_is_out_of_order(hub, loopback, on_hub, status) -> None:
    loopback.status = status
    with pytest.raises(UserError, match=f"it answers {status}") as caught:
        fetch_all(hub, on_hub)
    ways_out(str(caught.value), hub, on_hub)


@pytest.mark.usefixtures("no_client")
@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "MRBENCH_OFFLINE"])
def test_offline_means_no_attempt(loopback, on_hub, tmp_path, variable) -> None:
    environ = {variable: "1", "HF_ENDPOINT": loopback.endpoint + "/"}
    hub = dataclasses.replace(Hub.from_environment(environ), cache=tmp_path / "cache")
    with pytest.raises(UserError, match=f"{variable} is set") as caught:
        fetch_all(hub, on_hub)
    ways_out(str(caught.value), hub, on_hub)
    assert f"unset {variable}" in str(caught.value)
    assert loopback.requests == []


def test_environment() -> None:
    assert Hub.from_environment({}) == Hub("https://huggingface.co", "")
    assert (
        Hub.from_environment({"HF_ENDPOINT": "https://mirror.example/", "MRBENCH_OFFLINE": "0"}).endpoint
        == "https://mirror.example"
    )
    assert Hub.from_environment({"MRBENCH_OFFLINE": "0", "HF_HUB_OFFLINE": ""}).offline == ""
    assert Hub.from_environment({"HF_HUB_OFFLINE": "TRUE"}).offline == "HF_HUB_OFFLINE"
    assert Hub().seconds <= 5


def test_branch_that_was_never_seen_offline(hub, on_hub, card, registered) -> None:
    offline = dataclasses.replace(hub, offline="MRBENCH_OFFLINE")
    with pytest.raises(UserError, match=r"snapshots/COMMIT/x4/model\.safetensors"):
        find(card(), f"hf://{REPO}@main/x4/model.safetensors", 4, offline, registered)


def test_a_server_with_a_bad_certificate_counts_as_there(hub, monkeypatch) -> None:
    """The client brings its own certificates; only it can judge."""
    import ssl
    import urllib.request
    from urllib.error import URLError

    def distrust(*_: object, **__: object) -> None:
        raise URLError(ssl.SSLCertVerificationError("self-signed"))

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", distrust)
    assert hub.unreachable("https://hub.invalid/x") == ""


def test_read_only_cache_says_what_to_do(hub, on_hub, weights, monkeypatch) -> None:
    import shutil

    local = fetch_all(hub, on_hub)
    blob = Path(local.file).resolve()
    blob.chmod(0o644)
    blob.write_bytes(weights[:-1] + b"!")

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "move", forbidden)
    with pytest.raises(UserError, match=r"could not be renamed \(Permission denied\): remove it"):
        fetch_all(hub, on_hub)
