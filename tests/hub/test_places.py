"""Where records say that files are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mrbench.cards import Checkpoint
from mrbench.errors import UserError
from mrbench.hub import HubReference, source_of
from mrbench.hub.places import shipped_file


def record(file: str, repo_id: str = "", revision: str = "") -> Checkpoint:
    return Checkpoint("a", file, "0" * 64, "demo", repo_id, revision)


@pytest.mark.parametrize(
    ("file", "repo_id", "source"),
    [
        ("mrbench_methods.res_srdiff:weights/x4/model.safetensors", "", "shipped"),
        ("x4/model.safetensors", "org/repo", "hub"),
        ("https://example.org/a.pth", "", "elsewhere"),
        ("/home/me/a.pth", "", "local"),
        ("C:\\me\\a.pth", "", "local"),
        ("C:/me/a.pth", "", "local"),
    ],
)
def test_source_of_a_record(file: str, repo_id: str, source: str) -> None:
    assert source_of(record(file, repo_id)) == source


def test_shipped_file_is_found_beside_its_package() -> None:
    import mrbench.protocols

    found = shipped_file(record("mrbench.protocols:uniform-x4.yaml"))
    assert found == Path(mrbench.protocols.__file__).parent / "uniform-x4.yaml"


def test_shipped_file_of_a_plugin_file(tmp_path: Path) -> None:
    from mrbench.plugins import discover

    (tmp_path / "one_file.py").write_text("import mrbench\n@mrbench.hookimpl\ndef mrbench_methods(): return []\n")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    discover([tmp_path / "one_file.py"], {"MRBENCH_PLUGINS": ""})
    assert shipped_file(record("mrbench_plugin_file_one_file:w.safetensors")) == tmp_path / "w.safetensors"


def test_missing_shipped_files_are_named() -> None:
    with pytest.raises(UserError, match=r"protocols.none\.yaml.*Install the package again"):
        shipped_file(record("mrbench.protocols:none.yaml"))
    with pytest.raises(UserError, match="no_such_package_here, which is not installed"):
        shipped_file(record("no_such_package_here:a"))
    with pytest.raises(UserError, match="no_such_package_here"):
        shipped_file(record("no_such_package_here.sub:a"))


def test_hub_reference() -> None:
    found = HubReference.parse("hf://org/repo.x@0123abc/deep/model.safetensors")
    assert found == HubReference("org/repo.x", "0123abc", "deep/model.safetensors")
    assert str(found) == "hf://org/repo.x@0123abc/deep/model.safetensors"
    request = HubReference.parse("hf://org/repo@refs%2Fpr%2F1/a.pth")
    assert request.revision == "refs/pr/1"
    assert HubReference.parse(str(request)) == request


@pytest.mark.parametrize("text", ["hf://org/repo/model.safetensors", "hf://org/repo", "hf://org/repo@/a.pth"])
def test_hub_reference_needs_a_revision(text: str) -> None:
    with pytest.raises(UserError, match=r"no revision.*hf://org/repo@COMMIT/model\.safetensors"):
        HubReference.parse(text)


@pytest.mark.parametrize(
    "text",
    ["hf://repo@main/a.pth", "hf://a/b/c@main/a.pth", "hf://org/repo@main", "hf://org/repo@main/", "hf://o/r@main/../a.pth"],
)
def test_bad_hub_references_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="hf://"):
        HubReference.parse(text)


def test_importing_the_hub_is_light() -> None:
    code = (
        "import mrbench.hub, mrbench.hub.adding, mrbench.cli.checkpoints, sys\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "huggingface_hub", "safetensors", "pandas", "numpy", "rich"} & set(loaded) <= {"rich"}
    assert "pydantic" in loaded
