"""Volumes that are unlike the others of their data set: turned, of another scale, clipped, or of other voxel sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

FEWEST = 5  # volumes that can say what is usual
FAR = 5.0  # robust z-score (deviation from the median over 1.4826 MAD)
TURNED = 0.10  # by how much a turned volume must fit better
_ALIKE = 0.05  # turns that fit nearly as well as the best are named too
_FLOOR = 0.05  # least spread that counts, of logarithms and fractions: near-equal volumes have no outliers
_CLIPPED = 0.01  # share of the foreground at the very top
_NEGATIVE = 0.01  # share of negative values in what should be a magnitude

_TURNS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "as it is": lambda image: image,
    "turned by 90 degrees (left)": lambda image: np.rot90(image, 3),  # the remedy of what is named
    "turned by 180 degrees": lambda image: np.rot90(image, 2),
    "turned by 90 degrees (right)": lambda image: np.rot90(image, 1),
    "mirrored left-right": lambda image: image[:, ::-1],
    "mirrored top-bottom": lambda image: image[::-1],
    "rows and columns swapped": lambda image: image.T,
    "rows and columns swapped, turned": lambda image: np.rot90(image, 2).T,
}


@dataclass(frozen=True)
class VolumeLook:
    """How a volume looks, prepared.

    mean : ``[48, 48]``, mean of its small pictures. scale : native units per unit range. tone : median of the foreground, of the
    unit range. foreground : fraction of all pixels. clipped : share of the foreground at the highest stored value. negative :
    share of negative values. voxel : mm between slices, rows and columns (``nan``: unknown). plane, axcodes : empty if unknown.
    position : display position of a typical slice.
    """

    dataset: str
    subject: str
    volume: str
    mean: NDArray[np.float64]
    scale: float
    tone: float
    foreground: float
    clipped: float
    negative: float
    voxel: tuple[float, float, float]
    plane: str
    axcodes: str
    position: int


@dataclass(frozen=True)
class Outlier:
    """A volume that is unlike the others: ``kind`` is ``orientation``, ``intensity`` or ``geometry``."""

    look: VolumeLook
    kind: str
    reason: str


def outliers(looks: Sequence[VolumeLook]) -> list[Outlier]:
    """All that is unlike the others, by data set, in the order of the volumes."""
    found: list[Outlier] = []
    for name in dict.fromkeys(look.dataset for look in looks):
        group = [look for look in looks if look.dataset == name]
        found += [*_turned(group), *_intensities(group), *_geometry(group)]
    return found


def _turned(looks: Sequence[VolumeLook]) -> list[Outlier]:
    """Volumes that fit the typical picture better after a turn or reflection."""
    found = []
    for plane in dict.fromkeys(look.plane for look in looks):
        group = [look for look in looks if look.plane == plane]
        if len(group) < FEWEST:
            continue
        typical = np.median(np.stack([_normal(look.mean) for look in group]), axis=0)
        for look in group:
            scores = {name: _correlation(turn(look.mean), typical) for name, turn in _TURNS.items()}
            best = max(scores.values())
            if best > scores["as it is"] + TURNED:  # heads are near-symmetric: a turn and its mirror image may fit alike
                names = " or ".join(name for name, score in scores.items() if score > best - _ALIKE)
                reason = f"it looks {names}: undone, it correlates {best:.2f} with the typical volume, as it is {scores['as it is']:.2f}"
                found.append(Outlier(look, "orientation", reason))
    return found


def _normal(image: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = float(image.std())
    centred: NDArray[np.float64] = (image - image.mean()) / (spread if spread > 0 else 1.0)
    return centred


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float((_normal(first) * _normal(second)).mean())


def _intensities(looks: Sequence[VolumeLook]) -> list[Outlier]:
    found = []
    measures: list[tuple[str, Callable[[VolumeLook], float], Callable[[VolumeLook], str]]] = [
        ("its 99.9th percentile", lambda look: math.log(look.scale), lambda look: f"{look.scale:.4g}"),
        ("the median of its foreground over the percentile", lambda look: look.tone, lambda look: f"{look.tone:.2f}"),
        ("the share of pixels that are foreground", lambda look: look.foreground, lambda look: f"{look.foreground:.0%}"),
    ]
    for what, value, shown in measures:
        for look, far, usual in _far(looks, value):
            reason = f"{what} is {shown(look)}; usual: {shown(usual)} ({far:.0f} times the usual deviation)"
            found.append(Outlier(look, "intensity", reason))
    for look in looks:
        if look.clipped > _CLIPPED:
            found.append(
                Outlier(
                    look, "intensity", f"{look.clipped:.1%} of its foreground have the highest stored value: it was clipped"
                )
            )
        if look.negative > _NEGATIVE:
            found.append(
                Outlier(
                    look, "intensity", f"{look.negative:.1%} of its values are negative, which a magnitude image has none of"
                )
            )
    return found


def _far(looks: Sequence[VolumeLook], value: Callable[[VolumeLook], float]) -> list[tuple[VolumeLook, float, VolumeLook]]:
    """Volumes far from the median, with their distance and a volume that is usual."""
    if len(looks) < FEWEST:
        return []
    values = [value(look) for look in looks]
    middle = median(values)
    spread = max(1.4826 * median(abs(v - middle) for v in values), _FLOOR)
    usual = looks[min(range(len(values)), key=lambda i: abs(values[i] - middle))]
    return [(k, abs(v - middle) / spread, usual) for k, v in zip(looks, values, strict=True) if abs(v - middle) > FAR * spread]


def _geometry(looks: Sequence[VolumeLook]) -> list[Outlier]:
    found = []
    known = [look for look in looks if not any(math.isnan(side) for side in look.voxel)]
    if len(known) >= FEWEST:
        usual = [median(look.voxel[axis] for look in known) for axis in range(3)]
        for look in known:
            if any(not 0.5 <= side / normal <= 2 for side, normal in zip(look.voxel, usual, strict=True)):
                sides, normal = (" x ".join(f"{s:.3g}" for s in v) for v in (look.voxel, usual))
                found.append(
                    Outlier(look, "geometry", f"its voxels have {sides} mm (slices, rows, columns); usual: {normal} mm")
                )
    planes = [look.plane for look in looks if look.plane]
    if len(planes) >= FEWEST:
        common = max(sorted(set(planes)), key=planes.count)
        found += [
            Outlier(look, "geometry", f"its slices are {look.plane}; usual: {common}")
            for look in looks
            if look.plane and look.plane != common and planes.count(common) > len(planes) / 2
        ]
    return found


def by_volume(found: Sequence[Outlier]) -> list[tuple[VolumeLook, list[Outlier]]]:
    """The outliers of each volume, in order."""
    groups: dict[tuple[str, str, str], tuple[VolumeLook, list[Outlier]]] = {}
    for outlier in found:
        look = outlier.look
        groups.setdefault((look.dataset, look.subject, look.volume), (look, []))[1].append(outlier)
    return list(groups.values())
