"""Where the development data are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def shared() -> Path:
    """The development data beside the repository."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("MRBENCH_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"needs the development data in {folder} (set MRBENCH_SHARED_DATA)")
    return folder
