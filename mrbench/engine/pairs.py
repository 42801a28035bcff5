"""Scores of images made elsewhere against ground truth in a second folder, without any protocol.

One affine map ``(v - low) / (high - low)`` for both sides, from the ground truth only: never each image by its own extremes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrbench.engine.imagefiles import Folder, ImageFile, few, full_range, list_folder, read_slices, stored_type
from mrbench.engine.scoring import Scorer
from mrbench.engine.suspicions import Example, Suspicion, find_suspicions, identical_images
from mrbench.errors import DataError, UserError
from mrbench.store.manifest import ColumnInfo

BATCH = 8
LOOKED_AT = 32  # slices that are tested for suspicions
USED = 0.25  # of a type's range: below it, the type says nothing about the scale
CLIPPED = 1e-3  # share of the ground truth's pixels outside the range that is worth a word


@dataclass(frozen=True)
class Pair:
    """A prediction and its ground truth."""

    name: str
    pred: Path
    target: Path


@dataclass(frozen=True)
class Pairing:
    """What of two folders goes together, and what is left over."""

    pairs: tuple[Pair, ...]
    unmatched_pred: tuple[str, ...] = ()
    unmatched_target: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """Stored values ``low`` and ``high`` become 0 and 1, on both sides. ``source``: declared, type or maximum."""

    low: float
    high: float
    source: str
    dtype: str
    text: str

    @classmethod
    def of(cls, low: float, high: float, source: str, dtype: str, why: str) -> Scale:
        """With its text."""
        return cls(low, high, source, dtype, f"{low:g}..{high:g} ({why}) become 0..1 on both sides")

    def document(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {"low": self.low, "high": self.high, "source": self.source, "dtype": self.dtype, "text": self.text}

    def apply(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stored values on the unit range, unclipped; complex images (2 channels on axis -3) are divided only."""
        low = np.float64(0 if image.shape[-3] == 2 else self.low)
        result: NDArray[np.float32] = ((image.astype(np.float64) - low) / (self.high - self.low)).astype(np.float32)
        return result


@dataclass
class Scored:
    """One slice: ``status`` ok, failed (``error`` says why) or skipped, and its metric values."""

    name: str
    status: str = "ok"
    error: str = ""
    values: dict[str, float] = field(default_factory=dict)


@dataclass
class PairScores:
    """The outcome for all pairs."""

    pairing: Pairing
    scale: Scale
    columns: dict[str, ColumnInfo]
    items: list[Scored]
    unavailable: dict[str, str]
    suspicions: list[Suspicion]


# -- pairing -------------------------------------------------------------------------------------------------------
def pair_folders(pred: Path, target: Path, pattern: str | None = None) -> Pairing:
    """Pair the images of two folders by path without ending, or by what ``pattern`` finds in the path.

    Parameters
    ----------
    pattern : regular expression, searched in the relative path (with ending); its group named ``key``, else its first group,
        else the whole match is compared. Files without a match are left over. Two single files are a pair by themselves.

    Raises
    ------
    UserError : a missing folder, nothing in common (showing names of both sides), two files of one side with one key, or a
        bad pattern.
    """
    if pred.exists() and target.exists() and pred.resolve() == target.resolve():
        raise UserError(f"--pred and --target are the same: {pred}. Name the predictions and the ground truth.")
    ours, theirs = list_folder(pred), list_folder(target)
    refused = {**{f"{pred}/{k}": v for k, v in ours.refused.items()}, **{f"{target}/{k}": v for k, v in theirs.refused.items()}}
    if pred.is_file() and target.is_file():
        return Pairing((Pair(ours.files[0].stem, ours.files[0].path, theirs.files[0].path),), refused=refused)
    key = _key(pattern)
    left, right = _by_key(ours, key, "--pred"), _by_key(theirs, key, "--target")
    common = sorted(left.keys() & right.keys())
    if not common:
        how = f"--match {pattern}" if pattern is not None else "their paths without ending"
        raise UserError(
            f"no file of {pred} goes with one of {target} by {how}.\n"
            f"  predictions:  {_shown(ours, key)}\n  ground truth: {_shown(theirs, key)}\n"
            "Name files alike, or say which part of the path counts: --match '(REGEX)' compares its first group."
        )
    paired = {left[k].path for k in common} | {right[k].path for k in common}
    return Pairing(
        tuple(Pair(k, left[k].path, right[k].path) for k in common),
        tuple(f.name for f in ours.files if f.path not in paired),
        tuple(f.name for f in theirs.files if f.path not in paired),
        refused,
    )


