"""The photographs of scikit-image and scikit-learn."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from mrbench_datasets.photographs import dataset as module
from mrbench_datasets.photographs import mrbench_datasets
from mrbench_datasets.photographs.dataset import PHOTOGRAPHS, PhotographsDataset

from mrbench.data.images import read_image
from mrbench.data.items import list_items
from mrbench.data.records import BadSource, VolumeRef
from mrbench.settings import PreparationSpec

HAVE_SKLEARN = importlib.util.find_spec("sklearn") is not None


def test_the_card_counts_them():
    (card,) = mrbench_datasets()
    assert card.load() is PhotographsDataset
    assert card.expected.startswith(f"{len(PHOTOGRAPHS)} pictures")
    assert len({p.name for p in PHOTOGRAPHS}) == len({p.sha256 for p in PHOTOGRAPHS}) == 12


def test_all_are_there_and_train():
    found = PhotographsDataset().refs()
    refs = [r for r in found if isinstance(r, VolumeRef)]
    assert len(refs) == (12 if HAVE_SKLEARN else 10)
    assert [r.subject for r in found] == [p.name for p in PHOTOGRAPHS]
    assert {r.split for r in refs} == {"train"}
    for bad in (r for r in found if isinstance(r, BadSource)):
        assert "pip install scikit-learn" in bad.reason


def test_reading_gives_luminance():
    dataset = PhotographsDataset()
    refs = {r.subject: r for r in dataset.refs() if isinstance(r, VolumeRef)}
    coffee = dataset.read(refs["coffee"])
    assert coffee.array.shape == (1, 1, 400, 600)
    assert coffee.array.dtype == np.float32
    red, green, blue = read_image(refs["coffee"].files[0])
    np.testing.assert_allclose(coffee.array[0, 0], 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-3)
    assert coffee.mask is not None
    assert coffee.mask.all()
    camera = dataset.read(refs["camera"])
    np.testing.assert_array_equal(camera.array[0, 0], read_image(refs["camera"].files[0])[0])


def test_they_become_training_slices(tmp_path):
    items = list_items("ood", "1", PhotographsDataset(), PreparationSpec(), "train", cache_dir=tmp_path)
    assert len(items.items) == (12 if HAVE_SKLEARN else 10)
    assert all(item.fraction == 1 for item in items.items)
    assert {item.shape for item in items.items} >= {(1, 512, 512), (1, 400, 600), (1, 296, 448)}


def test_another_version_of_a_package_is_noticed(tmp_path, monkeypatch):
    places = {"skimage": tmp_path, "sklearn": None}
    monkeypatch.setattr(module, "_folder", places.get)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "camera.png").write_bytes(b"another picture")
    found = {r.subject: r for r in PhotographsDataset().refs()}
    assert all(isinstance(r, BadSource) for r in found.values())
    assert "another file under this name" in found["camera"].reason
    assert "scikit-image may not bring it" in found["astronaut"].reason
    assert "pip install scikit-learn" in found["china"].reason


def test_a_package_that_is_not_installed():
    assert module._folder("no_such_package_of_pictures") is None
    assert module._folder("skimage") is not None


@pytest.mark.skipif(not HAVE_SKLEARN, reason="scikit-learn is not installed")
def test_no_package_is_imported(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from mrbench_datasets.photographs.dataset import PhotographsDataset as P; P().refs(); "
        "sys.exit(any(m in sys.modules for m in ('skimage', 'sklearn', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
