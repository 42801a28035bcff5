"""DiffPIR's time steps, data step and noise, with denoisers that are formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mrbench_methods.networks.diffpir_options import DiffPIROptions
from mrbench_methods.networks.diffpir_sampler import RHO_FLOOR, DiffPIR
from mrbench_methods.networks.gaussian_diffusion import linear_betas
from mrbench_methods.networks.posterior_canvas import Problem, restore
from torch import Tensor

from mrbench.degradation.measurement import Measurement, degrade
from mrbench.engine.probe import phantom
from mrbench.errors import UserError
from mrbench.plugins import Registry

SCHEDULE = np.cumprod(1 - linear_betas(1000))
ODD, EVEN = (45, 37), (48, 40)


def sampler(**options: Any) -> DiffPIR:
    return DiffPIR(SCHEDULE, DiffPIROptions(**options).settings())


def measured(
    registry: Registry, name: str = "bicubic_aa", size: tuple[int, int] = EVEN, scale: Sequence[float] = (4, 4), **options: Any
) -> Measurement:
    card = registry.degradations.get(name)
    hr = torch.stack([phantom(s, 0, size, 2 if options.get("domain") == "complex" else 1) for s in "ab"])
    return degrade(hr, ["a", "b"], card.load()(card.parse(options)), scale, seed_key="test")


def wrong(x: Tensor, t: int) -> Tensor:
    """A poor denoiser: smooth in x, and far from what was measured."""
    return torch.tanh(3 * torch.nn.functional.avg_pool2d(x, 3, 1, 1)) - 0.3


def problem_of(m: Measurement, draws: int = 1, multiple: int = 1) -> Problem:
    canvas, crop = m.padded(multiple)
    assert canvas.operator is not None
    return Problem(canvas, crop, canvas.operator, draws, canvas.noise(draws))


# -- time steps ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("skip", ["quad", "uniform"])
@pytest.mark.parametrize("steps", [1, 2, 20, 100])
def test_time_steps(skip: str, steps: int) -> None:
    process = sampler(steps=steps, skip=skip)
    chosen = process.timesteps
    assert len(chosen) == process.calls == steps
    assert chosen[0] == process.start == 599
    assert list(chosen) == sorted(set(chosen), reverse=True)
    assert steps == 1 or chosen[-1] == 0
    gaps = -np.diff(chosen)
    if skip == "quad" and steps > 2:
        assert gaps[0] > gaps[-1]
    elif steps > 2:
        assert gaps.max() - gaps.min() <= 1


def test_first_step_and_defaults() -> None:
    assert sampler(start=250).timesteps[0] == 250
    assert sampler(init="noise").timesteps[0] == 999
    assert sampler(init="noise", start=700).timesteps[0] == 700
    official = sampler(variant="official")
    assert (official.timesteps[0], official.timesteps[-1], official.calls) == (999, 0, 19)
    assert sampler(variant="official", skip="uniform").calls == 20  # n + 1 steps, the last one not made
    assert sampler(variant="official", final="x0").calls == 20
    assert sampler(variant="official", start=600).timesteps[0] <= 600
    assert DiffPIROptions(variant="official", zeta=0.0).settings().zeta == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 601, "skip": "uniform"}, "steps 601: between start 599 and 0 there is no room"),
        ({"steps": 500}, "skip=uniform holds more"),
        ({"start": 1000}, "start 1000: the prior's schedule has the steps 0 to 999"),
        ({"steps": 20, "start": 10}, "no room for so many"),
        ({"variant": "official", "steps": 600, "skip": "uniform"}, "no room for so many"),
        ({"variant": "official", "steps": 1}, "no room for so many"),
    ],
)
def test_impossible_time_steps(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampler(**options)


# -- the data step -------------------------------------------------------------------------------------------------
def test_units_of_lambda() -> None:
    """The published lambda is four times ours: sigma in [0, 1], sigma_t in [-1, 1]. Floors of both."""
    ours, official = sampler(lam=1.5), sampler(variant="official", lam=6.0)
    for t in (0, 100, 599):
        assert ours.rho(t, 0.05, 0.5) == pytest.approx(official.rho(t, 0.05, 0.5), rel=1e-3)
        assert ours.rho(t, 0.05, 1.0) == pytest.approx(ours.rho(t, 0.05, 0.5) / 4)
        assert ours.rho(t, 0.0, 0.5) == RHO_FLOOR
        assert official.rho(t, 0.0, 0.5) == pytest.approx(6 * 1e-6 / official.sigma(t) ** 2)
    assert sampler(sigma_floor=0.05).rho(100, 0.0, 0.5) == ours.rho(100, 0.05, 0.5) / 1.5


CASES: dict[str, dict[str, Any]] = {
    "kspace_crop hann": {"window": "hann"},
    "kspace_crop complex": {"domain": "complex"},
    "kspace_crop corner": {"align": "corner"},
    "gaussian wide": {"sigma": 4.0},
    "slab": {"in_plane": "area"},
}


def cases(registry: Registry) -> list[tuple[str, dict[str, Any]]]:
    """Every built-in degradation that works in the plane, most with their defaults."""
    names = [n for n in registry.degradations.names() if 2 in registry.degradations.get(n).ndim]
    assert len(names) >= 8
    return [(n, CASES.get(n, {})) for n in names] + [(k.split()[0], o) for k, o in CASES.items() if " " in k]


@pytest.mark.parametrize("size", [EVEN, ODD])
def test_noise_free_measurements_are_met(size: tuple[int, int], registry: Registry) -> None:
    """With a denoiser that knows nothing: within 1e-3 RMS, for every degradation, on canvases that are larger than the image."""
    for name, options in cases(registry):
        for scale in (2, 4):
            m = measured(registry, name, size, (scale, scale), **options)
            process = sampler(steps=4)
            x = restore(m, 2, 16, 16, lambda p, run=process: run.sample(wrong, p, 0.0), "diffpir")
            assert x.shape == (2, 2, m.y.shape[1], *size)
            assert m.operator is not None
            again = m.operator.linear_part.forward(x.flatten(0, 1))
            rms = (again - m.y.repeat_interleave(2, 0)).square().mean((1, 2, 3)).sqrt()
            assert float(rms.max()) <= 1e-3, (name, options, scale, rms)
            assert float(x.abs().max()) < 3, (name, options, scale)


def test_noise_and_guidance_weaken_the_data_step(registry: Registry) -> None:
    m = measured(registry)
    misfit = []
    for options, sigma in (({}, 0.0), ({}, 0.02), ({}, 0.2), ({"lam": 10.0}, 0.2)):
        p = problem_of(m)
        misfit.append(float(p.residual(sampler(steps=4, **options).sample(wrong, p, sigma)).square().mean().sqrt()))
    assert misfit == sorted(misfit)
    assert misfit[0] < misfit[1] < misfit[2] < misfit[3]
    p = problem_of(m)
    half = float(p.residual(sampler(steps=4, guidance=0.5).sample(wrong, p, 0.0)).square().mean().sqrt())
    assert half > 10 * misfit[0]


# -- the way to the next state -------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{"zeta": 0.0}, {"zeta": 0.0, "eta": 0.7}, {"zeta": 0.4, "eta": 0.7}, {"zeta": 1.0}])
@pytest.mark.parametrize("variant", ["ours", "official"])
def test_states_have_the_noise_of_their_step(variant: str, options: dict[str, Any], registry: Registry) -> None:
    """With the true image as estimate, x_t' - sqrt(a') x_0 is noise of variance 1 - a'."""
    m = measured(registry, size=(96, 96))
    p = problem_of(m, draws=8)
    process = sampler(variant=variant, steps=6, **options)
    truth = p.fold(p.state(torch.stack([phantom(s, 0, (96, 96), 1) for s in "ab"])))
    t, after = 500, 200
    a, b = SCHEDULE[t], SCHEDULE[after]
    x = a**0.5 * truth + (1 - a) ** 0.5 * p.noise()
    noise = (process.next(x, truth, t, after, p) - b**0.5 * truth) / (1 - b) ** 0.5
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    left = float((noise * (x - a**0.5 * truth)).mean() / (1 - a) ** 0.5)  # of the old noise
    beta = 1 - a / (SCHEDULE[t - 1] if variant == "official" else b)
    fresh = options.get("eta", 0) ** 2 / (1 - a) * beta  # of DDIM, in units of 1 - b
    assert left == pytest.approx((1 - options["zeta"]) ** 0.5 * (1 - fresh) ** 0.5, abs=0.03)


