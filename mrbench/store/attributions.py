"""Local attribution maps as records: what pixels of an LR image mean to a region of the restored image, and how far they spread.

Stored as ``STEM.npz`` (arrays; never pickled) and ``STEM.json`` (numbers in words).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrbench.errors import UserError
from mrbench.store.files import write_atomic, write_json

FORMAT = 1
PERCENT = 100.0
_ARRAYS = ("attributions", "estimate", "path")


@dataclass(frozen=True)
class Region:
    """Rows ``top:bottom`` and columns ``left:right`` of the HR image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def check(self, size: Sequence[int]) -> Region:
        """This region, if it lies in an image of ``size`` and has 2 x 2 pixels (smaller ones have no gradient).

        Raises
        ------
        UserError : it does not, naming the size.
        """
        inside = 0 <= self.top < self.bottom <= size[0] and 0 <= self.left < self.right <= size[1]
        if not inside or min(self.height, self.width) < 2:
            raise UserError(
                f"region {self.top},{self.left},{self.bottom},{self.right}: expected rows and columns R0,C0,R1,C1 of a part of the "
                f"{size[0]} x {size[1]} pixels of the HR image (R1 and C1 not included), at least 2 x 2 pixels large."
            )
        return self


@dataclass(frozen=True)
class Picture:
    """What all maps of one figure share: the item and its images.

    hr : ``[C, H, W]`` in [0, 1]. y : ``[C, h, w]``. grid : per axis, step and offset of LR samples in HR pixels. aspect : height of
    an HR pixel over its width.
    """

    item_id: str
    dataset: str
    dataset_name: str
    protocol: str
    protocol_hash: str
    region: Region
    hr: NDArray[np.float32]
    y: NDArray[np.float32]
    grid: tuple[tuple[float, float], tuple[float, float]]
    aspect: float = 1.0


@dataclass(frozen=True)
class Attribution:
    """The local attribution map of one method (Gu and Dong 2021, arXiv:2011.11036).

    attributions : ``[C, h, w]`` float64, signed; their sum is the change of the detector along the path. estimate : ``[C, H, W]``, what
    the method makes of the LR image, unclipped. detector : its values at the beginning (blurred LR image) and the end of the path.
    path : ``[steps]``, contributions of the steps. sigma : standard deviation of the blur at the beginning, in LR pixels.
    """

    label: str
    method: str
    tier: str
    checkpoint: str
    sigma: float
    detector: tuple[float, float]
    attributions: NDArray[np.float64]
    estimate: NDArray[np.float32]
    path: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def map(self) -> NDArray[np.float64]:
        """``[h, w]``: summed over channels, signed."""
        total: NDArray[np.float64] = self.attributions.sum(0)
        return total

    @property
    def total(self) -> float:
        """The sum of all attributions."""
        return float(self.attributions.sum())

    @property
    def change(self) -> float:
        """How much the detector changes along the path, which the attributions explain."""
        return self.detector[1] - self.detector[0]

    @property
    def completeness_error(self) -> float:
        """``|sum - change| / |change|`` of the completeness axiom (NaN without a change): what the finite number of steps costs."""
        return abs(self.total - self.change) / abs(self.change) if self.change else float("nan")

    @property
    def gini(self) -> float:
        """Gini coefficient of the absolute attributions of all LR pixels; NaN where all are 0."""
        return gini(np.abs(self.map))

    @property
    def diffusion_index(self) -> float:
        """``DI = 100 (1 - G)``: 0 if one pixel decides all, 100 if all contribute alike."""
        return PERCENT * (1 - self.gini)

    @property
    def involved(self) -> int:
        """LR pixels that contribute at all."""
        return int(np.count_nonzero(self.map))

    def document(self) -> dict[str, Any]:
        """The numbers as a JSON document."""
        return {
            "label": self.label,
            "method": self.method,
            "tier": self.tier,
            "checkpoint": self.checkpoint,
            "steps": len(self.path),
            "sigma": self.sigma,
            "diffusion_index": _finite(self.diffusion_index),
            "gini": _finite(self.gini),
            "pixels_involved": self.involved,
            "pixels": int(self.map.size),
            "detector_start": self.detector[0],
            "detector_end": self.detector[1],
            "sum_of_attributions": self.total,
            "completeness_error": _finite(self.completeness_error),
        }


