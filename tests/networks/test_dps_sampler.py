"""DPS's gradients, norms and units, with denoisers that are formulas; priors as samplers with steps want them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mrbench_methods.networks.dps_options import DPSOptions
from mrbench_methods.networks.dps_sampler import DPS
from mrbench_methods.networks.gaussian_diffusion import linear_betas
from mrbench_methods.networks.posterior_canvas import Problem, restore
from mrbench_methods.networks.prior import Prediction, Prior
from mrbench_methods.networks.stepped_prior import SteppedPrior
from torch import Tensor

from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.probe import phantom
from mrbench.errors import UserError
from mrbench.plugins import Registry

SCHEDULE = np.cumprod(1 - linear_betas(1000))
SIZE = (32, 24)


def sampler(**options: Any) -> DPS:
    return DPS(SCHEDULE, DPSOptions(**options).settings())


def measured(registry: Registry, name: str = "bicubic_aa", size: tuple[int, int] = SIZE, channels: int = 1) -> Measurement:
    card = registry.degradations.get(name)
    options = {"domain": "complex"} if channels == 2 else {}
    hr = torch.stack([phantom(s, 0, size, channels) for s in "ab"])
    return degrade(hr, ["a", "b"], card.load()(card.parse(options)), (2, 2), seed_key="test")


def problem_of(m: Measurement, draws: int = 1, multiple: int = 1) -> Problem:
    canvas, crop = m.padded(multiple)
    assert canvas.operator is not None
    return Problem(canvas, crop, canvas.operator, draws, canvas.noise(draws))


def smooth(x: Tensor, t: int) -> Prediction:
    """A denoiser with a Jacobian that is no multiple of one: shrinks what is noise under a broad prior, and smooths."""
    a = SCHEDULE[t]
    x0 = torch.nn.functional.avg_pool2d(math.sqrt(a) * x, 3, 1, 1) * 0.5 / (0.5 * a + 1 - a)
    return Prediction(x0, (x - math.sqrt(a) * x0) / math.sqrt(1 - a))


def scaled(factor: float) -> Callable[[Tensor, int], Prediction]:
    return lambda x, t: Prediction(factor * x, x)


# -- the step ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", ["ours", "official"])
def test_the_gradient_of_a_linear_denoiser(variant: str, registry: Registry) -> None:
    """x0 = c x: the gradient of |y - H(x0 / 2 + 1 / 2)| is -c/2 H^T r / |r|; twice that where y counts in [-1, 1]."""
    p = problem_of(measured(registry), draws=2)
    process = sampler(variant=variant, steps=10, zeta=0.8, clip=False)
    step = next(iter(process.trajectory(scaled(0.3), p)))
    r = p.residual(step.x0)
    length = r.flatten(1).norm(dim=1)
    gradient = -0.3 * 0.5 * p.operator.adjoint(r / length.reshape(-1, 1, 1, 1))
    if variant == "official":
        zeta, length, gradient = 0.8, 2 * length, 2 * gradient
    else:
        zeta = 0.8 * math.sqrt(SIZE[0] * SIZE[1]) / 256
    torch.testing.assert_close(step.distance, length)
    torch.testing.assert_close(step.x_next, step.free - zeta * gradient, atol=1e-6, rtol=1e-5)
    assert float((step.x_next - step.free).abs().max()) > 1e-4


def test_saturated_estimates_have_no_gradient(registry: Registry) -> None:
    for clip in (True, False):
        step = next(iter(sampler(steps=10, clip=clip).trajectory(scaled(1e6), problem_of(measured(registry)))))
        assert torch.equal(step.x_next, step.free) == clip
        assert (float(step.x0.abs().max()) <= 1) == clip


def test_an_exact_fit_is_left_alone(registry: Registry) -> None:
    """|r| = 0 has no gradient: the step is the prior's, not NaN."""
    m = measured(registry)
    truth = torch.stack([phantom(s, 0, SIZE, 1) for s in "ab"]) * 2 - 1

    def exact(x: Tensor, t: int) -> Prediction:
        return Prediction(truth.double().float() + 0 * x, x)

    p = problem_of(m)
    object.__setattr__(p, "y", p.operator.forward(p.image(truth)))
    for step in sampler(steps=5).trajectory(exact, p):
        assert float(step.distance.max()) == 0
        assert torch.equal(step.x_next, step.free)