def _key(pattern: str | None) -> Callable[[ImageFile], str | None]:
    if pattern is None:
        return lambda file: file.stem
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--match {pattern}: not a regular expression ({error}).") from None
    names = expression.groupindex
    group: str | int = "key" if "key" in names else 1 if expression.groups else 0

    def key(file: ImageFile) -> str | None:
        found = expression.search(file.name)
        return found.group(group) if found else None

    return key


def _by_key(folder: Folder, key: Callable[[ImageFile], str | None], side: str) -> dict[str, ImageFile]:
    found: dict[str, ImageFile] = {}
    for file in folder.files:
        name = key(file)
        if name is None:
            continue
        if name in found:
            raise UserError(
                f"{side}: two files go by the name {name!r}: {found[name].name} and {file.name}. "
                "Keep one of them, or choose another part of the path with --match."
            )
        found[name] = file
    return found


def _shown(folder: Folder, key: Callable[[ImageFile], str | None]) -> str:
    return few([f.name if (k := key(f)) in (None, f.stem) else f"{f.name} ({k})" for f in folder.files])


# -- scale ---------------------------------------------------------------------------------------------------------
def find_scale(targets: Sequence[Path], declared: tuple[float, float] | None) -> tuple[Scale, list[Suspicion]]:
    """One scale for a whole folder, from its ground truth only.

    Declared values win. Integers: 0 to the largest value of their type; floats: 0 to 1 (or -1 to 1 if they lie in it and go
    below -0.05). If the data use less than a quarter of that range, or leave it, the type says nothing: 0 (or the minimum, if
    it is clearly negative) to the maximum over the folder, and for integers a suspicion says so. Files that cannot be read
    are left out here and fail as pairs later.

    Raises
    ------
    UserError : files of several types, nothing readable, or a constant folder.
    """
    if declared is not None:
        low, high = declared
        return Scale.of(low, high, "declared", "", "declared"), []
    types: dict[str, str] = {}
    minimum, maximum = np.inf, -np.inf
    for path in targets:
        try:
            dtype = stored_type(path)
            images = read_slices(path).images
        except DataError:
            continue
        if dtype.kind == "c":
            images = np.hypot(images[:, 0], images[:, 1])
        if not np.isfinite(images).all():
            continue
        family = dtype.name if dtype.kind in "biu" else "float"
        types.setdefault(family, path.name)
        minimum, maximum = min(minimum, float(images.min())), max(maximum, float(images.max()))
    if len(types) > 1:
        listed = ", ".join(f"{kind} ({name})" for kind, name in types.items())
        raise UserError(f"--target holds values of several types: {listed}. Say what is black and white: --range LO,HI.")
    if not types or not maximum > minimum:
        raise UserError("--target: its files are damaged, constant, or hold NaN, so no scale can be found. Repair them.")
    family = next(iter(types))
    return _scale_of(family, minimum, maximum)


