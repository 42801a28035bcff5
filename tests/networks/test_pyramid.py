"""Image pyramids: exact reconstruction, what D and U are, and whether halving twice is what a quarter is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mrbench_methods.networks.pyramid import Pyramid, coarser, crop_pair
from mrbench_methods.networks.pyramid_options import PYRAMIDS, PyramidKind

from mrbench.degradation.grid import AxisGrid
from mrbench.degradation.image_space import bicubic_aa_matrix
from mrbench.degradation.kernels import overlap_matrix

SIZES = ((32, 32), (24, 40), (45, 37), (30, 26), (50, 66), (7, 5), (3, 2))


def smooth(size: tuple[int, int]) -> torch.Tensor:
    v, u = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in size), indexing="ij")
    return (torch.exp(-4 * (u**2 + v**2)) * (1 + 0.3 * torch.cos(7 * u + 3 * v)))[None, None]


@pytest.mark.parametrize("kind", PYRAMIDS)
@pytest.mark.parametrize("size", SIZES)
def test_bands_add_up_to_the_image(kind: PyramidKind, size: tuple[int, int], rand) -> None:
    pyramid = Pyramid(kind)
    x = rand(2, 2, *size)
    bands = pyramid.bands(x, 3)
    assert [tuple(b.shape[2:]) for b in bands] == [size, coarser(size), coarser(size, 2)]
    assert coarser(size, 2) == coarser(coarser(size))
    assert float((pyramid.reconstruct(bands) - x).abs().max()) < 1e-6
    assert torch.allclose(pyramid.up(bands[2], size, 2) + pyramid.up(bands[1], size) + bands[0], x, atol=2e-6)


@pytest.mark.parametrize("kind", PYRAMIDS)
@pytest.mark.parametrize("size", SIZES)
def test_constants_stay_and_adjoints_fit(kind: PyramidKind, size: tuple[int, int], rand) -> None:
    pyramid = Pyramid(kind)
    transfer = pyramid.transfer(size)
    ones = torch.ones(1, 1, *size, dtype=torch.float64)
    assert torch.allclose(transfer.down(ones), torch.ones((), dtype=torch.float64))
    assert torch.allclose(transfer.up(transfer.down(ones)), ones)
    x, y = rand(1, 1, *size).double(), rand(1, 1, *coarser(size)).double()
    assert float((transfer.up(y) * x).sum()) == pytest.approx(float((y * transfer.up_adjoint(x)).sum()))


@pytest.mark.parametrize("kind", ["pool", "kspace"])
@pytest.mark.parametrize("size", SIZES)
def test_down_undoes_up(kind: PyramidKind, size: tuple[int, int], rand) -> None:
    transfer = Pyramid(kind).transfer(size)
    y = rand(1, 1, *transfer.coarse).double()
    assert torch.allclose(transfer.down(transfer.up(y)), y, atol=1e-12)
    band = rand(1, 1, *size).double()
    band = band - transfer.up(transfer.down(band))
    assert float(transfer.down(band).abs().max()) < 1e-12  # D x_i = 0


@pytest.mark.parametrize("n", [8, 9, 10, 11, 32])
def test_k_space_rows_are_orthogonal(n: int) -> None:
    down, up = crop_pair(n)
    m = -(-n // 2)
    assert np.allclose(down @ down.T, m / n * np.eye(m))
    assert np.allclose(up, n / m * down.T)
    x = np.cos(2 * np.pi * (np.arange(n) * 1 / n + 0.1))  # a low frequency is sampled
    assert np.allclose(down @ x, np.cos(2 * np.pi * (np.arange(m) / m + 0.1)))


def four_fold(kind: PyramidKind, n: int) -> np.ndarray:
    """The matrix that reduces an axis by 4 at once, of the same family."""
    if kind == "pool":
        return overlap_matrix(AxisGrid(n, n // 4, 4.0, 1.5), 4.0)
    if kind == "bicubic":
        return bicubic_aa_matrix(AxisGrid(n, n // 4, 4.0, 1.5))
    m = n // 4
    k = np.arange(-(m // 2), m // 2 + 1)
    weight = np.where(2 * np.abs(k) == m, 1 / np.sqrt(2), 1.0)
    angle = 2 * np.pi * (np.arange(m)[:, None, None] / m - np.arange(n)[:, None] / n) * k
    return (np.cos(angle) * weight).sum(-1) / n


@pytest.mark.parametrize(("kind", "noise", "image"), [("pool", 0.0, 0.0), ("kspace", 0.0, 0.0), ("bicubic", 0.073, 3.9e-4)])
def test_halving_twice(kind: PyramidKind, noise: float, image: float, rand) -> None:
    """Exact for pool and kspace; for bicubic 7 % off on white noise (relative), much less on smooth images."""
    n = 64
    matrix = torch.from_numpy(four_fold(kind, n))
    for x, expected in ((rand(1, 1, n, n).double(), noise), (smooth((n, n)), image)):
        direct = matrix @ x @ matrix.T
        gap = float((Pyramid(kind).down(x, 2) - direct).norm() / direct.norm())
        assert gap == pytest.approx(expected, rel=0.1, abs=1e-12)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"no pyramid named 'haar'\. Known: pool, kspace, bicubic"):
        Pyramid("haar")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected an image \[B, C, 8, 8\]"):
        Pyramid("pool").transfer((8, 8)).down(torch.zeros(1, 1, 9, 8))
