"""Reading weights: what is in them, and what is refused without being run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.hub.checkpoint import weights_in


def local(file: Path) -> LocalCheckpoint:
    return LocalCheckpoint(Checkpoint("a", str(file), "", "official"), file)


class Code:
    """Makes a file if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_folder_gives_record_and_tensors(make_folder) -> None:
    found = read_folder(make_folder())
    r = found.record
    assert (r.name, r.tier, r.scale, r.degradation, r.channels, r.kind) == (
        "toy-x4",
        "retrained",
        4,
        "bicubic_aa",
        1,
        "network",
    )
    assert (r.trained_on, r.optimised_for, dict(r.probe_scores), r.licence) == (
        "phantom",
        ("psnr",),
        {"psnr": 30.0},
        "Apache-2.0",
    )
    assert found.config["architecture"] == {"width": 2}
    assert found.training is not None
    assert found.training["steps"] == 10
    tensors = found.tensors()
    assert {k: (v.dtype, tuple(v.shape)) for k, v in tensors.items()} == {
        "layer.weight": (torch.float16, (2, 3)),
        "layer.bias": (torch.float32, (2,)),
    }
    assert torch.equal(tensors["layer.weight"], torch.arange(6.0).reshape(2, 3).half())


def test_hash_follows_the_bytes(make_folder, weights: bytes) -> None:
    import hashlib

    folder = make_folder()
    first = read_folder(folder).record.sha256
    assert first == hashlib.sha256(weights).hexdigest()
    changed = weights[:-1] + bytes([weights[-1] ^ 1])  # the same size, at the same moment
    (folder / "model.safetensors").write_bytes(changed)
    assert read_folder(folder).record.sha256 == hashlib.sha256(changed).hexdigest()


def test_hash_of_an_old_file_is_remembered_until_it_changes(tmp_path: Path) -> None:
    from mrbench.hub.hashing import _remembered, weights_sha256

    file = tmp_path / "a.pth"
    file.write_bytes(b"one")
    os.utime(file, (1e9, 1e9))
    before = _remembered.cache_info().hits
    first = weights_sha256(file)
    assert weights_sha256(file) == first
    assert _remembered.cache_info().hits == before + 1
    file.write_bytes(b"two")
    os.utime(file, (1e9, 1e9 + 1))
    assert weights_sha256(file) != first


@pytest.mark.parametrize("key", ["state_dict", "params_ema"])
def test_official_files_are_unwrapped_as_told(tmp_path: Path, key: str) -> None:
    file = tmp_path / "a.pth"
    torch.save({"iter": 3, key: {"w": torch.ones(2), "steps": 7}, "other": {"w": torch.zeros(2)}}, file)
    found = local(file).tensors(unwrap=("params_ema", "state_dict"))
    assert list(found) == ["w"]
    assert torch.equal(found["w"], torch.ones(2))
    with pytest.raises(UserError, match=rf"no tensors by name.*'iter', '{key}', 'other'"):
        local(file).tensors()
    with pytest.raises(UserError, match=r"looked for 'net'"):
        local(file).tensors(unwrap=("net",))


def test_the_first_key_wins_and_flat_files_need_none(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    torch.save({"ema": {"w": torch.ones(1)}, "model": {"w": torch.zeros(1)}}, file)
    assert local(file).tensors(unwrap=("ema", "model"))["w"].item() == 1
    assert local(file).tensors(unwrap=("model", "ema"))["w"].item() == 0
    torch.save({"w": torch.full((1,), 5.0)}, file)
    assert local(file).tensors(unwrap=("ema", "model"))["w"].item() == 5
    torch.save([torch.ones(1)], file)
    with pytest.raises(UserError, match="holds a list"):
        local(file).tensors()
    assert local(file).contents()[0].item() == 1


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("wrapped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int, wrapped: bool) -> None:
    mark, file = tmp_path / "ran", tmp_path / "a.pth"
    content = {"w": torch.ones(1), "evil": Code(mark)}
    if wrapped:
        torch.save(content, file, pickle_protocol=protocol or 2)
    else:
        with file.open("wb") as stream:
            pickle.dump({"evil": Code(mark)}, stream, protocol=protocol)
    with pytest.raises(UserError, match=r"refused: it .*nothing of it was executed") as caught:
        local(file).tensors()
    assert not mark.exists()
    if wrapped and protocol in (2, 3):
        assert "posix.mkdir" in str(caught.value) or "nt.mkdir" in str(caught.value)
    with file.open("rb") as stream:  # the trap works where files are unpickled freely
        if not wrapped:
            pickle.load(stream)
            assert mark.is_dir()


def test_objects_of_other_projects_are_named(tmp_path: Path) -> None:
    import argparse

    file = tmp_path / "a.ckpt"
    torch.save({"args": argparse.Namespace(a=1), "state_dict": {}}, file)
    with pytest.raises(UserError, match=r"names the Python object argparse\.Namespace.*safetensors"):
        local(file).tensors()


@pytest.mark.parametrize("kept", [0, 4, 20, -4])
def test_truncated_safetensors(tmp_path: Path, weights: bytes, kept: int) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(weights[:kept] if kept else b"")
    with pytest.raises(UserError, match=r"not a whole safetensors file .*cut short or of another kind. Get it again"):
        local(file).tensors()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short here", b"no pickle at all"])
def test_truncated_pickles(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"cut short|refused"):
        local(file).tensors()


def test_half_a_torch_file(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    torch.save({"w": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match="not a whole PyTorch file"):
        local(file).tensors()


def test_a_pickle_called_safetensors_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    mark = tmp_path / "ran"
    torch.save({"evil": Code(mark)}, file)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        local(file).tensors()
    assert not mark.exists()


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(b"x")
    with pytest.raises(UserError, match=r"\.safetensors, \.pt, \.pth, \.ckpt files"):
        local(file).tensors()
    with pytest.raises(UserError, match=r"\.safetensors, \.pt, \.pth, \.ckpt files"):
        weights_in(file)


def test_folders_that_are_no_checkpoints(tmp_path: Path, make_folder) -> None:
    with pytest.raises(UserError, match=r"no such file or folder"):
        weights_in(tmp_path / "absent")
    with pytest.raises(UserError, match=r"model\.safetensors and config\.json missing"):
        weights_in(tmp_path)
    folder = make_folder()
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json missing"):
        weights_in(folder)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tier": "best"}, "tier 'best' is none of demo, retrained, official, author"),
        ({"tier": "none"}, "tier 'none'"),
        ({"scale": "four"}, "scale 'four' is no whole number"),
        ({"channels": [1]}, "channels"),
        ({"kind": "gan"}, "kind 'gan' is none of network, prior"),
        ({"format": 2}, "format 2.*Update mrbench"),
        ({"format": "new"}, "format new"),
    ],
)
def test_bad_configs_are_refused(make_folder, changes: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        read_folder(make_folder(**changes))


def test_damaged_json_is_named(make_folder) -> None:
    folder = make_folder()
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read as JSON"):
        read_folder(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object, got list"):
        read_folder(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="names no method"):
        read_folder(folder)


def test_checkpoint_of_another_method(make_folder) -> None:
    folder = make_folder(method="sinsr")
    with pytest.raises(UserError, match=r"a checkpoint of method sinsr, not of res_srdiff"):
        read_folder(folder, "res_srdiff")
    assert read_folder(folder).config["method"] == "sinsr"
