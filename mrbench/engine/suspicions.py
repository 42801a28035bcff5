"""What may be wrong with images made elsewhere: findings with numbers, from pairs of prediction and ground truth.

Every test asks whether undoing one mistake (a shift, a flip, a gain) makes the pairs agree much better, so that plain
restoration errors (blur, noise, artefacts) raise no alarm. Tests run in an order in which one mistake hides the next:
orientation, contrast and intensity, then position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]

ORIENTATION_DB, TOGETHER_DB = 3.0, 1.0  # another orientation must fit better by this much: a single pair, or nearly all pairs
NEARLY_ALL, SEVERAL = 0.8, 3
INVERTED_BELOW = -0.5  # correlation of block means
OTHER_SCALE = 8.0  # a fitted gain beyond this factor is another range of values, not another contrast
GAIN, OFFSET = 0.02, 0.01  # |gain - 1| or |offset| beyond count if undoing them fits better
INTENSITY_DB, BLOCKS_DB = 0.5, 6.0  # ... by this much, PSNR and block means: blur and noise are not undone so
BRIGHT = 0.3  # of the maximum
SHIFT_PIXELS, SHIFT_DB = 0.1, 0.25
LEVELS = 256
SATURATED, SPREAD, CUT = 0.01, 0.04, 0.8  # pixels at the top, sd of the ground truth there, share of bright pixels at the top
SMALLEST = 16  # pixels of the shorter side
BLOCK = 8  # pixels; means over blocks are free of noise and of blur
MAJORITY = 0.5

_TRANSFORMS: dict[str, Callable[[Image], Image]] = {
    "upside down": lambda x: x[::-1],
    "left and right swapped": lambda x: x[:, ::-1],
    "rotated by 180 degrees": lambda x: x[::-1, ::-1],
    "rotated by 90 degrees counter-clockwise": lambda x: np.rot90(x, -1),
    "rotated by 90 degrees clockwise": lambda x: np.rot90(x, 1),
    "transposed": lambda x: x.T,
    "transposed and rotated by 180 degrees": lambda x: x[::-1, ::-1].T,
}  # what is wrong with the prediction -> what undoes it


@dataclass(frozen=True)
class Suspicion:
    """One finding: ``kind`` for programs, ``text`` for people, and the ``numbers`` that it rests on."""

    kind: str
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {"kind": self.kind, "text": self.text, **self.numbers}


@dataclass(frozen=True)
class Example:
    """A pair as stored: ``pred [C, h, w]`` and ``target [C, H, W]``, C = 1 grey, 2 complex (real, imaginary), 3 colour."""

    name: str
    pred: NDArray[np.float32]
    target: NDArray[np.float32]


@dataclass(frozen=True)
class _Pair:
    """Grey float64 images ``[H, W]`` on the unit range of the ground truth, the prediction unclipped."""

    pred: Image
    target: Image


def find_suspicions(examples: Sequence[Example], low: float, high: float) -> list[Suspicion]:
    """Look for common mistakes in pairs of images.

    Parameters
    ----------
    examples : a sample of all pairs; those of unequal size are only tested for swapped axes. Constant images and those below
        16 pixels are left out.
    low, high : the stored values that become 0 and 1 for both images.
    """
    usable = [e for e in examples if _usable(e)]
    equal = [e for e in usable if e.pred.shape[1:] == e.target.shape[1:]]
    pairs = [_unit(e, low, high) for e in equal]
    found = _bit_depth(equal)
    orientation, pairs = _orientation([*pairs, *(_unit(e, low, high) for e in usable if _swapped(e))])
    found += orientation
    cut = _saturation(pairs)
    intensity, pairs = ([], pairs) if cut else _intensity(pairs, low, high)  # values that were cut off spoil the fit
    return found + cut + intensity + _shift(pairs)


def identical_images(names: Sequence[str], total: int) -> list[Suspicion]:
    """A finding about the pairs ``names`` whose two images are equal, out of ``total``; none for no names."""
    if not names:
        return []
    shown = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if len(names) < total else ""
    text = f"{_of(len(names), total)}{shown}: predictions equal the ground truth (PSNR inf): did it leak into them?"
    return [Suspicion("identical", text, {"count": len(names), "of": total})]


def psnr(pred: Image, target: Image) -> float:
    """PSNR in dB of images on the unit range, clipped to it; ``inf`` for equal ones."""
    error = float(np.mean((np.clip(pred, 0, 1) - np.clip(target, 0, 1)) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def _usable(example: Example) -> bool:
    sides = (*example.pred.shape[1:], *example.target.shape[1:])
    if min(sides) < SMALLEST or not np.isfinite(example.pred).all():
        return False
    return bool(np.ptp(_grey(example.pred)) > 0 and np.ptp(_grey(example.target)) > 0)


def _grey(image: NDArray[np.float32]) -> Image:
    values = image.astype(np.float64)
    return np.asarray(np.hypot(values[0], values[1]) if values.shape[0] == 2 else values.mean(0))


def _unit(example: Example, low: float, high: float) -> _Pair:
    return _Pair((_grey(example.pred) - low) / (high - low), (_grey(example.target) - low) / (high - low))


def _swapped(example: Example) -> bool:
    (h, w), (height, width) = example.pred.shape[1:], example.target.shape[1:]
    return (h, w) != (height, width) and (w, h) == (height, width)


def _block_means(image: Image) -> Image:
    """Means over blocks of ``BLOCK`` pixels (smaller for small images), flattened."""
    size = max(2, min(BLOCK, min(image.shape) // 8))
    rows, columns = (n - n % size for n in image.shape)
    blocks = image[:rows, :columns].reshape(rows // size, size, columns // size, size)
    return np.asarray(blocks.mean((1, 3)).ravel())


def _of(count: int, total: int) -> str:
    if count == total:
        return f"all {total} pairs" if total > 1 else "the one pair"
    return f"{count} of {total} pairs"


def _db(value: float) -> float:
    """Decibels for JSON: finite, two decimals."""
    return round(min(max(value, -999.0), 999.0), 2)


# -- orientation ---------------------------------------------------------------------------------------------------
def _unexplained(pred: Image, target: Image) -> float:
    """Share of the ground truth's variance that the best gain and offset of ``pred`` leave: ``1 - r^2``."""
    r = float(np.corrcoef(pred.ravel(), target.ravel())[0, 1])
    return max(1 - r * r, 1e-12)


