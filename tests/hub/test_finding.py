"""From what stands after @ to a record, and from a record to checked files (no network)."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import pytest

from mrbench.cards import Checkpoint, MethodCard
from mrbench.errors import UserError
from mrbench.hub import Hub, find, listing, mismatches, resolve

OFFLINE = Hub(offline="MRBENCH_OFFLINE")
ZERO = "0" * 64


@pytest.fixture
def package(tmp_path: Path, make_folder, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package with two shipped checkpoints."""
    root = tmp_path / "site"
    (root / "toy_package").mkdir(parents=True)
    (root / "toy_package" / "__init__.py").write_text("")
    for scale in (2, 4):
        make_folder(f"site/toy_package/weights/x{scale}", name=f"demo-x{scale}", tier="demo", scale=scale)
    monkeypatch.syspath_prepend(str(root))
    yield "toy_package"
    sys.modules.pop("toy_package", None)


@pytest.fixture
def shipped(package: str, weights: bytes):
    def make(scale: int | None, name: str = "", **more) -> Checkpoint:
        digest = hashlib.sha256(weights).hexdigest()
        file = f"{package}:weights/x{scale or 4}/model.safetensors"
        return Checkpoint(
            name or f"demo-x{scale}", file, more.pop("sha256", digest), more.pop("tier", "demo"), scale=scale, **more
        )

    return make


# -- the default ---------------------------------------------------------------------------------------------------
class Loads:
    def load(self, checkpoint, device) -> None: ...


def plain(implementation) -> MethodCard:
    """A card that names no weights."""
    return MethodCard("toy", implementation, "a toy")


@pytest.mark.parametrize("implementation", ["mrbench_methods.interpolation.method:bicubic", object])
def test_methods_without_weights_have_none(registered, make_folder, implementation) -> None:
    assert find(plain(implementation), "", 4, OFFLINE, registered) is None
    for text in ("demo", str(make_folder("theirs")), "hf://org/repo@main/model.safetensors"):
        with pytest.raises(UserError, match="has no weights: leave out the @ part"):
            find(plain(implementation), text, 4, OFFLINE, registered)


def test_methods_that_load_weights_take_them_whatever_their_card_says(registered, make_folder) -> None:
    """A plugin under development."""
    toy = plain(Loads)
    assert find(toy, "", 4, OFFLINE, registered) is None
    assert find(toy, str(make_folder("mine")), 4, OFFLINE, registered).record.name == "mine"
    with pytest.raises(UserError, match=r"no checkpoint 'demo'\. No checkpoint of it is public or registered"):
        find(toy, "demo", 4, OFFLINE, registered)


def test_default_is_the_shipped_checkpoint_for_exactly_this_scale(card, registered, shipped) -> None:
    toy = card(shipped(2), shipped(4), Checkpoint("official", "w.pth", ZERO, "official", "org/repo", "0" * 40, scale=8))
    for scale in (2, 4, 4.0):
        found = find(toy, "", scale, OFFLINE, registered)
        assert found is not None
        assert (found.record.name, found.source, found.reference) == (f"demo-x{scale:g}", "shipped", f"demo-x{scale:g}")
    with pytest.raises(UserError) as caught:
        find(toy, "", 8, OFFLINE, registered)
    message = str(caught.value)
    assert "no weights ship with it for 8x" in message
    assert "demo-x2 (demo, 2x, shipped), demo-x4 (demo, 4x, shipped), official (official, 8x, Hub org/repo@00000000)" in message
    assert "--method toy@NAME" in message
    assert "mrbench train toy --scale 8" in message


def test_default_is_never_official(card, registered, shipped) -> None:
    with pytest.raises(UserError, match=r"no weights ship with it for 4x\. Its checkpoints: official"):
        find(card(shipped(4, "official", tier="official")), "", 4, OFFLINE, registered)


def test_weights_for_any_scale_serve_where_none_is_exact(card, registered, shipped) -> None:
    toy = card(shipped(None, "prior", kind="prior"), shipped(4))
    assert find(toy, "", 4, OFFLINE, registered).record.name == "demo-x4"
    assert find(toy, "", 8, OFFLINE, registered).record.name == "prior"
    assert find(toy, "", None, OFFLINE, registered).record.name == "prior"


