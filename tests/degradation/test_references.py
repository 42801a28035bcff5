"""Agreement with implementations that others rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from mrbench.degradation.operators import Operator

Bound = Callable[..., Operator]
Make = Callable[..., Tensor]
Golden = Callable[[str], dict[str, NDArray[Any]]]

SIZES = [
    ((64, 64), (4, 4)),
    ((181, 217), (4, 4)),
    ((33, 50), (2, 2)),
    ((100, 101), (3, 8)),
    ((90, 109), (8, 8)),
    ((40, 41), (1, 2)),
]


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_bicubic_aa_is_pillow_float(size: tuple[int, int], scale: tuple[int, int], bound: Bound, random_image: Make) -> None:
    operator, x = bound("bicubic_aa", size, scale), random_image(1, 1, *size, dtype=torch.float32)
    h, w = operator.lr_size
    expected = Image.fromarray(x[0, 0].numpy()).resize((w, h), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(operator.forward(x)[0, 0].numpy(), np.asarray(expected), atol=1e-6)


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_bicubic_aa_is_torch_antialias(size: tuple[int, int], scale: tuple[int, int], bound: Bound, random_image: Make) -> None:
    operator, x = bound("bicubic_aa", size, scale), random_image(2, 1, *size)
    expected = interpolate(x, size=operator.lr_size, mode="bicubic", antialias=True, align_corners=False)
    assert torch.allclose(operator.forward(x), expected, atol=1e-10)
    single = interpolate(x.float(), size=operator.lr_size, mode="bicubic", antialias=True, align_corners=False)
    assert torch.allclose(operator.forward(x.float()), single, atol=3e-6)


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_bicubic_noaa_is_torch_default(size: tuple[int, int], scale: tuple[int, int], bound: Bound, random_image: Make) -> None:
    operator, x = bound("bicubic_noaa", size, scale), random_image(2, 1, *size)
    expected = interpolate(x, size=operator.lr_size, mode="bicubic", align_corners=False)
    assert torch.allclose(operator.forward(x), expected, atol=1e-10)


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_bicubic_pil8_is_pillow_on_bytes(size: tuple[int, int], scale: tuple[int, int], bound: Bound) -> None:
    operator = bound("bicubic_pil8", size, scale)
    h, w = operator.lr_size
    for x8 in (
        np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8),
        (255 * (np.random.default_rng(1).random(size) > 0.5)).astype(np.uint8),  # overshoots and is clipped
    ):
        expected = np.asarray(Image.fromarray(x8).resize((w, h), Image.Resampling.BICUBIC))
        y = operator.forward(torch.from_numpy(x8)[None, None].float() / 255)[0, 0].numpy()
        assert np.array_equal(np.rint(y * 255), expected)
        np.testing.assert_allclose(y, expected / np.float32(255), atol=1e-7)


def test_bicubic_pil8_clips_and_rounds_its_input(bound: Bound) -> None:
    operator = bound("bicubic_pil8", (8, 8), (1, 1))
    x = torch.linspace(-0.5, 1.5, 64).reshape(1, 1, 8, 8)
    assert torch.allclose(operator.forward(x) * 255, (x.clamp(0, 1) * 255 + 0.5).floor(), atol=1e-4)


def test_bicubic_pil8_differs_from_float_as_measured(bound: Bound) -> None:
    """Rounding and clipping cost about 43 to 48 dB on a phantom of 256 x 256: 8 bits are not the float operator."""
    draw: Any = skimage.data.shepp_logan_phantom
    x = interpolate(torch.from_numpy(draw()).float()[None, None], size=(256, 256), mode="area")
    for scale in (2, 4, 8):
        a, b = (bound(n, (256, 256), (scale, scale)).forward(x) for n in ("bicubic_aa", "bicubic_pil8"))
        psnr = -10 * torch.log10((a - b).square().mean())
        print(f"8-bit against float bicubic at {scale}x: {psnr:.1f} dB")  # noqa: T201
        assert 41 < psnr < 50


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_area_is_average_pooling(scale: int, bound: Bound, random_image: Make) -> None:
    x = random_image(2, 3, 64, 96)
    assert torch.allclose(bound("area", (64, 96), (scale, scale)).forward(x), avg_pool2d(x, scale), atol=1e-12)
    slab = bound("slab", (64, 96), (scale, scale), axes="all")
    assert torch.allclose(slab.forward(x), avg_pool2d(x, scale), atol=1e-12)


def test_area_is_exact_for_fractional_scales(bound: Bound, random_image: Make) -> None:
    """Refine 5 pixels to 15 sub-pixels; cells of 5/3 pixels are then 5 of them."""
    x = random_image(1, 1, 5, 10)
    fine = x.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.allclose(bound("area", (5, 10), (5 / 3, 5 / 3)).forward(x), avg_pool2d(fine, 5), atol=1e-12)


@pytest.mark.parametrize("sigma", [0.8, 1.6])
def test_gaussian_is_scipy_in_the_interior(sigma: float, bound: Bound, random_image: Make) -> None:
    """At odd scales LR samples sit on HR samples, so filtering and decimating is the same thing."""
    x = random_image(1, 1, 63, 45)
    y = bound("gaussian", (63, 45), (3, 3), sigma=sigma).forward(x)[0, 0].numpy()
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), sigma, truncate=4.0)[1::3, 1::3]
    margin = int(np.ceil((4 * sigma + 1) / 3))
    np.testing.assert_allclose(y[margin:-margin, margin:-margin], expected[margin:-margin, margin:-margin], atol=1e-4)


def test_gaussian_default_has_the_variance_of_the_box(bound: Bound) -> None:
    for scale, limit in ((2, 0.15), (3, 0.01), (4, 0.01), (8, 0.01)):  # sampling sigma = 0.5 widens it
        grid = bound("gaussian", (16 * scale, 1), (scale, 1))
        row = grid.adjoint(torch.eye(16).double()[8].reshape(1, 1, 16, 1))[0, 0, :, 0].numpy()
        t = np.arange(16 * scale) - grid.grid[0].positions()[8]
        assert (row * t**2).sum() == pytest.approx((scale**2 - 1) / 12, rel=limit)
    by_width = bound("gaussian", (32, 32), (2, 2), fwhm=2.3548200450309493)
    x = torch.rand(1, 1, 32, 32)
    assert torch.allclose(by_width.forward(x), bound("gaussian", (32, 32), (2, 2), sigma=1.0).forward(x), atol=1e-6)


Window = Callable[[NDArray[Any]], NDArray[Any]]


def fourier_crop(x: NDArray[Any], size: tuple[int, ...], align: str, window: Window) -> NDArray[Any]:
    """The definition with FFTs: centre, cut, window, shift, transform back, keep the mean."""
    spectrum = np.fft.fftshift(np.fft.fftn(x))
    for axis, n in enumerate(size):
        big = x.shape[axis]
        if n == big:
            continue
        start = big // 2 - n // 2
        spectrum = np.take(spectrum, np.arange(start, start + n), axis)
        k = np.arange(n) - n // 2
        factor = window(np.abs(k) / (n / 2)).astype(complex)
        if align == "centre":
            factor = factor * np.exp(2j * np.pi * k * (big / n - 1) / 2 / big)
        spectrum = spectrum * factor.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return np.fft.ifftn(np.fft.ifftshift(spectrum)) * np.prod(size) / x.size


WINDOWS: dict[str, Window] = {
    "none": np.ones_like,
    "hann": lambda r: 0.5 + 0.5 * np.cos(np.pi * r),
    "hamming": lambda r: 0.54 + 0.46 * np.cos(np.pi * r),
    "fermi": lambda r: (1 + np.exp(-20)) / (1 + np.exp((r - 1) / 0.05)),
    "tukey": lambda r: np.where(r < 0.5, 1.0, 0.5 + 0.5 * np.cos(np.pi * (r - 0.5) / 0.5)),
}


@pytest.mark.parametrize("window", list(WINDOWS))
@pytest.mark.parametrize("align", ["centre", "corner"])
@pytest.mark.parametrize(
    ("size", "scale"), [((24, 32), (2, 4)), ((25, 33), (2, 3)), ((25, 34), (4, 2)), ((12, 9, 14), (1, 3, 2))]
)
def test_kspace_crop_is_the_fft(
    size: tuple[int, ...], scale: tuple[float, ...], align: str, window: str, bound: Bound, random_image: Make
) -> None:
    parts = random_image(1, 2, *size)
    z = parts[0, 0].numpy() + 1j * parts[0, 1].numpy()
    operator = bound("kspace_crop", size, scale, align=align, window=window, domain="complex")
    y = operator.forward(parts)[0].numpy()
    expected = fourier_crop(z, operator.lr_size, align, WINDOWS[window])
    np.testing.assert_allclose(y[0] + 1j * y[1], expected, atol=1e-12)
    expected = fourier_crop(parts[0, 0].numpy(), operator.lr_size, align, WINDOWS[window])
    for domain, reference in (("real", expected.real), ("magnitude", np.abs(expected))):
        operator = bound("kspace_crop", size, scale, align=align, window=window, domain=domain)
        np.testing.assert_allclose(operator.forward(parts[:, :1])[0, 0].numpy(), reference, atol=1e-12)


def resample(x: NDArray[Any], scale: tuple[float, ...], interpolator: int, origin: str) -> NDArray[Any]:
    itk: Any = sitk
    image = itk.GetImageFromArray(x)
    spacing = scale[::-1]
    size = [round(n / s) for n, s in zip(image.GetSize(), spacing, strict=True)]
    start = [0.0 if origin == "keep" else (s - 1) / 2 for s in spacing]
    result = itk.Resample(image, size, itk.Transform(), interpolator, start, list(spacing), image.GetDirection(), 0.0)
    return np.asarray(itk.GetArrayFromImage(result))


@pytest.mark.parametrize("origin", ["keep", "centre"])
@pytest.mark.parametrize(
    ("name", "interpolator"),
    [("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor), ("bspline", sitk.sitkBSpline)],
)
@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((13, 37, 42), (2, 2, 2)),
        ((13, 37, 42), (4, 4, 4)),
        ((20, 30, 33), (2.5, 1.7, 3.0118)),
        ((60, 43), (4, 3)),
        ((6, 10), (4, 4)),  # the last sample of both axes on the edge
    ],
)
def test_sitk_resample_is_simpleitk(
    size: tuple[int, ...], scale: tuple[float, ...], name: str, interpolator: int, origin: str, bound: Bound, random_image: Make
) -> None:
    x = random_image(1, 1, *size, dtype=torch.float32)
    y = bound("sitk_resample", size, scale, interpolator=name, origin=origin).forward(x)
    np.testing.assert_allclose(y[0, 0].numpy(), resample(x[0, 0].numpy(), scale, interpolator, origin), atol=2e-6)


def test_sitk_resample_edge_case_is_outside_as_declared(bound: Bound) -> None:
    """6 / 4 = 1.5 is rounded to 2: the second sample sits at 5.5, on the image's edge, which SimpleITK sets to 0."""
    operator = bound("sitk_resample", (6, 6), (4, 4), origin="centre")
    assert operator.forward(torch.ones(1, 1, 6, 6))[0, 0].tolist() == [[1, 0], [0, 0]]
    y = torch.tensor([[[[0.5, 3.0], [3.0, 3.0]]]])
    solution = operator.pinv(y)
    assert torch.allclose(operator.forward(solution), torch.tensor([[[[0.5, 0.0], [0.0, 0.0]]]]), atol=1e-6)
    assert torch.isfinite(operator.prox(solution, y, 0.0)).all()