def _orientation(pairs: Sequence[_Pair]) -> tuple[list[Suspicion], list[_Pair]]:
    """Which flip, rotation or transposition makes predictions fit, and the pairs with it undone."""
    better: dict[int, tuple[str, float]] = {}
    for i, pair in enumerate(pairs):
        same_size = pair.pred.shape == pair.target.shape
        as_is = _unexplained(pair.pred, pair.target) if same_size else 1.0
        gains = {
            name: 10 * float(np.log10(as_is / _unexplained(undo(pair.pred), pair.target)))
            for name, undo in _TRANSFORMS.items()
            if undo(pair.pred).shape == pair.target.shape
        }
        best = max(gains, key=lambda name: gains[name])
        if gains[best] > TOGETHER_DB:
            better[i] = (best, gains[best])
    votes = Counter(name for name, _ in better.values())
    agreed = {name for name, count in votes.items() if count >= max(SEVERAL, NEARLY_ALL * len(pairs))}
    wrong = {i: (name, gain) for i, (name, gain) in better.items() if gain > ORIENTATION_DB or name in agreed}
    found = []
    fixed = list(pairs)
    for name, count in Counter(name for name, _ in wrong.values()).most_common():
        indices = [i for i, (other, _) in wrong.items() if other == name]
        for i in indices:
            fixed[i] = _Pair(_TRANSFORMS[name](pairs[i].pred), pairs[i].target)
        gain = float(np.median([wrong[i][1] for i in indices]))
        after = float(np.median([psnr(fixed[i].pred, fixed[i].target) for i in indices]))
        same = [i for i in indices if pairs[i].pred.shape == pairs[i].target.shape]
        before = float(np.median([psnr(pairs[i].pred, pairs[i].target) for i in same])) if same else None
        text = (
            f"{_of(count, len(pairs))}: predictions look {name}; undoing it raises the median PSNR "
            f"{f'from {before:.2f} ' if before is not None else ''}to {after:.2f} dB "
            f"(fit after the best gain and offset: {gain:+.1f} dB)"
        )
        numbers = {"transform": name, "count": count, "of": len(pairs), "psnr_after": _db(after), "gain_db": _db(gain)}
        if before is not None:
            numbers["psnr_before"] = _db(before)
        found.append(Suspicion("orientation", text, numbers))
    return found, [p for p in fixed if p.pred.shape == p.target.shape]


