"""Files that a user registers: what they are taken for, and the list that survives."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub import Hub, RegisteredFiles, find, resolve
from mrbench.hub.adding import record_to_add
from mrbench.hub.registered import data_folder

OFFLINE = Hub(offline="MRBENCH_OFFLINE")
URL = "https://example.org/releases/net_x4.pth"


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    import torch

    file = tmp_path / "net_x4.pth"
    torch.save({"params": {"w": torch.ones(2)}}, file)
    return file


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_data_folder() -> None:
    assert data_folder({"MRBENCH_DATA": "/somewhere"}) == Path("/somewhere")
    assert data_folder({}).name == "mrbench"
    assert RegisteredFiles.from_environment({"MRBENCH_DATA": "/d"}).file == Path("/d/checkpoints.json")


def test_registered_folder_is_found_by_name(card, registered, make_folder) -> None:
    folder = make_folder("mine")
    record, notes = record_to_add(card(), folder, registered)
    registered.add("toy", record)
    assert notes == []
    found = find(card(), "mine", 4, OFFLINE, registered)
    assert (found.record, found.source, found.reference) == (record, "local", "mine")
    assert found.record.probe_scores == {"psnr": 30.0}
    assert resolve(found.record, "toy", OFFLINE, registered).config["name"] == "mine"
    with pytest.raises(UserError, match="no checkpoint 'mine'"):
        find(card(name="other"), "mine", 4, OFFLINE, registered)


def test_a_file_alone_is_what_the_user_says(card, registered, pth) -> None:
    record, notes = record_to_add(card(), pth, registered)
    assert (record.name, record.tier, record.scale, record.sha256) == ("net_x4", "author", None, digest(pth))
    assert "shown as tier 'author'" in notes[0]
    record, notes = record_to_add(card(), pth, registered, name="big", tier="official", scale=4, licence="MIT")
    assert (record.name, record.tier, record.scale, record.licence) == ("big", "official", 4, "MIT")
    assert notes == []


def test_the_official_file_by_its_hash(card, registered, pth) -> None:
    official = Checkpoint("official", URL, digest(pth), "official", scale=4, licence="S-Lab")
    toy = card(official)
    renamed = pth.rename(pth.with_name("download (1).pth"))
    record, notes = record_to_add(toy, renamed, registered)
    assert record == dataclasses.replace(official, file=str(renamed))
    assert notes == []
    registered.add("toy", record)
    local = resolve(find(toy, "official", 4, OFFLINE, registered).record, "toy", OFFLINE, registered)
    assert local.file == renamed
    assert resolve(official, "toy", OFFLINE, registered) == local  # the card's own record finds it too
    assert local.tensors(unwrap=("params",))["w"].sum() == 2


def test_the_official_file_by_its_name(card, registered, pth) -> None:
    """The URL's file name, or --name; where the hash is known it must be the same."""
    unknown = Checkpoint("official", URL, "", "official", scale=4)
    for name in ("", "official"):
        record, notes = record_to_add(card(unknown), pth, registered, name=name)
        assert (record.name, record.tier, record.scale, record.sha256) == ("official", "official", 4, digest(pth))
        assert "no SHA-256 is known for it" in notes[0]
    known = dataclasses.replace(unknown, sha256="0" * 64)
    with pytest.raises(
        UserError,
        match=rf"not the file that toy@official names\.\n  expected SHA-256 0{{64}}\n  found    SHA-256 {digest(pth)}",
    ):
        record_to_add(card(known), pth, registered)
    record, _ = record_to_add(card(known), pth, registered, name="mine")
    assert (record.name, record.tier) == ("mine", "author")


def test_what_the_file_says_is_not_overruled(card, registered, make_folder) -> None:
    folder = make_folder("mine")
    for change, text in (
        ({"tier": "official"}, "--tier official: the checkpoint itself says retrained"),
        ({"scale": 2}, "says 4"),
    ):
        with pytest.raises(UserError, match=text):
            record_to_add(card(), folder, registered, **change)
    record, _ = record_to_add(card(), folder, registered, tier="retrained", scale=4)
    assert record.scale == 4


