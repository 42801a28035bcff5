"""Shared fixtures: a private cache, no network, the plugins of this installation only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests_support import Done

if TYPE_CHECKING:
    from mrbench.plugins import Registry

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("MRBENCH_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of prepared volumes for the whole session, outside the user's."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _private_environment(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    if "MRBENCH_CACHE" not in os.environ or not os.environ["MRBENCH_CACHE"].startswith(str(cache_folder.parent)):
        monkeypatch.setenv("MRBENCH_CACHE", str(cache_folder))
    monkeypatch.setenv("MRBENCH_DATA", str(cache_folder.parent / "no-data"))
    monkeypatch.setenv("MRBENCH_OFFLINE", "1")
    monkeypatch.delenv("MRBENCH_PLUGINS", raising=False)


@pytest.fixture(scope="module")
def registry() -> Registry:
    """All plugins of this installation."""
    from mrbench.plugins import discover

    return discover()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One CPU thread for PyTorch: small networks are fastest so, and sums do not depend on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def mrbench(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Call ``mrbench`` in this process: exactly what the console script does, without starting Python again."""

    def call(*arguments: object) -> Done:
        from mrbench.cli.main import main

        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["mrbench", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return call