# -- intensity -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Fit:
    """``target ~ gain * pred + offset`` inside the anatomy, and by how many dB it fits better than ``pred`` as it is.

    ``better``: PSNR of the whole frame; ``smooth``: bright block means, where neither noise nor fine detail plays a part.
    """

    gain: float
    offset: float
    correlation: float
    better: float = 0.0
    smooth: float = 0.0

    @property
    def wrong(self) -> bool:
        changes = abs(self.gain - 1) > GAIN or abs(self.offset) > OFFSET
        return changes and self.better > INTENSITY_DB and self.smooth > BLOCKS_DB

    def undo(self, pair: _Pair) -> _Pair:
        return _Pair(self.gain * pair.pred + self.offset, pair.target)


def _fit(pair: _Pair) -> _Fit:
    """Regress block means of the prediction on those of the ground truth: errors of the prediction do not flatten that line.

    Only bright anatomy counts: in dark regions the floor of magnitude noise lifts the values, whatever the gain.
    """
    x, y = _block_means(pair.pred), _block_means(pair.target)
    correlation = float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0
    bright = y > BRIGHT * y.max() if correlation > 0 else np.ones(y.shape, dtype=bool)
    x, y = x[bright], y[bright]
    if abs(correlation) < -INVERTED_BELOW or bright.sum() < 8 or np.ptp(y) == 0:
        return _Fit(1.0, 0.0, correlation)
    slope = float(np.mean((x - x.mean()) * (y - y.mean())) / np.var(y))
    if slope * correlation <= 0:
        return _Fit(1.0, 0.0, correlation)
    gain = 1 / slope
    offset = float(y.mean() - gain * x.mean())
    as_is = psnr(pair.pred, pair.target)
    better = 0.0 if as_is == float("inf") else psnr(gain * pair.pred + offset, pair.target) - as_is
    before, after = float(np.mean((x - y) ** 2)), float(np.mean((gain * x + offset - y) ** 2))
    smooth = 10 * float(np.log10(before / max(after, 1e-12 * before))) if before > 0 else 0.0
    return _Fit(gain, offset, correlation, better, smooth)