def test_refused_additions(card, registered, make_folder, pth, tmp_path) -> None:
    shipped = Checkpoint("net_x4", "mrbench.protocols:uniform-x4.yaml", "0" * 64, "demo", scale=4)
    with pytest.raises(UserError, match=r"toy@net_x4 exists already\. Choose another name with --name"):
        record_to_add(card(shipped), pth, registered)
    with pytest.raises(UserError, match="a checkpoint of method sinsr"):
        record_to_add(card(), make_folder("theirs", method="sinsr"), registered)
    with pytest.raises(UserError, match=r"--tier none: unknown\. Known: demo, retrained, official, author"):
        record_to_add(card(), pth, registered, tier="none")
    with pytest.raises(UserError, match="--name 'a/b'"):
        record_to_add(card(), pth, registered, name="a/b")
    spaced = pth.rename(tmp_path / "a b.pth")
    with pytest.raises(UserError, match=r"its name 'a b' cannot stand after @\. Give one with --name"):
        record_to_add(card(), spaced, registered)


def test_one_name_one_file(card, registered, make_folder) -> None:
    first, second = make_folder("one", name="same"), make_folder("two", name="same")
    registered.add("toy", record_to_add(card(), first, registered)[0])
    with pytest.raises(UserError, match=r"toy@same is registered already, as .*one.model\.safetensors.*remove toy same"):
        record_to_add(card(), second, registered)
    changed = first / "model.safetensors"
    changed.write_bytes(changed.read_bytes() + b" ")
    registered.add("toy", record_to_add(card(), first, registered)[0])  # the same path again: what it is now
    assert [r.sha256 for r in registered.of("toy")] == [digest(changed)]


def test_remove_forgets_and_keeps_the_file(card, registered, pth) -> None:
    registered.add("toy", record_to_add(card(), pth, registered)[0])
    with pytest.raises(UserError, match=r"no registered file 'other'\. Registered: net_x4"):
        registered.remove("toy", "other")
    assert registered.remove("toy", "net_x4").file == str(pth)
    assert registered.all() == {}
    assert pth.is_file()


def test_list_survives_a_round_trip_and_newer_fields(card, registered, make_folder) -> None:
    record = record_to_add(card(), make_folder("mine"), registered)[0]
    registered.add("toy", record)
    assert registered.of("toy") == (record,)
    document = json.loads(registered.file.read_text())
    document["checkpoints"]["toy"][0]["of_a_newer_version"] = 1
    registered.file.write_text(json.dumps(document))
    assert registered.of("toy") == (record,)
    assert [f.name for f in registered.file.parent.iterdir() if not f.name.startswith(".checkpoints")] == ["checkpoints.json"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 1, "checkpoints": {"toy": [{"name": "a"}]}}', '{"format": 1, "checkpoints": 3}']
)
def test_damaged_list_is_named(registered, text) -> None:
    registered.file.parent.mkdir(parents=True)
    registered.file.write_text(text)
    with pytest.raises(UserError, match=r"checkpoints\.json: the list of registered checkpoints cannot be read"):
        registered.all()


def test_list_of_a_newer_format(registered) -> None:
    registered.file.parent.mkdir(parents=True)
    registered.file.write_text('{"format": 2, "checkpoints": {}}')
    with pytest.raises(UserError, match="Update mrbench"):
        registered.all()


def test_processes_that_add_at_once_lose_nothing(registered) -> None:
    code = (
        "import sys; from pathlib import Path; from mrbench.cards import Checkpoint; from mrbench.hub import RegisteredFiles\n"
        "for n in sys.argv[2:]: RegisteredFiles(Path(sys.argv[1])).add('toy', Checkpoint(n, f'/w/{n}.pth', '0' * 64, 'author'))"
    )
    names = [[f"c{i}{j}" for j in range(8)] for i in range(4)]
    workers = [subprocess.Popen([sys.executable, "-c", code, str(registered.file), *mine]) for mine in names]
    assert [w.wait(120) for w in workers] == [0] * 4
    assert [r.name for r in registered.of("toy")] == sorted(n for mine in names for n in mine)