def _scale_of(family: str, minimum: float, maximum: float) -> tuple[Scale, list[Suspicion]]:
    full = 1.0 if family == "float" else full_range(np.dtype(family))
    assert full is not None
    negative = minimum < -0.05 * max(maximum, -minimum)
    if family == "float" and negative and minimum >= -1 and maximum <= 1:
        return Scale.of(-1.0, 1.0, "type", family, "the ground truth holds floats in it"), []
    if not negative and USED * full <= maximum <= full:
        return Scale.of(
            0.0, full, "type", family, "the range of floats" if family == "float" else f"full range of {family}"
        ), []
    scale = Scale.of(minimum if negative else 0.0, maximum, "maximum", family, "up to the maximum of the ground truth folder")
    if family == "float":
        return scale, []
    text = (
        f"the ground truth is stored as {family} (0..{full:g}) and lies between {minimum:g} and {maximum:g}: its maximum over "
        "the folder is taken as white. If the images have a range of their own, declare it with --range LO,HI"
    )
    return scale, [Suspicion("range", text, {"target_min": minimum, "target_max": maximum, "full": full})]


def parse_range(text: str) -> tuple[float, float]:
    """``"LO,HI"`` as two finite numbers with LO < HI (``UserError`` otherwise)."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise UserError(f"--range {text}: expected LO,HI with LO < HI, for example --range 0,4095.")
    return low, high


# -- scoring -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Slice:
    """A slice of a pair: stored values ``[C, H, W]``, or why it cannot be compared."""

    item: Scored
    pred: NDArray[np.float32] | None = None
    target: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return () if self.target is None else self.target.shape


def whole_frame(scorer: Scorer) -> Scorer:
    """The same metrics without foreground columns: no protocol says here what the foreground is."""
    loaded = [replace(m, card=replace(m.card, foreground=False)) for m in scorer.loaded]
    return Scorer(scorer.device, loaded, dict(scorer.unavailable))


def score_pairs(
    pairing: Pairing,
    scorer: Scorer,
    declared: tuple[float, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairScores:
    """Score all pairs, slice by slice, a few at a time.

    Pairs that cannot be compared (size, damaged file, NaN) become failed items; slices whose ground truth is one constant
    value are skipped. Values outside the range are clipped on both sides.

    Parameters
    ----------
    scorer : metrics of kind "image"; use :func:`whole_frame`.
    declared : stored values that become 0 and 1.
    progress : called with pairs done and their number.

    Raises
    ------
    UserError : see :func:`find_scale`.
    """
    scale, suspicions = find_scale([p.target for p in pairing.pairs], declared)
    columns = scorer.columns(1)
    items: list[Scored] = []
    waiting: list[_Slice] = []
    sample = _Sample(len(pairing.pairs))
    identical: list[str] = []
    clipped = pixels = compared = 0
    for number, pair in enumerate(pairing.pairs):
        for piece in _slices(pair, sample, number):
            items.append(piece.item)
            if piece.pred is None or piece.target is None:
                continue
            unit = scale.apply(piece.target)
            if np.array_equal(unit.clip(0, 1), scale.apply(piece.pred).clip(0, 1)):
                identical.append(piece.item.name)
            compared += 1
            clipped, pixels = clipped + int(((unit < -1e-6) | (unit > 1 + 1e-6)).sum()), pixels + unit.size
            if len(waiting) == BATCH or (waiting and waiting[0].shape != piece.shape):
                _score(waiting, scale, scorer)
                waiting = []
            waiting.append(piece)
        if progress is not None:
            progress(number + 1, len(pairing.pairs))
    _score(waiting, scale, scorer)
    if pixels and clipped / pixels > CLIPPED:
        share = clipped / pixels
        text = f"{share:.1%} of the ground truth's pixels lie outside {scale.low:g}..{scale.high:g} and are clipped to it"
        suspicions.append(Suspicion("clipped", text, {"share": round(share, 4)}))
    suspicions += sample.suspicions + identical_images(identical, compared)
    suspicions += find_suspicions(sample.examples, scale.low, scale.high)
    unavailable = {**scorer.unavailable, **{name: f"for some items: {reason}" for name, reason in scorer.notes.items()}}
    return PairScores(pairing, scale, columns, items, unavailable, suspicions)


class _Sample:
    """Slices that are looked at more closely, spread over the pairs, and headers that disagree."""

    def __init__(self, pairs: int) -> None:
        self.examples: list[Example] = []
        count = min(pairs, LOOKED_AT)
        self.chosen = {round(i * (pairs - 1) / max(1, count - 1)) for i in range(count)}
        self.per_pair = max(1, LOOKED_AT // max(1, pairs))
        self.suspicions: list[Suspicion] = []

    def add(self, number: int, name: str, preds: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        if number not in self.chosen:
            return
        count = min(len(preds), len(targets))
        for i in sorted({round((k + 0.5) * count / self.per_pair - 0.5) for k in range(self.per_pair)}):
            self.examples.append(Example(name, preds[min(i, count - 1)], targets[min(i, count - 1)]))

    def headers(self, name: str, pred: str, target: str) -> None:
        if pred and target and pred != target and not self.suspicions:
            text = (
                f"{name}: the headers name other directions of the stored axes ({pred} for the prediction, {target} for the "
                "ground truth); voxels are compared in their stored order"
            )
            self.suspicions.append(Suspicion("header", text, {"pred_axes": pred, "target_axes": target}))


def _slices(pair: Pair, sample: _Sample, number: int) -> Iterator[_Slice]:
    """The slices of a pair, or one failed item."""
    try:
        target = read_slices(pair.target)
        pred = read_slices(pair.pred, target.display if target.axcodes else None)
    except DataError as error:
        yield _Slice(Scored(pair.name, "failed", str(error)))
        return
    sample.headers(pair.name, pred.axcodes, target.axcodes)
    preds, targets = pred.images, target.images
    if preds.shape[0] == targets.shape[0]:
        sample.add(number, pair.name, preds, targets)
    if preds.shape != targets.shape:
        yield _Slice(Scored(pair.name, "failed", f"the prediction is {_shape(preds)}, the ground truth {_shape(targets)}"))
        return
    digits = len(str(len(targets) - 1))
    for i, (p, t) in enumerate(zip(preds, targets, strict=True)):
        item = Scored(pair.name if len(targets) == 1 else f"{pair.name}/{i:0{digits}d}")
        for what, image in (("prediction", p), ("ground truth", t)):
            bad = int(image.size - np.isfinite(image).sum())
            if bad:
                item.status, item.error = "failed", f"the {what} holds NaN or infinite values in {bad} of {image.size} pixels"
        if item.status == "ok" and t.min() == t.max():
            item.status, item.error = "skipped", f"the ground truth is {t.min():g} everywhere"
        yield _Slice(item, p, t) if item.status == "ok" else _Slice(item)


def _shape(images: NDArray[np.float32]) -> str:
    slices, channels, height, width = images.shape
    kind = {1: "", 2: " complex", 3: " colour"}.get(channels, f" {channels}-channel")
    return f"{height} x {width}{kind}" + (f", {slices} slices" if slices > 1 else "")


def _score(batch: Sequence[_Slice], scale: Scale, scorer: Scorer) -> None:
    """Fill in the values of slices of one shape."""
    if not batch:
        return
    preds, targets = (
        torch.from_numpy(scale.apply(np.stack([x for x in images if x is not None])))
        for images in ([b.pred for b in batch], [b.target for b in batch])
    )
    truth = targets if targets.shape[1] == 2 else targets.clamp(0, 1)
    mask = torch.ones((len(batch), *targets.shape[2:]), dtype=torch.bool)
    for name, values in scorer.score(preds[:, None], truth, mask, None).items():
        for piece, value in zip(batch, values, strict=True):
            piece.item.values[name] = value


__all__ = [
    "Pair",
    "PairScores",
    "Pairing",
    "Scale",
    "Scored",
    "find_scale",
    "pair_folders",
    "parse_range",
    "score_pairs",
    "whole_frame",
]