def _intensity(pairs: Sequence[_Pair], low: float, high: float) -> tuple[list[Suspicion], list[_Pair]]:
    """Inverted contrast, another range, or a gain and offset; and the pairs with it undone."""
    if not pairs:
        return [], []
    fits = [_fit(p) for p in pairs]
    inverted = [f for f in fits if f.correlation < INVERTED_BELOW]
    if len(inverted) >= MAJORITY * len(fits):
        correlation = float(np.median([f.correlation for f in inverted]))
        text = (
            f"{_of(len(inverted), len(fits))}: the contrast of the predictions looks inverted "
            f"(median correlation with the ground truth {correlation:.2f})"
        )
        numbers: dict[str, Any] = {"correlation": round(correlation, 3), "count": len(inverted), "of": len(fits)}
        return [Suspicion("inverted", text, numbers)], [f.undo(p) for f, p in zip(fits, pairs, strict=True)]
    wrong = [f for f in fits if f.gain > 0 and f.wrong]
    if len(wrong) < MAJORITY * len(fits):
        return [], list(pairs)
    gains, offsets = np.array([f.gain for f in wrong]), np.array([f.offset for f in wrong])
    better = float(np.median([f.better for f in wrong]))
    gain, width = float(np.median(gains)), high - low
    offset = float(np.median(offsets)) * width + low * (1 - gain)  # of stored values
    numbers = {
        "gain": _round(gain),
        "offset": _round(offset),
        "gain_low": _round(float(gains.min())),
        "gain_high": _round(float(gains.max())),
        "gain_db": _db(better),
        "count": len(wrong),
        "of": len(fits),
    }
    corrected = [f.undo(p) for f, p in zip(fits, pairs, strict=True)]
    if gain > OTHER_SCALE or gain < 1 / OTHER_SCALE:
        tops = np.median([[np.percentile(x, 99.9) for x in (p.pred, p.target)] for p in pairs], axis=0) * width + low
        numbers |= {"pred_top": _round(float(tops[0])), "target_top": _round(float(tops[1]))}
        text = (
            f"{_of(len(wrong), len(fits))}: predictions are on another range than the ground truth (99.9th percentile, median "
            f"over pairs: {numbers['pred_top']:g} against {numbers['target_top']:g}; factor {gain:.4g}): store both on one range"
        )
        return [Suspicion("scale", text, numbers)], corrected
    spread = float(gains.max() - gains.min())
    own = f"; gains differ between pairs ({gains.min():.3f} to {gains.max():.3f}): was each image scaled by its own extremes?"
    text = (
        f"{_of(len(wrong), len(fits))}: intensities are off: ground truth = {gain:.3f} x prediction {offset:+.4g} (medians); "
        f"undoing it raises PSNR by {better:.2f} dB (median){own if len(wrong) > 1 and spread > GAIN else ''}"
    )
    return [Suspicion("intensity", text, numbers)], corrected


def _round(value: float) -> float:
    return float(f"{value:.4g}")


# -- quantisation --------------------------------------------------------------------------------------------------
def _bit_depth(examples: Sequence[Example]) -> list[Suspicion]:
    if not examples:
        return []
    pred, target = (_levels([getattr(e, side) for e in examples]) for side in ("pred", "target"))
    if pred > LEVELS or target <= 2 * LEVELS:
        return []
    text = (
        f"predictions hold only {pred} different values, the ground truth {target}: were they stored with 8 bits? "
        "Store floats (.npy) or 16-bit images"
    )
    return [Suspicion("bit_depth", text, {"pred_levels": pred, "target_levels": target})]


def _levels(images: Sequence[NDArray[np.float32]]) -> int:
    """Number of different values in all images."""
    values: NDArray[np.float32] = np.empty(0, np.float32)
    for image in images:
        values = np.union1d(values, image)
        if values.size > 100 * LEVELS:
            break
    return int(values.size)


def _saturation(pairs: Sequence[_Pair]) -> list[Suspicion]:
    """Many pixels at the predictions' largest value where the ground truth goes on varying."""
    if not pairs:
        return []
    top = max(float(p.pred.max()) for p in pairs)
    at_top = [p.pred >= top - 1e-9 for p in pairs]
    share = sum(int(m.sum()) for m in at_top) / sum(m.size for m in at_top)
    values = np.concatenate([p.target[m] for p, m in zip(pairs, at_top, strict=True)])
    spread = float(values.std())
    bright = [p.target >= np.median(values) for p in pairs]
    cut = sum(int((m & b).sum()) for m, b in zip(at_top, bright, strict=True)) / sum(int(b.sum()) for b in bright)
    if share < SATURATED or spread < SPREAD or cut < CUT:
        return []
    text = (
        f"{share:.1%} of the prediction's pixels have its largest value while the ground truth varies there between "
        f"{values.min():.2f} and {values.max():.2f} of its range: were bright values cut off?"
    )
    return [Suspicion("saturated", text, {"share": round(share, 4), "target_sd": round(spread, 3)})]


