"""The reading layer works without torch."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "pandas", "matplotlib")


def _modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_listing_items_needs_no_torch(tmp_path):
    loaded = _modules_after(
        "from pathlib import Path\n"
        "from mrbench.data.items import list_items, load_slice\n"
        "from mrbench.settings import PreparationSpec\n"
        "from mrbench_datasets.sample.dataset import SampleDataset\n"
        "from mrbench_datasets.folder.dataset import FolderDataset\n"
        f"items = list_items('sample', '1', SampleDataset(), PreparationSpec(), cache_dir=Path({str(tmp_path)!r})).items\n"
        "load_slice(items[0])"
    )
    assert not loaded & set(HEAVY)


def test_cards_and_settings_are_light():
    loaded = _modules_after("import mrbench.settings, mrbench_datasets.sample, mrbench_datasets.folder")
    assert not loaded & {*HEAVY, "numpy", "scipy", "PIL", "nibabel"}
