"""Every golden file against mrbench."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location("mrbench_golden_dispatch", Path(__file__).resolve().parent / "dispatch.py")
assert _spec is not None
assert _spec.loader is not None
dispatch = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dispatch)

ROOT = dispatch.golden_folder()
HANDLERS = dispatch.load_handlers()
CASES = dispatch.take_stock(ROOT, HANDLERS).cases if ROOT.is_dir() else ()


PARAMETERS = [pytest.param(*case, id=f"{case[0].path.parent.name}/{case[0].path.stem}") for case in CASES]
ABSENT = pytest.param(None, None, id="absent", marks=pytest.mark.skip(f"no golden folder {ROOT} (set MRBENCH_GOLDEN)"))


@pytest.mark.shared
@pytest.mark.parametrize(("golden", "handler"), PARAMETERS or [ABSENT])
def test_golden(golden, handler):
    handler(golden)


@pytest.mark.shared
def test_every_file_is_handled_or_pending():
    stock = dispatch.take_stock(dispatch.require_golden_folder(), HANDLERS)
    assert not stock.faults, "\n".join(stock.faults)
    assert stock.cases


def test_nothing_is_both_handled_and_pending():
    for family, prefixes in dispatch.PENDING.items():
        assert not set(prefixes) & set(HANDLERS.get(family, {}))


def stock(root: Path):
    return dispatch.take_stock(root, HANDLERS)


def image_pair(folder: Path, psnr: float) -> Path:
    """A golden file with one pair of images that are 0.1 apart everywhere."""
    folder.mkdir(parents=True)
    truth = np.full((32, 40), 0.5, np.float32)
    np.savez(folder / "image_metrics_extra.npz", a=truth, b=truth + np.float32(0.125))
    case = {"ref": "a", "img": "b", "mask": "ref > 0.1", "expected": {"psnr_L1": psnr}}
    document = {
        "arrays": "image_metrics_extra.npz",
        "data_range": 1.0,
        "cases": {"apart": case},
        "tolerance": {"float64": 1e-9, "float32": 5e-5, "psnr_float32": 1e-3},
    }
    file = folder / "image_metrics_extra.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_an_unknown_file_is_a_fault(tmp_path):
    image_pair(tmp_path / "metrics", 18.0)
    (tmp_path / "metrics" / "README.md").write_text("words")
    assert not stock(tmp_path).faults
    (tmp_path / "metrics" / "novelty.json").write_text("{}")
    (tmp_path / "metrics" / "image_metrics_stray.npz").write_bytes(b"")
    (tmp_path / "unheard").mkdir()
    (tmp_path / "unheard" / "image_metrics.json").write_text("{}")
    assert [fault.split(":")[0] for fault in stock(tmp_path).faults] == [
        "metrics/image_metrics_stray.npz", "metrics/novelty.json", "unheard/image_metrics.json",
    ]  # fmt: skip


def test_pending_files_are_known_by_prefix_and_family(tmp_path):
    for name in ("metrics/stats_b.json", "resshift/stats_b.json", "resshift/vq.weights.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = dispatch.take_stock(tmp_path, {}, {"metrics": ("stats",), "resshift": ("vq",)})
    assert {p.name for p in found.pending} == {"stats_b.json", "vq.weights.safetensors"}
    assert [fault.split(":")[0] for fault in found.faults] == ["resshift/stats_b.json"]


def test_other_folders_of_a_family_and_other_numbers(tmp_path):
    right = 10 * np.log10(1 / 0.125**2)
    image_pair(tmp_path / "metrics_more", right)
    ((golden, handler),) = stock(tmp_path).cases
    handler(golden)
    image_pair(tmp_path / "metrics", right + 0.01)
    (golden, handler), _ = stock(tmp_path).cases
    with pytest.raises(AssertionError, match="apart psnr_L1 float64"):
        handler(golden)


@pytest.mark.shared
def test_a_changed_number_is_found(tmp_path):
    source = dispatch.require_golden_folder() / "metrics"
    for file in ("image_metrics.json", "image_metrics.npz", "lpips.json", "lpips.npz"):
        (tmp_path / "metrics").mkdir(exist_ok=True)
        shutil.copyfile(source / file, tmp_path / "metrics" / file)
    for name, path in (
        ("image_metrics", ("cases", "blur128", "expected", "gmsd")),
        ("lpips", ("linear_heads", "expected", "squeeze", "total")),
    ):
        file = tmp_path / "metrics" / f"{name}.json"
        document = json.loads(file.read_text())
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] *= 1.01
        if name == "lpips":
            document["random_backbone"]["expected"] = {}
            document["linear_heads"]["expected"] = {"squeeze": document["linear_heads"]["expected"]["squeeze"]}
        file.write_text(json.dumps(document))
    for golden, handler in stock(tmp_path).cases:
        with pytest.raises(AssertionError, match="expected"):
            handler(golden)


def test_a_value_without_meaning_is_refused(tmp_path):
    file = image_pair(tmp_path / "metrics", 1.0)
    document = json.loads(file.read_text())
    document["cases"]["apart"]["expected"] = {"sharpness": 1.0}
    file.write_text(json.dumps(document))
    ((golden, handler),) = stock(tmp_path).cases
    with pytest.raises(AssertionError, match="unknown value 'sharpness'"):
        handler(golden)
