from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import skimage.data
import torch
from torch import Tensor

import mrbench
from mrbench.degradation.cards import mrbench_degradations
from mrbench.degradation.measurement import Measurement, degrade, upsample
from mrbench.degradation.noise import add_noise
from mrbench.errors import UserError
from mrbench.seeds import derive_seed

Make = Callable[..., Tensor]
IDS = ["set/a/v/000", "set/a/v/001", "set/b/v/000", "set/b/v/001"]


def degradation(name: str, **options: Any) -> Any:
    card = next(c for c in mrbench_degradations() if c.name == name)
    return card.load()(card.parse(options))


def measured(hr: Tensor, name: str = "bicubic_aa", scale: float = 4, **arguments: Any) -> Measurement:
    options = arguments.pop("options", {})
    ids = arguments.pop("ids", IDS[: len(hr)])
    return degrade(hr, ids, degradation(name, **options), (scale, scale), seed_key="protocol", **arguments)


def test_fields(random_image: Make) -> None:
    hr = random_image(4, 1, 45, 50, dtype=torch.float32)
    m = measured(hr, "bicubic_aa", 4, noise_kind="gaussian", sigma=0.02)
    assert m.y.shape == (4, 1, 11, 13)
    assert m.y.dtype == torch.float32
    assert m.size == (45, 50)
    assert m.scale == (45 / 11, 50 / 13)
    assert m.operator is not None
    assert m.operator.grid == m.grid
    assert (m.sigma, m.ids, m.seed_key) == (0.02, tuple(IDS), "protocol")
    assert not any("hr" in f or "truth" in f for f in Measurement.__slots__)
    with pytest.raises(FrozenInstanceError):
        m.sigma = 0.0  # type: ignore[misc]
    assert mrbench.Measurement is Measurement
    assert mrbench.upsample is upsample


def test_noise_is_seeded_by_protocol_and_item(random_image: Make) -> None:
    hr = random_image(4, 1, 32, 32, dtype=torch.float32)
    m = measured(hr, noise_kind="rician", sigma=0.1)
    clean = measured(hr).y
    for i, name in enumerate(IDS):
        generator = torch.Generator().manual_seed(derive_seed("protocol", name, "measurement"))
        assert torch.equal(m.y[i : i + 1], add_noise(clean[i : i + 1], "rician", 0.1, [generator]))
    alone = measured(hr[2:3], ids=[IDS[2]], noise_kind="rician", sigma=0.1)
    assert torch.allclose(alone.y[0], m.y[2], atol=1e-6)
    other = degrade(hr, IDS, degradation("bicubic_aa"), (4, 4), noise_kind="rician", sigma=0.1, seed_key="another")
    assert not torch.allclose(other.y, m.y, atol=1e-3)


def test_clip(random_image: Make) -> None:
    hr = (random_image(1, 1, 32, 32) > 0.5).float()
    assert measured(hr, scale=2).y.max() > 1
    clipped = measured(hr, scale=2, clip=True).y
    assert clipped.min() >= 0
    assert clipped.max() <= 1
    with pytest.raises(UserError, match="cannot be clipped"):
        measured(random_image(1, 2, 32, 32), clip=True)


def test_sampler_noise_is_the_same_in_chunks_and_batches(random_image: Make) -> None:
    m = measured(random_image(4, 1, 32, 32, dtype=torch.float32))
    source = m.noise(4)
    first, second = source.normal((1, 5, 6)), source.normal((3,))
    assert first.shape == (4, 4, 1, 5, 6)
    assert first.dtype == torch.float32
    assert second.shape == (4, 4, 3)
    a, b = m.noise([1, 2]), m.noise([3, 4])
    assert torch.equal(torch.cat([a.normal((1, 5, 6)), b.normal((1, 5, 6))], 1), first)
    assert torch.equal(torch.cat([a.normal((3,)), b.normal((3,))], 1), second)
    assert torch.equal(m.select([2]).noise([3]).normal((1, 5, 6)), first[2:3, 2:3])
    assert torch.equal(m.select([3, 0]).noise(4).normal((1, 5, 6)), first[[3, 0]])
    generator = torch.Generator().manual_seed(derive_seed("protocol", IDS[1], 2))
    assert torch.equal(torch.randn(1, 5, 6, generator=generator), first[1, 1])


def test_sampler_noise_is_standard_normal_and_independent(random_image: Make) -> None:
    m = measured(random_image(4, 1, 32, 32, dtype=torch.float32))
    z = m.noise(3).normal((100, 100)).reshape(12, -1)
    correlation = torch.corrcoef(z) - torch.eye(12)
    assert correlation.abs().max() < 0.05
    assert float(z.mean()) == pytest.approx(0, abs=0.015)
    assert float(z.std()) == pytest.approx(1, abs=0.01)
    generator = torch.Generator().manual_seed(derive_seed("protocol", IDS[0], "measurement"))
    measurement_noise = torch.randn(10000, generator=generator)
    assert abs(float(torch.corrcoef(torch.stack([z[0], measurement_noise]))[0, 1])) < 0.05


