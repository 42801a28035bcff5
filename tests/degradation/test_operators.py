from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mrbench.degradation.base import Degradation
from mrbench.degradation.cards import BicubicAAOptions, KspaceCropOptions, NoDegradationOptions
from mrbench.degradation.image_space import Area, BicubicAA
from mrbench.degradation.kspace import KspaceCrop
from mrbench.degradation.operators import Operator
from mrbench.errors import MrbenchError, UserError

Case = tuple[Any, tuple[int, ...], tuple[float, ...]]
Make = Callable[..., Tensor]


def setup(case: Case, make: Make, dtype: torch.dtype = torch.float64) -> tuple[Operator, Tensor, Tensor]:
    """Operator, random HR images, random LR images."""
    variant, size, scale = case
    operator = variant.bind(size, scale)
    x = make(2, variant.channels, *size, dtype=dtype, seed=1)
    y = make(2, variant.channels, *operator.lr_size, dtype=dtype, seed=2)
    return operator, x, y


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_constants_are_kept_borders_included(any_case: Case) -> None:
    variant, size, scale = any_case
    operator = variant.bind(size, scale)
    x = torch.ones(1, variant.channels, *size, dtype=torch.float64)
    x[:, 1:] = 0.4  # imaginary part
    y = operator.forward(x)
    assert torch.allclose(y[:, 0], torch.ones(()).double(), atol=1e-9)
    assert torch.allclose(y[:, 1:], torch.full((), 0.4).double(), atol=1e-9)


def test_sizes_and_grid(any_case: Case) -> None:
    variant, size, scale = any_case
    operator = variant.bind(size, scale)
    y = operator.forward(torch.rand(1, variant.channels, *size))
    assert tuple(y.shape) == (1, variant.channels, *operator.lr_size)
    for n, s, n_lr, step in zip(size, scale, operator.lr_size, operator.steps, strict=True):
        exact = s if variant.name == "sitk_resample" else n / n_lr
        untouched = variant.name == "slab" and variant.options.get("in_plane", "none") == "none" and s == 1
        assert n_lr == (round(n / s) if variant.name == "sitk_resample" else math.floor(n / s + 0.5)) or untouched
        assert step == exact
    assert operator.name == variant.name
    assert operator.linear == (variant.name != "bicubic_pil8" and variant.options.get("domain") != "magnitude")


@pytest.mark.parametrize("ndim", [2, 3])
def test_no_shift_a_ramp_lands_on_the_declared_grid(ramp_variant: Any, ndim: int) -> None:
    variant = ramp_variant
    for axis in range(ndim):
        for n, scale in ((48, 2.0), (72, 8.0), (50, 3.0), (45, 4.0)):
            sizes, scales = [8] * ndim, [2.0] * ndim
            sizes[axis], scales[axis] = n, scale
            operator = variant.bind(tuple(sizes), tuple(scales))
            ramp = torch.arange(n, dtype=torch.float64).reshape([-1 if a == axis else 1 for a in range(ndim)])
            y = operator.forward(ramp.expand(1, 1, *sizes))[0, 0]
            line = y[tuple(slice(None) if a == axis else 1 for a in range(ndim))].numpy()
            positions = operator.grid[axis].positions()
            inside = (positions > 2.5 * scale + 4) & (positions < n - 1 - 2.5 * scale - 4)
            assert inside.sum() >= 2
            limit = variant.ramp if float(operator.grid[axis].step).is_integer() else max(variant.ramp, 0.15)
            assert np.abs(line - positions)[inside].max() <= limit + 1e-12, (n, scale)


def one_period(positions: Any, n: int) -> Any:
    return 2 + np.cos(2 * np.pi * positions / n + 0.3)


def test_no_shift_a_wave_lands_on_the_declared_grid(wave_case: Case) -> None:
    """A ramp is not periodic, so operators of k-space get one period of a wave."""
    variant, size, scale = wave_case
    operator = variant.bind(size, scale)
    for axis, grid in enumerate(operator.grid):
        shape = [-1 if a == axis else 1 for a in range(len(size))]
        wave = torch.from_numpy(one_period(np.arange(grid.n_hr), grid.n_hr)).reshape(shape).expand(1, variant.channels, *size)
        sampled = torch.from_numpy(one_period(grid.positions(), grid.n_hr)).reshape(shape)
        expected = sampled.expand(1, variant.channels, *operator.lr_size)
        assert torch.allclose(operator.forward(wave), expected, atol=1e-9)


