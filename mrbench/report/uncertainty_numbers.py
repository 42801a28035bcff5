"""What the uncertainty pictures show, from stored draws: ranks, reliability, sparsification, histograms along a segment.

The numbers are those of the metrics ``rank_histogram``, ``calibration_error`` and ``ause`` on the foreground, here in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrbench.errors import UserError
from mrbench.report.pictures import STORE_THEM, Truth, grey, row_of
from mrbench.report.text import clean
from mrbench.store.images import read_images, read_truth, truth_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrbench.store.runs import RunData

BINS = 256
STEPS = 20
SMALLEST_MEAN = 1e-3  # added to the mean under a standard deviation
LONGEST = 64  # pixels of a segment that was not asked for


@dataclass(frozen=True)
class Segment:
    """Pixels along a line from ``start`` to ``end`` (row, column), both ends included: ``rows [n]``, ``columns [n]``."""

    start: tuple[int, int]
    end: tuple[int, int]

    @property
    def pixels(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The nearest pixel at every step of the longer side."""
        n = max(abs(self.end[0] - self.start[0]), abs(self.end[1] - self.start[1])) + 1
        rows, columns = (np.rint(np.linspace(a, b, n)).astype(np.intp) for a, b in zip(self.start, self.end, strict=True))
        return rows, columns


@dataclass(frozen=True)
class ItemDraws:
    """The draws of one item as pictures show them.

    draws : ``[K, H, W]`` float64 in [0, 1] (``[K, H, W, 3]`` in colour). truth : ``[H, W]`` (``[H, W, 3]``). stored : what was
    measured, with the foreground.
    """

    item_id: str
    draws: NDArray[np.float64]
    truth: NDArray[np.float64]
    stored: Truth
    scores: dict[str, float]

    @property
    def mean(self) -> NDArray[np.float64]:
        """The posterior mean."""
        return np.asarray(self.draws.mean(0))

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation over the draws with K - 1, ``[H, W]`` (mean over the channels of colour images)."""
        return _flat(np.asarray(self.draws.std(0, ddof=1)))

    @property
    def error(self) -> NDArray[np.float64]:
        """``|posterior mean - ground truth|``, ``[H, W]`` (mean over the channels of colour images)."""
        return _flat(np.abs(self.mean - self.truth))

    @property
    def relative_deviation(self) -> NDArray[np.float64]:
        """Standard deviation over (mean + 1e-3), NaN outside of the foreground (there it would be noise over nothing)."""
        return np.where(self.stored.mask, self.deviation / (_flat(self.mean) + SMALLEST_MEAN), np.nan)


@dataclass(frozen=True)
class Calibration:
    """Means over items, each of its foreground: ``ranks [K + 1]``; sparsification ``curve`` and ``oracle`` ``[20]`` (empty
    where no item has an order). ``left_out`` counts items with an empty foreground.
    """

    draws: int
    items: int
    left_out: int
    ranks: NDArray[np.float64]
    curve: NDArray[np.float64]
    oracle: NDArray[np.float64]

    @property
    def levels(self) -> NDArray[np.float64]:
        """Nominal levels j / (K + 1) of the sorted draws, ``[K]``."""
        return np.arange(1, self.draws + 1) / (self.draws + 1)

    @property
    def observed(self) -> NDArray[np.float64]:
        """Share of ground-truth pixels below each sorted draw, ties shared evenly, ``[K]``."""
        return np.asarray(np.cumsum(self.ranks)[:-1])

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "draws": self.draws,
            "items": self.items,
            "items_left_out": self.left_out,
            "region": "foreground",
            "rank_histogram": self.ranks.tolist(),
            "reliability": {"nominal": self.levels.tolist(), "observed": self.observed.tolist()},
            "sparsification": {"by_deviation": self.curve.tolist(), "oracle": self.oracle.tolist()},
        }


# -- from a run ----------------------------------------------------------------------------------------------------
def item_draws(run: RunData, item_id: str) -> ItemDraws:
    """The stored draws of an item.

    Raises
    ------
    UserError : one draw only, an unknown or failed item, or images that were not stored.
    """
    _refuse_one_draw(run)
    row = row_of(run, item_id)
    if row is None:
        raise UserError(f"{clean(run.label)} has no item {item_id!r}. `mrbench show {run.folder}` lists items.")
    if row["status"] != "ok":
        raise UserError(f"{item_id}: {row['status']}: {clean(row['error'])}. Name another --item.")
    found = _Stored(run).read(int(row["shard"]), [row])
    if not found:
        raise UserError(f"{clean(run.label)} ({run.folder}): the draws of {item_id} were not stored. {STORE_THEM}")
    return found[0]


def calibration_of(run: RunData) -> Calibration:
    """Ranks and sparsification over all restored items of a run.

    Raises
    ------
    UserError : one draw only, no restored item, or images that were not stored.
    """
    _refuse_one_draw(run)
    k = run.manifest.draws
    ok = run.rows[run.rows["status"] == "ok"] if "status" in run.rows else run.rows
    stored = _Stored(run)
    ranks: list[NDArray[np.float64]] = []
    curves: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    seen = 0
    for shard, rows in ok.groupby("shard") if len(ok) else ():
        records: list[dict[str, Any]] = [{str(a): b for a, b in r.items()} for r in rows.to_dict("records")]
        items = stored.read(int(shard), records)  # type: ignore[arg-type]
        if len(items) < len(records):
            raise UserError(f"{clean(run.label)} ({run.folder}): not all draws were stored. {STORE_THEM}")
        for item in items:
            seen += 1
            inside = item.stored.mask
            if not inside.any():
                continue
            ranks.append(rank_histogram(item.draws[:, inside].reshape(k, -1), item.truth[inside].reshape(-1)))
            error, deviation = item.error[inside], item.deviation[inside]
            if np.ptp(deviation) > 0 and error.any():
                curves.append((sparsification(error, deviation), sparsification(error, error)))
    if not ranks:
        raise UserError(f"{clean(run.label)} ({run.folder}) has no restored item with a foreground to show.")
    by, oracle = (np.mean([c[i] for c in curves], 0) if curves else np.array([]) for i in (0, 1))
    return Calibration(k, len(ranks), seen - len(ranks), np.mean(ranks, 0), by, oracle)


class _Stored:
    """Reads draws with their ground truth, a shard at a time."""

    def __init__(self, run: RunData) -> None:
        self._run = run

    def read(self, shard: int, rows: list[dict[str, Any]]) -> list[ItemDraws]:
        """The items of ``rows`` whose draws are stored."""
        images = read_images(self._run.folder, shard, {str(r["item_id"]) for r in rows})
        found = []
        for row in rows:
            item = str(row["item_id"])
            truth = read_truth(truth_file(self._run.folder, self._run.manifest.protocol.hash, str(row["item_hash"])))
            if item not in images or truth is None:
                continue
            columns = [c for c in self._run.manifest.columns if row.get(c) is not None]
            scores = {c: float(row[c]) for c in columns if not np.isnan(row[c])}
            draws = np.stack([grey(d) for d in images[item]]).astype(np.float64)
            found.append(ItemDraws(item, draws, grey(truth[0]).astype(np.float64), Truth(*truth), scores))
        return found


def _refuse_one_draw(run: RunData) -> None:
    if run.manifest.draws < 2:
        kind = "a deterministic method" if run.manifest.method.deterministic else "run with one draw"
        raise UserError(
            f"{clean(run.label)} ({run.folder}): one restored image per slice ({kind}), so there is no uncertainty to show. "
            "Run a stochastic method with --draws 10."
        )


def _flat(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return image.mean(-1) if image.ndim == 3 else image


# -- numbers -------------------------------------------------------------------------------------------------------
def rank_histogram(draws: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative frequencies ``[K + 1]`` of the rank of ``truth [M]`` among ``draws [K, M]``, ties shared evenly."""
    k = len(draws)
    below, ties = (draws < truth).sum(0), (draws == truth).sum(0)
    joint = np.bincount(below * (k + 1) + ties, minlength=(k + 1) ** 2).reshape(k + 1, k + 1)
    steps = np.zeros(k + 2)
    for t in range(k + 1):
        share = joint[: k + 1 - t, t] / (t + 1)
        steps[: k + 1 - t] += share
        steps[t + 1 :] -= share
    return np.asarray(np.cumsum(steps)[: k + 1] / truth.size)