@pytest.mark.parametrize("draws", [0, [0], [], [1, -1]])
def test_draws_count_from_one(draws: Any, random_image: Make) -> None:
    with pytest.raises(ValueError, match="draws are counted from 1"):
        measured(random_image(1, 1, 16, 16)).noise(draws)


def test_select_and_to(random_image: Make) -> None:
    m = measured(random_image(4, 1, 32, 32, dtype=torch.float32))
    part = m.select([3, 1])
    assert torch.equal(part.y, m.y[[3, 1]])
    assert part.ids == (IDS[3], IDS[1])
    moved = m.to("meta")
    assert moved.y.device.type == "meta"
    assert moved.ids == m.ids


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [("bicubic_aa", {}, 1), ("kspace_crop", {"domain": "complex"}, 2), ("bicubic_pil8", {}, 3)],
)
def test_padded(name: str, options: dict[str, Any], channels: int, random_image: Make) -> None:
    hr = random_image(2, channels, 45, 50, dtype=torch.float32)
    m = measured(hr, name, 4, options=options)
    canvas, crop = m.padded(32)
    assert canvas.size == (64, 64)
    assert canvas.scale == m.scale
    assert canvas.ids == m.ids
    assert [(g.step, g.offset) for g in canvas.grid] == [(g.step, g.offset) for g in m.grid]
    assert torch.equal(crop.lr(canvas.y), m.y)
    assert torch.equal(canvas.y[..., -1, :], canvas.y[..., 11 - 1, :])
    assert canvas.operator is not None
    assert m.operator is not None
    x = random_image(2, channels, 64, 64, dtype=torch.float32)
    assert torch.allclose(crop.lr(canvas.operator.forward(x)), m.operator.forward(crop(x)), atol=1e-6)
    assert torch.allclose(crop(upsample(canvas, "bicubic")), upsample(m, "bicubic"), atol=1e-6)
    assert torch.equal(canvas.noise(2).normal((4,)), m.noise(2).normal((4,)))
    same, unchanged = m.padded((45, 50))
    assert same is m
    assert torch.equal(unchanged(hr), hr)


def test_padded_without_an_operator(random_image: Make) -> None:
    m = replace(measured(random_image(2, 1, 45, 50, dtype=torch.float32)), operator=None)
    canvas, crop = m.padded(16)
    assert canvas.operator is None
    assert canvas.size == (48, 64)
    assert torch.allclose(crop(upsample(canvas)), upsample(m), atol=1e-6)


def test_inconsistent_fields_are_refused(random_image: Make) -> None:
    m = measured(random_image(2, 1, 32, 32, dtype=torch.float32))
    with pytest.raises(ValueError, match="ids"):
        replace(m, ids=("one",))
    with pytest.raises(ValueError, match="do not fit a grid"):
        replace(m, size=(33, 32))
    with pytest.raises(ValueError, match="another grid"):
        replace(m, grid=(m.grid[0], replace(m.grid[1], offset=0.0)))
    with pytest.raises(ValueError, match="ids"):
        measured(random_image(2, 1, 32, 32), ids=["one"])
    with pytest.raises(UserError, match="no interpolation kernel named 'cubic'"):
        upsample(m, "cubic")  # type: ignore[arg-type]


def phantom() -> Tensor:
    """Shepp-Logan in [0, 1], 256 x 256, band-limited a little by averaging."""
    draw: Any = skimage.data.shepp_logan_phantom
    image = torch.from_numpy(draw()).float()[None, None]
    return torch.nn.functional.interpolate(image, size=(256, 256), mode="area")


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a.clamp(0, 1) - b).square().mean()))


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos", "bspline", "zero_filled"])
def test_ignoring_a_corner_aligned_grid_costs_decibels(kernel: Any) -> None:
    """4x k-space crop: the half-cell shift of 1.5 HR pixels costs at least 2 dB with every kernel, 3 dB with bicubic."""
    hr = phantom()
    m = measured(hr, "kspace_crop", 4, options={"align": "corner", "domain": "magnitude"})
    aware, blind = psnr(upsample(m, kernel), hr), psnr(upsample(m, kernel, grid_blind=True), hr)
    print(f"{kernel}: aware {aware:.2f} dB, blind {blind:.2f} dB, loss {aware - blind:.2f} dB")  # noqa: T201
    assert aware - blind > (2.0 if kernel == "bilinear" else 3.0)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos", "bspline", "zero_filled"])
def test_centre_aligned_grids_lose_nothing_blind(kernel: Any) -> None:
    m = measured(phantom(), "bicubic_aa", 4)
    assert torch.equal(upsample(m, kernel), upsample(m, kernel, grid_blind=True))


def test_grid_aware_upsampling_of_both_alignments_agrees() -> None:
    hr = phantom()
    lr = [measured(hr, "kspace_crop", 4, options={"align": align}) for align in ("centre", "corner")]
    assert abs(psnr(upsample(lr[0], "bicubic"), hr) - psnr(upsample(lr[1], "bicubic"), hr)) < 0.6
    assert abs(psnr(upsample(lr[0], "zero_filled"), hr) - psnr(upsample(lr[1], "zero_filled"), hr)) < 0.3
