from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, signal
from torch import Tensor
from torch.nn.functional import interpolate as torch_interpolate

from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.interpolate import KERNELS, interpolate, interpolation_matrix
from mrbench.degradation.operators import Operator
from mrbench.errors import UserError

Make = Callable[..., Tensor]
GRIDS = {
    "centre-4": AxisGrid.centre(96, 4),
    "centre-2": AxisGrid.centre(96, 2),
    "centre-8": AxisGrid.centre(192, 8),
    "centre-4.02": AxisGrid.centre(181, 4),
    "corner-4": AxisGrid.corner(96, 4),
    "corner-3.1": AxisGrid.corner(93, 3.1),
    "exact-3.0118": AxisGrid(256, 85, 3.0118, 0.0),
    "odd-offset": AxisGrid(120, 30, 4.0, 0.7),
}
# worst error of a linear ramp in the interior, in LR samples; nearest is half a sample by nature, Lanczos' taps are not exact
RAMP = {"nearest": 0.5, "bilinear": 1e-9, "bicubic": 1e-9, "lanczos": 0.02, "bspline": 1e-4}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_sum_to_one(grid: AxisGrid, kernel: Any) -> None:
    matrix = interpolation_matrix(grid, kernel)
    assert matrix.shape == (grid.n_hr, grid.n_lr)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-10)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("kernel", list(RAMP))
def test_a_ramp_is_reproduced_on_its_grid(grid: AxisGrid, kernel: Any) -> None:
    ramp = interpolation_matrix(grid, kernel) @ grid.positions()
    t = grid.coordinates()
    inside = (t >= 6) & (t <= grid.n_lr - 7)
    error = (ramp - np.arange(grid.n_hr))[inside] / grid.step
    assert np.abs(error).max() <= RAMP[kernel] + 1e-12
    assert abs(error.mean()) < (0.13 if kernel == "nearest" else 1e-3)  # ties bias nearest by up to step/8