def test_integer_scale_with_kept_origin_is_point_decimation(bound: Bound, random_image: Make) -> None:
    x = random_image(1, 1, 12, 16, 20)
    assert torch.equal(bound("sitk_resample", (12, 16, 20), (2, 4, 5)).forward(x), x[..., ::2, ::4, ::5])


def test_published_3d_degradation(golden: Golden, bound: Bound) -> None:
    tensors = golden("resshift/ressrdiff_degradation")
    volume = torch.from_numpy(tensors["volume"])[None, None]
    for factor in (2, 4):
        operator = bound("sitk_resample", tuple(volume.shape[2:]), (factor,) * 3)
        down = tensors[f"down{factor}"]
        y = operator.forward(volume)
        assert operator.lr_size == down.shape
        np.testing.assert_allclose(y[0, 0].numpy(), down, atol=1e-3)  # values up to 700
        up = operator.upsample(y.double(), "bspline")[0, 0].numpy()
        inside = np.ix_(*[np.flatnonzero(g.coordinates() <= g.n_lr - 1) for g in operator.grid])
        np.testing.assert_allclose(up[inside], tensors[f"up{factor}"][inside], atol=1e-2)


@pytest.mark.parametrize(("key", "scale"), [("down4_32", 4), ("down2_24x40", 2), ("down8_64", 8)])
def test_published_antialiased_resizer(key: str, scale: int, golden: Golden, bound: Bound) -> None:
    """Mirror borders: equal everywhere with ``border: mirror``, in the interior with the default."""
    tensors = golden("adm/dps_resizer")
    x, y, v = (torch.from_numpy(tensors[f"{key}.{part}"]) for part in ("x", "y", "v"))
    size = tuple(x.shape[2:])
    mirror = bound("bicubic_aa", size, (scale, scale), border="mirror")
    assert torch.allclose(mirror.forward(x), y, atol=3e-6)
    assert torch.allclose(mirror.adjoint(v), torch.from_numpy(tensors[f"{key}.adjoint_v"]), atol=3e-6)
    inner = bound("bicubic_aa", size, (scale, scale)).forward(x)[..., 2:-2, 2:-2]
    assert torch.allclose(inner, y[..., 2:-2, 2:-2], atol=3e-6)


