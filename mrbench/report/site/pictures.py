"""The pictures of items: measurement, ground truth, estimates, error maps and maps of the spread of draws, within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.report.pictures import error_map, grey
from mrbench.report.site.png import grey_png, map_png
from mrbench.report.zoom import densest_window
from mrbench.store.images import read_images, read_truth, truth_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.report.site.tasks import SiteTask

LAYERS = ("image", "error", "mean", "mean_error", "sd")  # of an entry; the last three of several draws
_TOP = 99.9  # percentile of all errors of an item that is the top of their scale
_SMALLEST = 1e-3  # top of a scale where there is no error at all


@dataclass(frozen=True)
class ItemPictures:
    """Files of one item (path within the site -> bytes), and what the page must know about them."""

    files: Mapping[str, bytes]
    facts: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(b) for b in self.files.values())


def pictures_of(task: SiteTask, position: int, folder: str) -> ItemPictures | None:
    """All pictures of an item, or ``None`` where its ground truth or every estimate was not stored.

    ``facts``: ``folder``; ``size`` (height, width); ``layers``, a list of those of ``LAYERS`` per entry (empty: nothing stored);
    ``files``, the number in the names of each entry's files; ``top`` and ``sd_top`` of the scales; ``window`` (left, top,
    width, height as shares), the part with most detail.
    """
    hr, y, mask = _truth(task, position) or (None, None, None)
    if hr is None or y is None or mask is None:
        return None
    estimates = [_estimate(task, k, position) for k in range(len(task.runs))]
    if all(e is None for e in estimates):
        return None
    shown = grey(hr)
    maps = [None if e is None else _maps(e, hr) for e in estimates]
    files = {"hr.png": grey_png(shown), "lr.png": grey_png(grey(y))}
    layers: list[list[str]] = []
    tops = {"error": _top(task, maps, ("error", "mean_error")), "sd": _top(task, maps, ("sd",))}
    for k, (e, found) in enumerate(zip(estimates, maps, strict=True)):
        if e is None or found is None:
            layers.append([])
            continue
        files[f"{k}-image.png"] = grey_png(grey(e[0]))
        files[f"{k}-error.png"] = map_png(found["error"], tops["error"], "inferno")
        if "sd" in found:
            files[f"{k}-mean.png"] = grey_png(_mean(e))
            files[f"{k}-mean_error.png"] = map_png(found["mean_error"], tops["error"], "inferno")
            files[f"{k}-sd.png"] = map_png(found["sd"], tops["sd"], "viridis")
        layers.append([name for name in LAYERS if f"{k}-{name}.png" in files])
    height, width = shown.shape[:2]
    w = densest_window(shown.mean(-1) if shown.ndim == 3 else shown, mask)
    facts = {
        "folder": folder,
        "size": [height, width],
        "layers": layers,
        "top": float(f"{tops['error']:.3g}"),
        "sd_top": float(f"{tops['sd']:.3g}"),
        "window": [round(v, 4) for v in (w.left / width, w.top / height, w.width / width, w.height / height)],
    }
    return ItemPictures({f"{folder}/{name}": data for name, data in files.items()}, facts)


def _truth(task: SiteTask, position: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]] | None:
    """From the first run that stored it. The comparison has made sure that all runs mean the same content."""
    for a in task.runs:
        digest = a.rows["item_hash"].iloc[position]
        if isinstance(digest, str) and digest:
            found = read_truth(truth_file(a.run.folder, a.run.manifest.protocol.hash, digest))
            if found is not None:
                return found
    return None


def _estimate(task: SiteTask, k: int, position: int) -> NDArray[np.float32] | None:
    """The stored draws ``[K, C, H, W]`` of an entry."""
    a = task.runs[k]
    if not a.ok[position]:
        return None
    item = task.comparison.items[position]
    return read_images(a.run.folder, int(a.rows["shard"].iloc[position]), {item}).get(item)


def _mean(draws: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of the draws as they are shown, ``[H, W]`` or ``[H, W, 3]``."""
    return np.asarray(np.stack([grey(d) for d in draws]).astype(np.float64).mean(0))


def _maps(draws: NDArray[np.float32], hr: NDArray[np.float32]) -> dict[str, NDArray[np.floating[Any]]]:
    """``error`` of draw 1; of several draws also ``mean_error`` and ``sd`` (K - 1), each ``[H, W]``."""
    found: dict[str, NDArray[np.floating[Any]]] = {"error": error_map(draws[0], hr)}
    if len(draws) > 1:
        shown = np.stack([grey(d) for d in draws]).astype(np.float64)
        found["mean_error"] = _flat(np.abs(shown.mean(0) - grey(hr)))
        found["sd"] = _flat(shown.std(0, ddof=1))
    return found


def _flat(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values.mean(-1)) if values.ndim == 3 else values


def _top(task: SiteTask, maps: Sequence[Mapping[str, NDArray[Any]] | None], names: Sequence[str]) -> float:
    """Top of a scale that all entries share: a high percentile of what the entries (without them, the controls) have."""
    groups = [
        [
            m[n]
            for m, row in zip(maps, task.rows, strict=True)
            if m is not None and row.control is control
            for n in names
            if n in m
        ]
        for control in (False, True)
    ]
    values = groups[0] or groups[1]
    if not values:
        return _SMALLEST
    return max(float(np.percentile(np.concatenate([v.ravel() for v in values]), _TOP)), _SMALLEST)