def test_guidance_brings_the_estimate_to_the_measurement(registry: Registry) -> None:
    m = measured(registry)
    left = []
    for zeta in (0.0, 16.0, 128.0):
        p = problem_of(m)
        result = sampler(steps=50, zeta=zeta).sample(smooth, p)
        left.append(float(p.residual(result).square().mean().sqrt()))
    assert left[2] < left[1] < left[0]
    assert left[2] < 0.5 * left[0]


def test_units_of_zeta_do_not_depend_on_the_size(registry: Registry) -> None:
    """The same image twice as large, as channels or pixels: zeta grows with the root of the number of values."""
    small, large, colour = (measured(registry, size=s, channels=c) for s, c in ((SIZE, 1), ((64, 48), 1), (SIZE, 3)))
    process = sampler(zeta=1.0)
    assert process.zeta(problem_of(large)) == pytest.approx(2 * process.zeta(problem_of(small)))
    assert process.zeta(problem_of(colour)) == pytest.approx(math.sqrt(3) * process.zeta(problem_of(small)))
    assert process.zeta(problem_of(small, multiple=16)) == process.zeta(problem_of(small))
    assert sampler(variant="official").zeta(problem_of(large)) == 0.3


def test_only_what_was_measured_counts(registry: Registry) -> None:
    """On a larger canvas the added samples do not pull."""
    p = problem_of(measured(registry, size=(29, 23)), multiple=16)
    assert p.shape == (1, 32, 32)
    assert p.residual(torch.zeros(2, 1, 32, 32)).shape == measured(registry, size=(29, 23)).y.shape
    step = next(iter(sampler(steps=5).trajectory(scaled(0.5), p)))
    moved = (step.x_next - step.free).abs()
    assert float(moved[..., 29:, :].max()) == float(moved[..., 23:].max()) == 0
    assert float(moved[..., :29, :23].max()) > 0


@pytest.mark.parametrize("norm", ["plain", "poisson", "ps+", "mcg"])
@pytest.mark.parametrize("variant", ["ours", "official"])
@pytest.mark.parametrize("channels", [1, 2])
def test_norms(norm: str, variant: str, channels: int, registry: Registry) -> None:
    m = measured(registry, "kspace_crop", channels=channels)
    p = problem_of(m)
    process = sampler(variant=variant, norm=norm, steps=20, zeta=1.0)
    steps = list(process.trajectory(smooth, p))
    assert len(steps) == 20
    assert all(bool(torch.isfinite(s.x_next).all()) and bool((s.distance > 0).all()) for s in steps)
    x = steps[-1].x_next
    plain = sampler(variant=variant, steps=20, zeta=1.0).sample(smooth, problem_of(m))
    assert torch.equal(x, plain) == (norm == "plain")
    if norm == "mcg" and variant == "ours":  # projected: the last state meets what was measured
        assert float(p.residual(x).square().mean().sqrt()) < 1e-4


def test_ddim_draws_only_the_first_noise(registry: Registry) -> None:
    m = measured(registry)
    a = sampler(sampler="ddim", steps="ddim10").sample(smooth, problem_of(m))
    b = sampler(sampler="ddim", steps="ddim10", eta=0.5).sample(smooth, problem_of(m))
    assert float((a - b).abs().max()) > 1e-3
    p = problem_of(m)
    sampler(sampler="ddim", steps="ddim10").sample(smooth, p)
    q = problem_of(m)
    q.noise()
    assert torch.equal(p.noise(), q.noise())


