from __future__ import annotations

import numpy as np
import pytest

from mrbench.degradation.grid import AxisGrid, lr_size
from mrbench.errors import UserError


@pytest.mark.parametrize(
    ("n", "scale", "expected"),
    [(320, 4, 80), (181, 4, 45), (182, 4, 46), (37, 2, 19), (256, 3, 85), (7, 1, 7), (4, 8, 1), (10, 2.5, 4)],
)
def test_lr_size_rounds_halves_up(n: int, scale: float, expected: int) -> None:
    assert lr_size(n, scale) == expected


@pytest.mark.parametrize(("n", "scale"), [(3, 8), (10, 0.5), (10, float("nan")), (10, float("inf"))])
def test_impossible_scales_are_refused(n: int, scale: float) -> None:
    with pytest.raises(UserError):
        lr_size(n, scale)


def test_centre_grid_shares_the_outer_corners() -> None:
    for n, scale in ((320, 4), (181, 4), (37, 2), (50, 3)):
        grid = AxisGrid.centre(n, scale)
        p = grid.positions()
        assert p[0] - grid.step / 2 == pytest.approx(-0.5)
        assert p[-1] + grid.step / 2 == pytest.approx(n - 0.5)
    assert AxisGrid.centre(320, 4).offset == 1.5
    assert AxisGrid.corner(320, 4).positions().tolist() == [4 * i for i in range(80)]


def test_coordinates_undo_positions() -> None:
    grid = AxisGrid(40, 13, 3.0118, 0.7)
    back = (grid.positions() - grid.offset) / grid.step
    np.testing.assert_allclose(back, np.arange(13), atol=1e-12)
    np.testing.assert_allclose(grid.offset + grid.step * grid.coordinates(), np.arange(40), atol=1e-12)


def test_extension_keeps_step_and_offset_inside_the_canvas() -> None:
    for n in range(20, 60):
        for scale in (1, 1.5, 2, 3, 4, 8):
            for grid in (AxisGrid.centre(n, scale), AxisGrid.corner(n, scale)):
                longer = grid.extended(-(-n // 16) * 16)
                assert (longer.step, longer.offset) == (grid.step, grid.offset)
                assert longer.n_lr >= grid.n_lr
                assert longer.positions()[-1] <= longer.n_hr - 0.5 + 1e-9
    with pytest.raises(ValueError, match="cannot extend"):
        AxisGrid.centre(40, 2).extended(39)


def test_identity_and_blind() -> None:
    assert AxisGrid.identity(5).is_identity
    assert AxisGrid.centre(5, 1).is_identity
    assert AxisGrid.corner(5, 1).is_identity
    assert not AxisGrid.corner(5, 5).is_identity
    assert AxisGrid.corner(40, 4).blind() == AxisGrid.centre(40, 4)