def test_starts(registry: Registry) -> None:
    p = problem_of(measured(registry), draws=4)
    noise = sampler(init="noise").first(p)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    process = sampler(start=100)
    start, a = process.first(p), SCHEDULE[100]
    rest = (start - a**0.5 * p.upsampled()) / (1 - a) ** 0.5
    assert float(rest.std()) == pytest.approx(1, abs=0.03)


def test_calls_and_progress(registry: Registry) -> None:
    for options in ({}, {"final": "official"}, {"variant": "official"}, {"variant": "official", "skip": "uniform"}):
        process = sampler(**{"steps": 5, **options})
        called: list[int] = []
        seen: list[tuple[int, int]] = []

        def denoise(x: Tensor, t: int, called: list[int] = called) -> Tensor:
            called.append(t)
            return wrong(x, t)

        def on_step(done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, total))

        p = problem_of(measured(registry))
        result = process.sample(denoise, p, 0.0, on_step)
        assert len(called) == process.calls == len(seen)
        assert seen[-1] == (process.calls, process.calls)
        last = list(process.trajectory(wrong, problem_of(measured(registry)), 0.0))[-1]
        assert torch.equal(result, last.data if process.settings.final == "x0" else last.x_next)  # type: ignore[arg-type]
        assert (last.x_next is None) == (process.settings.final == "x0")


