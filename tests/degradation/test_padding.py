from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mrbench.degradation.operators import Operator
from mrbench.degradation.padding import pad_measured

Case = tuple[Any, tuple[int, ...], tuple[float, ...]]
Make = Callable[..., Tensor]


def test_what_was_measured_does_not_depend_on_the_padding(any_case: Case, random_image: Make) -> None:
    variant, size, scale = any_case
    operator = variant.bind(size, scale)
    padded, crop = operator.padded(16)
    assert all(n % 16 == 0 and n - m < 16 for n, m in zip(padded.hr_size, size, strict=True))
    assert padded.steps == operator.steps
    assert [g.offset for g in padded.grid] == [g.offset for g in operator.grid]
    x = random_image(2, variant.channels, *padded.hr_size)
    y = random_image(2, variant.channels, *padded.lr_size, seed=3)
    assert torch.allclose(crop.lr(padded.forward(x)), operator.forward(crop(x)), atol=1e-12)
    for rho in (0.0, 0.1):
        inside = operator.prox(crop(x), crop.lr(y), rho)
        assert torch.allclose(crop(padded.prox(x, y, rho)), inside, atol=1e-9 * variant.condition)
    assert torch.allclose(crop(padded.pinv(y)), operator.pinv(crop.lr(y)), atol=1e-9 * variant.condition)
    assert padded.linear == operator.linear
    assert padded.name == operator.name


def test_padded_operator_keeps_constants_and_has_an_adjoint(any_case: Case, random_image: Make) -> None:
    variant, size, scale = any_case
    padded, _ = variant.bind(size, scale).padded(16)
    ones = torch.ones(1, variant.channels, *padded.hr_size, dtype=torch.float64)
    assert torch.allclose(padded.forward(ones), torch.ones(()).double(), atol=1e-9)
    linear = padded.linear_part
    x = random_image(1, variant.channels, *padded.hr_size)
    y = random_image(1, variant.channels, *padded.lr_size, seed=3)
    assert float((linear.forward(x) * y).sum()) == pytest.approx(float((x * padded.adjoint(y)).sum()), rel=1e-10)


def test_no_padding_needed_no_change(any_case: Case) -> None:
    variant, size, scale = any_case
    operator = variant.bind(size, scale)
    same, crop = operator.padded(1)
    assert same is operator
    x = torch.rand(1, 1, *size)
    assert torch.equal(crop(x), x)


def test_added_rows_are_cell_means_of_the_extended_grid(bound: Callable[..., Operator]) -> None:
    padded, _ = bound("bicubic_aa", (12, 8), (4, 4)).padded((8, 8))
    assert padded.hr_size == (16, 8)
    x = torch.zeros(1, 1, 16, 8)
    x[..., 12:, :] = torch.arange(4.0)[:, None]
    assert torch.allclose(padded.forward(x)[0, 0, 3], torch.full((2,), 1.5))
    assert torch.allclose(padded.forward(x)[0, 0, :3], torch.zeros(3, 2))


def test_multiples_per_axis_and_bad_ones(bound: Callable[..., Operator]) -> None:
    operator = bound("area", (20, 30), (2, 2))
    assert operator.padded((32, 1))[0].hr_size == (32, 30)
    for bad in (0, (8,), (8, 8, 8), -4):
        with pytest.raises(ValueError, match="multiple"):
            operator.padded(bad)


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_repeating_the_border_is_what_local_kernels_do_anyway(
    kernel: Any, bound: Callable[..., Operator], random_image: Make
) -> None:
    for name, size in (("bicubic_aa", (29, 37)), ("kspace_crop", (30, 41)), ("sitk_resample", (37, 31))):
        operator = bound(name, size, (4, 3))
        padded, crop = operator.padded(32)
        y = random_image(1, 1, *operator.lr_size)
        canvas = pad_measured(y, operator.grid, padded.grid)
        assert torch.allclose(crop(padded.upsample(canvas, kernel)), operator.upsample(y, kernel), atol=1e-12)


def test_every_small_size_can_be_padded(bound: Callable[..., Operator]) -> None:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("area", {}), ("kspace_crop", {"align": "corner"}), ("sitk_resample", {}), ("sitk_resample", {"origin": "centre"}),
    ]  # fmt: skip
    for n in range(8, 40):
        for scale in (2, 3, 4, 8):
            for name, options in kinds:
                if name == "sitk_resample" and n % scale * 2 == scale:
                    continue  # a sample on the edge: not constant-preserving, as declared
                operator = bound(name, (n, 8), (scale, 1), **options)
                padded, _ = operator.padded((16, 8))
                y = padded.forward(torch.ones(1, 1, *padded.hr_size, dtype=torch.float64))
                assert np.allclose(y.numpy(), 1), (n, scale, name, options)