def sparsification(error: NDArray[np.float64], by: NDArray[np.float64], steps: int = STEPS) -> NDArray[np.float64]:
    """Mean error without the shares 0, 1/steps ... of pixels with the largest ``by``, relative to that of all, ``[steps]``."""
    kept = error[np.argsort(-by, kind="stable")]
    first = np.arange(steps) * kept.size // steps
    rest = np.cumsum(kept[::-1])[::-1]
    return np.asarray(rest[first] / (kept.size - first) / kept.mean())


def area_between(curve: NDArray[np.float64], oracle: NDArray[np.float64]) -> float:
    """Area between two sparsification curves, by trapezoids."""
    gap = curve - oracle
    return float((gap[1:] + gap[:-1]).sum() / 2 / gap.size)


def probability_map(draws: NDArray[np.float64], bins: int = BINS) -> NDArray[np.float64]:
    """Share of ``draws [K, n]`` in each bin of [0, 1] at every place, ``[bins, n]``; bin min(floor(bins v), bins - 1)."""
    k, n = draws.shape
    codes = np.minimum((draws * bins).astype(np.intp), bins - 1) * n + np.arange(n)
    return np.asarray(np.bincount(codes.ravel(), minlength=bins * n).reshape(bins, n) / k)


# -- segments ------------------------------------------------------------------------------------------------------
def parse_segment(text: str, shape: tuple[int, int]) -> Segment:
    """``"r0,c0,r1,c1"``: rows and columns of both ends, counted from 0.

    Raises
    ------
    UserError : not four whole numbers, a single pixel, or outside of the image.
    """
    try:
        r0, c0, r1, c1 = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--segment {text}: expected four whole numbers r0,c0,r1,c1, such as 60,40,60,104.") from None
    for r, c in ((r0, c0), (r1, c1)):
        if not (0 <= r < shape[0] and 0 <= c < shape[1]):
            raise UserError(f"--segment {text}: ({r}, {c}) is outside of the image of {shape[0]} x {shape[1]} pixels.")
    if (r0, c0) == (r1, c1):
        raise UserError(f"--segment {text}: both ends are the same pixel.")
    return Segment((r0, c0), (r1, c1))


def usual_segment(deviation: NDArray[np.float64], mask: NDArray[np.bool_]) -> Segment:
    """A horizontal segment of at most 64 pixels through the most uncertain stretch of the foreground."""
    height, width = deviation.shape
    n = min(LONGEST, width)
    values = np.where(mask, deviation, 0.0)
    rows = np.cumsum(np.pad(values, ((1, 0), (0, 0))), 0)
    thick = rows[np.minimum(np.arange(height) + 3, height)] - rows[np.maximum(np.arange(height) - 2, 0)]  # five rows
    sums = np.cumsum(np.pad(thick, ((0, 0), (1, 0))), 1)
    windows = sums[:, n:] - sums[:, :-n]
    row, left = np.unravel_index(int(np.argmax(windows)), windows.shape)
    return Segment((int(row), int(left)), (int(row), int(left) + n - 1))