@pytest.mark.parametrize("grid", [g for g in GRIDS.values() if g.step * g.n_lr == pytest.approx(g.n_hr)])
def test_a_wave_is_reproduced_by_zero_filling(grid: AxisGrid) -> None:
    def wave(p: Any) -> Any:
        return np.cos(2 * np.pi * 3 * p / grid.n_hr + 0.4)

    found = interpolation_matrix(grid, "zero_filled") @ wave(grid.positions())
    np.testing.assert_allclose(found, wave(np.arange(grid.n_hr)), atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_samples_that_coincide_keep_their_value(kernel: Any) -> None:
    for grid in (AxisGrid.corner(40, 4), AxisGrid.centre(45, 3), AxisGrid(37, 18, 2.0, 0.0)):
        matrix = interpolation_matrix(grid, kernel)
        np.testing.assert_allclose(matrix[grid.positions().astype(int)], np.eye(grid.n_lr), atol=1e-9)


def both(n: int, scale: float) -> list[AxisGrid]:
    return [AxisGrid.centre(n, scale), AxisGrid.centre(n + 8, scale)]


@pytest.mark.parametrize(("n", "scale"), [(40, 4), (45, 4), (33, 2), (64, 8)])
def test_bilinear_and_nearest_are_torch(n: int, scale: float, random_image: Make) -> None:
    grid = both(n, scale)
    y = random_image(2, 1, *(g.n_lr for g in grid))
    size = tuple(g.n_hr for g in grid)
    assert torch.allclose(interpolate(y, grid, "bilinear"), torch_interpolate(y, size=size, mode="bilinear"), atol=1e-10)
    assert torch.allclose(interpolate(y, grid, "nearest"), torch_interpolate(y, size=size, mode="nearest-exact"))


@pytest.mark.parametrize(
    ("name", "kernel", "radius"), [("bicubic", Image.Resampling.BICUBIC, 2), ("lanczos", Image.Resampling.LANCZOS, 3)]
)
@pytest.mark.parametrize(("n", "scale"), [(40, 4), (45, 4), (66, 2), (96, 8)])
def test_bicubic_and_lanczos_are_pillow_in_the_interior(
    name: Any, kernel: Image.Resampling, radius: int, n: int, scale: float, random_image: Make
) -> None:
    """Pillow drops taps outside the image; here the border is repeated."""
    grid = both(n, scale)
    y = random_image(1, 1, *(g.n_lr for g in grid), dtype=torch.float32)
    expected = np.asarray(Image.fromarray(y[0, 0].numpy()).resize((grid[1].n_hr, grid[0].n_hr), kernel))
    inside = np.ix_(*[np.flatnonzero((g.coordinates() >= radius - 1) & (g.coordinates() <= g.n_lr - radius)) for g in grid])
    np.testing.assert_allclose(interpolate(y, grid, name)[0, 0].numpy()[inside], expected[inside], atol=2e-6)


def test_bicubic_repeats_the_border() -> None:
    grid = AxisGrid.centre(16, 4)
    y = torch.tensor([1.0, 2.0, 4.0, 3.0]).double()
    padded = torch.tensor([1.0, 1.0, 1.0, 2.0, 4.0, 3.0, 3.0, 3.0]).double().reshape(1, 1, 8, 1)
    wide = interpolate(padded, [AxisGrid.centre(32, 4), AxisGrid.identity(1)], "bicubic")
    found = interpolate(y.reshape(1, 1, 4, 1), [grid, AxisGrid.identity(1)], "bicubic")
    assert torch.allclose(found, wide[:, :, 8:24], atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_bspline_is_scipy(grid: AxisGrid) -> None:
    samples = np.random.default_rng(0).random(grid.n_lr)
    positions = np.clip(grid.coordinates(), 0, grid.n_lr - 1)
    expected = ndimage.map_coordinates(samples, positions[None], order=3, mode="mirror")
    np.testing.assert_allclose(interpolation_matrix(grid, "bspline") @ samples, expected, atol=1e-9)


@pytest.mark.parametrize(("n", "n_lr"), [(48, 12), (45, 15), (50, 25), (49, 24)])
def test_zero_filling_is_the_fft(n: int, n_lr: int) -> None:
    samples = np.random.default_rng(0).random(n_lr)
    grid = AxisGrid(n, n_lr, n / n_lr, 0.0)
    np.testing.assert_allclose(interpolation_matrix(grid, "zero_filled") @ samples, signal.resample(samples, n), atol=1e-10)


@pytest.mark.parametrize("align", ["centre", "corner"])
@pytest.mark.parametrize("domain", ["real", "complex"])
@pytest.mark.parametrize(("size", "scale"), [((24, 32), (2, 4)), ((27, 37), (3, 4)), ((26, 21), (4, 2))])
def test_zero_filling_a_kspace_crop_is_consistent(
    size: tuple[int, int], scale: tuple[int, int], domain: str, align: str, bound: Callable[..., Operator], random_image: Make
) -> None:
    channels = 2 if domain == "complex" else 1
    operator = bound("kspace_crop", size, scale, domain=domain, align=align)
    y = random_image(2, channels, *operator.lr_size)
    assert torch.allclose(operator.forward(operator.upsample(y, "zero_filled")), y, atol=1e-9)
    padded, crop = operator.padded(32)
    canvas = random_image(2, channels, *padded.lr_size)
    inside = operator.upsample(crop.lr(canvas), "zero_filled")
    assert torch.allclose(crop(padded.upsample(canvas, "zero_filled")), inside, atol=1e-9)


def test_zero_filling_complex_is_padding_the_spectrum(bound: Callable[..., Operator], random_image: Make) -> None:
    operator = bound("kspace_crop", (24, 30), (2, 3), domain="complex", align="corner")
    y = random_image(1, 2, 12, 10)
    spectrum = np.fft.fftshift(np.fft.fft2(y[0, 0].numpy() + 1j * y[0, 1].numpy()))
    full = np.zeros((24, 30), complex)
    full[6:18, 10:20] = spectrum
    expected = np.fft.ifft2(np.fft.ifftshift(full)) * 6
    found = operator.upsample(y, "zero_filled")[0].numpy()
    np.testing.assert_allclose(found[0] + 1j * found[1], expected, atol=1e-10)


def test_zero_filling_does_not_undo_the_window(bound: Callable[..., Operator], random_image: Make) -> None:
    """Apodised k-space is filled as it was measured; a deconvolution would amplify noise."""
    windowed = bound("kspace_crop", (24, 32), (2, 2), window="hann")
    bare = bound("kspace_crop", (24, 32), (2, 2))
    y = random_image(1, 1, 12, 16)
    assert torch.allclose(windowed.upsample(y, "zero_filled"), bare.upsample(y, "zero_filled"), atol=1e-9)


def test_three_dimensions(random_image: Make) -> None:
    grid = [AxisGrid.centre(8, 2), AxisGrid.corner(9, 3), AxisGrid.identity(5)]
    y = random_image(2, 1, 4, 3, 5)
    x = interpolate(y, grid, "bicubic")
    assert x.shape == (2, 1, 8, 9, 5)
    for row in range(3):  # rows of the corner grid are kept: what is left is one axis
        plane = y[:, :, :, row].reshape(2, 1, 4, 5)
        assert torch.allclose(x[:, :, :, 3 * row], interpolate(plane, [grid[0], grid[2]], "bicubic"), atol=1e-12)


def test_mistakes_are_refused(random_image: Make) -> None:
    with pytest.raises(UserError, match="Known: nearest, bilinear, bicubic"):
        interpolation_matrix(AxisGrid.centre(8, 2), "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected an LR image of shape"):
        interpolate(random_image(1, 1, 4, 4), both(16, 2), "bicubic")
