"""Agreement of raters: kappas, intraclass correlations, Krippendorff's alpha. All are NaN where the ratings do not vary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights = Literal["none", "linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]


def cohen_kappa(first: NDArray[np.int_], second: NDArray[np.int_], weights: Weights = "none") -> float:
    """Cohen's kappa of two raters ``[n]`` (1960), weighted by distance or its square (1968)."""
    values, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    k = values.size
    table = np.bincount(codes[: first.size] * k + codes[first.size :], minlength=k * k).reshape(k, k) / first.size
    gap = np.abs(np.subtract.outer(values, values)).astype(float)
    cost = {"none": (gap > 0).astype(float), "linear": gap, "quadratic": gap**2}[weights]
    chance = float((cost * np.outer(table.sum(1), table.sum(0))).sum())
    return 1 - float((cost * table).sum()) / chance if chance > 0 else math.nan


def fleiss_kappa(ratings: NDArray[np.int_]) -> float:
    """Fleiss' kappa (1971) of ``[raters, units]`` without gaps: any number of raters, categories without order."""
    counts = _counts(ratings)
    raters = counts.sum(1)[0]
    observed = float(((counts**2).sum(1) - raters).mean() / (raters * (raters - 1)))
    chance = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def icc(ratings: NDArray[np.float64]) -> dict[str, float]:
    """The six intraclass correlations of Shrout and Fleiss (1979) of ``[raters, units]`` without gaps.

    ``ICC(1,1)``: units rated by different raters; ``ICC(2,1)``: the same raters, drawn from many; ``ICC(3,1)``: just these
    raters; ``(.,k)``: of the mean over the raters.
    """
    x = np.asarray(ratings, float).T
    n, k = x.shape
    grand = x.mean()
    units = k * ((x.mean(1) - grand) ** 2).sum() / (n - 1)
    raters = n * ((x.mean(0) - grand) ** 2).sum() / (k - 1)
    within = ((x - x.mean(1, keepdims=True)) ** 2).sum() / (n * (k - 1))
    error = ((x - x.mean(1, keepdims=True) - x.mean(0) + grand) ** 2).sum() / ((n - 1) * (k - 1))
    parts = {
        "ICC(1,1)": (units - within, units + (k - 1) * within),
        "ICC(2,1)": (units - error, units + (k - 1) * error + k * (raters - error) / n),
        "ICC(3,1)": (units - error, units + (k - 1) * error),
        "ICC(1,k)": (units - within, units),
        "ICC(2,k)": (units - error, units + (raters - error) / n),
        "ICC(3,k)": (units - error, units),
    }
    return {name: float(top / bottom) if bottom > 0 else math.nan for name, (top, bottom) in parts.items()}


def krippendorff_alpha(ratings: NDArray[np.float64], scale: Scale = "ordinal") -> float:
    """Krippendorff's alpha (2011) of ``[raters, units]``, NaN for missing ratings; units with one rating do not count.

    1 - observed / expected disagreement, from the coincidences of values within units.
    """
    x = np.asarray(ratings, float)
    values = np.unique(x[~np.isnan(x)])
    counts = (x[:, :, None] == values).sum(0).astype(float)  # [units, values]
    rated = counts.sum(1)
    counts, rated = counts[rated > 1], rated[rated > 1]
    if not counts.size:
        return math.nan
    together = counts.T @ (counts / (rated - 1)[:, None]) - np.diag((counts / (rated - 1)[:, None]).sum(0))
    totals = together.sum(1)
    distance = _distances(values, totals, scale)
    expected = float((distance * np.outer(totals, totals)).sum()) / (totals.sum() - 1)
    return 1 - float((distance * together).sum()) / expected if expected > 0 else math.nan


def agreement_within(first: NDArray[np.int_], second: NDArray[np.int_], steps: int = 0) -> float:
    """Share of units on which two raters are at most ``steps`` apart."""
    return float((np.abs(first.astype(int) - second.astype(int)) <= steps).mean())


def _counts(ratings: NDArray[np.int_]) -> NDArray[np.float64]:
    values = np.unique(ratings)
    return np.asarray((ratings[:, :, None] == values).sum(0), float)


def _distances(values: NDArray[np.float64], totals: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    if scale == "nominal":
        return np.not_equal.outer(values, values).astype(float)
    if scale == "interval":
        return np.asarray(np.subtract.outer(values, values) ** 2)
    middle = np.cumsum(totals) - totals / 2  # of each value among all ratings in order
    return np.asarray(np.subtract.outer(middle, middle) ** 2)