def test_a_card_without_public_checkpoints_says_so(card, registered) -> None:
    trainable = dataclasses.replace(plain(Loads), recipe="nowhere:Recipe")
    for toy in (card(tier="retrained"), trainable):
        with pytest.raises(UserError, match=r"no weights ship with it for 4x\. No checkpoint of it is public or registered"):
            find(toy, "", 4, OFFLINE, registered)


# -- names and paths -----------------------------------------------------------------------------------------------
def test_names_win_and_unknown_ones_are_explained(card, registered, shipped, tmp_path, monkeypatch) -> None:
    toy = card(shipped(2), shipped(4))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-x2").mkdir()
    assert find(toy, "demo-x2", 4, OFFLINE, registered).source == "shipped"
    with pytest.raises(
        UserError, match=r"no checkpoint 'demo-x3'\. Did you mean.*Its checkpoints: demo-x2 \(demo, 2x, shipped\)"
    ):
        find(toy, "demo-x3", 4, OFFLINE, registered)


def test_folder_and_file_paths(card, registered, make_folder, monkeypatch, tmp_path) -> None:
    folder = make_folder("mine")
    monkeypatch.chdir(tmp_path)
    for text in (str(folder), "./mine", "mine", "mine/model.safetensors"):
        found = find(card(), text, 4, OFFLINE, registered)
        assert (found.source, found.record.name, found.record.tier, found.notes) == ("local", "mine", "retrained", ())
        assert found.reference == found.record.file == str(folder / "model.safetensors")
    local = resolve(found.record, "toy", OFFLINE, registered)
    assert local.config["architecture"] == {"width": 2}
    assert local.training["probe"]["scores"] == {"psnr": 30.0}
    again = find(card(), found.reference, 4, OFFLINE, registered)
    assert again == found


def test_bare_official_file(card, registered, tmp_path) -> None:
    import torch

    file = tmp_path / "resshift_x4.pth"
    torch.save({"state_dict": {"w": torch.ones(1)}}, file)
    (tmp_path / "config.json").write_text('{"method": "someone else\'s"}')  # beside a .pth it is not ours
    found = find(card(), str(file), 4, OFFLINE, registered)
    assert (found.record.name, found.record.tier, found.record.scale) == ("resshift_x4", "author", None)
    assert "nothing says where the weights resshift_x4.pth come from" in found.notes[0]
    local = resolve(found.record, "toy", OFFLINE, registered)
    assert (dict(local.config), local.training) == ({}, None)
    assert local.tensors(unwrap=("state_dict",))["w"].item() == 1


def test_the_bytes_of_a_known_checkpoint_are_known(card, registered, make_folder, shipped) -> None:
    """NAME@PATH with a copy of a file on the card: the same record, so the same run."""
    official = Checkpoint(
        "official", "w.safetensors", shipped(4).sha256, "official", "org/repo", "0" * 40, scale=4, licence="MIT"
    )
    folder = make_folder("copy")
    (folder / "config.json").unlink()
    found = find(card(official), str(folder / "model.safetensors"), 4, OFFLINE, registered)
    expected = dataclasses.replace(official, file=str(folder / "model.safetensors"), repo_id="", revision="")
    assert (found.record, found.source, found.notes) == (expected, "local", ())
    assert resolve(found.record, "toy", OFFLINE, registered).tensors()


def test_path_of_another_method_or_nothing(card, registered, make_folder, tmp_path) -> None:
    with pytest.raises(UserError, match=r"a checkpoint of method sinsr, not of toy.*--method sinsr@PATH"):
        find(card(), str(make_folder("other", method="sinsr")), 4, OFFLINE, registered)
    with pytest.raises(UserError, match="no such file or folder"):
        find(card(), str(tmp_path / "absent.safetensors"), 4, OFFLINE, registered)


# -- resolving -----------------------------------------------------------------------------------------------------
def test_shipped_checkpoint_resolves(card, registered, shipped) -> None:
    local = resolve(shipped(2), "toy", OFFLINE, registered)
    assert local.config["scale"] == 2
    assert sorted(local.tensors()) == ["layer.bias", "layer.weight"]