def test_adjoint_identity(linear_case: Case, random_image: Make) -> None:
    operator, x, y = setup(linear_case, random_image)
    left, right = (operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum()
    assert abs(float(left - right)) < 1e-10 * float(left.abs())


def test_gradient_of_forward_is_the_adjoint(linear_case: Case, random_image: Make) -> None:
    operator, x, y = setup(linear_case, random_image)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(operator.forward(x), x, y)
    assert relative(gradient, operator.adjoint(y)) < 1e-10


def test_pinv_solves_what_was_measured(linear_case: Case, random_image: Make) -> None:
    operator, x, y = setup(linear_case, random_image)
    measured = operator.forward(x)
    assert relative(operator.forward(operator.pinv(measured)), measured) < 1e-8
    if linear_case[0].full_rank:
        assert relative(operator.forward(operator.pinv(y)), y) < 1e-8


def test_pinv_has_least_norm(linear_case: Case, random_image: Make) -> None:
    operator, x, _ = setup(linear_case, random_image)
    solution = operator.pinv(operator.forward(x))
    null = x - solution  # H null = 0
    assert abs(float((solution * null).sum())) < 1e-7 * float(x.square().sum())


def test_prox_is_optimal(linear_case: Case, random_image: Make) -> None:
    operator, z, y = setup(linear_case, random_image)
    for rho in (1e-3, 0.3, 20.0):
        x = operator.prox(z, y, rho)
        gradient = operator.adjoint(operator.forward(x) - y) + rho * (x - z)
        assert float(gradient.norm()) < 1e-9 * float(operator.adjoint(y).norm())


def test_prox_limits(linear_case: Case, random_image: Make) -> None:
    operator, z, y = setup(linear_case, random_image)
    exact = operator.prox(z, operator.forward(y_image := random_image(*z.shape, seed=5)), 0.0)
    assert relative(operator.forward(exact), operator.forward(y_image)) < 1e-8
    assert relative(operator.prox(z, operator.forward(y_image), 1e-14), exact) < 1e-4
    assert relative(operator.prox(z, y, 1e9), z) < 1e-8
    assert relative(operator.prox(z, operator.forward(z), 0.1), z) < 1e-9


def test_dense_matrix_agrees(linear_case: Case, random_image: Make) -> None:
    """Prox and pseudo-inverse against the normal equations with the whole matrix, written out."""
    variant = linear_case[0]
    size, scale = ((7, 10), (2.0, 3.0)) if len(linear_case[1]) == 2 else ((4, 5, 6), (2.0, 1.0, 2.0))
    operator = variant.bind(size, scale)
    n, m = variant.channels * math.prod(size), variant.channels * math.prod(operator.lr_size)
    dense = operator.forward(torch.eye(n).double().reshape(n, variant.channels, *size)).reshape(n, m).T
    z = random_image(1, variant.channels, *size, seed=3)
    y = random_image(1, variant.channels, *operator.lr_size, seed=4)
    assert relative(operator.adjoint(y).flatten(), dense.T @ y.flatten()) < 1e-10
    rho = 0.05
    normal = dense.T @ dense + rho * torch.eye(n).double()
    expected = torch.linalg.solve(normal, dense.T @ y.flatten() + rho * z.flatten())
    assert relative(operator.prox(z, y, rho).flatten(), expected) < 1e-8
    consistent = dense @ z.flatten()
    solution = operator.pinv(consistent.reshape(y.shape)).flatten()
    assert relative(solution, torch.linalg.pinv(dense, rtol=1e-6) @ consistent) < 1e-7


def test_one_rho_per_image(bound: Callable[..., Operator], random_image: Make) -> None:
    for operator in (bound("bicubic_aa", (16, 20), (2, 2)), bound("kspace_crop", (16, 20), (2, 2))):
        z, y = random_image(3, 1, 16, 20), random_image(3, 1, 8, 10)
        rhos = torch.tensor([0.01, 0.5, 3.0])
        together = operator.prox(z, y, rhos)
        for i, rho in enumerate(rhos.tolist()):
            assert torch.allclose(together[i], operator.prox(z[i : i + 1], y[i : i + 1], rho)[0], atol=1e-7)
        assert torch.allclose(operator.prox(z, y, torch.tensor(0.5)), operator.prox(z, y, 0.5), atol=1e-12)
        for bad in (-1.0, float("nan"), torch.ones(2)):
            with pytest.raises(ValueError, match="rho"):
                operator.prox(z, y, bad)


def test_single_precision_agrees_with_double(any_case: Case, random_image: Make) -> None:
    operator, x, y = setup(any_case, random_image)
    measured = 0.9 * operator.linear_part.forward(x)
    for double, single in (
        (operator.forward(x), operator.forward(x.float())),
        (operator.adjoint(y), operator.adjoint(y.float())),
        (operator.prox(x, measured, 0.1), operator.prox(x.float(), measured.float(), 0.1)),
        (operator.upsample(y), operator.upsample(y.float())),
    ):
        assert single.dtype == torch.float32
        assert relative(single.double(), double) < 3e-6


def test_items_do_not_depend_on_the_batch(any_case: Case, random_image: Make) -> None:
    variant, size, scale = any_case
    operator = variant.bind(size, scale)
    x = random_image(5, variant.channels, *size, dtype=torch.float32)
    x[3] *= 100  # a neighbour of another magnitude
    y = operator.forward(x)
    calls: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, y: operator.forward(x),
        lambda x, y: operator.adjoint(y),
        lambda x, y: operator.pinv(y),
        lambda x, y: operator.prox(0.5 * x, y, 0.01),
    ]
    for call in calls:
        together = call(x, y)
        for i in range(5):
            alone = call(x[i : i + 1], y[i : i + 1])[0]
            assert float((alone - together[i]).abs().max()) <= 2e-6 * variant.condition * float(alone.abs().max())


