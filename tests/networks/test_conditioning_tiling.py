"""The LR image on the network's grid, wherever its samples sit; tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mrbench_methods.networks.conditioning import resample
from mrbench_methods.networks.tiling import Average, Tile, tile_starts, tiles
from torch import Tensor
from torch.nn.functional import interpolate

from mrbench.degradation.cards import mrbench_degradations
from mrbench.degradation.measurement import Measurement, degrade


def measured(name: str, size: tuple[int, int], scale: float, **options: Any) -> tuple[Tensor, Measurement]:
    """A smooth periodic image and its measurement."""
    card = next(c for c in mrbench_degradations() if c.name == name)
    v, u = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    v, u = 2 * torch.pi * v / size[0], 2 * torch.pi * u / size[1]
    hr = (0.5 + 0.25 * torch.sin(v) + 0.25 * torch.cos(u + v))[None, None]
    return hr, degrade(hr, ["a"], card.load()(card.parse(options)), (scale, scale), seed_key="s")


def test_centre_aligned_images_are_left_alone_or_upsampled_as_torch_does() -> None:
    _, m = measured("area", (64, 96), 4)
    assert torch.equal(resample(m, 4.0), m.y)
    assert torch.allclose(resample(m), interpolate(m.y, scale_factor=4, mode="bicubic"), atol=1e-6)
    assert torch.allclose(resample(m, 2.0), interpolate(m.y, scale_factor=2, mode="bicubic"), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "scale", "options"),
    [
        ("kspace_crop", (64, 96), 4, {"align": "corner"}),
        ("sitk_resample", (64, 96), 4, {}),
        ("area", (61, 93), 4, {}),
        ("bicubic_aa", (64, 96), 8, {}),
        ("bicubic_aa", (64, 96), 2, {}),
        ("bicubic_aa", (64, 96), 3, {}),
    ],
)
def test_samples_land_where_they_belong(name: str, size: tuple[int, int], scale: float, options: dict[str, Any]) -> None:
    hr, m = measured(name, size, scale, **options)
    canvas, _ = m.padded(32)
    condition = resample(canvas, 4.0)
    assert condition.shape[2:] == (canvas.size[0] // 4, canvas.size[1] // 4)
    truth = torch.nn.functional.avg_pool2d(hr, 4)  # smooth: the mean of a cell is its value at the centre
    rows, columns = truth.shape[2] - 4, truth.shape[3] - 4
    gap = float((condition[..., 4:rows, 4:columns] - truth[..., 4:rows, 4:columns]).abs().max())
    assert gap < 0.03  # 1.5 pixels of shift would cost up to 0.07


def test_starts() -> None:
    assert tile_starts(100, 64, 48) == [0, 36]
    assert tile_starts(64, 64, 48) == [0]
    assert tile_starts(20, 64, 48) == [0]
    assert tile_starts(130, 64, 64) == [0, 64, 66]
    for bad in (0, 65):
        with pytest.raises(ValueError, match="stride between 1 and 64"):
            tile_starts(100, 64, bad)


@pytest.mark.parametrize(("height", "width", "tile", "stride"), [(70, 100, 64, 48), (16, 200, 32, 8), (33, 33, 32, 32)])
def test_averaging_the_parts_gives_the_whole(height: int, width: int, tile: int, stride: int) -> None:
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    average = Average(height, width)
    for place in tiles(height, width, tile, stride):
        average.add(place, place.of(image))
    assert torch.allclose(average.result(), image, atol=1e-6)


def test_tiles_on_other_grids_and_gaps() -> None:
    assert Tile(8, 16, 0, 8).scaled(1, 4) == Tile(2, 4, 0, 2)
    assert Tile(8, 16, 0, 8).scaled(2) == Tile(16, 32, 0, 16)
    with pytest.raises(ValueError, match="no whole pixels"):
        Tile(6, 16, 0, 8).scaled(1, 4)
    average = Average(8, 8)
    with pytest.raises(ValueError, match="do not cover"):
        average.result()
    average.add(Tile(0, 4, 0, 8), torch.ones(1, 4, 8))
    with pytest.raises(ValueError, match="do not cover"):
        average.result()