# -- position ------------------------------------------------------------------------------------------------------
def _shift(pairs: Sequence[_Pair]) -> list[Suspicion]:
    measured = [m for p in pairs if (m := _displacement(p)) is not None]
    moved = [(d, gain) for d, gain in measured if np.hypot(*d) >= SHIFT_PIXELS and gain >= SHIFT_DB]
    if not moved or len(moved) < MAJORITY * len(measured):
        return []
    rows, columns = (float(np.median([d[axis] for d, _ in moved])) for axis in (0, 1))
    gain = float(np.median([g for _, g in moved]))
    size = float(np.median([np.hypot(*d) for d, _ in moved]))
    text = (
        f"{_of(len(moved), len(measured))}: predictions lie {abs(rows):.2f} px {'below' if rows >= 0 else 'above'} and "
        f"{abs(columns):.2f} px to the {'right' if columns >= 0 else 'left'} of the ground truth (medians; distance "
        f"{size:.2f} px); undoing it raises PSNR by {gain:.2f} dB (median): check the resampling grid"
    )
    numbers = {
        "rows": round(rows, 3), "columns": round(columns, 3), "distance": round(size, 3), "gain_db": _db(gain),
        "count": len(moved), "of": len(measured),
    }  # fmt: skip
    return [Suspicion("shift", text, numbers)]


def _displacement(pair: _Pair) -> tuple[tuple[float, float], float] | None:
    """``(rows, columns)`` by which the prediction lies off, and the PSNR gained by undoing it; ``None`` for equal images.

    The gain is that over the image as it is and over the image moved the other way by as much: interpolation smooths noise
    either way, and that is no sign of a shift.
    """
    from scipy.ndimage import shift

    def moved_by(by: tuple[float, float]) -> Image:
        return np.asarray(shift(pair.pred, by, order=3, mode="nearest"))

    if psnr(pair.pred, pair.target) == float("inf"):
        return None
    back = _registration(pair.target, pair.pred)
    largest = min(pair.target.shape) / 8
    if max(abs(b) for b in back) > largest:
        return (0.0, 0.0), 0.0
    rest = _registration(pair.target, moved_by(back))
    back = (back[0] + rest[0], back[1] + rest[1])
    if max(abs(b) for b in back) > largest:
        return (0.0, 0.0), 0.0
    edge = 2 + int(np.ceil(max(abs(b) for b in back)))
    inner = (slice(edge, -edge), slice(edge, -edge))
    after, other = (psnr(moved_by((sign * back[0], sign * back[1]))[inner], pair.target[inner]) for sign in (1, -1))
    gain = after - max(other, psnr(pair.pred[inner], pair.target[inner]))
    return (-back[0], -back[1]), gain


def _registration(target: Image, pred: Image) -> tuple[float, float]:
    """By how much ``pred`` must move to fit ``target``: the peak of the cross-correlation, to 1/20 pixel.

    Plain (not phase-only) correlation: symmetric blur and noise leave its peak where it is. A window keeps the borders,
    which are not periodic, from pulling it to zero.
    """
    from scipy.signal.windows import tukey
    from skimage import registration

    window = np.outer(tukey(target.shape[0], 0.25), tukey(target.shape[1], 0.25))
    a, b = ((x - x.mean()) * window for x in (target, pred))
    correlate: Any = registration.phase_cross_correlation
    found = correlate(a, b, upsample_factor=20, normalization=None)[0]
    return float(found[0]), float(found[1])


__all__ = ["Example", "Suspicion", "find_suspicions", "identical_images", "psnr"]