def test_published_exact_prox(golden: Golden, bound: Bound) -> None:
    tensors = {k: torch.from_numpy(v) for k, v in golden("adm/prox_exact_bicubic_resizer").items()}
    for key, scale, rhos in (("p0", 4, (0.001, 0.1)), ("p1", 2, (0.01, 2.0))):
        z, y = tensors[f"{key}.x0"].double(), tensors[f"{key}.y"].double()
        operator = bound("bicubic_aa", tuple(z.shape[2:]), (scale, scale), border="mirror")
        assert torch.allclose(operator.forward(z), tensors[f"{key}.Hx"].double(), atol=1e-6)
        for i, rho in enumerate(rhos):
            assert torch.allclose(operator.prox(z, y, rho), tensors[f"{key}.prox{i}"], atol=1e-9)
            assert torch.allclose(operator.prox(z.float(), y.float(), rho), tensors[f"{key}.prox{i}"].float(), atol=3e-5)


def test_published_pool_and_bicubic_corruption(golden: Golden, bound: Bound) -> None:
    tensors = {k: torch.from_numpy(v) for k, v in golden("adm/i2sb_corruption_sr4x").items()}
    x = tensors["x"]
    pool, bicubic = bound("area", (32, 32), (4, 4)), bound("bicubic_aa", (32, 32), (4, 4), border="mirror")
    assert torch.allclose(pool.forward(x), tensors["pool.H"], atol=1e-6)
    assert torch.allclose(bicubic.forward(x.double()), tensors["bicubic.H_by_definition"], atol=1e-9)
    assert torch.allclose(bicubic.forward(x), tensors["bicubic.H"], atol=2e-6)
    for operator, key in ((pool, "pool"), (bicubic, "bicubic")):
        assert torch.equal(operator.upsample(tensors[f"{key}.H"], "nearest"), tensors[f"{key}.x1"])
