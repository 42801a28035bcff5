"""Rounded means must not break ties of their differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata

from mrbench.stats.table import DIGITS
from mrbench.stats.tests import signed_rank


@pytest.mark.parametrize("seed", range(40))
def test_exact_p_of_differences_of_rounded_means(seed: int) -> None:
    """Means of three whole ratings, rounded as tables keep them: as if the sums had been compared, by all signs."""
    sums = np.random.default_rng(seed).integers(3, 16, (10, 2)).astype(float)
    means = np.round(sums / 3, DIGITS)
    whole = sums[:, 0] - sums[:, 1]
    kept = whole[whole != 0]
    ranks = rankdata(np.abs(kept))
    plus = ranks[kept > 0].sum()
    all_plus = np.array([ranks @ signs for signs in itertools.product((0, 1), repeat=len(ranks))])
    expected = min(1.0, 2 * min((all_plus <= plus).mean(), (all_plus >= plus).mean()))
    assert signed_rank(means[:, 0] - means[:, 1]).p_exact == pytest.approx(expected, rel=1e-12)