def gini(values: NDArray[np.floating[Any]]) -> float:
    """``sum_ij |g_i - g_j| / (2 n^2 mean(g))`` of values >= 0, by a sort; NaN where all are 0 or there are none."""
    g = np.sort(np.asarray(values, np.float64).ravel())
    n, total = len(g), float(g.sum())
    if n == 0 or total == 0:
        return float("nan")
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float((weights * g).sum() / (n * total))


def attributions_document(picture: Picture, found: Sequence[Attribution], failed: Mapping[str, str]) -> dict[str, Any]:
    """All numbers of a figure; ``failed``: label -> why a method has no map."""
    r = picture.region
    return {
        "format": FORMAT,
        "item": picture.item_id,
        "dataset": picture.dataset,
        "dataset_name": picture.dataset_name,
        "protocol": picture.protocol,
        "protocol_hash": picture.protocol_hash,
        "region": [r.top, r.left, r.bottom, r.right],
        "lr_size": list(picture.y.shape[-2:]),
        "hr_size": list(picture.hr.shape[-2:]),
        "grid": [list(axis) for axis in picture.grid],
        "aspect": picture.aspect,
        "methods": [a.document() for a in found],
        "failed": dict(failed),
    }


def write_attributions(
    stem: Path, picture: Picture, found: Sequence[Attribution], failed: Mapping[str, str]
) -> tuple[Path, Path]:
    """Write ``STEM.npz`` (``hr``, ``y``, and of method i ``attributions<i>``, ``estimate<i>``, ``path<i>``) and ``STEM.json``."""
    npz, document = stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}.json")
    arrays: dict[str, Any] = {"hr": picture.hr, "y": picture.y}
    for i, a in enumerate(found):
        arrays |= {f"{name}{i}": getattr(a, name) for name in _ARRAYS}
    write_atomic(npz, lambda stream: np.savez_compressed(stream, **arrays))
    write_json(document, attributions_document(picture, found, failed))
    return npz, document


def read_attributions(stem: Path) -> tuple[Picture, list[Attribution]]:
    """What :func:`write_attributions` wrote, so that figures can be drawn again.

    Raises
    ------
    UserError : files that are missing or damaged.
    """
    npz, path = stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}.json")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        with npz.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return _picture(document, arrays), [_attribution(i, d, arrays) for i, d in enumerate(document["methods"])]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{stem}: no attributions can be read there ({error}). `mrbench attribute` writes them.") from None


def _picture(document: Mapping[str, Any], arrays: Mapping[str, Any]) -> Picture:
    (sy, oy), (sx, ox) = document["grid"]
    return Picture(
        item_id=document["item"],
        dataset=document["dataset"],
        dataset_name=document["dataset_name"],
        protocol=document["protocol"],
        protocol_hash=document["protocol_hash"],
        region=Region(*document["region"]),
        hr=arrays["hr"],
        y=arrays["y"],
        grid=((sy, oy), (sx, ox)),
        aspect=document["aspect"],
    )


def _attribution(i: int, document: Mapping[str, Any], arrays: Mapping[str, Any]) -> Attribution:
    return Attribution(
        label=document["label"],
        method=document["method"],
        tier=document["tier"],
        checkpoint=document["checkpoint"],
        sigma=document["sigma"],
        detector=(document["detector_start"], document["detector_end"]),
        **{name: arrays[f"{name}{i}"] for name in _ARRAYS},
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


__all__ = [
    "Attribution", "Picture", "Region", "attributions_document", "gini", "read_attributions", "write_attributions",
]  # fmt: skip
