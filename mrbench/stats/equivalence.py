"""Equivalence within a stated margin, and the difference that a design can detect. A large p shows neither."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mrbench.errors import UserError
from mrbench.stats.results import Equivalence, Interval
from mrbench.stats.tests import NAMES, Correction, adjust, t_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def tost_p(differences: NDArray[np.float64], margin: float) -> float:
    """p of two one-sided paired t tests (Schuirmann 1987) against ``|mean| >= margin``. A constant is inside or not.

    Raises
    ------
    UserError : a margin that is not positive and finite.
    """
    from scipy import stats

    if not (math.isfinite(margin) and margin > 0):
        raise UserError(
            f"margin {margin}: give a positive number, in the metric's unit, below which a difference does not matter."
        )
    n = differences.size
    if n < 2:
        return math.nan
    mean, se = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n)
    if se <= 1e-12 * max(1.0, abs(mean)):
        return 0.0 if abs(mean) < margin else 1.0
    return float(stats.t.sf((margin - abs(mean)) / se, n - 1))


def equivalence_tests(
    differences: Sequence[NDArray[np.float64]], margin: float, alpha: float, correction: Correction = "holm"
) -> list[Equivalence]:
    """One test per pair, corrected over all of them."""
    p = np.array([tost_p(d, margin) for d in differences])
    corrected = adjust(p, correction)
    words = f"{NAMES[correction]} over {len(p)} pairs" if len(p) > 1 and correction != "none" else "none"
    level = 1 - 2 * alpha
    found = []
    for d, raw, fixed in zip(differences, p, corrected, strict=True):
        low, high = t_interval(d, level)
        interval = Interval(low, high, level, f"t({d.size - 1})")
        found.append(Equivalence(margin, float(raw), float(fixed), interval, bool(fixed <= alpha), d.size, words))
    return found


def detectable_difference(sd: float, n: int, alpha: float, power: float = 0.8) -> float:
    """The smallest true mean difference that a two-sided paired t test at ``alpha`` finds with probability ``power``.

    ``sd`` is that of the differences. NaN for fewer than two units.
    """
    return sd * _standardised(n, alpha, power) if n >= 2 else math.nan


@lru_cache(maxsize=256)
def _standardised(n: int, alpha: float, power: float) -> float:
    from scipy import optimize, stats

    limit = float(stats.t.isf(alpha / 2, n - 1))

    def lack(delta: float) -> float:
        return float(stats.nct.sf(limit, n - 1, delta * math.sqrt(n))) - power

    high = 1.0
    while lack(high) < 0:
        high *= 2
        if high > 1e6:
            return math.nan
    return float(optimize.brentq(lack, 0.0, high, xtol=1e-9))