def test_shipped_checkpoint_with_other_bytes_is_refused_and_stays(registered, shipped) -> None:
    wrong = shipped(4, sha256="1" * 64)
    with pytest.raises(UserError, match=r"expected SHA-256 1{64}\n  found    SHA-256 [0-9a-f]{64}\nInstall the package again"):
        resolve(wrong, "toy", OFFLINE, registered)
    assert resolve(shipped(4), "toy", OFFLINE, registered).file.is_file()


def test_record_and_config_must_agree(registered, shipped) -> None:
    record = dataclasses.replace(shipped(4), scale=2)
    with pytest.raises(UserError, match=r"says 4x, the record of demo-x4 says 2x"):
        resolve(record, "toy", OFFLINE, registered)
    with pytest.raises(UserError, match=r"a checkpoint of method toy, not of other"):
        resolve(shipped(4), "other", OFFLINE, registered)
    with pytest.raises(UserError, match=r"toy@demo-x4: its record has no SHA-256"):
        resolve(shipped(4, sha256=""), "toy", OFFLINE, registered)


def test_a_local_file_that_changed_or_went(card, registered, make_folder) -> None:
    folder = make_folder("mine")
    record = find(card(), str(folder), 4, OFFLINE, registered).record
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"not the file that it should be(.|\n)*checkpoints add toy"):
        resolve(record, "toy", OFFLINE, registered)
    assert file.is_file()  # a user's own file is never renamed
    file.unlink()
    with pytest.raises(UserError, match="is not there any more"):
        resolve(record, "toy", OFFLINE, registered)


def test_files_hosted_elsewhere_are_named_not_downloaded(card, registered, tmp_path) -> None:
    url = "https://example.org/releases/v2/net.pth"
    official = Checkpoint("official", url, ZERO, "official", scale=4)
    assert find(card(official), "official", 4, OFFLINE, registered).source == "elsewhere"
    with pytest.raises(UserError) as caught:
        resolve(official, "toy", OFFLINE, registered)
    assert url in str(caught.value)
    assert ZERO in str(caught.value)
    assert "mrbench checkpoints add toy FILE --name official" in str(caught.value)


def test_mismatches_are_said() -> None:
    record = Checkpoint("a", "f", ZERO, "demo", scale=4, degradation="bicubic_aa", channels=1)
    assert mismatches(record, scale=4.0, degradation="bicubic_aa", channels=1) == []
    assert mismatches(record, scale=2, degradation="kspace_crop", channels=3) == [
        "weights for 4x used at 2x",
        "weights for degradation bicubic_aa used on kspace_crop",
        "weights for 1 channels used on 3",
    ]
    anything = Checkpoint("a", "f", ZERO, "demo")
    assert mismatches(anything, scale=8, degradation="area", channels=1) == []


# -- listing -------------------------------------------------------------------------------------------------------
def test_listing_says_what_is_where(card, registered, shipped, make_folder, tmp_path) -> None:
    elsewhere = Checkpoint("official", "https://example.org/net.pth", "", "official", scale=4)
    remote = Checkpoint("paper", "m.safetensors", ZERO, "official", "org/repo", "a" * 40, scale=4)
    gone = shipped(2, "gone")
    gone = dataclasses.replace(gone, file=gone.file.replace("x2", "x3"))
    cards = [card(shipped(4), gone, remote, elsewhere), card(tier="none", name="bicubic"), card(tier="retrained", name="bare")]
    own = find(card(), str(make_folder("mine")), 4, OFFLINE, registered).record
    registered.add("toy", own)
    rows = listing(cards, Hub(cache=tmp_path / "cache"), registered)
    seen = [(r.method, r.record.name if r.record else "", r.source, r.state, r.where) for r in rows]
    assert seen == [
        ("toy", "demo-x4", "shipped", "here", "shipped"),
        ("toy", "gone", "shipped", "missing", "shipped"),
        ("toy", "paper", "hub", "to pull", "Hub org/repo@aaaaaaaa"),
        ("toy", "official", "elsewhere", "to download", "https://example.org/net.pth"),
        ("toy", "mine", "local", "here", f"registered {own.file}"),
        ("bare", "", None, "none", "no public checkpoint"),
    ]
    assert rows[0].document()["scale"] == 4
    assert rows[-1].document() == {
        "method": "bare", "source": None, "state": "none", "where": "no public checkpoint", "path": "", "registered": False,
    }  # fmt: skip