def test_a_single_official_step_is_the_start(registry: Registry) -> None:
    process = sampler(steps=1, final="official")
    assert process.calls == 0
    m = measured(registry)
    assert torch.equal(process.sample(wrong, problem_of(m), 0.0), process.first(problem_of(m)))


def test_a_good_denoiser_gives_a_good_image(registry: Registry) -> None:
    """The posterior mean of a Gaussian prior around an image near the truth: nearer than prior and measurement alone."""
    m = measured(registry)
    truth = torch.stack([phantom(s, 0, EVEN, 1) for s in "ab"])
    p = problem_of(m)
    generator = torch.Generator().manual_seed(0)
    spread = 0.2
    centre = p.state(truth) + spread * torch.randn(truth.shape, generator=generator)

    def denoise(x: Tensor, t: int) -> Tensor:
        a = SCHEDULE[t]
        gain = a**0.5 * spread**2 / (a * spread**2 + 1 - a)
        return centre + gain * (x - a**0.5 * centre)

    def rms(state: Tensor) -> float:
        return float((p.image(state) - truth).square().mean().sqrt())

    result = sampler(steps=20).sample(denoise, p, 0.0)
    assert rms(result) < 0.99 * rms(centre)
    assert rms(result) < rms(p.upsampled())


def test_draws_and_batches(registry: Registry) -> None:
    m = measured(registry, size=ODD)
    process = sampler(steps=3)

    def run(m: Measurement, draws: int, max_batch: int = 16) -> Tensor:
        return restore(m, draws, 8, max_batch, lambda p: process.sample(wrong, p, 0.01), "diffpir")

    several = run(m, 3)
    torch.testing.assert_close(run(m, 3, max_batch=2), several, atol=1e-5, rtol=0)
    torch.testing.assert_close(run(m, 1), several[:, :1], atol=1e-5, rtol=0)
    torch.testing.assert_close(run(m.select([1]), 3), several[1:], atol=1e-5, rtol=0)
    assert float((several[:, 0] - several[:, 1]).abs().max()) > 1e-3
    assert float((run(replace(m, seed_key="other"), 1) - several[:, :1]).abs().max()) > 1e-3