def test_calls_and_progress(registry: Registry) -> None:
    for steps, count in ((7, 7), ("ddim25", 25), ("3,4", 7)):
        process = sampler(steps=steps)
        called: list[int] = []
        seen: list[tuple[int, int]] = []

        def predict(x: Tensor, t: int, called: list[int] = called) -> Prediction:
            called.append(t)
            return smooth(x, t)

        def on_step(done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, total))

        process.sample(predict, problem_of(measured(registry)), on_step)
        assert len(called) == len(seen) == process.calls == count
        assert called == process.diffusion.timestep_map[::-1].tolist()
        assert seen[-1] == (count, count)
    assert sampler(variant="official").calls == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1001}, "steps 1001: between 1 and 1000"),
        ({"steps": "ddim999"}, "steps ddim999: no constant stride"),
        ({"steps": "many"}, "expected a number"),
        ({"eta": 0.5}, "eta 0.5 belongs to sampler=ddim"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampler(**options)


def test_draws_and_batches_inside_inference_mode(registry: Registry) -> None:
    process = sampler(steps=5)
    for norm in ("plain", "ps+", "mcg"):
        process = sampler(steps=5, norm=norm)

        def run(m: Measurement, draws: int, max_batch: int = 16, process: DPS = process) -> Tensor:
            with torch.inference_mode():
                own = replace(m, y=m.y + 0)  # an inference tensor
                return restore(own, draws, 8, max_batch, lambda p: process.sample(smooth, p), "dps", gradients=True)

        m = measured(registry, size=(29, 23))
        several = run(m, 3)
        torch.testing.assert_close(run(m, 3, 2), several, atol=2e-5, rtol=0)
        torch.testing.assert_close(run(m, 1), several[:, :1], atol=2e-5, rtol=0)
        torch.testing.assert_close(run(m.select([1]), 3), several[1:], atol=2e-5, rtol=0)
        assert float((several[:, 0] - several[:, 1]).abs().max()) > 1e-3


# -- priors --------------------------------------------------------------------------------------------------------
class Continuous(Prior):
    """The posterior mean of white images around 0.1 with variance 1/4."""

    channels = 1

    def __init__(self, low: float = 0.02, high: float = 80.0) -> None:
        self.sigma_range = (low, high)
        self.asked: list[float] = []

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked.append(float(sigma[0]))
        s = sigma.reshape(-1, 1, 1, 1) ** 2
        return 0.1 + 0.25 / (0.25 + s) * (x - 0.1)


def test_continuous_priors_get_the_steps_that_they_know(registry: Registry) -> None:
    prior = Continuous()
    stepped = SteppedPrior(prior)
    a = stepped.alphas_cumprod
    sigmas = np.sqrt((1 - a) / a)
    assert 0.02 <= sigmas[0] < 0.03
    assert 75 < sigmas[-1] <= 80
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = stepped.predict(x, 300)
    signal, noise = math.sqrt(a[300]), math.sqrt(1 - a[300])
    torch.testing.assert_close(signal * found.x0 + noise * found.eps, x, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.x0, 0.1 + 0.25 * signal / (0.25 * a[300] + 1 - a[300]) * (x - signal * 0.1))
    process = DPS(a, DPSOptions(steps=20).settings())
    prior.asked.clear()
    process.sample(stepped.predict, problem_of(measured(registry)))
    assert len(prior.asked) == 20
    assert min(prior.asked) >= 0.02
    assert max(prior.asked) <= 80
    with pytest.raises(UserError, match="knows noise between 200 and 300"):
        SteppedPrior(Continuous(200, 300))


def test_grey_priors_take_every_channel_alone() -> None:
    prior = SteppedPrior(Continuous())
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    together = prior.for_channels(3).predict(x, 200)
    for c in range(3):
        torch.testing.assert_close(together.x0[:, c : c + 1], prior.predict(x[:, c : c + 1], 200).x0)
    assert prior.for_channels(2).denoise(x[:, :2], 200).shape == (2, 2, 8, 8)
    assert prior.for_channels(1).prior is prior.prior