def test_colour_is_three_grey_images(grey_case: Case, random_image: Make) -> None:
    variant, size, scale = grey_case
    operator = variant.bind(size, scale)
    x = random_image(1, 3, *size, dtype=torch.float32)
    separate = operator.forward(x.reshape(3, 1, *size)).reshape(1, 3, *operator.lr_size)
    assert torch.allclose(operator.forward(x), separate, atol=1e-6)


def test_shapes_are_checked(any_case: Case) -> None:
    variant, size, scale = any_case
    operator = variant.bind(size, scale)
    x = torch.zeros(1, variant.channels, *size)
    with pytest.raises(ValueError, match="expected x of shape"):
        operator.forward(x[..., 1:])
    with pytest.raises(ValueError, match="expected"):
        operator.forward(x[0])
    with pytest.raises(ValueError, match="expected y of shape"):
        operator.adjoint(x)
    with pytest.raises(ValueError, match="expected y of shape"):
        operator.upsample(x)


def test_half_precision_and_autocast_do_not_reach_the_operator(bound: Callable[..., Operator], random_image: Make) -> None:
    operator = bound("bicubic_aa", (32, 32), (4, 4))
    x = random_image(1, 1, 32, 32, dtype=torch.float32)
    expected = operator.forward(x)
    assert torch.allclose(operator.forward(x.bfloat16()), operator.forward(x.bfloat16().float()))
    assert operator.forward(x.half()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(operator.forward(x), expected)
        assert operator.upsample(expected).dtype == torch.float32


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_matmul_precision_does_not_reach_the_operator(
    precision: str, bound: Callable[..., Operator], random_image: Make
) -> None:
    x = random_image(1, 1, 64, 64, dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    for operator in (bound("bicubic_aa", (64, 64), (4, 4)), bound("kspace_crop", (64, 64), (4, 4))):
        exact, solution = operator.forward(x.double()), operator.pinv(operator.forward(x.double()))
        try:
            torch.set_float32_matmul_precision(precision)
            y = operator.forward(x)
            back = operator.pinv(y)
        finally:
            torch.set_float32_matmul_precision(before)
        assert y.dtype == torch.float32
        assert relative(y.double(), exact) < 1e-6
        assert relative(back.double(), solution) < 1e-5


def test_operators_made_in_inference_mode_serve_gradients_later(bound: Callable[..., Operator], random_image: Make) -> None:
    operator = bound("kspace_crop", (16, 16), (2, 2))
    with torch.inference_mode():
        y = operator.forward(random_image(1, 1, 16, 16))
        operator.prox(random_image(1, 1, 16, 16), y, 0.1)
    z = random_image(1, 1, 16, 16, seed=9).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.prox(z, y.clone(), 0.1).square().sum(), z)
    assert torch.isfinite(gradient).all()


def test_prox_is_differentiable(bound: Callable[..., Operator], random_image: Make) -> None:
    for operator in (bound("bicubic_aa", (6, 8), (2, 2)), bound("kspace_crop", (6, 8), (2, 2))):
        z, y = random_image(1, 1, 6, 8).requires_grad_(), random_image(1, 1, 3, 4, seed=2).requires_grad_()
        assert torch.autograd.gradcheck(lambda z, y, op=operator: op.prox(z, y, 0.3), (z, y), atol=1e-6)


def test_operators_travel_between_processes(any_case: Case, random_image: Make) -> None:
    operator, x, y = setup(any_case, random_image)
    expected = operator.prox(x, y, 0.1)
    copy = pickle.loads(pickle.dumps(operator))
    assert torch.equal(copy.prox(x, y, 0.1), expected)
    assert copy.grid == operator.grid


def test_magnitude_forward_is_the_magnitude_of_the_complex_crop(random_image: Make, bound: Callable[..., Operator]) -> None:
    x = random_image(2, 1, 17, 22)
    magnitude = bound("kspace_crop", (17, 22), (2, 3), domain="magnitude")
    complex_ = bound("kspace_crop", (17, 22), (2, 3), domain="complex")
    y = complex_.forward(torch.cat([x, torch.zeros_like(x)], 1))
    assert torch.allclose(magnitude.forward(x), torch.hypot(y[:, :1], y[:, 1:]), atol=1e-12)
    assert not magnitude.linear
    assert magnitude.linear_part.linear
    assert torch.equal(magnitude.linear_part.forward(x), bound("kspace_crop", (17, 22), (2, 3), domain="real").forward(x))


def test_pillow_operator_has_the_gradient_of_its_linear_part(random_image: Make, bound: Callable[..., Operator]) -> None:
    operator = bound("bicubic_pil8", (24, 20), (2, 2))
    x, v = random_image(1, 1, 24, 20).requires_grad_(), random_image(1, 1, 12, 10, seed=4)
    (gradient,) = torch.autograd.grad(operator.forward(x), x, v)
    assert torch.allclose(gradient, bound("bicubic_aa", (24, 20), (2, 2)).adjoint(v))


def test_wrong_channels_are_refused_with_the_fix(bound: Callable[..., Operator]) -> None:
    with pytest.raises(UserError, match=r"complex images.*got 1.*'real' or 'magnitude'"):
        bound("kspace_crop", (16, 16), (2, 2), domain="complex").forward(torch.zeros(1, 1, 16, 16))
    for domain in ("real", "magnitude"):
        operator = bound("kspace_crop", (16, 16), (2, 2), domain=domain)
        for call, side in ((operator.forward, 16), (operator.adjoint, 8), (operator.pinv, 8)):
            with pytest.raises(UserError, match="Set domain to 'complex'"):
                call(torch.zeros(1, 2, side, side))
    with pytest.raises(UserError, match="Use bicubic_aa"):
        bound("bicubic_pil8", (16, 16), (2, 2)).forward(torch.zeros(1, 2, 16, 16))


def test_binding_is_checked_and_remembered() -> None:
    degradation: Degradation[Any] = BicubicAA(BicubicAAOptions())
    assert degradation.bind((32, 32), (2, 2)) is degradation.bind([32, 32], [2.0, 2.0])
    assert degradation.bind((32, 32), (2, 2)) is not degradation.bind((32, 32), (4, 4))
    with pytest.raises(UserError, match="one scale per axis"):
        degradation.bind((32, 32), (2,))
    with pytest.raises(UserError, match="2-D and 3-D"):
        degradation.bind((32,), (2,))
    with pytest.raises(UserError, match="nothing would be left"):
        degradation.bind((32, 3), (2, 8))
    area = Area(NoDegradationOptions())
    for n in range(20, 60):
        area.bind((n, n), (2, 2))
    assert len(area._bound) <= 16


def test_slab_says_what_to_do_about_the_other_axes(bound: Callable[..., Operator]) -> None:
    with pytest.raises(UserError, match="in_plane"):
        bound("slab", (20, 32, 32), (2, 4, 4))
    operator = bound("slab", (20, 32, 30), (4, 1, 1))
    assert operator.lr_size == (5, 32, 30)


def test_slab_gap_leaves_samples_unseen(bound: Callable[..., Operator]) -> None:
    operator = bound("slab", (24, 1), (6, 1), gap=0.5)
    seen = operator.adjoint(torch.ones(1, 1, 4, 1))[0, 0, :, 0]
    assert seen.reshape(4, 6)[0].tolist() == pytest.approx([0, 1 / 6, 1 / 3, 1 / 3, 1 / 6, 0])
    overlapping = bound("slab", (24, 1), (6, 1), thickness=2.0)
    row = overlapping.adjoint(torch.eye(4)[2].reshape(1, 1, 4, 1))[0, 0, :, 0]
    assert row.tolist() == pytest.approx([0] * 9 + [1 / 12] * 12 + [0] * 3)


def test_conjugate_gradients_say_when_they_fail(monkeypatch: pytest.MonkeyPatch, random_image: Make) -> None:
    monkeypatch.setattr("mrbench.degradation.solve.MAX_ITERATIONS", 1)
    operator = KspaceCrop(KspaceCropOptions()).bind((16, 16), (2, 2))
    with pytest.raises(MrbenchError, match="conjugate gradients stopped"):
        operator.pinv(random_image(1, 1, 8, 8))
