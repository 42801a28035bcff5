"""PSNR, SSIM, MS-SSIM, GMSD, NMSE and HaarPSI against other libraries, and their edge cases."""

from __future__ import annotations

import math

import numpy as np
import piq
import pytest
import skimage.metrics
import torch
import torchmetrics.functional.image as tm
from torch.nn import functional as F

from mrbench.errors import MetricUnavailable
from mrbench.metrics.base import to_image
from mrbench.metrics.cards import cards

CARDS = {card.name: card for card in cards()}

SIZES = [(64, 64), (65, 64), (64, 77), (97, 131), (190, 176)]


def load(name, **options):
    metric = CARDS[name].load()(CARDS[name].parse(options))
    metric.prepare(torch.device("cpu"))
    return metric


def evaluate(name, x, y, mask=None, **options):
    metric = load(name, **options)
    return metric(y, metric.reference(x, mask))


def pairs(size, count=3):
    """Blobs on a black background, and the same blurred, noisy and clipped: ``[count, 1, H, W]`` float32 each."""
    generator = torch.Generator().manual_seed(sum(size))
    noise = torch.randn(2, count, 1, *size, generator=generator)
    smooth = F.avg_pool2d(F.avg_pool2d(noise[0], 9, 1, 4), 5, 1, 2)
    x = (smooth / smooth.abs().amax() * 2).clamp(0, 1)
    y = (F.avg_pool2d(x, 5, 1, 2) + 0.03 * noise[1]).clamp(0, 1)
    return x, y


def bright_noise(size, count=2):
    """Noise on bright, almost flat images, where float32 loses most digits of a variance."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(2, count, 1, *size, generator=generator)
    x = (0.9 + 0.01 * noise[0]).clamp(0, 1)
    return x, (x + 0.01 * noise[1]).clamp(0, 1)


def gap(values, expected):
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float64).flatten()
    assert values.shape == expected.shape
    return float((values - expected).abs().max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [pairs, bright_noise])
def test_against_scikit_image(make, size):
    x, y = make(size)
    images = [(a[0].double().numpy(), b[0].double().numpy()) for a, b in zip(x, y, strict=True)]
    metric = skimage.metrics
    gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = {
        ("psnr",): [metric.peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in images],
        ("nmse",): [metric.normalized_root_mse(a, b, normalization="euclidean") ** 2 for a, b in images],
        ("ssim",): [metric.structural_similarity(a, b, **gauss) for a, b in images],
        ("ssim", "uniform7", "sample"): [metric.structural_similarity(a, b, data_range=1.0) for a, b in images],
    }
    for (name, *options), values in expected.items():
        chosen = dict(zip(("window", "covariance"), options, strict=False))
        assert gap(evaluate(name, x.double(), y.double(), **chosen)[""], values) < 1e-9
        assert gap(evaluate(name, x, y, **chosen)[""], values) < 2e-6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [pairs, bright_noise])
def test_against_piq(make, size):
    x, y = (t.double() for t in make(size))
    every = {"data_range": 1.0, "reduction": "none"}
    expected = {
        "psnr": piq.psnr(y, x, **every),
        "ssim": piq.ssim(y, x, downsample=False, **every),
        "gmsd": piq.gmsd(y, x, **every),
        "haarpsi": piq.haarpsi(y, x, **every),
    }
    for name, values in expected.items():
        options = {"epsilon": 1e-8} if name == "psnr" else {}
        assert gap(evaluate(name, x, y, **options)[""], values) < 1e-9
        assert gap(evaluate(name, x.float(), y.float(), **options)[""], values) < 2e-6


def test_against_torchmetrics():
    x, y = (t.double() for t in pairs((190, 201)))
    every = {"data_range": 1.0, "reduction": "none"}
    psnr = tm.peak_signal_noise_ratio(y, x, dim=(1, 2, 3), **every)
    assert gap(evaluate("psnr", x, y)[""], psnr) < 1e-5  # its data range is float32
    ssim = tm.structural_similarity_index_measure(y, x, gaussian_kernel=True, sigma=1.5, **every)
    assert gap(evaluate("ssim", x, y, border="reflect")[""], ssim) < 1e-9
    assert gap(evaluate("ssim", x.float(), y.float(), border="reflect")[""], ssim) < 1e-5


def test_pooled_ssim_is_that_of_piq_and_of_ssim_m():
    x, y = (t.double() for t in pairs((400, 391), count=1))
    expected = piq.ssim(y, x, data_range=1.0, reduction="none")
    assert gap(evaluate("ssim", x, y, downsample="auto")[""], expected) < 1e-9
    assert gap(evaluate("ssim", x, y)[""], expected) > 1e-3


def test_ms_ssim_against_piq_and_torchmetrics():
    x, y = (t.double() for t in pairs((192, 208)))  # even at every scale: libraries differ where a side is odd
    ours = evaluate("ms_ssim", x, y)[""]
    assert gap(ours, piq.multi_scale_ssim(y, x, data_range=1.0, reduction="none")) < 1e-9
    assert gap(evaluate("ms_ssim", x.float(), y.float())[""], ours) < 1e-5


def test_ms_ssim_clips_negative_contrast_and_refuses_small_images():
    x, _ = pairs((176, 176))
    values = evaluate("ms_ssim", x, 1 - x)[""]
    assert (values == 0).all()
    with pytest.raises(MetricUnavailable, match=r"at least 176 pixels a side, got 175x180"):
        evaluate("ms_ssim", *pairs((175, 180)))


@pytest.mark.parametrize("name", ["psnr", "ssim", "ms_ssim", "gmsd", "nmse", "haarpsi"])
def test_values_do_not_depend_on_the_batch(name):
    x, y = pairs((181, 190), count=7)
    mask = x[:, 0] > 0.2
    whole = evaluate(name, x, y, mask)
    alone = [evaluate(name, x[i : i + 1], y[i : i + 1], mask[i : i + 1]) for i in range(7)]
    for key, values in whole.items():
        assert gap(values, torch.cat([a[key] for a in alone])) < 1e-9
    again = evaluate(name, x, y, mask)
    assert all(torch.equal(values, again[key]) for key, values in whole.items())


@pytest.mark.parametrize("name", ["psnr", "ssim", "gmsd", "nmse", "haarpsi"])
def test_chunks_of_small_images_give_the_same(name):
    x, y = pairs((40, 44), count=90)  # several images per chunk, and a shorter last chunk
    whole = evaluate(name, x, y)[""]
    assert gap(whole[-3:], evaluate(name, x[-3:], y[-3:])[""]) < 1e-9


def test_identical_images_are_perfect():
    x, _ = pairs((181, 176))
    mask = x[:, 0] > 0.2
    for name, value in {"psnr": math.inf, "ssim": 1.0, "ms_ssim": 1.0, "gmsd": 0.0, "nmse": 0.0}.items():
        for values in evaluate(name, x, x, mask).values():
            assert (values == value).all()
    assert gap(evaluate("haarpsi", x, x)[""], torch.ones(len(x))) < 1e-12


def test_black_images():
    x = torch.zeros(2, 1, 180, 180)
    for name, value in {"psnr": math.inf, "ssim": 1.0, "ms_ssim": 1.0, "gmsd": 0.0, "haarpsi": 1.0}.items():
        assert (evaluate(name, x, x)[""] == value).all()
    assert evaluate("nmse", x, x)[""].isnan().all()
    assert evaluate("nmse", x, x + 0.1)[""].isnan().all()
    assert (evaluate("psnr", x, x, data_range="refmax")[""] == math.inf).all()
    assert evaluate("psnr", x, x + 0.1, data_range="refmax")[""].isnan().all()
    assert evaluate("ssim", x, x, data_range="refmax")[""].isnan().all()


def test_constant_images():
    x, y = torch.full((1, 1, 64, 64), 0.5), torch.full((1, 1, 64, 64), 0.55)
    mean = float(x[0, 0, 0, 0]), float(y[0, 0, 0, 0])
    c1 = 0.01**2
    luminance = (2 * mean[0] * mean[1] + c1) / (mean[0] ** 2 + mean[1] ** 2 + c1)  # no structure: only this is left
    assert evaluate("ssim", x, y)[""].item() == pytest.approx(luminance, abs=2e-6)
    assert 0.0014 < evaluate("gmsd", x, y)[""].item() < 0.0015  # the zero border alone


def test_foreground_values_see_the_foreground_only():
    x, y = pairs((64, 80))
    mask = torch.zeros(len(x), 64, 80, dtype=torch.bool)
    mask[:, 20:44, 16:50] = True
    spoiled = y.clone()
    spoiled[:, :, :8] = 1 - spoiled[:, :, :8]
    for name in ("psnr", "ssim", "gmsd", "nmse"):
        before, after = evaluate(name, x, y, mask), evaluate(name, x, spoiled, mask)
        assert torch.equal(before["_fg"], after["_fg"])
        assert (before[""] - after[""]).abs().min() > 1e-6
    inside = (y - x)[:, :, 20:44, 16:50].double().square().mean((1, 2, 3))
    assert gap(evaluate("psnr", x, y, mask)["_fg"], -10 * torch.log10(inside)) < 1e-6
    whole = torch.ones_like(mask)
    for name in ("psnr", "ssim", "gmsd", "nmse"):
        values = evaluate(name, x, y, whole)
        assert gap(values["_fg"], values[""]) < 1e-12


def test_foreground_of_metrics_on_coarser_grids():
    """A mask of whole blocks pools to the mask of these blocks."""
    x, y = pairs((400, 384), count=1)
    coarse = torch.rand(len(x), 200, 192, generator=torch.Generator().manual_seed(3)) > 0.5
    mask = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    pooled = [F.avg_pool2d(t, 2) for t in (x, y)]
    expected = evaluate("ssim", *pooled, coarse)["_fg"]
    assert gap(evaluate("ssim", x, y, mask, downsample="auto")["_fg"], expected) < 1e-6
    half_less = mask.clone()
    half_less[:, ::2, ::2] = False  # three of four pixels of a block remain: still inside
    assert torch.equal(evaluate("gmsd", x, y, half_less)["_fg"], evaluate("gmsd", x, y, mask)["_fg"])


def test_an_empty_mask_gives_nan():
    x, y = pairs((64, 64))
    empty = torch.zeros(len(x), 64, 64, dtype=torch.bool)
    for name in ("psnr", "ssim", "gmsd", "nmse"):
        values = evaluate(name, x, y, empty)
        assert values["_fg"].isnan().all()
        assert values[""].isfinite().all()


def test_channels():
    x, y = pairs((64, 70), count=3)
    red, green, blue = x, x.flip(-1), x.flip(-2)
    colour, other = torch.cat([red, green, blue], 1), torch.cat([y, green, blue], 1)
    assert gap(evaluate("psnr", colour, other)[""], evaluate("psnr", red, y)[""] + 10 * math.log10(3)) < 1e-9
    for name, perfect in (("ssim", 1.0), ("gmsd", 0.0), ("haarpsi", 1.0)):
        assert gap(evaluate(name, colour, other)[""], (evaluate(name, red, y)[""] + 2 * perfect) / 3) < 1e-9
    energy = [c.double().square().sum((1, 2, 3)) for c in (red, green, blue)]
    assert gap(evaluate("nmse", colour, other)[""], (y - x).double().square().sum((1, 2, 3)) / sum(energy)) < 1e-9
    complex_x = torch.cat([x * 0.6, x * 0.8], 1)
    assert torch.allclose(to_image(complex_x), x, atol=1e-6)
    assert gap(evaluate("ssim", complex_x, torch.cat([y * 0.6, y * 0.8], 1))[""], evaluate("ssim", x, y)[""]) < 1e-6
    with pytest.raises(ValueError, match="C = 1, 2 or 3"):
        to_image(torch.zeros(1, 4, 8, 8))


def test_options_change_values_as_they_say():
    x, y = (t.double() for t in pairs((96, 96)))
    peak = x.amax((1, 2, 3))
    assert gap(evaluate("psnr", x, y, data_range="refmax")[""], evaluate("psnr", x, y)[""] + 20 * torch.log10(peak)) < 1e-9
    assert gap(evaluate("psnr", 100 * x, 100 * y, data_range=100)[""], evaluate("psnr", x, y)[""]) < 1e-9
    assert gap(evaluate("ssim", 100 * x, 100 * y, data_range=100)[""], evaluate("ssim", x, y)[""]) < 1e-9
    assert gap(evaluate("ssim", x / peak[:, None, None, None], y / peak[:, None, None, None])[""],
               evaluate("ssim", x, y, data_range="refmax")[""]) < 1e-9  # fmt: skip
    n = 48 * 48
    ratio = evaluate("gmsd", x, y, ddof=1)[""] / evaluate("gmsd", x, y)[""]
    assert gap(ratio, torch.full_like(ratio, math.sqrt(n / (n - 1)))) < 1e-12
    bytes_x, bytes_y = ((t * 255).round() / 255 for t in (x, y))
    for name in ("psnr", "ssim"):
        assert gap(evaluate(name, x, y, quantise="uint8")[""], evaluate(name, bytes_x, bytes_y)[""]) < 1e-9
    assert gap(evaluate("haarpsi", x, y, c=5, alpha=5.8)[""], piq.haarpsi(y, x, c=5, alpha=5.8, reduction="none")) < 1e-9


def test_estimates_outside_the_range_count_as_they_are():
    x, y = pairs((64, 64))
    assert (evaluate("psnr", x, y * 3 - 1)[""] < evaluate("psnr", x, (y * 3 - 1).clamp(0, 1))[""]).all()


def test_wrong_shapes_are_refused():
    x, y = pairs((64, 64))
    metric = load("ssim")
    reference = metric.reference(x, None)
    with pytest.raises(ValueError, match="does not match the ground truth"):
        metric(y[:1], reference)
    with pytest.raises(ValueError, match="mask must be bool"):
        metric.reference(x, torch.ones(len(x), 64, 64))
    with pytest.raises(MetricUnavailable, match="at least 11 pixels"):
        metric.reference(x[..., :10], None)
    with pytest.raises(TypeError, match="expected PsnrOptions"):
        type(load("psnr"))(metric._options)
